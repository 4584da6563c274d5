//! Writes the final form: segments of events in global order, columns per thread, an index at the end.

use super::checkpoint;
use super::columns::MAX_THREADS;
use super::container::{ChunkKind, ChunkWriter, MAX_PART};
use super::error::TraceError;
use super::event::{Blocks, Effect, TraceEvent};
use super::header::{FinishInfo, TraceHeader};
use super::index::IndexMeta;
use super::process::ProcessInfo;
use super::segments::{Encoders, Segment};
use super::summary::TraceSummary;
use std::path::{Path, PathBuf};

/// Events of a segment at most. A reader holds one segment at a time.
pub const SEGMENT_EVENTS: usize = 128 * 1024;
/// The last 16 bytes of a whole file: this and the offset of the index.
pub const TRAILER: [u8; 8] = *b"HLTRACEX";
/// Bytes of an entry of the index.
pub const INDEX_ENTRY: usize = 48;

/// Segments between two checkpoints at least, unless asked otherwise: two million events, which a reader decodes in some 50 ms.
const CHECKPOINT_SEGMENTS: u64 = 16;
/// A checkpoint may cost so much of what was written since the one before: one part in 16.
const CHECKPOINT_SHARE: u64 = 16;
/// Segments after which a checkpoint that was not worth it is considered again.
const RECONSIDER: u64 = 4;

/// Whether a file may be written elsewhere and renamed to `path`: what is there already is a regular file, or
/// nothing is. The rename would put a file in the place of a device or a pipe, as root for the whole system.
///
/// # Errors
/// It is something else.
pub fn replaceable(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it exists and is no regular file; name a file",
        )),
        _ => Ok(()),
    }
}

/// Where this process keeps a trace until it is whole and can be at `path`.
pub fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

/// Streaming writer; nothing appears under the final name before `finish`.
pub struct TraceWriter {
    out: ChunkWriter,
    path: PathBuf,
    temporary: PathBuf,
    keep_addresses: bool,
    /// The segment that takes events, and those that are on their way to the file.
    segment: Segment,
    encoders: Encoders,
    ticks: Vec<u64>,
    last_tick: u64,
    index: Vec<u8>,
    segments: u64,
    /// Chunks of text that lie behind the first segment.
    late: Vec<u64>,
    checkpoints: Vec<(u64, u64)>,
    checkpoint_segments: u64,
    checkpoint_share: u64,
    /// Segments and offset at the last checkpoint.
    since_checkpoint: (u64, u64),
    /// Number of the segment before which no checkpoint is considered.
    reconsider: u64,
    blocks: Blocks,
    summary: TraceSummary,
}

impl TraceWriter {
    /// Starts a trace that will be at `path`. `level` is zstd's.
    pub fn create(
        path: &Path,
        header: &TraceHeader,
        keep_addresses: bool,
        level: i32,
    ) -> Result<Self, TraceError> {
        replaceable(path).map_err(|error| TraceError::io("write", path, error))?;
        let temporary = temporary_path(path);
        let created = ChunkWriter::create(&temporary, level);
        // Only a file of ours is removed when something goes wrong from here on.
        let out = created.map_err(|error| match error {
            TraceError::Io { action, source, .. } => TraceError::io(action, path, source),
            other => other,
        })?;
        let mut this = Self {
            out,
            path: path.to_path_buf(),
            temporary,
            keep_addresses,
            segment: Segment::default(),
            encoders: Encoders::new(level),
            ticks: Vec::new(),
            last_tick: 0,
            index: Vec::new(),
            segments: 0,
            late: Vec::new(),
            checkpoints: Vec::new(),
            checkpoint_segments: CHECKPOINT_SEGMENTS,
            checkpoint_share: CHECKPOINT_SHARE,
            since_checkpoint: (0, 0),
            reconsider: 0,
            blocks: Blocks::default(),
            summary: TraceSummary::default(),
        };
        let body = serde_json::to_vec(header)
            .map_err(|error| TraceError::io("write", path, error.into()))?;
        // One byte of meta tells the final form from a raw file.
        this.out.write(ChunkKind::HEADER, &[1], &body)?;
        if !header.argv.is_empty() {
            super::raw::write_json(&mut this.out, ChunkKind::ARGV, &header.argv)?;
        }
        Ok(this)
    }

    /// A thread's name.
    pub fn name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.about(ChunkKind::NAME, &thread.to_le_bytes(), name.as_bytes())
    }

    /// A named mark at a time.
    pub fn mark(&mut self, tick: u64, name: &str) -> Result<(), TraceError> {
        self.about(ChunkKind::MARK, &tick.to_le_bytes(), name.as_bytes())
    }

    /// A process.
    pub fn process(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        let body = serde_json::to_vec(process)
            .map_err(|error| TraceError::io("write", &self.path, error.into()))?;
        let meta = process.process.to_le_bytes();
        self.about(ChunkKind::PROCESS, &meta, &body)
    }

    /// A named mark of one process, or of all.
    pub fn mark_in(
        &mut self,
        process: Option<u32>,
        tick: u64,
        name: &str,
    ) -> Result<(), TraceError> {
        let mut meta = tick.to_le_bytes().to_vec();
        if let Some(process) = process {
            meta.extend_from_slice(&process.to_le_bytes());
        }
        self.about(ChunkKind::MARK, &meta, name.as_bytes())
    }

    /// After the last event: where a forked process has its inherited blocks from. The chunk's offset; `None` when the
    /// list does not fit in a chunk.
    pub(super) fn fork(&mut self, process: u32, body: &[u8]) -> Result<Option<u64>, TraceError> {
        if body.len() > MAX_PART as usize {
            return Ok(None);
        }
        self.flush(true)?;
        self.settle()?;
        let offset = self.out.offset();
        self.out
            .write(ChunkKind::FORK, &process.to_le_bytes(), body)?;
        Ok(Some(offset))
    }

    /// A remark.
    pub fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.about(ChunkKind::NOTE, &[], text.as_bytes())
    }

    /// A chunk that describes: readers find it before the first segment, or by the index.
    pub(super) fn about(
        &mut self,
        kind: ChunkKind,
        meta: &[u8],
        body: &[u8],
    ) -> Result<(), TraceError> {
        if self.segments > 0 {
            self.settle()?;
            self.late.push(self.out.offset());
        }
        self.out.write(kind, meta, body)
    }

    /// Blocks alive at this point.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Writes a checkpoint every so many segments, whatever it costs: for traces that are opened in the middle often.
    pub fn checkpoint_every(&mut self, segments: u64) {
        self.checkpoint_segments = segments.max(1);
        self.checkpoint_share = 0;
    }

    /// Events that were appended.
    pub(super) fn events(&self) -> u64 {
        self.summary.events
    }

    /// No event was appended yet.
    pub fn is_empty(&self) -> bool {
        self.summary.events == 0
    }

    /// The file that is to be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an event that brought its stack (0: none), see [`TraceWriter::event`].
    pub fn event_on(&mut self, event: TraceEvent, stack: u32) -> Result<u32, TraceError> {
        if stack != 0 {
            let number = self.segment.events as u32;
            self.segment.stacks.push((number, stack));
        }
        self.event(event)
    }

    /// Appends an event to the global order and returns its block. `block` matters for frees and resizes, `size` for
    /// all others; a tick before the thread's last one is lifted to it. Errors when the block is not alive.
    pub fn event(&mut self, mut event: TraceEvent) -> Result<u32, TraceError> {
        let index = event.thread as usize;
        if event.thread >= MAX_THREADS {
            return Err(TraceError::Usage(format!(
                "a trace has room for {MAX_THREADS} threads"
            )));
        }
        if index >= self.ticks.len() {
            self.ticks.resize(index + 1, 0);
        }
        event.tick = event.tick.max(self.ticks[index]);
        self.ticks[index] = event.tick;
        let mut owner = event.thread;
        let outcome = match event.kind.effect() {
            Effect::Alloc => self
                .blocks
                .alloc(event.thread, event.tick, event.size, event.align_log2)
                .map(|block| event.block = block),
            Effect::Resize => self.blocks.resize(event.block, event.size).map(drop),
            Effect::Free => self.blocks.free(event.block).map(|block| {
                owner = block.thread;
            }),
            Effect::Told => self
                .blocks
                .get(event.block)
                .map(|block| event.size = event.size.min(block.size)),
            Effect::None => Ok(()),
        };
        outcome.map_err(|reason| TraceError::damaged(&self.path, self.out.offset(), reason))?;
        let live = (self.blocks.live_bytes, self.blocks.live_blocks);
        self.summary.count(&event, owner, live);
        let segment = &mut self.segment;
        if segment.events == 0 {
            segment.first_event = self.summary.events - 1;
            segment.first_tick = event.tick;
            segment.live_bytes = live.0;
        }
        self.last_tick = self.last_tick.max(event.tick);
        let columns = segment.columns.entry(event.thread).or_default();
        columns.push(&event, self.keep_addresses);
        match segment.runs.last_mut() {
            Some((thread, count)) if *thread == event.thread => *count += 1,
            _ => segment.runs.push((event.thread, 1)),
        }
        segment.events += 1;
        if segment.events == SEGMENT_EVENTS {
            self.flush(false)?;
            self.checkpoint()?;
        }
        Ok(event.block)
    }

    /// Sends the segment on its way; `last` says that no other one is expected soon.
    fn flush(&mut self, last: bool) -> Result<(), TraceError> {
        if self.segment.events == 0 {
            return Ok(());
        }
        let mut spare = None;
        while self.encoders.is_full() {
            spare = self.write_segment()?;
        }
        self.segments += 1;
        self.segment.last_tick = self.last_tick;
        let full = std::mem::replace(&mut self.segment, spare.unwrap_or_default());
        self.encoders.push(full, last);
        Ok(())
    }

    /// Waits for the oldest segment that is on its way and writes it; gives it back empty.
    fn write_segment(&mut self) -> Result<Option<Segment>, TraceError> {
        let Some((mut segment, bytes)) = self.encoders.take() else {
            return Ok(None);
        };
        for word in [
            self.out.offset(),
            segment.first_event,
            segment.events as u64,
            segment.first_tick,
            segment.last_tick,
            segment.live_bytes,
        ] {
            self.index.extend_from_slice(&word.to_le_bytes());
        }
        segment.events = 0;
        match bytes {
            Ok(bytes) => self.out.append(Ok(&bytes))?,
            Err(error) => self.out.append(Err(error))?,
        }
        Ok(Some(segment))
    }

    /// Writes all segments that are on their way: the file ends where the next chunk will be.
    fn settle(&mut self) -> Result<(), TraceError> {
        while self.write_segment()?.is_some() {}
        Ok(())
    }

    /// Writes a checkpoint before the next segment, when enough was written since the last one.
    fn checkpoint(&mut self) -> Result<(), TraceError> {
        let (segment, offset) = self.since_checkpoint;
        if self.segments - segment < self.checkpoint_segments || self.segments < self.reconsider {
            return Ok(());
        }
        self.settle()?;
        let written = self.out.offset() - offset;
        if written < checkpoint::expected_bytes(&self.blocks) * self.checkpoint_share {
            self.reconsider = self.segments + RECONSIDER;
            return Ok(());
        }
        let offset = self.out.offset();
        self.checkpoints.push((self.segments, offset));
        checkpoint::write(
            &mut self.out,
            self.summary.events,
            &self.blocks,
            &self.ticks,
        )?;
        self.since_checkpoint = (self.segments, self.out.offset());
        Ok(())
    }

    /// Writes the index and gives the file its name. `complete` brings what only the caller knows: foreign frees, thread
    /// starts, what is missing.
    pub fn finish(
        mut self,
        finish: Option<FinishInfo>,
        complete: impl FnOnce(&mut TraceSummary),
    ) -> Result<TraceSummary, TraceError> {
        self.flush(true)?;
        self.settle()?;
        self.summary.finish = finish;
        complete(&mut self.summary);
        self.summary.close();
        let offset = self.out.offset();
        let body = std::mem::take(&mut self.index);
        // A checkpoint behind the last segment would belong to nothing.
        self.checkpoints
            .retain(|(segment, _)| *segment < self.segments);
        let meta = serde_json::to_vec(&IndexMeta {
            summary: self.summary.clone(),
            late: Some(std::mem::take(&mut self.late)),
            checkpoints: std::mem::take(&mut self.checkpoints),
        })
        .map_err(|error| TraceError::io("write", &self.path, error.into()))?;
        self.out.write(ChunkKind::INDEX, &meta, &body)?;
        let mut trailer = TRAILER.to_vec();
        trailer.extend_from_slice(&offset.to_le_bytes());
        self.out.trailer(&trailer)?;
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|error| TraceError::io("rename", &self.path, error))?;
        Ok(std::mem::take(&mut self.summary))
    }
}

impl Drop for TraceWriter {
    fn drop(&mut self) {
        // Gone already after a finish; else there is nothing more to be done about an error here.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
