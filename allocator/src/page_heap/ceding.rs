//! Address space for records where the system gives no more: a part of a free run is given up for it.
//!
//! Under a limit on address space (`ulimit -v`, strict accounting of memory) large blocks may have taken all there is. When they
//! are free and short ones follow, these need records and bitmaps, and without room for them a run cannot be cut and a span
//! has 64 objects at most: of 297 MiB that 1 MiB blocks had left, 48-byte blocks could use 22. A ceded part is a hole from then on, like what
//! others had mapped before the heap came to it. Its pages become those of the records, which a limit below what is mapped already allows,
//! too, as nothing is mapped anew; where that is refused, they are unmapped and the system is asked again.

use super::{Inner, PageHeap};
use crate::metadata::Section;
use crate::os::Os;
use crate::span::State;
use crate::units::{page_bytes, pages_for};

/// Pages that are given up at once: records and bitmaps of the smallest blocks are a thirtieth of what they describe.
const CEDED_PAGES: usize = pages_for(128 << 10);
/// Times in a row that nothing could be made of what was given up, after which nothing is: it is not for its place that the system
/// refuses.
const MAX_IN_VAIN: u32 = 3;

impl Inner {
    /// What `make` makes of memory for records in `section`, tried once more with free pages if there is no memory.
    pub(super) fn or_cede<O: Os, R>(
        &mut self,
        heap: &PageHeap<O>,
        section: impl Fn(&mut Self) -> &mut Section,
        mut make: impl FnMut(&mut Self) -> Option<R>,
    ) -> Option<R> {
        let made = make(self);
        if made.is_some() || self.ceded_in_vain >= MAX_IN_VAIN || !self.cede(heap, section) {
            return made;
        }
        let made = make(self);
        self.ceded_in_vain = if made.is_some() {
            0
        } else {
            self.ceded_in_vain + 1
        };
        made
    }

    /// Gives the start of a long free run, one that is not resident rather, to a section, or unmaps it. False: there is none, or the system
    /// refuses.
    #[cold]
    #[inline(never)]
    fn cede<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        section: impl Fn(&mut Self) -> &mut Section,
    ) -> bool {
        let id = match self.clean.longest() {
            0 => self.dirty.longest(),
            id => id,
        };
        if id == 0 {
            return false;
        }
        let table = self.table(heap);
        // SAFETY: the number came from the free lists, so the pages are nobody's; the record is ours once it is in no list.
        unsafe {
            let run = table.get(id);
            let (start, pages) = ((*run).start, (*run).pages.min(CEDED_PAGES as u32));
            let (address, bytes) = (heap.map.address(start) as usize, page_bytes(pages as usize));
            let section = section(self);
            let handed_over = section.next(bytes).is_some_and(|to| {
                let zero = (*run).state == State::FreeClean || heap.os.purge(address, bytes);
                zero && heap.os.hand_over(address, to, bytes)
            });
            if handed_over {
                section.lengthen(bytes);
            } else if !heap.os.unmap(address, bytes) {
                return false;
            }
            self.unlist(table, run);
            heap.map.forget(start, pages);
            self.holes += pages as usize;
            if pages == (*run).pages {
                self.drop_record(run);
            } else {
                (*run).start += pages;
                (*run).pages -= pages;
                heap.map.set_ends(run);
                let state = (*run).state;
                self.lists_of(state).insert(table, run);
            }
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::{Block, Heap};
    use crate::os::fake::{Call, FakeOs};
    use crate::size_class::class_of;
    use core::sync::atomic::Ordering::Relaxed;

    const LIMIT: usize = 64 << 20;
    const LARGE: usize = 1 << 20;

    /// A heap that may map no more, all of which large blocks had.
    fn exhausted() -> Box<Heap<FakeOs>> {
        let heap = Box::new(Heap::new(FakeOs::new(256 << 20)));
        heap.pages.os.limit.store(LIMIT, Relaxed);
        let blocks: Vec<*mut u8> = core::iter::repeat_with(|| heap.allocate_large(LARGE, 1).0)
            .take_while(|block| !block.is_null())
            .collect();
        assert!(blocks.len() * LARGE > LIMIT / 10 * 9, "{}", blocks.len());
        let os = &heap.pages.os;
        os.limit.store(os.mapped.load(Relaxed), Relaxed);
        for block in blocks {
            let Block::Large(span) = heap.block_of(block) else {
                panic!("large");
            };
            // SAFETY: the block is ours and not used any more.
            unsafe { heap.pages.free(span) };
        }
        heap
    }

    /// The objects of a class that the heap still has room for.
    fn all_objects(heap: &Heap<FakeOs>, class: usize) -> Vec<*mut u8> {
        core::iter::repeat_with(|| heap.take_one(class).0)
            .take_while(|object| !object.is_null())
            .collect()
    }

    #[test]
    fn short_blocks_use_what_large_ones_have_left_at_a_limit() {
        // At a limit without and with pages that can be handed over, and far below what is mapped.
        for (refused, limit) in [(true, usize::MAX), (false, usize::MAX), (false, LIMIT / 8)] {
            for size in [16, 48, 208] {
                let heap = exhausted();
                heap.pages.os[Call::HandOver].allow(if refused { 0 } else { usize::MAX });
                heap.pages.os.limit.fetch_min(limit, Relaxed);
                let class = class_of(size).expect("small");
                let objects = all_objects(&heap, class);
                let bytes = objects.len() * size;
                assert!(bytes > LIMIT / 10 * 9, "{size}: {bytes} bytes of {LIMIT}");
                let walk = heap.check_invariants();
                assert!(walk.holes > 0);
                // SAFETY: the objects are ours, each is given back once.
                unsafe { heap.give(class, &objects) };
                heap.trim(0);
                let large = core::iter::repeat_with(|| heap.allocate_large(LARGE, 1).0)
                    .take_while(|block| !block.is_null())
                    .count();
                assert!(large * LARGE > LIMIT / 10 * 8, "{size}: {large} after that");
                heap.check_invariants();
            }
        }
    }

    #[test]
    fn a_system_that_unmaps_nothing_leaves_the_heap_as_it_was() {
        let heap = exhausted();
        heap.pages.os[Call::Unmap].allow(0);
        heap.pages.os[Call::HandOver].allow(0);
        all_objects(&heap, class_of(48).expect("small"));
        assert_eq!(heap.check_invariants().holes, 0);
    }

    #[test]
    fn a_system_that_maps_nothing_whatever_is_given_up_gets_little() {
        let heap = exhausted();
        heap.pages.os[Call::HandOver].allow(0);
        heap.pages.os.limit.store(0, Relaxed);
        all_objects(&heap, class_of(48).expect("small"));
        let holes = heap.check_invariants().holes;
        assert_eq!(holes, MAX_IN_VAIN as usize * CEDED_PAGES);
    }
}
