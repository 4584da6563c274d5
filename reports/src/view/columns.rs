//! Which metrics stand in the first table, and under which head.

use crate::schema::Cell;
use serde::Serialize;

/// Where a column's figures come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) enum Source {
    /// A metric by name.
    Metric(String),
    /// 99.9th percentile of all calls.
    P999,
}

/// One column of the first table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Column {
    pub head: String,
    /// Long name for a tooltip.
    pub title: String,
    pub source: Source,
    /// Whether the ratio to the baseline is shown.
    pub ratio: bool,
}

/// Stands for every `resident_after_idle_10s_bytes`, whatever the length of the tail.
const IDLE: &str = "resident_after_idle_";

/// Head of the column for a metric of [`IDLE`]'s kind.
fn idle_head(name: &str) -> Option<String> {
    let length = name.strip_prefix(IDLE)?.strip_suffix("_bytes")?;
    let unit = length.find(|c: char| !c.is_ascii_digit())?;
    Some(format!(
        "after {} {} idle",
        &length[..unit],
        &length[unit..]
    ))
}

/// Whether a column's head is that of resident bytes after an idle tail.
pub(crate) fn is_idle(head: &str) -> bool {
    head.starts_with("after ") && head.ends_with(" idle")
}

/// Metrics with a column of their own: name, head, explanation, ratio shown.
const SHOWN: [(&str, &str, &str, bool); 15] = [
    (
        "ns_per_op",
        "ns/op",
        "wall nanoseconds per call, no clock inside",
        true,
    ),
    ("load_s", "load", "time of the server's load", true),
    ("wall_s", "wall", "wall time of the program", true),
    ("user_s", "user", "CPU time in user mode", false),
    ("sys_s", "kernel", "CPU time in the kernel", false),
    (
        "allocator_cpu_share",
        "in malloc",
        "share of the program's CPU time that the allocator has, sampled",
        false,
    ),
    (
        "",
        "p99.9/call",
        "99.9th percentile of one call, all kinds of calls",
        false,
    ),
    (
        "peak_resident_bytes",
        "peak resident",
        "highest resident bytes, the worker's own left out",
        true,
    ),
    (
        "peak_rss_bytes",
        "peak RSS",
        "highest resident set of the program",
        true,
    ),
    (
        "peak_pss_bytes",
        "all processes",
        "peak memory of all processes together, shared pages counted once",
        true,
    ),
    (
        "footprint_at_peak_resident",
        "/live",
        "resident / live bytes at the peak of resident bytes",
        false,
    ),
    (
        IDLE,
        "after",
        "resident bytes after a time of idleness",
        false,
    ),
    (
        "instructions",
        "instructions",
        "instructions in the subject's object",
        true,
    ),
    (
        "allocations",
        "allocations",
        "allocations of the program",
        true,
    ),
    (
        "bytes_allocated",
        "bytes allocated",
        "bytes requested by the program",
        true,
    ),
];

/// Metrics of the contract that have no column in the first table.
const DETAILS_ONLY: [&str; 20] = [
    "allocator_cpu_s",
    "processes",
    "ready_s",
    "cpu_ns_per_op",
    "wait_ns_per_op",
    "ops_per_s",
    "mean_resident_bytes",
    "peak_live_bytes",
    "start_resident_bytes",
    "footprint_at_peak_live",
    "footprint_mean",
    "rounding_at_peak_bytes",
    "unused_resident_at_peak_bytes",
    "minor_faults",
    "major_faults",
    "syscalls",
    "context_switches",
    "resident_at_peak_live_bytes",
    "live_at_peak_resident_bytes",
    "usable_at_peak_bytes",
];

/// Metrics that the user defined: only programs have such; what else a replay measured stands among the details.
pub(crate) fn own_metrics(cell: &Cell) -> impl Iterator<Item = &String> {
    let program = cell.api == "program";
    cell.metrics.keys().filter(move |name| {
        program
            && !DETAILS_ONLY.contains(&name.as_str())
            && !SHOWN.iter().any(|s| s.0 == name.as_str())
    })
}

/// A column for each length of an idle tail, the shortest first.
fn idle_columns(cells: &[&Cell], title: &str) -> Vec<Column> {
    let mut names: Vec<&String> = cells.iter().flat_map(|c| c.metrics.keys()).collect();
    names.sort_by_key(|name| (!name.ends_with("ms_bytes"), name.len(), *name));
    names.dedup();
    (names.into_iter())
        .filter_map(|name| {
            Some(Column {
                head: idle_head(name)?,
                title: title.to_owned(),
                source: Source::Metric(name.clone()),
                ratio: false,
            })
        })
        .collect()
}

/// Columns that at least one of `cells` can fill; metrics that the user defined come last.
pub(crate) fn of(cells: &[&Cell]) -> Vec<Column> {
    let has = |name: &str| {
        // Of one process the kernel's own figure is exact and enough.
        let shown = name != "peak_pss_bytes" || cells.iter().any(|c| super::has_children(c));
        shown && cells.iter().any(|c| c.metrics.contains_key(name))
    };
    let mut columns = Vec::new();
    for (name, head, title, ratio) in SHOWN {
        let source = if name.is_empty() {
            Source::P999
        } else {
            Source::Metric(name.to_owned())
        };
        let there = match &source {
            Source::Metric(name) => has(name),
            Source::P999 => cells.iter().any(|c| !c.latency.is_empty()),
        };
        if name == IDLE {
            columns.extend(idle_columns(cells, title));
        }
        if there {
            let of_a_recording =
                |c: &&Cell| name == "ns_per_op" && c.metrics.get(name).is_some_and(super::paced);
            columns.push(Column {
                head: head.to_owned(),
                title: title.to_owned(),
                source,
                ratio: ratio && !cells.iter().any(of_a_recording),
            });
        }
    }
    // Counts alone (`--measure counts`) have nothing else to show.
    if has("syscalls") {
        for name in ["syscalls", "minor_faults"].into_iter().filter(|n| has(n)) {
            columns.push(Column {
                head: name.replace('_', " "),
                title: name.replace('_', " "),
                source: Source::Metric(name.to_owned()),
                ratio: false,
            });
        }
    }
    let mut own: Vec<&String> = cells.iter().flat_map(|c| own_metrics(c)).collect();
    own.sort();
    own.dedup();
    for name in own {
        columns.push(Column {
            head: name.clone(),
            title: format!("metric {name}"),
            source: Source::Metric(name.clone()),
            ratio: true,
        });
    }
    columns
}
