//! What the harness itself costs: the memory of a bare worker, and the time of a script with the null allocator.

use crate::assemble::TOUCHING_KEY;
use crate::exec::{self, Limits, RunFailure};
use crate::subject::Subject;
use heaplab_worker::protocol::{RunSpec, Touch};
use serde_json::{Value, json};

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
/// (nanoseconds per call with the runs' touch policy, less the cost without).
///
/// # Errors
/// When a run fails.
pub fn null(null: &Subject, spec: &RunSpec, limits: &Limits) -> Result<Value, RunFailure> {
    let bare = RunSpec {
        touch: Touch::None,
        integrity: false,
        ..spec.clone()
    };
    let report = exec::run_worker(null, &bare, limits)?;
    let cost = |wall: u64, calls: u64| wall as f64 / calls.max(1) as f64;
    let own = cost(report.wall_ns, report.calls);
    let mut answer =
        serde_json::to_value(report).map_err(|error| RunFailure::new(error.to_string()))?;
    if spec.touch != Touch::None {
        let touched = RunSpec {
            touch: spec.touch,
            ..bare
        };
        let report = exec::run_worker(null, &touched, limits)?;
        answer[TOUCHING_KEY] = json!((cost(report.wall_ns, report.calls) - own).max(0.0));
    }
    Ok(answer)
}
