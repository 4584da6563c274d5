//! Joined objects: neighbours that are free in a sparse span serve as one object of a longer class.
//!
//! What is free between the survivors of a class that nobody asks for any more is lost to all others, as a span has one
//! class. So before a class takes fresh pages it gets runs of such objects, each as long as one of its own. A run's first object
//! is marked as handed out, and so are those that follow, which a second bitmap names, too: *continued*. While a
//! span has runs the page map shows no class for its pages. That sends whatever is freed by its address there to the slow
//! path, which finds the span, the run's length and with it the longest class that it may stand for; from then on it is an
//! object of that class and lies in its bins like any other. Freed by its size it goes there at once. Back in the middle tier it fails the
//! test that all of a batch are in spans of the class, and is taken back here by the class whose objects they are.
//!
//! Runs lie at any multiple of 16, so that who wants a larger alignment has to look ([`crate::alloc`]). Invariants: J1
//! continued objects are not available, follow one that is not, and are none that anybody holds; J2 a span with continued objects
//! is `joined` and on pages without class, any other one is not. (J3: [`crate::continued`].)

use crate::central::{Central, Inner, wrong};
use crate::continued::{Continued, block_at, mask_of, serves};
use crate::fault::{DETECT, Fault, die, reporting};
use crate::heap::Heap;
use crate::os::Os;
use crate::page_heap::PageHeap;
use crate::scavenger::HELPER_BYTES;
use crate::size_class::{NUM_CLASSES, size_of_class};
use crate::span::{Span, State};
use crate::units::OS_PAGE;
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A class lends its objects if so many bytes are free between them ...
const LEAST_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };
/// ... and this part of what is in use: less is not worth that they come back more slowly.
const LEAST_SHARE: usize = if cfg!(test) { 4096 } else { 64 };
/// Objects of a block at most.
const MOST_OBJECTS: usize = 16;
/// Spans that are looked at for one batch.
const LOOKS: usize = 64;
/// Blocks are parted once there were so many refills since the heap grew last or blocks were joined: else what is parted would be
/// joined again.
const SETTLED: u32 = if cfg!(test) { 4 } else { 64 };
/// A class in which some search came to the end is searched again when this part of what is free has been freed since.
const NEWS_SHARE: usize = 8;

/// How far the search for neighbours in the spans of a class has come.
#[derive(Debug)]
pub(crate) struct Search {
    /// The span to be looked at next, 0: the first one.
    next: AtomicU32,
    /// Blocks of so many bytes and more are not looked for.
    vain: AtomicU32,
    /// Objects that the class had taken back in all when a search came to its end.
    ended: AtomicU32,
}

impl Search {
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            vain: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        }
    }
}

/// What is free in the spans of a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Free {
    /// Bytes that are free and were not given back.
    pub(crate) bytes: usize,
    /// Objects that came back in all.
    pub(crate) taken_back: u32,
}

/// Refills since the heap grew last or blocks were joined, as far as threads do not count at the same time.
#[derive(Debug)]
pub(crate) struct Rest(AtomicU32);

impl Rest {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Counts one.
    #[inline(always)]
    pub(crate) fn count(&self) {
        let refills = self.0.load(Relaxed);
        if refills < SETTLED {
            self.0.store(refills + 1, Relaxed);
        }
    }

    /// The heap grows, or blocks are joined.
    pub(crate) fn end(&self) {
        self.0.store(0, Relaxed);
    }

    /// It has not done so for a while.
    #[inline(always)]
    pub(crate) fn is_long(&self) -> bool {
        self.0.load(Relaxed) >= SETTLED
    }
}

/// A set of classes, changed by any thread. It may be behind.
#[derive(Debug)]
pub(crate) struct Classes([AtomicU64; NUM_CLASSES.div_ceil(64)]);

impl Classes {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NUM_CLASSES.div_ceil(64)])
    }

    /// It has members.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|word| word.load(Relaxed) != 0)
    }

    fn insert(&self, class: usize) {
        self.0[class / 64].fetch_or(1 << (class % 64), Relaxed);
    }

    fn remove(&self, class: usize) {
        self.0[class / 64].fetch_and(!(1 << (class % 64)), Relaxed);
    }

    /// The highest class of the set below `class`.
    fn below(&self, class: usize) -> Option<usize> {
        (0..=class / 64).rev().find_map(|word| {
            let mut bits = self.0[word].load(Relaxed);
            if word == class / 64 {
                bits &= !(u64::MAX << (class % 64));
            }
            (bits != 0).then(|| word * 64 + bits.ilog2() as usize)
        })
    }
}

impl<O: Os> Heap<O> {
    /// Up to `objects.len()` objects for `class` that are made of shorter ones which nobody wants; how many they are.
    #[cold]
    #[inline(never)]
    pub(crate) fn join(&self, class: usize, objects: &mut [*mut u8]) -> usize {
        // Without detection nothing tells what is given back from objects of the class.
        if !DETECT || reporting() {
            return 0;
        }
        let size = size_of_class(class);
        let mut below = class;
        while let Some(own) = self.sparse.below(below) {
            if size_of_class(own) * MOST_OBJECTS < size {
                break;
            }
            let search = &self.searches[own];
            if size < search.vain.load(Relaxed) as usize {
                let got = self
                    .central(own)
                    .join(&self.pages, search, own, size, objects);
                if got > 0 {
                    self.rest.end();
                    return got;
                }
            }
            if search.vain.load(Relaxed) as usize <= 2 * size_of_class(own) {
                self.sparse.remove(own);
            }
            below = own;
        }
        0
    }

    /// Nobody wants objects of `class`, which was just looked at.
    #[inline]
    pub(crate) fn note_unwanted(&self, class: usize, free: Free) {
        let least = (self.pages.in_use_bytes() / LEAST_SHARE).max(LEAST_BYTES);
        // Of the smallest class objects are not aligned as longer ones have to be.
        if free.bytes < least || class == 1 {
            return;
        }
        let search = &self.searches[class];
        let since = free.taken_back.wrapping_sub(search.ended.load(Relaxed)) as usize;
        if since * size_of_class(class) * NEWS_SHARE >= free.bytes {
            search.vain.store(u32::MAX, Relaxed);
            self.sparse.insert(class);
        }
    }

    /// The class of the span of `object`, if that has joined objects, or had some.
    ///
    /// # Safety
    /// As [`Heap::give`].
    unsafe fn lender(&self, object: *mut u8) -> Option<usize> {
        let map = &self.pages.map;
        // SAFETY: numbers in the map have records; the caller's duty.
        unsafe {
            let span = map.span_of_page(map.page_of(object as usize)?);
            // The bitmap, not the flag: meanwhile the last run may have gone.
            (!span.is_null()
                && (*span).state == State::Small
                && (*span).continued.load(Acquire) != 0)
                .then(|| usize::from((*span).class))
        }
    }

    /// Takes `block` back for the class whose objects it is made of, when it is freed as one of `class` and that class has objects of its
    /// own at hand. False: it stays the caller's.
    ///
    /// While such a block goes round in the bins of its class, each time it is freed costs several times what another's free does,
    /// as do frees of all others in its span. A program that goes on with what it has would pay for ever for what was joined
    /// while it grew. An object that is at hand serves as well and takes no page from anyone; where there is none the block stays. To be
    /// called where the heap has not grown for a while ([`Rest::is_long`]).
    ///
    /// `mark` is called before locks are taken, and what it returns kept until they are free.
    ///
    /// # Safety
    /// As [`Heap::give`]; [`Heap::block_of`] has found the block.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn part<M>(
        &self,
        class: usize,
        block: *mut u8,
        mark: impl FnOnce() -> M,
    ) -> bool {
        let map = &self.pages.map;
        // SAFETY: the page is in the heap; the rest is the caller's duty.
        unsafe {
            let shown = map
                .page_of(block as usize)
                .map(|page| map.class_of_page(page));
            if shown != Some(0) || self.central(class).is_dry() {
                return false;
            }
            let Some(own) = self.lender(block).filter(|&own| own != class) else {
                return false;
            };
            let _mark = mark();
            let central = self.central(own);
            central.give_joined(&self.pages, own, class, &[block]) > 0
        }
    }

    /// Takes back some of `objects`, of `class`, of which the first lies in no ordinary span of the class. Returns how many; a wrong
    /// pointer ends the process.
    ///
    /// # Safety
    /// As [`Heap::give`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn give_joined(&self, class: usize, objects: &[*mut u8]) -> usize {
        let first = objects[0];
        // SAFETY: the caller's duty.
        unsafe {
            if let Some(own) = self.lender(first) {
                let taken = self
                    .central(own)
                    .give_joined(&self.pages, own, class, objects);
                if taken > 0 {
                    return taken;
                }
            }
        }
        let _inner = self.central(class).inner.lock();
        wrong(&self.pages, class, first)
    }
}

impl Central {
    /// Unless objects of the class, which is `own`, were handed out since the last look: runs of them, of `size` bytes or a little
    /// more. Some spans are looked at, one after the other, from where the last search ended.
    fn join<O: Os>(
        &self,
        heap: &PageHeap<O>,
        search: &Search,
        own: usize,
        size: usize,
        objects: &mut [*mut u8],
    ) -> usize {
        let mut inner = self.inner.lock();
        if !self.is_unwanted(&inner) {
            // Until it is looked at again.
            search.vain.store(0, Relaxed);
            return 0;
        }
        let table = heap.map.table();
        let mut id = search.next.load(Relaxed);
        // SAFETY: what was a number in the lists has a record.
        let mut list = match unsafe { Span::list_of_class(table.get(id), own) } {
            Some(list) if id != 0 => list,
            _ => {
                id = 0;
                inner.lists.len()
            }
        };
        let mut got = 0;
        let mut looks = 0;
        // Not left in vain at the end of a list: the next search would begin with the first list again, and what is behind this one
        // would never be seen.
        while got < objects.len() && looks < LOOKS || id == 0 && got == 0 {
            if id == 0 {
                let Some(below) = list.checked_sub(1) else {
                    search.ended.store(inner.taken_back as u32, Relaxed);
                    search.vain.fetch_min(size as u32, Relaxed);
                    break;
                };
                list = below;
                id = inner.lists[list].head;
                continue;
            }
            looks += 1;
            // SAFETY: numbers in the lists have records; we hold the class's lock.
            unsafe {
                let span = table.get(id);
                let next = (*span).next;
                if id != inner.kept {
                    got += inner.join_in(heap, span, size, &mut objects[got..]);
                }
                // Where the batch was full something may be left.
                if got < objects.len() || usize::from((*span).list) != list {
                    id = next;
                }
            }
        }
        search.next.store(id, Relaxed);
        // It is no more wanted than before.
        self.see_handed_out(&inner);
        self.publish(&inner);
        got
    }

    /// Takes back the first of `objects`, of `class`, while they lie in spans of this class, which is `own`, that have joined objects.
    ///
    /// # Safety
    /// As [`Heap::give`].
    unsafe fn give_joined<O: Os>(
        &self,
        heap: &PageHeap<O>,
        own: usize,
        class: usize,
        objects: &[*mut u8],
    ) -> usize {
        let view = heap.map.view();
        let mut inner = self.inner.lock();
        let mut taken = 0;
        for &object in objects {
            let Some(span) = view.span_at(object as usize) else {
                break;
            };
            // SAFETY: numbers in the map have records, also where they are old; one of this class's is ours, whose lock we hold.
            unsafe {
                if (*span).state != State::Small
                    || usize::from((*span).class) != own
                    || (*span).continued.load(Relaxed) == 0
                {
                    break;
                }
                inner.take_back(heap, span, class, object as usize);
            }
            taken += 1;
        }
        self.publish(&inner);
        if inner.free_bytes(own) >= HELPER_BYTES {
            heap.ask_for_helper();
        }
        taken
    }
}

impl Inner {
    /// Joins free objects of the span to blocks of `size` bytes or a little more, none on a kernel page that was given back. Returns how
    /// many they are.
    ///
    /// # Safety
    /// The span is of this class, whose lock is held.
    unsafe fn join_in<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        size: usize,
        blocks: &mut [*mut u8],
    ) -> usize {
        let mut got = 0;
        // SAFETY: the caller's duty; the bitmap has a word for every 64 objects.
        unsafe {
            let (own, fresh) = ((*span).size(), usize::from((*span).fresh()));
            let each = size.div_ceil(own);
            for index in 0..fresh.div_ceil(64) {
                let mut starts = starts_of_runs(*(*span).bits.add(index), each);
                // What was never handed out may not be resident.
                let used = fresh - index * 64;
                if used < 64 {
                    starts &= !(u64::MAX << (used + 1).saturating_sub(each));
                }
                while starts != 0 && got < blocks.len() {
                    let at = starts.trailing_zeros() as usize;
                    let first = index * 64 + at;
                    let next = match behind_given_back(&*span, first, each) {
                        Some(behind) => behind - index * 64,
                        None if self.join_at(heap, span, first, each) => {
                            blocks[got] = with_exposed_provenance_mut((*span).origin + first * own);
                            got += 1;
                            at + each
                        }
                        None => return got,
                    };
                    starts &= u64::MAX.checked_shl(next as u32).unwrap_or(0);
                }
            }
            if got > 0 {
                let purged = (*span).purged;
                self.relist(heap.map.table(), span);
                if purged != 0 {
                    // What was given back still is; the next object that comes is noticed.
                    let available = (*span).available();
                    Span::set_notice(span, available as u16, available);
                }
            }
        }
        got
    }

    /// Makes one block of the free objects from `first` on, all in one word of the bitmap. False: no memory for the second one.
    ///
    /// # Safety
    /// As [`Inner::join_in`].
    unsafe fn join_at<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        first: usize,
        objects: usize,
    ) -> bool {
        // SAFETY: the caller's duty; the bitmap has a word for every 64 objects.
        unsafe {
            if (*span).continued.load(Relaxed) == 0 {
                let place = heap.take_second_bitmap((*span).words());
                if place == 0 {
                    return false;
                }
                (*span).continued.store(place, Release);
            }
            if let Some(continued) = Continued::of(span, heap.map.table()) {
                continued.lend(&heap.map, span, first, objects);
            }
            *(*span).bits.add(first / 64) &= !mask_of(first, objects);
            (*span).until_notice += objects as i32;
        }
        self.handed_out += objects as u64;
        true
    }

    /// Marks the objects of the block at `addr` as free, which came as one of `class`. What is no such block ends the process.
    ///
    /// # Safety
    /// The span is of this class and has a second bitmap; the block is free and nobody else's.
    unsafe fn take_back<O: Os>(
        &mut self,
        heap: &PageHeap<O>,
        span: *mut Span,
        class: usize,
        addr: usize,
    ) {
        let table = heap.map.table();
        // SAFETY: the caller's duty; the bitmap has a word for every 64 objects.
        unsafe {
            let (first, objects) = block_at(table, span, addr);
            let word = (*span).bits.add(first / 64);
            if *word >> (first % 64) & 1 != 0 {
                die(Fault::DoubleFree, addr);
            }
            if !serves(span, objects, class) {
                die(Fault::WrongSize, addr);
            }
            *word |= mask_of(first, objects);
            if objects > 1
                && let Some(continued) = Continued::of(span, table)
            {
                continued.reclaim(&heap.map, span, first, objects);
            }
            self.taken_back += objects as u64;
            (*span).until_notice -= objects as i32;
            if (*span).until_notice < 0 {
                self.noticed(heap, span);
            }
        }
    }
}

/// The bits of `word` that begin `length` set ones.
fn starts_of_runs(word: u64, length: usize) -> u64 {
    let mut starts = word;
    let mut known = 1;
    while known < length && starts != 0 {
        let more = known.min(length - known);
        starts &= starts >> more;
        known += more;
    }
    starts
}

/// If some kernel page of the objects from `first` on was given back: the first object that begins behind it.
fn behind_given_back(span: &Span, first: usize, objects: usize) -> Option<usize> {
    if span.given_back() == 0 {
        return None;
    }
    let size = span.size();
    let pages = first * size / OS_PAGE..((first + objects) * size).div_ceil(OS_PAGE);
    pages
        .rev()
        .map(|page| (page * OS_PAGE / size, ((page + 1) * OS_PAGE).div_ceil(size)))
        // As every page was on which all objects are free.
        .find(|&(from, to)| {
            let end = to.min(span.objects.into());
            span.next_object::<false>(from, end).is_none()
        })
        .map(|(_, to)| to)
}

#[cfg(all(test, not(loom)))]
mod tests;
