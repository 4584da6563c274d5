//! The same trace again, as small as it gets.

use super::PROGRESS;
use crate::trace::container::ChunkKind;
use crate::trace::error::TraceError;
use crate::trace::reader::Trace;
use crate::trace::summary::TraceSummary;
use crate::trace::writer::TraceWriter;
use std::path::Path;

/// Writes the same trace in the present version of the format, with its index and checkpoints, at zstd's `level` (19: small,
/// 3: fast), with more `notes`. A trace whose end was cut off becomes a whole file; its summary still says what is missing.
pub fn repack(
    trace: &Trace,
    out: &Path,
    level: i32,
    notes: &[String],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let mut header = trace.header().clone();
    // The arguments are a chunk that is copied with the others.
    header.argv = Vec::new();
    let mut writer = TraceWriter::create(out, &header, trace.has_addresses()?, level)?;
    let mut forks = Vec::new();
    trace.each_chunk(&mut |kind, chunk, offset| match kind {
        ChunkKind::HEADER
        | ChunkKind::SEGMENT
        | ChunkKind::EVENTS
        | ChunkKind::CHECKPOINT
        | ChunkKind::EVENT_STACKS
        | ChunkKind::INDEX => Ok(()),
        ChunkKind::FORK => {
            forks.push(offset);
            Ok(())
        }
        kind => {
            let chunk = chunk()?;
            writer.about(kind, &chunk.meta, &chunk.body)
        }
    })?;
    for note in notes {
        writer.note(note)?;
    }
    let mut events = trace.events();
    let mut count = 0u64;
    for (index, segment) in trace.segments().iter().enumerate() {
        let mut stacks = trace.segment_stacks(index)?.into_iter().peekable();
        for number in 0..segment.events {
            let Some(event) = events.next().transpose()? else {
                break;
            };
            let stack = stacks.next_if(|(of, _)| *of == number);
            // The same order gives the same block numbers.
            writer.event_on(event, stack.map_or(0, |(_, stack)| stack))?;
            count += 1;
            if count.is_multiple_of(PROGRESS) {
                progress(count, trace.summary().events);
            }
        }
    }
    let mut old = trace.summary().clone();
    for process in &mut old.process_table {
        if let Some(offset) = process.fork_offset.filter(|offset| forks.contains(offset)) {
            process.fork_offset = match trace.chunk_at(offset, ChunkKind::FORK)? {
                Some(chunk) => writer.fork(process.info.process, &chunk.body)?,
                None => None,
            };
        }
    }
    writer.finish(old.finish.take(), |summary| {
        summary.processes = old.processes;
        summary.process_table = old.process_table;
        summary.foreign_frees = old.foreign_frees;
        summary.missing = old.missing;
        let threads = summary.thread_table.len().max(old.thread_table.len());
        summary.thread_table.resize(threads, Default::default());
        for (new, old) in summary.thread_table.iter_mut().zip(&old.thread_table) {
            (new.start_ns, new.end_ns) = (old.start_ns, old.end_ns);
            new.process = old.process;
        }
    })
}
