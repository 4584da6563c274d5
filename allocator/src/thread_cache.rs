//! The front end (Go's mcache): per class a bin, a bounded last-in-first-out array of addresses that
//! only its own thread touches, without lock or atomic read-modify-write.
//!
//! Free objects themselves are not touched, neither here nor in the middle tier: their memory may be far
//! away by the time they are freed, and whoever allocates next may be on another CPU (per-CPU slabs of
//! TCMalloc; magazines, Bonwick and Adams, USENIX 2001). A bin that is full gives its older half to the
//! middle tier, one that is empty asks for half of what fits, so that a program that allocates and frees
//! around a limit finds room or objects.
//!
//! A bin is filled from its end downwards, and its head is where its first object stands; the word behind
//! its last place is null, so that pop needs no bound, and a head on the first place means a full bin.
//! The static empty cache (all bins full and without an object) sends every operation of a new thread to
//! the slow path without a test of its own. Invariants: F1 only the owner changes a bin; F2 the objects
//! in a bin are the words from its head to `slots[cap]`, which is null; F3 `budget` = Σ cap × size ≤ the limit, the
//! smallest capacities excepted.

pub(crate) mod capacity;
pub(crate) mod surplus;
mod unsorted;

use crate::cutting::Cutting;
use crate::fault::DETECT;
use crate::heap::Heap;
use crate::os::Os;
use crate::registry::{Link, Member};
use crate::size_class::{NUM_CLASSES, batch_of, size_of_class};
use crate::transfer_cache::Places;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicI64, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

/// Default of the setting `thread_cache_bytes`.
pub const DEFAULT_BYTES: usize = 1 << 20;
/// `thread_cache_bytes`: what the capacities of one thread's bins may add up to. In a small heap
/// it is less: a quarter of what is in use, at least 64 KiB.
pub static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(DEFAULT_BYTES);
/// Caches of living threads.
pub(crate) static CACHES: AtomicUsize = AtomicUsize::new(0);

/// A place for an object. Only its owner reads or writes it.
type Slot = *mut u8;

/// A bin's places before it has any: it is empty and full.
static NO_SLOTS: AtomicPtr<u8> = AtomicPtr::new(null_mut());
const NO_SLOTS_AT: *mut Slot = NO_SLOTS.as_ptr();

/// When the thread samples an allocation next ([`crate::profile`]). Only for its own thread.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// Bytes until then.
    pub(crate) left: AtomicI64,
    /// The mean distance that `left` was drawn for; 0: none was.
    pub(crate) mean: AtomicUsize,
    /// 1: the thread is writing down a sample.
    pub(crate) busy: AtomicU32,
}

/// What the fast paths need of all bins.
#[derive(Debug)]
#[repr(C)]
struct Bins {
    /// Where each bin's first object stands.
    heads: [AtomicPtr<Slot>; NUM_CLASSES],
    /// Each bin's places.
    slots: [AtomicPtr<Slot>; NUM_CLASSES],
}

/// The caches of one thread. What the fast paths need is in arrays by class, so that an index
/// scales in the address and the least cache lines are touched. Fields are atomics only so that
/// statistics may read them from another thread; all accesses are relaxed loads and stores.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct ThreadCache {
    bins: Bins,
    /// Objects that fit into each bin in all.
    caps: [AtomicU8; NUM_CLASSES],
    /// log₂ of the words that each bin's places take, 0 while it has none.
    widths: [AtomicU8; NUM_CLASSES],
    /// Objects in each bin when it was looked at last ([`surplus`]), misses while it has no room ([`capacity`]), and the bin that was
    /// looked at last.
    seen: [AtomicU8; NUM_CLASSES],
    looked: AtomicU32,
    thread: AtomicU32,
    budget: AtomicUsize,
    cursor: AtomicU32,
    /// Times that the thread's exit was postponed.
    pub(crate) exit_rounds: AtomicU32,
    pub(crate) link: Link<ThreadCache>,
    /// The thread's cache of the data partition, null if it has none; in that cache its own address.
    pub(crate) data: AtomicPtr<ThreadCache>,
    pub(crate) refills: AtomicU64,
    pub(crate) flushes: AtomicU64,
    /// [`Heap::growths`] as seen last, and the low half of `flushes` when that changed.
    growths: AtomicU32,
    settling: AtomicU32,
    pub(crate) sampling: Sampling,
    pub(crate) tiny: Cutting,
}

const _: () = assert!(
    size_of::<ThreadCache>() <= crate::page_map::CLASSES_SKIP - crate::page_map::NUMBERS_SKIP,
    "the first one lies between the first span numbers and classes"
);

impl ThreadCache {
    /// A cache without room: every operation takes the slow path.
    #[must_use]
    pub const fn new() -> Self {
        let mut cache = Self::unshown();
        let mut class = 0;
        while class < NUM_CLASSES {
            cache.bins.heads[class] = AtomicPtr::new(NO_SLOTS_AT);
            cache.bins.slots[class] = AtomicPtr::new(NO_SLOTS_AT);
            class += 1;
        }
        cache
    }

    /// As [`ThreadCache::new`], but all zeros, so that it takes no room in the library's file: nothing may look into it
    /// before it was [`ThreadCache::shown`].
    #[must_use]
    pub(crate) const fn unshown() -> Self {
        Self {
            bins: Bins {
                heads: [const { AtomicPtr::new(null_mut()) }; NUM_CLASSES],
                slots: [const { AtomicPtr::new(null_mut()) }; NUM_CLASSES],
            },
            caps: [const { AtomicU8::new(0) }; NUM_CLASSES],
            widths: [const { AtomicU8::new(0) }; NUM_CLASSES],
            seen: [const { AtomicU8::new(0) }; NUM_CLASSES],
            looked: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            budget: AtomicUsize::new(0),
            cursor: AtomicU32::new(0),
            exit_rounds: AtomicU32::new(0),
            link: Link::new(),
            data: AtomicPtr::new(null_mut()),
            refills: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            growths: AtomicU32::new(0),
            settling: AtomicU32::new(0),
            sampling: Sampling {
                left: AtomicI64::new(0),
                mean: AtomicUsize::new(0),
                busy: AtomicU32::new(0),
            },
            tiny: Cutting::new(),
        }
    }

    /// The cache, ready to be looked into.
    pub(crate) fn shown(&'static self) -> &'static Self {
        for place in self.bins.heads.iter().chain(&self.bins.slots) {
            place.store(NO_SLOTS_AT, Relaxed);
        }
        self
    }

    /// Makes a cache usable for thread number `thread`, which is not 0.
    pub fn start(&self, thread: u32, epoch: u32) {
        self.thread.store(thread, Relaxed);
        self.link.start(epoch);
        self.cursor.store(1, Relaxed);
    }

    /// It holds blocks of the data partition.
    pub(crate) fn is_data(&self) -> bool {
        core::ptr::eq(self.data.load(Relaxed), self)
    }

    /// The thread's number.
    #[must_use]
    pub fn thread(&self) -> u32 {
        self.thread.load(Relaxed)
    }

    /// A bin's head, and the bin's first place.
    ///
    /// Processors hand a value that was just stored to the load that reads it again without any delay, on Intel's (from Golden
    /// Cove on) only if both name the place by a register and a constant. With an index in the address, which is what compilers
    /// make of an array, the head goes through the store buffer twice in each pair of malloc and free, and everything waits for
    /// it: 9.9 instead of 2.7 ns a pair on a Xeon of 2023. So the address is made where the compiler does not see how.
    #[inline(always)]
    #[expect(
        clippy::pointers_in_nomem_asm_block,
        reason = "the assembler has no instruction"
    )]
    fn bin(&self, class: usize) -> (&AtomicPtr<Slot>, &AtomicPtr<Slot>) {
        debug_assert!(class < NUM_CLASSES);
        let mut head = (&raw const self.bins).cast::<AtomicPtr<Slot>>();
        // SAFETY: classes come from the class tables or the page map and are below NUM_CLASSES, so that both words are in
        // `bins`, the second array after the first (repr(C)); the assembler changes nothing.
        unsafe {
            head = head.add(class);
            core::arch::asm!(
                "/* {0} */",
                inlateout(reg) head,
                options(pure, nomem, nostack, preserves_flags),
            );
            (&*head, &*head.add(NUM_CLASSES))
        }
    }

    /// The place number `at` of a bin.
    ///
    /// # Safety
    /// `at` is at most the bin's capacity.
    unsafe fn slot(&self, class: usize, at: usize) -> *mut Slot {
        debug_assert!(class < NUM_CLASSES && at <= self.capacity(class));
        // SAFETY: the caller's duty.
        unsafe { self.bins.slots[class].load(Relaxed).add(at) }
    }

    /// Places of a bin that are free; garbage while the owner changes the bin, for other threads.
    fn room(&self, class: usize) -> usize {
        let [head, first] =
            [&self.bins.heads, &self.bins.slots].map(|of| of[class].load(Relaxed) as usize);
        head.wrapping_sub(first) / size_of::<Slot>()
    }

    fn set_room(&self, class: usize, room: usize) {
        // SAFETY: every caller's room is at most the capacity.
        let head = unsafe { self.slot(class, room) };
        self.bins.heads[class].store(head, Relaxed);
    }

    #[inline(always)]
    fn cap(&self, class: usize) -> &AtomicU8 {
        debug_assert!(class < NUM_CLASSES);
        // SAFETY: as in `slot`.
        unsafe { self.caps.get_unchecked(class) }
    }

    /// Takes an object, null if the bin is empty.
    #[inline(always)]
    #[must_use]
    pub fn pop(&self, class: usize) -> *mut u8 {
        let (head, _) = self.bin(class);
        let first = head.load(Relaxed);
        // SAFETY: F2.
        let object = unsafe { *first };
        if !object.is_null() {
            // SAFETY: another object or the null follows.
            head.store(unsafe { first.add(1) }, Relaxed);
        }
        object
    }

    /// Keeps an object; false if there is no room or the object is the last one that was freed.
    ///
    /// # Safety
    /// `object` is an object of `class` that is not in use.
    #[inline(always)]
    #[must_use]
    pub unsafe fn push(&self, class: usize, object: *mut u8) -> bool {
        let (head, slots) = self.bin(class);
        let first = head.load(Relaxed);
        // SAFETY: only this thread writes the word, so that it need not be read as an atomic, which costs an instruction.
        if first == unsafe { *slots.as_ptr() } {
            return false;
        }
        // SAFETY: there is room, so the place before is one of the bin's; in `first` is an object or the null.
        unsafe {
            if DETECT && *first == object {
                return false;
            }
            let place = first.sub(1);
            *place = object;
            head.store(place, Relaxed);
        }
        true
    }

    /// The object that would be taken next, null if there is none.
    #[must_use]
    pub fn first(&self, class: usize) -> *mut u8 {
        // SAFETY: F2.
        unsafe { *self.bin(class).0.load(Relaxed) }
    }

    /// Objects in a bin.
    #[must_use]
    pub fn len(&self, class: usize) -> usize {
        self.capacity(class).saturating_sub(self.room(class))
    }

    /// The objects in a bin. Only for the owner, as long as it does not change the bin.
    pub(crate) fn objects(&self, class: usize) -> &[*mut u8] {
        // SAFETY: F2; nobody else touches them.
        unsafe {
            let first = self.slot(class, self.room(class));
            core::slice::from_raw_parts(first, self.len(class))
        }
    }

    /// No bin holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        (1..NUM_CLASSES).all(|class| self.len(class) == 0)
    }

    /// Capacity of a bin.
    #[must_use]
    pub fn capacity(&self, class: usize) -> usize {
        self.cap(class).load(Relaxed) as usize
    }

    /// Bytes in all bins.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (1..NUM_CLASSES)
            .map(|class| self.len(class) * size_of_class(class))
            .sum()
    }

    /// An object of a class whose bin is empty: fills the bin from the middle tier. Null: no memory.
    #[must_use]
    pub fn refill<O: Os>(&self, heap: &Heap<O>, class: usize) -> *mut u8 {
        self.follow_epoch(heap);
        self.refills.store(self.refills.load(Relaxed) + 1, Relaxed);
        // A miss says that the bin is too small for what the program does.
        self.grow(heap, class);
        let cap = self.capacity(class);
        // As many as an overflow gives away: after either the bin is half full, and the next one is as far off either way.
        let want = cap.div_ceil(2);
        let thread = self.thread();
        let mut single = [null_mut()];
        // SAFETY: the bin is empty, its last `want` places are there, and nobody else touches them.
        unsafe {
            let objects = if cap == 0 {
                &mut single[..]
            } else {
                let places = self.bins.slots[class].load(Relaxed).add(cap - want);
                core::slice::from_raw_parts_mut(places, want)
            };
            let got = heap.refill_after(class, thread, objects, || self.give_idle(heap, class, 1));
            if got == 0 || cap == 0 {
                return single[0];
            }
            objects.copy_within(..got, want - got);
            self.set_room(class, cap - got + 1);
            objects[want - got]
        }
    }

    /// Keeps an object whose bin is full: makes room first.
    ///
    /// # Safety
    /// As [`ThreadCache::push`].
    pub unsafe fn overflow<O: Os>(&self, heap: &Heap<O>, class: usize, object: *mut u8) {
        self.follow_epoch(heap);
        if self.room(class) == 0 && !self.grow(heap, class) {
            let cap = self.capacity(class);
            if cap == 0 {
                // SAFETY: the caller's duty.
                unsafe { heap.flush(class, self.thread(), &[object], false) };
                return;
            }
            let count = cap.div_ceil(2);
            self.flush(heap, class, count);
            let shrunk = (cap - count / 2).max(Self::first_capacity(class));
            if shrunk < cap && !self.has_budget(heap, 0) {
                // There are more threads now than when this one grew.
                let done = self.set_capacity(heap, class, shrunk);
                debug_assert!(done, "fewer places need no memory");
            }
        }
        // SAFETY: the caller's duty; there is room now.
        let kept = unsafe { self.push(class, object) };
        debug_assert!(kept);
    }

    /// Gives the `count` oldest objects of a bin to the middle tier, at most a batch.
    fn flush<O: Os>(&self, heap: &Heap<O>, class: usize, count: usize) {
        self.flush_to(heap, class, count, true);
    }

    /// As [`ThreadCache::flush`]; without `transfer` the objects are sorted into their spans at once.
    fn flush_to<O: Os>(&self, heap: &Heap<O>, class: usize, count: usize, transfer: bool) {
        let cap = self.capacity(class);
        let room = self.room(class);
        debug_assert!(0 < count && count <= cap - room);
        self.flushes.store(self.flushes.load(Relaxed) + 1, Relaxed);
        let slots = self.bins.slots[class].load(Relaxed);
        // SAFETY: F2; the objects are nobody's once they have left the bin, and a thread's own slots are
        // not written meanwhile.
        unsafe {
            let oldest = core::slice::from_raw_parts(slots.add(cap - count), count);
            // Whether ends are no further apart than twice what is between them says little about any one
            // batch, but is right about those that were freed in the order of addresses, or nearly.
            let apart = (oldest[0] as usize).abs_diff(oldest[count - 1] as usize);
            let compact = apart <= 2 * count * size_of_class(class)
                || (transfer && self.keeps_unsorted(heap, class, oldest));
            if transfer {
                heap.flush(class, self.thread(), oldest, compact);
            } else {
                heap.give(class, oldest);
            }
            core::ptr::copy(slots.add(room), slots.add(room + count), cap - count - room);
        }
        self.set_room(class, room + count);
    }

    /// Empties all bins.
    pub fn flush_all<O: Os>(&self, heap: &Heap<O>) {
        for class in 1..NUM_CLASSES {
            // What is asked for is wanted in its spans.
            let flushes = self.flushes.load(Relaxed) as u32;
            self.settling.store(flushes, Relaxed);
            while self.len(class) > 0 {
                self.flush(heap, class, self.len(class).min(batch_of(class)));
            }
        }
    }

    /// Empties all bins and gives their places back, for the thread's end.
    pub fn close<O: Os>(&self, heap: &Heap<O>) {
        self.flush_all(heap);
        for class in 1..NUM_CLASSES {
            self.shut(heap, class);
        }
    }

    /// Gives the places of a bin back, which is empty.
    fn shut<O: Os>(&self, heap: &Heap<O>, class: usize) {
        debug_assert!(self.len(class) == 0);
        let width = self.widths[class].load(Relaxed);
        if width == 0 {
            return;
        }
        let slots = self.bins.slots[class].load(Relaxed);
        let room = self.capacity(class) * size_of_class(class);
        self.bins.slots[class].store(NO_SLOTS_AT, Relaxed);
        self.widths[class].store(0, Relaxed);
        self.bins.heads[class].store(NO_SLOTS_AT, Relaxed);
        self.cap(class).store(0, Relaxed);
        self.budget.store(self.budget.load(Relaxed) - room, Relaxed);
        heap.cached_room.fetch_sub(room, Relaxed);
        // SAFETY: the places were the bin's, which has none any more.
        unsafe { heap.pages.give(slots, width) };
    }

    /// In a fork child: the bins of all other threads are given up.
    pub(crate) fn alone<O: Os>(&self, heap: &Heap<O>) {
        heap.cached_room.store(self.budget.load(Relaxed), Relaxed);
    }

    /// The last call to empty all bins that the owner followed.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.link.followed()
    }

    /// Empties all bins if somebody asked for it since the last slow path.
    pub fn follow_epoch<O: Os>(&self, heap: &Heap<O>) {
        self.link.follow(&heap.epoch, || self.flush_all(heap));
    }

    /// Panics if F2 or F3 does not hold. Only for the owner, in tests.
    pub fn check_invariants(&self) {
        let mut budget = 0;
        for class in 1..NUM_CLASSES {
            let cap = self.capacity(class);
            let room = cap - self.len(class);
            for at in room..=cap {
                // SAFETY: the bin has places up to its capacity.
                let object = unsafe { *self.slot(class, at) };
                assert_eq!(
                    object.is_null(),
                    at == cap,
                    "F2: class {class}, place {at} of {room}..{cap}"
                );
            }
            budget += cap * size_of_class(class);
        }
        assert_eq!(
            budget,
            self.budget.load(Relaxed),
            "F3: budget is not the sum of the capacities"
        );
    }
}

impl Member for ThreadCache {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl Default for ThreadCache {
    fn default() -> Self {
        Self::new()
    }
}
