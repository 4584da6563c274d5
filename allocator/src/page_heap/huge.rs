//! Huge pages for heaps that the translation caches do not cover with small ones.
//!
//! A heap of tens of megabytes on pages of 4 KiB spends much of a program's time on misses of the TLB, and
//! on faults while it grows. Above 8 MiB in use, a range of 2 MiB is collapsed into a huge page
//! (`MADV_COLLAPSE`, Linux 6.1) when the heap has grown past it and nearly all of it is resident anyway, so
//! that little but the page tables changes. Above 16 MiB the range that the heap grows into is collapsed at
//! once, one fault for 512; what nobody uses of it is a small part of the heap then. It is asked for by the
//! call alone, no range is marked, so that the kernel's own thread does not bring back what is released
//! later.
//!
//! A range counts as resident when it is made of spans of objects and of dirty runs. Large blocks do not
//! count, and never get a huge page in advance: programs reserve them and use a part. Ranges are looked at
//! once, in the order of addresses, when the heap grows into the second one behind, as what was put to use
//! last may not have been touched yet.
//!
//! A large block that lies where others were before is different: pages that they touched are resident and
//! would be touched again and again. At the 16th such time, at twice as many and so on, the kernel is asked
//! whether a range in such a block is resident as a whole, and only then the range is collapsed. What is a huge
//! page already is only confirmed. Invariant: G1 every range below `next` has been looked at, or was when
//! the heap was small; G2 a range is collapsed in advance when the first span enters it, and at no other time.

use super::{Inner, PageHeap};
use crate::os::Os;
use crate::span::{Span, State};
use crate::units::{page_bytes, pages_for};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// `huge_pages`: 1 collapses, 0 does not.
pub static ENABLED: AtomicU32 = AtomicU32::new(1);

/// Bytes and pages of a range.
const RANGE_BYTES: usize = 2 << 20;
pub(super) const RANGE_PAGES: usize = pages_for(RANGE_BYTES);
/// Below this use the translation caches of today's CPUs do (1,500 to 3,000 entries).
const LEAST_PAGES: usize = pages_for(8 << 20);
/// From this use on, fresh memory comes as huge pages: at most 2 MiB more than is used are resident then.
const ADVANCE_PAGES: usize = pages_for(16 << 20);
/// Bytes of a range that may become resident by collapsing it.
const MAX_UNUSED: usize = RANGE_BYTES / 8;
/// Refusals in a row after which the system is not asked again.
const MAX_REFUSALS: u32 = 3;

/// The first large block that is looked at is that which is the 16th to take resident pages; then it is the 32nd, 64th ...
const FIRST_LOOK: u32 = 16;
/// ... and at the rarest every 4,096th: a look costs a microsecond a range.
const LAST_INTERVAL: u32 = 4096;
/// No more ranges of a block are looked at than this, so that the call is not held for long.
const MAX_RANGES: usize = 32;

/// How far the heap has been looked at.
#[derive(Debug)]
pub struct Huge {
    /// The range to look at next.
    next: usize,
    /// Ranges below this one have had fresh spans.
    frontier: usize,
    /// The first range that got its huge page in advance, as all behind it do.
    advanced: usize,
    /// Refusals since the last success.
    refusals: u32,
    /// Large blocks that took resident pages.
    reuses: u32,
}

impl Huge {
    /// Nothing looked at yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            frontier: 0,
            advanced: usize::MAX,
            refusals: 0,
            reuses: 0,
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
        if !fresh {
            return None;
        }
        let last = (end - 1) / RANGE_PAGES;
        let enters = last >= self.huge.frontier;
        self.huge.frontier = self.huge.frontier.max(last + 1);
        if self.in_use < LEAST_PAGES
            || self.huge.refusals >= MAX_REFUSALS
            || ENABLED.load(Relaxed) == 0
        {
            return None;
        }
        if enters && small && self.in_use >= ADVANCE_PAGES && (last + 1) * RANGE_PAGES <= self.grown
        {
            self.huge.advanced = self.huge.advanced.min(last);
            let address = heap.map.base() + page_bytes(last * RANGE_PAGES);
            // The kernel collapses only where a page is present.
            heap.os.touch(heap.map.base() + page_bytes(end - 1));
            return Some(address);
        }
        if (self.huge.next + 2) * RANGE_PAGES > end || self.huge.next >= self.huge.advanced {
            return None;
        }
        let range = self.huge.next;
        self.huge.next += 1;
        self.is_resident(heap, range * RANGE_PAGES)
            .then(|| heap.map.base() + page_bytes(range * RANGE_PAGES))
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

    /// All of the range of pages from `page` on is objects and dirty runs, and little of it was never
    /// used.
    fn is_resident<O: Os>(&self, heap: &PageHeap<O>, mut page: usize) -> bool {
        let end = page + RANGE_PAGES;
        let mut unused = 0;
        while page < end {
            // SAFETY: the heap has grown past the range; numbers in the map have records. An interior page
            // of a free run or a large block may carry an old number, whose record does not cover it.
            let span = unsafe {
                let span = heap.map.span_of_page(page);
                if span.is_null() {
                    return false;
                }
                &*span
            };
            let covers = (span.start..span.end()).contains(&(page as u32));
            if !covers || !matches!(span.state, State::Small | State::FreeDirty) {
                return false;
            }
            if span.state == State::Small && !span.needzero {
                unused += usize::from(span.objects - span.fresh) * span.size as usize;
            }
            page = span.end() as usize;
        }
        unused <= MAX_UNUSED
    }
}

impl<O: Os> PageHeap<O> {
    /// Collapses those ranges of pages that are resident, in a block that nobody uses yet.
    #[cold]
    pub(super) fn collapse_resident(&self, (first, last): (usize, usize)) {
        for page in (first..last).step_by(RANGE_PAGES) {
            let address = self.map.base() + page_bytes(page);
            if self.os.is_resident(address) {
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
    use crate::os::fake::FakeOs;
    use crate::page_heap::Use;
    use crate::size_class::class_of;

    const SPAN_PAGES: usize = 8;

    fn heap() -> Box<PageHeap<FakeOs>> {
        Box::new(PageHeap::new(FakeOs::new(64 << 20)))
    }

    /// Takes spans of objects, all of which were handed out, up to `bytes`.
    fn fill(heap: &PageHeap<FakeOs>, bytes: usize) {
        let class = class_of(64).expect("small") as u8;
        for _ in 0..bytes / page_bytes(SPAN_PAGES) {
            let span = heap.allocate(SPAN_PAGES, 1, Use::Small(class));
            assert!(!span.is_null());
            // SAFETY: the span is ours; no bit is set.
            unsafe { (*span).fresh = (*span).objects };
        }
    }

    fn asked(heap: &PageHeap<FakeOs>) -> Vec<(usize, usize)> {
        heap.os
            .collapses
            .lock()
            .expect("no test panics in there")
            .clone()
    }

    #[test]
    fn ranges_of_objects_are_collapsed_once_the_heap_is_large_and_past_them() {
        let heap = heap();
        let range = |number| (heap.map.base() + number * RANGE_BYTES, RANGE_BYTES);
        fill(&heap, 6 << 20);
        assert_eq!(asked(&heap), []);
        fill(&heap, 10 << 20);
        let behind: Vec<_> = (0..7).map(range).collect();
        assert_eq!(asked(&heap), behind, "all but the last");
        fill(&heap, 16 << 20);
        let mut all = asked(&heap);
        all.sort_unstable();
        assert_eq!(all, (0..16).map(range).collect::<Vec<_>>(), "each once");
        assert_eq!(heap.inner.lock().counters.huge_pages, 16);
    }

    #[test]
    fn a_large_heap_gets_huge_pages_in_advance_for_objects_only() {
        let heap = heap();
        fill(&heap, 20 << 20);
        let before = asked(&heap).len();
        assert!(!heap.allocate(4 * RANGE_PAGES, 1, Use::Large).is_null());
        assert_eq!(asked(&heap).len(), before, "for a large block none");
        fill(&heap, 2 * RANGE_BYTES);
        assert!(asked(&heap).len() > before);
    }

    #[test]
    fn ranges_with_large_blocks_holes_or_unused_objects_are_left_alone() {
        let heap = heap();
        let class = class_of(64).expect("small") as u8;
        let large = heap.allocate(SPAN_PAGES, 1, Use::Large);
        assert!(!large.is_null());
        fill(&heap, RANGE_BYTES);
        let hole = heap.allocate(SPAN_PAGES, 1, Use::Small(class));
        fill(&heap, RANGE_BYTES);
        for _ in 0..RANGE_BYTES / page_bytes(SPAN_PAGES) {
            assert!(!heap.allocate(SPAN_PAGES, 1, Use::Small(class)).is_null());
        }
        // SAFETY: the span is in use and empty.
        unsafe { heap.free(hole) };
        heap.release_free(0);
        // Longer spans, so that the hole stays.
        for _ in 0..200 {
            let span = heap.allocate(2 * SPAN_PAGES, 1, Use::Small(class));
            // SAFETY: as in `fill`.
            unsafe { (*span).fresh = (*span).objects };
        }
        let asked = asked(&heap);
        assert!(asked.len() > 4, "{asked:x?}");
        // The first range has the large block, the second the hole, the third what is unused.
        let first = heap.map.base() + 3 * RANGE_BYTES;
        assert!(
            asked.iter().all(|&(address, _)| address >= first),
            "{asked:x?}"
        );
    }

    #[test]
    fn large_blocks_on_used_pages_are_collapsed_where_all_of_a_range_is_resident() {
        let heap = heap();
        let pages = 4 * RANGE_PAGES;
        for turn in 1..=3 * FIRST_LOOK {
            let span = heap.allocate(pages, 1, Use::Large);
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
    }

    #[test]
    fn a_system_that_refuses_is_not_asked_for_ever() {
        let heap = heap();
        heap.os.refuse_collapses.store(true, Relaxed);
        fill(&heap, 32 << 20);
        assert_eq!(asked(&heap).len(), MAX_REFUSALS as usize);
        assert_eq!(heap.inner.lock().counters.huge_pages, 0);
    }
}
