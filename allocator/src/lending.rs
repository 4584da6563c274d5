//! The first blocks of a class may be objects of a larger one.
//!
//! A class costs a page with its first object, and small programs use twenty classes for a few blocks each. While the heap
//! has no span of a class, a request is therefore served with an object of a class up to twice as large (128 bytes at
//! least) that is at hand without memory for it: cached, or free in a span. That is nothing that has to be undone or
//! remembered, as whoever frees a block by its address finds its class in the page map. Blocks that are freed by size
//! ([`crate::SpanAlloc`]) must be of the class that their size has, and are not served so. Invariant: L1 a class lends
//! only where its own fast path would.

use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{NUM_CLASSES, size_of_class};
use crate::thread_cache::ThreadCache;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Relaxed;

/// A class gets so many bytes of larger classes' objects before it has a span.
const SERVED_BYTES: usize = 512;
/// Up to this length objects serve any smaller request.
const ANY: usize = 128;

/// The longest object that may serve a request for an object of `size`.
const fn longest(size: usize) -> usize {
    if 2 * size > ANY { 2 * size } else { ANY }
}

impl<O: Os> Heap<O> {
    /// A block of `class` may be an object of a larger one, as of a moment ago.
    #[inline]
    pub(crate) fn may_lend(&self, class: usize) -> bool {
        let central = self.central(class);
        central.bytes() == 0
            && usize::from(central.served.load(Relaxed)) * size_of_class(class) < SERVED_BYTES
    }
}

impl<O: Os> Heap<O> {
    /// An object of a larger class that is at hand, null if there is none: `cached` takes one of a class out of a cache, `refill` one
    /// that is free in a span.
    #[inline]
    pub(crate) fn lend(
        &self,
        class: usize,
        cached: impl Fn(usize) -> *mut u8,
        refill: impl Fn(usize) -> *mut u8,
    ) -> *mut u8 {
        let most = longest(size_of_class(class));
        for larger in class + 1..NUM_CLASSES {
            if size_of_class(larger) > most {
                break;
            }
            let mut object = cached(larger);
            if object.is_null() && !self.central(larger).is_dry() {
                object = refill(larger);
            }
            if !object.is_null() {
                let served = &self.central(class).served;
                served.store(served.load(Relaxed).saturating_add(1), Relaxed);
                return object;
            }
        }
        null_mut()
    }
}

impl ThreadCache {
    /// As [`Heap::lend`].
    pub(crate) fn lend<O: Os>(&self, heap: &Heap<O>, class: usize) -> *mut u8 {
        heap.lend(
            class,
            |class| self.pop(class),
            |class| self.refill(heap, class),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::Block;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    fn class(size: usize) -> usize {
        class_of(size).expect("small")
    }

    #[test]
    fn the_first_blocks_of_a_class_are_of_a_larger_one_that_is_at_hand() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        assert!(cache.lend(&heap, class(48)).is_null(), "nothing is at hand");
        assert!(!cache.refill(&heap, class(96)).is_null());
        let in_use = heap.pages.in_use_bytes();
        let mut served = Vec::new();
        while heap.may_lend(class(48)) {
            let object = cache.lend(&heap, class(48));
            assert!(matches!(heap.block_of(object), Block::Small(of) if of == class(96)));
            served.push(object);
        }
        assert_eq!(served.len(), SERVED_BYTES.div_ceil(48));
        served.sort();
        served.dedup();
        assert_eq!(served.len(), SERVED_BYTES.div_ceil(48), "each once");
        assert_eq!(heap.pages.in_use_bytes(), in_use, "no span was taken");
        // A class with a span of its own uses that.
        assert!(!cache.refill(&heap, class(64)).is_null());
        assert!(!heap.may_lend(class(64)));
        cache.check_invariants();
        heap.check_invariants();
    }

    #[test]
    fn objects_more_than_twice_as_long_serve_small_requests_only() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        assert!(!cache.refill(&heap, class(1024)).is_null());
        assert!(heap.may_lend(class(400)) && cache.lend(&heap, class(400)).is_null());
        assert!(!cache.lend(&heap, class(600)).is_null());
        assert!(!cache.refill(&heap, class(128)).is_null());
        assert!(!cache.lend(&heap, class(8)).is_null());
    }
}
