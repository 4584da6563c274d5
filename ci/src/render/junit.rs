//! Owns the JUnit XML form, which GitLab, Jenkins and others show in a merge request.

use super::words;
use crate::report::GateReport;
use crate::verdict::{Row, Verdict};
use std::fmt::Write as _;

/// The report as JUnit XML: one test case a row. A regression is a failure, what is missing or
/// contaminated an error, what was not judged is skipped with its reason.
pub fn junit(report: &GateReport, strict: bool) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    let rows = report.rows.iter().map(|r| (r, false));
    for (row, control) in rows.chain(report.controls.iter().map(|r| (r, true))) {
        tests += 1;
        let class = if control {
            format!("control/{}", row.cell)
        } else {
            row.cell.clone()
        };
        let open = format!(
            "    <testcase classname=\"{}\" name=\"{}\"",
            escaped(&class),
            escaped(words::metric(row))
        );
        let message = escaped(&message(row));
        let element = match row.verdict {
            Verdict::Improvement | Verdict::Pass | Verdict::Accepted => {
                let _ = writeln!(
                    cases,
                    "{open}><system-out>{message}</system-out></testcase>"
                );
                continue;
            }
            Verdict::Regression => {
                failures += 1;
                "failure"
            }
            Verdict::Inconclusive if strict => {
                failures += 1;
                "failure"
            }
            Verdict::Missing | Verdict::Contaminated => {
                errors += 1;
                "error"
            }
            Verdict::Inconclusive | Verdict::Quarantined | Verdict::NotCompared => {
                skipped += 1;
                let _ = writeln!(cases, "{open}><skipped message=\"{message}\"/></testcase>");
                continue;
            }
        };
        let detail = escaped(&format!(
            "reproduce: {}\n{}",
            words::reproduce(report, row),
            words::next_step(row)
        ));
        let _ = writeln!(
            cases,
            "{open}><{element} type=\"{}\" message=\"{message}\">{detail}</{element}></testcase>",
            row.verdict.word()
        );
    }
    for (i, problem) in report.problems.iter().enumerate() {
        tests += 1;
        errors += 1;
        let _ = writeln!(
            cases,
            "    <testcase classname=\"gate\" name=\"problem {}\"><error type=\"problem\" \
             message=\"{}\"/></testcase>",
            i + 1,
            escaped(problem)
        );
    }
    let mut ending: Vec<String> = report.notes.iter().map(|n| format!("note: {n}")).collect();
    for row in report.red_rows() {
        ending.push(words::short(row));
        ending.push(format!("  reproduce: {}", words::reproduce(report, row)));
        ending.push(format!("  {}", words::next_step(row)));
    }
    ending.push(format!(
        "{}  exit {}",
        report.headline(strict),
        report.exit_status(strict)
    ));
    let attributes = format!(
        "name=\"heaplab gate\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" \
         skipped=\"{skipped}\" time=\"{:.3}\"",
        report.elapsed_s.unwrap_or(0.0)
    );
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {attributes}>\n  <testsuite \
         {attributes}>\n{cases}    <system-out>{}</system-out>\n  </testsuite>\n</testsuites>\n",
        escaped(&ending.join("\n"))
    )
}

fn message(row: &Row) -> String {
    let parts = [
        row.verdict.word().to_string(),
        words::values(row),
        words::change(row),
        words::strength(row),
        row.reason.clone(),
    ];
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Text for elements and attributes; characters that XML 1.0 cannot hold become `?`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
