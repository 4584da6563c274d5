//! Runs of pages: best fit, cutting, joining.

use super::{Inner, PageHeap, Use, moving};
use crate::os::Os;
use crate::run_lists::RunLists;
use crate::size_class::objects_in;
use crate::span::{NO_LIST, Span, SpanTable, State};
use crate::units::{pages_for, round_up};
use core::ptr::null_mut;

/// Blocks that grow from this length on get fresh pages with room behind rather than a resident run without.
const ROOMY_FRESH: usize = pages_for(32 << 10);

impl Inner {
    pub(crate) fn table<O>(&self, heap: &PageHeap<O>) -> SpanTable {
        heap.map.table()
    }

    pub(crate) fn lists_of(&mut self, state: State) -> &mut RunLists {
        if state == State::FreeDirty {
            &mut self.dirty
        } else {
            &mut self.clean
        }
    }

    /// Takes a run out of its free list.
    ///
    /// # Safety
    /// `span` is a free run.
    pub(crate) unsafe fn unlist(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            let state = (*span).state;
            self.lists_of(state).remove(table, span);
        }
    }

    /// Cuts `span`, which is in no list, after `pages`; the rest becomes a free run in the same
    /// state. Without memory for a record the span stays whole.
    ///
    /// # Safety
    /// `span` is a run in no list with `state` set to dirty or clean.
    pub(crate) unsafe fn cut<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span, pages: usize) {
        // SAFETY: the caller's duty; the pages of both halves are in the heap.
        unsafe {
            let rest = (*span).pages as usize - pages;
            if rest == 0 {
                return;
            }
            let state = (*span).state;
            let tail = self.new_record(heap, (*span).start + pages as u32, rest as u32);
            if tail.is_null() {
                return;
            }
            (*tail).state = state;
            (*span).pages = pages as u32;
            heap.map.set_ends(span);
            heap.map.set_ends(tail);
            self.counters.splits += 1;
            let table = self.table(heap);
            self.lists_of(state).insert(table, tail);
        }
    }

    pub(crate) fn allocate<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        pages: usize,
        align: usize,
        movable: bool,
    ) -> *mut Span {
        if !self.prepare(heap)
            || pages == 0
            || pages >= self.reach_pages
            || !heap.limits.allow(self.in_use, pages)
        {
            return null_mut();
        }
        self.expect_cuts(heap);
        let wanted = if align > 1 { pages + align - 1 } else { pages };
        let table = self.table(heap);
        let mut id = self.dirty.best_fit(table, wanted);
        let mut excess = 0;
        if id == 0 {
            excess = self.excess_beside(wanted);
            if !movable || excess.min(pages) < moving::LEAST_PAGES {
                self.release_beside(heap, excess);
                excess = 0;
            }
            id = self.clean.best_fit(table, wanted);
        }
        if id == 0 {
            if !self.grow(heap, wanted) {
                return null_mut();
            }
            id = self.clean.best_fit(table, wanted);
        }
        if id == 0 {
            return null_mut();
        }
        // SAFETY: the number came from the free lists.
        unsafe {
            let mut span = table.get(id);
            self.unlist(table, span);
            if align > 1 {
                span = self.align(heap, span, align);
                if span.is_null() {
                    return span;
                }
            }
            self.cut(heap, span, pages);
            if excess > 0 {
                self.put_under(heap, span, excess);
            }
            span
        }
    }

    /// The best fit for `pages` among resident runs, null if there is none.
    pub(crate) fn allocate_resident<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        pages: usize,
    ) -> *mut Span {
        self.expect_cuts(heap);
        let table = self.table(heap);
        let id = self.dirty.best_fit(table, pages);
        // At a limit the request goes the long way, on which that is told.
        if id == 0 || !heap.limits.has_room(self.in_use, pages) {
            return null_mut();
        }
        // SAFETY: the number came from the free lists.
        unsafe {
            let span = table.get(id);
            self.unlist(table, span);
            self.cut(heap, span, pages);
            span
        }
    }

    /// Cuts off what lies before the first multiple of `align` pages.
    ///
    /// # Safety
    /// `span` is a free run in no list that contains such a multiple.
    pub(crate) unsafe fn align<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        align: usize,
    ) -> *mut Span {
        // SAFETY: the caller's duty.
        unsafe {
            let base_page = heap.map.base() >> crate::units::PAGE_SHIFT;
            let first = base_page + (*span).start as usize;
            let skip = round_up(first, align) - first;
            if skip == 0 {
                return span;
            }
            let record = self.new_record(
                heap,
                (*span).start + skip as u32,
                (*span).pages - skip as u32,
            );
            if record.is_null() {
                // No record for the part before it: the run stays whole and free.
                let table = self.table(heap);
                let state = (*span).state;
                self.lists_of(state).insert(table, span);
                return null_mut();
            }
            (*record).state = (*span).state;
            (*span).pages = skip as u32;
            heap.map.set_ends(span);
            heap.map.set_ends(record);
            let table = self.table(heap);
            let state = (*span).state;
            self.lists_of(state).insert(table, span);
            self.counters.splits += 1;
            record
        }
    }

    pub(crate) fn allocate_roomy<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> *mut Span {
        if !self.prepare(heap)
            || pages == 0
            || pages >= self.reach_pages
            || !heap.limits.allow(self.in_use, pages)
        {
            return null_mut();
        }
        self.expect_cuts(heap);
        let table = self.table(heap);
        let roomy = pages.saturating_mul(2);
        // SAFETY: numbers of the free lists have records.
        let long_enough = |id: u32| id != 0 && unsafe { (*table.get(id)).pages as usize } >= roomy;
        let mut id = self.dirty.longest();
        if !long_enough(id) {
            if pages < ROOMY_FRESH {
                return self.allocate(heap, pages, 1, false);
            }
            self.bound_resident(heap, pages);
            id = self.clean.longest();
        }
        if !long_enough(id) {
            if !self.grow(heap, roomy) {
                return self.allocate(heap, pages, 1, false);
            }
            id = self.clean.longest();
        }
        if !long_enough(id) {
            return self.allocate(heap, pages, 1, false);
        }
        // SAFETY: the number came from the free lists.
        unsafe {
            let span = table.get(id);
            self.unlist(table, span);
            self.cut(heap, span, pages);
            span
        }
    }

    /// # Safety
    /// `span` is a run in no list; its `state` says whether it is zero.
    pub(crate) unsafe fn put_to_use<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        purpose: Use,
    ) {
        // SAFETY: the caller's duty.
        unsafe {
            (*span).needzero = (*span).state == State::FreeDirty;
            (*span).list = NO_LIST;
            self.in_use += (*span).pages as usize;
            self.note_peaks();
            self.counters.spans_allocated += 1;
            match purpose {
                Use::Large | Use::Zeros => {
                    (*span).state = State::Large;
                    (*span).class = 0;
                    heap.map.set_ends(span);
                }
                Use::Small(class) | Use::Replacing(class) => {
                    (*span).state = State::Small;
                    (*span).class = class;
                    (*span).objects = objects_in(class as usize, (*span).pages as usize) as u16;
                    (*span).purged = 0;
                    (*span).origin = heap.map.address((*span).start) as usize;
                    if !self.give_bitmap(heap, span) {
                        // One word serves up to 64 objects; the rest of the span stays unused.
                        (*span).objects = 64;
                        (*span).bits = &raw mut (*span).inline_bits;
                    }
                    (*span).fill();
                    heap.map.set_small(span);
                }
            }
        }
    }

    /// # Safety
    /// As [`PageHeap::free`].
    pub(crate) unsafe fn free<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span, state: State) {
        // SAFETY: the caller's duty.
        unsafe {
            if (*span).state == State::Small {
                heap.map.clear_small(span);
                self.take_bitmaps(heap, span);
            }
            self.in_use -= (*span).pages as usize;
            self.counters.spans_freed += 1;
            (*span).class = 0;
            (*span).bits = null_mut();
            self.free_run(heap, span, state);
        }
    }

    /// Joins a run with its neighbours in the same state and puts it into the free lists.
    ///
    /// # Safety
    /// `span` is in no list and its pages are nobody's.
    pub(crate) unsafe fn free_run<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        state: State,
    ) {
        let table = self.table(heap);
        // SAFETY: the caller's duty. First and last page of every run carry its number, so the
        // neighbours' numbers are right; 0 stands for a hole.
        unsafe {
            (*span).state = state;
            if (*span).start > 0 {
                let left = heap.map.span_of_page((*span).start as usize - 1);
                if !left.is_null() && (*left).state == state && (*left).end() == (*span).start {
                    self.unlist(table, left);
                    (*span).start = (*left).start;
                    (*span).pages += (*left).pages;
                    self.drop_record(left);
                    self.counters.coalesces += 1;
                }
            }
            if ((*span).end() as usize) < self.grown {
                let right = heap.map.span_of_page((*span).end() as usize);
                if !right.is_null() && (*right).state == state && (*right).start == (*span).end() {
                    self.unlist(table, right);
                    (*span).pages += (*right).pages;
                    self.drop_record(right);
                    self.counters.coalesces += 1;
                }
            }
            heap.map.set_ends(span);
            self.lists_of(state).insert(table, span);
        }
    }

    /// Bytes of the longest free run, within the quarter that lengths are told apart by.
    pub(crate) fn longest_free_bytes(&self, table: SpanTable) -> usize {
        let length = |id: u32| match id {
            0 => 0,
            // SAFETY: numbers in the lists have records.
            _ => unsafe { (*table.get(id)).bytes() },
        };
        length(self.dirty.longest()).max(length(self.clean.longest()))
    }

    /// Most pages that were in use at once, over the whole life.
    pub(crate) fn highest_in_use(&self) -> usize {
        self.highest.max(self.peak_in_use)
    }

    /// Most pages that were in use or free and dirty at once, over the whole life.
    pub(crate) fn highest_resident(&self) -> usize {
        self.highest_resident
    }

    /// To be called whenever pages were put to use.
    #[inline]
    pub(super) fn note_peaks(&mut self) {
        self.peak_in_use = self.peak_in_use.max(self.in_use);
        self.highest_resident = self.highest_resident.max(self.in_use + self.dirty.pages);
    }
}
