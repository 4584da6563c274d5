//! Owns how figures, rows and commands are put into words, the same in every face of a report.

use crate::policy::Percent;
use crate::report::GateReport;
use crate::verdict::{Mode, Row, Rule, Verdict};
use heaplab_reports::shell;

/// `12,004`: thousands separated; fractions only below a thousand.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs();
    let text = if magnitude >= 1000.0 || magnitude.fract() == 0.0 {
        format!("{magnitude:.0}")
    } else {
        // Three significant digits.
        let digits = (2 - magnitude.log10().floor() as i32).clamp(0, 9) as usize;
        return format!("{value:.digits$}");
    };
    let mut grouped = String::new();
    for (i, digit) in text.chars().enumerate() {
        if i > 0 && (text.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// A value with its unit; bytes in binary multiples.
pub(super) fn value(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => {
            for (shift, name) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
                let one = f64::from(1u32 << shift);
                if value.abs() >= one {
                    return format!("{:.2} {name}", value / one);
                }
            }
            format!("{} B", number(value))
        }
        "count" | "ratio" | "" => number(value),
        unit => format!("{} {unit}", number(value)),
    }
}

/// `+17.6 %`. Small changes get more digits, so that what broke a limit of 0 % is not `+0.0 %`.
pub(super) fn percent(fraction: f64) -> String {
    let value = fraction * 100.0;
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 0.95 || v == 0.0 => 1,
        v if v >= 0.01 => 2,
        _ => 4,
    };
    let text = format!("{value:+.digits$}");
    // No sign before a zero.
    let zero = text
        .trim_start_matches(['+', '-'])
        .chars()
        .all(|c| c == '0' || c == '.');
    format!(
        "{} %",
        if zero {
            text.trim_start_matches(['+', '-'])
        } else {
            &text
        }
    )
}

/// `+1.9 % [-1.2,+5.1]`, or less where less is known.
pub(super) fn change(row: &Row) -> String {
    let Some(change) = row.evidence.change else {
        return String::new();
    };
    let ends = match (row.evidence.low, row.evidence.high) {
        (Some(low), Some(high)) if row.evidence.rule != Rule::Exact => {
            let end = |v: f64| percent(v).trim_end_matches(" %").to_string();
            format!(" [{},{}]", end(low), end(high))
        }
        _ => String::new(),
    };
    format!("{}{ends}", percent(change))
}

/// `12,004 -> 14,120`.
pub(super) fn values(row: &Row) -> String {
    match (row.evidence.base, row.evidence.head) {
        (Some(base), Some(head)) => {
            format!("{} -> {}", value(base, &row.unit), value(head, &row.unit))
        }
        _ => String::new(),
    }
}

/// `exact 2/2`, `64 pairs, could show >= 5.8 %`.
pub(super) fn strength(row: &Row) -> String {
    let evidence = &row.evidence;
    let [base, head] = evidence.runs;
    let mut text = match evidence.rule {
        Rule::Exact => return format!("exact {base}/{head}"),
        Rule::Steady => return format!("steady {base}/{head}"),
        Rule::Paired => format!("{} pairs", evidence.pairs),
        Rule::Unpaired => format!("unpaired {base}/{head}"),
        Rule::None => return String::new(),
    };
    if let Some(could) = evidence.could_show {
        text.push_str(&format!(
            ", could show >= {}",
            percent(could).trim_start_matches('+')
        ));
    }
    text
}

/// `limit 5 %`.
pub(super) fn limit(row: &Row) -> String {
    format!("limit {}", Percent::from_fraction(row.limit))
}

/// The metric, or what stands for a whole cell.
pub(super) fn metric(row: &Row) -> &str {
    if row.metric.is_empty() {
        "(whole cell)"
    } else {
        &row.metric
    }
}

/// `9m12s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

/// `1 regression | 36 pass  2 inconclusive  1 quarantined  0 missing`.
pub(super) fn counts(report: &GateReport) -> String {
    let n = |v| report.count(v);
    let regressions = n(Verdict::Regression);
    let plural = if regressions == 1 { "" } else { "s" };
    let mut parts = vec![format!("{} pass", n(Verdict::Pass))];
    for verdict in [
        Verdict::Improvement,
        Verdict::Accepted,
        Verdict::Contaminated,
        Verdict::Inconclusive,
        Verdict::NotCompared,
        Verdict::Quarantined,
        Verdict::Missing,
    ] {
        // These two are said even when there are none: their absence is a result.
        let always = matches!(verdict, Verdict::Inconclusive | Verdict::Missing);
        if n(verdict) > 0 || always {
            parts.push(format!("{} {}", n(verdict), verdict.word()));
        }
    }
    format!("{regressions} regression{plural} | {}", parts.join("  "))
}

/// `3f2c1a7 -> 91be004, same job`.
pub(super) fn sides(report: &GateReport) -> String {
    let how = match report.mode {
        Mode::SameJob => "same job",
        Mode::Stored => "stored",
    };
    format!("{} -> {}, {how}", report.base, report.head)
}

/// The command that measures only the cell of `row`; empty if no command is known.
pub(super) fn reproduce(report: &GateReport, row: &Row) -> String {
    let command = &report.reproduce;
    if command.is_empty() || command.contains(" --only") {
        return command.clone();
    }
    shell::with_option(command, &format!("--only {}", shell::word(&row.cell)))
}

/// The policy entry that accepts a regression, as TOML lines.
pub(super) fn accept_entry(row: &Row) -> String {
    let value = row
        .evidence
        .head
        .map_or_else(|| "0".into(), |v| format!("{v}"));
    // Quoted as TOML basic strings, whose escapes are those of JSON.
    let text = |s: &str| serde_json::Value::from(s).to_string();
    format!(
        "[[accept]]\ncell = {}\nmetric = {}\nvalue = {value}\nreason = \"why this is wanted\"\n",
        text(&row.cell),
        text(&row.metric),
    )
}

/// How to go on from the red rows: for regressions accept, else what cures them.
pub(super) fn next_step(row: &Row) -> &'static str {
    match row.verdict {
        Verdict::Regression => "accept: [[accept]] in the policy file",
        Verdict::Contaminated => "measure again on a quieter machine",
        _ => "cure the run, or make a new base",
    }
}

/// One line for a red row: `FAIL  parse/json allocations`.
pub(super) fn short(row: &Row) -> String {
    let word = if row.verdict == Verdict::Regression {
        "FAIL"
    } else {
        row.verdict.word()
    };
    format!("{word}  {} {}", row.cell, metric(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(number(14120.0), "14,120");
        assert_eq!(number(1234567.0), "1,234,567");
        assert_eq!(number(999.0), "999");
        assert_eq!(number(38.12), "38.1");
        assert_eq!(number(0.01234), "0.0123");
        assert_eq!(number(-1500.0), "-1,500");
        assert_eq!(value(1536.0, "bytes"), "1.50 KiB");
        assert_eq!(value(38.12, "ns"), "38.1 ns");
        assert_eq!(percent(0.176), "+17.6 %");
        assert_eq!(percent(0.0002), "+0.02 %");
        assert_eq!(percent(0.0), "0.0 %");
        assert_eq!(percent(-0.5), "-50.0 %");
        assert_eq!(percent(-1e-12), "0.0000 %");
        assert_eq!(duration(552.0), "9m12s");
        assert_eq!(duration(7.4), "7s");
        assert_eq!(duration(3720.0), "1h02m");
    }
}
