//! The exchange of a thread's slot under loom (`thread::call_each`, `attach`, `end_of_thread`): a caller writes CALLED into
//! the slot of a living thread under the registry's lock; the thread, at its next operation, finds that its slot does
//! not name its own cache, puts that back and empties it if the epoch has changed; at its end it leaves the registry
//! under the same lock, after which nobody writes to its slot.
//!
//! The thread-local word and the registry are modelled here, over the real lock, because loom cannot see the fast path's
//! instructions. `LEAVE_FIRST` and `EPOCH_LATE` are the positive controls: with either step in the wrong place loom
//! must find the damage.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use spanalloc::sync::Locked;

const OWN: u32 = 0;
const CALLED: u32 = 1;

struct World {
    /// The registry: the thread's slot may be written to.
    alive: Locked<bool>,
    /// The thread's slot. Its memory is the thread's: `ended` below is touched when it goes away.
    slot: AtomicU32,
    memory: UnsafeCell<bool>,
    epoch: AtomicU32,
    /// Only the owner touches its cache: objects in it, and the epoch that it followed.
    cache: UnsafeCell<(u32, u32)>,
}

// SAFETY: `memory` and `cache` are touched as the protocol says; that is what the model checks.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new() -> Self {
        Self {
            alive: Locked::new(true),
            slot: AtomicU32::new(OWN),
            memory: UnsafeCell::new(true),
            epoch: AtomicU32::new(0),
            cache: UnsafeCell::new((3, 0)),
        }
    }

    /// `trim` in another thread: raises the epoch and calls.
    fn call<const EPOCH_LATE: bool>(&self) {
        if !EPOCH_LATE {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        {
            let alive = self.alive.lock();
            if *alive {
                // The slot's memory is read: it must be there.
                // SAFETY: that it does not overlap its end is checked by loom.
                self.memory.with(|there| assert!(unsafe { *there }));
                self.slot.store(CALLED, Ordering::Release);
            }
        }
        if EPOCH_LATE {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One operation of the owner.
    fn operate(&self) {
        if self.slot.load(Ordering::Acquire) == CALLED {
            self.slot.store(OWN, Ordering::Relaxed);
            let epoch = self.epoch.load(Ordering::Relaxed);
            self.cache.with_mut(|cache| {
                // SAFETY: the owner's.
                let cache = unsafe { &mut *cache };
                if cache.1 != epoch {
                    *cache = (0, epoch);
                }
            });
        } else {
            // SAFETY: the owner's.
            self.cache.with_mut(|cache| unsafe { (*cache).0 += 0 });
        }
    }

    /// The owner's end.
    fn end<const LEAVE_FIRST: bool>(&self) {
        if !LEAVE_FIRST {
            *self.alive.lock() = false;
        }
        // SAFETY: that nobody reads it meanwhile is checked by loom.
        self.memory.with_mut(|there| unsafe { *there = false });
        if LEAVE_FIRST {
            *self.alive.lock() = false;
        }
    }
}

fn a_thread_that_is_called_empties_its_cache<const EPOCH_LATE: bool>() {
    loom::model(|| {
        let world = Arc::new(World::new());
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.call::<EPOCH_LATE>())
        };
        world.operate();
        caller.join().expect("the caller does not panic");
        world.operate();
        // SAFETY: the other thread is gone.
        world
            .cache
            .with(|cache| assert_eq!(unsafe { (*cache).0 }, 0, "reached by the next operation"));
    });
}

fn nobody_writes_to_the_slot_of_a_thread_that_is_gone<const LEAVE_FIRST: bool>() {
    loom::model(|| {
        let world = Arc::new(World::new());
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.call::<false>())
        };
        world.operate();
        world.end::<LEAVE_FIRST>();
        caller.join().expect("the caller does not panic");
    });
}

/// What a trim tells of other threads (`unreached_bytes`): a cache whose epoch is the present one holds nothing from
/// before. The owner raises its epoch when it has emptied its cache; `TOLD_EARLY` is the control.
fn who_is_told_that_a_cache_was_reached_finds_it_empty<const TOLD_EARLY: bool>() {
    loom::model(|| {
        let followed = Arc::new(AtomicU32::new(0));
        let cache = Arc::new(UnsafeCell::new(3));
        let owner = {
            let (followed, cache) = (Arc::clone(&followed), Arc::clone(&cache));
            thread::spawn(move || {
                if TOLD_EARLY {
                    followed.store(1, Ordering::Release);
                }
                // SAFETY: that nobody else looks meanwhile is checked by loom.
                cache.with_mut(|cache| unsafe { *cache = 0 });
                if !TOLD_EARLY {
                    followed.store(1, Ordering::Release);
                }
            })
        };
        if followed.load(Ordering::Acquire) == 1 {
            // SAFETY: as above.
            cache.with(|cache| assert_eq!(unsafe { *cache }, 0));
        }
        owner.join().expect("the owner does not panic");
    });
}

#[test]
fn caches_that_count_as_reached_are_empty() {
    who_is_told_that_a_cache_was_reached_finds_it_empty::<false>();
}

#[test]
#[should_panic]
fn control_a_cache_that_counts_as_reached_too_early_is_noticed() {
    who_is_told_that_a_cache_was_reached_finds_it_empty::<true>();
}

#[test]
fn called_threads_empty_their_caches_at_their_next_operation() {
    a_thread_that_is_called_empties_its_cache::<false>();
}

#[test]
fn slots_are_written_only_while_their_thread_exists() {
    nobody_writes_to_the_slot_of_a_thread_that_is_gone::<false>();
}

#[test]
#[should_panic(expected = "reached by the next operation")]
fn control_an_epoch_raised_after_the_call_is_noticed() {
    a_thread_that_is_called_empties_its_cache::<true>();
}

#[test]
#[should_panic]
fn control_memory_that_goes_before_the_thread_has_left_is_noticed() {
    nobody_writes_to_the_slot_of_a_thread_that_is_gone::<true>();
}
