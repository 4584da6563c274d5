//! What lies where in a session file: a control block, one slot a chunk, then the chunks.
//!
//! ```text
//! 0              Control             (one page)
//! 4096           Slot × chunk_count  (64 bytes each)
//! header_bytes   Chunk × chunk_count (64 KiB each, aligned in the file and in the mapping)
//! ```

use crate::record::Record;
use crate::sync::{AtomicU32, AtomicU64};

/// First bytes of a session file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"heaplabR");
/// Version of this layout; recorder and drainer are built together, so it must be equal.
pub const VERSION: u32 = 3;

/// Bytes of a chunk. Its alignment lets a record's address alone name its chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Records in a chunk: with a header of 64 bytes they end exactly where the chunk ends, so
/// "the cursor is a multiple of the chunk size" is the test for a full chunk.
#[cfg(not(loom))]
pub const RECORDS_PER_CHUNK: usize = (CHUNK_BYTES - CHUNK_HEADER_BYTES) / RECORD_BYTES;
/// The model checker needs the smallest chunk that still has an inside.
#[cfg(loom)]
pub const RECORDS_PER_CHUNK: usize = 2;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 16;
/// Bytes before the first record of a chunk.
pub const CHUNK_HEADER_BYTES: usize = 64;

/// Offset of the first slot; what is before it is the control block.
pub const SLOTS_OFFSET: usize = 4096;
/// Smallest number of chunks a session may have.
pub const MIN_CHUNKS: u32 = 4;
/// Largest number of chunks a session may have (4 GiB of records).
pub const MAX_CHUNKS: u32 = 65_536;

/// Bytes before the first chunk for this many chunks: slots, rounded up to a whole chunk.
pub const fn header_bytes(chunks: u32) -> usize {
    (SLOTS_OFFSET + chunks as usize * size_of::<Slot>()).next_multiple_of(CHUNK_BYTES)
}

/// Bytes of a session file with this many chunks.
pub const fn session_bytes(chunks: u32) -> usize {
    header_bytes(chunks) + chunks as usize * CHUNK_BYTES
}

/// The model checker tracks every atomic: padding would only cost it time.
const fn padding(words: usize) -> usize {
    if cfg!(loom) { 0 } else { words }
}

/// Words of a thread's name. No decision hangs on one, and every value that the drainer may see of it would double what
/// the model checker has to search: there names are empty.
const NAME_WORDS: usize = padding(2);

/// The head of a session. Three groups on cache lines of their own: what is fixed, what threads
/// change when they take a chunk, and what the drainer writes.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    pub(crate) magic: AtomicU64,
    pub(crate) nonce: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) chunk_count: AtomicU32,
    pub(crate) clock: AtomicU32,
    /// 1: a thread that finds no chunk drops and counts; 0: it waits.
    pub(crate) lossy: AtomicU32,
    pub(crate) drainer_pid: AtomicU32,
    /// Number of a [`crate::stack::StackMode`].
    pub(crate) stack_mode: AtomicU32,
    /// Mean distance of samples in bytes.
    pub(crate) stack_period: AtomicU32,
    /// 1: only the first process records.
    pub(crate) first_only: AtomicU32,
    /// 1: mmap, munmap, mremap and brk are recorded, too.
    pub(crate) mappings: AtomicU32,
    /// How often whoever runs the recording had events left out, and let them in again.
    pub(crate) pauses: AtomicU32,
    pub(crate) resumes: AtomicU32,
    pub(crate) fixed_padding: [AtomicU32; padding(17)],

    /// Head of the stack of free chunks: a tag that changes with every pop in the upper half
    /// (so that a popped and re-pushed head is not taken for the old one), index + 1 below.
    pub(crate) free_head: AtomicU64,
    /// First process that joined; 0 until then.
    pub(crate) first_pid: AtomicU32,
    /// Process numbers given out: one for each that joined by its own start, and one before each fork.
    pub(crate) processes: AtomicU32,
    /// Next thread number.
    pub(crate) next_thread: AtomicU32,
    /// One more than the highest chunk index ever taken.
    pub(crate) high_water: AtomicU32,
    /// Threads in a futex wait on `free_epoch`.
    pub(crate) waiters: AtomicU32,
    /// Errno (positive) of a recorder that could not map the session.
    pub(crate) attach_errno: AtomicU32,
    /// Events not recorded: no chunk (lossy), recording stopped, or pool exhausted by idle threads.
    pub(crate) lost: AtomicU64,
    /// How often a thread had to wait for a chunk.
    pub(crate) waits: AtomicU64,
    /// Processes that were turned away because only the first one records.
    pub(crate) refused: AtomicU64,
    pub(crate) shared_padding: [AtomicU64; padding(9)],

    /// Changes whenever a chunk is freed or recording stops; the futex word.
    pub(crate) free_epoch: AtomicU32,
    /// The drainer's passes; changes at least every few milliseconds while it runs.
    pub(crate) heartbeat: AtomicU32,
    /// 1: the drainer takes no more; threads stop recording and count.
    pub(crate) stopped: AtomicU32,
    /// The pass (value of `heartbeat`) that found every chunk held by a thread, so that waiting would not help; 0: the last
    /// one did not.
    pub(crate) exhausted: AtomicU32,
    pub(crate) drainer_padding: [AtomicU32; padding(12)],

    /// 0: events are recorded, stamped by the counter. Else bits of [`GATE_PAUSED`] and [`GATE_CLOCK`]. Read at every
    /// event: on a line that is otherwise never written.
    pub(crate) gate: AtomicU32,
}

/// Events are left out for now.
pub const GATE_PAUSED: u32 = 1;
/// Stamps come from the slower clock.
pub const GATE_CLOCK: u32 = 2;

/// What is known about one chunk outside of it, so that the drainer can look over all chunks
/// without touching one cache line in each. One cache line.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    /// Number of a [`crate::SlotState`].
    pub(crate) state: AtomicU32,
    /// Next free chunk: index + 1, 0 for the end of the stack.
    pub(crate) next: AtomicU32,
    pub(crate) thread: AtomicU32,
    pub(crate) os_tid: AtomicU32,
    /// How many chunks this thread had before this one.
    pub(crate) sequence: AtomicU32,
    /// Number of the thread's process.
    pub(crate) process: AtomicU32,
    /// Records reserved when the chunk was closed.
    pub(crate) length: AtomicU32,
    /// The system's id of that process.
    pub(crate) pid: AtomicU32,
    /// The session's clock when the chunk was taken: times of its records count from here.
    pub(crate) base: AtomicU64,
    /// The thread's name (comm), zero-padded.
    pub(crate) name: [AtomicU64; NAME_WORDS],
}

/// The records of one thread, in the order in which it reserved them.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Chunk {
    /// Commit mark of the current use: 1..=255.
    pub(crate) generation: AtomicU32,
    pub(crate) header_padding: [AtomicU32; padding(15)],
    pub(crate) records: [Record; RECORDS_PER_CHUNK],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Record>() == RECORD_BYTES);
    assert!(size_of::<Chunk>() == CHUNK_BYTES);
    assert!(core::mem::offset_of!(Chunk, records) == CHUNK_HEADER_BYTES);
    assert!(size_of::<Slot>() == 64);
    assert!(size_of::<Control>() <= SLOTS_OFFSET);
    assert!(core::mem::offset_of!(Control, free_head) == 128);
    assert!(core::mem::offset_of!(Control, free_epoch) == 256);
    assert!(core::mem::offset_of!(Control, gate) == 320);
};

impl Chunk {
    /// Commit mark of the chunk's present use.
    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.generation.load(crate::sync::Ordering::Relaxed)
    }

    /// The records, committed or not.
    pub fn records(&self) -> &[Record; RECORDS_PER_CHUNK] {
        &self.records
    }
}
