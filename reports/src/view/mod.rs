//! A result set as a reader sees it: groups of rows, columns, ratios with marks, the answer in words.
//!
//! Terminal, Markdown and HTML all render this one structure, so that they can never say different things.

mod answer;
mod columns;
mod counted;
mod notes;
mod scaling;
mod summary;

use crate::builder::{BASELINE, WorkloadKey};
use crate::latency;
use crate::schema::{Cell, Metric, Ratio, Recorded, ResultSet, Status, Subject, WorkloadFacts};
use crate::{shell, stats, units};
pub(crate) use columns::is_idle;
use columns::{Column, Source};
pub(crate) use counted::Counted;
pub(crate) use scaling::Scaling;
use serde::Serialize;
pub(crate) use summary::Summary;

/// The whole picture.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    /// Sentences that answer "which allocator".
    pub answer: Vec<String>,
    /// One per workload and shape.
    pub groups: Vec<Group>,
    /// Over all workloads; absent with fewer than two.
    pub summary: Option<Summary>,
    /// What more threads bring; absent where nothing ran with several numbers of them.
    pub scaling: Option<Scaling>,
    /// Label of the subject at 1.
    pub baseline: String,
    /// Things that a reader must know.
    pub warnings: Vec<String>,
    /// What the allocators count themselves.
    pub counted: Vec<Counted>,
    /// The command that made it.
    pub again: String,
}

/// Rows that can be compared: one workload, API, thread count and machine shape.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    #[serde(skip)]
    pub key: WorkloadKey,
    /// Fragment id.
    pub id: String,
    /// Name of the workload.
    pub workload: String,
    /// Shape, blocks, modes.
    pub facts: Vec<String>,
    /// What is compared in words.
    pub answer: Vec<String>,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// What the resident memory consists of.
    pub memory: Vec<MemoryParts>,
    /// Smallest change that could have been shown.
    pub could: Option<String>,
    /// How much the allocator can matter at all.
    pub promise: Option<String>,
    /// Fewer than six pairs somewhere.
    pub ranges: bool,
}

/// One subject in a group.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub subject: String,
    pub version: String,
    /// Fragment id.
    pub id: String,
    pub ours: bool,
    pub baseline: bool,
    /// What the program uses as it is.
    pub today: bool,
    /// Named first in the answer.
    pub best: bool,
    /// Why there are no figures.
    pub failed: Option<String>,
    pub values: Vec<Value>,
    /// How it gives memory back, where it says so.
    pub purge: String,
    /// Figures not in the columns: name, value with ends, ratio.
    pub details: Vec<Detail>,
}

/// One field of a row.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Value {
    /// The median in its unit, or `-`.
    pub text: String,
    /// Median with ends, and what they are.
    pub title: String,
    /// For sorting.
    pub sort: Option<f64>,
    /// `0.42`.
    pub ratio: String,
    /// `v`, `^`, `~`, `?` or nothing.
    pub mark: String,
    /// `better`, `worse` or nothing.
    pub class: String,
}

/// One metric in the detailed table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Detail {
    pub name: String,
    pub value: String,
    pub ends: String,
    pub kind: String,
    pub ratio: String,
    pub how: String,
    pub samples: usize,
}

/// What resident memory at its peak consists of, bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MemoryParts {
    pub subject: String,
    pub resident: f64,
    pub live: f64,
    pub rounding: f64,
    pub unused: f64,
    pub resident_text: String,
    pub live_text: String,
    pub rounding_text: String,
    pub unused_text: String,
}

/// Metric by which speed is judged. At the recorded pace the time is the recording's, and no subject's.
pub(crate) fn time_metric(cell: &Cell) -> Option<&'static str> {
    ["ns_per_op", "load_s", "wall_s", "instructions"]
        .into_iter()
        .find(|m| cell.metrics.get(*m).is_some_and(|m| !paced(m)))
}

/// What the judged time is called: where it was counted, instructions are no time.
pub(crate) fn time_word(cell: &Cell) -> &'static str {
    match time_metric(cell) {
        Some("instructions") => "instructions",
        _ => "time",
    }
}

/// [`time_word`] of what several cells are judged by; `None` where none of them is.
pub(crate) fn common_time_word<'a>(
    cells: impl IntoIterator<Item = &'a Cell>,
) -> Option<&'static str> {
    let judged = |cell: &&Cell| time_metric(cell).is_some();
    let mut words = cells.into_iter().filter(judged).map(time_word);
    let first = words.next()?;
    Some(if words.all(|word| word == first) {
        first
    } else {
        "time"
    })
}

/// Whether its time is given by a recording.
pub(crate) fn paced(metric: &Metric) -> bool {
    metric.mode == "paced"
}

/// Metric by which memory is judged.
pub(crate) fn memory_metric(cell: &Cell) -> Option<&'static str> {
    let of_program = match has_children(cell) {
        true => "peak_pss_bytes",
        false => "peak_rss_bytes",
    };
    ["peak_resident_bytes", of_program, "peak_rss_bytes"]
        .into_iter()
        .find(|m| cell.metrics.contains_key(*m))
}

/// Whether a program had more than one process at a time.
pub(crate) fn has_children(cell: &Cell) -> bool {
    cell.metrics
        .get("processes")
        .is_some_and(|m| m.median > 1.0)
}

/// Keys of all groups in the order in which the result set names them.
pub(crate) fn keys(result: &ResultSet) -> Vec<WorkloadKey> {
    let mut keys = Vec::new();
    for cell in &result.cells {
        let key = cell.key();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Cells of one group: the baseline first, then in the order of the subjects.
pub(crate) fn cells<'a>(result: &'a ResultSet, key: &WorkloadKey) -> Vec<&'a Cell> {
    let mut cells: Vec<&Cell> = result.cells.iter().filter(|c| c.key() == *key).collect();
    let place = |c: &Cell| result.subjects.iter().position(|s| s.name == c.subject);
    let base = result.baseline();
    cells.sort_by_key(|c| (c.subject != base, place(c).unwrap_or(usize::MAX)));
    cells
}

/// Name of a group, with what distinguishes it from others of the same workload.
pub(crate) fn group_name(result: &ResultSet, key: &WorkloadKey) -> String {
    let others: Vec<WorkloadKey> = keys(result)
        .into_iter()
        .filter(|k| k.workload == key.workload && k != key)
        .collect();
    let mut name = key.workload.clone();
    if others.iter().any(|k| k.threads != key.threads) {
        name.push_str(&format!(" t{}", key.threads));
    }
    if others.iter().any(|k| k.api != key.api) {
        name.push_str(&format!(" {}", key.api));
    }
    if others.iter().any(|k| k.thp != key.thp) {
        name.push_str(&format!(" thp={}", key.thp));
    }
    if others.iter().any(|k| k.cpus != key.cpus) {
        name.push_str(&format!(" {} CPUs", key.cpus));
    }
    if others.iter().any(|k| k.memory_limit != key.memory_limit) {
        let limit = key
            .memory_limit
            .map_or("no limit".to_owned(), |l| units::bytes(l as f64));
        name.push_str(&format!(" {limit}"));
    }
    name
}

/// The allocator that the program uses as it is.
pub(crate) enum Today {
    /// A model: what a program uses that says nothing else.
    Default,
    /// The one that the row of the baseline stands for.
    Baseline,
    /// Another, as the recording names it.
    Other(String),
}

impl Today {
    fn of(result: &ResultSet, key: &WorkloadKey) -> Self {
        if key.api == "program" {
            return Self::Baseline;
        }
        match recorded(result, key) {
            None => Self::Default,
            Some(recorded) if recorded.allocator == BASELINE => Self::Baseline,
            Some(recorded) => Self::Other(file_name(&recorded.allocator).to_owned()),
        }
    }

    fn is(&self, cell: &Cell, subject: Option<&Subject>) -> bool {
        match self {
            Self::Default | Self::Baseline => cell.subject == BASELINE,
            Self::Other(name) => subject.is_some_and(|s| {
                // `libjemalloc.so.2` is the row jemalloc, `jemalloc` as well.
                !s.path.is_empty() && (name.contains(&s.name) || file_name(&s.path) == name)
            }),
        }
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The recording behind a group.
pub(crate) fn recorded<'a>(result: &'a ResultSet, key: &WorkloadKey) -> Option<&'a Recorded> {
    facts_of(result, key)?.recorded.as_ref()
}

/// What is known of a group's workload.
pub(crate) fn facts_of<'a>(result: &'a ResultSet, key: &WorkloadKey) -> Option<&'a WorkloadFacts> {
    let mut all = result.workloads.iter();
    all.find(|facts| facts.workload_hash == key.workload_hash)
}

impl View {
    pub fn new(result: &ResultSet) -> Self {
        let groups: Vec<Group> = keys(result).iter().map(|k| group(result, k)).collect();
        let summary = Summary::new(result);
        let mut answer = match &summary {
            Some(s) => s.answer(),
            None => each_answer(&groups),
        };
        let ran = |subject: &&str| {
            let mut cells = result.cells.iter();
            cells.any(|cell| cell.subject == *subject && cell.status == Status::Ok)
        };
        let names = result.subjects.iter().map(|subject| subject.name.as_str());
        let finished: Vec<_> = names.filter(ran).collect();
        let base = result.baseline();
        if answer.is_empty() {
            answer.push("nothing was measured; see the reasons below.".to_owned());
        }
        if base != BASELINE && finished.contains(&base) && finished.len() > 1 {
            answer.push(answer::another_baseline(result));
        }
        let mut warnings: Vec<String> = groups
            .iter()
            .filter_map(|g| {
                let promise = g.promise.as_ref()?;
                Some(match summary {
                    Some(_) => format!("{}: {promise}", g.workload),
                    None => promise.clone(),
                })
            })
            .collect();
        warnings.extend(notes::warnings(result));
        Self {
            answer,
            baseline: base.to_owned(),
            summary,
            scaling: Scaling::new(result),
            warnings,
            counted: counted::counted(result),
            again: shell::command(&result.command),
            groups,
        }
    }
}

/// Answers of workloads that one table cannot sum up; of many the first ones.
fn each_answer(groups: &[Group]) -> Vec<String> {
    const MOST: usize = 4;
    if let [only] = groups {
        return only.answer.clone();
    }
    let named = |group: &Group| {
        let name = group.workload.clone();
        let sentences = group.answer.clone();
        sentences
            .into_iter()
            .map(move |said| format!("{name}: {said}"))
    };
    let mut said: Vec<String> = groups.iter().take(MOST).flat_map(named).collect();
    if groups.len() > MOST {
        said.push(format!("{} more workloads: below.", groups.len() - MOST));
    }
    said
}

fn group(result: &ResultSet, key: &WorkloadKey) -> Group {
    let cells = cells(result, key);
    let today = Today::of(result, key);
    let (answer, best) = answer::of_group(result, &cells, &today);
    let columns = columns::of(&cells);
    let rows = cells
        .iter()
        .map(|cell| {
            row(
                result,
                cell,
                &columns,
                best.as_deref() == Some(&cell.subject),
                &today,
            )
        })
        .collect();
    let ratios: Vec<&Ratio> = cells
        .iter()
        .flat_map(|c| c.metrics.values())
        .filter_map(|m| m.ratio_to_system.as_ref())
        .collect();
    Group {
        id: units::file_stem(&group_name(result, key)),
        workload: group_name(result, key),
        facts: notes::facts(result, key, &cells),
        answer,
        columns,
        rows,
        memory: cells.iter().filter_map(|c| memory_parts(c)).collect(),
        could: notes::could_have_been_shown(&cells),
        promise: notes::promise(result, key, &cells, best.as_deref()),
        ranges: ratios
            .iter()
            .any(|r| (r.pairs as usize) < stats::MIN_BLOCKS),
        key: key.clone(),
    }
}

fn row(result: &ResultSet, cell: &Cell, columns: &[Column], best: bool, today: &Today) -> Row {
    let subject = result.subjects.iter().find(|s| s.name == cell.subject);
    let failed = (cell.status != Status::Ok).then(|| {
        let word = if cell.status == Status::Failed {
            "FAILED"
        } else {
            "not run"
        };
        format!(
            "{word}: {}",
            cell.reason.as_deref().unwrap_or("no reason was recorded")
        )
    });
    let details = cell
        .metrics
        .iter()
        .map(|(name, m)| detail(name, m))
        .collect();
    Row {
        subject: cell.subject.clone(),
        version: subject.map(|s| s.version.clone()).unwrap_or_default(),
        id: units::file_stem(&cell.id()),
        ours: subject.is_some_and(Subject::is_ours),
        baseline: cell.subject == result.baseline(),
        today: today.is(cell, subject),
        best,
        failed,
        values: columns
            .iter()
            .map(|c| value(cell, c, result.baseline()))
            .collect(),
        purge: subject.map(notes::purge).unwrap_or_default(),
        details,
    }
}

fn value(cell: &Cell, column: &Column, baseline: &str) -> Value {
    let missing = Value {
        text: "-".to_owned(),
        ..Value::default()
    };
    let metric = match &column.source {
        Source::Metric(name) => match cell.metrics.get(name) {
            Some(metric) => metric,
            None => return missing,
        },
        Source::P999 => {
            let Some((h, floor)) = latency::all_ops(&cell.latency) else {
                return missing;
            };
            return match latency::percentile(&h, 9_990, floor) {
                None => Value {
                    title: "below the clock's floor, or too few calls".to_owned(),
                    ..missing
                },
                Some(ns) => Value {
                    text: units::nanoseconds(ns),
                    title: format!("{} calls of all kinds", units::count(h.len() as f64)),
                    sort: Some(ns),
                    ..Value::default()
                },
            };
        }
    };
    let mut value = Value {
        text: if metric.unit == "ns" {
            units::significant(metric.median)
        } else {
            units::value(&metric.unit, metric.median)
        },
        title: title(metric),
        sort: Some(metric.median),
        ..Value::default()
    };
    if column.ratio {
        if let Some(r) = &metric.ratio_to_system {
            value.ratio = format!("{:.2}", r.median);
            let (mark, class) = mark(r, metric);
            value.mark = mark.to_owned();
            value.class = class.to_owned();
            value.title.push_str(&format!(
                "; against {baseline} {}",
                units::change_with_ends(r)
            ));
        } else if cell.subject == baseline {
            value.ratio = "1.00".to_owned();
        }
    }
    value
}

/// Mark (direction of the change) and class (whether that is good).
pub(crate) fn mark(r: &Ratio, metric: &Metric) -> (&'static str, &'static str) {
    use crate::schema::{Better, IntervalKind};
    if stats::ratio_kind(r) == IntervalKind::Range {
        return ("?", "");
    }
    let lower_is_better = metric.better == Better::Lower;
    match (stats::shown_different(r), r.median < 1.0) {
        (false, _) => ("~", ""),
        (true, true) => ("v", if lower_is_better { "better" } else { "worse" }),
        (true, false) => ("^", if lower_is_better { "worse" } else { "better" }),
    }
}

fn kind(metric: &Metric) -> &'static str {
    match metric.interval {
        crate::schema::IntervalKind::Ci95 => "95 % interval",
        crate::schema::IntervalKind::Range => "range",
    }
}

fn ends(metric: &Metric) -> String {
    let (low, high) = (
        units::value(&metric.unit, metric.low),
        units::value(&metric.unit, metric.high),
    );
    format!("{low} to {high}")
}

fn title(metric: &Metric) -> String {
    let n = metric.samples.len();
    format!("{} {} of {n} blocks", kind(metric), ends(metric))
}

fn detail(name: &str, metric: &Metric) -> Detail {
    Detail {
        name: name.to_owned(),
        value: units::value(&metric.unit, metric.median),
        ends: ends(metric),
        kind: kind(metric).to_owned(),
        ratio: metric
            .ratio_to_system
            .as_ref()
            .map(units::change_with_ends)
            .unwrap_or_default(),
        how: if metric.mode == metric.touch {
            metric.mode.clone()
        } else {
            format!("{}, touch {}", metric.mode, metric.touch)
        },
        samples: metric.samples.len(),
    }
}

fn memory_parts(cell: &Cell) -> Option<MemoryParts> {
    let get = |name: &str| cell.metrics.get(name).map(|m| m.median);
    let resident = get("peak_resident_bytes")?;
    let unused = get("unused_resident_at_peak_bytes")?.max(0.0);
    let rounding = get("rounding_at_peak_bytes")?.max(0.0);
    // What the replay never touched is usable, but not resident: live cannot exceed what is left.
    let live = (resident - unused - rounding).max(0.0);
    Some(MemoryParts {
        subject: cell.subject.clone(),
        resident,
        live,
        rounding,
        unused,
        resident_text: units::bytes(resident),
        live_text: units::bytes(live),
        rounding_text: units::bytes(rounding),
        unused_text: units::bytes(unused),
    })
}
