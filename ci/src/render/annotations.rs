//! Owns the annotations of GitHub: workflow commands on standard output.

use super::words;
use crate::report::GateReport;
use crate::verdict::{Row, Verdict};

/// GitHub shows ten a step; more than a handful is noise, and the summary has them all.
const MOST: usize = 5;

/// At most five annotations, the gravest rows first; one notice if nothing is red, because
/// silence looks like a gate that did not run.
pub fn annotations(report: &GateReport, strict: bool) -> String {
    let headline = format!("{}: {}", report.headline(strict), words::counts(report));
    let loud =
        |row: &&Row| row.verdict.is_red() || (strict && row.verdict == Verdict::Inconclusive);
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .chain(&report.controls)
        .filter(loud)
        .collect();
    let problems = report
        .problems
        .iter()
        .map(|p| ("heaplab gate".to_string(), p.clone()));
    let mut all: Vec<(String, String)> = problems.collect();
    all.extend(rows.iter().map(|row| {
        let title = format!("{} {} {}", row.verdict.word(), row.cell, words::metric(row));
        let figures = [words::values(row), words::change(row), row.reason.clone()];
        let mut lines: Vec<String> = vec![
            figures
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
                .join("  "),
        ];
        let command = words::reproduce(report, row);
        if !command.is_empty() {
            lines.push(format!("reproduce: {command}"));
        }
        lines.push(words::next_step(row).to_string());
        (title, lines.join("\n"))
    }));
    if all.is_empty() {
        return format!("::notice title=heaplab gate::{}\n", data(&headline));
    }
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    if let (Some(last), true) = (all.last_mut(), more > 0) {
        last.1
            .push_str(&format!("\nand {more} more in the summary"));
    }
    all.iter()
        .map(|(title, text)| format!("::error title={}::{}\n", property(title), data(text)))
        .collect()
}

/// Escapes as workflow commands want them.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// As [`data`], for a property, which a colon or comma would end.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
