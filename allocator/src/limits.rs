//! A soft and a hard limit on what the program has in use.
//!
//! What counts are the bytes of spans in use: blocks rounded up to classes and pages, and what caches
//! and partly used spans hold. Beyond the hard limit requests get null; crossing the soft one is told.
//! Here it is only noted that something is to be told: that happens on the slow paths, when no lock is
//! held, so that whoever is told may allocate, free and trim.

use crate::units::{page_bytes, pages_for};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Something has grown beyond the soft limit.
pub const SOFT: u32 = 1;
/// A request was refused because of the hard limit.
pub const HARD: u32 = 2;

/// Both limits in pages; 0 for none.
#[derive(Debug)]
pub struct Limits {
    soft: AtomicUsize,
    hard: AtomicUsize,
    /// What is to be told: [`SOFT`] and [`HARD`].
    pending: AtomicU32,
    /// Requests that the hard limit refused.
    refused: AtomicU64,
    /// Where the pages are counted that another heap has in use under the same limits, or null.
    beside: AtomicPtr<AtomicUsize>,
}

fn pages_of(bytes: usize) -> usize {
    pages_for(bytes.min(crate::units::MAX_REQUEST))
}

/// What a limit allows.
fn pages_within(limit: &AtomicUsize) -> usize {
    match limit.load(Relaxed) {
        0 => usize::MAX,
        pages => pages,
    }
}

impl Limits {
    /// No limits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            soft: AtomicUsize::new(0),
            hard: AtomicUsize::new(0),
            pending: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            beside: AtomicPtr::new(null_mut()),
        }
    }

    /// Sets the soft limit in bytes; 0: none.
    pub fn set_soft(&self, bytes: usize) {
        self.soft.store(pages_of(bytes), Relaxed);
    }

    /// Sets the hard limit in bytes; 0: none.
    pub fn set_hard(&self, bytes: usize) {
        self.hard.store(pages_of(bytes), Relaxed);
    }

    /// Both limits in bytes; 0 for none.
    #[must_use]
    pub fn bytes(&self) -> (usize, usize) {
        let bytes = |limit: &AtomicUsize| page_bytes(limit.load(Relaxed));
        (bytes(&self.soft), bytes(&self.hard))
    }

    /// Counts from now on what another heap has in use, in pages, towards the limits.
    pub(crate) fn count_beside(&self, in_use: &'static AtomicUsize) {
        self.beside
            .store(core::ptr::from_ref(in_use).cast_mut(), Relaxed);
    }

    fn beside(&self) -> usize {
        // SAFETY: null, or a counter that is there for good.
        unsafe { self.beside.load(Relaxed).as_ref() }.map_or(0, |pages| pages.load(Relaxed))
    }

    /// Whether `more` pages beside `in_use` are within the hard limit. Under the page heap's lock.
    #[must_use]
    pub fn allow(&self, in_use: usize, more: usize) -> bool {
        let in_use = in_use + self.beside();
        let then = in_use.saturating_add(more);
        if then > pages_within(&self.hard) {
            self.pending.fetch_or(HARD, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return false;
        }
        let soft = pages_within(&self.soft);
        if then > soft && in_use <= soft {
            self.pending.fetch_or(SOFT, Relaxed);
        }
        true
    }

    /// Whether `more` pages beside `in_use` are within both limits; nothing is told if they are not.
    #[must_use]
    pub fn has_room(&self, in_use: usize, more: usize) -> bool {
        let then = (in_use + self.beside()).saturating_add(more);
        then <= pages_within(&self.hard).min(pages_within(&self.soft))
    }

    /// Something is to be told.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Relaxed) != 0
    }

    /// Takes what is to be told.
    pub fn take(&self) -> u32 {
        self.pending.swap(0, Relaxed)
    }

    /// Requests that the hard limit refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn crossing_is_told_once_and_beyond_the_hard_limit_nothing_is_allowed() {
        let limits = Limits::new();
        assert!(limits.allow(0, usize::MAX - 1) && !limits.is_pending());
        limits.set_soft(10 << 13);
        limits.set_hard(20 << 13);
        assert_eq!(limits.bytes(), (10 << 13, 20 << 13));
        assert!(limits.allow(9, 1) && !limits.is_pending());
        assert!(limits.has_room(9, 1) && !limits.has_room(9, 2) && !limits.is_pending());
        assert!(limits.allow(9, 2));
        assert_eq!(limits.take(), SOFT);
        assert!(limits.allow(11, 9) && !limits.is_pending());
        assert!(!limits.allow(11, 10));
        assert_eq!((limits.take(), limits.refused()), (HARD, 1));
        limits.set_hard(0);
        assert!(limits.allow(11, 1_000));
    }
}
