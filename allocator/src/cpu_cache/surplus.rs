//! What CPUs' caches give back: lists at rest before the heap grows, and all that CPUs hold on which nobody has allocated or freed
//! for a window.
//!
//! A program's threads do not stay where they are, and what it leaves in the cache of a CPU nobody finds that runs on others. Whether
//! one is at rest shows in its lists: two looks that find the same words, a window apart. Emptying it interrupts the CPU, so growth looks
//! at one cache at a time; a program that rests has a helper look ([`crate::helper`]).

use super::{CpuCache, END, MADE, SLABS, cache_of, cpu_number, empty, flush, made, of_thread};
use crate::os::Os;
use crate::process::{HEAP, REGISTRY};
use crate::rseq::{self, Rseq};
use crate::scavenger::DECAY_MS;
use crate::size_class::NUM_CLASSES;
use crate::thread_cache::capacity::is_large;
use crate::thread_cache::surplus::STEPS;
use crate::units::pages_for;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How long a cache has been as it is. Written under the registry's lock.
#[derive(Debug)]
pub(super) struct Rest {
    /// What the lists' words came to at the last look, ...
    words: AtomicU64,
    /// ... and when they came to that first, in ms.
    since: AtomicU64,
}

/// [`give_idle`] before a large block of `size` is made, if the thread uses its CPU's cache.
#[cold]
#[inline(never)]
pub(crate) fn give_idle_large(size: usize) {
    if let Some(rseq) = of_thread() {
        give_idle(rseq, 0, pages_for(size));
    }
}

/// To be called before `pages` that are not resident are taken for `class` (0: for a large block), with signals blocked: gives the
/// spans what the next few lists of the CPU but that of `class` hold, where it has not changed since the last time. One of
/// large objects has no room any more then.
pub(super) fn give_idle(rseq: Rseq, class: usize, pages: usize) {
    let Some(cache) = cache_of(rseq) else {
        return;
    };
    let mut at = cache.looked.load(Relaxed) as usize;
    for _ in 0..(STEPS * pages).min(NUM_CLASSES) {
        at = if at + 1 < NUM_CLASSES { at + 1 } else { 1 };
        let room = cache.limit(at);
        if room == 0 {
            // What was seen are misses.
            continue;
        }
        let (len, seen) = (cache.len(at), &cache.seen[at]);
        if at == class || len == 0 || usize::from(seen.load(Relaxed)) != len {
            seen.store(len as u16, Relaxed);
            continue;
        }
        // SAFETY: what the section takes is nobody else's.
        unsafe {
            let list = rseq.take_all(&SLABS, at);
            flush(at, cpu_number(rseq), list, rseq::len_of(list), false);
        }
        seen.store(0, Relaxed);
        if is_large(at) {
            cache.set_limit(at, room, 0);
        }
    }
    cache.looked.store(at as u32, Relaxed);
}

/// To be called when the heap grows: looks whether the next CPU's cache is at rest.
pub(super) fn look_at_another(rseq: Rseq) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let end = END.load(Relaxed);
    let cpu = NEXT.fetch_add(1, Relaxed) % end.max(1);
    if cpu == rseq.cpu() {
        return;
    }
    // SAFETY: null, or a record that is there for good.
    if let Some(cache) = unsafe { MADE[cpu].load(Relaxed).as_ref() } {
        let _registry = REGISTRY.lock();
        // SAFETY: we have the lock.
        unsafe { cache.look(cpu) };
    }
}

/// Empties the caches of CPUs that have been at rest for a window.
pub(crate) fn empty_idle() {
    for (cpu, cache) in made() {
        let _registry = REGISTRY.lock();
        // SAFETY: we have the lock.
        unsafe { cache.look(cpu) };
    }
}

impl CpuCache {
    /// Empties the cache if it has been as it is for a window.
    ///
    /// # Safety
    /// The caller holds the registry's lock.
    unsafe fn look(&'static self, cpu: usize) {
        let window = DECAY_MS.load(Relaxed);
        let (now, words) = (HEAP.pages.os.now_ms(), self.words());
        if self.rest.words.swap(words, Relaxed) != words {
            self.rest.since.store(now, Relaxed);
            return;
        }
        let rested = now.saturating_sub(self.rest.since.load(Relaxed));
        if words == 0 || window < 0 || rested < window as u64 {
            return;
        }
        // SAFETY: the caller's duty.
        unsafe { empty(cpu, self) };
        for class in 1..NUM_CLASSES {
            self.set_limit(class, self.limit(class), 0);
            self.seen[class].store(0, Relaxed);
        }
    }

    /// One word for all lists, 0 for empty ones.
    fn words(&self) -> u64 {
        let lists = self.lists.iter().map(|list| list.load(Relaxed));
        lists.fold(0, |all, list| {
            (all.rotate_left(5) ^ list).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        })
    }
}
