//! Writes the final form: segments of events in global order, columns per thread, an index at the end.

use super::container::{ChunkKind, ChunkWriter, MAX_PART};
use super::error::TraceError;
use super::event::{Blocks, Effect, TraceEvent};
use super::header::{FinishInfo, TraceHeader};
use super::process::ProcessInfo;
use super::summary::TraceSummary;
use super::varint;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Events of a segment at most. A reader holds one segment at a time.
pub const SEGMENT_EVENTS: usize = 128 * 1024;
/// The last 16 bytes of a whole file: this and the offset of the index.
pub const TRAILER: [u8; 8] = *b"HLTRACEX";
/// Bytes of an entry of the index.
pub const INDEX_ENTRY: usize = 48;

#[derive(Default)]
struct Columns {
    events: u32,
    first_tick: u64,
    tick: u64,
    block: u32,
    address: u64,
    kinds: Vec<u8>,
    ticks: Vec<u8>,
    blocks: Vec<u8>,
    sizes: Vec<u8>,
    alignments: Vec<u8>,
    addresses: Vec<u8>,
}

/// Streaming writer; nothing appears under the final name before `finish`.
pub struct TraceWriter {
    out: ChunkWriter,
    path: PathBuf,
    temporary: PathBuf,
    keep_addresses: bool,
    columns: BTreeMap<u32, Columns>,
    ticks: Vec<u64>,
    runs: Vec<(u32, u32)>,
    segment_events: usize,
    segment_start: (u64, u64, u64),
    last_tick: u64,
    index: Vec<u8>,
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
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
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
            columns: BTreeMap::new(),
            ticks: Vec::new(),
            runs: Vec::new(),
            segment_events: 0,
            segment_start: (0, 0, 0),
            last_tick: 0,
            index: Vec::new(),
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
        self.out
            .write(ChunkKind::NAME, &thread.to_le_bytes(), name.as_bytes())
    }

    /// A named mark at a time.
    pub fn mark(&mut self, tick: u64, name: &str) -> Result<(), TraceError> {
        self.out
            .write(ChunkKind::MARK, &tick.to_le_bytes(), name.as_bytes())
    }

    /// A process.
    pub fn process(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        let body = serde_json::to_vec(process)
            .map_err(|error| TraceError::io("write", &self.path, error.into()))?;
        let meta = process.process.to_le_bytes();
        self.out.write(ChunkKind::PROCESS, &meta, &body)
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
        self.out.write(ChunkKind::MARK, &meta, name.as_bytes())
    }

    /// After the last event: where a forked process has its inherited blocks from. The chunk's offset; `None` when the
    /// list does not fit in a chunk.
    pub(super) fn fork(&mut self, process: u32, body: &[u8]) -> Result<Option<u64>, TraceError> {
        if body.len() > MAX_PART as usize {
            return Ok(None);
        }
        self.flush()?;
        let offset = self.out.offset();
        self.out
            .write(ChunkKind::FORK, &process.to_le_bytes(), body)?;
        Ok(Some(offset))
    }

    /// A remark.
    pub fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.out.write(ChunkKind::NOTE, &[], text.as_bytes())
    }

    /// Blocks alive at this point.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Appends an event to the global order and returns its block. `block` matters for frees and resizes, `size` for
    /// all others; a tick before the thread's last one is lifted to it. Errors when the block is not alive.
    pub fn event(&mut self, mut event: TraceEvent) -> Result<u32, TraceError> {
        let index = event.thread as usize;
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
            Effect::None => Ok(()),
        };
        outcome.map_err(|reason| TraceError::damaged(&self.path, self.out.offset(), reason))?;
        let live = (self.blocks.live_bytes, self.blocks.live_blocks);
        self.summary.count(&event, owner, live);
        if self.segment_events == 0 {
            self.segment_start = (self.summary.events - 1, event.tick, live.0);
        }
        self.last_tick = self.last_tick.max(event.tick);
        let keep = self.keep_addresses;
        let columns = self.columns.entry(event.thread).or_default();
        columns.push(&event, keep);
        match self.runs.last_mut() {
            Some((thread, count)) if *thread == event.thread => *count += 1,
            _ => self.runs.push((event.thread, 1)),
        }
        self.segment_events += 1;
        if self.segment_events == SEGMENT_EVENTS {
            self.flush()?;
        }
        Ok(event.block)
    }

    fn flush(&mut self) -> Result<(), TraceError> {
        if self.segment_events == 0 {
            return Ok(());
        }
        let (first_event, first_tick, live) = self.segment_start;
        for word in [
            self.out.offset(),
            first_event,
            self.segment_events as u64,
            first_tick,
            self.last_tick,
            live,
        ] {
            self.index.extend_from_slice(&word.to_le_bytes());
        }
        let mut meta = first_event.to_le_bytes().to_vec();
        meta.extend_from_slice(&(self.segment_events as u32).to_le_bytes());
        meta.extend_from_slice(&(self.columns.len() as u32).to_le_bytes());
        let mut body = Vec::new();
        for &(thread, count) in &self.runs {
            varint::put(&mut body, u64::from(thread));
            varint::put(&mut body, u64::from(count));
        }
        self.out.write(ChunkKind::SEGMENT, &meta, &body)?;
        for (&thread, columns) in &self.columns {
            columns.write(thread, &mut self.out)?;
        }
        self.columns.clear();
        self.runs.clear();
        self.segment_events = 0;
        Ok(())
    }

    /// Writes the index and gives the file its name. `complete` brings what only the caller knows: foreign frees, thread
    /// starts, what is missing.
    pub fn finish(
        mut self,
        finish: Option<FinishInfo>,
        complete: impl FnOnce(&mut TraceSummary),
    ) -> Result<TraceSummary, TraceError> {
        self.flush()?;
        self.summary.finish = finish;
        complete(&mut self.summary);
        self.summary.close();
        let offset = self.out.offset();
        let body = std::mem::take(&mut self.index);
        let meta = serde_json::to_vec(&self.summary)
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

impl Columns {
    #[inline]
    fn push(&mut self, event: &TraceEvent, keep_addresses: bool) {
        if self.events == 0 {
            self.first_tick = event.tick;
            self.tick = event.tick;
        }
        self.events += 1;
        self.kinds.push(event.kind as u8);
        varint::put(&mut self.ticks, event.tick - self.tick);
        self.tick = event.tick;
        let effect = event.kind.effect();
        if matches!(effect, Effect::Resize | Effect::Free) {
            let step = i64::from(event.block) - i64::from(self.block);
            varint::put(&mut self.blocks, varint::zigzag(step));
        }
        if effect != Effect::None {
            self.block = event.block;
        }
        if event.kind.has_size() {
            varint::put(&mut self.sizes, event.size);
        }
        if event.kind.has_alignment() {
            self.alignments.push(event.align_log2);
        }
        if keep_addresses && matches!(effect, Effect::Alloc | Effect::Resize) {
            let step = event.address.wrapping_sub(self.address) as i64;
            varint::put(&mut self.addresses, varint::zigzag(step));
            self.address = event.address;
        }
    }

    fn write(&self, thread: u32, out: &mut ChunkWriter) -> Result<(), TraceError> {
        let mut meta = thread.to_le_bytes().to_vec();
        meta.extend_from_slice(&self.events.to_le_bytes());
        meta.extend_from_slice(&self.first_tick.to_le_bytes());
        meta.extend_from_slice(&self.tick.to_le_bytes());
        let columns = [
            &self.kinds,
            &self.ticks,
            &self.blocks,
            &self.sizes,
            &self.alignments,
            &self.addresses,
        ];
        let mut body = Vec::with_capacity(24 + columns.iter().map(|one| one.len()).sum::<usize>());
        for column in columns {
            body.extend_from_slice(&(column.len() as u32).to_le_bytes());
        }
        for column in columns {
            body.extend_from_slice(column);
        }
        out.write(ChunkKind::EVENTS, &meta, &body)
    }
}
