//! What overrules a rule: controls, quarantine and acceptance, and what they may not touch.

mod common;

use common::{cell, metric, only, pair, set, times};
use heaplab_ci::{Mode, Policy, Verdict, judge, judge_pair};
use heaplab_reports::schema::{ResultSet, Status};

#[test]
fn a_moved_control_takes_the_verdict_away() {
    let result = |control: f64| {
        set(vec![
            cell(
                "churn",
                "base",
                &[("ns_per_op", times(1.0)), ("instructions", vec![1e6; 2])],
            ),
            cell(
                "churn",
                "head",
                &[("ns_per_op", times(1.1)), ("instructions", vec![1e6; 2])],
            ),
            cell("churn", "jemalloc", &[("ns_per_op", times(1.0))]),
            cell("churn", "jemalloc#2", &[("ns_per_op", times(control))]),
        ])
    };
    let controls = ["jemalloc".to_string()];
    let run = |r: &ResultSet| judge_pair(r, "base", "head", &controls, &Policy::default());
    let report = run(&result(1.0));
    assert_eq!(report.exit_status(false), 1);
    assert_eq!(report.controls[0].reason, "machine steady");
    // Both ways count, and only rows of that kind lose their verdict.
    for factor in [1.08, 0.93] {
        let report = run(&result(factor));
        assert_eq!(report.exit_status(false), 6, "{report:#?}");
        assert_eq!(
            (
                report.count(Verdict::Contaminated),
                report.count(Verdict::Pass)
            ),
            (1, 1)
        );
        let row = report
            .rows
            .iter()
            .find(|r| r.verdict == Verdict::Contaminated)
            .unwrap();
        assert_eq!(row.would_be, Some(Verdict::Regression));
    }
    // An exact regression stands, whatever the clock did.
    let mut both = result(1.08);
    both.cells[1]
        .metrics
        .insert("instructions".into(), metric("instructions", &[2e6, 2e6]));
    assert_eq!(run(&both).exit_status(false), 1);
    // A control that was asked for and is not there is no control.
    let report = judge_pair(
        &result(1.0),
        "base",
        "head",
        &["x".into()],
        &Policy::default(),
    );
    assert!(report.problems[0].contains("`x`"));
    let mut without = result(1.0);
    without.cells[1] = cell(
        "churn",
        "head",
        &[("ns_per_op", times(1.0)), ("instructions", vec![1e6; 2])],
    );
    without.cells.pop();
    assert_eq!(run(&without).exit_status(false), 4);
}

#[test]
fn quarantine_hides_noise_and_no_failure() {
    let entry = |until: &str| {
        let text = format!(
            "[[quarantine]]\ncell = \"churn*\"\nmetric = \"ns_*\"\nreason = \"two speeds\"\n\
             date = \"2026-11-24\"\n{until}"
        );
        Policy::parse(&text, "p").unwrap()
    };
    let result = set(vec![
        cell(
            "churn",
            "base",
            &[("ns_per_op", times(1.0)), ("instructions", vec![1e6; 2])],
        ),
        cell(
            "churn",
            "head",
            &[("ns_per_op", times(1.2)), ("instructions", vec![1e6; 2])],
        ),
    ]);
    let report = judge_pair(&result, "base", "head", &[], &entry(""));
    assert_eq!(
        (report.count(Verdict::Quarantined), report.exit_status(true)),
        (1, 0)
    );
    assert_eq!(report.rows[0].would_be, Some(Verdict::Regression));
    assert_eq!(
        report.tests, 0,
        "a row that cannot be red needs no share of the level"
    );
    assert!(report.notes.iter().any(|n| n.contains("has holes")));
    // After its last day it has no effect, and the report says so.
    let report = judge_pair(
        &result,
        "base",
        "head",
        &[],
        &entry("until = \"2026-11-24\"\n"),
    );
    assert_eq!(report.exit_status(false), 1);
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("ended on 2026-11-24"))
    );
    let report = judge_pair(
        &result,
        "base",
        "head",
        &[],
        &entry("until = \"2026-11-25\"\n"),
    );
    assert_eq!(report.exit_status(false), 0);
    // A crash is no noise.
    let mut failed = result.clone();
    failed.cells[1].status = Status::Failed;
    let report = judge_pair(&failed, "base", "head", &[], &entry(""));
    assert_eq!(report.exit_status(false), 4);
    // Nothing but quarantine is nothing compared.
    let alone = pair(times(1.0), times(1.0), "ns_per_op");
    assert_eq!(
        judge_pair(&alone, "base", "head", &[], &entry("")).exit_status(false),
        4
    );
}

#[test]
fn acceptance_holds_up_to_its_value() {
    let policy = Policy::parse(
        "[[accept]]\ncell = \"churn\"\nmetric = \"instructions\"\nvalue = 1100000\n\
         reason = \"checks for double free\"\n",
        "p",
    )
    .unwrap();
    let run = |head: f64| {
        let result = pair(vec![1e6; 2], vec![head; 2], "instructions");
        judge_pair(&result, "base", "head", &[], &policy)
    };
    let report = run(1.1e6);
    assert_eq!(
        (only(&report).verdict, report.exit_status(true)),
        (Verdict::Accepted, 0)
    );
    assert_eq!(only(&report).reason, "checks for double free");
    let report = run(1.2e6);
    assert_eq!(
        (only(&report).verdict, report.exit_status(false)),
        (Verdict::Regression, 1)
    );
    assert!(only(&report).reason.contains("worse than the accepted"));
    let report = run(1e6);
    assert_eq!(only(&report).verdict, Verdict::Pass);
    assert!(report.notes.iter().any(|n| n.contains("not needed")));
}

#[test]
fn controls_of_two_result_sets_come_from_the_policy() {
    let policy = Policy::parse("[controls]\nsubjects = [\"jemalloc\"]\n", "p").unwrap();
    let figures = |own: f64, control: f64| {
        set(vec![
            cell("churn", "spanalloc", &[("instructions", vec![own; 2])]),
            cell("churn", "jemalloc", &[("instructions", vec![control; 2])]),
        ])
    };
    let run = |own, control| {
        judge(
            &figures(1e6, 1e6),
            &figures(own, control),
            &policy,
            Mode::Stored,
        )
    };
    assert_eq!(run(1.1e6, 1e6).exit_status(false), 1);
    // Both moved alike: something below them changed, not the allocator.
    assert_eq!(run(1.1e6, 1.1e6).exit_status(false), 6);
}
