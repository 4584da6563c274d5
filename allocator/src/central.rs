//! The middle tier's lower half: the central free list of one class (Go's mcentral).
//!
//! It owns spans, whose bitmaps say which objects are free, so that it never touches the objects: a refill
//! walks a span's bitmap in address order, which undoes whatever order the program freed in; a flush sets
//! bits, and a bit that is set already is a double free. Spans with free objects are in four
//! lists by how empty they are, and the fullest is used first, so that sparse spans can drain and
//! go back to the page heap. Invariants: M1 a span is in list ⌊4·available/(objects+1)⌋ while
//! anything in it is available, else in none; M2 `spans` counts the class's spans.

mod bitmap;

use crate::continued::{block_at, serves};
use crate::fault::{DETECT, Fault, die};
use crate::os::Os;
use crate::page_heap::ahead::Stretch;
use crate::page_heap::{PageHeap, Use};
use crate::scavenger::HELPER_BYTES;
use crate::size_class::{object_at, reciprocal_of, size_of_class, span_pages};
use crate::span::{NO_LIST, Span, SpanList, SpanTable, State};
use crate::sync::Locked;
use crate::units::page_bytes;
use bitmap::{beside, neighbours, take_first, take_from};
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

const LISTS: usize = 4;
/// One wholly free span of a class is kept if it is at most this part of the class's spans.
const KEPT_SHARE: u32 = 4;
/// A class of whose objects this part came back, of all that were handed out, replaces them. (Most that a program frees never
/// come here, as caches hand them out again.)
const REPLACED_SHARE: u64 = 4;

/// The central free list of one class.
#[derive(Debug)]
#[repr(align(64))]
pub struct Central {
    pub(crate) inner: Locked<Inner>,
    /// `inner.pages`, to be read without the lock by those who size caches.
    pages: AtomicU32,
    /// Some list is not empty, to be read without the lock. (Not the other way round, so that a new heap is all zeros and
    /// no part of the file.)
    stocked: AtomicBool,
    /// Blocks of larger classes that were handed out for this one ([`crate::lending`]).
    pub(crate) served: AtomicU8,
    /// What was seen when the class was looked at last ([`crate::holes`]).
    pub(crate) seen: AtomicU16,
}

/// What the lock guards.
#[derive(Debug)]
pub struct Inner {
    pub(crate) lists: [SpanList; LISTS],
    /// The wholly free span that is kept, 0 if none.
    pub(crate) kept: u32,
    /// Spans of the class.
    pub(crate) spans: u32,
    /// Pages in them.
    pub(crate) pages: u32,
    /// Sum of `purged` of the class's spans: kernel pages that were given back inside them.
    pub(crate) purged_pages: u32,
    /// Objects handed up and taken back in all (Go's nmalloc).
    pub(crate) handed_out: u64,
    pub(crate) taken_back: u64,
}

/// ⌊4·available/(objects+1)⌋, or [`NO_LIST`] when nothing is available.
fn list_for(available: u32, objects: u16) -> u8 {
    if available == 0 {
        return NO_LIST;
    }
    let whole = u32::from(objects) + 1;
    let quarters = available * 4;
    // Without a division: this runs for every few objects that come or go.
    u8::from(quarters >= whole) + u8::from(quarters >= 2 * whole) + u8::from(quarters >= 3 * whole)
}

/// [`Span::notice`] of a span of `objects` in `list`.
fn notice_for(list: u8, objects: u16) -> u16 {
    match list {
        NO_LIST => 0,
        3 => objects - 1,
        // One less than ⌈(list + 1)·(objects + 1)/4⌉.
        _ => (((u32::from(list) + 1) * (u32::from(objects) + 1) - 1) / 4) as u16,
    }
}

impl Central {
    /// Without spans.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            inner: Locked::new(Inner {
                lists: [SpanList::new(); LISTS],
                kept: 0,
                spans: 0,
                pages: 0,
                purged_pages: 0,
                handed_out: 0,
                taken_back: 0,
            }),
            pages: AtomicU32::new(0),
            stocked: AtomicBool::new(false),
            served: AtomicU8::new(0),
            seen: AtomicU16::new(0),
        }
    }

    /// Publishes what is read without the lock.
    pub(crate) fn publish(&self, inner: &Inner) {
        self.pages.store(inner.pages, Relaxed);
        self.stocked.store(inner.is_stocked(), Relaxed);
    }

    /// No object is here, as of a moment ago: taking some would need another span.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        !self.stocked.load(Relaxed)
    }

    /// Bytes in the spans of the class, as of a moment ago.
    #[must_use]
    pub fn bytes(&self) -> usize {
        page_bytes(self.pages.load(Relaxed) as usize)
    }

    /// Pages of the next span that the class will ask for, as of a moment ago.
    #[must_use]
    pub fn next_span_pages(&self, class: usize) -> usize {
        span_pages(class, self.pages.load(Relaxed) as usize)
    }

    /// Fills `objects` with objects of `class`, in address order per span. Returns how many they are: half at
    /// least, unless memory is short or more would need pages that are not resident and `fresh` does not allow that.
    pub fn take<O: Os>(
        &self,
        heap: &PageHeap<O>,
        class: usize,
        objects: &mut [*mut u8],
        fresh: bool,
    ) -> usize {
        let mut got = 0;
        // A thread cache is filled out of no more than two new spans as a rule.
        let mut new = [Stretch::default(); 2];
        let mut inner = self.inner.lock();
        while got < objects.len() {
            // Half of what was asked for is enough if the rest would need another span: its pages may serve others.
            if 2 * got >= objects.len() && !inner.is_stocked() {
                break;
            }
            let span = inner.usable_span(heap, class, fresh);
            if span.is_null() {
                break;
            }
            // SAFETY: the span belongs to this class, whose lock we hold.
            unsafe {
                inner.disturb(span);
                let before = (*span).fresh();
                got += take_from(span, &mut objects[got..]);
                if (*span).fresh() > before {
                    let class_bytes = page_bytes(inner.pages as usize);
                    new = [new[1], Stretch::of_new_objects(&*span, before, class_bytes)];
                }
                inner.relist(heap.map.table(), span);
            }
        }
        inner.handed_out += got as u64;
        self.publish(&inner);
        drop(inner);
        new.into_iter().for_each(|stretch| heap.populate(stretch));
        got
    }

    /// One object and whether it is known to be zero.
    pub fn take_one<O: Os>(&self, heap: &PageHeap<O>, class: usize) -> (*mut u8, bool) {
        let mut inner = self.inner.lock();
        let span = inner.usable_span(heap, class, true);
        if span.is_null() {
            return (core::ptr::null_mut(), false);
        }
        inner.handed_out += 1;
        // SAFETY: the span belongs to this class, whose lock we hold.
        let taken = unsafe {
            let handed_out = (*span).fresh();
            inner.disturb(span);
            let object = take_first(span);
            inner.relist(heap.map.table(), span);
            (object, (*span).fresh() > handed_out && !(*span).needzero)
        };
        self.publish(&inner);
        taken
    }

    /// Takes `objects` back, in order, until one is in no ordinary span of the class; how many they were.
    ///
    /// # Safety
    /// The objects are free and nobody else's.
    pub(crate) unsafe fn give<O: Os>(
        &self,
        heap: &PageHeap<O>,
        class: usize,
        objects: &[*mut u8],
    ) -> usize {
        let mut inner = self.inner.lock();
        let apart = match objects {
            [first, .., last] => (*first as usize).abs_diff(*last as usize),
            _ => 0,
        };
        // SAFETY: the caller's duty.
        let taken = unsafe {
            if apart <= 2 * objects.len() * size_of_class(class) {
                inner.put::<O, true>(heap, class, objects)
            } else {
                inner.put::<O, false>(heap, class, objects)
            }
        };
        inner.taken_back += taken as u64;
        self.publish(&inner);
        if inner.free_bytes(class) >= HELPER_BYTES {
            heap.ask_for_helper();
        }
        taken
    }

    /// Ends the process if `object` is not a block that the program holds or caches: its address is
    /// checked, and that it was handed out and not taken back.
    pub fn expect_live<O: Os>(&self, heap: &PageHeap<O>, class: usize, object: *mut u8) {
        let _inner = self.inner.lock();
        // SAFETY: we hold the class's lock.
        unsafe {
            let (span, index) = locate(heap, class, object as usize);
            if *(*span).bits.add(index / 64) >> (index % 64) & 1 != 0 {
                die(Fault::DoubleFree, object as usize);
            }
        }
    }

    /// Objects that have come and gone in all: equal twice, and the class is at rest.
    #[must_use]
    pub fn activity(&self) -> u64 {
        let inner = self.inner.lock();
        inner.handed_out + inner.taken_back
    }

    /// Gives the kept free span back to the page heap.
    pub fn trim<O: Os>(&self, heap: &PageHeap<O>) {
        let mut inner = self.inner.lock();
        inner.retire_kept(heap);
        self.publish(&inner);
    }
}

impl Default for Central {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Some span has a free object.
    fn is_stocked(&self) -> bool {
        self.lists.iter().any(|list| list.head != 0)
    }

    /// What the class does is rather replacing its objects than growing.
    fn is_replacing(&self) -> bool {
        self.taken_back > self.handed_out / REPLACED_SHARE
    }

    /// Bytes of the class's spans in objects that are here, given back or never used, and in the
    /// ends of spans.
    pub(crate) fn free_bytes(&self, class: usize) -> usize {
        let outside = self.handed_out.saturating_sub(self.taken_back) as usize;
        page_bytes(self.pages as usize).saturating_sub(outside * size_of_class(class))
    }

    /// Spans in each list.
    pub(crate) fn lengths(&self, table: SpanTable) -> [u32; LISTS] {
        self.lists.map(|list| {
            let mut count = 0;
            let mut id = list.head;
            while id != 0 {
                count += 1;
                // SAFETY: numbers in the lists have records.
                id = unsafe { (*table.get(id)).next };
            }
            count
        })
    }

    /// The fullest span that still has an object, a new one if there is none, null if that fails. Without `fresh` a new
    /// one has to be resident.
    fn usable_span<O: Os>(&mut self, heap: &PageHeap<O>, class: usize, fresh: bool) -> *mut Span {
        let table = heap.map.table();
        for list in &self.lists {
            if list.head != 0 {
                if list.head == self.kept {
                    self.kept = 0;
                }
                // SAFETY: numbers in the lists have records.
                return unsafe { table.get(list.head) };
            }
        }
        let pages = span_pages(class, self.pages as usize);
        let purpose = if self.is_replacing() {
            Use::Replacing(class as u8)
        } else {
            Use::Small(class as u8)
        };
        let span = if fresh {
            heap.allocate(pages, 1, purpose)
        } else {
            heap.allocate_resident(pages, purpose)
        };
        if span.is_null() {
            return span;
        }
        self.spans += 1;
        // SAFETY: the span is new and ours.
        unsafe {
            self.pages += (*span).pages;
            self.relist(heap.map.table(), span);
        }
        span
    }

    /// Moves a span to the list for what is available in it.
    ///
    /// # Safety
    /// The span belongs to this class.
    pub(crate) unsafe fn relist(&mut self, table: SpanTable, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            let (available, objects) = ((*span).available(), (*span).objects);
            let list = list_for(available, objects);
            Span::set_notice(span, notice_for(list, objects), available);
            if list == (*span).list {
                return;
            }
            if (*span).list != NO_LIST {
                self.lists[(*span).list as usize].remove(table, span);
            }
            (*span).list = list;
            if list != NO_LIST {
                self.lists[list as usize].push(table, span);
            }
        }
    }

    /// Marks objects as free in their spans, until one is in no ordinary span of the class. Returns how many they were. `NEAR`: many
    /// lie beside the one before them; looking for such costs others a third more.
    ///
    /// # Safety
    /// As [`Central::give`].
    unsafe fn put<O: Os, const NEAR: bool>(
        &mut self,
        heap: &PageHeap<O>,
        class: usize,
        objects: &[*mut u8],
    ) -> usize {
        let view = heap.map.view();
        let (size, reciprocal) = (size_of_class(class), reciprocal_of(class));
        let ordinary = class as u16;
        let mut left = objects.iter();
        let mut next = left.next();
        while let Some(&object) = next {
            let Some(span) = view.span_at(object as usize) else {
                wrong(heap, class, object)
            };
            // SAFETY: numbers in the map have records, also where they are old. What makes the record that
            // of a span of this class, whose lock we hold, and the address that of an object in it that was
            // handed out, is checked; an old number's record has another class or lies elsewhere.
            unsafe {
                let offset = (object as usize).wrapping_sub((*span).origin);
                let all = (*span).objects as usize;
                let (index, starts) = object_at(reciprocal, offset);
                if DETECT && (*span).class_and_joined() != ordinary {
                    return objects.len() - left.len() - 1;
                }
                if DETECT && (!starts || index >= all) {
                    wrong(heap, class, object);
                }
                let place = (*span).bits.add(index / 64);
                let before = *place;
                let mut word = before | 1 << (index % 64);
                if DETECT && word == before {
                    // An object that was never handed out is here, too.
                    wrong(heap, class, object);
                }
                let mut given = 1;
                // What is freed in the order of addresses, or nearly, changes one word many times.
                next = left.next();
                if NEAR {
                    let first = index / 64 * 64;
                    let word_start = (*span).origin + first * size;
                    let inside_word = (all - first).min(64);
                    while let Some(&object) = next {
                        let offset = (object as usize).wrapping_sub(word_start);
                        let (inside, starts) = object_at(reciprocal, offset);
                        if inside >= inside_word || !starts {
                            // Of the next span, or wrong.
                            break;
                        }
                        let rest = left.as_slice();
                        next = left.next();
                        let mut these = 1 << inside;
                        if next.is_some_and(|&other| beside(object, other, size)) {
                            let (lowest, more) =
                                neighbours(rest, object, size, inside, inside_word);
                            these = u64::MAX >> (63 - more) << lowest;
                            given += more as i32;
                            left = rest[more..].iter();
                            next = left.next();
                        }
                        if DETECT && word & these != 0 {
                            let twice = (word & these).trailing_zeros() as usize;
                            let twice = word_start + twice * size;
                            wrong(heap, class, with_exposed_provenance_mut(twice));
                        }
                        word |= these;
                        given += 1;
                    }
                }
                *place = word;
                (*span).until_notice -= given;
                if (*span).until_notice < 0 {
                    self.noticed(heap, span);
                }
            }
        }
        objects.len()
    }

    /// So many of a span's objects are here that it belongs elsewhere, or was purged.
    ///
    /// # Safety
    /// The span belongs to this class.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn noticed<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            self.disturb(span);
            if (*span).available() == u32::from((*span).objects) {
                self.emptied(heap, span);
            } else {
                self.relist(heap.map.table(), span);
            }
        }
    }

    /// All objects of the span are here.
    ///
    /// # Safety
    /// The span belongs to this class and all its objects are here.
    unsafe fn emptied<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            let table = heap.map.table();
            self.relist(table, span);
            if (*span).id == self.kept {
                return;
            }
            if self.kept == 0 && (*span).pages * KEPT_SHARE <= self.pages {
                self.kept = (*span).id;
                return;
            }
            self.retire(heap, span);
        }
    }

    /// Gives the kept free span back to the page heap, if there is one; its pages.
    pub(crate) fn retire_kept<O: Os>(&mut self, heap: &PageHeap<O>) -> usize {
        let kept = core::mem::take(&mut self.kept);
        if kept == 0 {
            return 0;
        }
        // SAFETY: the kept span is wholly free and in a list.
        unsafe {
            let span = heap.map.table().get(kept);
            let pages = (*span).pages as usize;
            self.retire(heap, span);
            pages
        }
    }

    /// Gives a wholly free span back to the page heap.
    ///
    /// # Safety
    /// The span belongs to this class, all its objects are here, and it is in a list.
    unsafe fn retire<O: Os>(&mut self, heap: &PageHeap<O>, span: *mut Span) {
        // SAFETY: the caller's duty.
        unsafe {
            self.lists[(*span).list as usize].remove(heap.map.table(), span);
            (*span).list = NO_LIST;
            self.spans -= 1;
            self.pages -= (*span).pages;
            heap.free(span);
        }
    }
}

/// Ends the process because of an object that cannot be taken back.
///
/// The caller holds the lock of the class.
#[cold]
#[inline(never)]
pub(crate) fn wrong<O: Os>(heap: &PageHeap<O>, class: usize, object: *mut u8) -> ! {
    // SAFETY: the caller holds the lock of the class.
    unsafe { locate(heap, class, object as usize) };
    // It says what is wrong; if the map has changed in between, the block was freed twice.
    die(Fault::DoubleFree, object as usize)
}

/// Span and number of the object of `class`, or the first one of a block that serves as such, that starts at `addr` and has
/// been handed out before. Any other address ends the process.
///
/// # Safety
/// The caller holds the lock of the class, or an object of the span, so that it stays.
pub(crate) unsafe fn locate<O: Os>(
    heap: &PageHeap<O>,
    class: usize,
    addr: usize,
) -> (*mut Span, usize) {
    let Some(page) = heap.map.page_of(addr) else {
        die(Fault::ForeignPointer, addr)
    };
    // SAFETY: the page is in the heap; numbers in the map have records.
    unsafe {
        let span = heap.map.span_of_page(page);
        if span.is_null() || (*span).state != State::Small {
            die(Fault::DoubleFree, addr);
        }
        let (index, objects) = block_at(heap.map.table(), span, addr);
        if !serves(span, objects, class) {
            die(Fault::WrongSize, addr);
        }
        (span, index)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::heap::Heap;
    use crate::os::fake::FakeOs;
    use crate::size_class::class_of;

    /// What it reads of the record changes only in atomics: without them ThreadSanitizer objects (`ci/nightly/sanitizers thread`).
    #[test]
    fn who_has_an_object_finds_its_span_without_a_lock_while_others_are_taken() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let class = class_of(64).expect("small");
        let (mine, _) = heap.take_one(class);
        let address = mine as usize;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let (object, _) = heap.take_one(class);
                    assert!(!object.is_null());
                }
            });
            for _ in 0..2_000 {
                // SAFETY: the object is ours.
                let (span, index) = unsafe { locate(&heap.pages, class, address) };
                assert_eq!((span.is_null(), index), (false, 0));
            }
        });
        heap.check_invariants();
    }
}
