//! One place where threads exchange batches of one class.
//!
//! In a single thread a transfer cache would only replay the program's order of frees, so slots open on evidence:
//! a thread that refills after *another* thread flushed opens two, one that refills after its own
//! flush closes one. Batches whose objects lie close together lose nothing by being replayed, and all
//! slots are open to them. What may be stored is also bounded in objects, by the caller, in proportion to
//! what the class has in use. Invariants: X1 the first `objects` places hold as many objects,
//! each once; X2 all are of the class.

use super::Places;
use crate::sync::{Guard, Locked, RawLock};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

/// Batches that fit in here.
pub const SLOTS: u8 = 32;

/// Calls between two looks at how many of them had to wait, and the waits that make a crowd.
const LOOK: u8 = 64;
const CROWD: u8 = 32;

/// Batches of one class behind one lock.
#[derive(Debug)]
pub struct Shard {
    inner: Locked<Inner>,
    /// `inner.objects`, to be read without the lock by those who want memory back; of no interest to
    /// loom.
    held: AtomicU32,
    /// At the last look many calls had found the lock taken.
    crowded: AtomicBool,
    /// Where those whose shard this is found something last, when it was empty.
    pub(super) source: AtomicU8,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    /// Room for 2 to the power of `width` addresses, null before the first batch is stored.
    places: *mut *mut u8,
    width: u8,
    open: u8,
    /// Calls since the last look, and waits for the lock up to it, the low bits of their number.
    calls: u8,
    waits: u8,
    last_flush: u32,
    /// Objects in the places.
    pub(crate) objects: usize,
    pub(crate) hits: u64,
    pub(crate) stores: u64,
}

// SAFETY: the places and what is in them belong to the cache; its lock guards them.
unsafe impl Send for Inner {}

impl Shard {
    /// Empty, all slots closed.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inner: Locked::new(Inner::NEW),
            held: AtomicU32::new(0),
            crowded: AtomicBool::new(false),
            source: AtomicU8::new(0),
        }
    }

    /// Empty, all slots closed.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Locked::new(Inner::NEW),
            held: AtomicU32::new(0),
            crowded: AtomicBool::new(false),
            source: AtomicU8::new(0),
        }
    }

    /// Stores a batch that thread `thread` flushes; false: no slot is open, the objects stay the
    /// caller's. `compact`: they lie close together. No more than `limit` objects are stored, but for a
    /// single batch.
    #[must_use]
    pub fn store(
        &self,
        thread: u32,
        batch: &[*mut u8],
        compact: bool,
        limit: usize,
        memory: &impl Places,
    ) -> bool {
        let mut inner = self.inner.lock();
        inner.last_flush = thread;
        let open = if compact { SLOTS } else { inner.open };
        let objects = inner.objects + batch.len();
        if objects > usize::from(open) * batch.len()
            || (inner.objects > 0 && objects > limit)
            || !inner.make_room(objects, memory)
        {
            return false;
        }
        // SAFETY: there is room.
        unsafe {
            let end = inner.places.add(inner.objects);
            end.copy_from_nonoverlapping(batch.as_ptr(), batch.len());
        }
        inner.objects = objects;
        inner.stores += 1;
        self.tell(&mut inner);
        true
    }

    /// Up to `batch.len()` objects for thread `thread`; how many they are.
    #[must_use]
    pub fn fetch(&self, thread: u32, batch: &mut [*mut u8]) -> usize {
        let mut inner = self.inner.lock();
        if inner.last_flush != 0 {
            inner.open = if inner.last_flush == thread {
                inner.open.saturating_sub(1)
            } else {
                (inner.open + 2).min(SLOTS)
            };
        }
        let got = inner.take(batch);
        self.tell(&mut inner);
        got
    }

    /// Objects in all stored batches, as of a moment ago.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed) as usize
    }

    /// Many of the last calls had to wait; says so once.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Relaxed) && self.crowded.swap(false, Relaxed)
    }

    /// What the lock guards.
    pub(crate) fn lock(&self) -> Guard<'_, Inner> {
        self.inner.lock()
    }

    /// The lock itself, for the fork handlers.
    pub(crate) fn raw(&self) -> &RawLock {
        self.inner.raw()
    }

    /// Lets others know of a call that has been served.
    fn tell(&self, inner: &mut Inner) {
        self.held.store(inner.objects as u32, Relaxed);
        inner.calls += 1;
        if inner.calls == LOOK {
            inner.calls = 0;
            let waits = self.raw().contended() as u8;
            let crowded = waits.wrapping_sub(inner.waits) >= CROWD;
            inner.waits = waits;
            self.crowded.store(crowded, Relaxed);
        }
    }

    /// As [`Shard::fetch`], without counting as evidence: to empty the cache.
    #[must_use]
    pub fn drain(&self, batch: &mut [*mut u8]) -> usize {
        let mut inner = self.inner.lock();
        let got = inner.take(batch);
        self.tell(&mut inner);
        got
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    const NEW: Self = Self {
        places: null_mut(),
        width: 0,
        objects: 0,
        open: 0,
        calls: 0,
        waits: 0,
        last_flush: 0,
        hits: 0,
        stores: 0,
    };

    /// What is stored.
    #[cfg(not(loom))]
    pub(crate) fn stored(&self) -> &[*mut u8] {
        if self.places.is_null() {
            return &[];
        }
        // SAFETY: that many are there.
        unsafe { core::slice::from_raw_parts(self.places, self.objects) }
    }

    /// Makes room for `objects` addresses. False: no memory, nothing has changed.
    fn make_room(&mut self, objects: usize, memory: &impl Places) -> bool {
        if !self.places.is_null() && objects <= 1 << self.width {
            return true;
        }
        let width = objects.next_power_of_two().ilog2().max(3) as u8;
        let places = memory.take(width);
        if places.is_null() {
            return false;
        }
        // SAFETY: the new places are longer than the old ones, which nobody uses afterwards.
        unsafe {
            if !self.places.is_null() {
                places.copy_from_nonoverlapping(self.places, self.objects);
                memory.give(self.places, self.width);
            }
        }
        (self.places, self.width) = (places, width);
        true
    }

    /// Moves what was stored last to `batch`.
    fn take(&mut self, batch: &mut [*mut u8]) -> usize {
        let got = batch.len().min(self.objects);
        if got > 0 {
            self.objects -= got;
            self.hits += 1;
            // SAFETY: that many are there.
            unsafe {
                let from = self.places.add(self.objects);
                batch.as_mut_ptr().copy_from_nonoverlapping(from, got);
            }
        }
        got
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::without_provenance_mut;

    const BATCH: usize = 8;
    const ALL: usize = usize::MAX;

    /// Memory from the test's allocator, or none.
    struct Heap(bool);

    impl Places for Heap {
        fn take_then(&self, width: u8, then: impl FnOnce(*mut *mut u8)) {
            then(if self.0 {
                Vec::leak(vec![null_mut(); 1 << width]).as_mut_ptr()
            } else {
                null_mut()
            });
        }

        unsafe fn give(&self, places: *mut *mut u8, width: u8) {
            let len = 1 << width;
            // SAFETY: the caller's duty.
            drop(unsafe { Vec::from_raw_parts(places, len, len) });
        }
    }

    fn batch(number: usize) -> [*mut u8; BATCH] {
        core::array::from_fn(|at| without_provenance_mut((number * BATCH + at + 1) * 16))
    }

    fn fetch(cache: &Shard, thread: u32) -> Option<[*mut u8; BATCH]> {
        let mut objects = [null_mut(); BATCH];
        match cache.fetch(thread, &mut objects) {
            0 => None,
            got => {
                assert_eq!(got, BATCH);
                Some(objects)
            }
        }
    }

    #[test]
    fn slots_open_for_a_consumer_and_close_for_a_loner() {
        let cache = Shard::new();
        let store = |number, compact| cache.store(1, &batch(number), compact, ALL, &Heap(true));
        assert!(!store(0, false), "nobody has asked yet");
        assert_eq!(fetch(&cache, 2), None);
        assert!(store(1, false), "thread 2 took after thread 1 flushed");
        assert_eq!(fetch(&cache, 2), Some(batch(1)));
        for number in 0..=usize::from(SLOTS) {
            let _ = store(number, false);
            let _ = fetch(&cache, 1);
        }
        assert!(!store(2, false), "thread 1 works alone now");
        assert!(store(3, true), "but its objects lie together");
    }

    #[test]
    fn no_more_objects_than_the_limit_are_stored_but_one_batch_always_is() {
        let cache = Shard::new();
        let store = |number, limit| cache.store(1, &batch(number), false, limit, &Heap(true));
        for number in 0..usize::from(SLOTS) {
            let _ = store(number, 0);
            let _ = fetch(&cache, 2);
        }
        assert_eq!(
            (0..usize::from(SLOTS))
                .filter(|&number| store(number, 30))
                .count(),
            3
        );
        assert_eq!(cache.inner.lock().objects, 24);
        let mut drained = [null_mut(); 100];
        assert_eq!(cache.drain(&mut drained), 24);
        assert_eq!(drained[..BATCH], batch(0), "in the order of storing");
        assert_eq!(cache.inner.lock().objects, 0);
        assert!(store(4, 0));
    }

    #[test]
    fn a_refused_place_leaves_the_batch_with_the_caller() {
        let cache = Shard::new();
        assert!(!cache.store(1, &batch(0), true, ALL, &Heap(false)));
        assert!(cache.store(1, &batch(0), true, ALL, &Heap(true)));
        let mut few = [null_mut(); 3];
        assert_eq!(cache.fetch(1, &mut few), 3);
        assert_eq!(few, batch(0)[5..], "a part of a batch");
    }
}
