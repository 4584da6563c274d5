//! Memory for the allocator's own records: bump allocation that is never given back (Go's
//! persistentalloc) and free lists of fixed-size records on top of it (Go's fixalloc).
//!
//! Nothing here locks; everything belongs to the page heap's lock.

use crate::os::{Mapped, Os};
use crate::units::{OS_PAGE, round_up};
use core::ops::Range;
use core::ptr::{null_mut, with_exposed_provenance_mut};

/// A part of the planned address space that is mapped as far as needed, from its start upwards or downwards.
#[derive(Debug)]
pub struct Section {
    start: usize,
    mapped: usize,
    limit: usize,
    down: bool,
}

impl Section {
    /// A section that does not exist yet.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            start: 0,
            mapped: 0,
            limit: 0,
            down: false,
        }
    }

    /// A section of `limit` bytes at `start`, nothing of it mapped.
    #[must_use]
    pub const fn new(start: usize, limit: usize) -> Self {
        Self {
            start,
            mapped: 0,
            limit,
            down: false,
        }
    }

    /// A section of `limit` bytes below `start`, nothing of it mapped.
    #[must_use]
    pub const fn below(start: usize, limit: usize) -> Self {
        Self {
            start,
            mapped: 0,
            limit,
            down: true,
        }
    }

    /// Maps the section at least `bytes` far, in steps of `step`. False: no memory.
    #[must_use]
    pub fn ensure<O: Os>(&mut self, os: &O, bytes: usize, step: usize) -> bool {
        if bytes <= self.mapped {
            return true;
        }
        if bytes > self.limit {
            return false;
        }
        for step in [step, OS_PAGE] {
            let target = round_up(bytes, step).min(round_up(self.limit, OS_PAGE));
            let address = if self.down {
                self.start - target
            } else {
                self.start + self.mapped
            };
            if os.map_at(address, target - self.mapped) == Mapped::Yes {
                self.mapped = target;
                return true;
            }
        }
        false
    }

    /// Where `bytes` more of the section would begin. `None`: beyond its limit.
    #[must_use]
    pub fn next(&self, bytes: usize) -> Option<usize> {
        let inside = self.mapped + bytes <= round_up(self.limit, OS_PAGE);
        inside.then(|| {
            if self.down {
                self.start - self.mapped - bytes
            } else {
                self.start + self.mapped
            }
        })
    }

    /// `bytes` more are mapped at [`Section::next`].
    pub fn lengthen(&mut self, bytes: usize) {
        self.mapped += bytes;
    }

    /// Bytes mapped.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.mapped
    }

    /// First address.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }
}

/// Records are mapped in steps of this.
const STEP: usize = 64 << 10;

/// Records that are never given back to the system.
#[derive(Debug)]
pub struct Bump {
    section: Section,
    used: usize,
    /// What is left of a place elsewhere that goes first, and what was handed out of it.
    early: Range<usize>,
    early_used: usize,
}

impl Bump {
    /// Without memory.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            section: Section::none(),
            used: 0,
            early: 0..0,
            early_used: 0,
        }
    }

    /// On top of a section, whose first `used` bytes belong to others.
    #[must_use]
    pub const fn new(section: Section, used: usize) -> Self {
        Self {
            section,
            used,
            early: 0..0,
            early_used: 0,
        }
    }

    /// With a place of mapped zeros beside the section, for [`Bump::take_early`].
    #[must_use]
    pub const fn with_early(mut self, early: Range<usize>) -> Self {
        self.early = early;
        self
    }

    /// `bytes` of zeros aligned to `align` out of the place beside the section, or null.
    pub fn take_early(&mut self, bytes: usize, align: usize) -> *mut u8 {
        let from = round_up(self.early.start, align);
        if from + bytes > self.early.end {
            return null_mut();
        }
        self.early_used += from + bytes - self.early.start;
        self.early.start = from + bytes;
        with_exposed_provenance_mut(from)
    }

    /// Maps the section's first bytes. False: no memory.
    #[must_use]
    pub fn start<O: Os>(&mut self, os: &O) -> bool {
        self.section.ensure(os, self.used, STEP)
    }

    /// What it is on top of.
    pub fn section(&mut self) -> &mut Section {
        &mut self.section
    }

    /// `bytes` of zeros aligned to `align`, or null.
    pub fn allocate<O: Os>(&mut self, os: &O, bytes: usize, align: usize) -> *mut u8 {
        let from = round_up(self.used, align);
        if !self.section.ensure(os, from + bytes, STEP) {
            return null_mut();
        }
        self.used = from + bytes;
        with_exposed_provenance_mut(self.section.start() + from)
    }

    /// Bytes handed out, those at the section's start that belong to others included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used + self.early_used
    }
}

/// A free list of records of one size.
#[derive(Debug)]
pub struct FixedList {
    head: *mut u8,
}

// SAFETY: the records belong to the list; the lock of the page heap guards it.
unsafe impl Send for FixedList {}

impl FixedList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: null_mut() }
    }

    /// A record that was given back, or null. Its contents are old.
    pub fn take(&mut self) -> *mut u8 {
        let record = self.head;
        if !record.is_null() {
            // SAFETY: members of the list hold the next one in their first word.
            self.head = unsafe { record.cast::<*mut u8>().read() };
        }
        record
    }

    /// Gives a record back.
    ///
    /// # Safety
    /// `record` is at least a word long, aligned to it, and nobody uses it any more.
    pub unsafe fn give(&mut self, record: *mut u8) {
        // SAFETY: the caller's duty.
        unsafe { record.cast::<*mut u8>().write(self.head) };
        self.head = record;
    }
}

impl Default for FixedList {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::os::fake::FakeOs;
    use std::sync::atomic::Ordering;

    #[test]
    fn bump_grows_aligned_and_stops_at_the_limit() {
        let os = FakeOs::new(64 << 20);
        let mut bump = Bump::new(Section::new(os.start(), 128 << 10), 512);
        let first = bump.allocate(&os, 24, 8);
        let second = bump.allocate(&os, 64, 64);
        assert_eq!(second as usize - first as usize, 64);
        assert!(!bump.allocate(&os, 100 << 10, 8).is_null());
        assert!(
            bump.allocate(&os, 100 << 10, 8).is_null(),
            "the limit is 128 KiB"
        );
        assert!(
            !bump.allocate(&os, 1024, 8).is_null(),
            "a smaller record still fits"
        );
    }

    #[test]
    fn the_place_beside_the_section_goes_first_as_long_as_it_has_room() {
        let os = FakeOs::new(64 << 20);
        let start = os.start() + (1 << 20);
        let mut bump =
            Bump::new(Section::new(os.start(), 128 << 10), 512).with_early(start..start + 300);
        assert_eq!(bump.take_early(24, 8) as usize, start);
        assert_eq!(bump.take_early(200, 64) as usize, start + 64);
        assert!(bump.take_early(64, 64).is_null(), "36 bytes are left");
        assert_eq!(bump.take_early(36, 4) as usize, start + 264);
        assert_eq!(bump.used(), 512 + 300);
        assert!(Bump::none().take_early(1, 1).is_null());
    }

    #[test]
    fn a_section_maps_single_pages_when_memory_is_short() {
        let os = FakeOs::new(64 << 20);
        os.limit.store(4096, Ordering::Relaxed);
        let mut section = Section::new(os.start(), 1 << 20);
        assert!(section.ensure(&os, 100, 64 << 10));
        assert_eq!(section.mapped(), 4096);
        assert!(!section.ensure(&os, 5000, 64 << 10));
    }

    #[test]
    fn a_section_below_its_start_grows_downwards() {
        let os = FakeOs::new(64 << 20);
        let top = os.start() + (1 << 20);
        let mut section = Section::below(top, 128 << 10);
        for bytes in [1_usize, 9_000, 100_000] {
            assert!(section.ensure(&os, bytes, 8 << 10));
            assert!(section.mapped() >= bytes);
            let lowest = (top - section.mapped()) as *mut u8;
            // SAFETY: the section is mapped that far, and nobody else uses it.
            unsafe {
                assert_eq!(lowest.read(), 0);
                lowest.write(1);
            }
        }
        assert!(!section.ensure(&os, (128 << 10) + 1, 8 << 10));
    }

    #[test]
    fn what_others_map_for_a_section_is_where_it_would_have_gone_on() {
        let os = FakeOs::new(64 << 20);
        let middle = os.start() + (1 << 20);
        for (mut section, places) in [
            (Section::new(middle, 8 * OS_PAGE), [0, 1, 4]),
            (Section::below(middle, 8 * OS_PAGE), [-1, -4, -6]),
        ] {
            for (pages, place) in [1, 3, 2].into_iter().zip(places) {
                let next = section.next(pages * OS_PAGE).expect("within the limit");
                assert_eq!(next as isize - middle as isize, place * OS_PAGE as isize);
                section.lengthen(pages * OS_PAGE);
            }
            assert!(section.next(3 * OS_PAGE).is_none());
            assert!(section.ensure(&os, 6 * OS_PAGE, OS_PAGE), "it is there");
            assert_eq!(os.mapped.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn fixed_list_is_last_in_first_out() {
        let mut records = [[0_u64; 2]; 2];
        let (a, b) = (
            records[0].as_mut_ptr().cast::<u8>(),
            records[1].as_mut_ptr().cast::<u8>(),
        );
        let mut list = FixedList::new();
        assert!(list.take().is_null());
        // SAFETY: the records live on the stack beyond the list.
        unsafe {
            list.give(a);
            list.give(b);
        }
        assert_eq!(list.take(), b);
        assert_eq!(list.take(), a);
        assert!(list.take().is_null());
    }
}
