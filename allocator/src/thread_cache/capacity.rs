//! How much room each bin has: from [`FIRST_BYTES`] on it doubles at misses, within the class's share, the thread's and
//! all threads' budgets, and gives room back to busier bins.

use super::{CACHES, LIMIT_BYTES, ThreadCache};
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{MAX_BATCH, NUM_CLASSES, batch_of, size_of_class};
use crate::transfer_cache::Places;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Relaxed;

/// Bytes that a bin starts with room for, at least one object.
const FIRST_BYTES: usize = 1 << 10;
/// A bin of objects that are longer than twice that has room from the miss after so many on: programs have one buffer of many lengths
/// each, and what a bin keeps of it serves no other length.
pub(crate) const MISSES: u8 = 8;
/// This part of the room that all caches have does not count as in use where what they may have is measured by that.
const ROOM_SHARE: usize = 2;
/// What the caches of all threads may add up to, beside the least for each.
const TOTAL_BYTES: usize = 32 << 20;
/// See [`LIMIT_BYTES`].
const LEAST_BYTES: usize = 64 << 10;
/// With so much in use the only cache there is may have half, as nobody else could use what it holds.
const LONE_BYTES: usize = 2 << 20;
/// A bin may hold this part of its class's spans once past its first capacity ...
const CLASS_SHARE: usize = 2;
/// ... and this part when its objects are larger than what a bin starts with room for.
const LARGE_SHARE: usize = 4;
/// Bins that one miss looks at for room to take over. More would cost busy classes more than the
/// room is worth.
pub(crate) const STEAL_STEPS: usize = 4;
/// One miss in so many looks for room in other bins.
pub(crate) const STEAL_EVERY: u64 = 16;
const _: () = assert!(
    2 * MAX_BATCH - 1 <= u8::MAX as usize,
    "capacities are bytes"
);

/// Objects of the class are too long for a bin that is there in any case.
pub(crate) fn is_large(class: usize) -> bool {
    size_of_class(class) > 2 * FIRST_BYTES
}

/// The first capacity of a class: about twice [`FIRST_BYTES`], at least two objects.
pub(crate) fn first_capacity(class: usize) -> usize {
    (2 * (FIRST_BYTES / size_of_class(class)).clamp(1, 16) - 1).max(2)
}

/// What is in use is divided by this where there are so many caches.
fn divisor(in_use: usize, caches: usize) -> usize {
    if caches == 1 && in_use >= LONE_BYTES {
        2
    } else {
        3 + caches
    }
}

/// What one cache of so many may have room for.
#[inline]
pub(crate) fn limit<O: Os>(heap: &Heap<O>, caches: usize) -> usize {
    let caches = caches.max(1);
    // A cache that grows makes the heap grow, which would be a reason for a larger cache.
    let room = heap.cached_room.load(Relaxed) / ROOM_SHARE;
    let in_use = heap.pages.in_use_bytes().saturating_sub(room);
    (in_use / divisor(in_use, caches))
        .min(TOTAL_BYTES / caches)
        .max(LEAST_BYTES)
        .min(LIMIT_BYTES.load(Relaxed))
}

/// `bytes` are no more than [`limit`], without its divisions: misses come here that find no room.
#[inline]
fn is_within_limit<O: Os>(heap: &Heap<O>, caches: usize, bytes: usize) -> bool {
    let caches = caches.max(1);
    let room = heap.cached_room.load(Relaxed) / ROOM_SHARE;
    let in_use = heap.pages.in_use_bytes().saturating_sub(room);
    let is_little = || {
        bytes.saturating_mul(divisor(in_use, caches)) <= in_use
            && bytes.saturating_mul(caches) <= TOTAL_BYTES
    };
    bytes <= LIMIT_BYTES.load(Relaxed) && (bytes <= LEAST_BYTES || is_little())
}

/// Room for `need` bytes more in a cache that has room for `budget` is within what all caches may have.
#[inline]
pub(crate) fn fits_beside<O: Os>(heap: &Heap<O>, budget: usize, need: usize) -> bool {
    budget + need <= LEAST_BYTES || heap.cached_room.load(Relaxed) + need <= TOTAL_BYTES
}

/// For how many objects a bin that has room for `cap` is to have room next, at most `most`, in a cache that has `limit` in all. No more
/// than `cap`: it has what it may have. (Bins of short objects begin with [`first_capacity`] in any case.)
#[inline]
pub(crate) fn next_capacity<O: Os>(
    heap: &Heap<O>,
    class: usize,
    cap: usize,
    most: usize,
    limit: impl FnOnce() -> usize,
    shares: usize,
) -> usize {
    let size = size_of_class(class);
    if cap == 0 {
        // Of large ones a single place takes most of what there is.
        return if 4 * size <= limit() {
            first_capacity(class)
        } else {
            1
        };
    }
    let part = if size <= FIRST_BYTES {
        CLASS_SHARE
    } else {
        LARGE_SHARE
    };
    let (bytes, wanted) = (
        shares * heap.central(class).bytes(),
        (2 * cap + 1).min(most),
    );
    // Where a bin has its share, or may have all that it wants, there is nothing to divide.
    if bytes < (cap + 1) * part * size {
        cap
    } else if bytes >= wanted * part * size {
        wanted
    } else {
        bytes / (part * size)
    }
}

impl ThreadCache {
    /// See [`first_capacity`].
    pub(super) fn first_capacity(class: usize) -> usize {
        first_capacity(class)
    }

    /// Makes a bin's places `cap`, which its objects must fit in. False: no memory, nothing has changed.
    pub(super) fn set_capacity<O: Os>(&self, heap: &Heap<O>, class: usize, cap: usize) -> bool {
        let (old, room) = (self.capacity(class), self.room(class));
        let len = old - room;
        debug_assert!(0 < cap && len <= cap);
        let from = self.bins.slots[class].load(Relaxed);
        let old_width = self.widths[class].load(Relaxed);
        let width = old_width.max((cap + 1).next_power_of_two().ilog2() as u8);
        let to = if width == old_width {
            from
        } else {
            heap.pages.take(width)
        };
        if to.is_null() {
            return false;
        }
        // SAFETY: both arrays are the bin's and as long as said; F2.
        unsafe {
            core::ptr::copy(from.add(room), to.add(cap - len), len);
            *to.add(cap) = null_mut();
            if to != from {
                self.bins.slots[class].store(to, Relaxed);
                self.widths[class].store(width, Relaxed);
                if old_width > 0 {
                    heap.pages.give(from, old_width);
                }
            }
        }
        let size = size_of_class(class);
        let budget = self.budget.load(Relaxed) + cap * size - old * size;
        self.budget.store(budget, Relaxed);
        if cap > old {
            heap.cached_room.fetch_add((cap - old) * size, Relaxed);
        } else {
            heap.cached_room.fetch_sub((old - cap) * size, Relaxed);
        }
        self.cap(class).store(cap as u8, Relaxed);
        self.set_room(class, cap - len);
        true
    }

    /// What the thread's bins may add up to.
    fn limit<O: Os>(heap: &Heap<O>) -> usize {
        limit(heap, CACHES.load(Relaxed))
    }

    /// The thread's bins, with room for `need` bytes more, are within what they may add up to.
    pub(super) fn has_budget<O: Os>(&self, heap: &Heap<O>, need: usize) -> bool {
        is_within_limit(heap, CACHES.load(Relaxed), self.budget.load(Relaxed) + need)
    }

    /// Doubles a bin's capacity within the class's and the thread's limits; false: not possible.
    pub(super) fn grow<O: Os>(&self, heap: &Heap<O>, class: usize) -> bool {
        let cap = self.capacity(class);
        let most = 2 * batch_of(class) - 1;
        if cap >= most {
            return false;
        }
        if cap == 0 {
            // Small bins are worth having in any case.
            if !is_large(class) {
                return self.set_capacity(heap, class, Self::first_capacity(class));
            }
            let misses = self.seen[class].load(Relaxed);
            if misses < MISSES {
                self.seen[class].store(misses + 1, Relaxed);
                return false;
            }
        }
        // A busy thread misses often for want of room; looking for some each time costs it more than
        // the misses do.
        let misses = self.refills.load(Relaxed) + self.flushes.load(Relaxed);
        let may_steal = misses.is_multiple_of(STEAL_EVERY);
        if !may_steal && !self.has_budget(heap, size_of_class(class)) {
            return false;
        }
        let limit = || Self::limit(heap);
        let target = next_capacity(heap, class, cap, most, limit, 1);
        if target <= cap {
            return false;
        }
        let need = (target - cap) * size_of_class(class);
        if !fits_beside(heap, self.budget.load(Relaxed), need) {
            return false;
        }
        if !self.has_budget(heap, need) && (!may_steal || !self.steal(heap, class, need)) {
            return false;
        }
        self.set_capacity(heap, class, target)
    }

    /// Takes room from a few other bins: half of what is unused where that is much, and what bins at rest have, whose objects
    /// go to the middle tier. True: `need` bytes more for `class` fit into the budget now.
    fn steal<O: Os>(&self, heap: &Heap<O>, class: usize, need: usize) -> bool {
        let mut at = self.cursor.load(Relaxed) as usize;
        for _ in 0..STEAL_STEPS {
            if self.has_budget(heap, need) {
                break;
            }
            at = if at + 1 < NUM_CLASSES { at + 1 } else { 1 };
            if at != class {
                self.lose_room(heap, at);
            }
        }
        self.cursor.store(at as u32, Relaxed);
        self.has_budget(heap, need)
    }

    /// A bin's part in [`ThreadCache::steal`].
    fn lose_room<O: Os>(&self, heap: &Heap<O>, class: usize) {
        let cap = self.capacity(class);
        let least = Self::first_capacity(class);
        if cap <= least {
            return;
        }
        let len = self.len(class);
        let seen = usize::from(self.seen[class].swap(len as u8, Relaxed));
        // A full bin that nobody uses any more would else keep its room for good: only growth of the heap empties it.
        if seen == len && len > cap / 2 {
            self.flush(heap, class, (len / 2).min(batch_of(class)));
            self.seen[class].store(self.len(class) as u8, Relaxed);
        }
        let room = self.room(class);
        if room * 2 >= cap {
            let done = self.set_capacity(heap, class, (cap - room / 2).max(least));
            debug_assert!(done, "fewer places need no memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    /// Takes so many blocks of a class as a front end does, and frees them.
    fn round(cache: &ThreadCache, heap: &Heap<FakeOs>, class: usize, count: usize) {
        let blocks: Vec<*mut u8> = (0..count)
            .map(|_| match cache.pop(class) {
                block if block.is_null() => cache.refill(heap, class),
                block => block,
            })
            .collect();
        for block in blocks {
            assert!(!block.is_null());
            // SAFETY: the block is of the class, and nobody uses it any more.
            unsafe {
                if !cache.push(class, block) {
                    cache.overflow(heap, class, block);
                }
            }
        }
    }

    #[test]
    fn what_is_within_the_limit_is_no_more_than_it() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let mut limits = std::collections::BTreeSet::new();
        for room in [0, 100_000, 80 << 20] {
            heap.cached_room.store(room, Relaxed);
            for _ in 0..6 {
                for caches in [0, 1, 2, 7, 300, 1 << 20] {
                    let most = limit(&heap, caches);
                    let case = format!("{most} bytes of {caches} caches, {room} in all");
                    assert!(is_within_limit(&heap, caches, most), "{case}");
                    assert!(!is_within_limit(&heap, caches, most + 1), "{case}");
                    limits.insert(most);
                }
                assert!(!heap.allocate_large(777_777, 1).0.is_null());
            }
        }
        assert!(limits.len() > 10, "{limits:?}");
    }

    #[test]
    fn a_full_bin_at_rest_loses_its_room_to_one_in_use() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        let [idle, busy] = [512, 64].map(|size| class_of(size).expect("small"));
        for _ in 0..10 {
            round(&cache, &heap, idle, 250);
        }
        let (full, limit) = (cache.len(idle), ThreadCache::limit(&heap));
        assert_eq!(limit, LEAST_BYTES);
        assert!(
            cache.budget.load(Relaxed) > limit * 3 / 4,
            "the bin has most of the room"
        );
        for _ in 0..200 {
            round(&cache, &heap, busy, 1_000);
        }
        let first = ThreadCache::first_capacity(busy);
        assert!(
            cache.capacity(busy) > 4 * first,
            "{} places, {first} at first",
            cache.capacity(busy)
        );
        assert!(
            cache.len(idle) <= full / 2,
            "{full}, then {}",
            cache.len(idle)
        );
        cache.check_invariants();
        heap.check_invariants();
    }
}
