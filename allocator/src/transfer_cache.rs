//! The middle tier's upper half: whole batches of one class on their way from thread to thread.
//!
//! A producer's blocks end up in the consumer's cache; the consumer flushes batches here and the
//! producer's next refill takes them, two pointer moves instead of a walk over bitmaps. In a
//! single thread that would only replay the program's order of frees, so slots open on evidence:
//! a thread that refills after *another* thread flushed opens two, one that refills after its own
//! flush closes one. Batches whose objects lie close together lose nothing by being replayed, and all
//! slots are open to them. What may be stored is also bounded in objects, by the caller, in proportion to
//! what the class has in use. Invariants: X1 `objects` is the sum of the stored chains' lengths;
//! X2 all objects are of the class.

use crate::chain::Chain;
use crate::sync::Locked;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Batches that a class can hold here.
pub const SLOTS: usize = 32;

/// The transfer cache of one class.
#[derive(Debug)]
pub struct TransferCache {
    pub(crate) inner: Locked<Inner>,
    /// `inner.objects`, to be read without the lock by those who want memory back; of no interest to
    /// loom.
    held: AtomicUsize,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    slots: [Chain; SLOTS],
    pub(crate) used: usize,
    /// Objects in all stored chains.
    pub(crate) objects: usize,
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
            held: AtomicUsize::new(0),
        }
    }

    /// Empty, all slots closed.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Locked::new(Inner::NEW),
            held: AtomicUsize::new(0),
        }
    }

    /// Stores a batch that thread `thread` flushes; false: no slot is open, the chain stays the
    /// caller's. `compact`: the objects lie close together. No more than `limit` objects are stored,
    /// but for a single batch.
    #[must_use]
    pub fn store(&self, thread: u32, chain: Chain, compact: bool, limit: usize) -> bool {
        let mut inner = self.inner.lock();
        inner.last_flush = thread;
        let used = inner.used;
        let open = if compact { SLOTS } else { inner.open };
        if used >= open || (used > 0 && inner.objects + chain.len > limit) {
            return false;
        }
        inner.slots[used] = chain;
        inner.objects += chain.len;
        inner.used += 1;
        inner.stores += 1;
        self.held.store(inner.objects, Relaxed);
        true
    }

    /// A batch for thread `thread`, if there is one.
    #[must_use]
    pub fn fetch(&self, thread: u32) -> Option<Chain> {
        let mut inner = self.inner.lock();
        if inner.last_flush != 0 {
            inner.open = if inner.last_flush == thread {
                inner.open.saturating_sub(1)
            } else {
                (inner.open + 2).min(SLOTS)
            };
        }
        let chain = inner.take();
        self.held.store(inner.objects, Relaxed);
        chain
    }

    /// Objects in all stored batches, as of a moment ago.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Any stored batch, without counting as evidence: to empty the cache.
    #[must_use]
    pub fn drain(&self) -> Option<Chain> {
        let mut inner = self.inner.lock();
        let chain = inner.take();
        self.held.store(inner.objects, Relaxed);
        chain
    }
}

impl Default for TransferCache {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    const NEW: Self = Self {
        slots: [Chain::empty(); SLOTS],
        used: 0,
        objects: 0,
        open: 0,
        last_flush: 0,
        hits: 0,
        stores: 0,
    };

    /// The stored chains.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn chains(&self) -> &[Chain] {
        &self.slots[..self.used]
    }

    fn take(&mut self) -> Option<Chain> {
        self.used = self.used.checked_sub(1)?;
        self.hits += 1;
        let chain = self.slots[self.used];
        self.objects -= chain.len;
        Some(chain)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::without_provenance_mut;

    fn batch(len: usize) -> Chain {
        Chain {
            head: without_provenance_mut(0x1000),
            len,
        }
    }

    #[test]
    fn slots_open_for_a_consumer_and_close_for_a_loner() {
        let cache = TransferCache::new();
        let all = usize::MAX;
        assert!(
            !cache.store(1, batch(8), false, all),
            "nobody has asked yet"
        );
        assert_eq!(cache.fetch(2), None);
        assert!(
            cache.store(1, batch(8), false, all),
            "thread 2 took after thread 1 flushed"
        );
        assert_eq!(cache.fetch(2), Some(batch(8)));
        for _ in 0..=SLOTS {
            let _ = cache.store(1, batch(8), false, all);
            let _ = cache.fetch(1);
        }
        assert!(
            !cache.store(1, batch(8), false, all),
            "thread 1 works alone now"
        );
        assert!(
            cache.store(1, batch(8), true, all),
            "but its objects lie together"
        );
    }

    #[test]
    fn no_more_objects_than_the_limit_are_stored_but_one_batch_always_is() {
        let cache = TransferCache::new();
        for _ in 0..SLOTS {
            let _ = cache.store(1, batch(8), false, 0);
            let _ = cache.fetch(2);
        }
        let stored = (0..SLOTS)
            .filter(|_| cache.store(1, batch(8), false, 30))
            .count();
        assert_eq!(stored, 3);
        assert_eq!(cache.inner.lock().objects, 24);
        let drained: usize = core::iter::from_fn(|| cache.drain()).map(|c| c.len).sum();
        assert_eq!((drained, cache.inner.lock().objects), (24, 0));
        assert!(cache.store(1, batch(8), false, 0));
    }
}
