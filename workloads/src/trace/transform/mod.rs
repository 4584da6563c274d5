//! Traces made from traces: a slice, a copy without anything of the program, more or less load, several in one.

mod anonymise;
mod cut;
mod merge;
mod scale;
mod weave;

use super::error::TraceError;
use super::event::{Effect, TraceEvent};
use super::reader::Trace;
use super::summary::TraceSummary;
use super::writer::TraceWriter;
pub use anonymise::anonymise;
pub use cut::{CutOptions, cut};
pub use merge::{MergeOptions, MergeStart, merge};
pub use scale::{ScaleOptions, scale};

/// zstd's level of transformed traces.
const LEVEL: i32 = 6;
/// Events between two calls of a progress function.
const PROGRESS: u64 = 1 << 17;
/// A block that the copy does not have.
const ABSENT: u32 = u32::MAX;

/// Block numbers of a trace that is read, as they are in the one that is written.
#[derive(Default)]
struct Numbers(Vec<u32>);

impl Numbers {
    fn set(&mut self, old: u32, new: u32) {
        let index = old as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, ABSENT);
        }
        self.0[index] = new;
    }

    /// The block's number in the copy, unless it was left out.
    fn get(&self, old: u32) -> Option<u32> {
        self.0
            .get(old as usize)
            .copied()
            .filter(|&new| new != ABSENT)
    }

    /// Appends an event whose block may have another number; events of blocks that were left out are dropped.
    fn copy(&mut self, writer: &mut TraceWriter, event: &TraceEvent) -> Result<(), TraceError> {
        match event.kind.effect() {
            Effect::None => {
                writer.event(*event)?;
            }
            Effect::Alloc => {
                let new = writer.event(*event)?;
                self.set(event.block, new);
            }
            Effect::Resize | Effect::Free => {
                if let Some(block) = self.get(event.block) {
                    writer.event(TraceEvent { block, ..*event })?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the names and those marks that `mark` gives a new time.
fn copy_text(
    trace: &Trace,
    writer: &mut TraceWriter,
    mark: impl Fn(u64) -> Option<u64>,
) -> Result<(), TraceError> {
    for (thread, name) in trace.names() {
        writer.name(*thread, name)?;
    }
    for (tick, name) in trace.marks() {
        if let Some(tick) = mark(*tick) {
            writer.mark(tick, name)?;
        }
    }
    Ok(())
}

/// Ends a copy of one trace: what was missing is missing, what was said at the end stays.
fn finish_like(trace: &Trace, writer: TraceWriter) -> Result<TraceSummary, TraceError> {
    let old = trace.summary();
    writer.finish(old.finish.clone(), |summary| {
        summary.processes = old.processes;
        summary.foreign_frees = old.foreign_frees;
        if !old.missing.is_empty() {
            // The old sentences can name files: only the fact is passed on.
            summary.missing.push(PARTS_MISSING.into());
        }
        for (new, old) in summary.thread_table.iter_mut().zip(&old.thread_table) {
            (new.start_ns, new.end_ns) = (old.start_ns, old.end_ns);
        }
    })
}

const PARTS_MISSING: &str = "parts of the trace that this one was made from";
