//! The page map: from any address to its size class (one byte a page) and its span (a 32-bit
//! number a page), and the layout of our address space.
//!
//! One range of address space is planned at start and mapped piece by piece:
//!
//! ```text
//! base: | <- span numbers | early | classes -> | <- span records | metadata -> | heap -> ................ |
//! ```
//!
//! Numbers and records grow downwards, so that they share their first page with what follows, and the first thread cache lies between
//! the first numbers and classes: a small program has all its records in two pages.
//!
//! Planning costs nothing: nothing is reserved, pieces are mapped when the heap grows, so address
//! space limits and `mlockall` see only what is used. The heap's start and mapped length lie in
//! one cache line with the map's address; the range check is also the test for foreign pointers.
//!
//! Invariants: P1 all pages of a small span carry its number and class; first and last page of
//! every other span carry its number; a page outside small spans has class 0. P2 entries are
//! written before any pointer into the span escapes. P3 the class map has an entry for the page
//! behind the end of the heap, and it is 0.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicUsize};

use crate::lookup::Lookup;
use crate::plant::{Plant, planted};
use crate::span::{Span, SpanTable};
use crate::units::{ARENA_PAGES, DETECT, PAGE_SHIFT, page_bytes, round_up};
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::Ordering;

/// Where the parts of the planned range begin.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Lowest address for span numbers, 4 bytes a page, downwards from [`NUMBERS_SKIP`] behind `classes`.
    pub numbers: usize,
    /// Classes, 1 byte a page, behind [`CLASSES_SKIP`] bytes, of which those from [`NUMBERS_SKIP`] on are for early records.
    pub classes: usize,
    /// Lowest address for span records, downwards from [`RECORDS_SKIP`] behind `metadata`.
    pub spans: usize,
    /// Bitmaps, thread caches and their places, behind [`RECORDS_SKIP`] bytes.
    pub metadata: usize,
    /// The heap.
    pub heap: usize,
    /// First address behind the heap.
    pub end: usize,
}

impl Plan {
    /// The plan for a heap of up to `reach` bytes (a multiple of 64 MiB) at `base`.
    #[must_use]
    pub fn new(base: usize, reach: usize) -> Self {
        let unit = 64 << 10;
        let pages = reach >> PAGE_SHIFT;
        let numbers = base;
        let classes = round_up(numbers + pages * size_of::<u32>(), unit);
        let spans = round_up(classes + CLASSES_SKIP + pages + 1, unit);
        let metadata = round_up(spans + (pages + 1024) * size_of::<Span>(), unit);
        // 1/64 of the heap: bitmaps are at most 1/64 of it, thread caches are kilobytes.
        let heap = round_up(metadata + reach / 64 + (4 << 20), page_bytes(ARENA_PAGES));
        Self {
            numbers,
            classes,
            spans,
            metadata,
            heap,
            end: heap + reach,
        }
    }

    /// Bytes of address space that a plan for `reach` needs.
    #[must_use]
    pub fn total(reach: usize) -> usize {
        Self::new(0, reach).end
    }
}

/// Bytes before early records in the class map's first page; the first span numbers are there, those of 2.75 MiB.
pub(crate) const NUMBERS_SKIP: usize = 22 * 64;

/// Bytes before the class map in that page. The first objects of spans are at the starts of pages; with the class map's first
/// entries and the first thread cache there too, pairs of malloc and free took 4.6 to 11 ns from process to process, and 5.2 to 6.8
/// with them apart (`micro pair` on an EPYC of family 25). The likely cause is the way prediction of
/// the first cache, which sees no difference between such lines.
pub(crate) const CLASSES_SKIP: usize = NUMBERS_SKIP + 30 * 64;

/// Bytes before the metadata in its first page; the first span records are there.
pub(crate) const RECORDS_SKIP: usize = 32 * 64;

/// The map itself. All fields are set once, except `words`, which grows.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PageMap {
    base: AtomicUsize,
    /// Length of the heap in the unit of [`position`].
    words: AtomicUsize,
    classes: AtomicPtr<AtomicU8>,
    numbers: AtomicPtr<AtomicU32>,
    spans: AtomicPtr<Span>,
}

/// The place of an offset from the heap's start, in words of 8 bytes; beyond any heap for one that is no multiple of 8, as
/// its low bits are rotated to the top. That makes one comparison of two tests. (Without detection: in pages.)
#[inline(always)]
const fn position(offset: usize) -> usize {
    if DETECT {
        offset.rotate_right(3)
    } else {
        offset >> PAGE_SHIFT
    }
}

/// What a position is shifted by to become a page.
const POSITION_SHIFT: u32 = if DETECT { PAGE_SHIFT - 3 } else { 0 };

/// The map's fields as they were at some moment, for loops: the compiler reads atomics anew each time.
/// Right for every block that had been handed out by then.
#[derive(Clone, Copy, Debug)]
pub struct View {
    base: usize,
    words: usize,
    numbers: *const AtomicU32,
    table: SpanTable,
}

/// The number of `page` in a map whose page 0 has its number just before `numbers`.
///
/// # Safety
/// The map is mapped for the page.
#[inline(always)]
unsafe fn number_at<'a>(numbers: *const AtomicU32, page: usize) -> &'a AtomicU32 {
    // SAFETY: the caller's duty.
    unsafe { &*numbers.sub(page + 1) }
}

impl View {
    /// The span whose number the page of `addr` carries, `None` for an address at which no block starts.
    /// It may be an old number: compare with the record.
    #[inline(always)]
    #[must_use]
    pub fn span_at(&self, addr: usize) -> Option<*mut Span> {
        let words = position(addr.wrapping_sub(self.base));
        if words >= self.words {
            return None;
        }
        let page = words >> POSITION_SHIFT;
        // SAFETY: the page is in the heap, for which the map is mapped; record 0 is, too.
        unsafe {
            let number = number_at(self.numbers, page).load(Ordering::Relaxed);
            Some(self.table.get(number))
        }
    }

    /// Address of a page.
    #[inline(always)]
    #[must_use]
    pub fn address(&self, page: u32) -> usize {
        self.base + page_bytes(page as usize)
    }
}

impl PageMap {
    /// The map as it is now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            words: self.words(),
            base: self.base(),
            numbers: self.numbers.load(Ordering::Relaxed),
            table: self.table(),
        }
    }

    /// Tells the map, and the process's `lookup` if it is its map, where everything will be. Only the class map's first
    /// byte must be mapped.
    pub fn set_plan(&self, plan: &Plan, lookup: Option<&Lookup>) {
        let first = plan.metadata + RECORDS_SKIP - size_of::<Span>();
        self.set_places(
            plan.heap,
            with_exposed_provenance_mut(plan.classes + CLASSES_SKIP),
            with_exposed_provenance_mut(plan.classes + NUMBERS_SKIP),
            with_exposed_provenance_mut(first),
            lookup,
        );
    }

    /// [`PageMap::set_plan`] by places: the heap, the class of its first page, the first byte behind the number of its first
    /// page, and the span record number 0.
    pub fn set_places(
        &self,
        heap: usize,
        classes: *mut AtomicU8,
        numbers: *mut AtomicU32,
        spans: *mut Span,
        lookup: Option<&Lookup>,
    ) {
        self.classes.store(classes, Ordering::Relaxed);
        self.numbers.store(numbers, Ordering::Relaxed);
        self.spans.store(spans, Ordering::Relaxed);
        self.base.store(heap, Ordering::Release);
        if let Some(lookup) = lookup {
            lookup.set_plan(heap, classes);
        }
    }

    /// Makes the heap `pages` long if `map` can map what belongs to them: the map that far, the class map by one page more
    /// (P3), and the pages. Returns what `map` says, or that the heap has grown.
    ///
    /// # Errors
    /// What `map` says.
    pub fn extend<E>(
        &self,
        pages: usize,
        lookup: Option<&Lookup>,
        map: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let words = pages << POSITION_SHIFT;
        let publish = || {
            // Whoever sees the length sees what was mapped before.
            let order = if planted(Plant::LengthRelaxed) {
                Ordering::Relaxed
            } else {
                Ordering::Release
            };
            self.words.store(words, order);
            if let Some(lookup) = lookup {
                lookup.set_words(words);
            }
        };
        if planted(Plant::LengthFirst) {
            publish();
        }
        map()?;
        publish();
        Ok(())
    }

    /// The heap's length in the unit of [`position`], with what was mapped for it (a plain load on x86-64, and in that order,
    /// as the fast path's are).
    #[inline(always)]
    fn words(&self) -> usize {
        self.words.load(if planted(Plant::LookUpRelaxed) {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        })
    }

    /// Pages that the heap has grown to.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.words() >> POSITION_SHIFT
    }

    /// First address of the heap.
    #[must_use]
    pub fn base(&self) -> usize {
        self.base.load(Ordering::Relaxed)
    }

    /// Page of an address at which a block may start, `None` for a foreign address and for one that
    /// is no multiple of 8: its low bits, rotated to the top, are beyond any heap, which makes one
    /// comparison of both tests.
    #[inline(always)]
    #[must_use]
    pub fn page_of(&self, addr: usize) -> Option<usize> {
        let length = self.words();
        let words = position(addr.wrapping_sub(self.base()));
        (words < length).then_some(words >> POSITION_SHIFT)
    }

    /// The address lies in the heap, wherever a block may start.
    #[must_use]
    pub fn contains(&self, addr: usize) -> bool {
        self.page_of(addr & !7).is_some()
    }

    /// Class of a page, 0 when it is not part of a small span.
    ///
    /// # Safety
    /// `page` is below [`PageMap::pages`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn class_of_page(&self, page: usize) -> usize {
        // SAFETY: the class map is mapped for every page of the heap.
        unsafe {
            (*self.classes.load(Ordering::Relaxed).add(page)).load(Ordering::Relaxed) as usize
        }
    }

    /// Span number of a page, 0 when it never had one. Interior pages of large and free spans may
    /// carry old numbers: compare with the record's `start`.
    ///
    /// # Safety
    /// `page` is below [`PageMap::pages`].
    #[inline]
    #[must_use]
    pub unsafe fn number_of_page(&self, page: usize) -> u32 {
        // SAFETY: the number map is mapped for every page of the heap.
        unsafe { number_at(self.numbers.load(Ordering::Relaxed), page).load(Ordering::Relaxed) }
    }

    /// Record of the span that the page's number names, null for number 0.
    ///
    /// # Safety
    /// `page` is below [`PageMap::pages`].
    #[inline]
    #[must_use]
    pub unsafe fn span_of_page(&self, page: usize) -> *mut Span {
        // SAFETY: the caller's duty; numbers in the map have records.
        unsafe {
            match self.number_of_page(page) {
                0 => null_mut(),
                id => self.table().get(id),
            }
        }
    }

    /// The span records.
    #[inline]
    #[must_use]
    pub fn table(&self) -> SpanTable {
        SpanTable::new(self.spans.load(Ordering::Relaxed))
    }

    /// Address of a page.
    #[inline]
    #[must_use]
    pub fn address(&self, page: u32) -> *mut u8 {
        with_exposed_provenance_mut(self.base() + page_bytes(page as usize))
    }

    /// Writes a span's number to its first and last page.
    ///
    /// # Safety
    /// `span` is a live record whose pages the caller owns.
    pub unsafe fn set_ends(&self, span: *const Span) {
        let numbers = self.numbers.load(Ordering::Relaxed);
        // SAFETY: the pages of a span are in the heap.
        unsafe {
            let id = (*span).id;
            number_at(numbers, (*span).start as usize).store(id, Ordering::Relaxed);
            number_at(numbers, (*span).end() as usize - 1).store(id, Ordering::Relaxed);
        }
    }

    /// Writes a small span's number and class to all its pages.
    ///
    /// # Safety
    /// As [`PageMap::set_ends`].
    pub unsafe fn set_small(&self, span: *const Span) {
        let numbers = self.numbers.load(Ordering::Relaxed);
        let classes = self.classes.load(Ordering::Relaxed);
        // SAFETY: the pages of a span are in the heap.
        unsafe {
            for page in (*span).start as usize..(*span).end() as usize {
                number_at(numbers, page).store((*span).id, Ordering::Relaxed);
                (*classes.add(page)).store((*span).class, Ordering::Release);
            }
        }
    }

    /// Some free pages are the heap's no more: holes have no numbers.
    ///
    /// # Safety
    /// The pages are in the heap and the caller's.
    pub unsafe fn forget(&self, start: u32, pages: u32) {
        let numbers = self.numbers.load(Ordering::Relaxed);
        for page in start..start + pages {
            // SAFETY: the caller's duty.
            unsafe { number_at(numbers, page as usize) }.store(0, Ordering::Relaxed);
        }
    }

    /// Takes the class off all pages of a small span.
    ///
    /// # Safety
    /// As [`PageMap::set_ends`].
    pub unsafe fn clear_small(&self, span: *const Span) {
        let classes = self.classes.load(Ordering::Relaxed);
        // SAFETY: the pages of a span are in the heap.
        unsafe {
            for page in (*span).start as usize..(*span).end() as usize {
                (*classes.add(page)).store(0, Ordering::Release);
            }
        }
    }
}

macro_rules! constructor {
    ($($constant:ident)?) => {
        impl PageMap {
            /// A map that knows no page.
            #[must_use]
            pub $($constant)? fn new() -> Self {
                Self {
                    base: AtomicUsize::new(0),
                    words: AtomicUsize::new(0),
                    classes: AtomicPtr::new(null_mut()),
                    numbers: AtomicPtr::new(null_mut()),
                    spans: AtomicPtr::new(null_mut()),
                }
            }
        }
    };
}

#[cfg(not(loom))]
constructor!(const);

// Loom's atomics have no const constructor.
#[cfg(loom)]
constructor!();

impl Default for PageMap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::units::OS_PAGE;

    #[test]
    fn plan_parts_are_disjoint_and_in_order() {
        for reach in [64 << 20, 1 << 30, 1 << 40] {
            let plan = Plan::new(1 << 40, reach);
            let pages = reach >> PAGE_SHIFT;
            assert!(plan.numbers + pages * 4 <= plan.classes);
            assert!(NUMBERS_SKIP.is_multiple_of(128) && CLASSES_SKIP < OS_PAGE);
            assert!(plan.classes + CLASSES_SKIP + pages < plan.spans);
            assert!(plan.spans + pages * 64 <= plan.metadata);
            assert!(plan.metadata + reach / 64 <= plan.heap);
            assert_eq!(plan.end - plan.heap, reach);
            assert_eq!(plan.heap % (64 << 20), 0);
        }
    }

    #[test]
    fn an_empty_map_knows_no_address() {
        let map = PageMap::new();
        for addr in [0, 1, 4096, 1 << 40, usize::MAX] {
            assert_eq!(map.page_of(addr), None);
        }
    }
}
