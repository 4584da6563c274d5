//! The lock of every shared structure: 32 bits, spins briefly, then sleeps on a futex.
//!
//! It never allocates, never touches errno and can be re-initialised in a fork child. Lock order
//! (a thread that holds one may only take one further down):
//!
//! | order | lock | holds |
//! |---|---|---|
//! | 1 | registry | the list of thread caches |
//! | 1 | hardened | quarantine and guard slots; never together with another lock |
//! | 1 | profile | what was sampled; never together with another lock |
//! | 2 | transfer cache of a class, ascending | batches |
//! | 3 | central free list of a class, ascending | spans with free objects |
//! | 4 | page heap | free runs, metadata |

use crate::plant::{Plant, planted};
use core::ops::{Deref, DerefMut};

#[cfg(loom)]
use loom::{cell::UnsafeCell, sync::atomic::AtomicU32};

#[cfg(not(loom))]
use core::{cell::UnsafeCell, sync::atomic::AtomicU32};

use core::sync::atomic::Ordering;

const FREE: u32 = 0;
const HELD: u32 = 1;
const HELD_WITH_SLEEPERS: u32 = 2;

/// Spins before sleeping: about the time that a central free list is held for a batch.
#[cfg(not(loom))]
const SPINS: u32 = 100;

/// How long a handler of the process's end waits for a lock.
#[cfg(not(loom))]
const PATIENCE_MS: u32 = 200;

/// A mutual exclusion word without the data it guards.
#[derive(Debug)]
pub struct RawLock {
    state: AtomicU32,
    /// Times that a thread found the lock taken; a statistic, of no interest to loom.
    contended: core::sync::atomic::AtomicU32,
    #[cfg(loom)]
    futex: ModelFutex,
}

/// The kernel's futex as loom sees it: the word is compared and the sleeper queued in one step, so
/// that a lost wake-up is a deadlock, which loom reports.
#[cfg(loom)]
#[derive(Debug, Default)]
struct ModelFutex {
    queue: loom::sync::Mutex<()>,
    wake: loom::sync::Condvar,
}

impl RawLock {
    /// An unlocked lock.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            contended: core::sync::atomic::AtomicU32::new(0),
        }
    }

    /// An unlocked lock (loom's atomics have no const constructor).
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            contended: core::sync::atomic::AtomicU32::new(0),
            futex: ModelFutex::default(),
        }
    }

    /// Takes the lock.
    #[inline]
    pub fn acquire(&self) {
        if self
            .state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.acquire_slow();
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.state
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn acquire_slow(&self) {
        self.contended.fetch_add(1, Ordering::Relaxed);
        #[cfg(not(loom))]
        for _ in 0..SPINS {
            if self.state.load(Ordering::Relaxed) == FREE && self.try_acquire() {
                return;
            }
            core::hint::spin_loop();
        }
        #[cfg(not(loom))]
        if crate::fault::reporting() {
            return self.acquire_or_end();
        }
        while self.state.swap(HELD_WITH_SLEEPERS, Ordering::Acquire) != FREE {
            self.sleep();
            if planted(Plant::SleepersForgotten) && self.try_acquire() {
                return;
            }
        }
    }

    /// In a handler of the process's end the lock may be held by what it interrupted: waits for a while only.
    #[cfg(not(loom))]
    #[cold]
    fn acquire_or_end(&self) {
        let pillow = AtomicU32::new(0);
        for _ in 0..PATIENCE_MS {
            if self.try_acquire() {
                return;
            }
            crate::os::sleep_ms(&pillow, 1);
        }
        crate::fault::end_reporting()
    }

    #[cfg(not(loom))]
    fn sleep(&self) {
        crate::os::futex_wait(&self.state, HELD_WITH_SLEEPERS);
    }

    #[cfg(loom)]
    fn sleep(&self) {
        let queue = self.futex.queue.lock().expect("no thread panics");
        if self.state.load(Ordering::Relaxed) == HELD_WITH_SLEEPERS {
            drop(self.futex.wake.wait(queue));
        }
    }

    /// Gives the lock back. Only the thread that acquired it may call this.
    #[inline]
    pub fn release(&self) {
        let order = if planted(Plant::ReleaseRelaxed) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        if self.state.swap(FREE, order) == HELD_WITH_SLEEPERS {
            self.wake_one();
        }
    }

    #[cfg(not(loom))]
    fn wake_one(&self) {
        crate::os::futex_wake_one(&self.state);
    }

    #[cfg(loom)]
    fn wake_one(&self) {
        drop(self.futex.queue.lock().expect("no thread panics"));
        self.futex.wake.notify_one();
    }

    /// Makes the lock free whatever it was: only in a fork child, where no other thread exists.
    pub fn reset(&self) {
        self.state.store(FREE, Ordering::Release);
    }

    /// Times that a thread found the lock taken.
    pub fn contended(&self) -> u32 {
        self.contended.load(Ordering::Relaxed)
    }
}

impl Default for RawLock {
    fn default() -> Self {
        Self::new()
    }
}

/// Data that only the holder of the lock beside it can reach.
#[derive(Debug)]
pub struct Locked<T> {
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through a `Guard`, of which the lock allows one at a time.
unsafe impl<T: Send> Sync for Locked<T> {}
// SAFETY: as above; moving the whole moves the value.
unsafe impl<T: Send> Send for Locked<T> {}

impl<T> Locked<T> {
    /// An unlocked value.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self {
            raw: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// An unlocked value (loom's atomics have no const constructor).
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self {
            raw: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock and gives access to the value.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        self.raw.acquire();
        Guard { owner: self }
    }

    /// Access if nobody holds the lock.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.raw.try_acquire().then_some(Guard { owner: self })
    }

    /// The value's place; for loom, an access that must not overlap any other.
    #[inline]
    fn place(&self) -> *mut T {
        #[cfg(not(loom))]
        {
            self.value.get()
        }
        #[cfg(loom)]
        {
            self.value.with_mut(|place| place)
        }
    }

    /// The lock itself, for the fork handlers.
    pub fn raw(&self) -> &RawLock {
        &self.raw
    }
}

/// Access to the value of a [`Locked`]; dropping it unlocks.
#[derive(Debug)]
pub struct Guard<'a, T> {
    owner: &'a Locked<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while the lock is held.
        unsafe { &*self.owner.place() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a guard exists only while the lock is held, and it is borrowed mutably.
        unsafe { &mut *self.owner.place() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.owner.raw.release();
    }
}

/// Keeps neighbours in an array out of each other's cache lines (128: the adjacent-line
/// prefetcher pulls pairs of lines).
#[derive(Debug)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn neighbours_in_an_array_share_no_pair_of_cache_lines() {
        let two = [Padded(RawLock::new()), Padded(RawLock::new())];
        let apart = (&raw const two[1] as usize) - (&raw const two[0] as usize);
        assert!(apart.is_multiple_of(128) && (&raw const two[0] as usize).is_multiple_of(128));
    }

    #[test]
    fn who_has_to_wait_is_counted() {
        let lock = Arc::new(Locked::new(0));
        let guard = lock.lock();
        assert_eq!(lock.raw().contended(), 0);
        let waits = {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || *lock.lock() += 1)
        };
        while lock.raw().contended() == 0 {
            std::thread::yield_now();
        }
        drop(guard);
        waits.join().expect("it gets the lock");
        assert_eq!((lock.raw().contended(), *lock.lock()), (1, 1));
    }

    #[test]
    fn counts_under_contention_are_exact() {
        let counter = Arc::new(Locked::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        *counter.lock() += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a counting thread does not panic");
        }
        assert_eq!(*counter.lock(), 80_000);
    }

    #[test]
    fn a_held_lock_refuses_and_reset_frees_it() {
        let value = Locked::new(1);
        let guard = value.lock();
        assert!(value.try_lock().is_none());
        core::mem::forget(guard);
        value.raw().reset();
        assert!(value.try_lock().is_some());
    }
}
