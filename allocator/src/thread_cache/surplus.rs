//! What a thread's cache gives back before the heap grows for that thread: bins whose filling has not changed since they
//! were looked at last. A cache that holds what its thread no longer needs costs as much as a leak, and only growth tells
//! that it costs anything: a heap that has reached its size is left alone.

use super::ThreadCache;
use super::capacity::is_large;
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{NUM_CLASSES, batch_of};
use core::sync::atomic::Ordering::Relaxed;

/// Bins that growth looks at for each page: a span costs some page faults, and looking must not cost as much.
pub(crate) const STEPS: usize = 8;

impl ThreadCache {
    /// To be called before `pages` that are not resident are taken for `class` (0: for a large block): gives the middle tier what
    /// the next few bins but that of `class` hold, where it has not changed since the last time. One of large objects has no room
    /// any more then.
    pub(crate) fn give_idle<O: Os>(&self, heap: &Heap<O>, class: usize, pages: usize) {
        let mut at = self.looked.load(Relaxed) as usize;
        for _ in 0..(STEPS * pages).min(NUM_CLASSES) {
            at = if at + 1 < NUM_CLASSES { at + 1 } else { 1 };
            if self.capacity(at) == 0 {
                // What was seen are misses ([`super::capacity`]).
                continue;
            }
            let len = self.len(at);
            let seen = &self.seen[at];
            if at == class || len == 0 || usize::from(seen.load(Relaxed)) != len {
                seen.store(len as u8, Relaxed);
                continue;
            }
            while self.len(at) > 0 {
                self.flush_to(heap, at, self.len(at).min(batch_of(at)), false);
            }
            seen.store(0, Relaxed);
            if is_large(at) {
                self.shut(heap, at);
            }
        }
        self.looked.store(at as u32, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    /// A block of `class`, as a front end gets it.
    fn take(cache: &ThreadCache, heap: &Heap<FakeOs>, class: usize) -> *mut u8 {
        match cache.pop(class) {
            block if block.is_null() => cache.refill(heap, class),
            block => block,
        }
    }

    #[test]
    fn bins_at_rest_are_emptied_while_the_heap_grows_and_no_others() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        let [idle, busy, growing] =
            [96, 160, 4096].map(|size| class_of(size).expect("these sizes have classes"));
        let blocks = [idle, busy].map(|class| take(&cache, &heap, class));
        let (held, before) = (cache.len(idle), cache.len(busy));
        assert!(held > 0 && before > 1);
        // Two rounds over all bins, in the second of which the one at rest is as it was in the first.
        for _ in 0..2 * NUM_CLASSES.div_ceil(STEPS) {
            let filling = cache.len(busy);
            assert!(!cache.pop(busy).is_null() || !cache.refill(&heap, busy).is_null());
            assert_ne!(cache.len(busy), filling);
            // Nothing of this class is free or cached, so each round takes a span.
            while !cache.pop(growing).is_null() {}
            while !heap.central(growing).is_dry() {
                assert!(!heap.take_one(growing).0.is_null());
            }
            assert!(!cache.refill(&heap, growing).is_null());
        }
        assert_eq!(cache.len(idle), 0, "it had {held}");
        assert!(cache.len(busy) > 0, "it is in use");
        cache.check_invariants();
        heap.check_invariants();
        assert!(blocks.iter().all(|block| !block.is_null()));
    }

    #[test]
    fn a_bin_of_large_objects_has_room_after_some_misses_and_loses_it_at_rest() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        let class = class_of(6 << 10).expect("small");
        let mut misses = 0;
        while cache.capacity(class) == 0 {
            assert!(!cache.refill(&heap, class).is_null());
            misses += 1;
        }
        assert_eq!(misses, 9, "the one that gives it room is the ninth");
        // SAFETY: the object was handed out just now.
        let kept = unsafe { cache.push(class, cache.refill(&heap, class)) };
        assert!(kept && cache.len(class) > 0);
        let room = || (cache.budget.load(Relaxed), heap.cached_room.load(Relaxed));
        assert_eq!(room().0, room().1);
        // As many pages as let all bins be looked at, twice.
        (0..2).for_each(|_| cache.give_idle(&heap, 0, NUM_CLASSES));
        assert_eq!((cache.len(class), cache.capacity(class)), (0, 0));
        assert_eq!(room(), (0, 0));
        cache.check_invariants();
        heap.check_invariants();
    }

    #[test]
    fn a_heap_that_does_not_grow_leaves_bins_alone() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        let [idle, busy] = [96, 2048].map(|size| class_of(size).expect("small"));
        take(&cache, &heap, idle);
        let held = cache.len(idle);
        // A large free span is resident: what is taken now is no growth.
        let (large, _) = heap.allocate_large(8 << 20, 1);
        let crate::heap::Block::Large(span) = heap.block_of(large) else {
            panic!("8 MiB are no object of a class");
        };
        // SAFETY: the block is ours and not used any more.
        unsafe { heap.pages.free(span) };
        for _ in 0..1000 {
            assert!(!take(&cache, &heap, busy).is_null());
        }
        assert_eq!(cache.len(idle), held);
    }
}
