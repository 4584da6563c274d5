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
use crate::tls;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes that a list starts with room for, at least one object.
const FIRST_BYTES: usize = 1 << 10;
/// Bytes and objects that a list may hold.
const MOST_BYTES: usize = 128 << 10;
const MOST_OBJECTS: usize = 4 * MAX_BATCH;

/// The caches of one CPU.
#[derive(Debug)]
#[repr(C, align(128))]
struct CpuCache {
    lists: [List; NUM_CLASSES],
    /// Objects that fit into each list.
    limits: [AtomicU32; NUM_CLASSES],
}

const LIMITS: usize = core::mem::offset_of!(CpuCache, limits);

/// The CPUs' caches, null while there is none or it is being emptied.
static SLABS: [AtomicPtr<CpuCache>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
/// The caches that exist, by CPU. Changed under the registry's lock.
static MADE: [AtomicPtr<CpuCache>; MAX_CPUS] = [const { AtomicPtr::new(null_mut()) }; MAX_CPUS];
/// [`Rseq`]'s offset while this front end is in use, else [`NOT_IN_USE`].
static IN_USE: AtomicIsize = AtomicIsize::new(NOT_IN_USE);
const NOT_IN_USE: isize = isize::MAX;
/// Times that lists were filled and emptied.
pub(crate) static REFILLS: AtomicU64 = AtomicU64::new(0);
pub(crate) static FLUSHES: AtomicU64 = AtomicU64::new(0);

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

/// The cache of the CPU, a new one if there is none; null: no memory, or it is being emptied.
fn slab(rseq: Rseq) -> *mut CpuCache {
    let cpu = rseq.cpu();
    if cpu >= MAX_CPUS {
        return null_mut();
    }
    let slab = SLABS[cpu].load(Relaxed);
    if !slab.is_null() {
        return slab;
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
        SLABS[cpu].store(made, core::sync::atomic::Ordering::Release);
    }
    made
}

/// Doubles the room of a list; false: it has all that it may have.
fn grow(slab: *mut CpuCache, class: usize) -> bool {
    if slab.is_null() {
        return false;
    }
    // SAFETY: caches are never unmapped.
    let limit = unsafe { &(&(*slab).limits)[class] };
    let old = limit.load(Relaxed) as usize;
    let new = if old == 0 {
        (FIRST_BYTES / size_of_class(class)).max(1)
    } else {
        old * 2
    };
    let most = (MOST_BYTES / size_of_class(class)).clamp(1, MOST_OBJECTS);
    let new = new.min(most);
    limit.store(new as u32, Relaxed);
    new > old
}

/// An object of a class whose list is empty. Null: no memory. Signals are blocked.
pub(crate) fn refill(rseq: Rseq, class: usize) -> *mut u8 {
    let slab = slab(rseq);
    grow(slab, class);
    REFILLS.fetch_add(1, Relaxed);
    let want = if slab.is_null() {
        1
    } else {
        // SAFETY: caches are never unmapped.
        let limit = unsafe { (&(*slab).limits)[class].load(Relaxed) as usize };
        limit.div_ceil(2).min(batch_of(class))
    };
    let mut objects = [null_mut(); MAX_BATCH];
    let got = HEAP.refill(class, cpu_number(rseq), &mut objects[..want.max(1)]);
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
    let slab = slab(rseq);
    if !slab.is_null() {
        // SAFETY: caches are never unmapped; the word may be old by now, but then the object is new.
        let list = unsafe { (&(*slab).lists)[class].load(Relaxed) };
        if rseq::first_of(list) == object {
            die(Fault::DoubleFree, object as usize);
        }
    }
    // SAFETY: the caller's duty.
    unsafe {
        if grow(slab, class) && push(rseq, class, object) {
            return;
        }
        let list = rseq.take_all(&SLABS, class);
        if list != 0 {
            FLUSHES.fetch_add(1, Relaxed);
            let len = rseq::len_of(list);
            let rest = flush(class, cpu_number(rseq), list, len.div_ceil(2));
            // What is left goes back, unless another thread has freed objects here meanwhile.
            if rest != 0 && !rseq.install(&SLABS, class, rest) {
                flush(class, cpu_number(rseq), rest, len / 2);
            }
        }
        if !push(rseq, class, object) {
            HEAP.flush(class, cpu_number(rseq), &[object], false);
        }
    }
}

/// What the middle tier knows the CPU by.
fn cpu_number(rseq: Rseq) -> u32 {
    rseq.cpu() as u32 + 1
}

/// Gives the first `left` objects of a list to the middle tier; the list of the others.
///
/// # Safety
/// The list is the caller's and has so many.
unsafe fn flush(class: usize, cpu: u32, mut list: u64, mut left: usize) -> u64 {
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
        unsafe { HEAP.flush(class, cpu, batch, false) };
    }
    list
}

/// Empties the caches of all CPUs. What could not be reached is in the result, in bytes.
pub(crate) fn empty_all() -> usize {
    let _registry = REGISTRY.lock();
    let mut unreached = 0;
    for (cpu, made) in MADE.iter().enumerate() {
        let slab = made.load(Relaxed);
        if slab.is_null() {
            continue;
        }
        SLABS[cpu].store(null_mut(), Relaxed);
        let ours = rseq::restart_on(cpu);
        // SAFETY: caches are never unmapped; R3.
        let lists = unsafe { &(*slab).lists };
        for (class, list) in lists.iter().enumerate().skip(1) {
            let word = list.load(Relaxed);
            if word == 0 {
                continue;
            }
            if ours {
                list.store(0, Relaxed);
                // SAFETY: nobody else can reach the objects.
                unsafe { flush(class, cpu as u32 + 1, word, rseq::len_of(word)) };
            } else {
                unreached += rseq::len_of(word) * size_of_class(class);
            }
        }
        SLABS[cpu].store(slab, core::sync::atomic::Ordering::Release);
    }
    unreached
}

/// Bytes in the caches of all CPUs, and how many there are.
pub(crate) fn held() -> (usize, u32) {
    let (mut bytes, mut caches) = (0, 0);
    for made in &MADE {
        let slab = made.load(Relaxed);
        if !slab.is_null() {
            caches += 1;
            // SAFETY: caches are never unmapped.
            let lists = unsafe { &(*slab).lists };
            for (class, list) in lists.iter().enumerate() {
                bytes += rseq::len_of(list.load(Relaxed)) * size_of_class(class);
            }
        }
    }
    (bytes, caches)
}
