//! Addresses to block numbers: a raw file becomes a trace in one streaming merge.
//!
//! The streams of the threads are merged by time, but time is a hint: between a call and its stamp a thread can be
//! preempted for milliseconds. The truth is that at each address allocations and frees alternate. A thread whose next
//! event is not possible yet (an allocation at an address that is still live, a free of one that is not) waits for the
//! others. Only when no thread can go on, or all others are a whole window ahead, something was never recorded: a free is
//! then of a block from before the recording and is dropped; an allocation proves a lost free, which is made up.
//!
//! Memory: the live blocks, one chunk per thread that is running, and the chunk index.

use super::container::{ChunkKind, ChunkPlace, ChunkReader, FILE_HEADER};
use super::error::TraceError;
use super::event::{EventKind, TICK_NS, TraceEvent};
use super::header::{FinishInfo, TraceHeader};
use super::raw::{self, RawEvent, RawKind, RawMeta};
use super::summary::{ThreadInfo, TraceSummary};
use super::writer::TraceWriter;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;

/// How to resolve.
#[derive(Clone, Copy, Debug)]
pub struct ResolveOptions {
    /// Store the address of each allocation (for studies of locality).
    pub keep_addresses: bool,
    /// zstd's level of the result: 3 is a good balance, 19 for traces that are kept.
    pub level: i32,
    /// Nanoseconds of the recording that a thread may lag behind the others before its event counts as impossible.
    /// Longer than any preemption on a loaded machine.
    pub window_ns: u64,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            keep_addresses: false,
            level: 3,
            window_ns: 500_000_000,
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
    let index = RawIndex::read(raw)?;
    let mut writer =
        TraceWriter::create(out, &index.header, options.keep_addresses, options.level)?;
    for (thread, name) in &index.names {
        writer.name(*thread, name)?;
    }
    for (time_ns, name) in &index.marks {
        writer.mark(time_ns / TICK_NS, name)?;
    }
    for note in &index.notes {
        writer.note(note)?;
    }
    let mut merge = Merge::new(&index, writer, options);
    merge.run(progress)?;
    let Merge {
        writer, foreign, ..
    } = merge;
    let finish = index.finish.clone();
    writer.finish(finish, |summary| {
        summary.processes = 1;
        summary.foreign_frees = foreign;
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

/// A raw file without its events.
struct RawIndex {
    reader: ChunkReader,
    header: TraceHeader,
    names: Vec<(u32, String)>,
    marks: Vec<(u64, String)>,
    notes: Vec<String>,
    /// Start and end of each thread, ns.
    lives: BTreeMap<u32, (u64, Option<u64>)>,
    chunks: BTreeMap<u32, Vec<(ChunkPlace, RawMeta)>>,
    events: u64,
    finish: Option<FinishInfo>,
    damage: Option<String>,
}

impl RawIndex {
    fn read(path: &Path) -> Result<Self, TraceError> {
        let reader = ChunkReader::open(path)?;
        let mut this = Self {
            reader,
            header: TraceHeader::default(),
            names: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            lives: BTreeMap::new(),
            chunks: BTreeMap::new(),
            events: 0,
            finish: None,
            damage: None,
        };
        let mut offset = FILE_HEADER;
        loop {
            let place = match this.reader.place(offset) {
                Ok(Some(place)) => place,
                Ok(None) => break,
                Err(error) => {
                    this.damage = Some(error.to_string());
                    break;
                }
            };
            if offset == FILE_HEADER && place.kind != ChunkKind::HEADER {
                return Err(TraceError::damaged(path, offset, "the header is missing"));
            }
            if let Err(error) = this.take(path, &place) {
                if offset == FILE_HEADER || matches!(error, TraceError::Usage(_)) {
                    return Err(error);
                }
                this.damage = Some(error.to_string());
                break;
            }
            offset = place.end();
        }
        Ok(this)
    }

    fn take(&mut self, path: &Path, place: &ChunkPlace) -> Result<(), TraceError> {
        let cut = || TraceError::damaged(path, place.offset, "a chunk is too short");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let json = |error: serde_json::Error| {
            TraceError::damaged(
                path,
                place.offset,
                format!("a chunk cannot be read: {error}"),
            )
        };
        let u32_at = |meta: &[u8]| Some(u32::from_le_bytes(*meta.first_chunk::<4>()?));
        let u64_at =
            |meta: &[u8], at: usize| Some(u64::from_le_bytes(*meta.get(at..)?.first_chunk::<8>()?));
        // Every chunk is checked here, so that the merge never meets a bad one half-way.
        let chunk = self.reader.chunk(place)?;
        match place.kind {
            ChunkKind::HEADER => {
                if !chunk.meta.is_empty() {
                    return Err(TraceError::Usage(format!(
                        "'{}' has been resolved already: use it as it is",
                        path.display()
                    )));
                }
                let argv = std::mem::take(&mut self.header.argv);
                self.header = serde_json::from_slice(&chunk.body).map_err(json)?;
                self.header.argv = argv;
            }
            ChunkKind::ARGV => {
                self.header.argv = serde_json::from_slice(&chunk.body).map_err(json)?;
            }
            ChunkKind::NAME => {
                let thread = u32_at(&chunk.meta).ok_or_else(cut)?;
                self.names.push((thread, text(&chunk.body)));
            }
            ChunkKind::MARK => {
                let time_ns = u64_at(&chunk.meta, 0).ok_or_else(cut)?;
                self.marks.push((time_ns, text(&chunk.body)));
            }
            ChunkKind::NOTE => self.notes.push(text(&chunk.body)),
            ChunkKind::RAW_THREAD_START => {
                let thread = u32_at(&chunk.meta).filter(|&thread| thread < 1 << 20);
                let thread = thread.ok_or_else(cut)?;
                let time_ns = u64_at(&chunk.meta, 8).ok_or_else(cut)?;
                self.lives.entry(thread).or_insert((time_ns, None)).0 = time_ns;
            }
            ChunkKind::RAW_THREAD_END => {
                let thread = u32_at(&chunk.meta).filter(|&thread| thread < 1 << 20);
                let thread = thread.ok_or_else(cut)?;
                let time_ns = u64_at(&chunk.meta, 4).ok_or_else(cut)?;
                self.lives.entry(thread).or_insert((time_ns, None)).1 = Some(time_ns);
            }
            ChunkKind::RAW_EVENTS => {
                let meta = RawMeta::decode(&chunk.meta).ok_or_else(cut)?;
                if meta.events as usize > raw::CHUNK_EVENTS || meta.thread >= 1 << 20 {
                    return Err(TraceError::damaged(
                        path,
                        place.offset,
                        "impossible numbers",
                    ));
                }
                self.events += u64::from(meta.events);
                self.chunks
                    .entry(meta.thread)
                    .or_default()
                    .push((*place, meta));
            }
            ChunkKind::FINISH => {
                self.finish = Some(serde_json::from_slice(&chunk.body).map_err(json)?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Addresses are well spread after one multiplication; the standard hasher costs as much as the rest of the merge.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

type Addresses<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

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
    chunk: usize,
    events: Vec<RawEvent>,
    at: usize,
    pending: Vec<Pending>,
}

/// What became of a thread's next event.
enum Outcome {
    /// It happened; the state of this address changed.
    Done(Option<u64>),
    /// It is not possible yet: this address must change first.
    Waits(u64),
}

struct Merge<'a> {
    index: &'a RawIndex,
    writer: TraceWriter,
    streams: Vec<Stream>,
    blocks: Addresses<u32>,
    ready: BinaryHeap<Reverse<(u64, usize)>>,
    blocked: BTreeSet<(u64, usize)>,
    waiters: Addresses<Vec<usize>>,
    window_ns: u64,
    foreign: u64,
    done: u64,
}

impl<'a> Merge<'a> {
    fn new(index: &'a RawIndex, writer: TraceWriter, options: &ResolveOptions) -> Self {
        let streams = index
            .chunks
            .keys()
            .map(|&number| Stream {
                number,
                ..Stream::default()
            })
            .collect();
        Self {
            index,
            writer,
            streams,
            blocks: HashMap::default(),
            ready: BinaryHeap::new(),
            blocked: BTreeSet::new(),
            waiters: HashMap::default(),
            window_ns: options.window_ns,
            foreign: 0,
            done: 0,
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
            self.advance(stream)?;
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
                this.events = Vec::new();
                this.at = 0;
                return Ok(None);
            };
            this.chunk += 1;
            let chunk = self.index.reader.chunk(place)?;
            this.events.clear();
            this.at = 0;
            raw::decode(*meta, &chunk.body, &mut this.events).map_err(|reason| {
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
                    self.blocked.insert((event.time_ns, stream));
                    self.waiters.entry(address).or_default().push(stream);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn applied(&mut self, stream: usize, changed: Option<u64>) -> Result<(), TraceError> {
        self.streams[stream].at += 1;
        self.done += 1;
        if let Some(address) = changed
            && !self.waiters.is_empty()
            && let Some(waiting) = self.waiters.remove(&address)
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
        if let Some(waiting) = self.waiters.get_mut(&event.address) {
            waiting.retain(|&other| other != stream);
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
        self.writer.event(TraceEvent {
            thread: self.streams[stream].number,
            tick: raw.time_ns / TICK_NS,
            kind,
            block,
            size: raw.size,
            align_log2: raw.align_log2,
            address: raw.address,
        })
    }

    fn apply(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let address = event.address;
        let kind = match event.kind {
            RawKind::Free => EventKind::Free,
            RawKind::FreeSized => EventKind::FreeSized,
            RawKind::FreeAlignedSized => EventKind::FreeAlignedSized,
            RawKind::FailedAlloc => {
                self.emit(stream, &event, EventKind::Failed, 0)?;
                return Ok(Outcome::Done(None));
            }
            RawKind::Mark => {
                self.emit(stream, &event, EventKind::Mark, 0)?;
                return Ok(Outcome::Done(None));
            }
            RawKind::ReallocBegin => return Ok(self.realloc_begin(stream, address, force)),
            RawKind::ReallocEnd | RawKind::ReallocArrayEnd => {
                return self.realloc_end(stream, event, force);
            }
            other => {
                let kind = EventKind::of_allocation(other).unwrap_or(EventKind::Malloc);
                return self.allocation(stream, event, kind, force);
            }
        };
        if address == 0 {
            return Ok(Outcome::Done(None));
        }
        match self.blocks.remove(&address) {
            Some(block) => {
                self.emit(stream, &event, kind, block)?;
                Ok(Outcome::Done(Some(address)))
            }
            None if force => {
                self.foreign += 1;
                Ok(Outcome::Done(None))
            }
            None => Ok(Outcome::Waits(address)),
        }
    }

    fn allocation(
        &mut self,
        stream: usize,
        event: RawEvent,
        kind: EventKind,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        if event.address == 0 {
            self.emit(stream, &event, EventKind::Failed, 0)?;
            return Ok(Outcome::Done(None));
        }
        if let Some(&old) = self.blocks.get(&event.address) {
            if !force {
                return Ok(Outcome::Waits(event.address));
            }
            self.emit(stream, &event, EventKind::LostFree, old)?;
        }
        let block = self.emit(stream, &event, kind, 0)?;
        self.blocks.insert(event.address, block);
        Ok(Outcome::Done(Some(event.address)))
    }

    /// The old address is free to be given to others from now on; the block lives on until the end is seen.
    fn realloc_begin(&mut self, stream: usize, address: u64, force: bool) -> Outcome {
        let block = match self.blocks.remove(&address) {
            _ if address == 0 => None,
            Some(block) => Some(block),
            None if force => {
                self.foreign += 1;
                None
            }
            None => return Outcome::Waits(address),
        };
        self.streams[stream]
            .pending
            .push(Pending { block, address });
        Outcome::Done(block.map(|_| address))
    }

    fn realloc_end(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let pending = self.streams[stream].pending.last().copied();
        // An end without its beginning (lost) is an allocation, or resizes the block at its address.
        let pending = pending.unwrap_or(Pending {
            block: None,
            address: 0,
        });
        let Some(block) = pending.block else {
            if event.address == 0 && event.size == 0 {
                self.streams[stream].pending.pop();
                return Ok(Outcome::Done(None));
            }
            let outcome = self.allocation(stream, event, EventKind::ReallocNew, force)?;
            if matches!(outcome, Outcome::Done(_)) {
                self.streams[stream].pending.pop();
            }
            return Ok(outcome);
        };
        if event.address == 0 {
            self.streams[stream].pending.pop();
            if event.size == 0 {
                self.emit(stream, &event, EventKind::ReallocFree, block)?;
                return Ok(Outcome::Done(None));
            }
            // It failed: the block stays what and where it was.
            self.blocks.insert(pending.address, block);
            self.emit(stream, &event, EventKind::Failed, 0)?;
            return Ok(Outcome::Done(Some(pending.address)));
        }
        if let Some(&other) = self.blocks.get(&event.address) {
            if !force {
                return Ok(Outcome::Waits(event.address));
            }
            self.emit(stream, &event, EventKind::LostFree, other)?;
        }
        let kind = if event.kind == RawKind::ReallocArrayEnd {
            EventKind::ReallocArray
        } else {
            EventKind::Realloc
        };
        self.emit(stream, &event, kind, block)?;
        self.blocks.insert(event.address, block);
        self.streams[stream].pending.pop();
        Ok(Outcome::Done(Some(event.address)))
    }
}
