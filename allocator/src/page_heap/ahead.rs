//! Pages made resident before they are written to.
//!
//! The first write to a kernel page is a fault, and where the heap runs on small pages a growing program has one for each. A call that
//! does the same for several pages spares the exceptions, not the kernel's work on the pages: a third of the time. So when
//! objects that were never handed out leave a span, the pages up to the last of them are populated in one call, up to a multiple of
//! a unit that is a small part of what the class has: in vain is at most a unit of the span that the class grows into. (A trim
//! leaves that, as it takes what was never handed out for not resident.)
//!
//! It is only done for objects that are written to as a whole as a rule, and where there is no huge page. What is populated is zero
//! as before, and belongs to a span in use: no state of any run changes.

use super::{Inner, PageHeap};
use crate::os::Os;
use crate::span::Span;
use crate::units::OS_PAGE;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// `populate`: 1 populates, 0 does not.
pub static ENABLED: AtomicU32 = AtomicU32::new(1);

/// The unit is this part of what the class has, rounded down to a power of two ...
const UNIT_SHARE: usize = 256;
/// ... up to this: longer calls save little more. Below a kernel page nothing is populated.
const MAX_UNIT: usize = 16 << 10;
/// Of longer objects the end is often never written to: buffers, and blocks that grow.
const MAX_SIZE: usize = 8 << 10;
/// Refusals in a row after which the system is not asked again: Linux before 5.14 always refuses.
const MAX_REFUSALS: u32 = 3;

/// What the page heap remembers of it.
#[derive(Debug)]
pub struct Ahead {
    /// Refusals since the last success.
    refusals: u32,
}

impl Ahead {
    /// Nothing refused yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { refusals: 0 }
    }
}

impl Default for Ahead {
    fn default() -> Self {
        Self::new()
    }
}

/// Addresses in a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    start: usize,
    bytes: usize,
}

impl Stretch {
    /// What to populate of `span` now that [`Span::fresh`] has risen from `before`, if anything; its class has so many bytes in spans.
    pub(crate) fn of_new_objects(span: &Span, before: u16, class_bytes: usize) -> Self {
        let share = class_bytes / UNIT_SHARE;
        let size = span.size();
        if share < OS_PAGE || size > MAX_SIZE || span.needzero || ENABLED.load(Relaxed) == 0 {
            return Self::default();
        }
        let unit = (1 << share.ilog2()).min(MAX_UNIT);
        let [from, to] = [before, span.fresh()]
            .map(|objects| (usize::from(objects) * size).next_multiple_of(unit));
        let end = (usize::from(span.objects) * size).next_multiple_of(OS_PAGE);
        Self {
            start: span.origin + from,
            bytes: to.min(end).saturating_sub(from),
        }
    }
}

impl Inner {
    /// Whether it makes sense to ask the system for the stretch.
    fn may_populate<O: Os>(&self, heap: &PageHeap<O>, stretch: Stretch) -> bool {
        let offset = stretch.start - heap.map.base();
        self.ahead.refusals < MAX_REFUSALS && !self.huge.holds(offset, stretch.bytes)
    }
}

impl<O: Os> PageHeap<O> {
    /// Makes a stretch resident. No lock is held meanwhile: its contents stay what they are, whoever uses it.
    pub(crate) fn populate(&self, stretch: Stretch) {
        if stretch.bytes > 0 && self.inner.lock().may_populate(self, stretch) {
            let done = self.os.populate(stretch.start, stretch.bytes);
            let mut inner = self.inner.lock();
            if done {
                inner.ahead.refusals = 0;
                inner.counters.populated_bytes += stretch.bytes as u64;
            } else {
                inner.ahead.refusals += 1;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::Heap;
    use crate::os::fake::{Call, FakeOs};
    use crate::size_class::{MAX_BATCH, class_of, size_of_class, span_pages};
    use crate::units::{PAGE_SIZE, pages_for};

    fn heap() -> Box<Heap<FakeOs>> {
        Box::new(Heap::new(FakeOs::new(64 << 20)))
    }

    /// Takes objects of `size` as a thread cache does, `bytes` of them and a batch at most.
    fn take(heap: &Heap<FakeOs>, size: usize, bytes: usize) -> Vec<*mut u8> {
        let class = class_of(size).expect("small");
        let mut objects = Vec::new();
        while objects.len() * size_of_class(class) < bytes {
            let mut batch = [core::ptr::null_mut(); MAX_BATCH];
            let got = heap.refill(class, 1, &mut batch[..(32 << 10) / size.max(1 << 10)]);
            assert!(got > 0);
            objects.extend_from_slice(&batch[..got]);
        }
        objects
    }

    fn asked(heap: &Heap<FakeOs>) -> Vec<(usize, usize)> {
        let asked = heap.pages.os.populates.lock();
        asked.expect("no test panics in there").clone()
    }

    #[test]
    fn a_class_that_grows_is_populated_up_to_a_unit_behind_what_it_handed_out() {
        let odd = |&class: &usize| span_pages(class, pages_for(4 << 20)) % 2 == 1;
        let classes = 1..class_of(MAX_SIZE).expect("small");
        // A class whose spans are no multiple of the unit.
        let other = size_of_class(classes.rev().find(odd).expect("some"));
        for size in [512, other] {
            let heap = heap();
            let mut objects = take(&heap, size, (1 << 20) - (256 << 10));
            assert_eq!(asked(&heap), [], "a small class is left alone");
            objects.extend(take(&heap, size, 6 << 20));
            let asked = asked(&heap);
            let all: usize = asked.iter().map(|&(_, bytes)| bytes).sum();
            assert!(all > 5 << 20, "{all}");
            let map = &heap.pages.map;
            for &(start, bytes) in &asked {
                let page = map.page_of(start).expect("a page of the heap");
                // SAFETY: the heap has grown past the page, which is a span's.
                let span = unsafe { &*map.span_of_page(page) };
                let inside = span.start as usize..=span.end() as usize;
                assert!(inside.contains(&((start + bytes - map.base()).div_ceil(PAGE_SIZE))));
            }
            let in_vain = in_vain(&asked, &mut objects);
            assert!(in_vain * OS_PAGE < MAX_UNIT, "{in_vain} pages");
            let counters = heap.pages.inner.lock().counters;
            assert_eq!(counters.populated_bytes as usize, all);
            heap.check_invariants();
        }
    }

    /// How many pages of the stretches, of which none is to be there twice, have no part of an object.
    fn in_vain(asked: &[(usize, usize)], objects: &mut [*mut u8]) -> usize {
        objects.sort_unstable();
        let mut pages: Vec<usize> = Vec::new();
        for &(start, bytes) in asked {
            pages.extend((start..start + bytes).step_by(OS_PAGE));
        }
        let calls = pages.len();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), calls, "no page twice");
        let unused = pages.iter().filter(|&&page| {
            let next = objects.partition_point(|&object| (object as usize) < page);
            let begins = objects
                .get(next)
                .is_some_and(|&object| (object as usize) < page + OS_PAGE);
            let goes_on = next > 0 && objects[next - 1] as usize + OS_PAGE > page;
            !begins && !goes_on
        });
        unused.count()
    }

    #[test]
    fn what_is_populated_is_still_known_to_be_zero() {
        let heap = heap();
        take(&heap, 4096, 5 << 20);
        let (start, bytes) = *asked(&heap).last().expect("some");
        // Up to the end of the stretch and of its span.
        for _ in 0..64 {
            let (object, zero) = heap.take_one(class_of(4096).expect("small"));
            assert!(zero, "{object:p} {start:x} {bytes}");
            // SAFETY: the object is ours.
            let bytes = unsafe { core::slice::from_raw_parts(object, 4096) };
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn long_objects_used_pages_and_huge_pages_are_not_populated() {
        let heap = heap();
        take(&heap, MAX_SIZE + 1, 4 << 20);
        assert_eq!(asked(&heap), []);
        // Resident pages of another class.
        let class = class_of(MAX_SIZE + 1).expect("small");
        let objects = take(&heap, MAX_SIZE + 1, 2 << 20);
        // SAFETY: the objects are ours.
        objects
            .chunks(MAX_BATCH)
            .for_each(|batch| unsafe { heap.give(class, batch) });
        heap.central(class).trim(&heap.pages);
        take(&heap, 1024, 3 << 19);
        assert_eq!(asked(&heap), []);
        take(&heap, 1024, 40 << 20);
        let populated = asked(&heap);
        assert!(!populated.is_empty());
        let collapses = heap
            .pages
            .os
            .collapses
            .lock()
            .expect("no test panics in there");
        assert!(collapses.len() > 10);
        // From about 32 MiB on a range is on a huge page before anything of it is handed out.
        for &(range, bytes) in &collapses[collapses.len() - 3..] {
            let inside = |&(start, _): &(usize, usize)| (range..range + bytes).contains(&start);
            assert!(!populated.iter().any(inside), "{range:x}");
        }
    }

    #[test]
    fn a_system_that_refuses_is_not_asked_for_ever_and_nothing_else_changes() {
        let heap = heap();
        heap.pages.os[Call::Populate].allow(0);
        let mut objects = take(&heap, 512, 6 << 20);
        assert_eq!(asked(&heap).len(), MAX_REFUSALS as usize);
        assert_eq!(heap.pages.inner.lock().counters.populated_bytes, 0);
        let taken = objects.len();
        objects.sort_unstable();
        objects.dedup();
        assert_eq!(objects.len(), taken);
        heap.check_invariants();
    }
}
