//! The tiers below the thread caches put together, generic over the page source: what a thread
//! cache refills from and flushes to, and large blocks.

use crate::central::Central;
use crate::continued::{block_at, class_of_block};
use crate::fault::{Fault, die, reporting};
use crate::holes::Wanted;
use crate::joining::{Classes, Rest, Search};
use crate::os::Os;
use crate::page_heap::{PageHeap, Use};
use crate::registry::Epoch;
use crate::size_class::{MAX_BATCH, MAX_SMALL, NUM_CLASSES, batch_of, size_of_class};
use crate::span::{Span, State};
use crate::sync::Padded;
use crate::transfer_cache::TransferCache;
use crate::units::{MAX_REQUEST, PAGE_SIZE, pages_for};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Bytes that the transfer cache may hold of one class, but no more than ...
const TRANSFER_BYTES: usize = 1 << 20;
/// ... this part of the class's spans. (Batches whose objects lie close together may be all of them:
/// they keep few other objects' pages, and are called back when memory is wanted elsewhere.)
const TRANSFER_SHARE: usize = 8;
/// Of batches of so few objects nobody can tell whether they lie together, ...
const FEW: usize = 4;
/// ... so of a class that comes in such the transfer cache may hold no more than the share above, or this many bytes.
const FEW_BYTES: usize = 16 << 10;
/// From this part of what is in use in transfer caches on they are emptied before the heap takes pages that are not
/// resident: sorting them into their spans costs less than the faults ...
const RECALL_SHARE: usize = 32;
/// ... from so many bytes on in any case, ...
const RECALL_BYTES: usize = 64 << 10;
/// ... and never with less.
const RECALL_LEAST: usize = 8 << 10;

/// In `growths`: transfer caches may hold batches only because the heap has not grown for a while.
const UNSORTED: u32 = 1;
/// In `growths`: the step for each time.
const GROWTH: u32 = 2;

/// Middle tier and back end. A small program touches the back end and the first classes: they lie together, and begin in the
/// page of the library's own data.
#[derive(Debug)]
#[repr(C)]
pub struct Heap<O> {
    /// The back end.
    pub pages: PageHeap<O>,
    /// Bytes that fit into the thread caches of this heap.
    pub(crate) cached_room: AtomicUsize,
    /// Raised when all thread caches shall be emptied; each does so at its next slow path.
    pub(crate) epoch: Epoch,
    /// Times that pages were wanted that are not resident, in steps of [`GROWTH`]; [`UNSORTED`].
    growths: AtomicU32,
    /// The class that was looked at last ([`crate::holes`]).
    pub(crate) looked: AtomicUsize,
    /// The same for classes in use.
    pub(crate) wanted: Wanted,
    /// Classes with much room between objects that are in use ([`crate::joining`]).
    pub(crate) sparse: Classes,
    /// How long the heap has not grown.
    pub(crate) rest: Rest,
    middle: [Padded<Middle>; NUM_CLASSES],
    /// Only looked at where some class is `sparse`, so not in memory in others.
    pub(crate) searches: [Search; NUM_CLASSES],
}

/// The middle tier of one class: a pair of cache lines, so that those of the smallest 32 classes, with which most small
/// programs make do, share one page.
#[derive(Debug)]
struct Middle {
    transfer: TransferCache,
    central: Central,
}

const _: () = assert!(size_of::<Padded<Middle>>() == 128);

impl Middle {
    const fn new() -> Self {
        Self {
            transfer: TransferCache::new(),
            central: Central::new(),
        }
    }
}

/// A block that an address belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// An object of a class. (Whether the address is its start is checked when it is flushed.)
    Small(usize),
    /// A span of its own.
    Large(*mut Span),
}

impl<O: Os> Heap<O> {
    /// A heap without memory.
    #[must_use]
    pub const fn new(os: O) -> Self {
        Self {
            pages: PageHeap::new(os),
            middle: [const { Padded(Middle::new()) }; NUM_CLASSES],
            cached_room: AtomicUsize::new(0),
            epoch: Epoch::new(),
            looked: AtomicUsize::new(0),
            growths: AtomicU32::new(0),
            wanted: Wanted::new(),
            sparse: Classes::new(),
            rest: Rest::new(),
            searches: [const { Search::new() }; NUM_CLASSES],
        }
    }

    /// Makes a heap without memory at `place`, part by part: whole it is too large for small stacks.
    ///
    /// # Safety
    /// The place is writable, aligned and nobody else's.
    pub(crate) unsafe fn place(place: *mut Self, os: O) {
        // SAFETY: the caller's duty; every field is written.
        unsafe {
            (&raw mut (*place).pages).write(PageHeap::new(os));
            for class in 0..NUM_CLASSES {
                let middle = (&raw mut (*place).middle).cast::<Padded<Middle>>();
                middle.add(class).write(Padded(Middle::new()));
            }
            (&raw mut (*place).cached_room).write(AtomicUsize::new(0));
            (&raw mut (*place).epoch).write(Epoch::new());
            (&raw mut (*place).looked).write(AtomicUsize::new(0));
            (&raw mut (*place).growths).write(AtomicU32::new(0));
            (&raw mut (*place).wanted).write(Wanted::new());
            (&raw mut (*place).sparse).write(Classes::new());
            (&raw mut (*place).rest).write(Rest::new());
            (&raw mut (*place).searches).write([const { Search::new() }; NUM_CLASSES]);
        }
    }

    /// The central free list of a class.
    #[inline]
    pub(crate) fn central(&self, class: usize) -> &Central {
        &self.middle[class].0.central
    }

    /// The transfer cache of a class.
    #[inline]
    pub(crate) fn transfer(&self, class: usize) -> &TransferCache {
        &self.middle[class].0.transfer
    }

    /// Fills `objects`, at most a batch, for a thread cache: with what other threads flushed, or from the
    /// central free list. Returns how many they are. 0: no memory.
    #[must_use]
    pub fn refill(&self, class: usize, thread: u32, objects: &mut [*mut u8]) -> usize {
        self.refill_after(class, thread, objects, || ())
    }

    /// As [`Heap::refill`]; `spare` is called before pages are put to use that are not resident: it may give back
    /// objects that nobody wants.
    #[must_use]
    pub(crate) fn refill_after(
        &self,
        class: usize,
        thread: u32,
        objects: &mut [*mut u8],
        spare: impl FnOnce(),
    ) -> usize {
        self.rest.count();
        let got = self.transfer(class).fetch(thread, objects);
        if got > 0 {
            return got;
        }
        let central = self.central(class);
        let got = central.take(&self.pages, class, objects, false);
        if got > 0 {
            return got;
        }
        if self.sparse.any() {
            let got = self.join(class, objects);
            if got > 0 {
                return got;
            }
        }
        self.before_fresh(central.next_span_pages(class), spare);
        central.take(&self.pages, class, objects, true)
    }

    /// To be called before `pages` that are not resident are put to use: gives back what is held elsewhere, after what `spare`
    /// gives.
    fn before_fresh(&self, pages: usize, spare: impl FnOnce()) {
        if reporting() {
            // A handler of the end may stand on a path that holds locks or has left a bin half flushed.
            return;
        }
        self.growths.fetch_add(GROWTH, Relaxed);
        self.rest.end();
        spare();
        self.recall();
        self.purge_unwanted(pages);
    }

    /// Changes whenever pages are wanted that are not resident.
    pub(crate) fn growths(&self) -> u32 {
        self.growths.load(Relaxed) & !UNSORTED
    }

    /// To be called before a batch is stored that is to be sorted as soon as the heap grows.
    pub(crate) fn storing_unsorted(&self) {
        if self.growths.load(Relaxed) & UNSORTED == 0 {
            self.growths.fetch_or(UNSORTED, Relaxed);
        }
    }

    /// Empties the transfer caches of all classes if they hold much, or what belongs there only while the heap does not grow.
    fn recall(&self) {
        let held: usize = (1..NUM_CLASSES)
            .map(|class| self.transfer(class).held() * size_of_class(class))
            .sum();
        let much = (self.pages.in_use_bytes() / RECALL_SHARE).clamp(RECALL_LEAST, RECALL_BYTES);
        // Whoever stores such a batch at the same time may leave one behind, which counts as others do then.
        let unsorted = self.growths.fetch_and(!UNSORTED, Relaxed) & UNSORTED != 0;
        if held < much && !unsorted {
            return;
        }
        for class in 1..NUM_CLASSES {
            if self.transfer(class).held() > 0 {
                self.empty_transfer(class);
            }
        }
    }

    /// Sorts what the transfer cache of a class holds into the spans.
    pub(crate) fn empty_transfer(&self, class: usize) {
        let mut batch = [null_mut(); MAX_BATCH];
        loop {
            let got = self.transfer(class).drain(&mut batch);
            if got == 0 {
                return;
            }
            // SAFETY: the objects were the transfer cache's and are ours now.
            unsafe { self.give(class, &batch[..got]) };
        }
    }

    /// One object for a thread without cache, or for calloc; true: it is zero.
    #[must_use]
    pub fn take_one(&self, class: usize) -> (*mut u8, bool) {
        self.central(class).take_one(&self.pages, class)
    }

    /// `object` of a class whose objects are at multiples of `align`, or another one: joined ones may be anywhere.
    #[inline]
    pub(crate) fn at_multiple(&self, align: usize, class: usize, object: *mut u8) -> *mut u8 {
        if (object as usize).is_multiple_of(align) {
            object
        } else {
            self.exchange(class, object)
        }
    }

    /// Gives an object back for one that is in a span of its class.
    #[cold]
    #[inline(never)]
    fn exchange(&self, class: usize, object: *mut u8) -> *mut u8 {
        let (other, _) = self.take_one(class);
        // SAFETY: the object is the caller's, who has not used it.
        unsafe { self.give(class, &[object]) };
        other
    }

    /// Takes objects back from a thread cache, at most a batch; `compact`: they lie close together.
    ///
    /// # Safety
    /// The objects are free and nobody else's.
    pub unsafe fn flush(&self, class: usize, thread: u32, objects: &[*mut u8], compact: bool) {
        let limit = self.storable(class, objects.len(), compact) / size_of_class(class);
        if !self
            .transfer(class)
            .store(thread, objects, compact, limit, &self.pages)
        {
            // SAFETY: the caller's duty.
            unsafe { self.give(class, objects) };
        }
    }

    /// Sorts objects of a class into their spans. A wrong pointer among them ends the process.
    ///
    /// # Safety
    /// The objects are free and nobody else's.
    pub unsafe fn give(&self, class: usize, objects: &[*mut u8]) {
        let mut rest = objects;
        loop {
            // SAFETY: the caller's duty.
            unsafe {
                rest = &rest[self.central(class).give(&self.pages, class, rest)..];
                if rest.is_empty() {
                    return;
                }
                rest = &rest[self.give_joined(class, rest)..];
            }
        }
    }

    /// Bytes that the transfer cache of a class may hold, one more batch of so many objects included.
    fn storable(&self, class: usize, objects: usize, compact: bool) -> usize {
        let all = self.central(class).bytes();
        let share = all / TRANSFER_SHARE;
        // An object that is a span of its own keeps no other object's pages.
        let alone = batch_of(class) == 1;
        let bytes = match compact {
            true if objects >= FEW || alone => all,
            true => share.max(FEW_BYTES),
            false => share,
        };
        bytes.min(TRANSFER_BYTES)
    }

    /// A block of at least `size` bytes in a span of its own, aligned to `align` (a power of
    /// two), and whether it is zero. Null: no memory.
    #[must_use]
    pub fn allocate_large(&self, size: usize, align: usize) -> (*mut u8, bool) {
        self.allocate_large_after(size, align, Use::Large, || ())
    }

    /// As [`Heap::allocate_large`], for [`Use::Large`] or [`Use::Zeros`]; `spare` as in [`Heap::refill_after`].
    #[must_use]
    pub(crate) fn allocate_large_after(
        &self,
        size: usize,
        align: usize,
        purpose: Use,
        spare: impl FnOnce(),
    ) -> (*mut u8, bool) {
        if size > MAX_REQUEST || align > MAX_REQUEST {
            return (null_mut(), false);
        }
        let pages = pages_for(size).max(1);
        if align > PAGE_SIZE {
            self.before_large(pages, spare);
            return self.started(self.pages.allocate(pages, align / PAGE_SIZE, purpose));
        }
        let mut span = self.pages.allocate_resident(pages, purpose);
        if span.is_null() {
            self.before_fresh(pages, spare);
            span = self.pages.allocate(pages, 1, purpose);
        }
        self.started(span)
    }

    /// As [`Heap::allocate_large`], at a place where it can grow.
    #[must_use]
    pub fn allocate_growing(&self, size: usize, spare: impl FnOnce()) -> (*mut u8, bool) {
        if size > MAX_REQUEST {
            return (null_mut(), false);
        }
        let pages = pages_for(size).max(1);
        self.before_large(pages, spare);
        self.started(self.pages.allocate_roomy(pages))
    }

    /// To be called before a block of so many pages is made.
    fn before_large(&self, pages: usize, spare: impl FnOnce()) {
        if !self.pages.has_dirty_run(pages) {
            self.before_fresh(pages, spare);
        }
    }

    fn started(&self, span: *mut Span) -> (*mut u8, bool) {
        if span.is_null() {
            return (null_mut(), false);
        }
        // SAFETY: the span is in use and ours.
        unsafe { (self.pages.map.address((*span).start), !(*span).needzero) }
    }

    /// What block `ptr` is. A pointer that is none ends the process.
    #[must_use]
    pub fn block_of(&self, ptr: *mut u8) -> Block {
        let addr = ptr as usize;
        let Some(page) = self.pages.map.page_of(addr) else {
            die(
                if self.pages.map.contains(addr) {
                    Fault::Misaligned
                } else {
                    Fault::ForeignPointer
                },
                addr,
            )
        };
        // SAFETY: the page is in the heap; numbers in the map have records.
        unsafe {
            let class = self.pages.map.class_of_page(page);
            if class != 0 {
                return Block::Small(class);
            }
            let span = self.pages.map.span_of_page(page);
            if span.is_null() {
                die(Fault::ForeignPointer, addr);
            }
            match (*span).state {
                State::Large if self.pages.map.address((*span).start) == ptr => Block::Large(span),
                State::Large if covers(span, page) => die(Fault::InteriorPointer, addr),
                // Some of the span's objects are joined.
                State::Small if covers(span, page) => {
                    let (_, objects) = block_at(self.pages.map.table(), span, addr);
                    Block::Small(class_of_block(span, objects))
                }
                // A free run, or an old number within one.
                _ => die(Fault::DoubleFree, addr),
            }
        }
    }

    /// Bytes of the block at `ptr`, all of which the program may use.
    #[must_use]
    pub fn usable_size(&self, ptr: *mut u8) -> usize {
        match self.block_of(ptr) {
            Block::Small(class) => size_of_class(class),
            // SAFETY: the span is the live block's.
            Block::Large(span) => unsafe { (*span).bytes() },
        }
    }

    /// The number that thread caches compare with theirs on slow paths.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.now()
    }

    /// Asks all thread caches to empty themselves at their next slow path.
    pub fn raise_epoch(&self) {
        self.epoch.raise();
    }

    /// Follows another heap, so that one number serves both.
    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.epoch.set(epoch);
    }

    /// Empties the middle tier and releases all free pages but `keep_bytes`, those inside partly used
    /// spans included. Returns the bytes
    /// given back to the system.
    pub fn trim(&self, keep_bytes: usize) -> usize {
        // First, as what a class holds may be of another one's spans ([`crate::joining`]).
        (1..NUM_CLASSES).for_each(|class| self.empty_transfer(class));
        let holes: usize = (1..NUM_CLASSES).map(|class| self.settle(class)).sum();
        holes + self.pages.release_free(keep_bytes)
    }

    /// Visits every lock below the registry in the lock order.
    pub(crate) fn for_each_lock(&self, mut visit: impl FnMut(&crate::sync::RawLock)) {
        for middle in &self.middle {
            middle.0.transfer.for_each_lock(&mut visit);
        }
        for middle in &self.middle {
            visit(middle.0.central.inner.raw());
        }
        visit(self.pages.inner.raw());
    }
}

/// The run has this page.
///
/// # Safety
/// `span` is a record.
unsafe fn covers(span: *const Span, page: usize) -> bool {
    // SAFETY: the caller's duty, S3.
    let (start, pages) = unsafe { ((*span).start as usize, (*span).pages as usize) };
    page.wrapping_sub(start) < pages
}

const _: () = assert!(MAX_SMALL == 32 * PAGE_SIZE);
