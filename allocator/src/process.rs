//! What a process has one of: the heap and the list of its threads' caches.

use crate::heap::Heap;
use crate::os::Linux;
use crate::registry::Registry;
use crate::sync::Locked;
use crate::thread_cache::ThreadCache;
use core::sync::atomic::AtomicU64;

/// The heap of the process.
pub(crate) static HEAP: Heap<Linux> = Heap::new(Linux::PROCESS);

/// All caches of living threads.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) members: Registry<ThreadCache>,
    pub(crate) caches: u32,
    pub(crate) last_number: u32,
    /// Refills, flushes and shared tiny blocks of threads that have ended.
    pub(crate) ended_refills: u64,
    pub(crate) ended_flushes: u64,
    pub(crate) ended_tiny_blocks: u64,
}

pub(crate) static REGISTRY: Locked<Threads> = Locked::new(Threads {
    members: Registry::new(),
    caches: 0,
    last_number: 0,
    ended_refills: 0,
    ended_flushes: 0,
    ended_tiny_blocks: 0,
});

/// Caches of threads that existed at a fork and do not exist in this child.
pub(crate) static ORPHANED: AtomicU64 = AtomicU64::new(0);
