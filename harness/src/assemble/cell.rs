//! One row: what the runs of one subject on one comparison say.

use super::figures::{Table, idle, memory, program, speed, timeline};
use super::{
    BASELINE_KEY, IN_SUBJECT_KEY, INSTRUCTIONS_KEY, Input, SYSCALLS_KEY, mode_name, own, report,
    touch_name,
};
use crate::plan::{Comparison, Kind};
use heaplab_reports::schema::{Better, Calibration, Cell, RunLine, Status};
use heaplab_reports::{HistogramPart, latency_by_op};
use heaplab_worker::protocol::Touch;
use std::collections::BTreeMap;

/// The row of `subject`, from `lines`, which are its own; what calibration they hold is added to `calibration`.
pub(super) fn cell(
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
        if comparison.program {
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
