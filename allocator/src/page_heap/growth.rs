//! The heap's end: growing it, and growing blocks where they are.

use super::huge::RANGE_PAGES;
use super::{Inner, PageHeap};
use crate::os::{Mapped, Os};
use crate::page_map::{CLASSES_SKIP, NUMBERS_SKIP};
use crate::span::{Span, State};
use crate::units::{ARENA_PAGES, page_bytes, round_up};

/// The heap grows by at least this (the seeds: 1 MiB per request to the system) …
const MIN_GROWTH: usize = (1 << 20) >> crate::units::PAGE_SHIFT;
/// … and by an eighth of its size, up to this.
const MAX_GROWTH: usize = ARENA_PAGES;

/// A block that grows where it is takes this share of its length more than it was asked for ...
const HEADROOM_SHARE: usize = 8;
/// ... up to this, so that steps smaller than that need neither lock nor lists.
const MAX_HEADROOM: usize = (128 << 10) >> crate::units::PAGE_SHIFT;

/// Pages that a block of `pages` may have behind what was asked for once it has grown.
#[inline]
#[must_use]
pub const fn headroom(pages: usize) -> usize {
    let share = pages / HEADROOM_SHARE;
    if share < MAX_HEADROOM {
        share
    } else {
        MAX_HEADROOM
    }
}

impl Inner {
    /// # Safety
    /// As [`PageHeap::resize_in_place`].
    pub(crate) unsafe fn resize_in_place<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        pages: usize,
    ) -> bool {
        // SAFETY: the caller's duty.
        unsafe {
            let old = (*span).pages as usize;
            if pages <= old {
                self.cut_back(heap, span, pages);
                return true;
            }
            if !heap.limits.allow(self.in_use, pages - old) {
                return false;
            }
            // One run of each kind may follow, and the end of the heap.
            loop {
                let need = pages.saturating_sub((*span).pages as usize);
                if need == 0 {
                    break;
                }
                if !self.absorb(heap, span, need, headroom(pages)) {
                    // It may have a run by now that was too short.
                    self.cut_back(heap, span, old);
                    return false;
                }
            }
            self.counters.grown_in_place += 1;
            true
        }
    }

    /// Frees what `span` has behind its first `pages`. (Without memory for a record it keeps that.)
    ///
    /// # Safety
    /// `span` is in use.
    unsafe fn cut_back<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span, pages: usize) {
        // SAFETY: the caller's duty.
        unsafe {
            let surplus = (*span).pages as usize - pages;
            if surplus == 0 {
                return;
            }
            let tail = self.new_record(heap, (*span).start + pages as u32, surplus as u32);
            if tail.is_null() {
                return;
            }
            (*span).pages = pages as u32;
            heap.map.set_ends(span);
            self.in_use -= surplus;
            self.free_run(heap, tail, State::FreeDirty);
        }
    }

    /// Takes up to `need` pages from the free run behind `span`, where the heap may have to grow, and up to `spare`
    /// more if the run and the limits have them. False: there is none.
    ///
    /// # Safety
    /// `span` is in use.
    unsafe fn absorb<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        need: usize,
        spare: usize,
    ) -> bool {
        let table = self.table(heap);
        // SAFETY: the caller's duty.
        unsafe {
            let end = (*span).end();
            if end as usize >= self.grown && !self.grow(heap, need) {
                return false;
            }
            let free_run = || {
                let right = heap.map.span_of_page(end as usize);
                let free = !right.is_null()
                    && (*right).start == end
                    && matches!((*right).state, State::FreeDirty | State::FreeClean);
                free.then_some(right)
            };
            let Some(mut right) = free_run() else {
                return false;
            };
            let missing = need.saturating_sub((*right).pages as usize);
            if missing > 0 && (*right).state == State::FreeClean {
                if (*right).end() as usize != self.grown || !self.grow(heap, missing) {
                    return false;
                }
                // The new pages have joined the run, perhaps under another record.
                match free_run() {
                    Some(longer) if (*longer).pages as usize >= need => right = longer,
                    _ => return false,
                }
            }
            let length = (*right).pages as usize;
            let mut taken = (need + spare).min(length);
            if !heap.limits.has_room(self.in_use, taken) {
                taken = need.min(length);
            }
            self.unlist(table, right);
            let clean = (*right).state == State::FreeClean;
            (*span).needzero |= !clean;
            // The run's record stays with its rest, so that none is made and dropped at each step.
            if taken == length {
                self.drop_record(right);
            } else {
                let state = (*right).state;
                (*right).start += taken as u32;
                (*right).pages -= taken as u32;
                heap.map.set_ends(right);
                self.lists_of(state).insert(table, right);
            }
            (*span).pages += taken as u32;
            heap.map.set_ends(span);
            self.in_use += taken;
            self.note_peaks();
            if clean {
                // Fresh pages are put to use here as well as where a span is taken.
                self.bound_resident(heap, 0);
            }
            true
        }
    }

    /// Maps at least `pages` more at the end of the heap. False: no memory.
    pub(crate) fn grow<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> bool {
        let step = (self.grown / 8).clamp(MIN_GROWTH, MAX_GROWTH);
        // Whole ranges, so that the last one can have a huge page.
        let end = self.grown + pages.max(step);
        let step = if step > MIN_GROWTH {
            round_up(end, RANGE_PAGES) - self.grown
        } else {
            step
        };
        for want in [pages.max(step), pages] {
            // A few tries behind whatever was in the way.
            for _ in 0..16 {
                match self.grow_exactly(heap, want) {
                    Mapped::Yes => return true,
                    Mapped::NoMemory => break,
                    Mapped::Taken => {
                        let next = round_up(self.grown + 1, ARENA_PAGES);
                        self.holes += next - self.grown;
                        self.grown = next;
                    }
                }
            }
        }
        false
    }

    pub(crate) fn grow_exactly<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> Mapped {
        let end = self.grown + pages;
        if end > self.reach_pages {
            return Mapped::NoMemory;
        }
        let mapped_to = round_up(end, ARENA_PAGES);
        let numbers = mapped_to * size_of::<u32>();
        if !self
            .numbers
            .ensure(&heap.os, numbers.saturating_sub(NUMBERS_SKIP), 32 << 10)
            || !self
                .classes
                .ensure(&heap.os, CLASSES_SKIP + mapped_to + 1, 8 << 10)
        {
            return Mapped::NoMemory;
        }
        let span = self.new_record(heap, self.grown as u32, pages as u32);
        if span.is_null() {
            return Mapped::NoMemory;
        }
        let address = heap.map.base() + page_bytes(self.grown);
        let mapped = heap.map.extend(end, heap.os.lookup(), || {
            match heap.os.map_at(address, page_bytes(pages)) {
                Mapped::Yes => Ok(()),
                refused => Err(refused),
            }
        });
        if let Err(refused) = mapped {
            // SAFETY: the record was made just now.
            unsafe { self.drop_record(span) };
            return refused;
        }
        self.counters.growths += 1;
        self.grown = end;
        // SAFETY: the pages are new.
        unsafe { self.free_run(heap, span, State::FreeClean) };
        Mapped::Yes
    }
}
