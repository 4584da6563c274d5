//! The self-test as a table, and its answer in words.

use super::{Expected, Said, SelfTest};
use crate::out;
use heaplab_ci::{Evidence, Verdict};
use heaplab_reports::units;

/// The screen: what was planted, what the gate said, what that means.
pub(super) fn table(test: &SelfTest) -> String {
    let header = ["", "figures", "planted", "the gate says", "change", "by"];
    let rows: Vec<Vec<String>> = test.said.iter().map(row).collect();
    let mut text = format!(
        "self-test of the gate: {}, seed {}, times by {} blocks\n\n{}\n{}\n",
        test.workload,
        test.seed,
        test.blocks,
        out::columns(&header, &rows),
        answer(test)
    );
    for note in &test.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn row(said: &Said) -> Vec<String> {
    let mark = match (said.holds, said.verdict) {
        (false, _) => "WRONG",
        (true, Verdict::Inconclusive) => "open",
        (true, _) => "right",
    };
    vec![
        mark.into(),
        said.figures.into(),
        said.planted.clone(),
        said.verdict.word().into(),
        change(&said.row.evidence),
        said.row.metric.clone(),
    ]
}

fn change(evidence: &Evidence) -> String {
    let Some(change) = evidence.change else {
        return "-".into();
    };
    match (evidence.low, evidence.high) {
        (Some(low), Some(high)) if high > low => format!(
            "{} [{}, {}]",
            units::change(1.0 + change),
            units::change(1.0 + low),
            units::change(1.0 + high)
        ),
        _ => units::change(1.0 + change),
    }
}

/// What a reader does with it.
fn answer(test: &SelfTest) -> String {
    let mut lines = Vec::new();
    for said in test.said.iter().filter(|said| !said.holds) {
        lines.push(match (said.verdict, said.expected) {
            (Verdict::Missing, _) => format!(
                "{}: no figure ({}); cure that before the gate is trusted",
                said.figures, said.row.reason
            ),
            (_, Expected::NotRed) => format!(
                "false alarm: nothing was changed and the gate says {} in {}; this machine cannot judge them, see `heaplab doctor`",
                said.verdict.word(),
                said.row.metric
            ),
            _ => format!(
                "not found: {} and the gate says {} in {}; look at the limits of the policy",
                said.planted,
                said.verdict.word(),
                said.row.metric
            ),
        });
    }
    let open: Vec<&Said> = (test.said.iter())
        .filter(|said| said.holds && said.verdict == Verdict::Inconclusive)
        .collect();
    let shows = (test.said.iter())
        .filter(|said| said.figures == "times" && said.expected == Expected::NotRed)
        .find_map(|said| said.row.evidence.could_show);
    if lines.is_empty() {
        lines.push(match open.len() {
            0 => "the gate works here: silent where nothing changed, and everything planted was found".into(),
            _ => format!(
                "nothing that the gate says here is wrong, but {} of {} could not be decided; more --blocks decide more",
                open.len(),
                test.said.len()
            ),
        });
    }
    if let Some(shows) = shows {
        lines.push(format!(
            "with {} blocks it shows a change in time of {} in 95 of 100 runs on this machine as it is now",
            test.blocks,
            units::percent(shows)
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_ci::{Row, Rule};

    fn said(expected: Expected, verdict: Verdict) -> Said {
        Said {
            planted: "5 % slower".into(),
            figures: "times",
            expected,
            verdict,
            holds: expected.holds(verdict),
            row: Row {
                cell: "churn".into(),
                metric: "ns_per_op".into(),
                unit: "ns".into(),
                kind: None,
                verdict,
                would_be: None,
                evidence: Evidence {
                    rule: Rule::Paired,
                    change: Some(0.051),
                    low: Some(0.03),
                    high: Some(0.07),
                    could_show: Some(0.031),
                    ..Evidence::none()
                },
                limit: 0.05,
                reason: "why".into(),
            },
        }
    }

    fn test(said: Vec<Said>) -> SelfTest {
        SelfTest {
            schema: "heaplab.self-test/1",
            workload: "churn".into(),
            seed: 7,
            blocks: 24,
            said,
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_answer_tells_right_open_and_wrong_apart() {
        let nothing = || said(Expected::NotRed, Verdict::Pass);
        let text = table(&test(vec![
            nothing(),
            said(Expected::NoPass, Verdict::Regression),
        ]));
        assert!(text.contains("everything planted was found"), "{text}");
        assert!(text.contains("+5.1 % [+3.0 %, +7.0 %]"), "{text}");
        assert!(text.contains("a change in time of 3.1 %"), "{text}");
        let text = table(&test(vec![
            nothing(),
            said(Expected::NoPass, Verdict::Inconclusive),
        ]));
        assert!(text.contains("1 of 2 could not be decided"), "{text}");
        let text = table(&test(vec![
            said(Expected::NotRed, Verdict::Regression),
            said(Expected::NoPass, Verdict::Pass),
        ]));
        assert!(text.contains("false alarm: nothing was changed"), "{text}");
        assert!(text.contains("not found: 5 % slower"), "{text}");
        assert!(!text.contains("the gate works"), "{text}");
    }
}
