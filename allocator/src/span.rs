//! Spans (Go's mspan): runs of pages, free or in use, and the table that holds their records.
//!
//! Records lie outside the pages that they describe, 64 bytes each, and are named by a 32-bit
//! number, so that lists and the page map stay small. Invariants: S1 the set bits of `bits` are exactly the
//! objects that the middle tier holds, [`Span::available`] is their number and those from `fresh` on are among
//! them; S2 live + cached + available objects are `objects`; S3 whoever has an object of a span reads `start`, `pages`, `state`,
//! `class`, `origin`, `objects`, `fresh` and `continued` of its record without a lock: of these only the last two change meanwhile, which
//! are atomics, and nobody makes a reference to the record of a span in use that excludes others.

#[cfg(not(loom))]
use crate::size_class::size_of_class;
use crate::units::PAGE_SHIFT;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// What a run of pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The record is not used.
    Unused = 0,
    /// Free pages that still occupy memory with old contents.
    FreeDirty = 1,
    /// Free pages that occupy no memory and read as zero.
    FreeClean = 2,
    /// Objects of one size class.
    Small = 3,
    /// One large block.
    Large = 4,
}

/// `list` of a span that is in no list of its central free list.
pub const NO_LIST: u8 = u8::MAX;

/// The record of a run of pages.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Span {
    /// First page, counted from the start of the heap.
    pub start: u32,
    /// Pages in the run.
    pub pages: u32,
    /// Neighbours in whatever list the span is in; 0 ends it.
    pub next: u32,
    pub prev: u32,
    /// What the run is.
    pub state: State,
    /// The pages may hold something other than zeros (Go's needzero).
    pub needzero: bool,
    /// Size class of a small span, else 0.
    pub class: u8,
    /// Some of its objects are joined, so that the page map does not show the class ([`crate::joining`]).
    pub joined: bool,
    /// List of the central free list that the span is in, or [`NO_LIST`].
    pub list: u8,
    /// Kernel pages inside the span that were given back since an object last came or went, [`LOOKED_AT`]: it was looked
    /// at and had none.
    pub purged: u8,
    /// Objects that fit into the span.
    pub objects: u16,
    /// Objects from this number on were never handed out (Go's freeindex, as a watermark).
    pub fresh: AtomicU16,
    /// With more objects available than this the span belongs into another list, or all are back, or it was purged.
    pub notice: u16,
    /// `notice` less what is available: one count serves both.
    pub until_notice: i32,
    /// Where the bitmap of joined objects is, 0 if there never were any ([`crate::joining`]).
    pub continued: AtomicU32,
    /// This record's number.
    pub id: u32,
    /// One bit an object: set while the object is in the middle tier (Go's allocBits,
    /// inverted as its allocCache is). Points at `inline_bits` for up to 64 objects.
    pub bits: *mut u64,
    pub inline_bits: u64,
    /// Address of the first byte of a small span.
    pub origin: usize,
}

const _: () = assert!(size_of::<Span>() == 64);

/// [`Span::purged`] of a span without a kernel page to give back.
pub const LOOKED_AT: u8 = u8::MAX;

impl Span {
    /// Kernel pages inside the span that have been given back.
    #[inline]
    #[must_use]
    pub fn given_back(&self) -> u32 {
        if self.purged == LOOKED_AT {
            0
        } else {
            self.purged.into()
        }
    }

    /// Bytes of an object of a small span.
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        size_of_class(self.class.into())
    }

    /// The class, and in the upper byte whether objects are joined: one comparison tells whether both are as expected.
    #[inline]
    #[must_use]
    pub fn class_and_joined(&self) -> u16 {
        u16::from_le_bytes([self.class, u8::from(self.joined)])
    }

    /// The list of the class that the span is in, if it is one of the class's and some of its objects are available.
    ///
    /// # Safety
    /// `span` is a record; the caller holds the lock of the class.
    #[must_use]
    pub unsafe fn list_of_class(span: *const Self, class: usize) -> Option<usize> {
        // SAFETY: the caller's duty. The list is read last: only a span of the class has one that the lock guards.
        unsafe {
            let ours = (*span).state == State::Small && usize::from((*span).class) == class;
            (ours && (*span).list != NO_LIST).then(|| usize::from((*span).list))
        }
    }

    /// First page behind the run.
    #[inline]
    #[must_use]
    pub fn end(&self) -> u32 {
        self.start + self.pages
    }

    /// Bytes in the run.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.pages as usize) << PAGE_SHIFT
    }

    /// Objects that the middle tier could hand out of this span.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        (i32::from(self.notice) - self.until_notice) as u32
    }

    /// The span wants to be told when more than `notice` objects are available, now that `available` are.
    ///
    /// # Safety
    /// The caller holds the lock of its class, or is the only one to know it.
    #[inline]
    pub unsafe fn set_notice(span: *mut Self, notice: u16, available: u32) {
        // SAFETY: the caller's duty.
        unsafe {
            (*span).notice = notice;
            (*span).until_notice = i32::from(notice) - available as i32;
        }
    }

    /// How many objects have been handed out once or are behind one that was.
    #[inline]
    #[must_use]
    pub fn fresh(&self) -> u16 {
        self.fresh.load(Relaxed)
    }

    /// Object number `end - 1` was handed out. With the lock of the class.
    #[inline]
    pub fn hand_out(&self, end: u16) {
        // Nobody else writes it meanwhile.
        self.fresh.store(self.fresh().max(end), Relaxed);
    }

    /// Marks all objects of a new span as available.
    ///
    /// # Safety
    /// `bits` has room for `objects`, and nobody else uses it.
    pub unsafe fn fill(&mut self) {
        let objects = usize::from(self.objects);
        for word in 0..self.words() {
            let inside = (objects - word * 64).min(64) as u32;
            // SAFETY: the caller's duty.
            unsafe { *self.bits.add(word) = u64::MAX >> (64 - inside) };
        }
        self.fresh = AtomicU16::new(0);
        // SAFETY: the span is new.
        unsafe { Self::set_notice(self, self.objects, self.objects.into()) };
    }

    /// The first object from `from` on, and below `end`, that is available (`FREE`) or is not.
    #[must_use]
    pub fn next_object<const FREE: bool>(&self, from: usize, end: usize) -> Option<usize> {
        let mut index = from / 64;
        // Objects below `from` are none that is looked for.
        let mut passed = !(u64::MAX << (from % 64));
        while index * 64 < end {
            // SAFETY: the bitmap has a word for every 64 objects of the span, of which `end` are no more.
            let word = unsafe { *self.bits.add(index) };
            let found = if FREE { word } else { !word } & !passed;
            if found != 0 {
                let object = index * 64 + found.trailing_zeros() as usize;
                return (object < end).then_some(object);
            }
            passed = 0;
            index += 1;
        }
        None
    }

    /// False: nowhere are `objects` objects in a row available. A run twice as long, less one, as some power of two has that many
    /// from a multiple of it on, which few steps find in a word of the bitmap; where objects come and go at random a walk from run to run
    /// takes some for each object.
    #[must_use]
    pub fn may_have_run(&self, objects: usize) -> bool {
        if self.available() < objects as u32 {
            return false;
        }
        let width = match objects.div_ceil(2) {
            0 => return true,
            half => 1 << half.ilog2().min(5),
        };
        (0..self.words()).any(|at| {
            // SAFETY: the bitmap has as many words.
            let mut word = unsafe { *self.bits.add(at) };
            let mut step = 1;
            while step < width {
                word &= word >> step;
                step *= 2;
            }
            word & (u64::MAX / (u64::MAX >> (64 - width))) != 0
        })
    }

    /// Words of the bitmap.
    #[inline]
    #[must_use]
    pub fn words(&self) -> usize {
        usize::from(self.objects).div_ceil(64)
    }
}

/// The records of all spans: an array that grows downwards and whose start never moves.
#[derive(Clone, Copy, Debug)]
pub struct SpanTable {
    start: *mut Span,
}

impl SpanTable {
    /// A table whose record 0 is at `start`; the others lie below it.
    #[must_use]
    pub const fn new(start: *mut Span) -> Self {
        Self { start }
    }

    /// The record with number `id`.
    ///
    /// # Safety
    /// `id` must have been handed out by the page heap.
    #[inline]
    #[must_use]
    pub unsafe fn get(self, id: u32) -> *mut Span {
        // SAFETY: the caller's duty; the table is mapped up to the highest number given out.
        unsafe { self.start.sub(id as usize) }
    }

    /// The word number `at` from record 0 on, behind which the metadata lies.
    ///
    /// # Safety
    /// The metadata reaches that far.
    #[inline]
    #[must_use]
    pub unsafe fn behind(self, at: u32) -> *mut u64 {
        // SAFETY: the caller's duty.
        unsafe { self.start.cast::<u64>().add(at as usize) }
    }

    /// What [`SpanTable::behind`] has to be called with for this word, 0 if it is too far away.
    #[must_use]
    pub fn distance(self, word: *const u64) -> u32 {
        let words = (word as usize).wrapping_sub(self.start as usize) / size_of::<u64>();
        u32::try_from(words).unwrap_or(0)
    }
}

/// A doubly linked list of spans, by number. The links are in the records.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanList {
    /// First span, 0 when the list is empty.
    pub head: u32,
}

impl SpanList {
    /// A list without spans.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: 0 }
    }

    /// Puts a span in front.
    ///
    /// # Safety
    /// `span` is a record of `table`, in no list; the caller holds the lock of the list.
    pub unsafe fn push(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty; list members are live records.
        unsafe {
            (*span).prev = 0;
            (*span).next = self.head;
            if self.head != 0 {
                (*table.get(self.head)).prev = (*span).id;
            }
            self.head = (*span).id;
        }
    }

    /// Takes a span out.
    ///
    /// # Safety
    /// `span` is in this list; the caller holds the lock of the list.
    pub unsafe fn remove(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty; list members are live records.
        unsafe {
            let (next, prev) = ((*span).next, (*span).prev);
            if prev == 0 {
                debug_assert_eq!(self.head, (*span).id);
                self.head = next;
            } else {
                (*table.get(prev)).next = next;
            }
            if next != 0 {
                (*table.get(next)).prev = prev;
            }
            (*span).next = 0;
            (*span).prev = 0;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn record(id: u32) -> Span {
        Span {
            start: id,
            pages: 1,
            next: 0,
            prev: 0,
            state: State::FreeClean,
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
            bits: core::ptr::null_mut(),
            inline_bits: 0,
            origin: 0,
        }
    }

    fn members(list: SpanList, table: SpanTable) -> Vec<u32> {
        let mut found = Vec::new();
        let mut id = list.head;
        while id != 0 {
            found.push(id);
            // SAFETY: links lead to records of the table only.
            id = unsafe { (*table.get(id)).next };
        }
        found
    }

    #[test]
    fn no_run_is_overlooked_and_scattered_objects_are_none() {
        let mut bits = [0_u64; 4];
        let mut span = record(1);
        span.objects = 200;
        span.bits = bits.as_mut_ptr();
        for length in 1..=200 {
            for first in 0..=200 - length {
                let run = |at: usize| at >= first && at < first + length;
                for at in 0..200 {
                    let bit = 1 << (at % 64);
                    // SAFETY: the words are the test's.
                    unsafe {
                        let word = span.bits.add(at / 64);
                        *word = if run(at) { *word | bit } else { *word & !bit };
                    }
                }
                // SAFETY: the record is the test's.
                unsafe { Span::set_notice(&raw mut span, 200, length as u32) };
                assert!(span.may_have_run(length), "{length} from {first} on");
            }
        }
        for at in 0..4 {
            // SAFETY: as above.
            unsafe { *span.bits.add(at) = 0x5555_5555_5555_5555 };
        }
        // SAFETY: as above.
        unsafe { Span::set_notice(&raw mut span, 200, 100) };
        assert!(span.may_have_run(2), "may be");
        assert!(!span.may_have_run(3));
        assert!(!span.may_have_run(101), "there are not as many");
    }

    #[test]
    fn list_keeps_order_through_removal_at_each_place() {
        for victim in 1..=3 {
            let mut records: Vec<Span> = (0..4).rev().map(record).collect();
            let table = SpanTable::new(&raw mut records[3]);
            let mut list = SpanList::new();
            for id in 1..=3 {
                // SAFETY: each record is pushed once.
                unsafe { list.push(table, table.get(id)) };
            }
            assert_eq!(members(list, table), [3, 2, 1]);
            // SAFETY: the victim is in the list.
            unsafe { list.remove(table, table.get(victim)) };
            let left: Vec<u32> = [3, 2, 1].into_iter().filter(|&id| id != victim).collect();
            assert_eq!(members(list, table), left);
        }
    }
}
