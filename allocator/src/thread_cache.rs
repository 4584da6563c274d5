//! The front end (Go's mcache): per class two bounded last-in-first-out lists that only their own
//! thread touches, without lock or atomic read-modify-write.
//!
//! All operations are on the first list, the bin. A bin that is full becomes the spare and an empty
//! one the bin, and the other way round, so that a program that allocates and frees around a limit
//! finds room or objects; a spare that is in the way goes to the middle tier whole. So nothing ever
//! walks along a list (magazines, Bonwick and Adams, USENIX 2001).
//!
//! A bin counts the room that is left rather than its length, so that push needs no second load
//! for the bound, and the static empty cache (all room 0, all heads null) sends every operation of
//! a new thread to the slow path without a test of its own. Invariants: F1 only the owner changes
//! a bin; F2 the objects in a bin are `cap - room`; F3 `budget` = Σ 2 × cap × size ≤ the limit, the
//! smallest capacities excepted; F4 a list ends with null, and a spare has its length.

use crate::chain::{Chain, next_of, set_next};
use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::{NUM_CLASSES, batch_of, size_of_class};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes that a bin starts with room for, at least one object.
const FIRST_BYTES: usize = 1 << 10;
/// Default of the setting `thread_cache_bytes`.
pub const DEFAULT_BYTES: usize = 512 << 10;
/// `thread_cache_bytes`: what the capacities of one thread's bins may add up to. In a small heap
/// it is less: an eighth of what is in use, at least [`LEAST_BYTES`].
pub static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(DEFAULT_BYTES);
/// See [`LIMIT_BYTES`].
const LEAST_BYTES: usize = 64 << 10;
/// Bin and spare may hold this part of their class's spans once past their first capacity.
const CLASS_SHARE: usize = 4;
/// Bin and spare.
const LISTS: usize = 2;
/// In `spares`: the spare's objects lie close together.
const COMPACT: u32 = 1 << 31;
/// Bins that one miss looks at for room to take over. More would cost busy classes more than the
/// room is worth.
const STEAL_STEPS: usize = 4;

/// The caches of one thread. What the fast paths need is in arrays by class, so that an index
/// scales in the address and the least cache lines are touched. Fields are atomics only so that
/// statistics may read them from another thread; all accesses are relaxed loads and stores.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct ThreadCache {
    /// First object of each bin, null when it is empty.
    heads: [AtomicPtr<u8>; NUM_CLASSES],
    /// Objects that still fit into each bin.
    rooms: [AtomicU32; NUM_CLASSES],
    /// Objects that fit into each bin in all.
    caps: [AtomicU32; NUM_CLASSES],
    /// Where the last object of each bin's list lies, in words modulo 2³².
    ends: [AtomicU32; NUM_CLASSES],
    /// Objects in each spare, with [`COMPACT`].
    spares: [AtomicU32; NUM_CLASSES],
    /// First object of each spare, null if there is none.
    spare_heads: [AtomicPtr<u8>; NUM_CLASSES],
    thread: AtomicU32,
    epoch: AtomicU32,
    budget: AtomicUsize,
    cursor: AtomicU32,
    /// Times that the thread's exit was postponed.
    pub(crate) exit_rounds: AtomicU32,
    pub(crate) next: AtomicPtr<ThreadCache>,
    pub(crate) prev: AtomicPtr<ThreadCache>,
    /// The owner's thread-local slot while others may write to it, else null. Changed under the
    /// registry's lock.
    pub(crate) slot: AtomicPtr<AtomicPtr<ThreadCache>>,
    pub(crate) refills: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

impl ThreadCache {
    /// A cache without room: every operation takes the slow path.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            heads: [const { AtomicPtr::new(null_mut()) }; NUM_CLASSES],
            rooms: [const { AtomicU32::new(0) }; NUM_CLASSES],
            caps: [const { AtomicU32::new(0) }; NUM_CLASSES],
            ends: [const { AtomicU32::new(0) }; NUM_CLASSES],
            spares: [const { AtomicU32::new(0) }; NUM_CLASSES],
            spare_heads: [const { AtomicPtr::new(null_mut()) }; NUM_CLASSES],
            thread: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            budget: AtomicUsize::new(0),
            cursor: AtomicU32::new(1),
            exit_rounds: AtomicU32::new(0),
            next: AtomicPtr::new(null_mut()),
            prev: AtomicPtr::new(null_mut()),
            slot: AtomicPtr::new(null_mut()),
            refills: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    /// Makes a cache usable for thread number `thread`, which is not 0.
    pub fn start(&self, thread: u32, epoch: u32) {
        self.thread.store(thread, Relaxed);
        self.epoch.store(epoch, Relaxed);
        self.cursor.store(1, Relaxed);
    }

    /// The thread's number.
    #[must_use]
    pub fn thread(&self) -> u32 {
        self.thread.load(Relaxed)
    }

    #[inline(always)]
    fn head(&self, class: usize) -> &AtomicPtr<u8> {
        debug_assert!(class < NUM_CLASSES);
        // SAFETY: classes come from the class tables or the page map and are below NUM_CLASSES.
        unsafe { self.heads.get_unchecked(class) }
    }

    #[inline(always)]
    fn room(&self, class: usize) -> &AtomicU32 {
        debug_assert!(class < NUM_CLASSES);
        // SAFETY: as in `head`.
        unsafe { self.rooms.get_unchecked(class) }
    }

    #[inline(always)]
    fn cap(&self, class: usize) -> &AtomicU32 {
        debug_assert!(class < NUM_CLASSES);
        // SAFETY: as in `head`.
        unsafe { self.caps.get_unchecked(class) }
    }

    /// Takes an object, null if the bin is empty.
    #[inline(always)]
    #[must_use]
    pub fn pop(&self, class: usize) -> *mut u8 {
        let place = self.head(class);
        let head = place.load(Relaxed);
        if !head.is_null() {
            // SAFETY: objects in a bin are free and hold the link in their first word.
            place.store(unsafe { next_of(head) }, Relaxed);
            let room = self.room(class);
            room.store(room.load(Relaxed).wrapping_add(1), Relaxed);
        }
        head
    }

    /// Keeps an object; false if there is no room or the object is the last one that was freed.
    ///
    /// # Safety
    /// `object` is an object of `class` that is not in use.
    #[inline(always)]
    #[must_use]
    pub unsafe fn push(&self, class: usize, object: *mut u8) -> bool {
        let (left, full) = self.room(class).load(Relaxed).overflowing_sub(1);
        if full {
            return false;
        }
        let place = self.head(class);
        let head = place.load(Relaxed);
        if head == object {
            return false;
        }
        // SAFETY: the object is free; its first word is ours.
        unsafe { set_next(object, head) };
        place.store(object, Relaxed);
        self.room(class).store(left, Relaxed);
        true
    }

    /// The object that would be taken next.
    #[must_use]
    pub fn peek(&self, class: usize) -> *mut u8 {
        self.head(class).load(Relaxed)
    }

    /// Objects in a bin.
    #[must_use]
    pub fn len(&self, class: usize) -> usize {
        let room = self.room(class).load(Relaxed);
        self.cap(class).load(Relaxed).saturating_sub(room) as usize
    }

    /// Objects in a spare.
    #[must_use]
    pub fn spare_len(&self, class: usize) -> usize {
        (self.spares[class].load(Relaxed) & !COMPACT) as usize
    }

    /// Neither bins nor spares hold anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        (1..NUM_CLASSES).all(|class| self.len(class) + self.spare_len(class) == 0)
    }

    /// Capacity of a bin.
    #[must_use]
    pub fn capacity(&self, class: usize) -> usize {
        self.cap(class).load(Relaxed) as usize
    }

    /// Bytes in all bins and spares.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (1..NUM_CLASSES)
            .map(|class| (self.len(class) + self.spare_len(class)) * size_of_class(class))
            .sum()
    }

    /// The first capacity of a class: 1 KiB worth, at least one object.
    fn first_capacity(class: usize) -> usize {
        (FIRST_BYTES / size_of_class(class)).clamp(1, 16)
    }

    /// Changes a bin's capacity; its objects must fit.
    fn set_capacity(&self, class: usize, cap: usize) {
        let old = self.cap(class).load(Relaxed) as usize;
        let size = size_of_class(class);
        let budget = self.budget.load(Relaxed) + LISTS * cap * size - LISTS * old * size;
        self.budget.store(budget, Relaxed);
        let len = old - self.room(class).load(Relaxed) as usize;
        debug_assert!(cap >= len);
        self.cap(class).store(cap as u32, Relaxed);
        self.room(class).store((cap - len) as u32, Relaxed);
    }

    /// Doubles a bin's capacity within the class's and the thread's limits; false: not possible.
    fn grow<O: Os>(&self, heap: &Heap<O>, class: usize) -> bool {
        let cap = self.capacity(class);
        let size = size_of_class(class);
        let limit = (heap.pages.in_use_bytes() / 8)
            .max(LEAST_BYTES)
            .min(LIMIT_BYTES.load(Relaxed));
        let target = if cap == 0 {
            let first = Self::first_capacity(class);
            // Small bins are worth having in any case.
            if size <= LISTS * FIRST_BYTES {
                self.set_capacity(class, first);
                return true;
            }
            if LISTS * size > limit / 2 {
                return false;
            }
            first
        } else {
            let share = heap.centrals[class].0.bytes() / (CLASS_SHARE * LISTS * size);
            (cap * 2).min(batch_of(class)).min(share)
        };
        if target <= cap {
            return false;
        }
        let need = LISTS * (target - cap) * size;
        if self.budget.load(Relaxed) + need > limit && !self.steal(need, limit) {
            return false;
        }
        self.set_capacity(class, target);
        true
    }

    /// Takes unused room from a few other bins; true: `need` bytes fit into the budget now.
    fn steal(&self, need: usize, limit: usize) -> bool {
        let mut class = self.cursor.load(Relaxed) as usize;
        for _ in 0..STEAL_STEPS {
            if self.budget.load(Relaxed) + need <= limit {
                break;
            }
            class = if class + 1 < NUM_CLASSES {
                class + 1
            } else {
                1
            };
            let cap = self.capacity(class);
            let room = cap - self.len(class);
            if cap > Self::first_capacity(class) && room * 2 >= cap {
                let shrunk = (cap - room / 2)
                    .max(Self::first_capacity(class))
                    .max(self.spare_len(class));
                self.set_capacity(class, shrunk);
            }
        }
        self.cursor.store(class as u32, Relaxed);
        self.budget.load(Relaxed) + need <= limit
    }

    /// An object of a class whose bin is empty: takes the spare or fills the bin from the middle
    /// tier. Null: no memory.
    #[must_use]
    pub fn refill<O: Os>(&self, heap: &Heap<O>, class: usize) -> *mut u8 {
        self.follow_epoch(heap);
        let mut chain = self.take_spare(class);
        if chain.head.is_null() {
            self.refills.store(self.refills.load(Relaxed) + 1, Relaxed);
            // A miss says that the bin is too small for what the program does.
            self.grow(heap, class);
            let cap = self.capacity(class);
            let batch = batch_of(class);
            let want = if cap < batch { cap.div_ceil(2) } else { batch };
            chain = heap.refill(class, self.thread(), want.max(1));
            if chain.head.is_null() {
                return null_mut();
            }
        }
        // SAFETY: the chain is ours.
        let rest = unsafe { next_of(chain.head) };
        let kept = chain.len - 1;
        if kept > self.capacity(class) {
            // A batch from another thread, larger than this bin has grown so far.
            self.set_capacity(class, kept);
        }
        self.head(class).store(rest, Relaxed);
        self.room(class)
            .store(self.cap(class).load(Relaxed) - kept as u32, Relaxed);
        self.ends[class].store(place_of(chain.head), Relaxed);
        chain.head
    }

    /// Keeps an object whose bin is full: makes room first.
    ///
    /// # Safety
    /// As [`ThreadCache::push`].
    pub unsafe fn overflow<O: Os>(&self, heap: &Heap<O>, class: usize, object: *mut u8) {
        self.follow_epoch(heap);
        if self.room(class).load(Relaxed) == 0 {
            let spare = self.spare_len(class) > 0;
            if (spare || self.capacity(class) == 0) && !self.grow(heap, class) {
                if self.capacity(class) == 0 {
                    // SAFETY: the caller's duty.
                    unsafe {
                        set_next(object, null_mut());
                        let head = object;
                        heap.flush(class, self.thread(), Chain { head, len: 1 }, false);
                    }
                    return;
                }
                self.flush_spare(heap, class);
            }
            if self.room(class).load(Relaxed) == 0 {
                self.make_spare(class);
                self.ends[class].store(place_of(object), Relaxed);
            }
        }
        // SAFETY: the caller's duty; there is room now.
        let kept = unsafe { self.push(class, object) };
        debug_assert!(kept);
    }

    /// Makes the bin's list the spare, of which there is none; the bin is empty then.
    fn make_spare(&self, class: usize) {
        let len = self.len(class) as u32;
        let head = self.peek(class);
        // Whether ends are no further apart than twice what is between them says little about any one
        // list, but is right about those that were filled in the order of addresses, or nearly.
        let apart = place_of(head).abs_diff(self.ends[class].load(Relaxed)) as usize * 8;
        let compact = apart <= 2 * len as usize * size_of_class(class);
        self.spares[class].store(len | if compact { COMPACT } else { 0 }, Relaxed);
        self.spare_heads[class].store(head, Relaxed);
        self.head(class).store(null_mut(), Relaxed);
        self.room(class)
            .store(self.cap(class).load(Relaxed), Relaxed);
    }

    /// Takes the spare's list, which may be empty.
    fn take_spare(&self, class: usize) -> Chain {
        let head = self.spare_heads[class].load(Relaxed);
        let len = self.spare_len(class);
        self.spare_heads[class].store(null_mut(), Relaxed);
        self.spares[class].store(0, Relaxed);
        Chain { head, len }
    }

    /// Gives the spare to the middle tier.
    fn flush_spare<O: Os>(&self, heap: &Heap<O>, class: usize) {
        let compact = self.spares[class].load(Relaxed) & COMPACT != 0;
        let chain = self.take_spare(class);
        if !chain.head.is_null() {
            self.flushes.store(self.flushes.load(Relaxed) + 1, Relaxed);
            // SAFETY: the objects were the spare's and are nobody's now.
            unsafe { heap.flush(class, self.thread(), chain, compact) };
        }
    }

    /// Empties all bins and spares.
    pub fn flush_all<O: Os>(&self, heap: &Heap<O>) {
        for class in 1..NUM_CLASSES {
            self.flush_spare(heap, class);
            if !self.peek(class).is_null() {
                self.make_spare(class);
                self.flush_spare(heap, class);
            }
        }
    }

    /// The last call to empty all bins that the owner followed.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    /// Empties all bins if somebody asked for it since the last slow path.
    pub fn follow_epoch<O: Os>(&self, heap: &Heap<O>) {
        let epoch = heap.epoch();
        if self.epoch.load(Relaxed) != epoch {
            self.epoch.store(epoch, Relaxed);
            self.flush_all(heap);
        }
    }

    /// Panics if F2, F3 or F4 does not hold. Only for the owner, in tests.
    pub fn check_invariants(&self) {
        let mut budget = 0;
        for class in 1..NUM_CLASSES {
            let mut object = self.peek(class);
            let mut len = 0;
            while !object.is_null() {
                len += 1;
                // SAFETY: objects in a bin form a chain that ends with null.
                object = unsafe { next_of(object) };
            }
            assert_eq!(len, self.len(class), "class {class}: list and count differ");
            let mut spare = self.spare_heads[class].load(Relaxed);
            let mut len = 0;
            while !spare.is_null() {
                len += 1;
                // SAFETY: as above.
                spare = unsafe { next_of(spare) };
            }
            assert_eq!(
                len,
                self.spare_len(class),
                "class {class}: spare and its length differ"
            );
            budget += LISTS * self.capacity(class) * size_of_class(class);
        }
        assert_eq!(
            budget,
            self.budget.load(Relaxed),
            "budget is not the sum of the capacities"
        );
    }
}

/// Where an object lies, in words modulo 2³².
fn place_of(object: *mut u8) -> u32 {
    (object as usize >> 3) as u32
}

impl Default for ThreadCache {
    fn default() -> Self {
        Self::new()
    }
}
