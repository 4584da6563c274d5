//! Bins that only overflow: those of a thread that frees what other threads allocate.
//!
//! A bin that overflows keeps half of what it has, so that a program around the limit finds objects next. A thread that
//! allocates nothing of the class has no use for them. It is known by this: without one miss, as much has overflowed as the
//! class had at the first overflow, so that somebody else must have allocated in between. Its bin gives everything away, and has half the
//! room: it comes to the middle tier as often as before, holds a third as much in the mean, and what it held is sooner where
//! somebody wants it.

use super::ThreadCache;
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{batch_of, size_of_class};
use core::sync::atomic::Ordering::Relaxed;

/// In `until_one_way`: there was a miss, and no overflow since.
pub(super) const MISSED: u16 = 0;
/// Objects go one way through the bin. Any higher number is by how many [`UNIT`]s more are to overflow until then.
const ONE_WAY: u16 = 1;
/// Bytes; of a class of more than 65,534 units only so much counts.
const UNIT: usize = 1 << 10;

impl ThreadCache {
    /// Empties a bin without room if objects go one way through it; true: it was so.
    #[inline]
    pub(super) fn drain<O: Os>(&self, heap: &Heap<O>, class: usize) -> bool {
        let one_way = self.until_one_way[class].load(Relaxed) == ONE_WAY;
        if one_way {
            self.empty(heap, class);
        }
        one_way
    }

    /// To be called when a bin that could not grow has given `count` objects away; true: it was noticed that they go one way,
    /// and the bin is empty.
    #[inline]
    pub(super) fn overflowed<O: Os>(&self, heap: &Heap<O>, class: usize, count: usize) -> bool {
        let until = &self.until_one_way[class];
        let left = usize::from(until.load(Relaxed));
        let units = (count * size_of_class(class) / UNIT).max(1);
        if left > units {
            until.store((left - units) as u16, Relaxed);
            return false;
        }
        self.first_or_last(heap, class, left)
    }

    /// The first overflow since a miss, or the last one that was to be counted.
    #[cold]
    #[inline(never)]
    fn first_or_last<O: Os>(&self, heap: &Heap<O>, class: usize, left: usize) -> bool {
        let until = &self.until_one_way[class];
        if left == usize::from(MISSED) {
            let all = heap.central(class).bytes() / UNIT;
            until.store(
                u16::try_from(all).unwrap_or(u16::MAX).max(ONE_WAY + 1),
                Relaxed,
            );
            return false;
        }
        until.store(ONE_WAY, Relaxed);
        self.empty(heap, class);
        let half = self.capacity(class) / 2;
        if half >= Self::first_capacity(class) {
            let done = self.set_capacity(heap, class, half);
            debug_assert!(done, "fewer places need no memory");
        }
        true
    }

    fn empty<O: Os>(&self, heap: &Heap<O>, class: usize) {
        while self.len(class) > 0 {
            self.flush(heap, class, self.len(class).min(batch_of(class)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    fn heap_and_caches() -> (Box<Heap<FakeOs>>, [ThreadCache; 2]) {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let caches = [1, 2].map(|thread| {
            let cache = ThreadCache::new();
            cache.start(thread, heap.epoch());
            cache
        });
        (heap, caches)
    }

    fn take(cache: &ThreadCache, heap: &Heap<FakeOs>, class: usize) -> *mut u8 {
        match cache.pop(class) {
            block if block.is_null() => cache.refill(heap, class),
            block => block,
        }
    }

    /// Frees a block as a front end does; whether that was an overflow.
    fn free(cache: &ThreadCache, heap: &Heap<FakeOs>, class: usize, block: *mut u8) -> bool {
        // SAFETY: the block is of the class, and nobody uses it any more.
        unsafe {
            let full = !cache.push(class, block);
            if full {
                cache.overflow(heap, class, block);
            }
            full
        }
    }

    /// `rounds` times 64 blocks of 256 bytes, taken by one cache and freed by the other, which has `own` blocks beside. The most
    /// that the other held in the last half, and its overflows then.
    fn hand_over(
        heap: &Heap<FakeOs>,
        caches: &[ThreadCache; 2],
        rounds: usize,
        own: usize,
    ) -> (usize, usize) {
        let class = class_of(256).expect("small");
        let (mut held, mut overflows) = (0, 0);
        for round in 0..rounds {
            let blocks: Vec<*mut u8> = (0..64).map(|_| take(&caches[0], heap, class)).collect();
            for block in blocks {
                let full = free(&caches[1], heap, class, block);
                if round >= rounds / 2 {
                    held = held.max(caches[1].len(class));
                    overflows += usize::from(full);
                }
            }
            // What it needs itself, a little more than its bin has.
            let blocks: Vec<*mut u8> = (0..own).map(|_| take(&caches[1], heap, class)).collect();
            for block in blocks {
                free(&caches[1], heap, class, block);
            }
            for cache in caches {
                cache.check_invariants();
            }
        }
        heap.check_invariants();
        (held, overflows)
    }

    /// A heap of some size, in which bins have all the room there is.
    fn grown() -> (Box<Heap<FakeOs>>, [ThreadCache; 2]) {
        let (heap, caches) = heap_and_caches();
        let class = class_of(256).expect("small");
        for _ in 0..8_000 {
            assert!(!take(&caches[0], &heap, class).is_null());
        }
        (heap, caches)
    }

    #[test]
    fn a_bin_that_only_overflows_holds_half_and_overflows_no_more_often() {
        let (heap, caches) = grown();
        let (one_way, overflows) = hand_over(&heap, &caches, 1_000, 0);
        let (heap, caches) = grown();
        let (both_ways, others) = hand_over(&heap, &caches, 1_000, 130);
        assert!(
            one_way * 2 <= both_ways + 1,
            "{one_way} and {both_ways} blocks held"
        );
        assert!(
            overflows <= others + others / 32,
            "{overflows} and {others} overflows"
        );
    }

    #[test]
    fn a_miss_makes_it_a_bin_like_others_again() {
        let (heap, caches) = grown();
        let class = class_of(256).expect("small");
        hand_over(&heap, &caches, 1_000, 0);
        assert_eq!(caches[1].until_one_way[class].load(Relaxed), ONE_WAY);
        while caches[1].len(class) > 0 {
            take(&caches[1], &heap, class);
        }
        take(&caches[1], &heap, class);
        assert_eq!(caches[1].until_one_way[class].load(Relaxed), MISSED);
        for _ in 0..3 {
            while caches[1].room(class) > 0 {
                free(&caches[1], &heap, class, take(&caches[0], &heap, class));
            }
            free(&caches[1], &heap, class, take(&caches[0], &heap, class));
        }
        assert!(
            caches[1].len(class) > caches[1].capacity(class) / 3,
            "the newer half stays"
        );
    }

    #[test]
    fn a_thread_that_frees_all_it_has_and_allocates_again_keeps_its_room() {
        let (heap, caches) = heap_and_caches();
        let class = class_of(256).expect("small");
        for _ in 0..4 {
            let blocks: Vec<*mut u8> = (0..8_000).map(|_| take(&caches[0], &heap, class)).collect();
            for block in blocks {
                free(&caches[0], &heap, class, block);
                assert_ne!(caches[0].until_one_way[class].load(Relaxed), ONE_WAY);
            }
        }
    }

    #[test]
    fn a_bin_without_places_loses_nothing() {
        let (heap, caches) = heap_and_caches();
        // One block is all that the heap has in use, so that none fits into a bin.
        let class = class_of(256 << 10).expect("small");
        for _ in 0..500 {
            let block = heap.take_one(class).0;
            assert!(!block.is_null());
            free(&caches[1], &heap, class, block);
            assert_eq!(caches[1].capacity(class), 0);
            assert_eq!(
                heap.central(class).inner.lock().free_bytes(class),
                heap.central(class).bytes()
            );
        }
    }
}
