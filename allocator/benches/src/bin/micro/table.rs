//! The table and the JSON that leave the program.

use crate::Row;
use spanalloc_benches::ALLOCATORS;
use std::fmt::Write;

/// Geometric mean of the ratios of column `at` to the last column, the system's allocator.
fn mean_ratio(rows: &[Row], at: usize) -> f64 {
    let system = ALLOCATORS.len() - 1;
    let sum: f64 = rows
        .iter()
        .map(|row| (row.nanoseconds[at] / row.nanoseconds[system]).ln())
        .sum();
    (sum / rows.len() as f64).exp()
}

/// A figure with three digits that matter, at least.
fn figure(value: f64) -> String {
    match value {
        v if v < 100.0 => format!("{v:.2}"),
        v if v < 10_000.0 => format!("{v:.0}"),
        v if v < 1e7 => format!("{:.1}k", v / 1e3),
        v => format!("{:.2}M", v / 1e6),
    }
}

/// Rows for people: nanoseconds per operation, the ratio to the system's allocator, the goal.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::from("nanoseconds per operation");
    let _ = write!(out, "\n{:24}", "case");
    for allocator in ALLOCATORS {
        let _ = write!(out, "{:>11}", allocator.name);
    }
    let _ = writeln!(out, "{:>10}{:>9}", "/ system", "goal");
    let system = ALLOCATORS.len() - 1;
    for row in rows {
        let _ = write!(out, "{:24}", row.name);
        for value in row.nanoseconds {
            let _ = write!(out, "{:>11}", figure(value));
        }
        let _ = write!(
            out,
            "{:>10.2}",
            row.nanoseconds[0] / row.nanoseconds[system]
        );
        match row.goal {
            Some(goal) => {
                let mark = if row.nanoseconds[0] <= goal {
                    ""
                } else {
                    " missed"
                };
                let _ = writeln!(out, "{:>9}{mark}", figure(goal));
            }
            None => {
                let _ = writeln!(out, "{:>9}", "-");
            }
        }
    }
    let _ = write!(out, "{:24}", "geometric mean / system");
    for at in 0..ALLOCATORS.len() {
        let _ = write!(out, "{:>11.3}", mean_ratio(rows, at));
    }
    out.push('\n');
    out
}

/// Rows for programs: one object with the cases and the geometric means.
pub fn json(rows: &[Row]) -> String {
    let mut out = String::from("{\n  \"unit\": \"ns\",\n  \"cases\": [\n");
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(out, "    {{\"case\": \"{}\"", row.name);
        for (allocator, value) in ALLOCATORS.iter().zip(row.nanoseconds) {
            let _ = write!(out, ", \"{}\": {value:.3}", allocator.name);
        }
        if let Some(goal) = row.goal {
            let _ = write!(out, ", \"goal\": {goal}");
        }
        out.push_str(if number + 1 < rows.len() {
            "},\n"
        } else {
            "}\n"
        });
    }
    out.push_str("  ],\n  \"geometric_mean_to_system\": {");
    for (at, allocator) in ALLOCATORS.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(
            out,
            "{comma}\"{}\": {:.4}",
            allocator.name,
            mean_ratio(rows, at)
        );
    }
    out.push_str("}\n}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_geometric_and_relative_to_the_system() {
        let rows = [
            Row {
                name: "a",
                goal: Some(1.0),
                nanoseconds: [1.0, 2.0, 4.0, 4.0],
            },
            Row {
                name: "b",
                goal: None,
                nanoseconds: [4.0, 2.0, 1.0, 1.0],
            },
        ];
        assert!((mean_ratio(&rows, 0) - 1.0).abs() < 1e-12);
        assert!((mean_ratio(&rows, 3) - 1.0).abs() < 1e-12);
        let text = text(&rows);
        assert!(text.contains("0.25") && !text.contains("missed"), "{text}");
        assert!(json(&rows).contains("\"goal\": 1}"), "{}", json(&rows));
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(figure(2.345), "2.35");
        assert_eq!(figure(165.4), "165");
        assert_eq!(figure(23_441.0), "23.4k");
        assert_eq!(figure(45_907_029.0), "45.91M");
    }
}
