//! Which batches a lone thread stores as they are although their ends lie far apart: those that replay well nevertheless, in a heap that
//! does not grow. Sorting an object into its span and taking it out again costs ten times what a copy of its address does, but only
//! in its span it is of use to others: so the next growth sorts them all.

use super::{CACHES, ThreadCache};
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::size_of_class;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

/// Of shorter objects their addresses would take too much room, which a class keeps.
const LEAST_SIZE: usize = 64;

/// Flushes of a thread without growth of the heap after which batches that lie in a few runs are stored ...
const RUNS_SETTLED: u32 = 64;
/// ... unless so many addresses are, 16 KiB less a batch: no more are kept of any class.
const RUNS_STORED: usize = 1920;
/// Pairs of neighbours in a batch that are looked at to find out whether it lies in runs.
const PAIRS: usize = 8;
/// Those of them that may be further apart ...
const FAR_PAIRS: usize = 2;
/// ... than so many objects: others that are in use lie between what a program frees in the order of addresses.
const NEAR_OBJECTS: usize = 16;

/// In a heap with so much in use nothing is far away: it is in the second or the third cache. Its batches are stored in whatever order
/// objects come back, unless more pairs than these ...
const NEAR_HEAP: Range<usize> = 1 << 20..16 << 20;
const NEAR_HEAP_FAR_PAIRS: usize = 4;
/// ... are so far apart: what is freed in no order at all is sorted, as a program that takes it out again in the order of addresses
/// is faster by more than that costs ...
const NEAR_HEAP_APART: usize = 64 << 10;
/// ... or there are, of each class, more than one address for so many bytes in use, so that addresses take no more than a 64th of it.
const NEAR_HEAP_SHARE: usize = 64 * size_of::<usize>();

/// The objects of a class whose spans are no longer than this lie together, in whatever order they are freed: half of the least
/// second-level cache in use.
const NEAR_BYTES: usize = 96 << 10;
/// Flushes after which batches of such a class are stored ...
const NEAR_SETTLED: u32 = 2048;
/// ... unless so many addresses are, half of 8 KiB and a batch.
const NEAR_STORED: usize = 640;

impl ThreadCache {
    /// Whether a batch of `class` whose ends are far apart is better stored as it is than sorted: it lies in a few runs, or all of
    /// the class or of the heap is near, and the heap has not grown for a while, so that nobody waits for the spans to become free.
    pub(super) fn keeps_unsorted<O: Os>(
        &self,
        heap: &Heap<O>,
        class: usize,
        batch: &[*mut u8],
    ) -> bool {
        let size = size_of_class(class);
        // Between threads evidence decides ([`crate::transfer_cache`]).
        if CACHES.load(Relaxed) > 1 {
            return false;
        }
        let held = heap.transfer(class).held();
        let settled = self.flushes_without_growth(heap);
        let in_use = heap.pages.in_use_bytes();
        let is_near = || {
            settled >= NEAR_SETTLED
                && held <= NEAR_STORED
                && heap.central(class).bytes() <= NEAR_BYTES
        };
        let kept = settled >= RUNS_SETTLED
            && if NEAR_HEAP.contains(&in_use) {
                held <= in_use / NEAR_HEAP_SHARE
                    && far_pairs(batch, NEAR_HEAP_APART) <= NEAR_HEAP_FAR_PAIRS
            } else {
                size >= LEAST_SIZE && held <= RUNS_STORED && (is_near() || lie_in_runs(batch, size))
            };
        if kept {
            heap.storing_unsorted();
        }
        kept
    }

    /// Batches that the thread has given away since the heap was found to have grown.
    fn flushes_without_growth<O: Os>(&self, heap: &Heap<O>) -> u32 {
        let (flushes, growths) = (self.flushes.load(Relaxed) as u32, heap.growths());
        if self.growths.load(Relaxed) != growths {
            self.growths.store(growths, Relaxed);
            self.settling.store(flushes, Relaxed);
        }
        flushes.wrapping_sub(self.settling.load(Relaxed))
    }
}

/// Most objects of a batch lie near the one before them, as far as a few pairs tell.
fn lie_in_runs(batch: &[*mut u8], size: usize) -> bool {
    batch.len() >= 2 * PAIRS && far_pairs(batch, NEAR_OBJECTS * size) <= FAR_PAIRS
}

/// How many of [`PAIRS`] pairs of neighbours in a batch are more than so many bytes apart. (None of a batch that has not so many.)
fn far_pairs(batch: &[*mut u8], bytes: usize) -> usize {
    let step = batch.len() / PAIRS;
    if step < 2 {
        return 0;
    }
    let far = |pair: &&[*mut u8]| (pair[0] as usize).abs_diff(pair[1] as usize) > bytes;
    let pairs = batch.chunks_exact(step).take(PAIRS);
    pairs.filter(far).count()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap_tests::Random;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    /// A cache of objects of one class, and its heap.
    struct Fixture {
        heap: Box<Heap<FakeOs>>,
        cache: ThreadCache,
        class: usize,
        random: Random,
    }

    impl Fixture {
        fn new(size: usize) -> Self {
            let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
            let cache = ThreadCache::new();
            cache.start(1, heap.epoch());
            Self {
                heap,
                cache,
                class: class_of(size).expect("small"),
                random: Random::new(1),
            }
        }

        /// Takes so many objects as a front end does, and frees them in runs of `run` neighbours, which come in no order.
        fn round(&mut self, count: usize, run: usize) {
            let (cache, heap) = (&self.cache, &*self.heap);
            let mut objects: Vec<*mut u8> = (0..count)
                .map(|_| match cache.pop(self.class) {
                    object if object.is_null() => cache.refill(heap, self.class),
                    object => object,
                })
                .collect();
            objects.sort_unstable();
            let mut runs: Vec<&[*mut u8]> = objects.chunks(run).collect();
            while !runs.is_empty() {
                for &object in runs.swap_remove(self.random.below(runs.len())) {
                    assert!(!object.is_null());
                    // SAFETY: the object is of the class, and nobody uses it any more.
                    unsafe {
                        if !cache.push(self.class, object) {
                            cache.overflow(heap, self.class, object);
                        }
                    }
                }
            }
        }

        /// Batches that the cache gives away in some rounds, and those that are stored as they are. (Some lie in order by chance.)
        fn given_and_stored(&mut self, rounds: usize, count: usize, run: usize) -> [u64; 2] {
            let now = |of: &Self| {
                let stores = of.heap.transfer(of.class).totals().stores;
                [of.cache.flushes.load(Relaxed), stores]
            };
            let before = now(self);
            (0..rounds).for_each(|_| self.round(count, run));
            let after = now(self);
            [0, 1].map(|at| after[at] - before[at])
        }

        /// Lets the heap grow.
        fn grow(&self) {
            let (block, _) = self.heap.allocate_large(8 << 20, 1);
            assert!(!block.is_null());
            assert_eq!(self.heap.transfer(self.class).held(), 0, "it grew");
        }
    }

    #[test]
    fn batches_without_order_are_stored_while_all_is_near_and_the_heap_does_not_grow() {
        // 63 KiB, and four times as much as is near.
        for (count, near) in [(1_000, true), (4 * NEAR_BYTES / 64, false)] {
            let mut of = Fixture::new(64);
            let [given, stored] = of.given_and_stored(10, count, 1);
            assert!(4 * stored < 3 * given, "{stored} of {given} while it grew");
            of.given_and_stored(NEAR_SETTLED as usize / 4, count, 1);
            let [given, stored] = of.given_and_stored(10, count, 1);
            let most = 10 * stored > 9 * given;
            assert_eq!(most, near, "{stored} of {given} at rest");
            if near {
                assert!(of.heap.transfer(of.class).held() > 0);
                of.grow();
                let [given, stored] = of.given_and_stored(10, count, 1);
                assert!(
                    4 * stored < 3 * given,
                    "{stored} of {given} when it had grown"
                );
            }
            of.cache.check_invariants();
            of.heap.check_invariants();
        }
    }

    #[test]
    fn batches_in_runs_are_stored_soon_after_growth_and_up_to_a_bound() {
        // Less than is near as a heap.
        let count = 3_000;
        for (size, run, kept) in [(256, 32, true), (256, 1, false), (48, 32, false)] {
            let mut of = Fixture::new(size);
            of.given_and_stored(3, count, run);
            // Some flushes at rest, whatever becomes of them.
            let [given, _] = of.given_and_stored(6, count, run);
            assert!(given >= u64::from(RUNS_SETTLED));
            let [_, stored] = of.given_and_stored(1, count, run);
            let case = format!("{size} bytes, runs of {run}: {stored} batches");
            assert_eq!(stored >= 10, kept, "{case}");
            let held = of.heap.transfer(of.class).held();
            // Some batches lie together by chance, for which the bound does not hold.
            assert!(held <= RUNS_STORED + 5 * 128, "{case}, {held} objects");
            if kept {
                assert!(held > RUNS_STORED / 2, "{case}, {held} objects");
                of.grow();
                let [_, stored] = of.given_and_stored(1, count, run);
                assert!(stored < 10, "{case} before growth, {stored} after it");
            }
            of.cache.check_invariants();
            of.heap.check_invariants();
        }
    }

    #[test]
    fn batches_that_lie_a_little_together_are_stored_in_a_heap_that_is_near_and_has_not_grown() {
        let count = 2 * NEAR_HEAP.start / 48;
        for (beside, run, kept) in [(0, 8, true), (0, 1, false), (NEAR_HEAP.end, 8, false)] {
            let mut of = Fixture::new(48);
            let (block, _) = of.heap.allocate_large(beside.max(1), 1);
            assert!(!block.is_null());
            of.given_and_stored(2, count, run);
            let [_, stored] = of.given_and_stored(1, count, run);
            let held = of.heap.transfer(of.class).held();
            let most = of.heap.pages.in_use_bytes() / NEAR_HEAP_SHARE;
            let case = format!("{stored} batches, {held} objects of runs of {run} stored");
            assert_eq!(stored >= 20, kept, "{case}");
            if kept {
                assert!((most / 2..=most + 128).contains(&held), "{case}");
                of.grow();
            }
            of.cache.check_invariants();
            of.heap.check_invariants();
        }
    }

    #[test]
    fn what_lies_in_runs_is_told_by_a_few_pairs() {
        let size = 64;
        let at = |number: usize| core::ptr::without_provenance_mut((number + 1000) * size);
        let batch = |number: &dyn Fn(usize) -> usize| -> Vec<*mut u8> {
            (0..128).map(|of| at(number(of))).collect()
        };
        // Downwards with every other object in use, in pieces far from each other, and with each object elsewhere.
        assert!(lie_in_runs(&batch(&|of| 500 - 2 * of), size));
        assert!(lie_in_runs(
            &batch(&|of| of / 16 * 5000 % 70_000 + of % 16),
            size
        ));
        assert!(!lie_in_runs(&batch(&|of| of * 977 % 128 * 20), size));
        // Of few nothing can be told.
        assert!(!lie_in_runs(&batch(&|of| of)[..15], size));
        assert!(lie_in_runs(&batch(&|of| of)[..16], size));
    }
}
