//! Something that is made when it is first wanted, once, and stays for good: the data heap.
//!
//! Whoever finds it finds all that was written before it was named. Only one is made: who has to make it takes a lock first and
//! looks again.

#[cfg(loom)]
use loom::sync::atomic::AtomicPtr;

#[cfg(not(loom))]
use core::sync::atomic::AtomicPtr;

use crate::plant::{Plant, planted};
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Where it is, null while there is none.
#[derive(Debug)]
pub struct Published<T: 'static>(AtomicPtr<T>);

macro_rules! constructor {
    ($($constant:ident)?) => {
        impl<T> Published<T> {
            /// Not made yet.
            #[must_use]
            pub $($constant)? fn new() -> Self {
                Self(AtomicPtr::new(null_mut()))
            }
        }
    };
}

#[cfg(not(loom))]
constructor!(const);

// Loom's atomics have no const constructor.
#[cfg(loom)]
constructor!();

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Sync> Published<T> {
    /// It, if it has been made.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `get_or_make` was given, which is there for good and was whole when it was named.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    /// It, made by `make` if there is none; what `lock` returns is kept until it is named. `None`: it could not be made.
    ///
    /// # Safety
    /// `make` returns null or the place of a `T` that is whole and there for good; `lock` excludes other callers.
    pub unsafe fn get_or_make<L>(
        &self,
        lock: impl FnOnce() -> L,
        make: impl FnOnce() -> *mut T,
    ) -> Option<&'static T> {
        if let Some(made) = self.get() {
            return Some(made);
        }
        let _lock = lock();
        if let Some(made) = self.get().filter(|_| !planted(Plant::NotLookedAgain)) {
            return Some(made);
        }
        let made = make();
        let order = if planted(Plant::NamedRelaxed) {
            Relaxed
        } else {
            Release
        };
        self.0.store(made, order);
        // SAFETY: the caller's duty.
        unsafe { made.as_ref() }
    }
}
