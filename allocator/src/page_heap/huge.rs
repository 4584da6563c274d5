//! Huge pages for heaps that the translation caches do not cover with small ones.
//!
//! A heap of tens of megabytes on pages of 4 KiB spends much of a program's time on faults while it grows and
//! on misses of the TLB. Above 8 MiB in use, the range of 2 MiB that the heap grows into is collapsed into a
//! huge page (`MADV_COLLAPSE`, Linux 6.1) as soon as what would become resident by it, unused, is at most a
//! 16th of what is in use (a 64th where the class that asks replaces its objects): at 8 MiB a quarter of the
//! range is not faulted in page by page any more, from 32 MiB on all but its first page. It is asked for by the
//! call alone, no range is marked, so that the kernel's own thread does not bring back what is released later.
//!
//! Ranges that the heap had grown past before it was that large are looked at one by one when it grows further
//! after a decay window: their faults are paid for, and only a program that lives longer earns the copy back.
//!
//! What counts as resident is spans of objects, as far as they were handed out, and dirty runs. Large blocks
//! do not: programs reserve them and use a part.
//!
//! A large block that lies where others were before is different: pages that they touched are resident and
//! would be touched again and again. At the 16th such time, at twice as many and so on, the kernel is asked
//! whether a range in such a block is resident as a whole, and only then the range is collapsed. What is a huge
//! page already is only confirmed.
//!
//! Giving back a part of a huge page splits it: all of its range is on small pages from then on, contiguous as long as
//! few of them change, scattered later. So what has to be given back a little at a time is taken where a range is on
//! small pages anyway, if there is such. Invariant: G1 every range below `next` was collapsed or given up, none
//! above it was.

use super::{Inner, PageHeap, Use};
use crate::os::Os;
use crate::size_class::size_of_class;
use crate::span::{Span, State};
use crate::units::{page_bytes, pages_for};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// `huge_pages`: 1 collapses, 0 does not.
pub static ENABLED: AtomicU32 = AtomicU32::new(1);

/// Bytes and pages of a range.
const RANGE_BYTES: usize = 2 << 20;
pub(crate) const RANGE_PAGES: usize = pages_for(RANGE_BYTES);
/// Below this use there are no huge pages: the translation caches of today's CPUs cover it (1,500 to 3,000
/// entries), and collapsing would cost as much as the faults that it spares.
pub(super) const LEAST_PAGES: usize = pages_for(8 << 20);
/// This part of what is in use may become resident, unused, by collapsing a range.
const UNUSED_SHARE: usize = 16;
/// The same when a class asks that replaces its objects.
const REPLACING_SHARE: usize = 64;
/// For how long the heap has been large when ranges left behind are looked at.
const SETTLED_MS: u64 = 1000;
/// Refusals in a row after which the system is not asked again.
const MAX_REFUSALS: u32 = 3;

/// The first large block that is looked at is that which is the 16th to take resident pages; then it is the 32nd, 64th ...
const FIRST_LOOK: u32 = 16;
/// ... and at the rarest every 4,096th: a look costs a microsecond a range.
const LAST_INTERVAL: u32 = 4096;
/// Ranges of which it is known whether they are whole: the first 2 GiB, 128 bytes of bits.
const KNOWN_RANGES: usize = 1024;
/// No more ranges of a block are looked at than this, so that the call is not held for long.
const MAX_RANGES: usize = 32;

/// How far the heap has been looked at.
#[derive(Debug)]
pub struct Huge {
    /// Ranges below this one are collapsed or given up, but for those left behind.
    next: usize,
    /// The next range to look at of those that the heap had grown past when it became large ...
    behind: usize,
    /// ... and the first that it had not.
    behind_end: usize,
    /// Milliseconds of the clock when the heap became large, 0: it has not.
    large_since: u64,
    /// Refusals since the last success.
    refusals: u32,
    /// Large blocks that took resident pages.
    reuses: u32,
    /// A bit for each range that was collapsed and of which nothing was given back since.
    whole: [u64; KNOWN_RANGES / 64],
}

impl Huge {
    /// Nothing looked at yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            behind: 0,
            behind_end: 0,
            large_since: 0,
            refusals: 0,
            reuses: 0,
            whole: [0; KNOWN_RANGES / 64],
        }
    }

    /// Ranges that a run touches, of those that are known.
    fn ranges_of(span: &Span) -> core::ops::Range<usize> {
        let last = (span.end() as usize).div_ceil(RANGE_PAGES);
        span.start as usize / RANGE_PAGES..last.min(KNOWN_RANGES)
    }

    fn is_whole(&self, range: usize) -> bool {
        self.whole[range / 64] >> (range % 64) & 1 != 0
    }

    /// Giving back the run would split a huge page.
    pub(crate) fn splits(&self, span: &Span) -> bool {
        Self::ranges_of(span).any(|range| self.is_whole(range))
    }

    /// Some of the `bytes` that are `offset` behind the start of the heap are on a huge page.
    pub(super) fn holds(&self, offset: usize, bytes: usize) -> bool {
        let end = (offset + bytes).div_ceil(RANGE_BYTES).min(KNOWN_RANGES);
        (offset / RANGE_BYTES..end).any(|range| self.is_whole(range))
    }

    /// The run was given back.
    pub(crate) fn given_back(&mut self, span: &Span) {
        for range in Self::ranges_of(span) {
            self.whole[range / 64] &= !(1 << (range % 64));
        }
    }
}

impl Default for Huge {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// The range that should be collapsed now that `span` was put to use, if there is one.
    ///
    /// # Safety
    /// `span` is in use.
    pub(super) unsafe fn range_to_collapse<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *const Span,
        purpose: Use,
    ) -> Option<usize> {
        // SAFETY: the caller's duty.
        let (end, fresh, small) = unsafe {
            let span = &*span;
            (
                span.end() as usize,
                !span.needzero,
                span.state == State::Small,
            )
        };
        if !fresh
            || !small
            || self.in_use < LEAST_PAGES
            || self.huge.refusals >= MAX_REFUSALS
            || ENABLED.load(Relaxed) == 0
        {
            return None;
        }
        let address = |range: usize| heap.map.base() + page_bytes(range * RANGE_PAGES);
        let range = (end - 1) / RANGE_PAGES;
        let share = match purpose {
            Use::Replacing(_) => REPLACING_SHARE,
            _ => UNUSED_SHARE,
        };
        let limit = page_bytes(self.in_use) / share;
        let now = heap.os.now_ms();
        if self.huge.large_since == 0 {
            self.huge.large_since = now.max(1);
            (self.huge.behind_end, self.huge.next) = (range, range);
        }
        if range >= self.huge.next
            && (range + 1) * RANGE_PAGES <= self.grown
            && self.is_used(heap, range, end, limit)
        {
            // The kernel collapses only where a page is present.
            heap.os.touch(heap.map.base() + page_bytes(end - 1));
            self.huge.next = range + 1;
            return Some(address(range));
        }
        if self.huge.behind < self.huge.behind_end && now >= self.huge.large_since + SETTLED_MS {
            let range = self.huge.behind;
            self.huge.behind += 1;
            return self
                .is_used(heap, range, (range + 1) * RANGE_PAGES, limit)
                .then(|| address(range));
        }
        None
    }

    /// First and last page of the ranges in the large block `span` that should be collapsed if they are resident; the
    /// same page twice: none.
    ///
    /// # Safety
    /// `span` is in use.
    pub(super) unsafe fn ranges_of_reused(&mut self, span: *const Span) -> (usize, usize) {
        // SAFETY: the caller's duty.
        let (start, end, dirty, state) = unsafe {
            let span = &*span;
            (
                span.start as usize,
                span.end() as usize,
                span.needzero,
                span.state,
            )
        };
        let first = start.next_multiple_of(RANGE_PAGES);
        let last = (end / RANGE_PAGES * RANGE_PAGES).min(first + MAX_RANGES * RANGE_PAGES);
        if state != State::Large || !dirty || last <= first {
            return (0, 0);
        }
        self.huge.reuses = self.huge.reuses.wrapping_add(1);
        let count = self.huge.reuses;
        let now =
            count >= FIRST_LOOK && (count.is_power_of_two() || count.is_multiple_of(LAST_INTERVAL));
        if !now || self.huge.refusals >= MAX_REFUSALS || ENABLED.load(Relaxed) == 0 {
            return (0, 0);
        }
        (first, last)
    }

    /// The kernel has the range in one mapping. It collapses no other, and what it refused three times it is not asked for again.
    fn is_one_mapping(&self, range: usize) -> bool {
        let first = (range * RANGE_PAGES) as u32;
        let pages = RANGE_PAGES as u32;
        self.within_one_mapping(&(first..first + pages)) == pages
    }

    /// The range is one mapping, and objects and dirty runs up to page `end`, and no more than `limit` bytes of it would become resident
    /// unused.
    fn is_used<O: Os>(&self, heap: &PageHeap<O>, range: usize, end: usize, limit: usize) -> bool {
        if !self.is_one_mapping(range) {
            return false;
        }
        let mut unused = page_bytes((range + 1) * RANGE_PAGES - end);
        let mut page = range * RANGE_PAGES;
        while page < end && unused <= limit {
            // SAFETY: the heap has grown past `end`; numbers in the map have records. An interior page
            // of a free run or a large block may carry an old number, whose record does not cover it.
            unsafe {
                let span = heap.map.span_of_page(page);
                if span.is_null() {
                    return false;
                }
                // Of a small span the lock of its class guards the rest (S3).
                let (start, end, state) =
                    ((*span).start, (*span).start + (*span).pages, (*span).state);
                let covers = (start..end).contains(&(page as u32));
                if !covers || !matches!(state, State::Small | State::FreeDirty) {
                    return false;
                }
                if state == State::Small && !(*span).needzero {
                    let never = (*span).objects - (*span).fresh.load(Relaxed);
                    unused += usize::from(never) * size_of_class((*span).class.into());
                }
                page = end as usize;
            }
        }
        unused <= limit
    }
}

impl<O: Os> PageHeap<O> {
    /// Collapses those ranges of pages that are resident, in a block that nobody uses yet.
    #[cold]
    pub(super) fn collapse_resident(&self, (first, last): (usize, usize)) {
        for page in (first..last).step_by(RANGE_PAGES) {
            let address = self.map.base() + page_bytes(page);
            let one = self.inner.lock().is_one_mapping(page / RANGE_PAGES);
            if one && self.os.is_resident(address, RANGE_BYTES) {
                self.collapse(address);
            }
        }
    }

    /// Collapses the range at `address`. The lock is not held: whatever happens to the range meanwhile, its
    /// contents stay what they are.
    #[cold]
    pub(super) fn collapse(&self, address: usize) {
        let done = self.os.collapse(address, RANGE_BYTES);
        let mut inner = self.inner.lock();
        if done {
            let range = (address - self.map.base()) / RANGE_BYTES;
            if range < KNOWN_RANGES {
                inner.huge.whole[range / 64] |= 1 << (range % 64);
            }
            inner.huge.refusals = 0;
            inner.counters.huge_pages += 1;
        } else {
            inner.huge.refusals += 1;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::Heap;
    use crate::os::fake::{Call, FakeOs};
    use crate::size_class::class_of;

    const SPAN_PAGES: usize = 8;
    const LEAST: usize = page_bytes(LEAST_PAGES);

    fn heap() -> Box<PageHeap<FakeOs>> {
        Box::new(PageHeap::new(FakeOs::new(64 << 20)))
    }

    /// Takes spans of objects, all of which were handed out, up to `bytes`.
    fn fill(heap: &PageHeap<FakeOs>, bytes: usize) {
        fill_for(heap, bytes, Use::Small);
    }

    fn fill_for(heap: &PageHeap<FakeOs>, bytes: usize, purpose: fn(u8) -> Use) {
        let class = class_of(64).expect("small") as u8;
        for _ in 0..bytes / page_bytes(SPAN_PAGES) {
            let span = heap.allocate(SPAN_PAGES, 1, purpose(class));
            assert!(!span.is_null());
            // SAFETY: the span is ours; no bit is set.
            unsafe { (*span).hand_out((*span).objects) };
        }
    }

    fn asked(heap: &PageHeap<FakeOs>) -> Vec<(usize, usize)> {
        heap.os
            .collapses
            .lock()
            .expect("no test panics in there")
            .clone()
    }

    fn range(heap: &PageHeap<FakeOs>, number: usize) -> (usize, usize) {
        (heap.map.base() + number * RANGE_BYTES, RANGE_BYTES)
    }

    #[test]
    fn a_range_is_collapsed_once_what_is_left_of_it_is_a_small_part_of_the_heap() {
        let heap = heap();
        fill(&heap, LEAST - page_bytes(SPAN_PAGES));
        assert_eq!(asked(&heap), []);
        fill(&heap, page_bytes(SPAN_PAGES));
        assert_eq!(asked(&heap), [range(&heap, 3)], "nothing is left of it");
        // A 16th of 9.5 MiB is left of the range when so much of it is used, with the span that is new.
        fill(&heap, (3 << 19) - page_bytes(SPAN_PAGES));
        assert_eq!(asked(&heap).len(), 1);
        fill(&heap, page_bytes(SPAN_PAGES));
        assert_eq!(asked(&heap)[1..], [range(&heap, 4)]);
        fill(&heap, 34 << 20);
        let all: Vec<_> = (3..20).map(|number| range(&heap, number)).collect();
        assert_eq!(asked(&heap)[..all.len()], all, "each once, in order");
        let before = asked(&heap).len();
        fill(&heap, RANGE_BYTES);
        let first = range(&heap, before + 3);
        assert_eq!(asked(&heap)[before..], [first], "at its first span");
        assert_eq!(heap.inner.lock().counters.huge_pages, before as u64 + 1);
    }

    #[test]
    fn for_a_class_that_replaces_its_objects_less_of_a_range_may_be_unused() {
        let heap = heap();
        fill(&heap, 16 << 20);
        let before = asked(&heap).len();
        // A 64th of 17.8 MiB is left of the range when more than 1.75 MiB of it are used, with the span that is new.
        fill_for(&heap, 7 << 18, Use::Replacing);
        assert_eq!(asked(&heap).len(), before);
        fill_for(&heap, page_bytes(SPAN_PAGES), Use::Replacing);
        assert_eq!(asked(&heap)[before..], [range(&heap, 8)]);
        // A 16th of 19 MiB for another one.
        fill(&heap, RANGE_BYTES);
        assert_eq!(asked(&heap)[before + 1..], [range(&heap, 9)]);
    }

    /// What is in use when the second range is collapsed, in a heap whose objects were all replaced once or never.
    fn in_use_at_second(replaced: bool) -> usize {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let class = class_of(1024).expect("small");
        let take = |bytes| {
            let mut objects = Vec::new();
            while heap.pages.in_use_bytes() < bytes {
                objects.push(heap.take_one(class).0);
            }
            objects
        };
        let objects = take(LEAST - RANGE_BYTES / 2);
        if replaced {
            // SAFETY: the objects are ours.
            unsafe { heap.give(class, &objects) };
        }
        let mut bytes = LEAST;
        while asked(&heap.pages).len() < 2 {
            take(bytes);
            bytes += page_bytes(1);
        }
        heap.check_invariants();
        heap.pages.in_use_bytes()
    }

    #[test]
    fn a_class_replaces_its_objects_when_many_came_back() {
        let [growing, replacing] = [false, true].map(in_use_at_second);
        assert!(growing + (1 << 18) < replacing, "{growing} {replacing}");
        assert!(replacing < LEAST + RANGE_BYTES + (1 << 18), "{replacing}");
    }

    #[test]
    fn ranges_left_behind_are_collapsed_when_the_heap_has_been_large_for_a_while() {
        let heap = heap();
        fill(&heap, LEAST + RANGE_BYTES);
        let before = asked(&heap);
        heap.os.clock_ms.store(2 * SETTLED_MS, Relaxed);
        fill(&heap, RANGE_BYTES);
        let mut more = asked(&heap).split_off(before.len());
        more.retain(|&(address, _)| address < range(&heap, 3).0);
        assert_eq!(more, [0, 1, 2].map(|number| range(&heap, number)));
    }

    #[test]
    fn a_large_block_gets_no_huge_page_in_advance() {
        let heap = heap();
        fill(&heap, 20 << 20);
        let before = asked(&heap).len();
        assert!(!heap.allocate(4 * RANGE_PAGES, 1, Use::Large).is_null());
        assert_eq!(asked(&heap).len(), before);
        fill(&heap, 2 * RANGE_BYTES);
        assert!(asked(&heap).len() > before);
    }

    #[test]
    fn ranges_with_large_blocks_holes_or_unused_objects_are_left_alone() {
        let heap = heap();
        let class = class_of(64).expect("small") as u8;
        fill(&heap, LEAST);
        let large = heap.allocate(SPAN_PAGES, 1, Use::Large);
        assert!(!large.is_null());
        fill(&heap, RANGE_BYTES);
        let hole = heap.allocate(SPAN_PAGES, 1, Use::Small(class));
        fill(&heap, page_bytes(SPAN_PAGES));
        // SAFETY: the span is in use and empty.
        unsafe { heap.free(hole) };
        heap.release_free(0);
        // Longer spans, so that the hole stays.
        for _ in 0..RANGE_BYTES / page_bytes(2 * SPAN_PAGES) {
            let span = heap.allocate(2 * SPAN_PAGES, 1, Use::Small(class));
            // SAFETY: as in `fill`.
            unsafe { (*span).hand_out((*span).objects) };
        }
        // What is never handed out.
        for _ in 0..RANGE_BYTES / page_bytes(SPAN_PAGES) {
            assert!(!heap.allocate(SPAN_PAGES, 1, Use::Small(class)).is_null());
        }
        fill(&heap, 4 * RANGE_BYTES);
        let asked = asked(&heap).split_off(1);
        assert!(asked.len() > 2, "{asked:x?}");
        // The fifth range has the large block, the sixth the hole, the next what is unused.
        let first = range(&heap, 7).0;
        assert!(
            asked.iter().all(|&(address, _)| address >= first),
            "{asked:x?} {first:x}"
        );
    }

    #[test]
    fn large_blocks_on_used_pages_are_collapsed_where_all_of_a_range_is_resident() {
        let heap = heap();
        let pages = 4 * RANGE_PAGES;
        for turn in 1..=3 * FIRST_LOOK {
            // Both ways count.
            let span = if turn % 2 == 1 {
                heap.allocate(pages, 1, Use::Large)
            } else {
                heap.allocate_resident(pages, Use::Large)
            };
            // SAFETY: the block is ours. Its third range stays untouched but for one page.
            unsafe {
                assert_eq!((*span).start, 0);
                let block = heap.map.address(0);
                for range in [0, 1, 3] {
                    block
                        .add(range * RANGE_BYTES)
                        .write_bytes(turn as u8, RANGE_BYTES);
                }
                block.add(2 * RANGE_BYTES).write(1);
                heap.free(span);
            }
        }
        let first = heap.map.base();
        let ranges = [0, 1, 3].map(|range| (first + range * RANGE_BYTES, RANGE_BYTES));
        // The first block has fresh pages, so the sixteenth to take resident ones is the seventeenth; the 32nd is the last here.
        assert_eq!(asked(&heap), [ranges, ranges].concat());
        // Of ranges that are several mappings the kernel is not asked.
        let within = 3..RANGE_PAGES as u32 + 3;
        assert!(heap.inner.lock().expect_move(&heap, &within));
        heap.collapse_resident((0, pages));
        assert_eq!(asked(&heap)[6..], [ranges[2]]);
    }

    #[test]
    fn what_is_given_back_bit_by_bit_comes_from_ranges_on_small_pages() {
        let heap = heap();
        let class = class_of(64).expect("small") as u8;
        let mut spans = Vec::new();
        while heap.inner.lock().in_use < pages_for(40 << 20) {
            let span = heap.allocate(SPAN_PAGES, 1, Use::Small(class));
            // SAFETY: as in `fill`.
            unsafe { (*span).hand_out((*span).objects) };
            spans.push(span);
        }
        let huge = |span: *mut Span| heap.inner.lock().huge.splits(record(span));
        assert!(!huge(spans[1]) && huge(spans[spans.len() / 2]) && huge(spans[spans.len() / 4]));
        // A longer free run on a huge page, a shorter one on small pages.
        let middle = spans.len() / 2;
        // SAFETY: the spans are in use and empty.
        unsafe {
            for at in [1, 3, middle, middle + 1] {
                heap.free(spans[at]);
            }
        }
        let mut inner = heap.inner.lock();
        assert_eq!(inner.dirty.pages, 4 * SPAN_PAGES);
        assert_eq!(inner.release(&heap, 1), SPAN_PAGES);
        assert_eq!(inner.release(&heap, 1), SPAN_PAGES);
        assert!(inner.huge.splits(record(spans[middle])), "not touched");
        // Nothing else is left: the huge page is split, and known to be.
        assert_eq!(inner.release(&heap, 1), 2 * SPAN_PAGES);
        assert!(!inner.huge.splits(record(spans[middle])));
    }

    fn record<'a>(span: *mut Span) -> &'a Span {
        // SAFETY: records stay mapped.
        unsafe { &*span }
    }

    #[test]
    fn a_system_that_refuses_is_not_asked_for_ever() {
        let heap = heap();
        heap.os[Call::Collapse].allow(0);
        fill(&heap, 32 << 20);
        assert_eq!(asked(&heap).len(), MAX_REFUSALS as usize);
        assert_eq!(heap.inner.lock().counters.huge_pages, 0);
    }

    #[test]
    fn a_range_of_several_mappings_is_not_asked_for() {
        let heap = heap();
        fill(&heap, LEAST);
        let before = asked(&heap).len();
        {
            let mut inner = heap.inner.lock();
            let first = 5 * RANGE_PAGES as u32;
            assert!(inner.expect_move(&heap, &(first + 3..first + 9)));
        }
        fill(&heap, 3 * RANGE_BYTES);
        let expected: Vec<_> = [4, 6].map(|number| range(&heap, number)).into();
        assert_eq!(asked(&heap)[before..], expected);
    }
}
