//! The same in classes that are in use, where the heap would else occupy more than it ever did.
//!
//! Of many classes each has a few spans with room, and what is free there in whole kernel pages adds up: up to a fifth of what
//! small programs had in memory at their peak. An object that comes back to such a page is a page fault, so no more is given
//! back than is about to be put to use, or twice that; only at a new peak, so that a heap that has reached its size is left alone; and
//! where looks are in vain, some growths go without one.

use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::NUM_CLASSES;
use crate::units::{OS_PAGE, page_bytes};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// So many times what will be put to use is given back.
const GIVEN: usize = 2;
/// Spans that one growth looks at.
const LOOKS: usize = 128;
/// Growths without a look after several looks in vain.
const LONGEST_PAUSE: u8 = 7;

/// Where looks at classes in use have come to. Of no consequence where threads write it at once.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The class that was looked at last.
    class: AtomicUsize,
    /// Growths that go without a look, and how many did after the last one.
    left: AtomicU8,
    pause: AtomicU8,
}

impl Wanted {
    pub(crate) const fn new() -> Self {
        Self {
            class: AtomicUsize::new(0),
            left: AtomicU8::new(0),
            pause: AtomicU8::new(0),
        }
    }
}

impl<O: Os> Heap<O> {
    /// To be called before `pages` that are not resident are put to use, after `given` kernel pages were given back for them: gives
    /// back some more if the heap would occupy more than ever.
    pub(super) fn purge_wanted(&self, pages: usize, mut given: usize) {
        let enough = GIVEN * page_bytes(pages) / OS_PAGE;
        if given >= enough || !self.pages.is_highest(pages) {
            return;
        }
        let wanted = &self.wanted;
        let left = wanted.left.load(Relaxed);
        if left > 0 {
            wanted.left.store(left - 1, Relaxed);
            return;
        }
        let before = given;
        let mut looks = LOOKS;
        let mut class = wanted.class.load(Relaxed);
        for _ in 1..NUM_CLASSES {
            class = if class + 1 < NUM_CLASSES {
                class + 1
            } else {
                1
            };
            let central = self.central(class);
            if central.is_dry() {
                continue;
            }
            let mut inner = central.inner.lock();
            // Any class can use the pages of a span that is free.
            given += page_bytes(inner.retire_kept(&self.pages)) / OS_PAGE;
            central.publish(&inner);
            if given < enough && inner.free_bytes(class) >= OS_PAGE {
                let (pages, _) =
                    inner.purge_some(&self.pages, usize::MAX, enough - given, &mut looks);
                given += pages;
            }
            if given >= enough || looks == 0 {
                break;
            }
        }
        wanted.class.store(class, Relaxed);
        let pause = if given > before {
            0
        } else {
            (2 * wanted.pause.load(Relaxed) + 1).min(LONGEST_PAUSE)
        };
        wanted.pause.store(pause, Relaxed);
        wanted.left.store(pause, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    /// A heap in which every other of `count` objects of a kernel page is free, and those that are not.
    fn half_free(count: usize) -> (Box<Heap<FakeOs>>, usize, Vec<*mut u8>) {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let (class, kept) = half_free_in(&heap, count);
        (heap, class, kept)
    }

    /// The same in a heap that there is.
    fn half_free_in(heap: &Heap<FakeOs>, count: usize) -> (usize, Vec<*mut u8>) {
        let class = class_of(OS_PAGE).expect("small");
        let objects: Vec<*mut u8> = (0..count).map(|_| heap.take_one(class).0).collect();
        let (free, kept): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .enumerate()
            .partition(|(at, _)| at % 2 == 0);
        let [free, kept] = [free, kept].map(|of| of.into_iter().map(|(_, object)| object));
        for (object, number) in kept.clone().zip(1_u8..) {
            // SAFETY: the object is ours.
            unsafe { object.write_bytes(number, OS_PAGE) };
        }
        for batch in free.collect::<Vec<_>>().chunks(8) {
            // SAFETY: the objects were handed out above, and each is given back once.
            unsafe { heap.give(class, batch) };
        }
        (class, kept.collect())
    }

    fn purged(heap: &Heap<FakeOs>, class: usize) -> usize {
        heap.central(class).inner.lock().purged_pages as usize
    }

    /// Takes a large block of `pages`, while the class is in use.
    fn grow(heap: &Heap<FakeOs>, class: usize, pages: usize) -> *mut u8 {
        let (object, _) = heap.take_one(class);
        // SAFETY: the object was handed out just now.
        unsafe { heap.give(class, &[object]) };
        let (block, _) = heap.allocate_large(page_bytes(pages), 1);
        assert!(!block.is_null());
        block
    }

    #[test]
    fn at_a_new_peak_a_class_in_use_gives_back_about_what_is_put_to_use() {
        let (heap, class, kept) = half_free(200);
        let enough = GIVEN * page_bytes(4) / OS_PAGE;
        for growths in 1..=4 {
            grow(&heap, class, 4);
            let given = purged(&heap, class);
            // A span more or less, as the one that an object comes from is not known to have given anything any more.
            let all = growths * enough;
            assert!(
                (all / 2..=all + enough).contains(&given),
                "{given} kernel pages after {growths} growths of 4 pages"
            );
        }
        for (&object, number) in kept.iter().zip(1_u8..) {
            // SAFETY: the object is live.
            let bytes = unsafe { core::slice::from_raw_parts(object, OS_PAGE) };
            assert!(bytes.iter().all(|&byte| byte == number));
        }
        heap.check_invariants();
    }

    #[test]
    fn a_heap_below_its_peak_keeps_them() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        // The peak, before there is anything to give back.
        let (block, _) = heap.allocate_large(6 << 20, 1);
        let crate::heap::Block::Large(span) = heap.block_of(block) else {
            panic!("6 MiB are no object of a class");
        };
        // SAFETY: the block is ours and not used any more.
        unsafe { heap.pages.free(span) };
        heap.pages.release_free(0);
        let (class, _kept) = half_free_in(&heap, 200);
        for _ in 0..20 {
            grow(&heap, class, 4);
        }
        assert_eq!(purged(&heap, class), 0);
        heap.check_invariants();
    }

    #[test]
    fn looks_in_vain_become_rare() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let class = class_of(64).expect("small");
        // One object on each kernel page is in use, so there is nothing to give.
        let objects: Vec<*mut u8> = (0..4096).map(|_| heap.take_one(class).0).collect();
        let free: Vec<*mut u8> = objects
            .into_iter()
            .enumerate()
            .filter_map(|(at, object)| (at % 32 != 0).then_some(object))
            .collect();
        for batch in free.chunks(64) {
            // SAFETY: the objects were handed out above, and each is given back once.
            unsafe { heap.give(class, batch) };
        }
        for _ in 0..12 {
            grow(&heap, class, 4);
        }
        assert_eq!(heap.wanted.pause.load(Relaxed), LONGEST_PAUSE);
        // The first, third and seventh looked, and of the pause after that five growths are over.
        assert_eq!(heap.wanted.left.load(Relaxed), LONGEST_PAUSE - 5);
        assert_eq!(purged(&heap, class), 0);
    }
}
