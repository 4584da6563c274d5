//! What a recorder writes: events with addresses, chunk by chunk and thread by thread, as they are drained.
//!
//! Meta of an event chunk: thread (u32), events (u32), first and last time (u64 each). Body: [`super::packed`]. Older files
//! have bytes of four columns (u32 each), then the columns: kind (bit 7: the address is below the previous one), time (varint of the distance to
//! the previous event, ns; the first from `first`), address (varint of the distance, rotated right by 4 bits because
//! blocks are 16-byte aligned), size (varint; kinds without a size leave it out), log2 of alignment (aligned kinds only).

use super::container::{ChunkKind, ChunkWriter};
use super::error::TraceError;
use super::header::{FinishInfo, TraceHeader};
use super::packed::Packed;
use super::process::ProcessInfo;
use super::stacks::{
    self,
    raw::{RawModule, RawStack},
};
use super::varint::Cursor;
use heaplab_ring::stack::StackMode;
use std::path::Path;

/// zstd's level: the drainer runs beside the program. Negative ones are its fast ones.
const LEVEL: i32 = -1;
/// Events in a chunk at most; more are split.
pub const CHUNK_EVENTS: usize = 64 * 1024;

/// What was called. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RawKind {
    /// `malloc` returned `address`.
    Malloc = 0,
    /// `calloc` returned `address`; `size` is the product.
    Calloc = 1,
    /// `aligned_alloc` returned `address`.
    AlignedAlloc = 2,
    /// `memalign` returned `address`.
    Memalign = 3,
    /// `posix_memalign` stored `address`.
    PosixMemalign = 4,
    /// `valloc` returned `address`.
    Valloc = 5,
    /// `pvalloc` returned `address`.
    Pvalloc = 6,
    /// `realloc` or `reallocarray` is about to be called with `address` (may be 0).
    ReallocBegin = 7,
    /// `realloc` has returned `address` (0: it failed, or the size was 0) for `size`.
    ReallocEnd = 8,
    /// `free` is about to be called with `address`.
    Free = 9,
    /// `free_sized` or sized `operator delete` is about to be called.
    FreeSized = 10,
    /// `free_aligned_sized` or aligned `operator delete` is about to be called.
    FreeAlignedSized = 11,
    /// As `ReallocEnd`, of `reallocarray`.
    ReallocArrayEnd = 12,
    /// An allocation of `size` bytes failed.
    FailedAlloc = 13,
    /// A mark in this thread's stream; `size` is the caller's number. Has no effect on blocks.
    Mark = 14,
    /// `fork` is about to be called; `size` is the number of the child's process.
    Fork = 15,
    /// `mmap` returned `address` for `size` bytes.
    Mmap = 16,
    /// `munmap` of `size` bytes is about to be called.
    Munmap = 17,
    /// `mremap` returned `address` for `size` bytes.
    Mremap = 18,
    /// `brk` or `sbrk` moved the break to `address`.
    Brk = 19,
    /// Of the block at `address` `size` bytes lie in pages that have been written.
    Written = 20,
}

impl RawKind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Malloc,
            1 => Self::Calloc,
            2 => Self::AlignedAlloc,
            3 => Self::Memalign,
            4 => Self::PosixMemalign,
            5 => Self::Valloc,
            6 => Self::Pvalloc,
            7 => Self::ReallocBegin,
            8 => Self::ReallocEnd,
            9 => Self::Free,
            10 => Self::FreeSized,
            11 => Self::FreeAlignedSized,
            12 => Self::ReallocArrayEnd,
            13 => Self::FailedAlloc,
            14 => Self::Mark,
            15 => Self::Fork,
            16 => Self::Mmap,
            17 => Self::Munmap,
            18 => Self::Mremap,
            19 => Self::Brk,
            20 => Self::Written,
            _ => return None,
        })
    }

    pub(super) const fn has_size(self) -> bool {
        !matches!(
            self,
            Self::ReallocBegin | Self::Free | Self::FreeSized | Self::FreeAlignedSized
        )
    }

    pub(super) const fn has_alignment(self) -> bool {
        matches!(
            self,
            Self::AlignedAlloc
                | Self::Memalign
                | Self::PosixMemalign
                | Self::FreeAlignedSized
                | Self::FailedAlloc
        )
    }
}

/// One call, as the hook saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// Nanoseconds since the session's start. Never decreases within a thread (the writer lifts what does).
    pub time_ns: u64,
    /// Address of the block.
    pub address: u64,
    /// Bytes requested; 0 for frees and `ReallocBegin`.
    pub size: u64,
    /// What was called.
    pub kind: RawKind,
    /// log2 of the requested alignment, 0 = default; kept for `AlignedAlloc`, `Memalign`, `PosixMemalign`,
    /// `FreeAlignedSized`, `FailedAlloc`.
    pub align_log2: u8,
}

/// Writes a raw trace. Every call appends one whole chunk, so a killed drainer loses at most the last call.
pub struct RawWriter {
    out: ChunkWriter,
    packed: Packed,
    body: Vec<u8>,
}

impl RawWriter {
    /// Starts a file (replacing what was there).
    pub fn create(path: &Path, header: &TraceHeader) -> Result<Self, TraceError> {
        let mut out = ChunkWriter::create(path, LEVEL)?;
        write_header(&mut out, header)?;
        Ok(Self {
            out,
            packed: Packed::default(),
            body: Vec::new(),
        })
    }

    /// A process (an image of one: exec begins another) begins. Before its first thread.
    pub fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        let body = serde_json::to_vec(process)
            .map_err(|error| TraceError::io("write", self.out.path(), error.into()))?;
        let meta = process.process.to_le_bytes();
        self.out.write(ChunkKind::PROCESS, &meta, &body)
    }

    /// A process is over.
    pub fn process_end(&mut self, process: u32, time_ns: u64) -> Result<(), TraceError> {
        let mut meta = process.to_le_bytes().to_vec();
        meta.extend_from_slice(&time_ns.to_le_bytes());
        self.out.write(ChunkKind::RAW_PROCESS_END, &meta, &[])
    }

    /// A thread of the only process begins. `thread` is the recorder's number, dense from 0; the first one is the main
    /// thread.
    pub fn thread_start(
        &mut self,
        thread: u32,
        os_tid: u32,
        time_ns: u64,
    ) -> Result<(), TraceError> {
        self.thread_start_in(0, thread, os_tid, time_ns)
    }

    /// A thread of `process` begins; numbers are dense from 0 over all processes.
    pub fn thread_start_in(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        time_ns: u64,
    ) -> Result<(), TraceError> {
        let mut meta = thread.to_le_bytes().to_vec();
        meta.extend_from_slice(&os_tid.to_le_bytes());
        meta.extend_from_slice(&time_ns.to_le_bytes());
        meta.extend_from_slice(&process.to_le_bytes());
        self.out.write(ChunkKind::RAW_THREAD_START, &meta, &[])
    }

    /// A thread has (now) this name.
    pub fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.out
            .write(ChunkKind::NAME, &thread.to_le_bytes(), name.as_bytes())
    }

    /// A thread is over.
    pub fn thread_end(&mut self, thread: u32, time_ns: u64) -> Result<(), TraceError> {
        let mut meta = thread.to_le_bytes().to_vec();
        meta.extend_from_slice(&time_ns.to_le_bytes());
        self.out.write(ChunkKind::RAW_THREAD_END, &meta, &[])
    }

    /// A named mark (a phase of the program begins) of the whole recording.
    pub fn mark(&mut self, time_ns: u64, name: &str) -> Result<(), TraceError> {
        self.mark_in(None, time_ns, name)
    }

    /// A named mark of one process, or of the whole recording.
    pub fn mark_in(
        &mut self,
        process: Option<u32>,
        time_ns: u64,
        name: &str,
    ) -> Result<(), TraceError> {
        let mut meta = time_ns.to_le_bytes().to_vec();
        if let Some(process) = process {
            meta.extend_from_slice(&process.to_le_bytes());
        }
        self.out.write(ChunkKind::MARK, &meta, name.as_bytes())
    }

    /// A remark for the reader ("child 1234 is static: not recorded").
    pub fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.out.write(ChunkKind::NOTE, &[], text.as_bytes())
    }

    /// Events of one thread, in its order, following those of earlier calls.
    pub fn events(&mut self, thread: u32, events: &[RawEvent]) -> Result<(), TraceError> {
        let mut packed = std::mem::take(&mut self.packed);
        let written = events.chunks(CHUNK_EVENTS).try_for_each(|part| {
            packed.clear();
            part.iter().for_each(|event| packed.push(event));
            self.packed(thread, &packed)
        });
        self.packed = packed;
        written
    }

    /// As [`RawWriter::events`], at most [`CHUNK_EVENTS`] that are packed already.
    pub fn packed(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        if events.is_empty() {
            return Ok(());
        }
        self.body.clear();
        events.write(&mut self.body);
        let meta = events.meta(thread).encode();
        self.out.write(ChunkKind::RAW_EVENTS, &meta, &self.body)
    }

    /// Which allocations bring their stacks; before the first of them.
    pub fn stack_mode(&mut self, mode: StackMode) -> Result<(), TraceError> {
        let (mode, period) = mode.to_words();
        let mut meta = mode.to_le_bytes().to_vec();
        meta.extend_from_slice(&period.to_le_bytes());
        self.out.write(ChunkKind::RAW_STACK_MODE, &meta, &[])
    }

    /// A module that the program has met.
    pub fn module(&mut self, module: &RawModule) -> Result<(), TraceError> {
        stacks::raw::write_module(&mut self.out, module)
    }

    /// Stacks that were met for the first time.
    pub fn stacks(&mut self, stacks: &[RawStack]) -> Result<(), TraceError> {
        stacks::raw::write_stacks(&mut self.out, stacks)
    }

    /// The stacks of a thread's events: (number of the event among those of the thread, stack), rising.
    pub fn event_stacks(&mut self, thread: u32, refs: &[(u64, u32)]) -> Result<(), TraceError> {
        for part in refs.chunks(CHUNK_EVENTS) {
            stacks::raw::write_refs(&mut self.out, thread, part)?;
        }
        Ok(())
    }

    /// The recording ended in order. A file without this is read as cut off.
    pub fn finish(mut self, info: FinishInfo) -> Result<(), TraceError> {
        write_json(&mut self.out, ChunkKind::FINISH, &info)
    }
}

/// The two chunks that every trace begins with.
pub(super) fn write_header(out: &mut ChunkWriter, header: &TraceHeader) -> Result<(), TraceError> {
    write_json(out, ChunkKind::HEADER, header)?;
    if !header.argv.is_empty() {
        write_json(out, ChunkKind::ARGV, &header.argv)?;
    }
    Ok(())
}

/// A chunk whose body is JSON.
pub(super) fn write_json<T: serde::Serialize>(
    out: &mut ChunkWriter,
    kind: ChunkKind,
    value: &T,
) -> Result<(), TraceError> {
    let body = serde_json::to_vec(value)
        .map_err(|error| TraceError::io("write", out.path(), error.into()))?;
    out.write(kind, &[], &body)
}

/// Meta of an event chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawMeta {
    pub thread: u32,
    pub events: u32,
    pub first_ns: u64,
    pub last_ns: u64,
}

impl RawMeta {
    fn encode(self) -> [u8; 24] {
        let mut meta = [0; 24];
        meta[..4].copy_from_slice(&self.thread.to_le_bytes());
        meta[4..8].copy_from_slice(&self.events.to_le_bytes());
        meta[8..16].copy_from_slice(&self.first_ns.to_le_bytes());
        meta[16..].copy_from_slice(&self.last_ns.to_le_bytes());
        meta
    }

    /// `None` when the bytes are too few.
    pub fn decode(meta: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(meta.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(meta.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            thread: u32_at(0)?,
            events: u32_at(4)?,
            first_ns: u64_at(8)?,
            last_ns: u64_at(16)?,
        })
    }
}

/// The events of a chunk of an older file, appended to `out`; the error says what is wrong.
pub(super) fn decode_1(meta: RawMeta, body: &[u8], out: &mut Vec<RawEvent>) -> Result<(), String> {
    let short = || "the columns of a chunk are cut".to_string();
    let mut lengths = [0usize; 4];
    let mut rest = body;
    for length in &mut lengths {
        let (word, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        *length = u32::from_le_bytes(*word) as usize;
        rest = after;
    }
    let mut take = |length: usize| {
        let (column, after) = rest.split_at_checked(length).ok_or_else(short)?;
        rest = after;
        Ok::<_, String>(column)
    };
    let kinds = take(lengths[0])?;
    let mut times = Cursor(take(lengths[1])?);
    let mut addresses = Cursor(take(lengths[2])?);
    let mut sizes = Cursor(take(lengths[3])?);
    let mut alignments = rest.iter();
    if kinds.len() != meta.events as usize || kinds.len() > CHUNK_EVENTS {
        return Err(format!(
            "a chunk says {} events and holds {}",
            meta.events,
            kinds.len()
        ));
    }
    let (mut time_ns, mut address) = (meta.first_ns, 0u64);
    out.reserve(kinds.len());
    for &number in kinds {
        let kind = RawKind::from_number(number & 0x7f)
            .ok_or_else(|| format!("{} is no kind of event", number & 0x7f))?;
        let step = times.next().ok_or_else(short)?;
        time_ns = time_ns.checked_add(step).ok_or("a time is out of range")?;
        let step = addresses.next().ok_or_else(short)?.rotate_left(4);
        address = if number & 0x80 != 0 {
            address.wrapping_sub(step)
        } else {
            address.wrapping_add(step)
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
        if align_log2 >= 48 {
            return Err(format!("2^{align_log2} is no alignment"));
        }
        out.push(RawEvent {
            time_ns,
            address,
            size,
            kind,
            align_log2,
        });
    }
    if time_ns != meta.last_ns || !times.0.is_empty() || !addresses.0.is_empty() {
        return Err("the columns of a chunk do not agree with each other".into());
    }
    Ok(())
}
