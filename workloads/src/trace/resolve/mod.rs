//! Addresses to block numbers: a raw file becomes a trace in one streaming merge.
//!
//! The streams of the threads are merged by time, but time is a hint: between a call and its stamp a thread can be
//! preempted for milliseconds. The truth is that at each address allocations and frees alternate. A thread whose next
//! event is not possible yet (an allocation at an address that is still live, a free of one that is not) waits for the
//! others. Only when no thread can go on, or all others are a whole window ahead, something was never recorded: a free is
//! then of a block from before the recording and is dropped; an allocation proves a lost free, which is made up.
//!
//! A recording of several processes has one heap (`space`) for each, but one global order and one row of block numbers.
//! A fork gives the child a copy of its parent's heap: blocks that it touches get numbers of their own at that moment
//! (kind `Inherited`), and what they were in the parent stands in a FORK chunk. Blocks that are alive when a process ends or
//! replaces itself by exec leave with kind `Gone`.
//!
//! Memory: the live blocks (of each living process), one chunk per thread that is running, and the chunk index.

mod apply;
mod heaps;
mod index;
mod merge;
mod space;

use super::error::TraceError;
use super::event::TICK_NS;
use super::process::ProcessCounts;
use super::summary::{ThreadInfo, TraceSummary};
use super::writer::TraceWriter;
use index::RawIndex;
use merge::Merge;
use std::path::Path;

/// How to resolve.
#[derive(Clone, Copy, Debug)]
pub struct ResolveOptions {
    /// Store the address of each allocation (for studies of locality).
    pub keep_addresses: bool,
    /// zstd's level of the result: 3 is a good balance, 19 for traces that are kept.
    pub level: i32,
    /// Nanoseconds of the recording that a thread may lag behind the others before its event counts as impossible. A free
    /// is stamped before the call and an allocation after it, so preemption delays no stamp past an event that depends on
    /// it; what remains are clocks that differ between CPUs (microseconds) and threads whose hook was interrupted by a
    /// signal handler that allocates, whose stamps are lifted by as long as the handler runs.
    pub window_ns: u64,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            keep_addresses: false,
            level: 3,
            window_ns: 20_000_000,
        }
    }
}

/// Resolves `raw` into `out`, which appears only when it is whole. A raw file that was cut off is used up to its last
/// good chunk, and the summary says what is missing. A file that is resolved already is an error.
pub fn resolve_file(
    raw: &Path,
    out: &Path,
    options: &ResolveOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let mut index = RawIndex::read(raw)?;
    let (table, stack_numbers) = index.stacks.build();
    let mut writer =
        TraceWriter::create(out, &index.header, options.keep_addresses, options.level)?;
    for process in &index.processes {
        writer.process(process)?;
    }
    for (thread, name) in &index.names {
        writer.name(*thread, name)?;
    }
    for (process, time_ns, name) in &index.marks {
        writer.mark_in(*process, time_ns / TICK_NS, name)?;
    }
    for note in &index.notes {
        writer.note(note)?;
    }
    writer.stacks(&table)?;
    let mut merge = Merge::new(&index, writer, options);
    merge.stack_numbers = stack_numbers;
    merge.run(progress)?;
    merge.end_of_all();
    let Merge {
        mut writer,
        foreign,
        spaces,
        ..
    } = merge;
    let mut processes = Vec::new();
    for mut space in spaces {
        if !space.sources.is_empty() {
            let mut body = Vec::new();
            for entry in &space.sources {
                entry.put(&mut body);
            }
            space.counts.fork_offset = writer.fork(space.counts.info.process, &body)?;
        }
        processes.push(space.counts);
    }
    let finish = index.finish.clone();
    writer.finish(finish, |summary| {
        summary.foreign_frees = foreign;
        describe(&index, processes, summary);
    })
}

/// What the raw file says besides its events.
fn describe(index: &RawIndex, processes: Vec<ProcessCounts>, summary: &mut TraceSummary) {
    summary.processes = index.processes.len().max(1) as u32;
    if !index.processes.is_empty() {
        summary.process_table = processes;
    }
    let table = &mut summary.thread_table;
    for (&thread, &process) in &index.owners {
        row(table, thread).process = process;
    }
    for (&thread, &(start_ns, end_ns)) in &index.lives {
        let row = row(table, thread);
        (row.start_ns, row.end_ns) = (start_ns, end_ns);
    }
    match &index.finish {
        None => summary
            .missing
            .push("the end of the recording: it was cut off".into()),
        Some(finish) if finish.lost_events > 0 => {
            summary.missing.push(format!(
                "{} events that the recorder dropped",
                finish.lost_events
            ));
        }
        Some(_) => {}
    }
    if let Some(damage) = &index.damage {
        summary.missing.push(format!("everything after: {damage}"));
    }
}

/// A thread's row, which one without events does not have yet.
fn row(table: &mut Vec<ThreadInfo>, thread: u32) -> &mut ThreadInfo {
    let number = thread as usize;
    if number >= table.len() {
        table.resize(number + 1, ThreadInfo::default());
    }
    &mut table[number]
}
