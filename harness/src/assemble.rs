//! From finished runs to a result set: metrics by name, latency merged over blocks, the memory curve of the first
//! block, and remarks on what a reader must know. Pure: the same runs give the same result set.

pub mod aa;
mod figures;
mod marks;
mod own;

use crate::engine::NULL;
use crate::plan::{Comparison, Kind};
use figures::{Table, idle, memory, program, speed, timeline};
use heaplab_reports::schema::{
    Better, Calibration, Cell, Machine, Metric, ResultSet, RunLine, SCHEMA, Sample, Status,
    Subject, Timeline, Tool, WorkloadFacts,
};
use heaplab_reports::stats;
use heaplab_reports::{HistogramPart, fill_ratios, latency_by_op};
use heaplab_worker::protocol::{MemoryCurve, Mode, Report, Touch};
use serde_json::Value;
use std::collections::BTreeMap;

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
    let mut null_costs = Vec::new();
    for comparison in input.comparisons {
        let own: Vec<&RunLine> = input.lines.iter().filter(|l| comparison.owns(l)).collect();
        let null = null_cost(&own, comparison);
        if let Some(cost) = null {
            calibration
                .null_by_workload
                .insert(comparison.title(), cost);
            null_costs.push(cost);
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
    notes.extend(marks::counts(&cells));
    notes.extend(marks::runs(input.lines));
    let mut result = ResultSet {
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
        Kind::Counts => answer.get(INSTRUCTIONS_KEY).and_then(Value::as_f64),
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

fn null_cost(own: &[&RunLine], comparison: &Comparison) -> Option<f64> {
    let costs: Vec<f64> = own
        .iter()
        .filter(|l| l.subject == NULL && l.status == Status::Ok)
        .filter_map(|l| figure(Kind::Speed, comparison.calls, &l.answer))
        .collect();
    stats::median(&costs)
}

/// Takes version and settings as the subject itself told them in its first good run.
fn learn(subject: &mut Subject, lines: &[&RunLine], comparison: &Comparison) {
    if comparison.api == heaplab_worker::protocol::Api::Sized && !comparison.program {
        let entry = (lines.iter().filter(|l| l.status == Status::Ok))
            .find_map(|line| line.answer["subject"].get("sized_free"));
        let note = match entry.and_then(Value::as_str) {
            Some(entry) => format!("api sized frees with {entry}"),
            None => "api sized frees with free: the library has no sized one".to_owned(),
        };
        if entry.is_some() && !subject.notes.contains(&note) {
            subject.notes.push(note);
        }
    }
    // Of a memory run, where blocks are live as the workload leaves them; of any other where there is none. What a program's
    // subject says comes from a worker of its own and is not about the program.
    let of = |measure: &str| {
        let mut good = lines
            .iter()
            .filter(|l| l.status == Status::Ok && l.measure == measure);
        good.find_map(|l| Some(l.answer["subject"]["statistics"].clone()).filter(Value::is_object))
    };
    if subject.stats_at_end.is_none() {
        subject.stats_at_end = ["memory", "speed", "latency", "counts"]
            .iter()
            .find_map(|m| of(m));
    }
    for line in lines.iter().filter(|l| l.status == Status::Ok) {
        let proof = &line.answer["subject"];
        if let Some(version) = proof["version"].as_str().filter(|v| !v.is_empty()) {
            subject.version = version.to_string();
        }
        if let Some(settings) = proof["settings"].as_object() {
            for (key, value) in settings {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_string);
                subject.settings.entry(key.clone()).or_insert(value);
            }
            return;
        }
    }
}

fn cell(
    comparison: &Comparison,
    subject: &str,
    lines: &[&RunLine],
    input: &Input<'_>,
    calibration: &mut Calibration,
) -> Cell {
    let mut cell = Cell {
        workload: comparison.workload.clone(),
        workload_hash: comparison.hash.clone(),
        subject: subject.to_string(),
        api: comparison.api_name().into(),
        threads: comparison.threads,
        cpus: match comparison.machine.cpus {
            0 => input.cpus,
            told => told,
        },
        thp: comparison.machine.thp.name().into(),
        memory_limit: match comparison.machine.memory_limit {
            0 => None,
            bytes => Some(bytes),
        },
        status: Status::Ok,
        reason: None,
        metrics: BTreeMap::new(),
        latency: BTreeMap::new(),
        timeline: None,
    };
    if let Some(bad) = lines.iter().find(|l| l.status == Status::Failed) {
        cell.status = Status::Failed;
        let reason = bad.reason.clone().unwrap_or_default();
        cell.reason = Some(format!(
            "{reason} (block {}, {})",
            bad.block + 1,
            bad.measure
        ));
        // A subject that broke a rule has no figures: numbers from before would look like a result.
        return cell;
    }
    if lines.is_empty() {
        cell.status = Status::Skipped;
        cell.reason = Some(
            if input.complete {
                "nothing was measured"
            } else {
                "not run before the end"
            }
            .into(),
        );
        return cell;
    }
    let mut table = Table {
        metrics: BTreeMap::new(),
    };
    let mut parts = Vec::new();
    let mut floor: f64 = 0.0;
    for line in lines {
        let Some(kind) = comparison
            .kinds
            .iter()
            .copied()
            .find(|k| k.name() == line.measure)
        else {
            continue;
        };
        if kind == Kind::Program {
            program(&mut table, line);
            continue;
        }
        let Some(report) = report(&line.answer) else {
            continue;
        };
        let (mode, touch) = (input.shape)(kind);
        let touch = match touch {
            // Models and older traces tell of no block: all pages were written.
            Touch::Recorded if report.told_blocks == 0 => Touch::Page,
            touch => touch,
        };
        let shape = (mode_name(mode), touch_name(touch));
        match kind {
            Kind::Speed => speed(&mut table, line, shape, &report),
            Kind::Idle => {
                let baseline = line.answer[BASELINE_KEY].as_u64().unwrap_or(0);
                if let Some(curve) = &report.memory {
                    idle(&mut table, line, shape, curve, baseline);
                    // The only curve with the tail in it.
                    cell.timeline = Some(timeline(curve, baseline));
                }
            }
            Kind::Memory => {
                let baseline = line.answer[BASELINE_KEY].as_u64().unwrap_or(0);
                calibration.worker_baseline_bytes = calibration.worker_baseline_bytes.max(baseline);
                if let Some(curve) = &report.memory {
                    memory(&mut table, line, shape, &report, curve, baseline);
                    cell.timeline
                        .get_or_insert_with(|| timeline(curve, baseline));
                }
            }
            Kind::Counts => {
                for name in [INSTRUCTIONS_KEY, IN_SUBJECT_KEY, SYSCALLS_KEY] {
                    if let Some(n) = line.answer[name].as_f64() {
                        table.add(name, "count", Better::Lower, shape, line, n);
                    }
                }
                table.add(
                    "minor_faults",
                    "count",
                    Better::Lower,
                    shape,
                    line,
                    report.minor_faults as f64,
                );
                table.add(
                    "major_faults",
                    "count",
                    Better::Lower,
                    shape,
                    line,
                    report.major_faults as f64,
                );
            }
            Kind::Latency => {
                floor = floor.max(report.timer_ns);
                parts.extend(report.latency);
            }
            Kind::Program => {}
        }
    }
    cell.metrics = table.finish();
    cell.metrics.extend(own::metrics(lines));
    if !parts.is_empty() {
        calibration.timer_ns = Some(calibration.timer_ns.unwrap_or(0.0).max(floor));
        let parts: Vec<HistogramPart<'_>> = parts
            .iter()
            .map(|p| HistogramPart {
                op: &p.op,
                size_le: p.size_le,
                remote: p.remote,
                hdr_base64: &p.hdr_v2_base64,
                slow: [p.slow_by_fault, p.slow_by_preemption, p.slow_by_allocator],
            })
            .collect();
        match latency_by_op(&parts, floor) {
            Ok(latency) => cell.latency = latency,
            Err(e) => {
                cell.status = Status::Failed;
                cell.reason = Some(e.to_string());
            }
        }
    }
    cell
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
mod tests {
    use super::*;
    use crate::plan::tests::comparison;
    use serde_json::json;

    fn line(subject: &str, measure: &str, block: u32, answer: Value) -> RunLine {
        RunLine {
            workload: "churn".into(),
            subject: subject.into(),
            measure: measure.into(),
            block,
            order: 0,
            api: "malloc".into(),
            threads: 1,
            workload_hash: "00ff".into(),
            status: Status::Ok,
            reason: None,
            answer,
        }
    }

    fn subject(name: &str) -> Subject {
        Subject {
            name: name.into(),
            version: String::new(),
            path: String::new(),
            sha256: String::new(),
            settings: BTreeMap::new(),
            stats_at_end: None,
            notes: Vec::new(),
        }
    }

    fn set(lines: &[RunLine]) -> ResultSet {
        let comparisons = [comparison("churn", &[Kind::Speed, Kind::Memory])];
        assemble(Input {
            machine: Machine::default(),
            command: vec!["heaplab".into()],
            seed: 7,
            started: String::new(),
            finished: String::new(),
            subjects: vec![subject("system"), subject("x")],
            comparisons: &comparisons,
            shape: &|kind| (kind.default_mode(), kind.default_touch()),
            cpus: 2,
            lines,
            notes: Vec::new(),
            complete: true,
        })
    }

    fn speed_answer(wall_ns: u64, wait_ns: u64) -> Value {
        let report = Report {
            calls: 1000,
            wall_ns,
            wait_ns,
            ..Report::default()
        };
        let mut answer = serde_json::to_value(report).unwrap();
        answer["subject"]["version"] = json!("9.9");
        answer
    }

    fn memory_answer(live: u64) -> Value {
        let curve = MemoryCurve {
            ops: vec![1, 2],
            time_ns: vec![1, 2],
            live_bytes: vec![0, live],
            usable_bytes: vec![0, live + 100],
            resident_bytes: vec![1000, 2 * live + 1000],
            peak_resident_bytes: 2 * live + 1000,
            live_at_peak_resident_bytes: live,
            usable_at_peak_resident_bytes: live + 100,
            peak_live_bytes: live,
            resident_at_peak_live_bytes: 2 * live + 1000,
            resident_at_peak_resident_bytes: 2 * live + 1000,
            usable_at_peak_live_bytes: live + 100,
            mean_resident_bytes: live + 1000,
            ..MemoryCurve::default()
        };
        let report = Report {
            start_anon_bytes: 5000,
            memory: Some(curve),
            ..Report::default()
        };
        let mut answer = serde_json::to_value(report).unwrap();
        answer[BASELINE_KEY] = json!(1000);
        answer
    }

    #[test]
    fn times_ratios_versions_and_marks() {
        let lines = [
            line("system", "speed", 0, speed_answer(20_000, 0)),
            line("x", "speed", 0, speed_answer(10_000, 5_000)),
            line(NULL, "speed", 0, speed_answer(4_000, 0)),
        ];
        let r = set(&lines);
        assert_eq!(r.cells[0].metrics["ns_per_op"].median, 20.0);
        assert_eq!(
            r.cells[1].metrics["ns_per_op"]
                .ratio_to_system
                .unwrap()
                .median,
            0.5
        );
        assert_eq!(r.cells[1].metrics["ops_per_s"].median, 1e8);
        assert_eq!(r.subjects[1].version, "9.9");
        assert_eq!(r.calibration.null_ns_per_op, Some(4.0));
        assert_eq!(r.notes.len(), 2, "{:?}", r.notes);
        assert!(
            r.notes[0].contains("in 1 of 2 cells, most in churn t1/x: 40 %; it is the same"),
            "{:?}",
            r.notes
        );
        assert!(
            r.notes[1].ends_with("in 1 of 2 cells, most in churn t1/x: 50 %"),
            "{:?}",
            r.notes
        );
    }

    #[test]
    fn resident_figures_leave_the_worker_out_and_tiny_ratios_are_absent() {
        let r = set(&[
            line("system", "memory", 0, memory_answer(100_000)),
            line("x", "memory", 0, memory_answer(1000)),
        ]);
        let m = &r.cells[0].metrics;
        assert_eq!(m["peak_resident_bytes"].median, 200_000.0);
        assert_eq!(m["start_resident_bytes"].median, 4000.0);
        assert_eq!(m["footprint_at_peak_live"].median, 2.0);
        assert_eq!(m["rounding_at_peak_bytes"].median, 100.0);
        assert_eq!(m["unused_resident_at_peak_bytes"].median, 99_900.0);
        assert_eq!(
            (
                m["peak_live_bytes"].mode.as_str(),
                m["peak_live_bytes"].touch.as_str()
            ),
            ("lockstep", "page")
        );
        assert_eq!(
            r.cells[0].timeline.as_ref().unwrap().resident_bytes,
            [0, 200_000]
        );
        assert!(!r.cells[1].metrics.contains_key("footprint_at_peak_live"));
        assert!(r.cells[1].metrics.contains_key("peak_resident_bytes"));
    }

    #[test]
    fn a_failure_is_a_row_without_figures_and_a_hole_says_so() {
        let mut bad = line("x", "memory", 1, Value::Null);
        bad.status = Status::Failed;
        bad.reason = Some("overlapping blocks at op 5".into());
        let r = set(&[line("x", "speed", 0, speed_answer(10_000, 0)), bad]);
        assert_eq!(r.cells[0].status, Status::Skipped);
        assert_eq!(r.cells[1].status, Status::Failed);
        assert!(r.cells[1].metrics.is_empty());
        assert_eq!(
            r.cells[1].reason.as_deref(),
            Some("overlapping blocks at op 5 (block 2, memory)")
        );
    }
}
