//! Reads the final form: opens at once by the index, or by scanning when the file was cut off.

use super::container::{ChunkKind, ChunkPlace, ChunkReader};
use super::error::TraceError;
use super::event::{Blocks, Effect, EventKind, TraceEvent};
use super::header::TraceHeader;
use super::resolve::{self, ResolveOptions};
use super::summary::TraceSummary;
use super::varint::{self, Cursor};
use super::writer::{INDEX_ENTRY, SEGMENT_EVENTS, TRAILER};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// A segment's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its chunk.
    pub offset: u64,
    /// Number of its first event.
    pub first_event: u64,
    /// Its events.
    pub events: u64,
    /// Tick of its first event.
    pub first_tick: u64,
    /// Largest tick up to its end.
    pub last_tick: u64,
    /// Live bytes after its first event.
    pub live_bytes: u64,
}

/// A trace that is open for reading.
pub struct Trace {
    reader: ChunkReader,
    /// The path that was asked for (not the temporary file of a raw one).
    path: PathBuf,
    temporary: Option<PathBuf>,
    header: TraceHeader,
    names: Vec<(u32, String)>,
    marks: Vec<(u64, String)>,
    notes: Vec<String>,
    segments: Vec<Segment>,
    summary: TraceSummary,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Trace")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Trace {
    /// Opens a trace. A raw file (a recording that was cut off) is resolved into a temporary file first; a final file
    /// without its end is read up to the last good segment. Both then have `complete == false`.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let reader = ChunkReader::open(path)?;
        let first = reader.place(super::container::FILE_HEADER)?;
        let Some(first) = first.filter(|place| place.kind == ChunkKind::HEADER) else {
            let offset = super::container::FILE_HEADER;
            return Err(TraceError::damaged(path, offset, "the header is missing"));
        };
        let head = reader.chunk(&first)?;
        if head.meta.first() == Some(&1) {
            return Self::open_final(reader, path, None);
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let temporary = std::env::temp_dir().join(format!(
            "heaplab-{}-{}-{name}",
            std::process::id(),
            unique()
        ));
        let options = ResolveOptions {
            level: 1,
            ..ResolveOptions::default()
        };
        resolve::resolve_file(path, &temporary, &options, &mut |_, _| {})?;
        let opened = ChunkReader::open(&temporary)
            .and_then(|reader| Self::open_final(reader, path, Some(temporary.clone())));
        if opened.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        opened
    }

    /// Opens a trace that is embedded in the program; `name` stands for its path.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, TraceError> {
        Self::open_final(ChunkReader::embedded(name, bytes)?, Path::new(name), None)
    }

    fn open_final(
        reader: ChunkReader,
        path: &Path,
        temporary: Option<PathBuf>,
    ) -> Result<Self, TraceError> {
        let mut trace = Self {
            reader,
            path: path.to_path_buf(),
            temporary,
            header: TraceHeader::default(),
            names: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            segments: Vec::new(),
            summary: TraceSummary::default(),
        };
        let indexed = trace.read_index()?;
        trace.read_chunks(indexed)?;
        if !indexed {
            trace.count_again()?;
        }
        Ok(trace)
    }

    /// Reads the index that the trailer points to; false when there is no trailer.
    fn read_index(&mut self) -> Result<bool, TraceError> {
        let length = self.reader.length();
        let mut trailer = [0u8; 16];
        if length < super::container::FILE_HEADER + 16 {
            return Ok(false);
        }
        self.reader.bytes_at(length - 16, &mut trailer)?;
        if trailer[..8] != TRAILER {
            return Ok(false);
        }
        let mut word = [0u8; 8];
        word.copy_from_slice(&trailer[8..]);
        let offset = u64::from_le_bytes(word);
        let damaged = |reason: &str| TraceError::damaged(self.reader.path(), offset, reason);
        let place = self
            .reader
            .place(offset)?
            .filter(|place| place.kind == ChunkKind::INDEX && place.end() == length - 16)
            .ok_or_else(|| damaged("the trailer does not point to the index"))?;
        let chunk = self.reader.chunk(&place)?;
        let summary: TraceSummary = serde_json::from_slice(&chunk.meta)
            .map_err(|error| damaged(&format!("the summary cannot be read: {error}")))?;
        if !chunk.body.len().is_multiple_of(INDEX_ENTRY) {
            return Err(damaged("the index is cut"));
        }
        let mut next_event = 0u64;
        for entry in chunk.body.chunks_exact(INDEX_ENTRY) {
            let at = |index: usize| {
                let mut word = [0u8; 8];
                word.copy_from_slice(&entry[8 * index..8 * index + 8]);
                u64::from_le_bytes(word)
            };
            let segment = Segment {
                offset: at(0),
                first_event: at(1),
                events: at(2),
                first_tick: at(3),
                last_tick: at(4),
                live_bytes: at(5),
            };
            if segment.first_event != next_event
                || segment.events == 0
                || segment.events > SEGMENT_EVENTS as u64
                || segment.offset >= offset
            {
                return Err(damaged(
                    "an entry of the index does not follow the one before",
                ));
            }
            next_event += segment.events;
            self.segments.push(segment);
        }
        if summary.events != next_event {
            return Err(damaged(
                "the summary and the index count different numbers of events",
            ));
        }
        self.summary = summary;
        Ok(true)
    }

    /// Walks over all chunk headers; reads the small chunks. Without an index it also collects the segments.
    fn read_chunks(&mut self, indexed: bool) -> Result<(), TraceError> {
        let mut offset = super::container::FILE_HEADER;
        let end = if indexed {
            self.reader.length() - 16
        } else {
            self.reader.length()
        };
        let mut incomplete: Option<(Segment, u32)> = None;
        while offset < end {
            let place = match self.reader.place(offset) {
                Ok(Some(place)) => place,
                Ok(None) => break,
                Err(error) if indexed => return Err(error),
                Err(error) => {
                    self.summary
                        .missing
                        .push(format!("everything after: {error}"));
                    break;
                }
            };
            offset = place.end();
            let outcome = self.read_chunk(&place, indexed, &mut incomplete);
            match outcome {
                Ok(()) => {}
                Err(error) if indexed || self.segments.is_empty() => return Err(error),
                Err(error) => {
                    self.summary
                        .missing
                        .push(format!("everything after: {error}"));
                    break;
                }
            }
        }
        if !indexed {
            self.summary
                .missing
                .push("the end of the file with its index".into());
        }
        Ok(())
    }

    fn read_chunk(
        &mut self,
        place: &ChunkPlace,
        indexed: bool,
        incomplete: &mut Option<(Segment, u32)>,
    ) -> Result<(), TraceError> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let damaged = |reason: &str| TraceError::damaged(self.reader.path(), place.offset, reason);
        match place.kind {
            ChunkKind::HEADER => {
                let chunk = self.reader.chunk(place)?;
                let argv = std::mem::take(&mut self.header.argv);
                self.header = serde_json::from_slice(&chunk.body)
                    .map_err(|error| damaged(&format!("the header cannot be read: {error}")))?;
                self.header.argv = argv;
            }
            ChunkKind::ARGV => {
                let chunk = self.reader.chunk(place)?;
                self.header.argv = serde_json::from_slice(&chunk.body)
                    .map_err(|error| damaged(&format!("the arguments cannot be read: {error}")))?;
            }
            ChunkKind::NAME => {
                let chunk = self.reader.chunk(place)?;
                let thread = chunk
                    .meta
                    .first_chunk::<4>()
                    .ok_or_else(|| damaged("no thread"))?;
                self.names
                    .push((u32::from_le_bytes(*thread), text(chunk.body)));
            }
            ChunkKind::MARK => {
                let chunk = self.reader.chunk(place)?;
                let tick = chunk
                    .meta
                    .first_chunk::<8>()
                    .ok_or_else(|| damaged("no time"))?;
                self.marks
                    .push((u64::from_le_bytes(*tick), text(chunk.body)));
            }
            ChunkKind::NOTE => {
                let chunk = self.reader.chunk(place)?;
                self.notes.push(text(chunk.body));
            }
            ChunkKind::SEGMENT if !indexed => {
                // Checked in full: what is listed must be readable.
                let chunk = self.reader.chunk(place)?;
                let meta = SegmentMeta::decode(&chunk.meta).map_err(|reason| damaged(&reason))?;
                let expected = self
                    .segments
                    .last()
                    .map_or(0, |last| last.first_event + last.events);
                if meta.first_event != expected {
                    return Err(damaged("a segment is missing"));
                }
                let segment = Segment {
                    offset: place.offset,
                    first_event: meta.first_event,
                    events: u64::from(meta.events),
                    first_tick: 0,
                    last_tick: 0,
                    live_bytes: 0,
                };
                *incomplete = Some((segment, meta.chunks));
            }
            ChunkKind::EVENTS if !indexed => {
                self.reader.chunk(place)?;
                if let Some((segment, left)) = incomplete {
                    *left -= 1;
                    if *left == 0 {
                        self.segments.push(*segment);
                        *incomplete = None;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Without an index the totals come from the events themselves.
    fn count_again(&mut self) -> Result<(), TraceError> {
        let mut summary = TraceSummary::default();
        let mut walk = Walk::default();
        let mut events = Vec::new();
        for index in 0..self.segments.len() {
            self.segment_counted(index, &mut walk, &mut events, &mut summary)?;
        }
        summary.missing = std::mem::take(&mut self.summary.missing);
        summary.close();
        self.summary = summary;
        Ok(())
    }

    fn segment_counted(
        &self,
        index: usize,
        walk: &mut Walk,
        events: &mut Vec<TraceEvent>,
        summary: &mut TraceSummary,
    ) -> Result<(), TraceError> {
        self.segment(index, walk, events, |event, owner, live| {
            summary.count(event, owner, live)
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it was recorded, of what.
    pub fn header(&self) -> &TraceHeader {
        &self.header
    }

    /// Totals.
    pub fn summary(&self) -> &TraceSummary {
        &self.summary
    }

    /// Names of threads: (thread, name).
    pub fn names(&self) -> &[(u32, String)] {
        &self.names
    }

    /// Marks: (tick, name), as recorded.
    pub fn marks(&self) -> &[(u64, String)] {
        &self.marks
    }

    /// Remarks of the recorder.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Segments in their order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// All events in global order; memory is one segment and the live blocks.
    pub fn events(&self) -> Events<'_> {
        Events {
            trace: self,
            next: 0,
            walk: Walk::default(),
            buffer: Vec::new(),
            at: 0,
            failed: false,
        }
    }

    /// Reads everything and checks every rule: checksums, columns, that each block is allocated before it is resized or
    /// freed, that time never runs backwards in a thread, that the index and the summary agree with the events.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<TraceSummary, TraceError> {
        let mut walk = Walk::default();
        let mut events = Vec::new();
        let mut found = TraceSummary::default();
        for (index, segment) in self.segments.iter().enumerate() {
            self.segment_counted(index, &mut walk, &mut events, &mut found)?;
            let first = events.first().map(|event| event.tick);
            // The entries of a scanned file carry no times.
            if segment.last_tick != 0 && first != Some(segment.first_tick) {
                let reason = "the index is wrong about the time of a segment";
                return Err(TraceError::damaged(&self.path, segment.offset, reason));
            }
            progress(segment.first_event + segment.events, self.summary.events);
        }
        found.close();
        if !found.same_counts(&self.summary) {
            let reason = format!(
                "the summary disagrees with the events: {} allocations and {} frees were found, {} and {} are stated",
                found.allocations, found.frees, self.summary.allocations, self.summary.frees
            );
            return Err(TraceError::damaged(
                &self.path,
                self.reader.length(),
                reason,
            ));
        }
        Ok(self.summary.clone())
    }

    /// Reads one segment into `events`, in global order; `seen` gets each event with the thread that owned its block and
    /// the live bytes and blocks after it.
    pub(super) fn segment(
        &self,
        index: usize,
        walk: &mut Walk,
        events: &mut Vec<TraceEvent>,
        mut seen: impl FnMut(&TraceEvent, u32, (u64, u64)),
    ) -> Result<(), TraceError> {
        let segment = self.segments[index];
        let damaged =
            |offset: u64, reason: String| TraceError::damaged(self.reader.path(), offset, reason);
        let place = self.reader.place(segment.offset)?;
        let place = place
            .filter(|place| place.kind == ChunkKind::SEGMENT)
            .ok_or_else(|| damaged(segment.offset, "no segment begins here".into()))?;
        let chunk = self.reader.chunk(&place)?;
        let meta =
            SegmentMeta::decode(&chunk.meta).map_err(|reason| damaged(place.offset, reason))?;
        if meta.first_event != segment.first_event || u64::from(meta.events) != segment.events {
            return Err(damaged(
                place.offset,
                "the segment is not the one of the index".into(),
            ));
        }
        let mut places = Vec::with_capacity(meta.chunks as usize);
        let mut offset = place.end();
        let mut claimed = 0u64;
        for _ in 0..meta.chunks {
            let place = self.reader.place(offset)?;
            let place = place
                .filter(|place| place.kind == ChunkKind::EVENTS)
                .ok_or_else(|| damaged(offset, "events of a segment are missing".into()))?;
            offset = place.end();
            let count = self.reader.meta(&place)?.get(4..8).map_or(0, |count| {
                u64::from(u32::from_le_bytes([count[0], count[1], count[2], count[3]]))
            });
            // Before anything is decoded: many chunks that each claim a whole segment would fill the memory.
            claimed += count;
            if claimed > segment.events {
                return Err(damaged(
                    place.offset,
                    "a segment holds more events than it says".into(),
                ));
            }
            places.push(place);
        }
        let decode = |place: &ChunkPlace| {
            let chunk = self.reader.chunk(place)?;
            decode_events(&chunk.meta, &chunk.body).map_err(|reason| damaged(place.offset, reason))
        };
        let threads: Vec<(u32, Vec<TraceEvent>)> = if places.len() > 1 {
            places.par_iter().map(decode).collect::<Result<_, _>>()?
        } else {
            places.iter().map(decode).collect::<Result<_, _>>()?
        };
        events.clear();
        interleave(&chunk.body, meta.events, &threads, walk, events, &mut seen)
            .map_err(|reason| damaged(segment.offset, reason))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It lies in the folder for temporary files; if it cannot be removed now, the system will.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// State that goes from segment to segment.
#[derive(Default)]
pub(super) struct Walk {
    pub blocks: Blocks,
    ticks: Vec<u64>,
}

struct SegmentMeta {
    first_event: u64,
    events: u32,
    chunks: u32,
}

impl SegmentMeta {
    fn decode(meta: &[u8]) -> Result<Self, String> {
        let (first, rest) = meta.split_first_chunk::<8>().ok_or("a segment is cut")?;
        let (events, rest) = rest.split_first_chunk::<4>().ok_or("a segment is cut")?;
        let chunks = rest.first_chunk::<4>().ok_or("a segment is cut")?;
        let this = Self {
            first_event: u64::from_le_bytes(*first),
            events: u32::from_le_bytes(*events),
            chunks: u32::from_le_bytes(*chunks),
        };
        if this.events == 0
            || this.events as usize > SEGMENT_EVENTS
            || this.chunks == 0
            || this.chunks > this.events
        {
            return Err("a segment claims impossible numbers".into());
        }
        Ok(this)
    }
}

/// Follows the runs of a segment over the threads' events and gives every event its block.
fn interleave(
    runs: &[u8],
    expected: u32,
    threads: &[(u32, Vec<TraceEvent>)],
    walk: &mut Walk,
    events: &mut Vec<TraceEvent>,
    seen: &mut impl FnMut(&TraceEvent, u32, (u64, u64)),
) -> Result<(), String> {
    let mut at = vec![0usize; threads.len()];
    let mut last = vec![0u32; threads.len()];
    let mut runs = Cursor(runs);
    while let Some(thread) = runs.next() {
        let count = runs.next().ok_or("the order of a segment is cut")?;
        let index = threads
            .binary_search_by_key(&thread, |(number, _)| u64::from(*number))
            .map_err(|_| format!("the order names thread {thread}, which has no events"))?;
        let (from, all) = (at[index], &threads[index].1);
        let to = usize::try_from(count)
            .ok()
            .and_then(|count| from.checked_add(count));
        let Some(part) = to
            .and_then(|to| all.get(from..to))
            .filter(|part| !part.is_empty())
        else {
            return Err(format!(
                "the order counts {count} events of thread {thread}"
            ));
        };
        at[index] += part.len();
        let number = thread as usize;
        if number >= walk.ticks.len() {
            walk.ticks.resize(number + 1, 0);
        }
        for event in part {
            let mut event = *event;
            if event.tick < walk.ticks[number] {
                return Err(format!("time runs backwards in thread {thread}"));
            }
            walk.ticks[number] = event.tick;
            let mut owner = event.thread;
            let effect = event.kind.effect();
            if matches!(effect, Effect::Resize | Effect::Free) {
                // Until here `block` was the distance to the block the thread touched before.
                event.block = last[index].wrapping_add(event.block);
            }
            match effect {
                Effect::Alloc => {
                    event.block = walk.blocks.alloc(
                        event.thread,
                        event.tick,
                        event.size,
                        event.align_log2,
                    )?;
                }
                Effect::Resize => {
                    let old = walk.blocks.resize(event.block, event.size)?;
                    event.align_log2 = old.align_log2;
                    owner = old.thread;
                }
                Effect::Free => {
                    let old = walk.blocks.free(event.block)?;
                    event.size = old.size;
                    event.align_log2 = old.align_log2;
                    owner = old.thread;
                }
                Effect::None => {}
            }
            if effect != Effect::None {
                last[index] = event.block;
            }
            seen(
                &event,
                owner,
                (walk.blocks.live_bytes, walk.blocks.live_blocks),
            );
            events.push(event);
        }
    }
    if events.len() != expected as usize
        || !at
            .iter()
            .zip(threads)
            .all(|(at, (_, all))| *at == all.len())
    {
        return Err("the order of a segment leaves events out".into());
    }
    Ok(())
}

/// The events of one chunk; `block` holds the distance for resizes and frees.
fn decode_events(meta: &[u8], body: &[u8]) -> Result<(u32, Vec<TraceEvent>), String> {
    let short = || "the columns of a chunk are cut".to_string();
    let (thread, rest) = meta.split_first_chunk::<4>().ok_or_else(short)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (first, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let last = rest.first_chunk::<8>().ok_or_else(short)?;
    let (thread, count) = (
        u32::from_le_bytes(*thread),
        u32::from_le_bytes(*count) as usize,
    );
    let (mut tick, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    if thread >= 1 << 20 {
        return Err(format!("{thread} is no number of a thread"));
    }
    let (lengths, mut rest) = body.split_at_checked(24).ok_or_else(short)?;
    let mut columns = [&[][..]; 6];
    for (column, length) in columns.iter_mut().zip(lengths.chunks_exact(4)) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        (*column, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    }
    let [kinds, ticks, blocks, sizes, alignments, addresses] = columns;
    if kinds.len() != count || count == 0 || count > SEGMENT_EVENTS || !rest.is_empty() {
        return Err(format!(
            "a chunk says {count} events and holds {}",
            kinds.len()
        ));
    }
    let keep = !addresses.is_empty();
    let (mut ticks, mut blocks, mut sizes) = (Cursor(ticks), Cursor(blocks), Cursor(sizes));
    let (mut alignments, mut addresses) = (alignments.iter(), Cursor(addresses));
    let mut address = 0u64;
    let mut events = Vec::with_capacity(count);
    for &number in kinds {
        let kind = EventKind::from_number(number)
            .ok_or_else(|| format!("{number} is no kind of event"))?;
        let step = ticks.next().ok_or_else(short)?;
        tick = tick
            .checked_add(step)
            .filter(|&tick| tick < 1 << 56)
            .ok_or("a time is out of range")?;
        let effect = kind.effect();
        let block = if matches!(effect, Effect::Resize | Effect::Free) {
            varint::unzigzag(blocks.next().ok_or_else(short)?) as u32
        } else {
            0
        };
        let size = if kind.has_size() {
            sizes.next().ok_or_else(short)?
        } else {
            0
        };
        let align_log2 = if kind.has_alignment() {
            *alignments.next().ok_or_else(short)?
        } else {
            0
        };
        if align_log2 >= 48 || size >= 1 << 56 {
            return Err("a size or an alignment is out of range".into());
        }
        let mut at = 0;
        if keep && matches!(effect, Effect::Alloc | Effect::Resize) {
            let step = varint::unzigzag(addresses.next().ok_or_else(short)?);
            address = address.wrapping_add(step as u64);
            at = address;
        }
        events.push(TraceEvent {
            thread,
            tick,
            kind,
            block,
            size,
            align_log2,
            address: at,
        });
    }
    let over = [
        ticks.0.len(),
        blocks.0.len(),
        sizes.0.len(),
        addresses.0.len(),
        alignments.len(),
    ];
    if tick != last || over.iter().any(|&left| left != 0) {
        return Err("the columns of a chunk do not agree with each other".into());
    }
    Ok((thread, events))
}

/// Iterator over all events of a trace; ends after the first error.
pub struct Events<'a> {
    trace: &'a Trace,
    next: usize,
    walk: Walk,
    buffer: Vec<TraceEvent>,
    at: usize,
    failed: bool,
}

impl Iterator for Events<'_> {
    type Item = Result<TraceEvent, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(event) = self.buffer.get(self.at) {
            self.at += 1;
            return Some(Ok(*event));
        }
        if self.failed || self.next == self.trace.segments.len() {
            return None;
        }
        self.at = 0;
        let outcome = self
            .trace
            .segment(self.next, &mut self.walk, &mut self.buffer, |_, _, _| {});
        self.next += 1;
        if let Err(error) = outcome {
            self.failed = true;
            self.buffer.clear();
            return Some(Err(error));
        }
        self.next()
    }
}
