//! What the harness itself costs: the memory of a bare worker, and the time of a script with the null allocator.

use crate::assemble::{DISTURBANCE_KEY, TOUCHING_KEY};
use crate::disturbance::Watch;
use crate::exec::{self, Limits, RunFailure};
use crate::subject::Subject;
use heaplab_worker::protocol::{Machine, Report, RunSpec, Touch};
use serde_json::{Value, json};

/// A run of less than this is made so often, and the middle one counts: a moment of somebody else's is a large part of it.
const SHORT_NS: u64 = 100_000_000;
const SHORT_RUNS: usize = 3;

/// Anonymous bytes of a worker with `threads` threads and without any library: subtracted from every resident figure.
///
/// # Errors
/// When the worker cannot be run.
pub fn baseline_bytes(threads: u32, limits: &Limits) -> Result<u64, RunFailure> {
    exec::baseline(threads, limits)
}

/// A speed run with the null allocator, which does next to nothing: what remains is the replay's own cost. `spec` is that of
/// the speed runs it stands beside. Nothing is touched in it: writing to blocks costs the same under every allocator that
/// places them alike, is the program's work and not the harness's, and stands in the answer as a figure of its own
/// (nanoseconds per call with the runs' touch policy, less the cost without). Its memory is of no interest, so that no limit is set.
///
/// # Errors
/// When a run fails.
pub fn null(null: &Subject, spec: &RunSpec, limits: &Limits) -> Result<Value, RunFailure> {
    let bare = RunSpec {
        touch: Touch::None,
        integrity: false,
        machine: Machine {
            memory_limit: 0,
            ..spec.machine
        },
        ..spec.clone()
    };
    let cost = |report: &Report| report.wall_ns as f64 / report.calls.max(1) as f64;
    let (report, disturbance) = Watch::over_replay(|| middle(null, &bare, limits))?;
    let own = cost(&report);
    let mut answer =
        serde_json::to_value(report).map_err(|error| RunFailure::new(error.to_string()))?;
    if let Some(disturbance) = disturbance {
        answer[DISTURBANCE_KEY] = json!(disturbance);
    }
    if spec.touch != Touch::None {
        let touched = RunSpec {
            touch: spec.touch,
            ..bare
        };
        let report = middle(null, &touched, limits)?;
        answer[TOUCHING_KEY] = json!((cost(&report) - own).max(0.0));
    }
    Ok(answer)
}

/// A run, of short ones the middle of several by its time.
fn middle(null: &Subject, spec: &RunSpec, limits: &Limits) -> Result<Report, RunFailure> {
    let mut reports = vec![exec::run_worker(null, spec, limits)?];
    while reports[0].wall_ns < SHORT_NS && reports.len() < SHORT_RUNS {
        reports.push(exec::run_worker(null, spec, limits)?);
    }
    reports.sort_by_key(|report| report.wall_ns);
    Ok(reports.swap_remove(reports.len() / 2))
}
