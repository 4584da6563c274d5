//! Who has a cache, and how threads are called to empty theirs or to look what their slot shall name.
//!
//! A thread's cache is its own, without locks, so nobody else can empty it. A caller instead writes the address of a
//! static cache without room into the thread's slot, under the registry's lock, which also guards that the thread still
//! exists. The thread's next operation misses and *answers*: it takes the call out of its slot, and only then looks at what
//! callers wrote before they called (the epoch, whether a profile is taken). Taking it is one atomic exchange: were the
//! slot written without looking, a second call that came meanwhile could be overwritten by a thread that has read the old
//! epoch, as a store may wait behind a later load. Invariants: G1 a slot is written by others only under the lock and while
//! its thread is a member; G2 a call that a thread has not answered is in its slot; G3 a member whose epoch is the
//! present one holds nothing from before.
//!
//! Generic over the member, so that `tests/loom_slot.rs` runs this code with caches of its own.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU32};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicPtr, AtomicU32};

use crate::plant::{Plant, planted};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Something that can be a member of a [`Registry`]: a thread's cache.
pub trait Member: Sized {
    /// Its place in the registry.
    fn link(&self) -> &Link<Self>;
}

/// A member's place in the registry.
#[derive(Debug)]
pub struct Link<T> {
    next: AtomicPtr<T>,
    prev: AtomicPtr<T>,
    /// The owner's thread-local slot while others may write to it, else null. Changed under the registry's lock.
    slot: AtomicPtr<AtomicPtr<T>>,
    /// The last epoch that the owner followed.
    followed: AtomicU32,
}

macro_rules! constructors {
    ($($constant:ident)?) => {
        impl<T> Link<T> {
            /// Of nobody's member.
            #[must_use]
            pub $($constant)? fn new() -> Self {
                Self {
                    next: AtomicPtr::new(null_mut()),
                    prev: AtomicPtr::new(null_mut()),
                    slot: AtomicPtr::new(null_mut()),
                    followed: AtomicU32::new(0),
                }
            }
        }

        impl Epoch {
            /// The first.
            #[must_use]
            pub $($constant)? fn new() -> Self {
                Self(AtomicU32::new(0))
            }
        }
    };
}

#[cfg(not(loom))]
constructors!(const);

// Loom's atomics have no const constructor.
#[cfg(loom)]
constructors!();

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Link<T> {
    /// From now on others may write to the slot. With the registry's lock held.
    pub fn open(&self, slot: *mut AtomicPtr<T>) {
        self.slot.store(slot, Relaxed);
    }

    /// Others may write to the owner's slot. With the registry's lock held.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.slot.load(Relaxed).is_null()
    }

    /// The epoch that the owner followed last.
    #[must_use]
    pub fn followed(&self) -> u32 {
        self.followed.load(Acquire)
    }

    /// A new member holds nothing yet.
    pub fn start(&self, epoch: u32) {
        self.followed.store(epoch, Relaxed);
    }

    /// Calls `empty` if the epoch was raised since the last time. Only for the owner.
    #[inline]
    pub fn follow(&self, epoch: &Epoch, empty: impl FnOnce()) {
        let now = epoch.now();
        if self.followed.load(Relaxed) == now {
            return;
        }
        if planted(Plant::FollowedEarly) {
            self.followed.store(now, Release);
        }
        empty();
        // Last, so that what is said to have been reached has been (G3).
        self.followed.store(now, Release);
    }
}

/// A number that is raised when all caches shall be emptied.
#[derive(Debug)]
pub struct Epoch(AtomicU32);

impl Default for Epoch {
    fn default() -> Self {
        Self::new()
    }
}

impl Epoch {
    /// The present number.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// The next one: every cache is to be emptied. The calls follow ([`Registry::call_each`]).
    pub fn raise(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Follows another one.
    pub fn set(&self, epoch: u32) {
        self.0.store(epoch, Relaxed);
    }
}

/// The members.
#[derive(Debug)]
pub struct Registry<T> {
    head: *mut T,
}

// SAFETY: the list belongs to the registry, which is to be reached under a lock only.
unsafe impl<T: Sync> Send for Registry<T> {}

impl<T: Member> Default for Registry<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Member> Registry<T> {
    /// Without members.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: null_mut() }
    }

    /// Takes a member in, which nobody moves or frees while it is one.
    pub fn enter(&mut self, member: &'static T) {
        let record = core::ptr::from_ref(member).cast_mut();
        member.link().next.store(self.head, Relaxed);
        member.link().prev.store(null_mut(), Relaxed);
        // SAFETY: null, or a member, which exists while it is one.
        if let Some(second) = unsafe { self.head.as_ref() } {
            second.link().prev.store(record, Relaxed);
        }
        self.head = record;
    }

    /// Lets a member go; its slot is not written to any more.
    pub fn leave(&mut self, member: &T) {
        let link = member.link();
        let (next, prev) = (link.next.load(Relaxed), link.prev.load(Relaxed));
        // SAFETY: null, or members, which exist while they are.
        let (after, before) = unsafe { (next.as_ref(), prev.as_ref()) };
        match before {
            None => self.head = next,
            Some(before) => before.link().next.store(next, Relaxed),
        }
        if let Some(after) = after {
            after.link().prev.store(prev, Relaxed);
        }
        link.slot.store(null_mut(), Relaxed);
    }

    /// Forgets all members: in a fork child, where their threads do not exist.
    pub fn forget(&mut self) {
        self.head = null_mut();
    }

    /// Calls `visit` with every member.
    pub fn for_each(&self, mut visit: impl FnMut(&T)) {
        // SAFETY: null, or a member, which exists while it is one.
        let mut at = unsafe { self.head.as_ref() };
        while let Some(member) = at {
            visit(member);
            // SAFETY: as above.
            at = unsafe { member.link().next.load(Relaxed).as_ref() };
        }
    }

    /// Calls the members that are `wanted`: `called` is what their slots name from now on.
    pub fn call_each(&self, called: *mut T, mut wanted: impl FnMut(&T) -> bool) {
        self.for_each(|member| {
            let slot = member.link().slot.load(Relaxed);
            if !slot.is_null() && wanted(member) {
                // SAFETY: G1: the thread exists while its cache is a member, and the lock is held. Its slot is one
                // word that it reads once an operation. Exchanged as in `answer`, so that calls and answers come one after the
                // other (loom knows no other way to order them).
                unsafe { (*slot).swap(called, AcqRel) };
            }
        });
    }
}

/// Lets the calling thread's slot name its own cache `own`, or what `choose` says that it shall name, and takes the calls that
/// came before: what the callers wrote before they called is seen by `choose` and by what follows.
#[inline]
pub fn answer<T>(slot: &AtomicPtr<T>, own: *mut T, choose: impl Fn() -> *mut T) {
    loop {
        let early = planted(Plant::ChooseFirst).then(&choose);
        if planted(Plant::AnswerBlindly) {
            slot.store(own, Relaxed);
        } else {
            slot.swap(own, AcqRel);
        }
        let shown = early.unwrap_or_else(&choose);
        // A call since then stays in the slot, or is taken by another round.
        if shown == own || slot.compare_exchange(own, shown, AcqRel, Relaxed).is_ok() {
            return;
        }
    }
}

/// What a thread does that finds a call in its slot: [`answer`], then `empty` its cache if that was asked for.
#[inline]
pub fn answer_call<T: Member>(
    slot: &AtomicPtr<T>,
    own: &'static T,
    choose: impl Fn() -> *mut T,
    epoch: &Epoch,
    empty: impl Fn(),
) {
    if planted(Plant::EmptyFirst) {
        own.link().follow(epoch, &empty);
    }
    answer(slot, core::ptr::from_ref(own).cast_mut(), choose);
    if !planted(Plant::EmptyFirst) {
        own.link().follow(epoch, &empty);
    }
}
