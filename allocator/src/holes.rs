//! Memory inside spans that are partly used: kernel pages on which every object is free go back to
//! the system although the span stays.
//!
//! One long-lived object in a hundred keeps a whole span; without this most of what a program freed
//! would stay resident. Free objects hold nothing that is needed (the bitmap says which they are),
//! so giving their pages back needs no record for correctness: an object that is handed out again
//! is a page fault. Only classes at rest are worth it, so this runs on request, from the helper, and, for a few classes
//! that nobody has wanted an object of lately, before pages are put to use that are not resident: a program that goes on with
//! other sizes than before lives on what it left behind, as far as it left whole pages.

mod wanted;

pub(crate) use wanted::Wanted;

use crate::central::{Central, Inner};
use crate::heap::Heap;
use crate::joining::Free;
use crate::os::Os;
use crate::page_heap::PageHeap;
use crate::scavenger::{DECAY_MS, timed};
use crate::size_class::NUM_CLASSES;
use crate::span::{LOOKED_AT, Span};
use crate::units::{OS_PAGE, page_bytes, round_up};
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

/// Spans that are purged before the class's lock is given to others for a moment.
const SPANS_AT_ONCE: usize = 16;

/// Classes that are looked at before fresh pages are put to use ...
const CLASSES_FOR_FRESH: usize = 8;
/// ... spans of one of them that give something back then, ...
const SPANS_FOR_FRESH: usize = 64;
/// ... out of so many, which are those that changed last, as the others were looked at before, ...
const LOOKS_FOR_FRESH: usize = 256;
/// ... until this many times as much as will be put to use has been given back.
const GIVEN_FOR_FRESH: usize = 4;
/// A class that had nothing left to give is looked at again when about so many more of its objects have been freed: where one
/// in a kernel page is left, each is a page.
const FREED_UNIT: usize = 16;
/// In [`Central::seen`] the lowest bit. Above it are seven bits of how many objects had been taken back, in such units, and eight of how many
/// objects had been handed out: enough to see a change, and if one is missed a class is purged once that is in use.
const NOTHING_LEFT: u16 = 1;

impl<O: Os> Heap<O> {
    /// To be called before `pages` that are not resident are put to use: of the next few classes, those that nobody has
    /// wanted an object of since they were looked at last give back about as much inside their spans.
    pub(crate) fn purge_unwanted(&self, pages: usize) {
        if DECAY_MS.load(Relaxed) < 0 {
            return;
        }
        let enough = GIVEN_FOR_FRESH * page_bytes(pages) / OS_PAGE;
        let mut given = 0;
        let mut class = self.looked.load(Relaxed);
        for _ in 0..CLASSES_FOR_FRESH {
            class = if class + 1 < NUM_CLASSES {
                class + 1
            } else {
                1
            };
            if !self.central(class).is_dry() {
                let (pages, left) = self.central(class).purge_unwanted(&self.pages, class);
                given += pages;
                if let Some(free) = left {
                    self.note_unwanted(class, free);
                }
            }
            if given >= enough {
                break;
            }
        }
        self.looked.store(class, Relaxed);
        self.purge_wanted(pages, given);
    }
}

impl Central {
    /// Unless objects were handed out since the last look, gives the span that is kept to the page heap and some holes to
    /// the system. Returns the kernel pages that the holes had, and what is left in that case.
    fn purge_unwanted<O: Os>(&self, heap: &PageHeap<O>, class: usize) -> (usize, Option<Free>) {
        let mut inner = self.inner.lock();
        let freed = inner.taken_back as usize / FREED_UNIT;
        let seen = self.seen.load(Relaxed);
        let mut now = inner.wanted() << 8 | (freed as u16 & 0x7f) << 1;
        if !self.is_unwanted(&inner) {
            self.seen.store(now, Relaxed);
            return (0, None);
        }
        let mut pages = 0;
        if seen != now | NOTHING_LEFT {
            inner.retire_kept(heap);
            self.publish(&inner);
            let more;
            let mut looks = LOOKS_FOR_FRESH;
            (pages, more) = inner.purge_some(heap, SPANS_FOR_FRESH, usize::MAX, &mut looks);
            if !more {
                now |= NOTHING_LEFT;
            }
            self.seen.store(now, Relaxed);
        }
        let given = inner.purged_pages as usize * OS_PAGE;
        let free = Free {
            bytes: inner.free_bytes(class).saturating_sub(given),
            taken_back: inner.taken_back as u32,
        };
        (pages, Some(free))
    }

    /// No objects were handed out since the class was looked at last, as far as eight bits tell.
    pub(crate) fn is_unwanted(&self, inner: &Inner) -> bool {
        self.seen.load(Relaxed) >> 8 == inner.wanted()
    }

    /// What was handed out until now does not count as wanted.
    pub(crate) fn see_handed_out(&self, inner: &Inner) {
        let others = self.seen.load(Relaxed) & 0xff;
        self.seen.store(inner.wanted() << 8 | others, Relaxed);
    }

    /// Gives back whole kernel pages of free objects in all partly used spans that have not been
    /// looked at since an object last came or went. Returns the bytes given back.
    pub fn purge_holes<O: Os>(&self, heap: &PageHeap<O>) -> usize {
        let mut bytes = 0;
        loop {
            let mut inner = self.inner.lock();
            let mut looks = usize::MAX;
            let (pages, more) = inner.purge_some(heap, SPANS_AT_ONCE, usize::MAX, &mut looks);
            bytes += pages * OS_PAGE;
            if !more {
                return bytes;
            }
        }
    }
}

impl Inner {
    /// Purges spans that have changed since they were looked at, the emptiest first, until so many `spans` or `enough` kernel pages were
    /// given back, the system refuses, or none of the `looks` is left; kernel pages given back, and whether there may be more to do.
    #[inline(never)]
    fn purge_some<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        mut spans: usize,
        enough: usize,
        looks: &mut usize,
    ) -> (usize, bool) {
        let table = heap.map.table();
        let mut pages = 0;
        for list in self.lists.into_iter().rev() {
            let mut id = list.head;
            while id != 0 {
                if *looks == 0 {
                    return (pages, false);
                }
                *looks -= 1;
                // SAFETY: numbers in the lists have records; we hold the class's lock.
                unsafe {
                    let span = table.get(id);
                    id = (*span).next;
                    if (*span).purged != 0 {
                        continue;
                    }
                    let (given, refused) = self.purge(heap, span);
                    pages += given;
                    spans -= usize::from(given > 0);
                    if refused || spans == 0 || pages >= enough {
                        return (pages, !refused);
                    }
                }
            }
        }
        (pages, false)
    }

    /// Purges a span of the class; as [`purge_span`].
    ///
    /// # Safety
    /// The span is of this class, whose lock is held.
    unsafe fn purge<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) -> (usize, bool) {
        // SAFETY: the caller's duty.
        unsafe {
            let (given, refused) = purge_span(heap, &*span);
            (*span).purged = if given > 0 { given as u8 } else { LOOKED_AT };
            // The next object that comes is noticed.
            let available = (*span).available();
            Span::set_notice(span, available as u16, available);
            self.purged_pages += given as u32;
            (given, refused)
        }
    }

    /// What the class has handed out in all, as [`Central::seen`] remembers it.
    fn wanted(&self) -> u16 {
        self.handed_out as u16 & 0xff
    }

    /// An object of the span comes or goes: what was given back is not known any more.
    ///
    /// # Safety
    /// The span is of this class, whose lock is held.
    #[inline]
    pub(crate) unsafe fn disturb(&mut self, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            if (*span).purged != 0 {
                self.purged_pages -= (*span).given_back();
                (*span).purged = 0;
            }
        }
    }
}

/// Gives back the kernel pages of `span` that hold nothing but free objects; their number, and
/// whether the system refused one.
fn purge_span<O: Os>(heap: &PageHeap<O>, span: &Span) -> (usize, bool) {
    let base = heap.map.address(span.start) as usize;
    // What was never handed out is resident only if the span's pages were used before.
    let touched = if span.needzero {
        span.objects
    } else {
        span.fresh()
    } as usize;
    let mut given = 0;
    // A kernel page takes so many objects, or one less at the span's end, behind which nothing is.
    if !span.may_have_run(OS_PAGE.div_ceil(span.size()) - 1) {
        return (0, false);
    }
    let mut object = 0;
    while let Some(first) = span.next_object::<true>(object, touched) {
        object = span.next_object::<false>(first, touched).unwrap_or(touched);
        let hole = whole_pages(span, first, object);
        if !hole.is_empty() {
            if !timed(&heap.os, |os| os.purge(base + hole.start, hole.len())) {
                return (given, true);
            }
            given += hole.len() / OS_PAGE;
        }
    }
    (given, false)
}

/// The bytes of the span that are whole kernel pages of the objects from `first` to before `end`, which are free.
fn whole_pages(span: &Span, first: usize, end: usize) -> Range<usize> {
    let size = span.size();
    // Behind the last object there is nothing.
    let to = if end == span.objects as usize {
        span.bytes()
    } else {
        end * size / OS_PAGE * OS_PAGE
    };
    round_up(first * size, OS_PAGE)..to
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::os::fake::{Call, FakeOs};
    use crate::size_class::{class_of, size_of_class};

    const SIZE: usize = 2048;

    fn heap() -> (Box<Heap<FakeOs>>, usize) {
        let heap = Box::new(Heap::new(FakeOs::new(256 << 20)));
        (heap, class_of(SIZE).expect("small"))
    }

    /// Takes `count` objects, each filled with its number, and gives all but each 20th back to their spans; those.
    fn scatter(heap: &Heap<FakeOs>, class: usize, count: usize) -> Vec<*mut u8> {
        let objects: Vec<*mut u8> = (0..count).map(|_| heap.take_one(class).0).collect();
        let (mut kept, mut free) = (Vec::new(), Vec::new());
        for (number, &object) in objects.iter().enumerate() {
            // SAFETY: the object is ours.
            unsafe { object.write_bytes(number as u8, size_of_class(class)) };
            if number % 20 == 7 {
                kept.push(object);
            } else {
                free.push(object);
            }
        }
        for batch in free.chunks(16) {
            // SAFETY: the objects were handed out above, and each is given back once.
            unsafe { heap.give(class, batch) };
        }
        kept
    }

    /// Puts as many fresh pages to use as it takes to look at all classes `times` times; `between` is called beside each.
    fn grow(heap: &Heap<FakeOs>, times: usize, mut between: impl FnMut()) {
        for _ in 0..times * NUM_CLASSES.div_ceil(CLASSES_FOR_FRESH) {
            assert!(!heap.allocate_large(256 << 10, 1).0.is_null());
            between();
        }
    }

    fn purged(heap: &Heap<FakeOs>, class: usize) -> usize {
        heap.central(class).inner.lock().purged_pages as usize * OS_PAGE
    }

    #[test]
    fn a_class_that_nobody_wants_gives_holes_back_before_fresh_pages_are_put_to_use() {
        let (heap, class) = heap();
        let kept = scatter(&heap, class, 4_000);
        let held = heap.central(class).bytes();
        assert_eq!(purged(&heap, class), 0, "nothing has grown");
        grow(&heap, 36, || ());
        let given = purged(&heap, class);
        assert!(given > held / 2, "{given} of {held} bytes given back");
        for (index, &object) in kept.iter().enumerate() {
            // SAFETY: the survivor is live.
            let bytes = unsafe { core::slice::from_raw_parts(object, SIZE) };
            assert!(bytes.iter().all(|&byte| byte == (index * 20 + 7) as u8));
        }
        // Nothing has changed, so there is nothing to look for.
        let purges = heap.pages.os[Call::Purge].made();
        grow(&heap, 4, || ());
        assert_eq!(heap.pages.os[Call::Purge].made(), purges);
        heap.check_invariants();
    }

    #[test]
    fn where_few_objects_are_left_each_that_goes_is_noticed() {
        let (heap, _) = heap();
        let class = class_of(256).expect("small");
        let kept = scatter(&heap, class, 8_000);
        grow(&heap, 36, || ());
        let given = purged(&heap, class);
        // Two kernel pages in all, but nearly each was the last one on its page.
        let gone: Vec<*mut u8> = kept.iter().copied().step_by(12).collect();
        for batch in gone[..32].chunks(16) {
            // SAFETY: as in `scatter`.
            unsafe { heap.give(class, batch) };
        }
        grow(&heap, 3, || ());
        let now = purged(&heap, class);
        assert!(now > given + 16 * OS_PAGE, "{given}, then {now} bytes");
        heap.check_invariants();
    }

    #[test]
    fn a_class_in_use_keeps_its_pages() {
        let (heap, class) = heap();
        let kept = scatter(&heap, class, 4_000);
        grow(&heap, 6, || {
            assert!(!heap.take_one(class).0.is_null());
        });
        assert_eq!(purged(&heap, class), 0);
        assert!(!kept.is_empty());
        heap.check_invariants();
    }

    #[test]
    fn a_refused_purge_changes_nothing() {
        let (heap, class) = heap();
        scatter(&heap, class, 4_000);
        heap.pages.os[Call::Purge].allow(0);
        grow(&heap, 6, || ());
        assert_eq!(purged(&heap, class), 0, "the system refused all");
        heap.check_invariants();
    }

    #[test]
    fn the_free_span_that_is_kept_goes_when_nobody_wants_the_class() {
        let (heap, class) = heap();
        let objects: Vec<*mut u8> = (0..64).map(|_| heap.take_one(class).0).collect();
        for batch in objects.chunks(16) {
            // SAFETY: as in `scatter`.
            unsafe { heap.give(class, batch) };
        }
        assert!(heap.central(class).bytes() > 0, "one is kept");
        grow(&heap, 3, || ());
        assert_eq!(heap.central(class).bytes(), 0);
        heap.check_invariants();
    }
}
