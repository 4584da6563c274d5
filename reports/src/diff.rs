//! Two result sets cell by cell.
//!
//! Runs of two sessions are not pairs: block n of one has nothing to do with block n of the other, so the
//! interval of a ratio is the unpaired rank-sum interval, and drift of the machine between the sessions is
//! part of it. Times of different hosts are not compared at all.

use crate::builder::WorkloadKey;
use crate::schema::{Better, Cell, IntervalKind, Metric, Ratio, ResultSet, Status};
use crate::table::{BAD, BOLD, FAILED, Field, GOOD, Style, align};
use crate::{stats, units};

/// What became of a metric or cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Both sets have it and it may be compared. The ratio is new / old; `interval` is absent with fewer
    /// than six values on a side.
    Compared {
        /// Ratio of the medians, or the estimate of the interval.
        ratio: f64,
        /// Unpaired 95 % interval.
        interval: Option<Ratio>,
    },
    /// Both sets have it, but the comparison would mislead; why.
    NotCompared(String),
    /// Only the new set has it.
    New,
    /// Only the old set has it.
    Removed,
    /// It ran before and fails now; the reason.
    NowFails(String),
    /// It failed before and runs now.
    NowRuns,
}

/// Reads on its own: whether a difference is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Shown to be better.
    Better,
    /// Shown to be worse.
    Worse,
    /// Not shown to differ.
    Same,
    /// Too few values, or nothing to compare.
    Unknown,
}

/// One line of a difference.
#[derive(Clone, Debug, PartialEq)]
pub struct DiffRow {
    /// Identity of the cell.
    pub cell: String,
    /// Metric; empty for a line about the whole cell.
    pub metric: String,
    /// Old value.
    pub old: Option<Metric>,
    /// New value.
    pub new: Option<Metric>,
    /// What became of it.
    pub change: Change,
}

impl DiffRow {
    /// Whether the difference is good. For exact values (no scatter on either side) any difference counts.
    pub fn direction(&self) -> Direction {
        let Change::Compared { ratio, interval } = &self.change else {
            return Direction::Unknown;
        };
        let better = self.new.as_ref().map(|m| m.better);
        let exact = [&self.old, &self.new]
            .into_iter()
            .flatten()
            .all(|m| m.low == m.high);
        let shown = match interval {
            _ if exact => *ratio != 1.0,
            Some(r) => r.low > 1.0 || r.high < 1.0,
            None => return Direction::Unknown,
        };
        match (shown, *ratio < 1.0, better) {
            (false, ..) => Direction::Same,
            (true, lower, Some(Better::Lower)) if lower => Direction::Better,
            (true, lower, Some(Better::Higher)) if !lower => Direction::Better,
            _ => Direction::Worse,
        }
    }
}

/// The difference of two result sets.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Lines in the order of the new set, removed cells last.
    pub rows: Vec<DiffRow>,
    /// Sentences: other host, other versions, incomplete sets.
    pub notes: Vec<String>,
}

/// Compares `new` with `old`.
pub fn diff(old: &ResultSet, new: &ResultSet) -> Diff {
    let same_host = old.machine.host_id == new.machine.host_id;
    let mut notes = Vec::new();
    if !same_host {
        notes.push("the hosts differ: times are not compared, bytes and counts are".to_owned());
    } else {
        notes.push(
            "two sessions: the blocks are not pairs, drift of the machine between them is part of every \
             difference"
                .to_owned(),
        );
    }
    for subject in &new.subjects {
        match old.subjects.iter().find(|s| s.name == subject.name) {
            Some(s) if s.version != subject.version => {
                notes.push(format!(
                    "{}: version {} became {}",
                    s.name, s.version, subject.version
                ));
            }
            Some(s) if s.sha256 != subject.sha256 => {
                notes.push(format!("{}: the library has other contents", s.name));
            }
            Some(s) if s.settings != subject.settings => {
                notes.push(format!("{}: the settings differ", s.name));
            }
            _ => {}
        }
    }
    for (set, which) in [(old, "old"), (new, "new")] {
        if !set.complete {
            notes.push(format!("the {which} set is incomplete"));
        }
    }
    let mut rows = Vec::new();
    for cell in &new.cells {
        match find(old, cell) {
            None => rows.push(whole(cell, Change::New)),
            Some(before) => compare_cells(before, cell, same_host, &mut rows, &mut notes),
        }
    }
    for cell in &old.cells {
        if find(new, cell).is_none() {
            rows.push(whole(cell, Change::Removed));
        }
    }
    Diff { rows, notes }
}

/// The cell of the same workload, subject and shape; another hash of the workload still counts as the same
/// name, and is pointed out.
fn find<'a>(set: &'a ResultSet, cell: &Cell) -> Option<&'a Cell> {
    let named = |c: &Cell| WorkloadKey {
        workload_hash: String::new(),
        ..c.key()
    };
    set.cells
        .iter()
        .find(|c| c.subject == cell.subject && named(c) == named(cell))
}

fn whole(cell: &Cell, change: Change) -> DiffRow {
    DiffRow {
        cell: cell.id(),
        metric: String::new(),
        old: None,
        new: None,
        change,
    }
}

fn compare_cells(
    old: &Cell,
    new: &Cell,
    same_host: bool,
    rows: &mut Vec<DiffRow>,
    notes: &mut Vec<String>,
) {
    match (old.status, new.status) {
        (Status::Ok, Status::Ok) => {}
        (Status::Ok, _) => {
            let reason = new
                .reason
                .clone()
                .unwrap_or_else(|| "no reason was recorded".to_owned());
            return rows.push(whole(new, Change::NowFails(reason)));
        }
        (_, Status::Ok) => return rows.push(whole(new, Change::NowRuns)),
        _ => {
            let reason = "failed in both sets".to_owned();
            return rows.push(whole(new, Change::NotCompared(reason)));
        }
    }
    let other_workload = old.workload_hash != new.workload_hash;
    if other_workload {
        notes.push(format!(
            "{}: the workload itself changed (other hash)",
            new.id()
        ));
    }
    for (name, after) in &new.metrics {
        let Some(before) = old.metrics.get(name) else {
            rows.push(metric_row(new, name, None, Some(after), Change::New));
            continue;
        };
        let change = if other_workload {
            Change::NotCompared("the workload itself changed".to_owned())
        } else if (&before.mode, &before.touch, &before.unit)
            != (&after.mode, &after.touch, &after.unit)
        {
            Change::NotCompared("measured in another mode".to_owned())
        } else if !same_host && is_time(after) {
            Change::NotCompared("other host".to_owned())
        } else {
            compare_metrics(before, after)
        };
        rows.push(metric_row(new, name, Some(before), Some(after), change));
    }
    for (name, before) in old
        .metrics
        .iter()
        .filter(|(n, _)| !new.metrics.contains_key(*n))
    {
        rows.push(metric_row(new, name, Some(before), None, Change::Removed));
    }
}

fn metric_row(
    cell: &Cell,
    name: &str,
    old: Option<&Metric>,
    new: Option<&Metric>,
    change: Change,
) -> DiffRow {
    DiffRow {
        cell: cell.id(),
        metric: name.to_owned(),
        old: old.cloned(),
        new: new.cloned(),
        change,
    }
}

/// Whether a metric depends on the speed of the machine.
fn is_time(metric: &Metric) -> bool {
    !["bytes", "count", "ratio"].contains(&metric.unit.as_str())
}

fn compare_metrics(old: &Metric, new: &Metric) -> Change {
    let interval = stats::unpaired_ratio(&new.samples, &old.samples);
    let ratio = interval.map_or(
        if new.median == old.median {
            1.0
        } else {
            new.median / old.median
        },
        |r| r.median,
    );
    Change::Compared { ratio, interval }
}

impl Diff {
    /// As text for a terminal: the changed lines, then counts of the rest (`all` shows every line).
    pub fn render(&self, style: Style, all: bool) -> String {
        let mut table = vec![
            ["cell", "metric", "old", "new", "change", ""]
                .map(|h| Field::left(h).coloured(BOLD))
                .into(),
        ];
        let mut hidden = 0;
        for row in &self.rows {
            let direction = row.direction();
            if direction == Direction::Same && !all {
                hidden += 1;
                continue;
            }
            table.push(fields(row, direction));
        }
        let mut out = Vec::new();
        if table.len() > 1 {
            out.extend(align(&table, &[0, 2, 2, 2, 2, 2], style));
        }
        if hidden > 0 {
            out.push(format!("{hidden} metrics are not shown to differ."));
        }
        if self.rows.is_empty() {
            out.push("neither set has a cell; nothing was compared.".to_owned());
        }
        out.extend(
            self.notes
                .iter()
                .map(|n| format!("{} {n}", style.paint(BAD, "!"))),
        );
        out.push(String::new());
        out.join("\n")
    }

    /// As a Markdown table of every line.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| cell | metric | old | new | change | |\n|---|---|---:|---:|---:|---|\n",
        );
        for row in &self.rows {
            let cells: Vec<String> = fields(row, row.direction())
                .into_iter()
                .map(|f| f.text.replace('|', "\\|"))
                .collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        for note in &self.notes {
            out.push_str(&format!("\n- {note}"));
        }
        out.push('\n');
        out
    }
}

fn fields(row: &DiffRow, direction: Direction) -> Vec<Field> {
    let show = |m: &Option<Metric>| {
        m.as_ref().map_or("-".to_owned(), |m| {
            let median = units::value(&m.unit, m.median);
            if m.interval == IntervalKind::Range && m.low != m.high {
                let ends = (units::value(&m.unit, m.low), units::value(&m.unit, m.high));
                format!("{median} ({} .. {})", ends.0, ends.1)
            } else {
                median
            }
        })
    };
    let (change, word, code) = match &row.change {
        Change::Compared { ratio, interval } => {
            let text = interval
                .as_ref()
                .map_or(units::change(*ratio), units::change_with_ends);
            let (word, code) = match direction {
                Direction::Better => ("better", GOOD),
                Direction::Worse => ("worse", BAD),
                Direction::Same => ("~", ""),
                Direction::Unknown => ("? fewer than 6 blocks", ""),
            };
            (text, word.to_owned(), code)
        }
        Change::NotCompared(why) => (String::new(), format!("not compared: {why}"), ""),
        Change::New => (String::new(), "new".to_owned(), ""),
        Change::Removed => (String::new(), "removed".to_owned(), BAD),
        Change::NowFails(why) => (String::new(), format!("fails now: {why}"), FAILED),
        Change::NowRuns => (String::new(), "runs now".to_owned(), GOOD),
    };
    vec![
        Field::left(row.cell.clone()),
        Field::left(row.metric.clone()),
        Field::right(show(&row.old)),
        Field::right(show(&row.new)),
        Field::right(change),
        Field::left(word).coloured(code),
    ]
}
