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
mod index;
mod space;

use super::container::ChunkKind;
use super::error::TraceError;
use super::event::{Effect, EventKind, TICK_NS, TraceEvent};
use super::packed;
use super::process::Start;
use super::raw::{self, RawEvent, RawKind};
use super::stacks::Refs;
use super::summary::{ThreadInfo, TraceSummary};
use super::writer::TraceWriter;
use index::RawIndex;
use space::{Addresses, Space};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
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
        summary.processes = index.processes.len().max(1) as u32;
        if !index.processes.is_empty() {
            summary.process_table = processes;
        }
        summary.foreign_frees = foreign;
        for (&thread, &process) in &index.owners {
            let number = thread as usize;
            if number >= summary.thread_table.len() {
                summary
                    .thread_table
                    .resize(number + 1, ThreadInfo::default());
            }
            summary.thread_table[number].process = process;
        }
        for (&thread, &(start_ns, end_ns)) in &index.lives {
            let number = thread as usize;
            if number >= summary.thread_table.len() {
                summary
                    .thread_table
                    .resize(number + 1, ThreadInfo::default());
            }
            summary.thread_table[number].start_ns = start_ns;
            summary.thread_table[number].end_ns = end_ns;
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
    })
}

/// A realloc between its two events.
#[derive(Clone, Copy)]
struct Pending {
    /// The block, unless the old pointer was null or foreign.
    block: Option<u32>,
    address: u64,
}

#[derive(Default)]
struct Stream {
    number: u32,
    process: usize,
    chunk: usize,
    events: Vec<RawEvent>,
    at: usize,
    /// Events of the chunks before the present one.
    before: u64,
    refs: Refs,
    pending: Vec<Pending>,
}

/// What became of a thread's next event.
enum Outcome {
    /// It happened; the state of this address changed.
    Done(Option<u64>),
    /// It is not possible yet: this address must change first.
    Waits(u64),
}

/// In place of an address: a forked process waits for its parent to come to the fork.
const FORK: u64 = u64::MAX;

struct Merge<'a> {
    index: &'a RawIndex,
    writer: TraceWriter,
    streams: Vec<Stream>,
    spaces: Vec<Space>,
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    blocked: BTreeSet<(u64, usize)>,
    /// Streams that wait, by process and address.
    waiters: Addresses<(u32, u64), Vec<usize>>,
    window_ns: u64,
    foreign: u64,
    done: u64,
    /// Numbers in the final table of the stacks of the raw file.
    stack_numbers: Vec<u32>,
}

impl<'a> Merge<'a> {
    fn new(index: &'a RawIndex, writer: TraceWriter, options: &ResolveOptions) -> Self {
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

    fn run(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), TraceError> {
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
    fn peek(&mut self, stream: usize) -> Result<Option<RawEvent>, TraceError> {
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
    fn wake(&mut self, process: u32, address: u64) -> Result<(), TraceError> {
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

    fn emit(
        &mut self,
        stream: usize,
        raw: &RawEvent,
        kind: EventKind,
        block: u32,
    ) -> Result<u32, TraceError> {
        let process = self.streams[stream].process;
        let before = match kind.effect() {
            Effect::Resize | Effect::Free => {
                let known = self.writer.blocks().get(block);
                known.map_or(0, |block| block.size)
            }
            _ => 0,
        };
        self.spaces[process].count(kind, before, raw.size);
        let stack = match kind {
            EventKind::Inherited | EventKind::LostFree => 0,
            _ => self.stack_of(stream)?,
        };
        let event = TraceEvent {
            thread: self.streams[stream].number,
            tick: raw.time_ns / TICK_NS,
            kind,
            block,
            size: raw.size,
            align_log2: raw.align_log2,
            address: raw.address,
        };
        self.writer.event_on(event, stack)
    }

    /// The stack that a stream's present event brought; 0 for none.
    fn stack_of(&mut self, stream: usize) -> Result<u32, TraceError> {
        let this = &mut self.streams[stream];
        let number = this.before + this.at as u64;
        let Some(raw) = this.refs.of(number, &self.index.reader)? else {
            return Ok(0);
        };
        // Number 0 is a stack of which nothing is known.
        let known = self.stack_numbers.get(raw as usize);
        Ok(known.or(self.stack_numbers.first()).copied().unwrap_or(0))
    }

    /// Takes a block out of the heap of the stream's process; an inherited one gets a number of its own first.
    fn take(
        &mut self,
        stream: usize,
        event: &RawEvent,
        address: u64,
    ) -> Result<Option<u32>, TraceError> {
        let space = &mut self.spaces[self.streams[stream].process];
        if let Some(block) = space.blocks.remove(&address) {
            return Ok(Some(block));
        }
        let Some(block) = space.inherited.remove(&address) else {
            return Ok(None);
        };
        space.sources.push(block.from);
        let copied = RawEvent {
            address,
            size: block.size,
            align_log2: block.align_log2,
            ..*event
        };
        self.emit(stream, &copied, EventKind::Inherited, 0)
            .map(Some)
    }

    /// Whether the stream's process has a block at an address, other than what it inherited: that address cannot come from
    /// its allocator, so the block was gone at the fork.
    fn occupied(&mut self, stream: usize, address: u64) -> Option<u32> {
        let space = &mut self.spaces[self.streams[stream].process];
        space.inherited.remove(&address);
        space.blocks.get(&address).copied()
    }

    fn put(&mut self, stream: usize, address: u64, block: u32) {
        let process = self.streams[stream].process;
        self.spaces[process].blocks.insert(address, block);
    }

    /// The parent forks: the child's heap is a copy of its own.
    fn begin_fork(&mut self, child: usize) -> Result<(), TraceError> {
        let parent = self.index.processes.get(child).and_then(|info| info.parent);
        if let Some(parent) = parent {
            let blocks = self.writer.blocks();
            let about = |number| {
                let block = blocks.get(number);
                block.map_or((0, 0), |block| (block.size, block.align_log2))
            };
            self.spaces[child].inherited = self.spaces[parent as usize].fork(about);
        }
        self.spaces[child].begun = true;
        self.wake(child as u32, FORK)
    }

    /// Blocks that are alive at the end of a process leave, once all its events have happened.
    fn end_if_over(&mut self, process: usize) -> Result<(), TraceError> {
        let space = &mut self.spaces[process];
        if !space.ending || space.running > 0 {
            return Ok(());
        }
        space.ending = false;
        space.inherited = HashMap::default();
        let mut blocks: Vec<u32> = std::mem::take(&mut space.blocks).into_values().collect();
        blocks.sort_unstable();
        let thread = space.thread;
        let end_ns = space.counts.info.end_ns.unwrap_or(0);
        for block in blocks {
            self.spaces[process].count(EventKind::Gone, 0, 0);
            self.writer.event(TraceEvent {
                thread,
                tick: end_ns / TICK_NS,
                kind: EventKind::Gone,
                block,
                size: 0,
                align_log2: 0,
                address: 0,
            })?;
        }
        Ok(())
    }

    /// What can be let go before the file is finished.
    fn end_of_all(&mut self) {
        for space in &mut self.spaces {
            space.blocks = HashMap::default();
            space.inherited = HashMap::default();
        }
    }
}
