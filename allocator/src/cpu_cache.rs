//! The other front end: a cache per CPU instead of one per thread, changed in restartable sequences
//! ([`crate::rseq`]). Chosen by the setting `front_end=cpu` where the C library has registered for
//! them.
//!
//! What threads hold is bounded by the number of CPUs, a thread's end has nothing to do, every cache
//! can be emptied by whoever wants its memory, and signal handlers may allocate: the fast paths are
//! restarted around them, slow paths block signals. The price is a longer fast path: threads keep the
//! empty thread cache, so that the other front end's fast path is tried in vain first and pays nothing
//! for the choice. Invariant: R3 the lists of a CPU whose entry in `SLABS` is null belong to the
//! holder of the registry's lock once every section on that CPU was restarted.

use crate::fault::{Fault, die};
use crate::process::{HEAP, REGISTRY};
use crate::rseq::{self, List, MAX_CPUS, Rseq};
use crate::size_class::{MAX_BATCH, NUM_CLASSES, batch_of, size_of_class};
use crate::thread_cache::capacity::{
    self, MISSES, STEAL_EVERY, STEAL_STEPS, first_capacity, fits_beside, is_large, next_capacity,
};
use crate::thread_cache::{CACHES, LIMIT_BYTES};
use crate::tls;
use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, Release},
};

mod surplus;

use surplus::give_idle;
pub(crate) use surplus::{empty_idle, give_idle_large};

/// Bytes and objects that a list may hold at most; as a rule its class's share and the cache's room end it sooner
/// ([`crate::thread_cache::capacity`]).
const MOST_BYTES: usize = 128 << 10;
const MOST_OBJECTS: usize = 4 * MAX_BATCH;
/// A cache has room for so many times as much as a thread's would, and a list for as much more of its class: a miss is two system calls
/// dearer, as signals are blocked.
const ROOM: usize = 2;
const SHARE: usize = 2;

/// The cache of one CPU. Sections alone change `lists`; everything else is changed by whoever runs on the CPU, or did a moment ago, and
/// sums are right whatever two of them do at once.
#[derive(Debug)]
#[repr(C, align(128))]
struct CpuCache {
    lists: [List; NUM_CLASSES],
    /// Objects that fit into each list.
    limits: [AtomicU32; NUM_CLASSES],
    /// Objects in each list when it was looked at last, misses while it has no room.
    seen: [AtomicU16; NUM_CLASSES],
    /// What was done last with each list: [`FILLED`] or [`EMPTIED`].
    last: [AtomicU8; NUM_CLASSES],
    /// The lists that were looked at last: for objects at rest, and for room.
    looked: AtomicU32,
    cursor: AtomicU32,
    /// Σ limit × size.
    room: AtomicUsize,
    /// Times that lists were filled and emptied.
    refills: AtomicU64,
    flushes: AtomicU64,
    rest: surplus::Rest,
    /// It was to be emptied and could not be reached.
    unreached: AtomicBool,
}

const FILLED: u8 = 1;
const EMPTIED: u8 = 2;

const LIMITS: usize = core::mem::offset_of!(CpuCache, limits);

/// The CPUs' caches, null while there is none or it is being emptied.
static SLABS: [AtomicPtr<CpuCache>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
/// The caches that exist, by CPU. Changed under the registry's lock.
static MADE: [AtomicPtr<CpuCache>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
/// The caches that exist are those of CPUs below this number, ...
static END: AtomicUsize = AtomicUsize::new(0);
/// ... and so many.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// [`Rseq`]'s offset while this front end is in use, else [`NOT_IN_USE`].
static IN_USE: AtomicIsize = AtomicIsize::new(NOT_IN_USE);
const NOT_IN_USE: isize = isize::MAX;

/// Uses this front end from now on, for threads that have no cache of their own yet. False: there is
/// no registration.
#[cold]
#[inline(never)]
pub(crate) fn start() -> bool {
    let Some(rseq) = Rseq::find() else {
        return false;
    };
    IN_USE.store(rseq.offset(), Relaxed);
    true
}

/// The registration while this front end is in use.
#[inline]
pub(crate) fn in_use() -> Option<Rseq> {
    let offset = IN_USE.load(Relaxed);
    (offset != NOT_IN_USE).then(|| Rseq::at(offset))
}

/// As [`in_use`], for the calling thread: `None`, too, if it got a cache of its own before the choice was made, or is a
/// child of `vfork` ([`crate::vfork`]).
#[inline]
pub(crate) fn of_thread() -> Option<Rseq> {
    in_use().filter(|_| core::ptr::eq(tls::cache(), &raw const tls::EMPTY))
}

/// An object of the CPU's list, null if it is empty.
#[inline]
pub(crate) fn pop(rseq: Rseq, class: usize) -> *mut u8 {
    // SAFETY: `SLABS` has an entry for every CPU that was counted; sections alone change lists (R3).
    unsafe { rseq.pop(&SLABS, class) }
}

/// Keeps an object in the CPU's list if there is room.
///
/// # Safety
/// The object is of the class and nobody uses it.
#[inline]
pub(crate) unsafe fn push(rseq: Rseq, class: usize, object: *mut u8) -> bool {
    // SAFETY: as in `pop`, and the caller's duty.
    unsafe { rseq.push::<CpuCache, LIMITS>(&SLABS, class, object) }
}

/// The cache of the CPU, a new one if there is none. `None`: no memory, or no CPU that can have one.
fn cache_of(rseq: Rseq) -> Option<&'static CpuCache> {
    let cpu = rseq.cpu();
    // SAFETY: null, or a record that is there for good.
    if let Some(cache) = unsafe { MADE.get(cpu)?.load(Relaxed).as_ref() } {
        return Some(cache);
    }
    let _registry = REGISTRY.lock();
    let mut made = MADE[cpu].load(Relaxed);
    if made.is_null() {
        made = HEAP
            .pages
            .take_record(size_of::<CpuCache>(), align_of::<CpuCache>())
            .cast();
        // Zeros are empty lists without room.
        MADE[cpu].store(made, Relaxed);
        SLABS[cpu].store(made, Release);
        if !made.is_null() {
            END.fetch_max(cpu + 1, Relaxed);
            COUNT.fetch_add(1, Relaxed);
        }
    }
    // SAFETY: as above.
    unsafe { made.as_ref() }
}

/// What a cache may have room for.
fn most_room() -> usize {
    let as_threads = capacity::limit(&HEAP, COUNT.load(Relaxed) + CACHES.load(Relaxed));
    (ROOM * as_threads).min(LIMIT_BYTES.load(Relaxed))
}

impl CpuCache {
    /// Objects in a list.
    fn len(&self, class: usize) -> usize {
        rseq::len_of(self.lists[class].load(Relaxed))
    }

    /// Bytes in all lists.
    fn bytes(&self) -> usize {
        (1..NUM_CLASSES)
            .map(|class| self.len(class) * size_of_class(class))
            .sum()
    }

    /// Objects that a list has room for.
    fn limit(&self, class: usize) -> usize {
        self.limits[class].load(Relaxed) as usize
    }

    /// The list is to be filled, or emptied, as it was the last time: another CPU takes what this one gives, or the other way round, and
    /// who leaves no half of it needs half as many misses. Says what is done.
    fn goes_one_way(&self, class: usize, what: u8) -> bool {
        self.last[class].swap(what, Relaxed) == what
    }

    /// Gives a list room for `new` objects; false: it has no longer room for `old`, as another thread was faster.
    fn set_limit(&self, class: usize, old: usize, new: usize) -> bool {
        let done = self.limits[class]
            .compare_exchange(old as u32, new as u32, Relaxed, Relaxed)
            .is_ok();
        if done {
            // Less than nothing for a moment if the one that gave what is taken here has not counted it yet.
            let more = new.wrapping_sub(old).wrapping_mul(size_of_class(class));
            self.room.fetch_add(more, Relaxed);
            HEAP.cached_room.fetch_add(more, Relaxed);
        }
        done
    }

    /// Gives a list more room; false: it has all that it may have.
    fn grow(&self, rseq: Rseq, class: usize) -> bool {
        let (old, size) = (self.limit(class), size_of_class(class));
        let most = (MOST_BYTES / size).clamp(1, MOST_OBJECTS);
        if old >= most {
            return false;
        }
        if old == 0 {
            // Short lists are worth having in any case.
            if !is_large(class) {
                return self.set_limit(class, 0, first_capacity(class));
            }
            let misses = self.seen[class].load(Relaxed);
            if misses < MISSES.into() {
                self.seen[class].store(misses + 1, Relaxed);
                return false;
            }
        }
        let limit = most_room();
        let new = next_capacity(&HEAP, class, old, most, || limit, SHARE).min(most);
        if new <= old {
            return false;
        }
        let need = (new - old) * size;
        if !fits_beside(&HEAP, self.room.load(Relaxed), need) {
            return false;
        }
        if self.room.load(Relaxed) + need > limit {
            let misses = self.refills.load(Relaxed) + self.flushes.load(Relaxed);
            if !misses.is_multiple_of(STEAL_EVERY) || !self.steal(rseq, class, need, limit) {
                return false;
            }
        }
        self.set_limit(class, old, new)
    }

    /// Takes room from a few other lists, as [`crate::thread_cache::ThreadCache`] does from bins. True: `need` bytes more for `class`
    /// are within the limit now.
    fn steal(&self, rseq: Rseq, class: usize, need: usize, limit: usize) -> bool {
        let fits = || self.room.load(Relaxed) + need <= limit;
        let mut at = self.cursor.load(Relaxed) as usize;
        for _ in 0..STEAL_STEPS {
            if fits() {
                break;
            }
            at = if at + 1 < NUM_CLASSES { at + 1 } else { 1 };
            if at != class {
                self.lose_room(rseq, at);
            }
        }
        self.cursor.store(at as u32, Relaxed);
        fits()
    }

    /// A list's part in [`CpuCache::steal`].
    fn lose_room(&self, rseq: Rseq, class: usize) {
        let (old, least) = (self.limit(class), first_capacity(class));
        if old <= least {
            return;
        }
        let len = self.len(class);
        if usize::from(self.seen[class].swap(len as u16, Relaxed)) == len && len > old / 2 {
            give(rseq, class, false);
            self.seen[class].store(self.len(class) as u16, Relaxed);
        }
        let unused = old.saturating_sub(self.len(class));
        if unused * 2 >= old {
            self.set_limit(class, old, (old - unused / 2).max(least));
        }
    }
}

/// An object of a class whose list is empty. Null: no memory. Signals are blocked.
pub(crate) fn refill(rseq: Rseq, class: usize) -> *mut u8 {
    let want = cache_of(rseq).map_or(1, |cache| {
        cache.grow(rseq, class);
        cache.refills.fetch_add(1, Relaxed);
        let most = cache.limit(class);
        let want = if cache.goes_one_way(class, FILLED) {
            most
        } else {
            most.div_ceil(2)
        };
        want.clamp(1, batch_of(class))
    });
    let mut objects = [null_mut(); MAX_BATCH];
    let spare = || {
        give_idle(rseq, class, 1);
        surplus::look_at_another(rseq);
    };
    let got = HEAP.refill_after(class, cpu_number(rseq), &mut objects[..want], spare);
    let Some((&first, rest)) = objects[..got].split_first() else {
        return null_mut();
    };
    if rest.is_empty() {
        return first;
    }
    let mut list = 0;
    for (len, &object) in rest.iter().rev().enumerate() {
        // SAFETY: the objects are ours.
        unsafe { object.cast::<u64>().write(list) };
        list = rseq::list_of(object, len + 1);
    }
    // SAFETY: the objects are nobody else's.
    unsafe {
        // Another thread may have freed objects here meanwhile, or this one is elsewhere now.
        if !rseq.install(&SLABS, class, list) {
            HEAP.flush(class, cpu_number(rseq), rest, false);
        }
    }
    first
}

/// Keeps an object for which there is no room: makes some. Signals are blocked.
///
/// # Safety
/// The object is of the class and nobody uses it.
pub(crate) unsafe fn overflow(rseq: Rseq, class: usize, object: *mut u8) {
    let cache = cache_of(rseq);
    // SAFETY: the caller's duty.
    unsafe {
        if let Some(cache) = cache {
            // The word may be old by now, but then the object is new.
            if rseq::first_of(cache.lists[class].load(Relaxed)) == object {
                die(Fault::DoubleFree, object as usize);
            }
            if cache.grow(rseq, class) && push(rseq, class, object) {
                return;
            }
            let given = give(rseq, class, cache.goes_one_way(class, EMPTIED));
            let old = cache.limit(class);
            let less = old.saturating_sub(given / 2).max(first_capacity(class));
            if given > 0 && less < old && cache.room.load(Relaxed) > most_room() {
                // There are more caches now than when this one grew, or less is in use.
                cache.set_limit(class, old, less);
            }
        }
        if !push(rseq, class, object) {
            HEAP.flush(class, cpu_number(rseq), &[object], false);
        }
    }
}

/// Gives the newer half of a list of the CPU's to the middle tier, or `all` of it; how many objects that was.
fn give(rseq: Rseq, class: usize, all: bool) -> usize {
    // SAFETY: what the section took is nobody else's.
    unsafe {
        let list = rseq.take_all(&SLABS, class);
        if list == 0 {
            return 0;
        }
        if let Some(cache) = cache_of(rseq) {
            cache.flushes.fetch_add(1, Relaxed);
        }
        let len = rseq::len_of(list);
        let half = if all { len } else { len.div_ceil(2) };
        let rest = flush(class, cpu_number(rseq), list, half, true);
        // What is left goes back, unless another thread has freed objects here meanwhile.
        if rest != 0 && !rseq.install(&SLABS, class, rest) {
            flush(class, cpu_number(rseq), rest, len - half, true);
            return len;
        }
        half
    }
}

/// What the middle tier knows the CPU by.
fn cpu_number(rseq: Rseq) -> u32 {
    rseq.cpu() as u32 + 1
}

/// Gives the first `left` objects of a list to the middle tier, to their spans without `transfer`; the list of the others.
///
/// # Safety
/// The list is the caller's and has so many.
unsafe fn flush(class: usize, cpu: u32, mut list: u64, mut left: usize, transfer: bool) -> u64 {
    let mut last = null_mut();
    while left > 0 {
        let mut objects = [null_mut(); MAX_BATCH];
        let batch = &mut objects[..left.min(batch_of(class))];
        left -= batch.len();
        for place in batch.iter_mut() {
            *place = rseq::first_of(list);
            if place.is_null() {
                // Shorter than its count: it was a ring, closed by a block that was freed twice.
                die(Fault::DoubleFree, last as usize);
            }
            last = *place;
            // SAFETY: the caller's duty.
            list = unsafe { last.cast::<u64>().read() };
        }
        // SAFETY: the caller's duty.
        unsafe {
            if transfer {
                HEAP.flush(class, cpu, batch, false);
            } else {
                HEAP.give(class, batch);
            }
        }
    }
    list
}

/// Empties the caches of all CPUs that can be reached.
pub(crate) fn empty_all() {
    let _registry = REGISTRY.lock();
    // SAFETY: we have the registry's lock.
    made().for_each(|(cpu, cache)| unsafe { empty(cpu, cache) });
}

/// Bytes in the caches that could not be reached when they were to be emptied last: the kernel restarts no sections on other CPUs.
pub(crate) fn unreached_bytes() -> usize {
    made()
        .filter(|(_, cache)| cache.unreached.load(Relaxed))
        .map(|(_, cache)| cache.bytes())
        .sum()
}

/// Empties the cache of a CPU, if it can be reached.
///
/// # Safety
/// The caller holds the registry's lock.
unsafe fn empty(cpu: usize, cache: &'static CpuCache) {
    SLABS[cpu].store(null_mut(), Relaxed);
    let ours = rseq::restart_on(cpu);
    cache.unreached.store(!ours, Relaxed);
    for (class, list) in cache.lists.iter().enumerate().skip(1) {
        let word = list.load(Relaxed);
        if word != 0 && ours {
            list.store(0, Relaxed);
            // SAFETY: nobody else can reach the objects (R3).
            unsafe { flush(class, cpu as u32 + 1, word, rseq::len_of(word), false) };
        }
    }
    SLABS[cpu].store(core::ptr::from_ref(cache).cast_mut(), Release);
}

/// In a fork child: what lists have room for is counted anew, as another thread may have been about to. Bytes of all.
pub(crate) fn count_room() -> usize {
    made()
        .map(|(_, cache)| {
            let room = (1..NUM_CLASSES)
                .map(|class| cache.limit(class) * size_of_class(class))
                .sum();
            cache.room.store(room, Relaxed);
            room
        })
        .sum()
}

/// The caches that exist. They are never unmapped.
fn made() -> impl Iterator<Item = (usize, &'static CpuCache)> {
    let cpus = END.load(Relaxed);
    MADE[..cpus].iter().enumerate().filter_map(|(cpu, made)| {
        // SAFETY: null, or a record that is there for good.
        unsafe { made.load(Relaxed).as_ref() }.map(|cache| (cpu, cache))
    })
}

/// Objects of a class in the caches of all CPUs.
pub(crate) fn objects(class: usize) -> usize {
    made().map(|(_, cache)| cache.len(class)).sum()
}

/// What the caches of all CPUs did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) caches: u32,
    pub(crate) refills: u64,
    pub(crate) flushes: u64,
}

pub(crate) fn totals() -> Totals {
    made().fold(Totals::default(), |sum, (_, cache)| Totals {
        caches: sum.caches + 1,
        refills: sum.refills + cache.refills.load(Relaxed),
        flushes: sum.flushes + cache.flushes.load(Relaxed),
    })
}
