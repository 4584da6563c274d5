//! Resident pages that nobody uses move under a large block, by the page tables.
//!
//! A large block for which no resident run is long enough gets pages that are not resident, and as much as exceeds what the
//! program needed at its peak is given back elsewhere ([`Inner::bound_resident`]): twenty buffers of 5 to 25 MiB, replaced at random,
//! seldom fit where others were. Each page then costs a system call's share and a page fault, half a microsecond to several on virtual machines. Moving it (`mremap` with `MREMAP_DONTUNMAP`,
//! Linux 5.7) costs 10 ns, and nothing is given back. So what would be given back goes under the block instead.
//!
//! Not for blocks that are to read as zero, and not in pieces for which the call costs as much as their faults. Where the system
//! refuses it is given back as before. Where it has unmapped the target before it refused and maps nothing anew, as under a limit that was set
//! below what is mapped, the pages move with their place, which is a hole from then on.

use super::pieces::{Pieces, TABLE_BYTES};
use super::{Inner, PageHeap};
use crate::os::{Moved, Os};
use crate::plant::{Plant, planted};
use crate::scavenger::timed;
use crate::span::{Span, State};
use crate::units::{OS_PAGE, page_bytes, pages_for};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// `move_pages`: 1 moves, 0 gives back.
pub static ENABLED: AtomicU32 = AtomicU32::new(1);

/// Pages that are moved at once at least: a move takes some 5 to 10 us, however long it is.
pub(super) const LEAST_PAGES: usize = pages_for(256 << 10);
/// Refusals in a row after which the system is asked seldom: valgrind and kernels before 5.7 always refuse.
const MAX_REFUSALS: u32 = 3;
const SELDOM: u32 = 64;
/// Pages of a run that are looked at.
const LOOKS: usize = 3;

/// What has been moved, and whether it can be.
#[derive(Debug)]
pub struct Moving {
    /// Null until something is moved.
    pieces: *mut Pieces,
    refusals: u32,
}

// SAFETY: the table is a record of the heap's that nobody else knows; it is read and written under the heap's lock.
unsafe impl Send for Moving {}

impl Moving {
    /// Nothing moved yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pieces: core::ptr::null_mut(),
            refusals: 0,
        }
    }

    fn pieces(&mut self) -> Option<&mut Pieces> {
        // SAFETY: null, or a record that is never given back.
        unsafe { self.pieces.as_mut() }
    }
}

impl Default for Moving {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a run is resident as far as some pages of it tell: blocks that nobody wrote to leave dirty runs, too.
fn was_written<O: Os>(heap: &PageHeap<O>, run: &Span) -> bool {
    let part = run.pages / LOOKS as u32;
    let mut looks = (0..LOOKS as u32).map(|look| run.start + look * part + part / 2);
    looks.all(|page| {
        let address = heap.map.address(page) as usize;
        heap.os.is_resident(address, OS_PAGE)
    })
}

fn range_of(span: &Span) -> Range<u32> {
    span.start..span.end()
}

impl Inner {
    /// Room for one more piece, which `range` becomes. False: nothing may be moved there.
    pub(super) fn expect_move<O: Os>(&mut self, heap: &PageHeap<O>, range: &Range<u32>) -> bool {
        if ENABLED.load(Relaxed) == 0 {
            return false;
        }
        if self.moving.refusals >= MAX_REFUSALS {
            self.moving.refusals += 1;
            if !self.moving.refusals.is_multiple_of(SELDOM) {
                return false;
            }
        }
        if self.moving.pieces.is_null() {
            self.moving.pieces = self.record(heap, TABLE_BYTES, align_of::<Pieces>()).cast();
        }
        match self.moving.pieces() {
            Some(pieces) if !pieces.is_full() => {
                // Before the kernel knows: borders that it does not have do no harm.
                pieces.note(range);
                true
            }
            _ => false,
        }
    }

    /// What came of a move. One that has cost its place counts as a refusal.
    pub(super) fn moved(&mut self, moved: Moved) -> Moved {
        self.moving.refusals = match self.moving.refusals {
            _ if moved == Moved::Yes => 0,
            few @ 0..MAX_REFUSALS => few + 1,
            many => many,
        };
        moved
    }

    /// Pages of which something is not mapped any more are a hole from now on.
    ///
    /// # Safety
    /// `span` is in no list and its pages are nobody's.
    #[cold]
    #[inline(never)]
    unsafe fn forget<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            let (address, bytes) = (heap.map.address((*span).start) as usize, (*span).bytes());
            // What is mapped of it yet is of no use.
            if !heap.os.unmap(address, bytes) {
                heap.os.purge(address, bytes);
            }
            let range = range_of(&*span);
            if let Some(pieces) = self.moving.pieces()
                && pieces.can_forget(&range)
            {
                pieces.forget(&range);
            }
            heap.map.forget((*span).start, (*span).pages);
            self.holes += (*span).pages as usize;
            self.drop_record(span);
        }
    }

    /// [`Inner::free`] of a large span of which something is not mapped any more.
    ///
    /// # Safety
    /// As [`PageHeap::free`].
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn lose<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            self.in_use -= (*span).pages as usize;
            self.counters.spans_freed += 1;
            self.forget(heap, span);
        }
    }

    /// Puts resident pages of free runs under `span` and gives back what is then still more than should be resident, `excess` pages
    /// in all.
    ///
    /// # Safety
    /// `span` is a clean run in no list.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn put_under<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        excess: usize,
    ) {
        // SAFETY: the caller's duty.
        unsafe {
            // In use, so that no run beside it joins it when it is given back.
            (*span).state = State::Large;
            let (moved, given) = self.move_under(heap, span, excess);
            self.release_beside(heap, excess.saturating_sub(moved + given));
            (*span).state = if moved > 0 {
                State::FreeDirty
            } else {
                State::FreeClean
            };
        }
    }

    /// Moves up to `most` resident pages of free runs under `span`, the longest runs first. Returns how many, and how many it gave
    /// back that are not worth it.
    ///
    /// # Safety
    /// `span` is in use, and reads as zero.
    unsafe fn move_under<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        most: usize,
    ) -> (usize, usize) {
        let table = self.table(heap);
        let (mut filled, mut given) = (0, 0);
        // SAFETY: numbers of the free lists have records; those pages and the caller's are nobody's.
        unsafe {
            let most = most.min((*span).pages as usize);
            while most.saturating_sub(filled + given) >= LEAST_PAGES {
                let id = self.dirty.longest();
                if id == 0 || ((*table.get(id)).pages as usize) < LEAST_PAGES {
                    break;
                }
                let run = table.get(id);
                let start = (*span).start + filled as u32;
                self.unlist(table, run);
                let pages = self.within_one_mapping(&range_of(&*run)) as usize;
                let pages = pages.min(most - filled - given);
                self.cut(heap, run, pages);
                if (*run).pages as usize != pages {
                    // There is no memory for a record.
                    self.free_run(heap, run, State::FreeDirty);
                    break;
                }
                if pages < LEAST_PAGES || !was_written(heap, &*run) {
                    if !self.give_back(heap, run) {
                        break;
                    }
                    given += pages;
                    continue;
                }
                let under = start..start + pages as u32;
                let place = |page: u32| heap.map.address(page) as usize;
                let moved = if self.expect_move(heap, &under) {
                    let (from, to) = (place((*run).start), place(start));
                    self.moved(heap.os.move_pages(from, to, page_bytes(pages)))
                } else {
                    Moved::No
                };
                if moved == Moved::No {
                    self.free_run(heap, run, State::FreeDirty);
                    break;
                }
                self.counters.moves += 1;
                filled += pages;
                self.huge.given_back(&*run);
                if moved == Moved::WithPlace {
                    self.forget(heap, run);
                    break;
                }
                if self
                    .moving
                    .pieces()
                    .is_some_and(|pieces| pieces.is_crowded())
                {
                    self.renew(heap, &range_of(&*run));
                }
                self.free_run(heap, run, State::FreeClean);
            }
        }
        self.counters.pages_moved += filled as u64;
        self.counters.pages_released += given as u64;
        self.counters.releases += u64::from(given > 0);
        (filled, given)
    }

    /// Pages at the start of a range that are one mapping of the kernel's.
    pub(super) fn within_one_mapping(&self, range: &Range<u32>) -> u32 {
        // SAFETY: null, or a record that is never given back.
        let end = match unsafe { self.moving.pieces.as_ref() } {
            Some(pieces) => pieces.end_of_mapping(range.start, range.end),
            None => range.end,
        };
        end - range.start
    }

    /// Gives a dirty run back to the system; false: refused, and it is in its list again.
    ///
    /// # Safety
    /// `run` is a dirty run in no list.
    pub(crate) unsafe fn give_back<O: Os>(&mut self, heap: &PageHeap<O>, run: *mut Span) -> bool {
        // SAFETY: the caller's duty.
        unsafe {
            let (address, bytes) = (heap.map.address((*run).start) as usize, (*run).bytes());
            let given = timed(&heap.os, |os| os.purge(address, bytes));
            if !given && !planted(Plant::RefusalOverlooked) {
                self.free_run(heap, run, State::FreeDirty);
                return false;
            }
            self.renew(heap, &range_of(&*run));
            self.huge.given_back(&*run);
            self.free_run(heap, run, State::FreeClean);
        }
        true
    }

    /// Makes what the kernel has in several mappings one again. Nobody needs what is there.
    fn renew<O: Os>(&mut self, heap: &PageHeap<O>, range: &Range<u32>) {
        if let Some(pieces) = self.moving.pieces()
            && pieces.touch(range)
            && pieces.can_forget(range)
            && heap.os.renew(
                heap.map.address(range.start) as usize,
                page_bytes(range.len()),
            )
        {
            pieces.forget(range);
        }
    }
}

impl<O: Os> PageHeap<O> {
    /// Gives all pages of one large span to another by the page tables. In which state the first is now, with which it is to
    /// be freed ([`PageHeap::free_moved`]), [`State::Unused`] if not all of it is mapped any more; `None`: that is not possible, and nothing has changed.
    ///
    /// # Safety
    /// Both spans are of this heap and in use by the caller.
    pub unsafe fn move_pages(&self, from: *mut Span, to: *mut Span) -> Option<State> {
        // SAFETY: the caller's duty.
        let (source, target) = unsafe {
            if (*to).pages < (*from).pages {
                return None;
            }
            (*to).needzero = true;
            (range_of(&*from), (*to).start)
        };
        let place = |page: u32| self.map.address(page);
        let mut done = 0;
        let mut place_lost = false;
        while done < source.len() as u32 {
            let (at, under) = (source.start + done, target + done);
            let expected = {
                let mut inner = self.inner.lock();
                let pages = inner.within_one_mapping(&(at..source.end));
                inner
                    .expect_move(self, &(under..under + pages))
                    .then_some(pages)
            };
            let moved = expected.filter(|&pages| {
                let (from, to) = (place(at) as usize, place(under) as usize);
                let moved = self.os.move_pages(from, to, page_bytes(pages as usize));
                place_lost |= moved == Moved::WithPlace;
                self.inner.lock().moved(moved) != Moved::No
            });
            match moved {
                Some(pages) => done += pages,
                None if done == 0 => return None,
                None => {
                    let rest = page_bytes((source.end - at) as usize);
                    // SAFETY: both spans are the caller's.
                    unsafe { place(under).copy_from_nonoverlapping(place(at), rest) };
                    break;
                }
            }
        }
        self.inner.lock().counters.moved_by_remap += 1;
        Some(if place_lost {
            State::Unused
        } else if done == source.len() as u32 {
            State::FreeClean
        } else {
            State::FreeDirty
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::{Block, Heap};
    use crate::os::fake::{Call, FakeOs};
    use crate::page_heap::Use;

    const MIB: usize = 1 << 20;
    /// What may stay resident and free beside a block that takes other pages: 64 KiB.
    const BESIDE: usize = pages_for(64 << 10);

    fn heap() -> Box<Heap<FakeOs>> {
        Box::new(Heap::new(FakeOs::new(256 << 20)))
    }

    fn span_of(heap: &Heap<FakeOs>, block: *mut u8) -> *mut Span {
        match heap.block_of(block) {
            Block::Large(span) => span,
            Block::Small(_) => panic!("large"),
        }
    }

    fn free(heap: &Heap<FakeOs>, block: *mut u8) {
        // SAFETY: the blocks of these tests are live and not used any more.
        unsafe { heap.pages.free(span_of(heap, block)) };
    }

    fn written(heap: &Heap<FakeOs>, mib: usize, stamp: u8) -> *mut u8 {
        let block = heap.allocate_large(mib * MIB, 1).0;
        // SAFETY: the block is ours and as long.
        unsafe { block.write_bytes(stamp, mib * MIB) };
        block
    }

    /// A free run of 2 MiB that was written, before a block in use.
    fn with_a_free_run() -> Box<Heap<FakeOs>> {
        let heap = heap();
        let run = written(&heap, 2, 7);
        let _in_use = heap.allocate_large(MIB, 1);
        free(&heap, run);
        heap
    }

    fn counted(heap: &Heap<FakeOs>) -> (u64, u64, u64) {
        let counters = heap.pages.inner.lock().counters;
        (
            counters.moves,
            counters.pages_moved,
            counters.pages_released,
        )
    }

    #[test]
    fn free_pages_go_under_a_block_that_fits_nowhere() {
        let heap = with_a_free_run();
        let (block, zero) = heap.allocate_large(3 * MIB, 1);
        let moved = pages_for(2 * MIB) - BESIDE;
        assert_eq!(counted(&heap), (1, moved as u64, 0));
        assert!(!zero);
        // SAFETY: the block is ours.
        let byte = |page: usize| unsafe { *block.add(page_bytes(page)) };
        assert_eq!((byte(0), byte(moved - 1), byte(moved)), (7, 7, 0));
        heap.check_invariants();
        let inner = heap.pages.inner.lock();
        assert_eq!(inner.dirty.pages, BESIDE);
    }

    #[test]
    fn a_block_of_zeros_gets_no_used_pages() {
        let heap = with_a_free_run();
        let (_, zero) = heap.allocate_large_after(3 * MIB, 1, Use::Zeros, || ());
        let given = (pages_for(2 * MIB) - BESIDE) as u64;
        assert_eq!((counted(&heap), zero), ((0, 0, given), true));
    }

    #[test]
    fn pages_that_nobody_wrote_are_given_back_and_nothing_is_learnt_from_it() {
        let heap = heap();
        let run = heap.allocate_large(2 * MIB, 1).0;
        let _in_use = heap.allocate_large(MIB, 1);
        free(&heap, run);
        let (_, zero) = heap.allocate_large(3 * MIB, 1);
        let given = (pages_for(2 * MIB) - BESIDE) as u64;
        assert_eq!((counted(&heap), zero), ((0, 0, given), true));
        assert_eq!(heap.pages.inner.lock().learnt_pages(), 0);
        heap.check_invariants();
    }

    #[test]
    fn short_runs_are_left_alone() {
        const BETWEEN: usize = 40 << 10;
        let heap = heap();
        let runs: Vec<*mut u8> = (0..20)
            .flat_map(|_| [200 << 10, BETWEEN])
            .map(|bytes| heap.allocate_large(bytes, 1).0)
            .collect();
        for &run in runs.iter().step_by(2) {
            // SAFETY: as long.
            unsafe { run.write_bytes(1, 200 << 10) };
            free(&heap, run);
        }
        let _long = heap.allocate_large(4 * MIB, 1);
        let (moves, _, released) = counted(&heap);
        assert_eq!(moves, 0);
        assert!(released > 0);
    }

    #[test]
    fn where_a_move_is_refused_everything_is_given_back() {
        let heap = with_a_free_run();
        heap.pages.os[Call::Move].allow(0);
        let (block, zero) = heap.allocate_large(3 * MIB, 1);
        let given = (pages_for(2 * MIB) - BESIDE) as u64;
        assert_eq!((counted(&heap), zero), ((0, 0, given), true));
        // SAFETY: the block is ours.
        assert_eq!(unsafe { *block }, 0);
        heap.check_invariants();
    }

    /// From now on no more may be mapped than half of what is.
    fn limit_below_what_is_mapped(heap: &Heap<FakeOs>) {
        let os = &heap.pages.os;
        os.limit.store(os.mapped.load(Relaxed) / 2, Relaxed);
    }

    #[test]
    fn where_nothing_is_mapped_anew_pages_move_with_their_place() {
        let heap = with_a_free_run();
        assert!(
            heap.pages
                .inner
                .lock()
                .grow(&heap.pages, pages_for(4 * MIB))
        );
        limit_below_what_is_mapped(&heap);
        let (block, _) = heap.allocate_large(3 * MIB, 1);
        // SAFETY: the block is ours.
        unsafe { block.write_bytes(7, 3 * MIB) };
        let moved = counted(&heap).1 as usize;
        assert!(moved >= LEAST_PAGES);
        assert_eq!(heap.check_invariants().holes, moved);
        free(&heap, block);
        heap.trim(0);
        assert_eq!(heap.check_invariants().holes, moved);
    }

    #[test]
    fn a_block_of_which_a_place_was_lost_leaves_a_hole() {
        // As many moves as are not refused: all, or the first one, so that the rest is copied.
        for allowed in [usize::MAX, 1] {
            let heap = with_a_free_run();
            let from = heap.allocate_large(3 * MIB, 1).0;
            for page in 0..3 * MIB / OS_PAGE {
                // SAFETY: the block is ours.
                unsafe { from.add(page * OS_PAGE).write(page as u8) };
            }
            let to = heap.allocate_growing(5 * MIB, || ()).0;
            limit_below_what_is_mapped(&heap);
            heap.pages.os[Call::Move].allow(allowed);
            let (source, target) = (span_of(&heap, from), span_of(&heap, to));
            // SAFETY: both are ours.
            let state = unsafe { heap.pages.move_pages(source, target) };
            assert_eq!(state, Some(State::Unused));
            for page in 0..3 * MIB / OS_PAGE {
                // SAFETY: the block has the contents.
                assert_eq!(unsafe { *to.add(page * OS_PAGE) }, page as u8);
            }
            // SAFETY: its contents have gone.
            let pages = unsafe {
                let pages = (*source).pages as usize;
                heap.pages.free_moved(source, State::Unused);
                pages
            };
            assert_eq!(heap.check_invariants().holes, pages);
            free(&heap, to);
            heap.trim(0);
            heap.check_invariants();
        }
    }

    #[test]
    fn who_always_refuses_is_asked_seldom() {
        let heap = with_a_free_run();
        let mut inner = heap.pages.inner.lock();
        let mut asks = |refused: bool| {
            let asked = inner.expect_move(&heap.pages, &(0..LEAST_PAGES as u32));
            if asked {
                inner.moved(if refused { Moved::No } else { Moved::Yes });
            }
            asked
        };
        assert_eq!((0..3).filter(|_| asks(true)).count(), 3);
        assert_eq!((0..640).filter(|_| asks(true)).count(), 10);
        while !asks(false) {}
        assert!(asks(true) && asks(true), "once it has granted one");
    }

    #[test]
    fn what_has_moved_is_moved_again_by_its_mappings_and_mapped_anew_when_it_is_given_back() {
        let heap = with_a_free_run();
        let block = heap.allocate_large(3 * MIB, 1).0;
        // SAFETY: the block is ours.
        unsafe { block.write_bytes(9, 3 * MIB) };
        let _in_use = heap.allocate_large(MIB, 1);
        free(&heap, block);
        assert_eq!(counted(&heap).0, 1);
        let (longer, _) = heap.allocate_large(4 * MIB, 1);
        // The piece that came from elsewhere, and what lies behind it.
        assert_eq!(counted(&heap).0, 3);
        // SAFETY: the block is ours.
        let byte = |page: usize| unsafe { *longer.add(page_bytes(page)) };
        let all = pages_for(3 * MIB);
        assert_eq!((byte(0), byte(all - 1), byte(all)), (9, 9, 0));
        assert_eq!(heap.pages.os[Call::Renew].made(), 0);
        // SAFETY: the block is live.
        let range = unsafe { range_of(&*span_of(&heap, longer)) };
        free(&heap, longer);
        heap.trim(0);
        assert!(heap.pages.os[Call::Renew].made() > 0);
        heap.check_invariants();
        let mut inner = heap.pages.inner.lock();
        assert!(!inner.moving.pieces().expect("moved").touch(&range));
    }

    #[test]
    fn what_has_moved_away_is_mapped_anew_where_there_are_many_pieces() {
        for crowded in [false, true] {
            let heap = with_a_free_run();
            let piece = {
                let mut inner = heap.pages.inner.lock();
                // SAFETY: the run is in its list.
                let start = unsafe { (*inner.table(&heap.pages).get(inner.dirty.longest())).start };
                let piece = start..start + LEAST_PAGES as u32;
                assert!(inner.expect_move(&heap.pages, &piece));
                let mut far = inner.grown as u32 + 10_000;
                let pieces = inner.moving.pieces().expect("just made");
                while crowded && !pieces.is_crowded() {
                    pieces.note(&(far..far + 1));
                    far += 2;
                }
                piece
            };
            let _block = heap.allocate_large(3 * MIB, 1);
            assert_eq!(counted(&heap).0, 2, "the piece, and what lies behind it");
            assert_eq!(heap.pages.os[Call::Renew].made() > 0, crowded);
            let mut inner = heap.pages.inner.lock();
            assert_eq!(
                inner.moving.pieces().expect("noted").touch(&piece),
                !crowded
            );
        }
    }

    #[test]
    fn a_block_of_several_mappings_moves_whole_and_is_copied_where_a_move_is_refused() {
        for allowed in [usize::MAX, 1, 0] {
            let heap = with_a_free_run();
            let from = heap.allocate_large(3 * MIB, 1).0;
            for page in 0..3 * MIB / OS_PAGE {
                // SAFETY: the block is ours.
                unsafe { from.add(page * OS_PAGE).write(page as u8) };
            }
            let to = heap.allocate_growing(5 * MIB, || ()).0;
            heap.pages.os[Call::Move].allow(allowed);
            let (source, target) = (span_of(&heap, from), span_of(&heap, to));
            // SAFETY: both are ours.
            let state = unsafe { heap.pages.move_pages(source, target) };
            let expected = match allowed {
                0 => None,
                1 => Some(State::FreeDirty),
                _ => Some(State::FreeClean),
            };
            assert_eq!(state, expected);
            let holder = if state.is_none() { from } else { to };
            for page in 0..3 * MIB / OS_PAGE {
                // SAFETY: one of them has the contents.
                assert_eq!(unsafe { *holder.add(page * OS_PAGE) }, page as u8);
            }
            if let Some(state) = state {
                // SAFETY: its contents have gone.
                unsafe { heap.pages.free_moved(source, state) };
            }
            heap.check_invariants();
        }
    }
}
