//! The table and the JSON that leave the program.

use crate::{PEER, Row};
use std::fmt::Write;

/// The allocator that all are compared with.
const SYSTEM: &str = "system";

/// Geometric mean of the ratios of column `at` to column `system`.
fn mean_ratio(rows: &[Row], at: usize, system: usize) -> f64 {
    let sum: f64 = rows
        .iter()
        .map(|row| (row.nanoseconds[at] / row.nanoseconds[system]).ln())
        .sum();
    (sum / rows.len() as f64).exp()
}

/// `value / other` for people, a dash if there is no other.
fn ratio(value: f64, other: Option<f64>) -> String {
    other.map_or_else(|| "-".to_owned(), |other| format!("{:.2}", value / other))
}

/// The goal in terms of this machine: as much more than the goal as [`PEER`] takes more here than where the goal was set. Nothing if
/// that is not among the columns (`names`).
fn goal_here(names: &[&str], row: &Row) -> Option<f64> {
    let goal = row.goal?;
    let at = names.iter().position(|&name| name == PEER)?;
    Some(goal.nanoseconds * row.nanoseconds[at] / goal.peer?)
}

/// `goal` for people, and whether `own` misses it.
fn judged(own: f64, goal: Option<f64>) -> String {
    goal.map_or_else(
        || "-".to_owned(),
        |goal| {
            let mark = if own <= goal { "" } else { " missed" };
            format!("{}{mark}", figure(goal))
        },
    )
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

/// Rows for people: nanoseconds per operation by allocator (`names`), the first one's ratio to the system's
/// allocator and to the best of all others, the goal, and the goal in terms of this machine.
pub fn text(names: &[&str], rows: &[Row]) -> String {
    let mut out = String::from("nanoseconds per operation");
    let _ = write!(out, "\n{:24}", "case");
    for name in names {
        let _ = write!(out, "{name:>11}");
    }
    let _ = writeln!(
        out,
        "{:>10}{:>8}{:>16}{:>16}",
        "/ system", "/ best", "goal", "goal here"
    );
    let system = names.iter().position(|&name| name == SYSTEM);
    for row in rows {
        let _ = write!(out, "{:24}", row.name);
        for &value in &row.nanoseconds {
            let _ = write!(out, "{:>11}", figure(value));
        }
        let own = row.nanoseconds[0];
        let others = row.nanoseconds[1..].iter().copied();
        let to_system = ratio(own, system.map(|at| row.nanoseconds[at]));
        let to_best = ratio(own, others.reduce(f64::min));
        let _ = write!(out, "{to_system:>10}{to_best:>8}");
        let goal = judged(own, row.goal.map(|goal| goal.nanoseconds));
        let here = judged(own, goal_here(names, row));
        let _ = writeln!(out, "{goal:>16}{here:>16}");
    }
    if let Some(system) = system {
        let _ = write!(out, "{:24}", "geometric mean / system");
        for at in 0..names.len() {
            let _ = write!(out, "{:>11.3}", mean_ratio(rows, at, system));
        }
        out.push('\n');
    }
    out
}

/// Rows for programs: one object with the cases and the geometric means.
pub fn json(names: &[&str], rows: &[Row]) -> String {
    let mut out = String::from("{\n  \"unit\": \"ns\",\n  \"cases\": [\n");
    for (number, row) in rows.iter().enumerate() {
        let _ = write!(out, "    {{\"case\": \"{}\"", row.name);
        for (name, value) in names.iter().zip(&row.nanoseconds) {
            let _ = write!(out, ", \"{name}\": {value:.3}");
        }
        if let Some(goal) = row.goal {
            let _ = write!(out, ", \"goal\": {}", goal.nanoseconds);
        }
        if let Some(here) = goal_here(names, row) {
            let _ = write!(out, ", \"goal_here\": {here:.3}");
        }
        out.push_str(if number + 1 < rows.len() {
            "},\n"
        } else {
            "}\n"
        });
    }
    out.push_str("  ],\n  \"geometric_mean_to_system\": {");
    if let Some(system) = names.iter().position(|&name| name == SYSTEM) {
        for (at, name) in names.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let mean = mean_ratio(rows, at, system);
            let _ = write!(out, "{comma}\"{name}\": {mean:.4}");
        }
    }
    out.push_str("}\n}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Goal;

    #[test]
    fn means_are_geometric_and_relative_to_the_system() {
        let rows = [
            Row {
                name: "a",
                goal: Some(Goal {
                    nanoseconds: 1.0,
                    peer: Some(4.0),
                }),
                nanoseconds: vec![1.0, 2.0, 4.0],
            },
            Row {
                name: "b",
                goal: None,
                nanoseconds: vec![4.0, 2.0, 1.0],
            },
        ];
        assert!((mean_ratio(&rows, 0, 2) - 1.0).abs() < 1e-12);
        assert!((mean_ratio(&rows, 2, 2) - 1.0).abs() < 1e-12);
        let names = ["own", PEER, "system"];
        let text = text(&names, &rows);
        assert!(text.contains("0.25    0.50"), "{text}");
        // The peer takes 2 where it took 4: half of the goal is asked for here, and 1 is too much.
        assert!(
            text.contains("            1.00     0.50 missed\n"),
            "{text}"
        );
        let json = json(&names, &rows);
        assert!(json.contains("\"gperftools\": 2.000"), "{json}");
        assert!(
            json.contains("\"goal\": 1, \"goal_here\": 0.500}"),
            "{json}"
        );
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(figure(2.345), "2.35");
        assert_eq!(figure(165.4), "165");
        assert_eq!(figure(23_441.0), "23.4k");
        assert_eq!(figure(45_907_029.0), "45.91M");
    }
}
