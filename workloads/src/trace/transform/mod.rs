//! Traces made from traces: a slice, a copy without anything of the program, more or less load, several in one.

mod anonymise;
mod copier;
mod cut;
mod forks;
mod merge;
mod one_process;
mod repack;
mod scale;
mod stacks;
mod weave;

use super::error::TraceError;
use super::reader::Trace;
use super::summary::TraceSummary;
use super::writer::TraceWriter;
pub use anonymise::anonymise;
use copier::Copier;
pub use cut::{CutOptions, cut};
pub use merge::{MergeOptions, MergeStart, merge};
pub use one_process::one_process;
pub use repack::repack;
pub use scale::{ScaleOptions, scale};

/// zstd's level of transformed traces.
const LEVEL: i32 = 6;
/// Events between two calls of a progress function.
const PROGRESS: u64 = 1 << 17;

/// Writes the names, the notes and those marks that `mark` gives a new time.
fn copy_text(
    trace: &Trace,
    writer: &mut TraceWriter,
    mark: impl Fn(u64) -> Option<u64>,
) -> Result<(), TraceError> {
    for (thread, name) in trace.names() {
        writer.name(*thread, name)?;
    }
    for ((tick, name), process) in trace.marks().iter().zip(trace.mark_processes()) {
        if let Some(tick) = mark(*tick) {
            writer.mark_in(*process, tick, name)?;
        }
    }
    for note in trace.notes() {
        writer.note(note)?;
    }
    Ok(())
}

/// Ends a copy of one trace: what was missing is missing, what was said at the end stays.
fn finish_like(trace: &Trace, to: Copier) -> Result<TraceSummary, TraceError> {
    let old = trace.summary();
    to.finish(old.finish.clone(), |summary| {
        summary.processes = old.processes;
        summary.foreign_frees = old.foreign_frees;
        pass_on_missing([old], summary);
        for (new, old) in summary.thread_table.iter_mut().zip(&old.thread_table) {
            (new.start_ns, new.end_ns) = (old.start_ns, old.end_ns);
        }
    })
}

/// Says of a copy that parts of what it was made from are missing: the old sentences can name files, so only the fact is passed on.
fn pass_on_missing<'a>(
    old: impl IntoIterator<Item = &'a TraceSummary>,
    summary: &mut TraceSummary,
) {
    if old.into_iter().any(|one| !one.missing.is_empty()) {
        let what = "parts of the trace that this one was made from";
        summary.missing.push(what.into());
    }
}
