//! The middle tier's upper half: whole batches of one class on their way from thread to thread.
//!
//! A producer's blocks end up in the consumer's cache; the consumer flushes batches here and the
//! producer's next refill takes them, a copy of addresses instead of a walk over bitmaps.
//!
//! A class begins with one [`Shard`]. Where many threads exchange its blocks, they wait for each other: a batch is up to 128
//! addresses, which come from another processor's cache line by line while the lock is held. A class whose first shard is
//! crowded gets more of them, for as many threads as can run at once; each thread stores in its own and takes from its own
//! first, then from where its neighbours found something last. From then on its slots are open without evidence, as the tier below is shared by all threads. Invariant: X3 `more` changes
//! once, from null, while the first shard's lock and that of the memory are held, so that who holds either of them (a fork) sees all
//! shards or none.

mod shard;

pub use shard::{SLOTS, Shard};

use crate::plant::{Plant, planted};
#[cfg(not(loom))]
use crate::sync::RawLock;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

#[cfg(not(loom))]
use core::sync::atomic::AtomicPtr;
#[cfg(loom)]
use loom::sync::atomic::AtomicPtr;

/// Shards of a class at most, a power of two.
pub const MOST_SHARDS: usize = 8;

/// log₂ of the words that [`More`] takes.
const MORE_WIDTH: u8 = (size_of::<More>() / size_of::<usize>())
    .next_power_of_two()
    .ilog2() as u8;

/// The transfer cache of one class.
#[derive(Debug)]
pub struct TransferCache {
    first: Shard,
    more: AtomicPtr<More>,
}

/// The shards of a class beside its first, each on a cache line of its own.
#[derive(Debug)]
struct More {
    /// How many the class has in all, a power of two.
    shards: usize,
    others: [Line; MOST_SHARDS - 1],
}

#[derive(Debug)]
#[repr(align(64))]
struct Line(Shard);

/// Where the memory for addresses comes from.
pub trait Places {
    /// Calls `then` with room for 2 to the power of `width` addresses, with old contents, aligned to its size or to 64 bytes; with
    /// null if there is no memory. The memory's lock is held until `then` returns.
    fn take_then(&self, width: u8, then: impl FnOnce(*mut *mut u8));

    /// Takes such room back.
    ///
    /// # Safety
    /// It was taken here with this width and nobody uses it any more.
    unsafe fn give(&self, places: *mut *mut u8, width: u8);

    /// Processors on which the program's threads may run.
    fn processors(&self) -> usize {
        1
    }

    /// The room itself. Null: no memory.
    fn take(&self, width: u8) -> *mut *mut u8 {
        let mut taken = null_mut();
        self.take_then(width, |places| taken = places);
        taken
    }
}

/// What a class's shards hold and did, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub shards: usize,
    pub objects: usize,
    /// Refills that were served.
    pub hits: u64,
    /// Batches that were kept.
    pub stores: u64,
}

impl TransferCache {
    /// Empty, all slots closed.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Shard::new(),
            more: AtomicPtr::new(null_mut()),
        }
    }

    /// Empty, all slots closed.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            first: Shard::new(),
            more: AtomicPtr::new(null_mut()),
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
        let shards = self.shards();
        if shards > 1 {
            let own = self.shard(own(thread, shards));
            return own.store(thread, batch, true, limit / shards * 2, memory);
        }
        let stored = self.first.store(thread, batch, compact, limit, memory);
        if self.first.is_crowded() {
            self.spread(memory);
        }
        stored
    }

    /// Up to `batch.len()` objects for thread `thread`; how many they are.
    #[must_use]
    pub fn fetch(&self, thread: u32, batch: &mut [*mut u8]) -> usize {
        let shards = self.shards();
        if shards == 1 {
            return self.first.fetch(thread, batch);
        }
        let own = own(thread, shards);
        let home = self.shard(own);
        let source = usize::from(home.source.load(Relaxed));
        let others = (1..shards).map(|at| (own + at) % shards);
        for at in [own, source].into_iter().chain(others) {
            let shard = self.shard(at);
            if shard.held() == 0 {
                continue;
            }
            let got = shard.fetch(thread, batch);
            if got > 0 {
                if at != own && at != source {
                    home.source.store(at as u8, Relaxed);
                }
                return got;
            }
        }
        0
    }

    /// Objects in all stored batches, as of a moment ago.
    #[must_use]
    pub fn held(&self) -> usize {
        self.all().map(Shard::held).sum()
    }

    /// Something may be stored.
    #[must_use]
    pub fn has_stored(&self) -> bool {
        self.first.held() > 0 || !self.more().is_null()
    }

    /// As [`TransferCache::fetch`], without counting as evidence: to empty the cache.
    #[must_use]
    pub fn drain(&self, batch: &mut [*mut u8]) -> usize {
        self.all()
            .map(|shard| shard.drain(batch))
            .find(|&got| got > 0)
            .unwrap_or(0)
    }

    /// What all shards hold and did.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.all().fold(Totals::default(), |sum, shard| {
            let inner = shard.lock();
            Totals {
                shards: sum.shards + 1,
                objects: sum.objects + inner.objects,
                hits: sum.hits + inner.hits,
                stores: sum.stores + inner.stores,
            }
        })
    }

    /// Gives the class as many shards as threads can meet in at once. Without memory, or with few processors, it keeps the one.
    pub fn spread(&self, memory: &impl Places) {
        let shards = (memory.processors() / 2)
            .next_power_of_two()
            .min(MOST_SHARDS);
        if shards == 1 {
            return;
        }
        let _first = self.first.lock();
        if !self.more().is_null() {
            return;
        }
        memory.take_then(MORE_WIDTH, |room| {
            if room.is_null() {
                return;
            }
            let more = room.cast::<More>();
            // SAFETY: the room is nobody else's, long enough and aligned to 64 bytes (its size is a multiple); X3.
            unsafe {
                more.write(More {
                    shards,
                    others: core::array::from_fn(|_| Line(Shard::new())),
                });
            }
            let order = if planted(Plant::ShardsRelaxed) {
                Relaxed
            } else {
                Release
            };
            self.more.store(more, order);
        });
    }

    /// Visits the locks of all shards, the first one first. Where all are taken or all are given back, X3 makes them the same ones.
    #[cfg(not(loom))]
    pub(crate) fn for_each_lock(&self, mut visit: impl FnMut(&RawLock)) {
        let known = self.more();
        visit(self.first.raw());
        let more = if known.is_null() { self.more() } else { known };
        // SAFETY: what `more` names is never taken back.
        for line in unsafe { more.as_ref() }.into_iter().flat_map(More::others) {
            visit(line.0.raw());
        }
    }

    /// All shards.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Shard> {
        (0..self.shards()).map(|at| self.shard(at))
    }

    fn more(&self) -> *mut More {
        self.more.load(Acquire)
    }

    fn shards(&self) -> usize {
        // SAFETY: what `more` names is never taken back, and was written before it was named.
        unsafe { self.more().as_ref() }.map_or(1, |more| more.shards)
    }

    /// Shard number `at`, which there is.
    fn shard(&self, at: usize) -> &Shard {
        match at.checked_sub(1) {
            None => &self.first,
            // SAFETY: as in `shards`; there is more than one.
            Some(at) => unsafe { &(&(*self.more()).others)[at].0 },
        }
    }
}

/// The number of a thread's shard. Threads whose numbers are an even distance apart, as all producers are where each is started
/// with its consumer, do not share theirs.
fn own(thread: u32, shards: usize) -> usize {
    (thread ^ thread >> shards.ilog2()) as usize % shards
}

#[cfg(not(loom))]
impl More {
    fn others(&self) -> &[Line] {
        &self.others[..self.shards - 1]
    }
}

impl Default for TransferCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::without_provenance_mut;

    /// Memory and processors of the test.
    struct Machine(usize);

    impl Places for Machine {
        fn take_then(&self, width: u8, then: impl FnOnce(*mut *mut u8)) {
            let layout = std::alloc::Layout::from_size_align(8 << width, 64).expect("small");
            // SAFETY: not of size 0.
            then(unsafe { std::alloc::alloc(layout) }.cast());
        }

        unsafe fn give(&self, places: *mut *mut u8, width: u8) {
            let layout = std::alloc::Layout::from_size_align(8 << width, 64).expect("small");
            // SAFETY: the caller's duty.
            unsafe { std::alloc::dealloc(places.cast(), layout) };
        }

        fn processors(&self) -> usize {
            self.0
        }
    }

    fn batch(number: usize) -> [*mut u8; 8] {
        core::array::from_fn(|at| without_provenance_mut((number * 8 + at + 1) * 16))
    }

    #[test]
    fn every_thread_stores_in_its_shard_and_finds_what_is_in_others() {
        let (cache, machine) = (TransferCache::new(), Machine(8));
        cache.spread(&machine);
        assert_eq!(cache.totals().shards, 4);
        for thread in 0..4 {
            assert!(cache.store(thread, &batch(thread as usize), false, 1000, &machine));
        }
        let held: Vec<_> = cache.all().map(Shard::held).collect();
        assert_eq!(held, [8; 4]);
        let mut got = [null_mut(); 8];
        for number in [2, 0, 3, 1] {
            assert_eq!(
                cache.fetch(2, &mut got),
                8,
                "its own first, then the last source, then the next"
            );
            assert_eq!(got, batch(number));
        }
        assert_eq!(cache.fetch(2, &mut got), 0);
        assert_eq!((cache.held(), cache.totals().hits), (0, 4));
        assert_eq!(cache.shard(2).source.load(Relaxed), 1, "the last one");
    }

    #[test]
    fn threads_at_any_even_distance_do_not_share_a_shard() {
        for distance in [1, 2, 4] {
            let own: std::collections::BTreeSet<_> =
                (0..8).map(|at| own(at * distance, 8)).collect();
            assert_eq!(own.len(), 8, "{distance}");
        }
    }

    #[test]
    fn all_shards_together_stay_within_twice_the_limit() {
        let (cache, machine) = (TransferCache::new(), Machine(4));
        cache.spread(&machine);
        let stored = (0..32).filter(|&thread| cache.store(thread, &batch(0), false, 32, &machine));
        assert_eq!(stored.count(), 8, "none knows how full others are: twice");
        let mut emptied = 0;
        while cache.drain(&mut [null_mut(); 3]) > 0 {
            emptied += 1;
        }
        assert_eq!(
            (emptied, cache.held()),
            (22, 0),
            "in threes, 32 of each shard"
        );
    }

    #[test]
    fn two_processors_are_no_crowd_and_locks_are_visited_once() {
        for (processors, shards) in [(1, 1), (2, 1), (4, 2), (16, 8), (256, 8)] {
            let cache = TransferCache::new();
            cache.spread(&Machine(processors));
            cache.spread(&Machine(processors));
            let mut locks = std::collections::BTreeSet::new();
            cache.for_each_lock(|lock| assert!(locks.insert(core::ptr::from_ref(lock)), "twice"));
            assert_eq!((cache.totals().shards, locks.len()), (shards, shards));
        }
    }

    #[test]
    fn a_shard_for_which_threads_wait_is_a_crowd() {
        let (cache, machine) = (TransferCache::new(), Machine(16));
        let exchange = || {
            let mut got = [null_mut(); 8];
            for _ in 0..32 {
                let _ = cache.store(1, &batch(0), true, 1000, &machine);
                let _ = cache.fetch(2, &mut got);
            }
        };
        exchange();
        assert_eq!(cache.totals().shards, 1, "nobody waited");
        for _ in 0..40 {
            std::thread::scope(|scope| {
                let held = cache.first.lock();
                let seen = cache.first.raw().contended();
                scope.spawn(|| cache.first.fetch(3, &mut [null_mut(); 8]));
                while cache.first.raw().contended() == seen {
                    std::thread::yield_now();
                }
                drop(held);
            });
        }
        exchange();
        exchange();
        assert_eq!(cache.totals().shards, 8);
    }
}
