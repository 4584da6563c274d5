//! The rules, one by one, on figures small enough to check by hand.

mod common;

use common::{cell, only, pair, set, times};
use heaplab_ci::{GateReport, Mode, Policy, Rule, Verdict, judge, judge_pair};
use heaplab_reports::schema::{Better, Cell, ResultSet, Status};

fn gate(result: &ResultSet) -> GateReport {
    judge_pair(result, "base", "head", &[], &Policy::default())
}

fn verdict_of(name: &str, base: &[f64], head: &[f64]) -> Verdict {
    only(&gate(&pair(base.to_vec(), head.to_vec(), name))).verdict
}

#[test]
fn two_copies_of_the_same_thing_pass() {
    let figures = |subject: &str| {
        cell(
            "churn",
            subject,
            &[
                ("ns_per_op", times(1.0)),
                ("instructions", vec![104_211_873.0, 104_211_873.0]),
                ("peak_live_bytes", vec![1e6, 1e6]),
                ("peak_resident_bytes", vec![1.5e6, 1.501e6]),
            ],
        )
    };
    let report = gate(&set(vec![figures("base"), figures("head")]));
    assert_eq!(report.count(Verdict::Pass), 4, "{report:#?}");
    assert_eq!(
        (report.exit_status(false), report.exit_status(true)),
        (0, 0)
    );
    assert_eq!(report.headline(true), "PASS");
}

#[test]
fn a_few_instructions_more_a_call_fail() {
    // A call of 60 instructions that became 63.
    let report = gate(&pair(vec![60e6, 60e6], vec![63e6, 63e6], "instructions"));
    let row = only(&report);
    assert_eq!(
        (row.verdict, report.exit_status(false)),
        (Verdict::Regression, 1)
    );
    assert_eq!(row.evidence.rule, Rule::Exact);
    assert!((row.evidence.change.unwrap() - 0.05).abs() < 1e-12);
    // At the limit of 0.5 % it passes, just beyond it does not; fewer are an improvement.
    assert_eq!(
        verdict_of("instructions", &[1e6, 1e6], &[1.005e6, 1.005e6]),
        Verdict::Pass
    );
    assert_eq!(
        verdict_of("instructions", &[1e6, 1e6], &[1.00502e6, 1.0051e6]),
        Verdict::Regression
    );
    assert_eq!(
        verdict_of("instructions", &[1e6, 1e6], &[0.98e6, 0.98e6]),
        Verdict::Improvement
    );
    // A limit of zero means zero.
    assert_eq!(
        verdict_of("peak_live_bytes", &[9e6, 9e6], &[9_000_001.0; 2]),
        Verdict::Regression
    );
}

#[test]
fn counts_that_do_not_repeat_are_judged_as_noisy() {
    let report = gate(&pair(
        vec![1e6, 1.001e6],
        vec![1.1e6, 1.1e6],
        "instructions",
    ));
    assert_eq!(only(&report).verdict, Verdict::Inconclusive);
    assert_eq!(only(&report).evidence.rule, Rule::Paired);
    let noisy = |f: f64| {
        (0..20)
            .map(|i| f * (1e6 + f64::from(i * 97 % 20) * 100.0))
            .collect()
    };
    let report = gate(&pair(noisy(1.0), noisy(1.1), "instructions"));
    assert_eq!(only(&report).verdict, Verdict::Regression, "{report:#?}");
    // One run shows nothing about repeating.
    let report = gate(&pair(vec![1e6], vec![2e6], "instructions"));
    assert_eq!(only(&report).verdict, Verdict::Inconclusive);
    assert!(only(&report).reason.contains("two runs a side"));
}

#[test]
fn twenty_percent_more_memory_fails() {
    let name = "peak_resident_bytes";
    assert_eq!(
        verdict_of(name, &[50e6, 50.2e6], &[60e6, 60.3e6]),
        Verdict::Regression
    );
    assert_eq!(
        verdict_of(name, &[50e6, 50.2e6], &[51e6, 51.3e6]),
        Verdict::Pass
    );
    assert_eq!(
        verdict_of(name, &[60e6, 60.3e6], &[50e6, 50.2e6]),
        Verdict::Improvement
    );
    // Around the limit, with runs that scatter: neither.
    assert_eq!(
        verdict_of(name, &[50e6, 50.8e6], &[52.2e6, 53e6]),
        Verdict::Inconclusive
    );
    // 20 % of next to nothing is nothing.
    assert_eq!(
        verdict_of(name, &[1e5, 1e5], &[1.2e5, 1.2e5]),
        Verdict::Pass
    );
    // Without any memory at all in the base, bytes decide.
    assert_eq!(verdict_of(name, &[0.0, 0.0], &[0.0, 0.0]), Verdict::Pass);
    assert_eq!(
        verdict_of(name, &[0.0, 0.0], &[1e6, 1e6]),
        Verdict::Regression
    );
    // Programs do not repeat: the same change needs pairs.
    let name = "peak_rss_bytes";
    assert_eq!(
        verdict_of(name, &[50e6, 50.2e6], &[60e6, 60.3e6]),
        Verdict::Inconclusive
    );
    let rss = |f: f64| -> Vec<f64> {
        (0..24)
            .map(|i| f * (5e7 + f64::from(i * 7 % 24) * 1e5))
            .collect()
    };
    assert_eq!(verdict_of(name, &rss(1.0), &rss(1.2)), Verdict::Regression);
}

#[test]
fn times_need_pairs_and_a_size_that_matters() {
    let name = "ns_per_op";
    assert_eq!(
        verdict_of(name, &times(1.0), &times(1.06)),
        Verdict::Regression
    );
    assert_eq!(
        verdict_of(name, &times(1.0), &times(0.94)),
        Verdict::Improvement
    );
    // Shown to be worse, but by 1 %, and shown to be below 5 %.
    assert_eq!(verdict_of(name, &times(1.0), &times(1.01)), Verdict::Pass);
    // Double the time in five pairs is no proof at this level.
    let report = gate(&pair(
        times(1.0)[..5].to_vec(),
        times(2.0)[..5].to_vec(),
        name,
    ));
    assert_eq!(only(&report).verdict, Verdict::Inconclusive);
    assert!(
        only(&report).reason.contains("12 are needed"),
        "{}",
        only(&report).reason
    );
    assert_eq!(
        (report.exit_status(false), report.exit_status(true)),
        (0, 5)
    );
    assert_eq!(
        report.headline(false),
        "INCONCLUSIVE",
        "nothing was shown to be well"
    );
    // Wild noise around no change: neither worse nor within the limit.
    let wild: Vec<f64> = times(1.0)
        .iter()
        .enumerate()
        .map(|(i, t)| t * [0.7, 1.4, 1.05, 0.9][i % 4])
        .collect();
    let report = gate(&pair(times(1.0), wild, name));
    assert_eq!(only(&report).verdict, Verdict::Inconclusive);
    assert!(only(&report).evidence.could_show.unwrap() > 0.1);
}

#[test]
fn only_blocks_with_both_sides_are_pairs() {
    let mut result = pair(times(1.0), times(1.06), "ns_per_op");
    for sample in &mut result.cells[1]
        .metrics
        .get_mut("ns_per_op")
        .unwrap()
        .samples
    {
        sample.block += 14;
    }
    let report = gate(&result);
    assert_eq!(
        (only(&report).evidence.pairs, only(&report).verdict),
        (10, Verdict::Inconclusive)
    );
}

#[test]
fn larger_is_better_turns_the_rule_round() {
    let policy = Policy::parse(
        "[metric.ops_per_s]\nkind = \"time\"\nlimit = \"+5 %\"\n",
        "p",
    )
    .unwrap();
    let faster = pair(times(1.0), times(1.1), "ops_per_s");
    assert_eq!(faster.cells[0].metrics["ops_per_s"].better, Better::Higher);
    let report = judge_pair(&faster, "base", "head", &[], &policy);
    assert_eq!(only(&report).verdict, Verdict::Improvement);
    assert!(
        only(&report).evidence.change.unwrap() > 0.09,
        "the figure itself grew"
    );
    let report = judge_pair(&faster, "head", "base", &[], &policy);
    assert_eq!(only(&report).verdict, Verdict::Regression);
    let row = only(&report);
    assert!(row.evidence.low.unwrap() <= row.evidence.change.unwrap());
    assert!(row.evidence.change.unwrap() <= row.evidence.high.unwrap());
}

#[test]
fn the_level_is_shared_by_all_tests_of_the_run() {
    let many = |n: usize| {
        let cells = (0..n).flat_map(|i| {
            let name = format!("w{i}");
            ["base", "head"].map(|s| cell(&name, s, &[("ns_per_op", times(1.0))]))
        });
        gate(&set(cells.collect()))
    };
    assert_eq!((many(1).tests, many(40).tests), (1, 40));
    let alpha = |r: &GateReport| r.rows[0].evidence.alpha.unwrap();
    assert!((alpha(&many(40)) - 0.01 / 40.0).abs() < 1e-15);
    // With more tests than 12 pairs can serve, more pairs are asked for.
    let cells = (0..100).flat_map(|i| {
        let name = format!("w{i}");
        ["base", "head"].map(|s| cell(&name, s, &[("ns_per_op", times(1.0)[..12].to_vec())]))
    });
    let report = gate(&set(cells.collect()));
    assert_eq!(report.count(Verdict::Inconclusive), 100);
    assert!(
        report.rows[0].reason.contains("14 are needed"),
        "{}",
        report.rows[0].reason
    );
}

fn missing(result: &ResultSet, words: &str) {
    let report = gate(result);
    let found = report
        .rows
        .iter()
        .any(|r| r.verdict == Verdict::Missing && r.reason.contains(words));
    assert!(found, "{words}: {report:#?}");
    assert_eq!(report.exit_status(false), 4);
    assert_eq!(report.headline(false), "INCOMPLETE");
}

#[test]
fn what_is_missing_is_never_a_pass() {
    let counts = || vec![1e6, 1e6];
    let good = pair(counts(), counts(), "instructions");
    assert_eq!(gate(&good).exit_status(true), 0);
    let with = |change: &dyn Fn(&mut ResultSet)| {
        let mut result = good.clone();
        // A second, healthy pair: one good cell must not hide the bad one.
        result
            .cells
            .push(cell("larson", "base", &[("instructions", counts())]));
        result
            .cells
            .push(cell("larson", "head", &[("instructions", counts())]));
        change(&mut result);
        result
    };
    missing(&with(&|r| drop(r.cells.remove(1))), "head lacks the cell");
    missing(&with(&|r| drop(r.cells.remove(0))), "base lacks the cell");
    missing(
        &with(&|r| r.cells[1].metrics.clear()),
        "head lacks this metric",
    );
    missing(
        &with(&|r| r.cells[0].metrics.clear()),
        "base lacks this metric",
    );
    missing(
        &with(&|r| r.cells[1].workload_hash = "other".into()),
        "another one",
    );
    let fail = |cell: &mut Cell, status| {
        cell.status = status;
        cell.reason = Some("overlapping blocks at op 17".into());
    };
    missing(
        &with(&|r| fail(&mut r.cells[1], Status::Failed)),
        "head failed: overlapping blocks",
    );
    missing(
        &with(&|r| fail(&mut r.cells[0], Status::Skipped)),
        "base was skipped",
    );
    missing(
        &with(&|r| r.cells.push(r.cells[1].clone())),
        "more than once",
    );
    let value = |r: &mut ResultSet, v: f64| {
        r.cells[1].metrics.get_mut("instructions").unwrap().samples[0].value = v;
    };
    missing(&with(&|r| value(r, f64::NAN)), "impossible value");
    missing(&with(&|r| value(r, -1.0)), "impossible value");
    missing(
        &with(&|r| r.cells[1].metrics.get_mut("instructions").unwrap().mode = "fast".into()),
        "mode differs",
    );
    missing(
        &with(&|r| {
            r.cells[1]
                .metrics
                .get_mut("instructions")
                .unwrap()
                .samples
                .clear()
        }),
        "no run",
    );
    missing(
        &with(&|r| {
            r.cells[0].metrics.clear();
            r.cells[1].metrics.clear();
        }),
        "neither side has a metric that the policy judges",
    );
}

#[test]
fn a_required_metric_that_nobody_measured_is_missing() {
    let text = "[metric.instructions]\nrequired = true\n";
    let policy = Policy::parse(text, "p").unwrap();
    let report = judge_pair(
        &pair(times(1.0), times(1.0), "ns_per_op"),
        "base",
        "head",
        &[],
        &policy,
    );
    assert_eq!(
        (report.count(Verdict::Missing), report.exit_status(false)),
        (1, 4)
    );
}

#[test]
fn an_empty_or_unfinished_result_never_passes() {
    let policy = Policy::default();
    let empty = set(Vec::new());
    for report in [
        gate(&empty),
        judge(&empty, &empty, &policy, Mode::Stored),
        judge(&empty, &empty, &policy, Mode::SameJob),
        judge_pair(
            &pair(vec![1e6; 2], vec![1e6; 2], "instructions"),
            "x",
            "y",
            &[],
            &policy,
        ),
    ] {
        assert_eq!(report.exit_status(false), 4);
        assert!(
            report
                .problems
                .iter()
                .any(|p| p.contains("nothing was compared"))
        );
    }
    let mut unfinished = pair(vec![1e6; 2], vec![1e6; 2], "instructions");
    unfinished.complete = false;
    assert_eq!(gate(&unfinished).exit_status(false), 4);
    // A label against itself would always pass.
    let result = pair(vec![1e6; 2], vec![1e6; 2], "instructions");
    let report = judge_pair(&result, "base", "base", &[], &policy);
    assert_eq!(report.exit_status(false), 4);
    assert!(report.problems[0].contains("same label"));
}

#[test]
fn stored_times_are_compared_only_within_one_job() {
    let old = set(vec![cell(
        "churn",
        "spanalloc",
        &[("ns_per_op", times(1.0))],
    )]);
    let new = set(vec![cell(
        "churn",
        "spanalloc",
        &[("ns_per_op", times(1.5))],
    )]);
    let policy = Policy::default();
    let other = |change: &dyn Fn(&mut ResultSet)| {
        let mut new = new.clone();
        change(&mut new);
        let report = judge(&old, &new, &policy, Mode::Stored);
        assert_eq!(only(&report).verdict, Verdict::NotCompared);
        assert_eq!(report.exit_status(false), 4, "nothing compared");
        only(&report).reason.clone()
    };
    assert!(other(&|r| r.machine.host_id = "host-b".into()).contains("another host"));
    assert!(
        other(&|r| {
            r.machine.host_id = "host-b".into();
            r.machine.cpu = "Other".into();
        })
        .contains("another CPU")
    );
    assert!(
        other(&|r| drop(r.machine.details.insert("job".into(), "job-2".into()))).contains("job")
    );
    assert!(other(&|r| r.machine.details.clear()).contains("job"));
    // The same job: separate runs, so the drift allowed counts on top.
    let steady = |f: f64| {
        let v: Vec<f64> = (0..24)
            .map(|i| f * (40.0 + f64::from(i * 7 % 24) / 60.0))
            .collect();
        set(vec![cell("churn", "spanalloc", &[("ns_per_op", v)])])
    };
    let verdict = |f: f64| {
        let report = judge(&steady(1.0), &steady(f), &policy, Mode::Stored);
        assert_eq!(only(&report).evidence.rule, Rule::Unpaired);
        only(&report).verdict
    };
    assert_eq!(verdict(1.0), Verdict::Pass);
    assert_eq!(
        verdict(1.025),
        Verdict::Pass,
        "a drift of 2.5 % alone is no regression"
    );
    assert_eq!(verdict(1.12), Verdict::Regression);
    assert_eq!(verdict(0.88), Verdict::Improvement);
}

#[test]
fn stored_memory_is_compared_only_under_like_conditions() {
    let figure = |v: f64| {
        set(vec![cell(
            "churn",
            "s",
            &[("peak_resident_bytes", vec![v; 2])],
        )])
    };
    let policy = Policy::default();
    let run = |new: &ResultSet| judge(&figure(5e7), new, &policy, Mode::Stored);
    assert_eq!(only(&run(&figure(6e7))).verdict, Verdict::Regression);
    let mut thp = figure(6e7);
    thp.machine.thp = "always".into();
    assert_eq!(only(&run(&thp)).verdict, Verdict::NotCompared);
    assert!(only(&run(&thp)).reason.contains("huge-page"));
    // Exact counts are compared always.
    let count = |v: f64| set(vec![cell("churn", "s", &[("instructions", vec![v; 2])])]);
    let mut other = count(2e6);
    other.machine.thp = "always".into();
    other.machine.host_id = "host-b".into();
    other.machine.cpus = 64;
    other.cells[0].cpus = 64;
    let report = judge(&count(1e6), &other, &policy, Mode::Stored);
    assert_eq!(only(&report).verdict, Verdict::Regression);
}

#[test]
fn a_new_cell_in_a_stored_comparison_is_shown_and_not_red() {
    let counts = || [("instructions", vec![1e6, 1e6])];
    let old = set(vec![cell("churn", "s", &counts())]);
    let new = set(vec![
        cell("churn", "s", &counts()),
        cell("larson", "s", &counts()),
    ]);
    let report = judge(&old, &new, &Policy::default(), Mode::Stored);
    assert_eq!(
        (report.count(Verdict::NotCompared), report.exit_status(true)),
        (1, 0)
    );
    // The other way round a cell was lost.
    let report = judge(&new, &old, &Policy::default(), Mode::Stored);
    assert_eq!(report.exit_status(false), 4);
}

#[test]
fn two_programs_are_one_pair_though_their_commands_differ() {
    let program = |command: &str, subject: &str, v: f64| {
        let mut c = cell(command, subject, &[("instructions", vec![v; 2])]);
        c.api = "program".into();
        c
    };
    let result = set(vec![
        program("./old", "base", 1e6),
        program("./new", "head", 1.2e6),
    ]);
    let report = gate(&result);
    assert_eq!(only(&report).verdict, Verdict::Regression);
}
