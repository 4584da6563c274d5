//! Mapping a session file and checking that it is one.

use crate::clock::Clock;
use crate::layout::{
    CHUNK_BYTES, Chunk, Control, GATE_CLOCK, MAGIC, MAX_CHUNKS, MIN_CHUNKS, SLOTS_OFFSET, Slot,
    VERSION, header_bytes, session_bytes,
};
use crate::pool::Pool;
use crate::stack::StackMode;
use crate::sync::Ordering;
use crate::sys;

/// What is fixed when a session is created.
#[derive(Clone, Copy, Debug)]
pub struct SessionConfig {
    /// Chunks of 64 KiB.
    pub chunks: u32,
    /// Tells this session from whatever else a descriptor may name.
    pub nonce: u64,
    pub clock: Clock,
    /// Drop and count instead of waiting when no chunk is free.
    pub lossy: bool,
    pub drainer_pid: u32,
    /// Which allocations bring their stacks.
    pub stacks: StackMode,
    /// Only the first process records.
    pub first_only: bool,
    /// Record mmap, munmap, mremap and brk, too.
    pub mappings: bool,
    /// Begin paused.
    pub paused: bool,
}

/// A mapped session; it stays mapped until dropped.
#[derive(Debug)]
pub struct Mapping {
    reserved: usize,
    reserved_bytes: usize,
    base: usize,
    chunks: u32,
}

impl Mapping {
    /// Lays out a new session in the file behind `fd`, which must have
    /// [`session_bytes`]`(config.chunks)` bytes of zeros.
    ///
    /// # Errors
    /// The errno of the failing call; 22 (EINVAL) when size or number of chunks is wrong.
    pub fn create(fd: i32, config: &SessionConfig) -> Result<Mapping, u32> {
        let mapping = Mapping::map(fd, config.chunks)?;
        let pool = mapping.pool();
        let control = pool.control;
        control.nonce.store(config.nonce, Ordering::Relaxed);
        control.version.store(VERSION, Ordering::Relaxed);
        control.chunk_count.store(config.chunks, Ordering::Relaxed);
        control.clock.store(config.clock as u32, Ordering::Relaxed);
        control
            .lossy
            .store(u32::from(config.lossy), Ordering::Relaxed);
        control
            .drainer_pid
            .store(config.drainer_pid, Ordering::Relaxed);
        let (mode, period) = config.stacks.to_words();
        control.stack_mode.store(mode, Ordering::Relaxed);
        control.stack_period.store(period, Ordering::Relaxed);
        control
            .first_only
            .store(u32::from(config.first_only), Ordering::Relaxed);
        control
            .mappings
            .store(u32::from(config.mappings), Ordering::Relaxed);
        if config.clock == Clock::Monotonic {
            control.gate.store(GATE_CLOCK, Ordering::Relaxed);
        }
        pool.switch_paused(config.paused);
        pool.initialise();
        control.magic.store(MAGIC, Ordering::Release);
        Ok(mapping)
    }

    /// Maps an existing session and checks magic, version, size and nonce.
    ///
    /// # Errors
    /// The errno of the failing call; 22 (EINVAL) when the file is not this session.
    pub fn open(fd: i32, nonce: u64) -> Result<Mapping, u32> {
        let size = sys::file_size(fd)? as usize;
        let chunks = chunks_of(size).ok_or(22u32)?;
        let mapping = Mapping::map(fd, chunks)?;
        let control = mapping.pool().control;
        let same = control.magic.load(Ordering::Acquire) == MAGIC
            && control.version.load(Ordering::Relaxed) == VERSION
            && control.chunk_count.load(Ordering::Relaxed) == chunks
            && control.nonce.load(Ordering::Relaxed) == nonce;
        if same { Ok(mapping) } else { Err(22) }
    }

    /// Writes into the session behind `fd` why a recorder could not map it: for this its first page
    /// is enough, which often can be mapped where the whole cannot. Does nothing when the page cannot
    /// be mapped either or is not this session's.
    pub fn report_failure(fd: i32, nonce: u64, errno: u32) {
        if !sys::file_size(fd).is_ok_and(|bytes| bytes >= SLOTS_OFFSET as u64) {
            return;
        }
        let Ok(page) = sys::reserve(SLOTS_OFFSET) else {
            return;
        };
        // SAFETY: the range is the reservation made just above. The control block lies on the
        // file's first page and consists of atomic integers; nothing refers to it after the unmap.
        unsafe {
            if sys::map_shared_over(page, SLOTS_OFFSET, fd).is_ok() {
                let control = &*(page as *const Control);
                if control.magic.load(Ordering::Acquire) == MAGIC
                    && control.version.load(Ordering::Relaxed) == VERSION
                    && control.nonce.load(Ordering::Relaxed) == nonce
                {
                    control.attach_errno.store(errno, Ordering::Relaxed);
                }
            }
            sys::unmap(page, SLOTS_OFFSET);
        }
    }

    fn map(fd: i32, chunks: u32) -> Result<Mapping, u32> {
        if !(MIN_CHUNKS..=MAX_CHUNKS).contains(&chunks)
            || sys::file_size(fd)? != session_bytes(chunks) as u64
        {
            return Err(22);
        }
        let bytes = session_bytes(chunks);
        // One chunk more, so that the chunks can be aligned to their size.
        let reserved_bytes = bytes + CHUNK_BYTES;
        let reserved = sys::reserve(reserved_bytes)?;
        let base = reserved.next_multiple_of(CHUNK_BYTES);
        let mapping = Mapping {
            reserved,
            reserved_bytes,
            base,
            chunks,
        };
        // SAFETY: `[base, base + bytes)` lies in the reservation made just above.
        unsafe { sys::map_shared_over(base, bytes, fd)? };
        Ok(mapping)
    }

    /// The typed parts of the session.
    pub fn pool(&self) -> Pool<'_> {
        let header = header_bytes(self.chunks);
        // SAFETY: `map` mapped `session_bytes(chunks)` bytes at `base`, which is aligned to 64 KiB;
        // the offsets are those of the layout and lie inside. Every field is an atomic integer, for
        // which all bit patterns are valid and writing from elsewhere is allowed. The mapping lives
        // as long as `self`, and nothing shrinks the file.
        unsafe {
            Pool {
                control: &*(self.base as *const Control),
                slots: core::slice::from_raw_parts(
                    (self.base + SLOTS_OFFSET) as *const Slot,
                    self.chunks as usize,
                ),
                chunks: core::slice::from_raw_parts(
                    (self.base + header) as *const Chunk,
                    self.chunks as usize,
                ),
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: every `Pool` borrows `self`, so nothing uses the range any more.
        unsafe { sys::unmap(self.reserved, self.reserved_bytes) };
    }
}

/// The number of chunks of a session file with this many bytes.
fn chunks_of(bytes: usize) -> Option<u32> {
    let most = (bytes / CHUNK_BYTES) as u32;
    // The header takes one chunk's bytes for every 1,024 slots or so: look a little below.
    (most.saturating_sub(most / 1024 + 2)..most).find(|&chunks| session_bytes(chunks) == bytes)
}
