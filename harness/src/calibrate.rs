//! What the harness itself costs: the memory of a bare worker, and the time of a script with the null allocator.

use crate::exec::{self, Limits, RunFailure};
use crate::subject;
use heaplab_worker::protocol::{Measure, RunSpec, Touch};

/// Anonymous bytes of a worker with `threads` threads and without any library: subtracted from every resident figure.
///
/// # Errors
/// When the worker cannot be run.
pub fn baseline_bytes(threads: u32, limits: &Limits) -> Result<u64, RunFailure> {
    exec::baseline(threads, limits)
}

/// Wall nanoseconds per call (calls of all threads together) of a script with the null allocator,
/// which does next to nothing: what remains is the replay's own cost. `spec` is that of the speed runs it stands beside.
///
/// # Errors
/// When the run fails.
pub fn null_ns_per_op(spec: &RunSpec, limits: &Limits) -> Result<f64, RunFailure> {
    let null = subject::parse("null")
        .ok()
        .and_then(|list| list.into_iter().next())
        .ok_or_else(|| RunFailure::new("the null allocator cannot be written to the cache"))?;
    let spec = RunSpec {
        measure: Measure::Speed,
        touch: Touch::None,
        integrity: false,
        ..spec.clone()
    };
    let report = exec::run_worker(&null, &spec, limits)?;
    Ok(report.wall_ns as f64 / report.calls.max(1) as f64)
}
