//! Owns the Markdown form, for a step summary or a comment.

use super::{terminal, words};
use crate::report::GateReport;
use crate::verdict::{Row, Verdict};
use std::fmt::Write as _;

/// Rows that pass are listed up to here: a step summary may have 1 MiB.
const MOST_PASSES: usize = 500;

/// The report as GitHub-flavoured Markdown.
pub fn markdown(report: &GateReport, strict: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "## heaplab gate: {}\n", report.headline(strict));
    let mut head = format!("{} | {}", words::counts(report), words::sides(report));
    if let Some(seconds) = report.elapsed_s {
        let _ = write!(head, " | {}", words::duration(seconds));
    }
    let _ = writeln!(out, "{}\n", escaped(&head));
    for problem in &report.problems {
        let _ = writeln!(out, "- **problem**: {}", escaped(problem));
    }
    if !report.problems.is_empty() {
        out.push('\n');
    }
    let quiet = [Verdict::Pass, Verdict::NotCompared];
    table(
        &mut out,
        report.rows.iter().filter(|r| !quiet.contains(&r.verdict)),
    );
    if !report.controls.is_empty() {
        out.push_str("**Controls** (must not move)\n\n");
        table(&mut out, report.controls.iter());
    }
    for (reason, rows) in terminal::not_compared(report) {
        let _ = writeln!(out, "- not compared ({rows} rows): {}", escaped(reason));
    }
    for note in &report.notes {
        let _ = writeln!(out, "- note: {}", escaped(note));
    }
    let passes = report.count(Verdict::Pass);
    if passes > 0 {
        let _ = writeln!(out, "\n<details><summary>{passes} pass</summary>\n");
        let rows = report.rows.iter().filter(|r| r.verdict == Verdict::Pass);
        table(&mut out, rows.take(MOST_PASSES));
        if passes > MOST_PASSES {
            let _ = writeln!(out, "and {} more\n", passes - MOST_PASSES);
        }
        out.push_str("</details>\n");
    }
    ending(&mut out, report, strict);
    out
}

/// What is red, once more, with how to reproduce and how to accept it.
fn ending(out: &mut String, report: &GateReport, strict: bool) {
    out.push('\n');
    let red: Vec<&Row> = report.red_rows().collect();
    for row in &red {
        let _ = writeln!(out, "- **{}**", escaped(&words::short(row)));
    }
    if let Some(first) = red.first() {
        let command = words::reproduce(report, first);
        if !command.is_empty() {
            let _ = writeln!(out, "\nReproduce the first:\n{}", fenced("sh", &command));
        }
        if first.verdict == Verdict::Regression {
            let entry = words::accept_entry(first);
            let _ = writeln!(
                out,
                "\nIf it is wanted, accept it in the policy file:\n{}",
                fenced("toml", &entry)
            );
        }
    }
    let _ = writeln!(
        out,
        "\n**{}**, exit {}",
        report.headline(strict),
        report.exit_status(strict)
    );
}

fn table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    out.push_str("| verdict | cell | metric | base -> head | change | limit | evidence | why |\n");
    out.push_str("|---|---|---|---|---:|---:|---|---|\n");
    for row in rows {
        let limit = words::limit(row);
        let columns = [
            row.verdict.word(),
            &row.cell,
            words::metric(row),
            &words::values(row),
            &words::change(row),
            limit.trim_start_matches("limit "),
            &words::strength(row),
            &row.reason,
        ];
        let columns: Vec<String> = columns.iter().map(|c| escaped(c)).collect();
        let _ = writeln!(out, "| {} |", columns.join(" | "));
    }
    out.push('\n');
}

/// A code block whose fence the text cannot close.
fn fenced(language: &str, text: &str) -> String {
    let mut fence = "```".to_string();
    while text.contains(&fence) {
        fence.push('`');
    }
    format!("{fence}{language}\n{}\n{fence}", text.trim_end())
}

/// Names and reasons come from files: they must not become markup.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Breaks mentions of people in comments without changing what is seen.
            '@' => out.push_str("&#64;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
