//! Owns the JSON form: the report with its outcome, and the red rows once more at the end.

use super::words;
use crate::report::GateReport;
use crate::verdict::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Whole<'a> {
    outcome: &'static str,
    exit_status: u8,
    strict: bool,
    counts: BTreeMap<&'static str, usize>,
    #[serde(flatten)]
    report: &'a GateReport,
    failing: Vec<Failing<'a>>,
}

#[derive(Serialize)]
struct Failing<'a> {
    cell: &'a str,
    metric: &'a str,
    verdict: Verdict,
    reason: &'a str,
    reproduce: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    accept: Option<String>,
}

/// The report as one JSON object, schema `heaplab.gate/1`; the same report always gives the same
/// bytes.
pub fn json(report: &GateReport, strict: bool) -> String {
    let whole = Whole {
        outcome: report.headline(strict),
        exit_status: report.exit_status(strict),
        strict,
        counts: Verdict::ALL
            .iter()
            .map(|v| (v.word(), report.count(*v)))
            .collect(),
        report,
        failing: report
            .red_rows()
            .map(|row| Failing {
                cell: &row.cell,
                metric: &row.metric,
                verdict: row.verdict,
                reason: &row.reason,
                reproduce: words::reproduce(report, row),
                accept: (row.verdict == Verdict::Regression).then(|| words::accept_entry(row)),
            })
            .collect(),
    };
    match serde_json::to_string_pretty(&whole) {
        Ok(text) => text + "\n",
        // Only maps with keys that are no text can fail, and there are none.
        Err(e) => unreachable!("{e}"),
    }
}
