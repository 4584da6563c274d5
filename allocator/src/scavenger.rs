//! Gives memory back to the system: what exceeds recent demand, after a while, bit by bit.
//!
//! The goal is Go's: keep what the last window needed at its peak and a tenth more. The clock is
//! read on every 16th free of a span only; nothing is released in the fast paths. A program that
//! goes idle with much free memory gets a helper for a while ([`crate::helper`]). Invariant: V1 a run that was released is clean, and only such (and fresh) runs are.

use crate::os::Os;
use crate::page_heap::huge::RANGE_PAGES;
use crate::page_heap::{Inner, PageHeap};
use crate::units::{page_bytes, pages_for};
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Default of the setting `decay_ms`.
pub const DEFAULT_DECAY_MS: i64 = 1000;
/// `decay_ms`: milliseconds that free memory stays; 0 releases at once, negative never.
pub static DECAY_MS: AtomicI64 = AtomicI64::new(DEFAULT_DECAY_MS);

/// Nanoseconds that the calls took by which memory went back, in all threads.
static RELEASE_NS: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds that helpers have run. (Here, as a program that has none touches no memory for it.)
pub(crate) static HELPER_NS: AtomicU64 = AtomicU64::new(0);

/// Makes a call by which memory goes back, and counts how long it takes: two looks at the clock cost a tenth of the least such call.
pub(crate) fn timed<O: Os>(os: &O, call: impl FnOnce(&O) -> bool) -> bool {
    let start = os.now_ns();
    let done = call(os);
    RELEASE_NS.fetch_add(os.now_ns().saturating_sub(start), Ordering::Relaxed);
    done
}

/// Nanoseconds in [`timed`] so far.
pub(crate) fn release_ns() -> u64 {
    RELEASE_NS.load(Ordering::Relaxed)
}

/// Free memory that is never released by decay, because releasing less costs more than it gives:
/// an eighth of what is in use, within these bounds.
const KEEP_LEAST: usize = pages_for(128 << 10);
const KEEP_MOST: usize = pages_for(1 << 20);

/// From this much free memory on, in dirty runs or inside the spans of one class, a program that
/// goes idle gets a helper.
pub const HELPER_BYTES: usize = 4 << 20;

const fn keep_pages(in_use: usize) -> usize {
    let share = in_use / 8;
    if share < KEEP_LEAST {
        KEEP_LEAST
    } else if share > KEEP_MOST {
        KEEP_MOST
    } else {
        share
    }
}
/// Free memory beside which fresh pages are put to use: this part of the peak, ...
const BESIDE_SHARE: usize = 16;
/// ... so much at least ...
const BESIDE_LEAST: usize = pages_for(16 << 10);
/// ... and at most ...
const BESIDE_GROWTH: usize = pages_for(64 << 10);
/// ... and, as a program that takes fresh pages while free ones do not fit, again and again, faults in what was given back,
/// this part of all that has been released so ...
const LEARN_SHARE: usize = 16;
/// ... up to this part of the peak.
const LEARN_MOST: usize = 8;
/// This part of it is forgotten with each window.
const FORGET_SHARE: usize = 8;
/// Most that one tick releases, so that the call that pays for it is not held for long.
const TICK_PAGES: usize = pages_for(64 << 20);
/// Released in pieces of this size ...
const PIECE_PAGES: usize = pages_for(16 << 20);
/// ... and by the helper in smaller ones, because it holds the lock that others wait for.
const IDLE_PAGES: usize = pages_for(1 << 20);

/// The window over which demand is watched.
#[derive(Debug)]
pub struct Decay {
    frees: u32,
    window_start: u64,
    /// Pages released because fresh ones were put to use, less what was forgotten.
    beside_growth: usize,
}

impl Decay {
    /// At the start of time.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            frees: 0,
            window_start: 0,
            beside_growth: 0,
        }
    }
}

impl Default for Decay {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Called after a span was freed: releases what is in excess, if the window is over.
    pub(crate) fn tick<O: Os>(&mut self, heap: &PageHeap<O>) {
        self.decay.frees = self.decay.frees.wrapping_add(1);
        let delay = DECAY_MS.load(Ordering::Relaxed);
        if delay == 0 {
            self.release(heap, usize::MAX);
            return;
        }
        if !self.decay.frees.is_multiple_of(16) || self.dirty.pages <= KEEP_LEAST || delay < 0 {
            return;
        }
        if self.dirty.pages >= pages_for(HELPER_BYTES) {
            heap.ask_for_helper();
        }
        let now = heap.os.now_ms();
        if self.decay.window_start == 0 {
            self.decay.window_start = now.max(1);
            self.close_window();
            return;
        }
        if now < self.decay.window_start + delay as u64 {
            return;
        }
        self.decay.window_start = now;
        let excess = self.excess();
        self.close_window();
        if excess > 0 {
            self.release(heap, excess.min(TICK_PAGES));
        }
    }

    /// Dirty pages beyond what the window needed at its peak and a tenth more.
    fn excess(&self) -> usize {
        let peak = self.peak_in_use;
        let keep = (peak + peak / 10)
            .saturating_sub(self.in_use)
            .max(keep_pages(peak));
        self.dirty.pages.saturating_sub(keep)
    }

    /// Called before `pages` that are not resident are put to use: what is resident stays within a 16th, 16 to 64 KiB, above the window's
    /// peak demand. Without this, free runs that never fit again (vectors that double, shifting sizes) would pile up until the
    /// window ends. Where it is wrong, and what was released is wanted again, it grows milder with each release.
    pub(crate) fn bound_resident<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) {
        let excess = self.excess_beside(pages);
        self.release_beside(heap, excess);
    }

    /// Dirty pages by which that is exceeded when `pages` that are not resident are put to use.
    #[inline]
    pub(crate) fn excess_beside(&self, pages: usize) -> usize {
        if DECAY_MS.load(Ordering::Relaxed) < 0 {
            return 0;
        }
        let demand = self.in_use + pages;
        let peak = self.peak_in_use.max(demand);
        let learnt = (self.decay.beside_growth / LEARN_SHARE).min(peak / LEARN_MOST);
        let beside = (peak / BESIDE_SHARE).clamp(BESIDE_LEAST, BESIDE_GROWTH);
        let limit = peak + learnt + beside;
        (demand + self.dirty.pages).saturating_sub(limit)
    }

    /// Releases so many of them and learns from it.
    #[inline]
    pub(crate) fn release_beside<O: Os>(&mut self, heap: &PageHeap<O>, excess: usize) {
        if excess > 0 {
            self.decay.beside_growth += self.release(heap, excess);
        }
    }

    /// Pages that were released because fresh ones were put to use, less what was forgotten.
    #[cfg(test)]
    pub(crate) fn learnt_pages(&self) -> usize {
        self.decay.beside_growth
    }

    fn close_window(&mut self) {
        self.highest = self.highest.max(self.peak_in_use);
        self.peak_in_use = self.in_use;
        self.decay.beside_growth -= self.decay.beside_growth.div_ceil(FORGET_SHARE);
    }

    /// Releases at least `pages` dirty pages if there are as many, longest runs first; less than a huge page rather where
    /// none is split by it. Returns the number released.
    pub(crate) fn release<O: Os>(&mut self, heap: &PageHeap<O>, pages: usize) -> usize {
        let table = self.table(heap);
        let mut released = 0;
        while released < pages {
            let mut id = 0;
            if pages < RANGE_PAGES {
                id = self
                    .dirty
                    .longest_where(table, |span| !self.huge.splits(span));
            }
            if id == 0 {
                id = self.dirty.longest();
            }
            if id == 0 {
                break;
            }
            // SAFETY: the number came from the dirty lists.
            unsafe {
                let span = table.get(id);
                self.unlist(table, span);
                let piece = PIECE_PAGES.min(pages.max(IDLE_PAGES));
                if (*span).pages as usize > piece {
                    self.cut(heap, span, piece);
                }
                let length = (*span).pages as usize;
                if !self.give_back(heap, span) {
                    // Locked pages, or no memory to split a mapping: they stay dirty.
                    break;
                }
                released += length;
            }
        }
        self.counters.pages_released += released as u64;
        self.counters.releases += u64::from(released > 0);
        released
    }
}

impl<O: Os> PageHeap<O> {
    /// What a tick does at the end of a window, for a program that frees nothing: bit by bit, with
    /// the lock free in between. Without a single span allocated since `*allocated` were, demand is no
    /// reason to keep more than the least. Returns the bytes released, and the dirty bytes that demand is
    /// a reason to keep.
    pub fn release_idle(&self, allocated: &mut u64) -> (usize, usize) {
        let (mut left, keep, busy) = {
            let mut inner = self.inner.lock();
            inner.decay.window_start = self.os.now_ms().max(1);
            let at_rest = inner.counters.spans_allocated == *allocated;
            *allocated = inner.counters.spans_allocated;
            let excess = inner.excess();
            inner.close_window();
            let keep = keep_pages(inner.in_use);
            if at_rest {
                (inner.dirty.pages.saturating_sub(keep), keep, 0)
            } else {
                let kept = inner.dirty.pages.saturating_sub(excess);
                (excess, kept, kept)
            }
        };
        let mut released = 0;
        while left > 0 {
            let mut inner = self.inner.lock();
            let step = left
                .min(IDLE_PAGES)
                .min(inner.dirty.pages.saturating_sub(keep));
            let pages = if step == 0 {
                0
            } else {
                inner.release(self, step)
            };
            if pages == 0 {
                break;
            }
            released += pages;
            left = left.saturating_sub(pages);
        }
        (page_bytes(released), page_bytes(busy))
    }

    /// Releases all free pages but about `keep_bytes`. Returns the bytes released.
    pub fn release_free(&self, keep_bytes: usize) -> usize {
        let mut inner = self.inner.lock();
        let excess = inner.dirty.pages.saturating_sub(pages_for(keep_bytes));
        if excess == 0 {
            return 0;
        }
        let all = if keep_bytes == 0 { usize::MAX } else { excess };
        page_bytes(inner.release(self, all))
    }
}
