//! Records of spans, their bitmaps, and the address space that they lie in.

use super::{Inner, PageHeap};
use crate::metadata::{Bump, Section};
use crate::os::Os;
use crate::page_map::{CLASSES_SKIP, NUMBERS_SKIP, Plan, RECORDS_SKIP};
use crate::span::{NO_LIST, Span, State};
use crate::units::pages_for;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// Bitmaps come in these sizes (words); spans of up to 64 objects have theirs in the record.
const BITMAP_WORDS: [usize; 4] = [2, 4, 8, 16];

impl Inner {
    /// Lays out the address space before the first use. False: no memory.
    pub(crate) fn prepare<O: Os>(&mut self, heap: &PageHeap<O>) -> bool {
        if self.ready {
            return true;
        }
        let reach = heap.os.heap_reach();
        let mut attempt = 0;
        while let Some(base) = heap.os.pick_base(Plan::total(reach), attempt) {
            attempt += 1;
            let plan = Plan::new(base, reach);
            self.numbers = Section::below(plan.classes, plan.classes - plan.numbers);
            self.classes = Section::new(plan.classes, plan.spans - plan.classes);
            self.spans = Section::below(plan.metadata, plan.metadata - plan.spans);
            let metadata = Section::new(plan.metadata, plan.heap - plan.metadata);
            let early = plan.classes + NUMBERS_SKIP..plan.classes + CLASSES_SKIP;
            self.metadata = Bump::new(metadata, RECORDS_SKIP).with_early(early);
            // The first records are there now, among them that of number 0, which is never used; and the class map
            // answers for addresses outside of the heap from now on (P3).
            if !self.metadata.start(&heap.os)
                || !self.classes.ensure(&heap.os, CLASSES_SKIP + 1, 8 << 10)
            {
                continue;
            }
            heap.map.set_plan(&plan, heap.os.lookup());
            self.reach_pages = pages_for(reach);
            self.ready = true;
            return true;
        }
        false
    }

    /// Zeroed memory for a record, null when there is none.
    pub(super) fn record<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        bytes: usize,
        align: usize,
    ) -> *mut u8 {
        let record = self.or_cede(heap, Self::metadata_section, |inner| {
            let record = inner.metadata.allocate(&heap.os, bytes, align);
            (!record.is_null()).then_some(record)
        });
        record.unwrap_or(null_mut())
    }

    /// As [`Inner::record`], anywhere: bitmaps have to lie behind the records of spans ([`Span::continued`]), others need not.
    pub(super) fn record_anywhere<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        bytes: usize,
        align: usize,
    ) -> *mut u8 {
        match self.metadata.take_early(bytes, align) {
            record if record.is_null() => self.record(heap, bytes, align),
            record => record,
        }
    }

    fn metadata_section(&mut self) -> &mut Section {
        self.metadata.section()
    }

    fn spans_section(&mut self) -> &mut Section {
        &mut self.spans
    }

    /// Maps what so many more records take. False: no memory.
    fn map_records<O: Os>(&mut self, heap: &PageHeap<O>, more: usize) -> bool {
        let bytes = (self.span_count as usize + 1 + more) * size_of::<Span>();
        let behind = bytes.saturating_sub(RECORDS_SKIP);
        let mapped = self.or_cede(heap, Self::spans_section, |inner| {
            inner.spans.ensure(&heap.os, behind, 64 << 10).then_some(())
        });
        mapped.is_some()
    }

    /// To be called before a run is taken out of its list to be cut and aligned: afterwards it could not be ceded for the records
    /// that this takes, and it may be the only one. (What fails then fails later.)
    pub(super) fn expect_cuts<O: Os>(&mut self, heap: &PageHeap<O>) {
        let _ = self.map_records(heap, 2);
    }

    /// A fresh record, null when there is no memory for it.
    pub(crate) fn new_record<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        start: u32,
        pages: u32,
    ) -> *mut Span {
        let id = if self.free_records == 0 {
            let id = self.span_count + 1;
            if !self.map_records(heap, 1) {
                return null_mut();
            }
            self.span_count += 1;
            id
        } else {
            self.free_records
        };
        // SAFETY: the number is within span_count, so its record is mapped.
        let record = unsafe { heap.map.table().get(id) };
        if id == self.free_records {
            // SAFETY: as above; free records link by `next`.
            self.free_records = unsafe { (*record).next };
        }
        // SAFETY: the record is mapped and nobody else's.
        unsafe {
            record.write(Span {
                start,
                pages,
                next: 0,
                prev: 0,
                state: State::Unused,
                needzero: false,
                class: 0,
                joined: false,
                list: NO_LIST,
                purged: 0,
                objects: 0,
                fresh: AtomicU16::new(0),
                notice: 0,
                until_notice: 0,
                continued: AtomicU32::new(0),
                id,
                bits: null_mut(),
                inline_bits: 0,
                origin: 0,
            });
        }
        record
    }

    /// # Safety
    /// Nothing refers to the record any more.
    pub(crate) unsafe fn drop_record(&mut self, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            (*span).state = State::Unused;
            (*span).next = self.free_records;
            self.free_records = (*span).id;
        }
    }

    /// # Safety
    /// `span` is a record that the caller owns, `objects` is set.
    pub(crate) unsafe fn give_bitmap<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
    ) -> bool {
        // SAFETY: the caller's duty.
        unsafe {
            let words = (*span).words();
            if words <= 1 {
                (*span).bits = &raw mut (*span).inline_bits;
                return true;
            }
            let Some(kind) = BITMAP_WORDS.iter().position(|&size| size >= words) else {
                return false;
            };
            let mut bits = self.bitmaps[kind].take();
            let bytes = BITMAP_WORDS[kind] * 8;
            if bits.is_null() {
                bits = self.record(heap, bytes, 16);
                if bits.is_null() {
                    return false;
                }
            }
            (*span).bits = bits.cast();
            true
        }
    }

    /// Gives the bitmaps of a span back.
    ///
    /// # Safety
    /// The span is small, the caller's, and nobody looks into them any more.
    pub(crate) unsafe fn take_bitmaps<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty; both bitmaps came from these lists.
        unsafe {
            let words = (*span).words();
            let kind = BITMAP_WORDS.iter().position(|&size| size >= words);
            let Some(bitmaps) = kind.map(|kind| &mut self.bitmaps[kind]) else {
                return;
            };
            if words > 1 {
                bitmaps.give((*span).bits.cast());
            }
            let second = (*span).continued.swap(0, Relaxed);
            if second != 0 {
                bitmaps.give(heap.map.table().behind(second).cast());
            }
        }
    }

    /// A second bitmap of so many words for a small span, all zeros: how far behind the records it lies. 0: no memory.
    pub(crate) fn second_bitmap<O: Os>(&mut self, heap: &PageHeap<O>, words: usize) -> u32 {
        let Some(kind) = BITMAP_WORDS.iter().position(|&size| size >= words) else {
            return 0;
        };
        let mut bits = self.bitmaps[kind].take();
        if bits.is_null() {
            bits = self.record(heap, BITMAP_WORDS[kind] * 8, 16);
        }
        if bits.is_null() {
            return 0;
        }
        let bits = bits.cast::<u64>();
        let place = heap.map.table().distance(bits);
        // SAFETY: the bitmap is ours and has that many words.
        unsafe {
            if place == 0 {
                self.bitmaps[kind].give(bits.cast());
            } else {
                bits.write_bytes(0, words);
            }
        }
        place
    }

    /// Bytes of metadata that were handed out or mapped for maps and records.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let records = (self.span_count as usize + 1) * size_of::<Span>();
        self.metadata.used()
            + records.saturating_sub(RECORDS_SKIP)
            + self.grown * (size_of::<u32>() + 1)
    }
}
