//! Threads and processes: gives a thread its cache, takes it back at the end, and keeps the locks
//! sound across `fork`.
//!
//! A thread's end is seen by the destructor of a pthread key. Destructors of other keys may run
//! after ours and still allocate, so ours asks to be called again until the last of the four
//! rounds that POSIX allows; from then on the thread works without a cache.

use crate::cutting;
use crate::heap::Heap;
use crate::os::Linux;
use crate::plant::{Plant, planted};
use crate::process::{HEAP, ORPHANED, REGISTRY, Threads};
use crate::size_class::class_of;
use crate::slow_path::SlowPath;
use crate::sync::RawLock;
use crate::thread_cache::{CACHES, ThreadCache};
use crate::tls;
use crate::{hardened, partition, profile, registry};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Rounds of destructor calls that the C library makes (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const DESTRUCTOR_ROUNDS: u32 = 4;

/// The pthread key plus one; 0 while there is none.
static KEY: AtomicU32 = AtomicU32::new(0);

fn key() -> Option<libc::pthread_key_t> {
    let stored = KEY.load(Ordering::Acquire);
    if stored != 0 {
        return Some(stored - 1);
    }
    let mut key = 0;
    // SAFETY: the destructor has the required signature.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(end_of_thread)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: our key was created just now and is not in use.
            unsafe { libc::pthread_key_delete(key) };
            Some(other - 1)
        }
    }
}

/// Prepares what is better done before the program starts threads: the key and the fork handlers.
/// The preload library calls it from its constructor; without it the key is made on first use.
pub fn start_process() {
    crate::config::load_once();
    let _ = key();
    install_fork_handlers();
    if hardened::checked() {
        give_up_cache();
    }
    if profile::on() {
        answer();
    }
    if hardened::on() {
        hardened::explain_faults();
    }
    crate::on_signal::install();
}

/// In checked mode, after the loader has allocated, before there was an environment to read: from now on the first thread has no
/// cache either.
#[cold]
#[inline(never)]
fn give_up_cache() {
    let own = own_cache();
    if own.thread() != 0 {
        own.flush_all(&HEAP);
        tls::set_own(null_mut());
        tls::set_cache(&tls::EMPTY);
    }
}

/// Not 0: the fork handlers are installed, or being so.
static FORK_HANDLERS: AtomicU32 = AtomicU32::new(0);

pub(crate) fn install_fork_handlers() {
    if FORK_HANDLERS.load(Ordering::Relaxed) != 0 {
        return;
    }
    if FORK_HANDLERS.swap(1, Ordering::AcqRel) == 0 {
        crate::helper::settle();
        // SAFETY: the handlers are functions of this library, which is never unloaded.
        unsafe {
            libc::pthread_atfork(
                Some(before_fork),
                Some(after_fork_parent),
                Some(after_fork_child),
            );
        }
    }
}

/// A cache without room, in metadata, which is never unmapped. `None`: no memory.
fn new_cache() -> Option<*mut ThreadCache> {
    let record = HEAP
        .pages
        .take_cache(size_of::<ThreadCache>())
        .cast::<ThreadCache>();
    if record.is_null() {
        return None;
    }
    // SAFETY: the record is large enough, aligned to 64, and zero, as a cache is that has not been shown; it stays for ever.
    unsafe { &*record }.shown();
    Some(record)
}

/// The calling thread's own cache, a new one if it has none. `None`: past the thread's end, or no memory.
#[inline]
pub(crate) fn attach() -> Option<&'static ThreadCache> {
    let current = tls::cache();
    if core::ptr::eq(current, tls::own()) {
        return Some(current);
    }
    if core::ptr::eq(current, &raw const tls::SAMPLED) && profile::on() {
        return own();
    }
    attach_anew(current)
}

/// [`attach`] where the slot names neither.
#[cold]
#[inline(never)]
fn attach_anew(current: &'static ThreadCache) -> Option<&'static ThreadCache> {
    if core::ptr::eq(current, &raw const tls::EMPTY) {
        // In checked mode this is every call.
        if hardened::checked() && FORK_HANDLERS.load(Ordering::Relaxed) != 0 {
            return None;
        }
        return attach_first();
    }
    if core::ptr::eq(current, &raw const tls::ENDED) {
        return None;
    }
    if core::ptr::eq(current, &raw const tls::CALLED) {
        let _slow_path = SlowPath::with_bins();
        return answer();
    }
    if core::ptr::eq(current, &raw const tls::SAMPLED) {
        return answer();
    }
    Some(current)
}

/// [`attach`] of a thread that had no cache yet.
#[inline(never)]
fn attach_first() -> Option<&'static ThreadCache> {
    if !tls::is_set_up() {
        return None;
    }
    // Before there is a cache, because the choice of the front end is about whether there will be.
    crate::config::load_once();
    if hardened::checked() || crate::cpu_cache::in_use().is_some() {
        // Here, as no cache will be made; in a program that has no preload library nobody else does it.
        install_fork_handlers();
        return None;
    }
    let slow_path = SlowPath::of_thread();
    let record = new_cache()?;
    // SAFETY: a cache that is never unmapped.
    let cache: &'static ThreadCache = unsafe { &*record };
    {
        let mut registry = REGISTRY.lock();
        registry.last_number = registry.last_number.wrapping_add(1).max(1);
        cache.start(registry.last_number, HEAP.epoch());
        registry.members.enter(cache);
        registry.caches += 1;
        CACHES.store(registry.caches as usize, Ordering::Relaxed);
    }
    // The slot first: the calls below may allocate, and must find the cache.
    tls::set_own(record);
    answer();
    drop(slow_path);
    install_fork_handlers();
    if let Some(key) = key() {
        // SAFETY: the key is valid; failure only means that the cache stays behind.
        if unsafe { libc::pthread_setspecific(key, record.cast()) } == 0 {
            // From now on the thread's end is seen, and its slot may be written to until then.
            let _slow_path = SlowPath::of_thread();
            let registry = REGISTRY.lock();
            cache.link.open(tls::slot_address());
            drop(registry);
            // Whoever called before this has not reached the slot.
            answer();
        }
    }
    Some(cache)
}

/// A thread's cache of the data partition.
pub(crate) fn data_of(own: &ThreadCache) -> Option<&'static ThreadCache> {
    // SAFETY: null, or a cache in metadata, which is never unmapped.
    unsafe { own.data.load(Ordering::Relaxed).as_ref() }
}

/// Gives the calling thread a cache of the data partition, whose heap is `heap`. `None`: it has none in the main
/// heap either, or no memory.
#[cold]
pub(crate) fn attach_data(heap: &'static Heap<Linux>) -> Option<&'static ThreadCache> {
    let current = tls::data_cache();
    if core::ptr::eq(current, &raw const tls::ENDED) {
        return None;
    }
    // Looks after the thread's end, and whether it has been called.
    let own = attach()?;
    let _slow_path = SlowPath::with_bins();
    if let Some(data) = data_of(own) {
        if core::ptr::eq(current, data_shown(data)) {
            data.follow_epoch(heap);
        } else {
            // SAFETY: the thread's own slot.
            let slot = unsafe { &*tls::data_slot_address() };
            let empty = || data.flush_all(heap);
            registry::answer_call(slot, data, || data_shown(data), &heap.epoch, empty);
        }
        return Some(data);
    }
    let record = new_cache()?;
    // SAFETY: as in `attach`.
    let data: &'static ThreadCache = unsafe { &*record };
    let mut registry = REGISTRY.lock();
    data.start(own.thread(), heap.epoch());
    if own.link.is_open() {
        data.link.open(tls::data_slot_address());
    }
    data.data.store(record, Ordering::Relaxed);
    registry.members.enter(data);
    own.data.store(record, Ordering::Relaxed);
    if !profile::on() {
        tls::set_data_cache(data);
    }
    Some(data)
}

/// The calling thread's cache, or a static one, whatever the slot says.
fn own_cache() -> &'static ThreadCache {
    let own = tls::own();
    if own.is_null() {
        return tls::cache();
    }
    // SAFETY: T2: the word holds the thread's own cache or null; metadata is never unmapped.
    unsafe { &*own }
}

/// The calling thread's own cache. `None`: it has none.
pub(crate) fn own() -> Option<&'static ThreadCache> {
    // SAFETY: as in `own_cache`.
    unsafe { tls::own().as_ref() }
}

/// What a thread's slot for the data partition shall name: while a profile is taken every operation takes the slow path,
/// which counts it.
fn data_shown(data: &'static ThreadCache) -> *mut ThreadCache {
    let shown = if profile::on() { &tls::EMPTY } else { data };
    core::ptr::from_ref(shown).cast_mut()
}

/// Answers what the calling thread was called for: its slot names its own cache again or, while a profile is taken, the one
/// that sends all operations to the slow path, and if the epoch was raised the cache is emptied. Nothing in it allocates.
/// `None`: the thread has no cache.
fn answer() -> Option<&'static ThreadCache> {
    let own = own()?;
    let choose = || {
        let shown = if profile::on() {
            tls::SAMPLED.shown()
        } else {
            own
        };
        core::ptr::from_ref(shown).cast_mut()
    };
    // SAFETY: the thread's own slot.
    let slot = unsafe { &*tls::slot_address() };
    registry::answer_call(slot, own, choose, &HEAP.epoch, || own.flush_all(&HEAP));
    if profile::on() {
        tls::set_data_cache(&tls::EMPTY);
    }
    Some(own)
}

/// Empties the calling thread's cache and calls all other threads to empty theirs before their next
/// operation.
pub(crate) fn call_all() {
    HEAP.epoch.raise();
    if let Some(heap) = partition::data() {
        heap.epoch.set(HEAP.epoch());
    }
    call_each(|cache| cache.bytes() > 0);
    if let (Some(own), Some(heap)) = (own(), partition::data())
        && let Some(data) = data_of(own)
    {
        data.follow_epoch(heap);
    }
}

/// Calls the threads with such caches: each looks at its next operation which cache its slot shall name,
/// and whether to empty its own. The caller does so at once.
pub(crate) fn call_each(wanted: impl Fn(&ThreadCache) -> bool) {
    answer();
    let own = own_cache();
    let called = core::ptr::from_ref(tls::CALLED.shown()).cast_mut();
    REGISTRY.lock().members.call_each(called, |cache| {
        let ours =
            core::ptr::eq(cache, own) || core::ptr::eq(cache, own.data.load(Ordering::Relaxed));
        !ours && wanted(cache)
    });
}

/// Bytes in the caches of threads that have not followed the last call yet.
pub(crate) fn unreached_bytes() -> usize {
    let epoch = HEAP.epoch();
    let mut bytes = 0;
    REGISTRY.lock().members.for_each(|cache| {
        if cache.epoch() != epoch {
            bytes += cache.bytes();
        }
    });
    bytes
}

extern "C" fn end_of_thread(record: *mut libc::c_void) {
    let record = record.cast::<ThreadCache>();
    // SAFETY: the key's value is the thread's own cache.
    let cache = unsafe { &*record };
    let round = cache.exit_rounds.load(Ordering::Relaxed) + 1;
    cache.exit_rounds.store(round, Ordering::Relaxed);
    if round < DESTRUCTOR_ROUNDS
        && let Some(key) = key()
    {
        // SAFETY: the key is valid.
        if unsafe { libc::pthread_setspecific(key, record.cast()) } == 0 {
            return;
        }
    }
    let _slow_path = SlowPath::of_thread();
    let shared = cache.tiny.leave();
    if !shared.is_null()
        && let Some(class) = class_of(cutting::BLOCK)
    {
        // SAFETY: nobody has a piece of the block any more.
        unsafe { HEAP.give(class, &[shared]) };
    }
    {
        let mut registry = REGISTRY.lock();
        // Not called any more once it has left the registry, so this is the last word.
        tls::set_own(null_mut());
        let ended = tls::ENDED.shown();
        tls::set_cache(ended);
        tls::set_data_cache(ended);
        leave(&mut registry, cache);
        if let Some(data) = data_of(cache) {
            leave(&mut registry, data);
        }
        registry.caches -= 1;
        CACHES.store(registry.caches as usize, Ordering::Relaxed);
    }
    if let (Some(data), Some(heap)) = (data_of(cache), partition::data()) {
        data.close(heap);
        // SAFETY: nothing names the cache any more.
        unsafe {
            HEAP.pages
                .give_cache(core::ptr::from_ref(data).cast_mut().cast())
        };
    }
    cache.close(&HEAP);
    // SAFETY: the slot no longer names the cache, nor does the registry.
    unsafe { HEAP.pages.give_cache(record.cast()) };
}

/// Takes a cache out of the registry, which keeps what it has counted.
fn leave(registry: &mut Threads, cache: &ThreadCache) {
    registry.members.leave(cache);
    registry.ended_refills += cache.refills.load(Ordering::Relaxed);
    registry.ended_flushes += cache.flushes.load(Ordering::Relaxed);
    registry.ended_tiny_blocks += cache.tiny.blocks.load(Ordering::Relaxed);
}

fn for_each_lock(mut visit: impl FnMut(&RawLock)) {
    visit(REGISTRY.raw());
    visit(hardened::lock());
    visit(profile::lock());
    // One heap's locks after the other's; nobody holds locks of both.
    for heap in partition::heaps() {
        heap.for_each_lock(&mut |lock: &RawLock| {
            let left_out =
                planted(Plant::LockLeftOut) && core::ptr::eq(lock, heap.pages.inner.raw());
            if !left_out {
                visit(lock);
            }
        });
    }
}

/// The signals that were blocked before a fork if all are during it ([`SlowPath::suspend`]): whether they are, and which. Whoever holds all locks has it.
static FORKING: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "C" fn before_fork() {
    // A handler that interrupts a slow path must not fork either, nor one allocate until the locks are free again.
    let before = SlowPath::enter().suspend();
    for_each_lock(RawLock::acquire);
    FORKING[0].store(u64::from(before.is_some()), Ordering::Relaxed);
    FORKING[1].store(before.unwrap_or(0), Ordering::Relaxed);
}

/// The slow path that [`before_fork`] entered. The locks are still held.
fn forked() -> SlowPath {
    let blocked = FORKING[0].load(Ordering::Relaxed) != 0;
    SlowPath::resume(blocked.then(|| FORKING[1].load(Ordering::Relaxed)))
}

extern "C" fn after_fork_parent() {
    let _slow_path = forked();
    for_each_lock(RawLock::release);
}

/// The child has one thread. The caches of the others stay where they are: their lists may have
/// been in the middle of an operation of theirs, so their blocks are given up.
extern "C" fn after_fork_child() {
    let _slow_path = forked();
    for_each_lock(RawLock::reset);
    crate::helper::forget();
    crate::on_signal::forget();
    let own = own_cache();
    let mut registry = REGISTRY.lock();
    let mut orphans = 0;
    let data = data_of(own);
    registry.members.for_each(|cache| {
        let ours = core::ptr::eq(cache, own) || data.is_some_and(|data| core::ptr::eq(cache, data));
        orphans += u64::from(!ours);
    });
    ORPHANED.fetch_add(orphans, Ordering::Relaxed);
    own.alone(&HEAP);
    HEAP.cached_room
        .fetch_add(crate::cpu_cache::count_room(), Ordering::Relaxed);
    registry.members.forget();
    let attached = own.thread() != 0;
    for cache in [attached.then_some(own), data].into_iter().flatten() {
        registry.members.enter(cache);
    }
    if let Some(heap) = partition::data() {
        data.unwrap_or(&tls::EMPTY).alone(heap);
    }
    registry.caches = u32::from(attached);
    CACHES.store(registry.caches as usize, Ordering::Relaxed);
}

#[cfg(test)]
mod fork_tests;
