//! Owns the gate screen: one line a row, worst first, failures repeated at the end.

use super::words;
use crate::report::GateReport;
use crate::verdict::{Row, Verdict};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How the screen looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// With ANSI colours. Words and signs say the same without them.
    pub color: bool,
    /// Rows that pass are listed too.
    pub all: bool,
    /// Inconclusive is red.
    pub strict: bool,
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const DIM: &str = "2";

/// The report as lines of text.
pub fn terminal(report: &GateReport, look: Look) -> String {
    let paint = |code: &str, text: &str| {
        if look.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    };
    let status = report.exit_status(look.strict);
    let headline = report.headline(look.strict);
    let tone = match headline {
        "PASS" => GREEN,
        "INCONCLUSIVE" => YELLOW,
        _ => RED,
    };
    let mut out = String::new();
    let mut head = format!("{} | {}", words::counts(report), words::sides(report));
    if let Some(seconds) = report.elapsed_s {
        let _ = write!(head, " | {}", words::duration(seconds));
    }
    let _ = writeln!(out, "{}  {}", paint(tone, headline), clean(&head));
    for problem in &report.problems {
        let _ = writeln!(out, "{}  {}", paint(RED, "PROBLEM     "), clean(problem));
    }

    let listed: Vec<&Row> = report
        .rows
        .iter()
        .filter(|r| r.verdict != Verdict::NotCompared)
        .filter(|r| look.all || r.verdict != Verdict::Pass)
        .collect();
    let widths = Widths::of(listed.iter().copied().chain(&report.controls));
    for row in listed {
        let word = match row.verdict {
            Verdict::Regression => "REGRESSION".to_string(),
            verdict => verdict.word().to_string(),
        };
        let code = match row.verdict {
            Verdict::Regression | Verdict::Missing | Verdict::Contaminated => RED,
            Verdict::Inconclusive => YELLOW,
            Verdict::Improvement | Verdict::Pass | Verdict::Accepted => GREEN,
            Verdict::Quarantined | Verdict::NotCompared => DIM,
        };
        let _ = writeln!(
            out,
            "{}  {}",
            paint(code, &format!("{word:<12}")),
            line(row, &widths, look.strict)
        );
        if row.verdict == Verdict::Regression {
            let command = words::reproduce(report, row);
            if !command.is_empty() {
                let _ = writeln!(out, "  reproduce: {}", clean(&command));
            }
            let _ = writeln!(out, "  {}", words::next_step(row));
        }
    }
    for row in &report.controls {
        let code = if row.verdict.is_red() { RED } else { DIM };
        let _ = writeln!(
            out,
            "{}  {}",
            paint(code, &format!("{:<12}", "control")),
            line(row, &widths, look.strict)
        );
    }
    for (reason, rows) in not_compared(report) {
        let _ = writeln!(
            out,
            "{}  {}  ({rows} {})",
            paint(DIM, &format!("{:<12}", "not compared")),
            clean(reason),
            if rows == 1 { "row" } else { "rows" }
        );
    }
    for note in &report.notes {
        let _ = writeln!(out, "! {}", clean(note));
    }
    for row in report.red_rows() {
        let _ = writeln!(out, "{}", paint(RED, &clean(&words::short(row))));
    }
    let _ = writeln!(out, "{}  exit {status}", paint(tone, headline));
    out
}

/// Widths of the columns that are aligned.
struct Widths {
    cell: usize,
    metric: usize,
}

impl Widths {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Widths {
        let mut widths = Widths { cell: 0, metric: 0 };
        for row in rows {
            widths.cell = widths.cell.max(row.cell.chars().count()).min(40);
            widths.metric = widths.metric.max(words::metric(row).chars().count());
        }
        widths
    }
}

fn line(row: &Row, widths: &Widths, strict: bool) -> String {
    let mut parts = vec![format!(
        "{:<cell$}  {:<metric$}",
        clean(&row.cell),
        clean(words::metric(row)),
        cell = widths.cell,
        metric = widths.metric
    )];
    let figures = [words::values(row), words::change(row)].join("  ");
    if !figures.trim().is_empty() {
        parts.push(figures.trim().to_string());
        parts.push(words::limit(row));
        parts.push(words::strength(row));
    }
    match row.verdict {
        Verdict::Inconclusive if strict => parts.push(row.reason.clone()),
        Verdict::Inconclusive => parts.push(format!("{} (not red without --strict)", row.reason)),
        _ => parts.push(row.reason.clone()),
    }
    clean(&parts.join("   "))
}

/// Rows that were not compared, by reason: forty equal lines say no more than one.
pub(super) fn not_compared(report: &GateReport) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for row in report
        .rows
        .iter()
        .filter(|r| r.verdict == Verdict::NotCompared)
    {
        *reasons.entry(row.reason.as_str()).or_insert(0) += 1;
    }
    reasons
}

/// Text from names and reasons without control characters, which could repaint the screen.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
