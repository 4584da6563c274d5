//! One process of a trace as a trace of its own.

use super::copier::{Copier, Numbers};
use super::stacks::{StackCarrier, StackCursor};
use super::{LEVEL, PROGRESS, pass_on_missing};
use crate::trace::alone::Alone;
use crate::trace::error::TraceError;
use crate::trace::event::TraceEvent;
use crate::trace::header::{FinishInfo, TraceHeader};
use crate::trace::process::{ProcessInfo, Start};
use crate::trace::reader::Trace;
use crate::trace::summary::{ThreadInfo, TraceSummary};
use crate::trace::writer::TraceWriter;
use std::collections::HashMap;
use std::path::Path;

/// Writes the process with this number as if it had been recorded alone: what its ancestors did before they forked comes first,
/// with their times, and is its own. Threads are numbered anew, in the order of their first events. Addresses that the trace has
/// are kept.
///
/// # Errors
/// A number that no process of the trace has; a damaged file; one that cannot be written.
pub fn one_process(
    trace: &Trace,
    out: &Path,
    process: u32,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let summary = trace.summary();
    let Some(about) = trace.processes().get(process as usize) else {
        return Err(TraceError::Usage(format!(
            "the trace has no process of number {process}"
        )));
    };
    let header = TraceHeader {
        argv: about.info.argv.clone(),
        ..trace.header().clone()
    };
    let mut writer = TraceWriter::create(out, &header, trace.has_addresses()?, LEVEL)?;
    for ((tick, name), of) in trace.marks().iter().zip(trace.mark_processes()) {
        if of.is_none_or(|of| of == process) {
            writer.mark(*tick, name)?;
        }
    }
    for note in trace.notes() {
        writer.note(note)?;
    }
    let info = ProcessInfo {
        process: 0,
        parent: None,
        start: Start::First,
        cloned: false,
        apart: false,
        ..about.info.clone()
    };
    let mut to = Copier::new(writer, Vec::new(), vec![info]);
    let mut threads = Threads::default();
    let mut alone = Alone::new(trace, process)?;
    let mut stacks = StackCursor::new(trace);
    let mut carrier = StackCarrier::new([trace]);
    let mut numbers = Numbers::default();
    for (number, event) in (0u64..).zip(trace.events()) {
        let event = event?;
        if number.is_multiple_of(PROGRESS) {
            progress(number, summary.events);
        }
        let recorded = event.thread;
        let Some(event) = alone.take(event) else {
            continue;
        };
        let stack = stacks.of(number)?;
        let stack = carrier.carry(0, stack, event.size, number);
        let thread = threads.of(event.thread, recorded, &mut to);
        numbers.copy(&mut to, &TraceEvent { thread, ..event }, stack)?;
    }
    if to.writer.is_empty() {
        return Err(TraceError::Usage(format!(
            "process {} makes no call in this trace",
            about.info.pid
        )));
    }
    for (new, recorded) in threads.recorded.iter().enumerate() {
        let last = recorded.last();
        let mut names = trace.names().iter();
        if let Some((_, name)) = names.find(|(thread, _)| Some(thread) == last) {
            to.writer.name(new as u32, name)?;
        }
    }
    to.writer.stacks(&carrier.table())?;
    // How the recording ended is how the program that was asked for did, and what execs made of it.
    let ended = trace.processes().first().map(|first| first.info.pid) == Some(about.info.pid);
    let finish = summary.finish.clone().map(|finish| FinishInfo {
        exit_status: finish.exit_status.filter(|_| ended),
        signal: finish.signal.filter(|_| ended),
        cpu_ns: None,
        ..finish
    });
    to.finish(finish, |made| {
        made.processes = 1;
        pass_on_missing([summary], made);
        for (new, recorded) in made.thread_table.iter_mut().zip(&threads.recorded) {
            let of = |number: Option<&u32>| -> Option<&ThreadInfo> {
                summary.thread_table.get(*number? as usize)
            };
            new.start_ns = of(recorded.first()).map_or(0, |first| first.start_ns);
            new.end_ns = of(recorded.last()).and_then(|last| last.end_ns);
        }
    })
}

/// The threads of the copy.
#[derive(Default)]
struct Threads {
    /// By number in the original.
    numbers: HashMap<u32, u32>,
    /// By number in the copy: whose events it has, ancestors first. A child's first thread goes on as the one that forked.
    recorded: Vec<Vec<u32>>,
}

impl Threads {
    /// The number of `thread` in the copy, for an event that `recorded` had.
    fn of(&mut self, thread: u32, recorded: u32, to: &mut Copier) -> u32 {
        let next = self.recorded.len() as u32;
        let number = *self.numbers.entry(thread).or_insert(next);
        if number == next {
            self.recorded.push(Vec::new());
            to.thread(0);
        }
        let all = &mut self.recorded[number as usize];
        if all.last() != Some(&recorded) {
            all.push(recorded);
        }
        number
    }
}
