//! The schedule: whose event is next, who waits for whom, and what is made to happen although it is not possible.

use super::ResolveOptions;
use super::index::RawIndex;
use super::space::{Addresses, Space};
use crate::trace::container::ChunkKind;
use crate::trace::error::TraceError;
use crate::trace::packed;
use crate::trace::process::Start;
use crate::trace::raw::{self, RawEvent};
use crate::trace::stacks::Refs;
use crate::trace::writer::TraceWriter;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

/// A realloc between its two events.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    /// The block, unless the old pointer was null or foreign.
    pub(super) block: Option<u32>,
    pub(super) address: u64,
}

#[derive(Default)]
pub(super) struct Stream {
    pub(super) number: u32,
    pub(super) process: usize,
    chunk: usize,
    events: Vec<RawEvent>,
    pub(super) at: usize,
    /// Events of the chunks before the present one.
    pub(super) before: u64,
    pub(super) refs: Refs,
    pub(super) pending: Vec<Pending>,
}

/// What became of a thread's next event.
pub(super) enum Outcome {
    /// It happened; the state of this address changed.
    Done(Option<u64>),
    /// It is not possible yet: this address must change first.
    Waits(u64),
}

/// In place of an address: a forked process waits for its parent to come to the fork.
pub(super) const FORK: u64 = u64::MAX;

pub(super) struct Merge<'a> {
    pub(super) index: &'a RawIndex,
    pub(super) writer: TraceWriter,
    pub(super) streams: Vec<Stream>,
    pub(super) spaces: Vec<Space>,
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    blocked: BTreeSet<(u64, usize)>,
    /// Streams that wait, by process and address.
    waiters: Addresses<(u32, u64), Vec<usize>>,
    window_ns: u64,
    pub(super) foreign: u64,
    done: u64,
    /// Numbers in the final table of the stacks of the raw file.
    pub(super) stack_numbers: Vec<u32>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(index: &'a RawIndex, writer: TraceWriter, options: &ResolveOptions) -> Self {
        let mut spaces: Vec<Space> = Vec::new();
        spaces.resize_with(index.processes.len().max(1), Space::default);
        for (space, info) in spaces.iter_mut().zip(&index.processes) {
            space.begun = info.start != Start::Fork || info.parent.is_none();
            space.counts.info = info.clone();
        }
        if index.processes.is_empty() {
            spaces[0].begun = true;
        }
        let streams = index
            .chunks
            .keys()
            .map(|&number| {
                let process = index.process_of(number) as usize;
                let space = &mut spaces[process];
                if space.running == 0 {
                    space.thread = number;
                }
                space.running += 1;
                space.counts.threads += 1;
                Stream {
                    number,
                    process,
                    refs: index.stacks.refs_of(number),
                    ..Stream::default()
                }
            })
            .collect();
        Self {
            index,
            writer,
            streams,
            spaces,
            ready: BinaryHeap::new(),
            blocked: BTreeSet::new(),
            waiters: HashMap::default(),
            window_ns: options.window_ns,
            foreign: 0,
            done: 0,
            stack_numbers: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), TraceError> {
        let mut reported = 0;
        for (stream, chunks) in self.index.chunks.values().enumerate() {
            self.ready.push(Reverse((
                chunks.first().map_or(0, |(_, meta)| meta.first_ns),
                stream,
            )));
        }
        if self.spaces.len() > 1 {
            for (process, info) in self.index.processes.iter().enumerate() {
                if let Some(end_ns) = info.end_ns {
                    // Behind the numbers of the streams: the end of a process.
                    self.ready
                        .push(Reverse((end_ns, self.streams.len() + process)));
                }
            }
        }
        loop {
            let Some(Reverse((time, stream))) = self.ready.pop() else {
                match self.blocked.first().copied() {
                    Some((_, stream)) => self.force(stream)?,
                    None => break,
                }
                continue;
            };
            // A blocked thread that all others have left behind by a window will never be unblocked by them.
            while let Some(&(since, late)) = self.blocked.first()
                && since.saturating_add(self.window_ns) < time
            {
                self.force(late)?;
            }
            match stream.checked_sub(self.streams.len()) {
                None => self.advance(stream)?,
                Some(process) => {
                    self.spaces[process].ending = true;
                    self.end_if_over(process)?;
                }
            }
            if self.done - reported >= 1 << 17 {
                reported = self.done;
                progress(self.done, self.index.events);
            }
        }
        progress(self.done, self.index.events);
        Ok(())
    }

    /// The next event of a stream, reading its next chunk when the present one is used up.
    pub(super) fn peek(&mut self, stream: usize) -> Result<Option<RawEvent>, TraceError> {
        let this = &mut self.streams[stream];
        while this.at == this.events.len() {
            let chunks = &self.index.chunks[&this.number];
            let Some((place, meta)) = chunks.get(this.chunk) else {
                if this.chunk == chunks.len() {
                    // Its end, met for the first time.
                    this.chunk += 1;
                    this.events = Vec::new();
                    this.at = 0;
                    let process = this.process;
                    self.spaces[process].running -= 1;
                    self.end_if_over(process)?;
                }
                return Ok(None);
            };
            this.chunk += 1;
            this.before += this.events.len() as u64;
            let chunk = self.index.reader.chunk(place)?;
            this.events.clear();
            this.at = 0;
            let decode = match place.kind {
                ChunkKind::RAW_EVENTS_1 => raw::decode_1,
                _ => packed::decode,
            };
            decode(*meta, &chunk.body, &mut this.events).map_err(|reason| {
                TraceError::damaged(self.index.reader.path(), place.offset, reason)
            })?;
        }
        Ok(Some(this.events[this.at]))
    }

    /// Runs a stream until another one is earlier, it must wait, or it ends.
    fn advance(&mut self, stream: usize) -> Result<(), TraceError> {
        while let Some(event) = self.peek(stream)? {
            if let Some(&Reverse((earliest, _))) = self.ready.peek()
                && event.time_ns > earliest
            {
                self.ready.push(Reverse((event.time_ns, stream)));
                return Ok(());
            }
            match self.apply(stream, event, false)? {
                Outcome::Done(changed) => self.applied(stream, changed)?,
                Outcome::Waits(address) => {
                    let process = self.streams[stream].process as u32;
                    self.blocked.insert((event.time_ns, stream));
                    self.waiters
                        .entry((process, address))
                        .or_default()
                        .push(stream);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn applied(&mut self, stream: usize, changed: Option<u64>) -> Result<(), TraceError> {
        self.streams[stream].at += 1;
        self.done += 1;
        let process = self.streams[stream].process as u32;
        match changed {
            Some(address) => self.wake(process, address),
            None => Ok(()),
        }
    }

    /// Lets streams go on that wait for an address of a process.
    pub(super) fn wake(&mut self, process: u32, address: u64) -> Result<(), TraceError> {
        if !self.waiters.is_empty()
            && let Some(waiting) = self.waiters.remove(&(process, address))
        {
            for other in waiting {
                if let Some(event) = self.peek(other)? {
                    self.blocked.remove(&(event.time_ns, other));
                    self.ready.push(Reverse((event.time_ns, other)));
                }
            }
        }
        Ok(())
    }

    /// Makes a blocked thread's event happen although it is not possible.
    fn force(&mut self, stream: usize) -> Result<(), TraceError> {
        let Some(event) = self.peek(stream)? else {
            return Ok(());
        };
        self.blocked.remove(&(event.time_ns, stream));
        let process = self.streams[stream].process;
        for address in [event.address, FORK] {
            if let Some(waiting) = self.waiters.get_mut(&(process as u32, address)) {
                waiting.retain(|&other| other != stream);
            }
        }
        if !self.spaces[process].begun {
            // Its parent never said that it forks (a bare clone): a copy of the heap as it is now.
            self.begin_fork(process)?;
        }
        if let Outcome::Done(changed) = self.apply(stream, event, true)? {
            self.applied(stream, changed)?;
        }
        if let Some(next) = self.peek(stream)? {
            self.ready.push(Reverse((next.time_ns, stream)));
        }
        Ok(())
    }
}
