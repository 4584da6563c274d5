//! The back end (Go's mheap): hands out spans, takes them back, splits and coalesces runs, grows.
//!
//! Free runs are *dirty* (they still occupy memory) or *clean* (they do not, and read as zero).
//! A request takes the best fit among dirty runs first, because their pages are paid for.
//! Invariants: H1 free runs are disjoint, and no two neighbours are in the same state; H2 dirty +
//! clean + in use + unusable = pages that the heap has grown to.

use crate::metadata::{Bump, FixedList, Section};
use crate::os::{Mapped, Os};
use crate::page_map::{PageMap, Plan};
use crate::run_lists::RunLists;
use crate::scavenger::Decay;
use crate::size_class::{objects_in, size_of_class};
use crate::span::{NO_LIST, Span, SpanTable, State};
use crate::sync::Locked;
use crate::units::{ARENA_PAGES, page_bytes, pages_for, round_up};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The heap grows by at least this (the seeds: 1 MiB per request to the system) …
const MIN_GROWTH: usize = (1 << 20) >> crate::units::PAGE_SHIFT;
/// … and by an eighth of its size, up to this.
const MAX_GROWTH: usize = ARENA_PAGES;
/// Bitmaps come in these sizes (words); spans of up to 64 objects have theirs in the record.
const BITMAP_WORDS: [usize; 4] = [2, 4, 8, 16];

/// The page heap with its page map and page source.
#[derive(Debug)]
pub struct PageHeap<O> {
    pub(crate) os: O,
    /// Read without the lock by everybody.
    pub map: PageMap,
    /// `inner.in_use`, to be read without the lock by those who size caches.
    in_use: AtomicUsize,
    pub(crate) inner: Locked<Inner>,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    pub(crate) ready: bool,
    pub(crate) reach_pages: usize,
    numbers: Section,
    classes: Section,
    spans: Section,
    metadata: Bump,
    span_count: u32,
    free_records: u32,
    bitmaps: [FixedList; 4],
    caches: FixedList,
    pub(crate) dirty: RunLists,
    pub(crate) clean: RunLists,
    /// Pages the heap has grown to, holes included.
    pub(crate) grown: usize,
    /// Pages in the range that belong to somebody else.
    pub(crate) holes: usize,
    pub(crate) in_use: usize,
    /// Most pages in use in the present decay window …
    pub(crate) peak_in_use: usize,
    /// … and in all windows before.
    pub(crate) highest: usize,
    pub(crate) counters: Counters,
    pub(crate) decay: Decay,
}

/// What the page heap counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Requests to the system for more heap.
    pub growths: u64,
    /// Runs cut in two.
    pub splits: u64,
    /// Runs joined.
    pub coalesces: u64,
    /// Spans handed out.
    pub spans_allocated: u64,
    /// Spans taken back.
    pub spans_freed: u64,
    /// Pages given back to the system.
    pub pages_released: u64,
    /// Calls that gave them back.
    pub releases: u64,
    /// Large blocks that grew where they were.
    pub grown_in_place: u64,
    /// Large blocks moved by the page tables instead of by copying.
    pub moved_by_remap: u64,
}

/// What a span is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Objects of this class.
    Small(u8),
    /// One block.
    Large,
}

impl<O: Os> PageHeap<O> {
    /// A heap without pages on top of a page source.
    #[must_use]
    pub const fn new(os: O) -> Self {
        Self {
            os,
            map: PageMap::new(),
            in_use: AtomicUsize::new(0),
            inner: Locked::new(Inner {
                ready: false,
                reach_pages: 0,
                numbers: Section::none(),
                classes: Section::none(),
                spans: Section::none(),
                metadata: Bump::none(),
                span_count: 1,
                free_records: 0,
                bitmaps: [const { FixedList::new() }; 4],
                caches: FixedList::new(),
                dirty: RunLists::new(),
                clean: RunLists::new(),
                grown: 0,
                holes: 0,
                in_use: 0,
                peak_in_use: 0,
                highest: 0,
                counters: Counters {
                    growths: 0,
                    splits: 0,
                    coalesces: 0,
                    spans_allocated: 0,
                    spans_freed: 0,
                    pages_released: 0,
                    releases: 0,
                    grown_in_place: 0,
                    moved_by_remap: 0,
                },
                decay: Decay::new(),
            }),
        }
    }

    /// A span of `pages`, starting at a multiple of `align` pages. Null: no memory.
    pub fn allocate(&self, pages: usize, align: usize, purpose: Use) -> *mut Span {
        let mut inner = self.inner.lock();
        let span = inner.allocate(self, pages, align);
        if !span.is_null() {
            // SAFETY: the run was taken out of the free lists; it is ours.
            unsafe { inner.put_to_use(self, span, purpose) };
            self.in_use.store(inner.in_use, Relaxed);
        }
        span
    }

    /// A span for one large block that is expected to grow: at the start of the longest free run,
    /// so that the pages behind it are free. Null: no memory.
    pub fn allocate_roomy(&self, pages: usize) -> *mut Span {
        let mut inner = self.inner.lock();
        let span = inner.allocate_roomy(self, pages);
        if !span.is_null() {
            // SAFETY: the run was taken out of the free lists; it is ours.
            unsafe { inner.put_to_use(self, span, Use::Large) };
            self.in_use.store(inner.in_use, Relaxed);
        }
        span
    }

    /// Takes a span back.
    ///
    /// # Safety
    /// `span` came from this heap, is in use, and nothing in it is needed any more.
    pub unsafe fn free(&self, span: *mut Span) {
        let mut inner = self.inner.lock();
        // SAFETY: the caller's duty.
        unsafe { inner.free(self, span, State::FreeDirty) };
        self.in_use.store(inner.in_use, Relaxed);
        inner.tick(self);
    }

    /// As [`PageHeap::free`], for a span whose pages the page tables gave to another block: it
    /// occupies nothing and reads as zero.
    ///
    /// # Safety
    /// As [`PageHeap::free`], and it is so.
    pub unsafe fn free_moved(&self, span: *mut Span) {
        let mut inner = self.inner.lock();
        // SAFETY: the caller's duty.
        unsafe { inner.free(self, span, State::FreeClean) };
        self.in_use.store(inner.in_use, Relaxed);
    }

    /// Bytes in spans that are in use, as of a moment ago.
    #[must_use]
    pub fn in_use_bytes(&self) -> usize {
        page_bytes(self.in_use.load(Relaxed))
    }

    /// Makes a large span `pages` long without moving it; false if the pages behind are not free.
    ///
    /// # Safety
    /// `span` is a large span of this heap in use by the caller.
    pub unsafe fn resize_in_place(&self, span: *mut Span, pages: usize) -> bool {
        let mut inner = self.inner.lock();
        // SAFETY: the caller's duty.
        let done = unsafe { inner.resize_in_place(self, span, pages) };
        self.in_use.store(inner.in_use, Relaxed);
        done
    }

    /// Zeroed memory for a record of `bytes` that is recycled by [`PageHeap::give_cache`] only.
    pub fn take_cache(&self, bytes: usize) -> *mut u8 {
        let mut inner = self.inner.lock();
        let record = inner.caches.take();
        if !record.is_null() {
            // SAFETY: all records of the list have the same size.
            unsafe { record.write_bytes(0, bytes) };
            return record;
        }
        if !inner.prepare(self) {
            return null_mut();
        }
        inner.metadata.allocate(&self.os, bytes, 64)
    }

    /// Recycles a record.
    ///
    /// # Safety
    /// It came from [`PageHeap::take_cache`] and nobody uses it any more.
    pub unsafe fn give_cache(&self, record: *mut u8) {
        // SAFETY: the caller's duty.
        unsafe { self.inner.lock().caches.give(record) };
    }
}

impl Inner {
    /// Lays out the address space before the first use. False: no memory.
    fn prepare<O: Os>(&mut self, heap: &PageHeap<O>) -> bool {
        if self.ready {
            return true;
        }
        let reach = heap.os.heap_reach();
        let mut attempt = 0;
        while let Some(base) = heap.os.pick_base(Plan::total(reach), attempt) {
            attempt += 1;
            let plan = Plan::new(base, reach);
            self.numbers = Section::new(plan.numbers, plan.classes - plan.numbers);
            self.classes = Section::new(plan.classes, plan.spans - plan.classes);
            self.spans = Section::new(plan.spans, plan.metadata - plan.spans);
            self.metadata = Bump::new(Section::new(plan.metadata, plan.heap - plan.metadata));
            // The record of number 0 is never used; mapping it shows whether the place is free.
            if !self.spans.ensure(&heap.os, 64, 64 << 10) {
                continue;
            }
            heap.map.set_plan(&plan);
            self.reach_pages = pages_for(reach);
            self.ready = true;
            return true;
        }
        false
    }

    pub(crate) fn table<O>(&self, heap: &PageHeap<O>) -> SpanTable {
        heap.map.table()
    }

    /// A fresh record, null when there is no memory for it.
    fn new_record<O: Os>(&mut self, heap: &PageHeap<O>, start: u32, pages: u32) -> *mut Span {
        let id = if self.free_records == 0 {
            let id = self.span_count;
            if !self
                .spans
                .ensure(&heap.os, (id as usize + 1) * size_of::<Span>(), 64 << 10)
            {
                return null_mut();
            }
            self.span_count += 1;
            id
        } else {
            self.free_records
        };
        // SAFETY: the number is below span_count, so its record is mapped.
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
                class: 0,
                needzero: false,
                list: NO_LIST,
                objects: 0,
                free: 0,
                fresh: 0,
                first_word: 0,
                size: 0,
                id,
                bits: null_mut(),
                inline_bits: 0,
            });
        }
        record
    }

    /// # Safety
    /// Nothing refers to the record any more.
    unsafe fn drop_record(&mut self, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            (*span).state = State::Unused;
            (*span).next = self.free_records;
            self.free_records = (*span).id;
        }
    }

    fn lists_of(&mut self, state: State) -> &mut RunLists {
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

    fn allocate<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize, align: usize) -> *mut Span {
        if !self.prepare(heap) || pages == 0 || pages >= self.reach_pages {
            return null_mut();
        }
        let wanted = if align > 1 { pages + align - 1 } else { pages };
        let table = self.table(heap);
        let mut id = self.dirty.best_fit(table, wanted);
        if id == 0 {
            self.bound_resident(heap, wanted);
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
            }
            self.cut(heap, span, pages);
            span
        }
    }

    /// Cuts off what lies before the first multiple of `align` pages.
    ///
    /// # Safety
    /// `span` is a free run in no list that contains such a multiple.
    unsafe fn align<O: Os>(
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
                // Keep the run whole and free; the caller sees a misaligned span otherwise.
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

    fn allocate_roomy<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> *mut Span {
        if !self.prepare(heap) || pages == 0 || pages >= self.reach_pages {
            return null_mut();
        }
        let table = self.table(heap);
        let roomy = pages.saturating_mul(2);
        self.bound_resident(heap, pages);
        let mut id = self.clean.longest();
        // SAFETY: numbers of the free lists have records.
        let long_enough = |id: u32| id != 0 && unsafe { (*table.get(id)).pages as usize } >= roomy;
        if !long_enough(id) {
            if !self.grow(heap, roomy) {
                return self.allocate(heap, pages, 1);
            }
            id = self.clean.longest();
        }
        if !long_enough(id) {
            return self.allocate(heap, pages, 1);
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
    unsafe fn put_to_use<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span, purpose: Use) {
        // SAFETY: the caller's duty.
        unsafe {
            (*span).needzero = (*span).state == State::FreeDirty;
            (*span).list = NO_LIST;
            self.in_use += (*span).pages as usize;
            self.peak_in_use = self.peak_in_use.max(self.in_use);
            self.counters.spans_allocated += 1;
            match purpose {
                Use::Large => {
                    (*span).state = State::Large;
                    (*span).class = 0;
                    heap.map.set_ends(span);
                }
                Use::Small(class) => {
                    (*span).state = State::Small;
                    (*span).class = class;
                    (*span).size = size_of_class(class as usize) as u32;
                    (*span).objects = objects_in(class as usize, (*span).pages as usize) as u16;
                    (*span).free = 0;
                    (*span).fresh = 0;
                    (*span).first_word = 0;
                    if !self.give_bitmap(heap, span) {
                        // One word serves up to 64 objects; the rest of the span stays unused.
                        (*span).objects = 64;
                        (*span).bits = &raw mut (*span).inline_bits;
                        (*span).inline_bits = 0;
                    }
                    heap.map.set_small(span);
                }
            }
        }
    }

    /// # Safety
    /// `span` is a record that the caller owns, `objects` is set.
    unsafe fn give_bitmap<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) -> bool {
        // SAFETY: the caller's duty.
        unsafe {
            let words = (*span).words();
            if words <= 1 {
                (*span).inline_bits = 0;
                (*span).bits = &raw mut (*span).inline_bits;
                return true;
            }
            let Some(kind) = BITMAP_WORDS.iter().position(|&size| size >= words) else {
                return false;
            };
            let mut bits = self.bitmaps[kind].take();
            let bytes = BITMAP_WORDS[kind] * 8;
            if bits.is_null() {
                bits = self.metadata.allocate(&heap.os, bytes, 16);
                if bits.is_null() {
                    return false;
                }
            } else {
                bits.write_bytes(0, bytes);
            }
            (*span).bits = bits.cast();
            true
        }
    }

    /// # Safety
    /// As [`PageHeap::free`].
    pub(crate) unsafe fn free<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span, state: State) {
        // SAFETY: the caller's duty.
        unsafe {
            if (*span).state == State::Small {
                heap.map.clear_small(span);
                let words = (*span).words();
                if words > 1
                    && let Some(kind) = BITMAP_WORDS.iter().position(|&size| size >= words)
                {
                    self.bitmaps[kind].give((*span).bits.cast());
                }
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

    /// # Safety
    /// As [`PageHeap::resize_in_place`].
    unsafe fn resize_in_place<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        pages: usize,
    ) -> bool {
        let table = self.table(heap);
        // SAFETY: the caller's duty.
        unsafe {
            let old = (*span).pages as usize;
            if pages <= old {
                if pages < old {
                    let tail =
                        self.new_record(heap, (*span).start + pages as u32, (old - pages) as u32);
                    if tail.is_null() {
                        return true;
                    }
                    (*span).pages = pages as u32;
                    heap.map.set_ends(span);
                    self.in_use -= old - pages;
                    self.free_run(heap, tail, State::FreeDirty);
                }
                return true;
            }
            let need = pages - old;
            if (*span).end() as usize >= self.grown {
                if !self.grow(heap, need) {
                    return false;
                }
                if (*span).end() as usize >= self.grown {
                    return false;
                }
            }
            let mut right = heap.map.span_of_page((*span).end() as usize);
            if right.is_null() || (*right).start != (*span).end() {
                return false;
            }
            let state = (*right).state;
            if state != State::FreeDirty && state != State::FreeClean {
                return false;
            }
            if ((*right).pages as usize) < need {
                let last = (*right).end() as usize == self.grown;
                if !last || state != State::FreeClean || !self.grow(heap, need) {
                    return false;
                }
                // The new pages have joined the run, perhaps under another record.
                right = heap.map.span_of_page((*span).end() as usize);
                if ((*right).pages as usize) < need {
                    return false;
                }
            }
            self.unlist(table, right);
            self.cut(heap, right, need);
            // Without a record for the rest the whole run joins.
            let taken = (*right).pages;
            (*span).needzero |= state == State::FreeDirty;
            (*span).pages += taken;
            self.drop_record(right);
            heap.map.set_ends(span);
            self.in_use += taken as usize;
            self.peak_in_use = self.peak_in_use.max(self.in_use);
            self.counters.grown_in_place += 1;
            true
        }
    }

    /// Maps at least `pages` more at the end of the heap. False: no memory.
    fn grow<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> bool {
        let step = (self.grown / 8).clamp(MIN_GROWTH, MAX_GROWTH);
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

    fn grow_exactly<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> Mapped {
        let end = self.grown + pages;
        if end > self.reach_pages {
            return Mapped::NoMemory;
        }
        let mapped_to = round_up(end, ARENA_PAGES);
        if !self
            .numbers
            .ensure(&heap.os, mapped_to * size_of::<u32>(), 32 << 10)
            || !self.classes.ensure(&heap.os, mapped_to, 8 << 10)
        {
            return Mapped::NoMemory;
        }
        let span = self.new_record(heap, self.grown as u32, pages as u32);
        if span.is_null() {
            return Mapped::NoMemory;
        }
        let address = heap.map.base() + page_bytes(self.grown);
        let answer = heap.os.map_at(address, page_bytes(pages));
        if answer != Mapped::Yes {
            // SAFETY: the record was made just now.
            unsafe { self.drop_record(span) };
            return answer;
        }
        self.counters.growths += 1;
        self.grown = end;
        heap.map.set_pages(end);
        // SAFETY: the pages are new.
        unsafe { self.free_run(heap, span, State::FreeClean) };
        Mapped::Yes
    }

    /// Most pages that were in use at once, over the whole life.
    pub(crate) fn highest_in_use(&self) -> usize {
        self.highest.max(self.peak_in_use)
    }

    /// Bytes of metadata that were handed out or mapped for maps and records.
    pub(crate) fn metadata_bytes(&self) -> usize {
        self.metadata.used()
            + self.span_count as usize * size_of::<Span>()
            + self.grown * (size_of::<u32>() + 1)
    }
}
