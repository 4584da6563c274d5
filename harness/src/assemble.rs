//! From finished runs to a result set: metrics by name, latency merged over blocks, the memory curve of the first
//! block, and remarks on what a reader must know. Pure: the same runs give the same result set.

pub mod aa;
mod cell;
mod figures;
mod learned;
pub(crate) mod marks;
mod own;

use crate::engine::NULL;
use crate::plan::{Comparison, Kind};
use cell::cell;
use heaplab_reports::fill_ratios;
use heaplab_reports::schema::{
    Calibration, Machine, ResultSet, RunLine, SCHEMA, Status, Subject, Tool, WorkloadFacts,
};
use heaplab_reports::stats;
use heaplab_worker::protocol::{Mode, Report, Touch};
use learned::learn;
use serde_json::Value;

/// Live bytes below which a ratio to them says nothing and is left out.
pub const RATIO_FLOOR_BYTES: u64 = 64 * 1024;
/// Key in a memory run's answer: anonymous bytes of the bare worker, which are not the subject's.
pub const BASELINE_KEY: &str = "worker_baseline_bytes";
/// Key in a counts run's answer: instructions that callgrind counted.
pub const INSTRUCTIONS_KEY: &str = "instructions";
/// Key in a program run's answer: the user's own metrics with unit and direction.
pub const OWN_KEY: &str = "own";
/// Key in a counts run's answer: those of them in the subject's own code.
pub const IN_SUBJECT_KEY: &str = "instructions_in_subject";
/// Key in a counts run's answer: system calls for memory; absent without strace.
pub const SYSCALLS_KEY: &str = "syscalls";
/// Key in a timed run's answer: what else went on ([`crate::disturbance::Disturbance`]).
pub const DISTURBANCE_KEY: &str = "disturbance";
/// Key in a program's counts run: why its calls were not counted.
pub const NOT_COUNTED_KEY: &str = "not_counted";
/// Key in a memory run's answer: huge pages that the kernel did not have when they were due ([`crate::huge_pages`]).
pub const HUGE_REFUSED_KEY: &str = "huge_pages_refused";
/// Key in a memory run's answer: huge pages that the kernel put where small ones lay, unasked.
pub const HUGE_COLLAPSED_KEY: &str = "huge_pages_collapsed";
/// Key in an idle run's answer: length of the tail, milliseconds.
pub const IDLE_KEY: &str = "idle_tail_ms";
/// Key in a calibration run's answer: nanoseconds per call that touching blocks costs.
pub const TOUCHING_KEY: &str = "touching_ns_per_op";
/// Everything that a result set is made of.
pub struct Input<'a> {
    /// The machine.
    pub machine: Machine,
    /// Command line.
    pub command: Vec<String>,
    /// Seed.
    pub seed: u64,
    /// UTC.
    pub started: String,
    /// UTC.
    pub finished: String,
    /// Subjects in the order of the command line, with what was known before any run.
    pub subjects: Vec<Subject>,
    /// Comparisons.
    pub comparisons: &'a [Comparison],
    /// Mode and touch of each measure.
    pub shape: &'a dyn Fn(Kind) -> (Mode, Touch),
    /// CPUs that the subjects saw.
    pub cpus: u32,
    /// Finished runs.
    pub lines: &'a [RunLine],
    /// Remarks.
    pub notes: Vec<String>,
    /// The plan was finished.
    pub complete: bool,
}

/// Makes the result set.
pub fn assemble(mut input: Input<'_>) -> ResultSet {
    let mut cells = Vec::new();
    let mut calibration = Calibration::default();
    let (mut null_costs, mut null_runs) = (Vec::new(), Vec::new());
    for comparison in input.comparisons {
        let own: Vec<&RunLine> = input.lines.iter().filter(|l| comparison.owns(l)).collect();
        let costs = null_costs_of(&own, comparison);
        if let Some(cost) = stats::median(&costs) {
            null_runs.push((comparison.title(), costs));
            calibration
                .null_by_workload
                .insert(comparison.title(), cost);
            null_costs.push(cost);
            let timers = (own.iter().filter(|l| l.subject == NULL))
                .filter_map(|l| l.answer["timer_ns"].as_f64().filter(|ns| *ns > 0.0));
            calibration.timer_ns = (calibration.timer_ns.into_iter())
                .chain(timers)
                .max_by(f64::total_cmp);
            let touching: Vec<f64> = (own.iter().filter(|l| l.subject == NULL))
                .filter_map(|l| l.answer[TOUCHING_KEY].as_f64())
                .collect();
            if let Some(cost) = stats::median(&touching) {
                (calibration.touching_by_workload).insert(comparison.title(), cost);
            }
        }
        for line in own.iter().filter(|l| l.subject == NULL) {
            if let Some(reason) = &line.reason {
                input.notes.push(format!(
                    "{}: the harness's own cost is not known: {reason}",
                    comparison.title()
                ));
                break;
            }
        }
        for at in 0..input.subjects.len() {
            let name = input.subjects[at].name.clone();
            let lines: Vec<&RunLine> = own.iter().copied().filter(|l| l.subject == name).collect();
            learn(&mut input.subjects[at], &lines, comparison);
            cells.push(cell(comparison, &name, &lines, &input, &mut calibration));
        }
    }
    calibration.null_ns_per_op = stats::median(&null_costs);
    let mut notes = std::mem::take(&mut input.notes);
    notes.extend(marks::marks(&cells, input.comparisons, &calibration));
    notes.extend(marks::scattered(&null_runs));
    notes.extend(marks::counts(&cells));
    notes.extend(marks::runs(input.lines));
    let mut result = ResultSet {
        baseline: None,
        schema: SCHEMA.into(),
        heaplab: Tool {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("HEAPLAB_COMMIT").map(Into::into),
        },
        machine: input.machine,
        command: input.command,
        seed: input.seed,
        started: input.started,
        finished: input.finished,
        subjects: input.subjects,
        workloads: facts(input.comparisons),
        cells,
        calibration,
        notes,
        complete: input.complete,
    };
    aa::take(&mut result);
    fill_ratios(&mut result);
    result
}

/// What is known of replayed workloads beside their figures.
fn facts(comparisons: &[Comparison]) -> Vec<WorkloadFacts> {
    let mut all: Vec<WorkloadFacts> = Vec::new();
    for comparison in comparisons.iter().filter(|c| !c.program) {
        if !all.iter().any(|f| f.workload_hash == comparison.hash) {
            all.push(WorkloadFacts {
                workload_hash: comparison.hash.clone(),
                ops: comparison.calls,
                recorded: comparison.recorded.clone(),
            });
        }
    }
    all
}

/// The figure by which a stream is judged narrow.
pub fn figure(kind: Kind, calls: u64, answer: &Value) -> Option<f64> {
    match kind {
        Kind::Program => answer.get("wall_s").and_then(Value::as_f64),
        // Of a program its allocations.
        Kind::Counts => {
            (answer.get(INSTRUCTIONS_KEY).or(answer.get("allocations"))).and_then(Value::as_f64)
        }
        Kind::Memory | Kind::Idle => {
            let baseline = answer
                .get(BASELINE_KEY)
                .and_then(Value::as_u64)
                .unwrap_or(0);
            report(answer)?
                .memory
                .map(|m| m.peak_resident_bytes.saturating_sub(baseline) as f64)
        }
        Kind::Speed | Kind::Latency => {
            let report = report(answer)?;
            (calls > 0 && report.calls > 0).then(|| report.wall_ns as f64 / report.calls as f64)
        }
    }
}

fn report(answer: &Value) -> Option<Report> {
    serde_json::from_value(answer.clone()).ok()
}

/// The harness's own cost a call in each run of the null allocator, nanoseconds.
fn null_costs_of(own: &[&RunLine], comparison: &Comparison) -> Vec<f64> {
    own.iter()
        .filter(|l| l.subject == NULL && l.status == Status::Ok)
        .filter_map(|l| figure(Kind::Speed, comparison.calls, &l.answer))
        .collect()
}

/// The word of a mode.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Fast => "fast",
        Mode::Paced => "paced",
        Mode::Lockstep => "lockstep",
    }
}

/// The word of a touch policy.
pub fn touch_name(touch: Touch) -> &'static str {
    match touch {
        Touch::None => "none",
        Touch::First => "first",
        Touch::Page => "page",
        Touch::Recorded => "recorded",
        Touch::All => "all",
    }
}

#[cfg(test)]
mod tests;
