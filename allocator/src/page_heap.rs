//! The back end (Go's mheap): hands out spans, takes them back, splits and coalesces runs, grows.
//!
//! Free runs are *dirty* (they still occupy memory) or *clean* (they do not, and read as zero).
//! A request takes the best fit among dirty runs first, because their pages are paid for.
//! Invariants: H1 free runs are disjoint, and no two neighbours are in the same state; H2 dirty +
//! clean + in use + unusable = pages that the heap has grown to; H3 in use + dirty are no more than the most that they ever were.

pub(crate) mod ahead;
mod ceding;
pub(crate) mod growth;
pub(crate) mod huge;
pub(crate) mod moving;
mod pieces;
mod records;
mod runs;

use self::ahead::Ahead;
use self::huge::Huge;
use self::moving::Moving;
use crate::limits::Limits;
use crate::metadata::{Bump, FixedList, Section};
use crate::os::Os;
use crate::page_map::PageMap;
use crate::run_lists::RunLists;
use crate::scavenger::Decay;
use crate::size_class::MAX_BATCH;
use crate::span::{Span, State};
use crate::sync::Locked;
use crate::transfer_cache::{self, Places};
use crate::units::{page_bytes, pages_for};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Widths of places: a full transfer cache has the widest.
const PLACE_WIDTHS: usize = (transfer_cache::SLOTS as usize * MAX_BATCH).ilog2() as usize;
/// Places are made of those that are so much wider: bins begin with few, and leave them as they grow.
const SPLIT_WIDTHS: usize = 3;
/// What is missing to the most that was resident is at most this part where it is nearly that.
const NEARLY: usize = 16;
/// Heaps that are no larger than those of programs that have just begun have little to give back.
const YOUNG: usize = pages_for(256 << 10);

/// The page heap with its page map and page source.
#[derive(Debug)]
pub struct PageHeap<O> {
    pub(crate) os: O,
    /// Read without the lock by everybody.
    pub map: PageMap,
    /// `inner.in_use`, to be read without the lock by those who size caches.
    in_use: AtomicUsize,
    /// There is much to give back and perhaps nobody who will: see [`crate::helper`].
    helper_wanted: AtomicBool,
    /// What the program may have in use.
    pub limits: Limits,
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
    /// Records made so far; they are numbered from 1.
    span_count: u32,
    free_records: u32,
    bitmaps: [FixedList; 4],
    caches: FixedList,
    /// Places for 2, 4, 8 … addresses.
    places: [FixedList; PLACE_WIDTHS],
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
    /// Most pages in use and dirty when the heap grew ...
    pub(crate) most_resident: usize,
    /// ... and at any time.
    highest_resident: usize,
    pub(crate) counters: Counters,
    pub(crate) decay: Decay,
    pub(crate) huge: Huge,
    pub(crate) moving: Moving,
    ahead: Ahead,
    /// See [`ceding`].
    ceded_in_vain: u32,
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
    /// Free pages that were put under large blocks by the page tables instead of being given back.
    pub pages_moved: u64,
    /// Calls that moved them.
    pub moves: u64,
    /// Ranges that were made huge pages.
    pub huge_pages: u64,
    /// Bytes made resident before they were written to.
    pub populated_bytes: u64,
}

impl Counters {
    /// Adds another heap's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.growths += other.growths;
        self.splits += other.splits;
        self.coalesces += other.coalesces;
        self.spans_allocated += other.spans_allocated;
        self.spans_freed += other.spans_freed;
        self.pages_released += other.pages_released;
        self.releases += other.releases;
        self.grown_in_place += other.grown_in_place;
        self.moved_by_remap += other.moved_by_remap;
        self.pages_moved += other.pages_moved;
        self.moves += other.moves;
        self.huge_pages += other.huge_pages;
        self.populated_bytes += other.populated_bytes;
    }
}

/// What a span is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Objects of this class.
    Small(u8),
    /// The same for a class that rather replaces its objects than gets more of them: it seldom comes for pages.
    Replacing(u8),
    /// One block.
    Large,
    /// One block that is to read as zero.
    Zeros,
}

impl<O: Os> PageHeap<O> {
    /// A heap without pages on top of a page source.
    #[must_use]
    pub const fn new(os: O) -> Self {
        Self {
            os,
            map: PageMap::new(),
            in_use: AtomicUsize::new(0),
            helper_wanted: AtomicBool::new(false),
            limits: Limits::new(),
            inner: Locked::new(Inner {
                ready: false,
                reach_pages: 0,
                numbers: Section::none(),
                classes: Section::none(),
                spans: Section::none(),
                metadata: Bump::none(),
                span_count: 0,
                free_records: 0,
                bitmaps: [const { FixedList::new() }; 4],
                caches: FixedList::new(),
                places: [const { FixedList::new() }; PLACE_WIDTHS],
                dirty: RunLists::new(),
                clean: RunLists::new(),
                grown: 0,
                holes: 0,
                in_use: 0,
                peak_in_use: 0,
                highest: 0,
                most_resident: 0,
                highest_resident: 0,
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
                    pages_moved: 0,
                    moves: 0,
                    huge_pages: 0,
                    populated_bytes: 0,
                },
                decay: Decay::new(),
                huge: Huge::new(),
                moving: Moving::new(),
                ahead: Ahead::new(),
                ceded_in_vain: 0,
            }),
        }
    }

    /// A span of `pages`, starting at a multiple of `align` pages. Null: no memory.
    pub fn allocate(&self, pages: usize, align: usize, purpose: Use) -> *mut Span {
        let mut inner = self.inner.lock();
        let span = inner.allocate(self, pages, align, purpose == Use::Large);
        if !span.is_null() {
            // SAFETY: the run was taken out of the free lists; it is ours.
            let (range, reused) = unsafe {
                inner.put_to_use(self, span, purpose);
                (
                    inner.range_to_collapse(self, span, purpose),
                    inner.ranges_of_reused(span),
                )
            };
            self.in_use.store(inner.in_use, Relaxed);
            drop(inner);
            if let Some(address) = range {
                self.collapse(address);
            }
            if reused.0 < reused.1 {
                self.collapse_resident(reused);
            }
        }
        span
    }

    /// As [`PageHeap::allocate`], of pages that are resident. Null: there are not so many in one run, or a limit is near.
    pub fn allocate_resident(&self, pages: usize, purpose: Use) -> *mut Span {
        let mut inner = self.inner.lock();
        let span = inner.allocate_resident(self, pages);
        if !span.is_null() {
            // SAFETY: the run was taken out of the free lists; it is ours.
            let reused = unsafe {
                inner.put_to_use(self, span, purpose);
                inner.ranges_of_reused(span)
            };
            self.in_use.store(inner.in_use, Relaxed);
            drop(inner);
            if reused.0 < reused.1 {
                self.collapse_resident(reused);
            }
        }
        span
    }

    /// A span for one large block that is expected to grow: at the start of the longest free run,
    /// so that the pages behind it are free; one that is resident if it is long enough. Null: no memory.
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

    /// Takes back a span whose pages [`PageHeap::move_pages`] gave to another.
    ///
    /// # Safety
    /// As [`PageHeap::free`], and it is in this state; [`State::Unused`]: something of it is not mapped any more.
    pub unsafe fn free_moved(&self, span: *mut Span, state: State) {
        let mut inner = self.inner.lock();
        // SAFETY: the caller's duty.
        unsafe {
            if state == State::Unused {
                inner.lose(self, span);
            } else {
                inner.free(self, span, state);
            }
        }
        self.in_use.store(inner.in_use, Relaxed);
    }

    /// Says that there is much that an idle program should give back.
    pub fn ask_for_helper(&self) {
        if !self.helper_wanted.load(Relaxed) {
            self.helper_wanted.store(true, Relaxed);
        }
    }

    /// Somebody asked for a helper.
    #[inline]
    #[must_use]
    pub fn helper_wanted(&self) -> bool {
        self.helper_wanted.load(Relaxed)
    }

    /// Takes the request back.
    pub fn helper_answered(&self) {
        self.helper_wanted.store(false, Relaxed);
    }

    /// With `pages` more in use the heap would occupy more than before, or nearly, as far as its runs tell. Not said of young heaps, and not
    /// of those that are large enough for huge pages, which holes would split.
    pub(crate) fn is_highest(&self, pages: usize) -> bool {
        let mut inner = self.inner.lock();
        let now = inner.in_use + inner.dirty.pages + pages;
        let highest =
            (YOUNG..huge::LEAST_PAGES).contains(&now) && now + now / NEARLY > inner.most_resident;
        inner.most_resident = inner.most_resident.max(now);
        highest
    }

    /// Whether a free run of at least `pages` is resident.
    #[must_use]
    pub fn has_dirty_run(&self, pages: usize) -> bool {
        let inner = self.inner.lock();
        inner.dirty.best_fit(self.map.table(), pages) != 0
    }

    /// Bytes in spans that are in use, as of a moment ago.
    #[must_use]
    pub fn in_use_bytes(&self) -> usize {
        page_bytes(self.in_use.load(Relaxed))
    }

    /// Counts what another heap has in use towards this one's limits.
    pub(crate) fn count_beside<P>(&self, other: &'static PageHeap<P>) {
        self.limits.count_beside(&other.in_use);
    }

    /// Makes a large span `pages` long without moving it, or a little longer when it grows; false, and nothing has
    /// changed, if the pages behind are not free.
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
        inner.record_anywhere(self, bytes, 64)
    }

    /// See [`Inner::second_bitmap`].
    pub(crate) fn take_second_bitmap(&self, words: usize) -> u32 {
        self.inner.lock().second_bitmap(self, words)
    }

    /// Zeroed memory for a record that is never given back. Null: no memory.
    pub fn take_record(&self, bytes: usize, align: usize) -> *mut u8 {
        let mut inner = self.inner.lock();
        if !inner.prepare(self) {
            return null_mut();
        }
        inner.record(self, bytes, align)
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
    /// Places for 2 to the power of `width` addresses that were given back, or the first ones of some that are up to [`SPLIT_WIDTHS`] wider; the rest
    /// of those is for others. Null: there are none.
    fn used_places(&mut self, width: usize) -> *mut u8 {
        for wider in width..=(width + SPLIT_WIDTHS).min(PLACE_WIDTHS) {
            let places = self.places[wider - 1].take();
            if places.is_null() {
                continue;
            }
            for half in width..wider {
                // SAFETY: the places are ours and twice as wide at least; each part is given back once.
                unsafe { self.places[half - 1].give(places.add(size_of::<*mut u8>() << half)) };
            }
            return places;
        }
        null_mut()
    }
}

impl<O: Os> Places for PageHeap<O> {
    fn take_then(&self, width: u8, then: impl FnOnce(*mut *mut u8)) {
        let mut inner = self.inner.lock();
        if !inner.prepare(self) {
            return then(null_mut());
        }
        let mut places = inner.used_places(width as usize);
        if places.is_null() {
            let bytes = size_of::<*mut u8>() << width;
            places = inner.record_anywhere(self, bytes, bytes.min(64));
        }
        then(places.cast());
    }

    fn processors(&self) -> usize {
        self.os.processors()
    }

    unsafe fn give(&self, places: *mut *mut u8, width: u8) {
        // SAFETY: the caller's duty.
        unsafe { self.inner.lock().places[width as usize - 1].give(places.cast()) };
    }
}
