//! What holds for every input: a larger regression never gets a better verdict, the same input
//! gives the same bytes, and no input makes the gate panic.

mod common;

use common::{cell, metric, set};
use heaplab_ci::{GateReport, Mode, Policy, Verdict, judge, judge_pair, render};
use heaplab_reports::schema::ResultSet;
use proptest::prelude::*;

fn policy() -> Policy {
    Policy::parse(
        "[metric.ops_per_s]\nkind = \"time\"\nlimit = \"+5 %\"\n",
        "p",
    )
    .unwrap()
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "ns_per_op",
        "ops_per_s",
        "instructions",
        "peak_live_bytes",
        "peak_resident_bytes",
        "peak_rss_bytes",
    ])
}

/// A series around 1e7 with the scatter of exact counts, steady memory, or times.
fn series() -> impl Strategy<Value = Vec<f64>> {
    let scatter = prop::sample::select(vec![0.0, 1e-4, 0.01, 0.1]);
    (
        scatter,
        prop::collection::vec(-1.0..1.0f64, 1..30),
        0.9..1.1f64,
    )
        .prop_map(|(scatter, units, centre)| {
            units
                .into_iter()
                .map(|u| (1e7 * centre * (1.0 + scatter * u)).round())
                .collect()
        })
}

fn judge_one(name: &str, base: &[f64], head: &[f64], mode: Mode) -> Verdict {
    let report = match mode {
        Mode::SameJob => {
            let cells = vec![
                cell("w", "base", &[(name, base.to_vec())]),
                cell("w", "head", &[(name, head.to_vec())]),
            ];
            judge_pair(&set(cells), "base", "head", &[], &policy())
        }
        Mode::Stored => judge(
            &set(vec![cell("w", "s", &[(name, base.to_vec())])]),
            &set(vec![cell("w", "s", &[(name, head.to_vec())])]),
            &policy(),
            mode,
        ),
    };
    assert_eq!(report.rows.len(), 1);
    report.rows[0].verdict
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_larger_regression_never_gets_a_better_verdict(
        name in names(),
        base in series(),
        head in series(),
        worse in 1.0..1.5f64,
        stored in any::<bool>(),
    ) {
        let mode = if stored { Mode::Stored } else { Mode::SameJob };
        let factor = if name == "ops_per_s" { 1.0 / worse } else { worse };
        let much: Vec<f64> = head.iter().map(|v| v * factor).collect();
        let before = judge_one(name, &base, &head, mode);
        let after = judge_one(name, &base, &much, mode);
        // The order of `Verdict` is the order of gravity.
        prop_assert!(after >= before, "{before:?} became {after:?}");
    }

    #[test]
    fn a_thing_against_itself_is_never_red(
        name in names(), values in series(), stored in any::<bool>(),
    ) {
        let mode = if stored { Mode::Stored } else { Mode::SameJob };
        let verdict = judge_one(name, &values, &values, mode);
        prop_assert!(matches!(verdict, Verdict::Pass | Verdict::Inconclusive), "{verdict:?}");
    }

    #[test]
    fn any_values_give_a_verdict_and_the_same_bytes(
        name in names(),
        base in prop::collection::vec(any::<f64>(), 0..8),
        head in prop::collection::vec(any::<f64>(), 0..8),
        text in "\\PC{0,12}",
    ) {
        let mut result: ResultSet = set(vec![
            cell(&text, "base", &[(name, base)]),
            cell(&text, "head", &[(name, head.clone())]),
        ]);
        result.cells[0].metrics.insert(text.clone(), metric(name, &head));
        let reports: Vec<GateReport> =
            (0..2).map(|_| judge_pair(&result, "base", "head", &[], &policy())).collect();
        let all = |r: &GateReport| {
            let look = render::Look { color: true, all: true, strict: true };
            (render::files(r, true), render::terminal(r, look), render::annotations(r, true))
        };
        prop_assert_eq!(all(&reports[0]), all(&reports[1]));
    }
}
