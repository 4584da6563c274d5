//! The exchange of a thread's slot under loom (`registry`, the code itself; `thread` puts thread-local words around it): callers
//! raise the epoch and write CALLED into the slots of living threads under the lock; a thread finds that at its next
//! operation, puts its own cache back and empties it if the epoch has changed; at its end it leaves the registry under the
//! same lock, after which nobody writes to its slot. Two callers, because what one call wakes another may overtake.
//!
//! Each control plants one mistake (`plant`) or takes two of the code's steps in the wrong order, and expects loom to find it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::ptr::{from_ref, null_mut};
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicPtr, AtomicU32};
use loom::thread;
use spanalloc::plant::{Plant, plant};
use spanalloc::registry::{Epoch, Link, Member, Registry, answer_call};
use spanalloc::sync::Locked;

/// A thread's cache: objects that its owner alone touches.
struct Cache {
    link: Link<Cache>,
    objects: UnsafeCell<u32>,
    /// Loom switches threads at atomic operations only: there shall be one before the cache is emptied.
    moment: AtomicU32,
}

impl Member for Cache {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

// SAFETY: `objects` is touched as the protocol says; that is what the models check.
unsafe impl Sync for Cache {}
// SAFETY: as above.
unsafe impl Send for Cache {}

impl Cache {
    fn new(objects: u32) -> &'static Self {
        Box::leak(Box::new(Self {
            link: Link::new(),
            objects: UnsafeCell::new(objects),
            moment: AtomicU32::new(0),
        }))
    }

    fn at(&'static self) -> *mut Self {
        from_ref(self).cast_mut()
    }

    fn empty(&self) {
        self.moment.store(1, Relaxed);
        // SAFETY: the owner's.
        self.objects.with_mut(|objects| unsafe { *objects = 0 });
    }

    fn holds(&self) -> u32 {
        // SAFETY: the owner's, or the owner has said that it has emptied it.
        self.objects.with(|objects| unsafe { *objects })
    }
}

struct World {
    registry: Locked<Registry<Cache>>,
    epoch: Epoch,
    /// A profile is taken: slots shall name `sampled`.
    profile: AtomicU32,
    own: &'static Cache,
    called: &'static Cache,
    sampled: &'static Cache,
    /// The thread's slot, whose memory goes with the thread.
    slot: *mut AtomicPtr<Cache>,
}

// SAFETY: the slot is written to as the protocol says, which loom checks; the rest is.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// With one thread, whose cache holds three objects.
    fn new() -> Arc<Self> {
        let own = Cache::new(3);
        let slot = Box::into_raw(Box::new(AtomicPtr::new(own.at())));
        own.link.open(slot);
        let mut registry = Registry::new();
        registry.enter(own);
        Arc::new(Self {
            registry: Locked::new(registry),
            epoch: Epoch::new(),
            profile: AtomicU32::new(0),
            own,
            called: Cache::new(0),
            sampled: Cache::new(0),
            slot,
        })
    }

    /// Somebody else's trim.
    fn trims(&self) {
        self.epoch.raise();
        self.calls();
    }

    /// What the slot names.
    fn shown(&self) -> *mut Cache {
        // SAFETY: the thread exists.
        unsafe { (*self.slot).load(Acquire) }
    }

    fn calls(&self) {
        let registry = self.registry.lock();
        registry.call_each(self.called.at(), |_| true);
    }

    /// One operation of the thread, with the answer of its slow path.
    fn operates(&self) {
        if self.shown() == self.called.at() {
            let choose = || {
                let shown = if self.profile.load(Relaxed) == 0 {
                    self.own
                } else {
                    self.sampled
                };
                shown.at()
            };
            // SAFETY: the thread's own slot.
            let slot = unsafe { &*self.slot };
            answer_call(slot, self.own, choose, &self.epoch, || self.own.empty());
        } else {
            let _ = self.own.holds();
        }
    }

    /// Its end.
    fn leaves(&self) {
        self.registry.lock().leave(self.own);
    }

    /// Its thread-local memory goes.
    fn is_gone(&self) {
        // SAFETY: that nobody writes to it meanwhile is checked by loom.
        unsafe { (*self.slot).with_mut(|slot| *slot = null_mut()) };
    }
}

/// Runs a model with a mistake in the code, or none.
fn model(mistake: Option<Plant>, run: impl Fn() + Sync + Send + 'static) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

fn called_threads_empty_their_caches(mistake: Option<Plant>) {
    model(mistake, || {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.trims();
                world.trims();
            })
        };
        world.operates();
        // Blocks come back meanwhile.
        if world.own.holds() == 0 {
            // SAFETY: the owner's.
            world
                .own
                .objects
                .with_mut(|objects| unsafe { *objects = 2 });
        }
        world.operates();
        caller.join().expect("the caller does not panic");
        world.operates();
        let answered = world.own.link.followed() == world.epoch.now();
        assert!(answered, "a call was lost");
        assert_eq!(world.shown(), world.own.at());
    });
}

#[test]
fn every_call_is_answered_by_the_next_operation() {
    called_threads_empty_their_caches(None);
}

#[test]
#[should_panic(expected = "a call was lost")]
fn control_a_slot_that_is_overwritten_blindly_loses_a_call() {
    called_threads_empty_their_caches(Some(Plant::AnswerBlindly));
}

#[test]
#[should_panic(expected = "a call was lost")]
fn control_a_cache_that_is_emptied_before_it_is_shown_loses_a_call() {
    called_threads_empty_their_caches(Some(Plant::EmptyFirst));
}

#[test]
#[should_panic(expected = "reached by the next operation")]
fn control_an_epoch_raised_after_the_call_is_noticed() {
    model(None, || {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.calls();
                world.epoch.raise();
            })
        };
        world.operates();
        caller.join().expect("the caller does not panic");
        world.operates();
        assert_eq!(world.own.holds(), 0, "reached by the next operation");
    });
}

/// A profile begins and ends while a thread answers for another reason: at its next operation its slot names what it shall.
fn slots_name_what_they_shall(mistake: Option<Plant>) {
    model(mistake, || {
        let world = World::new();
        world.calls();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.profile.store(1, Relaxed);
                world.calls();
            })
        };
        world.operates();
        caller.join().expect("the caller does not panic");
        world.operates();
        assert_eq!(
            world.shown(),
            world.sampled.at(),
            "a thread without a profile"
        );
    });
}

#[test]
fn a_thread_that_answers_sees_what_it_was_called_for() {
    slots_name_what_they_shall(None);
}

#[test]
#[should_panic(expected = "a thread without a profile")]
fn control_what_is_shown_is_chosen_before_the_call_is_taken() {
    slots_name_what_they_shall(Some(Plant::ChooseFirst));
}

#[test]
fn slots_are_written_only_while_their_thread_exists() {
    model(None, || {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.trims())
        };
        world.operates();
        world.leaves();
        world.is_gone();
        caller.join().expect("the caller does not panic");
    });
}

#[test]
#[should_panic]
fn control_memory_that_goes_before_the_thread_has_left_is_noticed() {
    model(None, || {
        let world = World::new();
        let caller = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.trims())
        };
        world.operates();
        world.is_gone();
        world.leaves();
        caller.join().expect("the caller does not panic");
    });
}

/// What a trim tells of other threads: a cache whose epoch is the present one holds nothing from before (G3).
fn caches_that_were_reached_are_empty(mistake: Option<Plant>) {
    model(mistake, || {
        let world = World::new();
        world.trims();
        let trimmer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if world.own.link.followed() == world.epoch.now() {
                    assert_eq!(world.own.holds(), 0);
                }
            })
        };
        world.operates();
        trimmer.join().expect("the trimmer does not panic");
    });
}

#[test]
fn caches_that_count_as_reached_are_empty() {
    caches_that_were_reached_are_empty(None);
}

#[test]
#[should_panic]
fn control_a_cache_that_counts_as_reached_too_early_is_noticed() {
    caches_that_were_reached_are_empty(Some(Plant::FollowedEarly));
}

/// Threads come and go while somebody calls: the list stays whole.
#[test]
fn members_come_and_go_while_somebody_calls() {
    model(None, || {
        let world = World::new();
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let own = Cache::new(0);
                let slot = Box::leak(Box::new(AtomicPtr::new(own.at())));
                own.link.open(slot);
                world.registry.lock().enter(own);
                world.registry.lock().leave(own);
                slot.with_mut(|slot| *slot = null_mut());
            })
        };
        world.trims();
        world.leaves();
        other.join().expect("the thread does not panic");
        let mut members = 0;
        world.registry.lock().for_each(|_| members += 1);
        assert_eq!(members, 0);
    });
}
