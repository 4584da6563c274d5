//! Threads and processes: gives a thread its cache, takes it back at the end, and keeps the locks
//! sound across `fork`.
//!
//! A thread's end is seen by the destructor of a pthread key. Destructors of other keys may run
//! after ours and still allocate, so ours asks to be called again until the last of the four
//! rounds that POSIX allows; from then on the thread works without a cache.

use crate::alloc::HEAP;
use crate::cutting;
use crate::heap::Heap;
use crate::os::Linux;
use crate::size_class::class_of;
use crate::sync::{Locked, RawLock};
use crate::thread_cache::{CACHES, ThreadCache};
use crate::tls;
use crate::{hardened, partition, profile};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Rounds of destructor calls that the C library makes (`PTHREAD_DESTRUCTOR_ITERATIONS`).
const DESTRUCTOR_ROUNDS: u32 = 4;

/// All caches of living threads.
#[derive(Debug)]
pub(crate) struct Registry {
    head: *mut ThreadCache,
    pub(crate) caches: u32,
    last_number: u32,
    /// Refills, flushes and shared tiny blocks of threads that have ended.
    pub(crate) ended_refills: u64,
    pub(crate) ended_flushes: u64,
    pub(crate) ended_tiny_blocks: u64,
}

// SAFETY: the list belongs to the registry; its lock guards it.
unsafe impl Send for Registry {}

pub(crate) static REGISTRY: Locked<Registry> = Locked::new(Registry {
    head: null_mut(),
    caches: 0,
    last_number: 0,
    ended_refills: 0,
    ended_flushes: 0,
    ended_tiny_blocks: 0,
});

/// The pthread key plus one; 0 while there is none.
static KEY: AtomicU32 = AtomicU32::new(0);
/// Caches of threads that existed at a fork and do not exist in this child.
pub(crate) static ORPHANED: AtomicU64 = AtomicU64::new(0);

impl Registry {
    fn enter(&mut self, cache: &'static ThreadCache) {
        let record = core::ptr::from_ref(cache).cast_mut();
        cache.next.store(self.head, Ordering::Relaxed);
        if !self.head.is_null() {
            // SAFETY: members of the list are live caches; the lock is held.
            unsafe { (*self.head).prev.store(record, Ordering::Relaxed) };
        }
        self.head = record;
    }

    fn leave(&mut self, cache: &ThreadCache) {
        let next = cache.next.load(Ordering::Relaxed);
        let prev = cache.prev.load(Ordering::Relaxed);
        // SAFETY: members of the list are live caches; the lock is held.
        unsafe {
            if prev.is_null() {
                self.head = next;
            } else {
                (*prev).next.store(next, Ordering::Relaxed);
            }
            if !next.is_null() {
                (*next).prev.store(prev, Ordering::Relaxed);
            }
        }
        self.ended_refills += cache.refills.load(Ordering::Relaxed);
        self.ended_flushes += cache.flushes.load(Ordering::Relaxed);
        self.ended_tiny_blocks += cache.tiny.blocks.load(Ordering::Relaxed);
    }

    /// Calls `visit` with every cache.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&ThreadCache)) {
        let mut cache = self.head;
        while !cache.is_null() {
            // SAFETY: members of the list are live caches; the lock is held.
            let cache_ref = unsafe { &*cache };
            visit(cache_ref);
            cache = cache_ref.next.load(Ordering::Relaxed);
        }
    }
}

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
        // The loader may have allocated before there was an environment to read.
        let own = own_cache();
        if own.thread() != 0 {
            own.flush_all(&HEAP);
            tls::set_own(null_mut());
            tls::set_cache(&tls::EMPTY);
        }
    }
    if profile::on() {
        show_own();
    }
    if hardened::on() {
        hardened::explain_faults();
    }
    crate::on_signal::install();
}

fn install_fork_handlers() {
    static INSTALLED: AtomicU32 = AtomicU32::new(0);
    if INSTALLED.swap(1, Ordering::AcqRel) == 0 {
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
    // SAFETY: the record is large enough and aligned to 64.
    unsafe { record.write(ThreadCache::new()) };
    Some(record)
}

/// Gives the calling thread a cache of its own. `None`: past the thread's end, or no memory.
#[cold]
pub(crate) fn attach() -> Option<&'static ThreadCache> {
    let current = tls::cache();
    if core::ptr::eq(current, &raw const tls::ENDED) {
        return None;
    }
    if core::ptr::eq(current, &raw const tls::CALLED) {
        let own = show_own()?;
        own.follow_epoch(&HEAP);
        return Some(own);
    }
    if core::ptr::eq(current, &raw const tls::SAMPLED) {
        return show_own();
    }
    if !core::ptr::eq(current, &raw const tls::EMPTY) {
        return Some(current);
    }
    // Before there is a cache, because the choice of the front end is about whether there will be.
    crate::config::load_once();
    if hardened::checked() {
        return None;
    }
    if crate::cpu_cache::in_use().is_some() {
        return None;
    }
    let record = new_cache()?;
    // SAFETY: a cache that is never unmapped.
    let cache: &'static ThreadCache = unsafe { &*record };
    {
        let mut registry = REGISTRY.lock();
        registry.last_number = registry.last_number.wrapping_add(1).max(1);
        cache.start(registry.last_number, HEAP.epoch());
        registry.enter(cache);
        registry.caches += 1;
        CACHES.store(registry.caches as usize, Ordering::Relaxed);
    }
    // The slot first: the calls below may allocate, and must find the cache.
    tls::set_own(record);
    show_own();
    install_fork_handlers();
    if let Some(key) = key() {
        // SAFETY: the key is valid; failure only means that the cache stays behind.
        if unsafe { libc::pthread_setspecific(key, record.cast()) } == 0 {
            // From now on the thread's end is seen, and its slot may be written to until then.
            let _registry = REGISTRY.lock();
            cache.slot.store(tls::slot_address(), Ordering::Relaxed);
        }
    }
    Some(cache)
}

/// A thread's cache of the data partition.
fn data_of(own: &ThreadCache) -> Option<&'static ThreadCache> {
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
    if let Some(data) = data_of(own) {
        data.follow_epoch(heap);
        // While a profile is taken every operation takes the slow path, which counts it.
        if !profile::on() && !core::ptr::eq(current, data) {
            tls::set_data_cache(data);
        }
        return Some(data);
    }
    let record = new_cache()?;
    // SAFETY: as in `attach`.
    let data: &'static ThreadCache = unsafe { &*record };
    let mut registry = REGISTRY.lock();
    data.start(own.thread(), heap.epoch());
    if !own.slot.load(Ordering::Relaxed).is_null() {
        data.slot.store(tls::data_slot_address(), Ordering::Relaxed);
    }
    data.data.store(record, Ordering::Relaxed);
    registry.enter(data);
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

/// Puts the thread's own cache into its slot, or, while a profile is taken, the one that sends all
/// operations to the slow path. `None`: the thread has none.
fn show_own() -> Option<&'static ThreadCache> {
    let own = tls::own();
    if own.is_null() {
        return None;
    }
    // SAFETY: as in `own_cache`.
    let own = unsafe { &*own };
    let shown = if profile::on() {
        tls::SAMPLED.shown()
    } else {
        own
    };
    if profile::on() {
        tls::set_data_cache(&tls::EMPTY);
    }
    if !core::ptr::eq(tls::cache(), shown) {
        tls::set_cache(shown);
    }
    Some(own)
}

/// Empties the calling thread's cache and calls all other threads to empty theirs before their next
/// operation. The epoch must have been raised.
pub(crate) fn call_all() {
    let own = own_cache();
    own.follow_epoch(&HEAP);
    if let (Some(data), Some(heap)) = (data_of(own), partition::data()) {
        data.follow_epoch(heap);
    }
    call_each(|cache| cache.bytes() > 0);
}

/// Calls the threads with such caches: each looks at its next operation which cache its slot shall name,
/// and whether to empty its own. The caller does the first at once.
pub(crate) fn call_each(wanted: impl Fn(&ThreadCache) -> bool) {
    show_own();
    let own = own_cache();
    let called = core::ptr::from_ref(tls::CALLED.shown()).cast_mut();
    REGISTRY.lock().for_each(|cache| {
        let slot = cache.slot.load(Ordering::Relaxed);
        let ours =
            core::ptr::eq(cache, own) || core::ptr::eq(cache, own.data.load(Ordering::Relaxed));
        if !ours && !slot.is_null() && wanted(cache) {
            // SAFETY: the thread exists while its cache is in the registry, whose lock is held. Its
            // slot is one word that it reads once an operation; it finds its cache again by its key.
            unsafe { (*slot).store(called, Ordering::Release) };
        }
    });
}

/// Bytes in the caches of threads that have not followed the last call yet.
pub(crate) fn unreached_bytes() -> usize {
    let epoch = HEAP.epoch();
    let mut bytes = 0;
    REGISTRY.lock().for_each(|cache| {
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
    let shared = cache.tiny.leave();
    if !shared.is_null()
        && let Some(class) = class_of(cutting::BLOCK)
    {
        // SAFETY: nobody has a piece of the block any more.
        unsafe { HEAP.central(class).give(&HEAP.pages, class, &[shared]) };
    }
    {
        let mut registry = REGISTRY.lock();
        // Not called any more once it has left the registry, so this is the last word.
        tls::set_own(null_mut());
        let ended = tls::ENDED.shown();
        tls::set_cache(ended);
        tls::set_data_cache(ended);
        registry.leave(cache);
        if let Some(data) = data_of(cache) {
            registry.leave(data);
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

fn for_each_lock(mut visit: impl FnMut(&RawLock)) {
    visit(REGISTRY.raw());
    visit(hardened::lock());
    visit(profile::lock());
    // One heap's locks after the other's; nobody holds locks of both.
    for heap in partition::heaps() {
        heap.for_each_lock(&mut visit);
    }
}

extern "C" fn before_fork() {
    for_each_lock(RawLock::acquire);
}

extern "C" fn after_fork_parent() {
    for_each_lock(RawLock::release);
}

/// The child has one thread. The caches of the others stay where they are: their lists may have
/// been in the middle of an operation of theirs, so their blocks are given up.
extern "C" fn after_fork_child() {
    for_each_lock(RawLock::reset);
    crate::helper::forget();
    crate::on_signal::forget();
    let own = own_cache();
    let mut registry = REGISTRY.lock();
    let mut orphans = 0;
    let data = data_of(own);
    registry.for_each(|cache| {
        let ours = core::ptr::eq(cache, own) || data.is_some_and(|data| core::ptr::eq(cache, data));
        orphans += u64::from(!ours);
    });
    ORPHANED.fetch_add(orphans, Ordering::Relaxed);
    own.alone(&HEAP);
    registry.head = null_mut();
    let attached = own.thread() != 0;
    for cache in [attached.then_some(own), data].into_iter().flatten() {
        cache.prev.store(null_mut(), Ordering::Relaxed);
        registry.enter(cache);
    }
    if let Some(heap) = partition::data() {
        data.unwrap_or(&tls::EMPTY).alone(heap);
    }
    registry.caches = u32::from(attached);
    CACHES.store(registry.caches as usize, Ordering::Relaxed);
}
