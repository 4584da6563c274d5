//! Slow paths and signals: what changes shared structures must not be interrupted by a handler of the same thread that does
//! so too. With caches of CPUs such handlers are allowed, so signals are blocked; with caches of threads they are a mistake
//! of the program, and found by the thread's mark.

use crate::cpu_cache::in_use;
use crate::mark::{self, BINS, LOCKED};
use crate::os::{block_signals, restore_signals};

/// The calling thread is in a slow path while this lives. Nothing in it may call the program or the C library.
#[derive(Debug)]
pub(crate) struct SlowPath {
    /// The signals that were blocked before, if they all are.
    before: Option<u64>,
}

impl SlowPath {
    /// Of one that changes what locks guard.
    #[inline]
    pub(crate) fn enter() -> Self {
        Self::of(LOCKED)
    }

    /// Of one that may change the thread's bins, too.
    #[inline]
    pub(crate) fn with_bins() -> Self {
        Self::of(BINS)
    }

    #[inline]
    fn of(kind: usize) -> Self {
        let before = in_use().map(|_| block_signals());
        if before.is_none() {
            mark::enter(kind);
        }
        Self { before }
    }

    /// As [`SlowPath::with_bins`], where it is known that the thread has a cache of its own.
    #[inline]
    pub(crate) fn of_thread() -> Self {
        mark::enter(BINS);
        Self { before: None }
    }
}

impl SlowPath {
    /// Leaves the thread in the slow path; the signals that were blocked before, for [`SlowPath::resume`].
    pub(crate) fn suspend(self) -> Option<u64> {
        let before = self.before;
        core::mem::forget(self);
        before
    }

    /// What [`SlowPath::suspend`] left.
    pub(crate) fn resume(before: Option<u64>) -> Self {
        Self { before }
    }
}

impl Drop for SlowPath {
    #[inline]
    fn drop(&mut self) {
        match self.before {
            None => mark::leave(),
            Some(mask) => restore_signals(mask),
        }
    }
}
