//! The middle tier's upper half: whole batches of one class on their way from thread to thread.
//!
//! A producer's blocks end up in the consumer's cache; the consumer flushes batches here and the
//! producer's next refill takes them, two pointer moves instead of a walk over bitmaps. In a
//! single thread that would only replay the program's order of frees, so slots open on evidence:
//! a thread that refills after *another* thread flushed opens two, one that refills after its own
//! flush closes one. Invariants: X1 every stored chain has exactly the class's batch of objects;
//! X2 all of the class.

use crate::chain::Chain;
use crate::sync::Locked;
use core::ptr::null_mut;

/// Batches that a class can hold here.
pub const SLOTS: usize = 16;

/// The transfer cache of one class.
#[derive(Debug)]
pub struct TransferCache {
    pub(crate) inner: Locked<Inner>,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    slots: [*mut u8; SLOTS],
    pub(crate) used: usize,
    pub(crate) open: usize,
    last_flush: u32,
    pub(crate) hits: u64,
    pub(crate) stores: u64,
}

// SAFETY: the chains belong to the cache; its lock guards them.
unsafe impl Send for Inner {}

impl TransferCache {
    /// Empty, all slots closed.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inner: Locked::new(Inner::NEW),
        }
    }

    /// Empty, all slots closed.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Locked::new(Inner::NEW),
        }
    }

    /// Stores a batch that thread `thread` flushes; false: no slot is open, the chain stays the
    /// caller's. At most `limit` slots are used.
    #[must_use]
    pub fn store(&self, thread: u32, head: *mut u8, limit: usize) -> bool {
        let mut inner = self.inner.lock();
        inner.last_flush = thread;
        let used = inner.used;
        if used >= inner.open.min(limit) {
            return false;
        }
        inner.slots[used] = head;
        inner.used += 1;
        inner.stores += 1;
        true
    }

    /// A batch of `batch` objects for thread `thread`, if there is one.
    #[must_use]
    pub fn fetch(&self, thread: u32, batch: usize) -> Option<Chain> {
        let mut inner = self.inner.lock();
        if inner.last_flush != 0 {
            inner.open = if inner.last_flush == thread {
                inner.open.saturating_sub(1)
            } else {
                (inner.open + 2).min(SLOTS)
            };
        }
        inner.take(batch)
    }

    /// Any stored batch, without counting as evidence: to empty the cache.
    #[must_use]
    pub fn drain(&self, batch: usize) -> Option<Chain> {
        self.inner.lock().take(batch)
    }
}

impl Default for TransferCache {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    const NEW: Self = Self {
        slots: [null_mut(); SLOTS],
        used: 0,
        open: 0,
        last_flush: 0,
        hits: 0,
        stores: 0,
    };

    fn take(&mut self, batch: usize) -> Option<Chain> {
        self.used = self.used.checked_sub(1)?;
        self.hits += 1;
        Some(Chain {
            head: self.slots[self.used],
            len: batch,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::without_provenance_mut;

    #[test]
    fn slots_open_for_a_consumer_and_close_for_a_loner() {
        let cache = TransferCache::new();
        let block = without_provenance_mut(0x1000);
        assert!(!cache.store(1, block, SLOTS), "nobody has asked yet");
        assert_eq!(cache.fetch(2, 8), None);
        assert!(
            cache.store(1, block, SLOTS),
            "thread 2 took after thread 1 flushed"
        );
        assert_eq!(
            cache.fetch(2, 8),
            Some(Chain {
                head: block,
                len: 8
            })
        );
        for _ in 0..SLOTS {
            let _ = cache.store(1, block, 0);
            assert_eq!(cache.fetch(1, 8), None);
        }
        assert!(!cache.store(1, block, SLOTS), "thread 1 works alone now");
    }

    #[test]
    fn no_more_than_the_limit_is_stored() {
        let cache = TransferCache::new();
        let block = without_provenance_mut(0x1000);
        for _ in 0..SLOTS {
            let _ = cache.store(1, block, 0);
            let _ = cache.fetch(2, 1);
        }
        let stored = (0..SLOTS).filter(|_| cache.store(1, block, 3)).count();
        assert_eq!(stored, 3);
        assert_eq!((0..SLOTS).filter(|_| cache.drain(1).is_some()).count(), 3);
    }
}
