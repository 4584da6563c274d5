//! Blocks of several objects ([`crate::joining`]): which objects of a span belong to the one before them.
//!
//! A block's objects lie in one word of the bitmap, so that one look tells its length. Invariant: J3 the bitmap stays until
//! the span is retired, as whoever has an object there may look into it without a lock.

#[cfg(not(loom))]
use crate::fault::{Fault, die};
use crate::page_map::PageMap;
use crate::plant::{Plant, planted};
#[cfg(not(loom))]
use crate::size_class::{NUM_CLASSES, class_of, object_at, reciprocal_of, size_of_class};
use crate::span::Span;
#[cfg(not(loom))]
use crate::span::SpanTable;
use core::sync::atomic::Ordering::Relaxed;
#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering::Acquire};
#[cfg(loom)]
use loom::sync::atomic::AtomicU64;

/// The second bitmap of a span: a bit is set while its object belongs to the one before it. Changed under the lock of the span's
/// class; the bits of a block are read by whoever has it.
#[derive(Clone, Copy, Debug)]
pub struct Continued(&'static [AtomicU64]);

impl Continued {
    /// Of these words.
    #[cfg(loom)]
    #[must_use]
    pub fn new(words: &'static [AtomicU64]) -> Self {
        Self(words)
    }

    /// That of a small span, if there is one.
    ///
    /// # Safety
    /// The caller holds the lock of the span's class, or has an object of the span and uses what it gets no longer.
    #[cfg(not(loom))]
    pub(crate) unsafe fn of(span: *const Span, table: SpanTable) -> Option<Self> {
        // SAFETY: the caller's duty, S3; by J3 the bitmap is there, and has a word for every 64 objects.
        unsafe {
            let at = (*span).continued.load(Acquire);
            (at != 0).then(|| {
                Self(core::slice::from_raw_parts(
                    table.behind(at).cast::<AtomicU64>(),
                    usize::from((*span).objects).div_ceil(64),
                ))
            })
        }
    }

    /// The word of the object, its bit the lowest; 0 for none of the span.
    #[inline]
    fn from(self, object: usize) -> u64 {
        let word = self.0.get(object / 64);
        word.map_or(0, |word| word.load(Relaxed)) >> (object % 64)
    }

    /// How many objects the block has that begins with this one. `None`: none does, it belongs to the one before it.
    #[inline]
    #[must_use]
    pub fn length(self, first: usize) -> Option<usize> {
        let bits = self.from(first);
        (bits & 1 == 0).then(|| (bits >> 1).trailing_ones() as usize + 1)
    }

    /// Makes one block of some free objects of a span, which are in one word: from then on the page map shows no class for it. Whoever is
    /// handed the block sees both.
    ///
    /// # Safety
    /// The span is a small one, the bitmap is its, and the lock of its class is held.
    pub unsafe fn lend(self, map: &PageMap, span: *mut Span, first: usize, objects: usize) {
        // SAFETY: the caller's duty.
        unsafe {
            if !(*span).joined {
                (*span).joined = true;
                if !planted(Plant::ClassStaysShown) {
                    map.clear_small(span);
                }
            }
        }
        if !planted(Plant::FollowersUnmarked) {
            self.join(first, objects);
        }
    }

    /// Makes single objects of a block that came back; without any other one the page map shows the class again.
    ///
    /// # Safety
    /// As [`Continued::lend`]; nobody uses the block any more.
    pub unsafe fn reclaim(self, map: &PageMap, span: *mut Span, first: usize, objects: usize) {
        self.part(first, objects);
        if self.is_empty() || planted(Plant::ShownEarly) {
            // SAFETY: the caller's duty.
            unsafe {
                (*span).joined = false;
                map.set_small(span);
            }
        }
    }

    /// Only for the walker, in tests.
    #[cfg(test)]
    pub(crate) fn contains(self, object: usize) -> bool {
        self.from(object) & 1 != 0
    }

    fn change(self, first: usize, with: impl FnOnce(u64) -> u64) {
        let word = &self.0[first / 64];
        word.store(with(word.load(Relaxed)), Relaxed);
    }

    /// Makes one block of some objects, which are in one word.
    pub(crate) fn join(self, first: usize, objects: usize) {
        self.change(first, |word| {
            word | mask_of(first, objects) & !mask_of(first, 1)
        });
    }

    /// Makes single objects of a block.
    pub(crate) fn part(self, first: usize, objects: usize) {
        self.change(first, |word| word & !mask_of(first, objects));
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.iter().all(|word| word.load(Relaxed) == 0)
    }
}

/// The bits of some objects in the word of the first one, which is that of all.
pub(crate) fn mask_of(first: usize, objects: usize) -> u64 {
    debug_assert!(objects > 0 && first % 64 + objects <= 64);
    u64::MAX >> (64 - objects) << (first % 64)
}

/// The longest class whose objects have no more than `bytes`.
#[cfg(not(loom))]
fn longest_within(bytes: usize) -> usize {
    match class_of(bytes) {
        Some(class) if size_of_class(class) == bytes => class,
        Some(class) => class - 1,
        None => NUM_CLASSES - 1,
    }
}

/// Number of the object that starts at `addr` in a small span, and how many objects the block has. An address at which no block
/// starts ends the process.
///
/// # Safety
/// The caller holds the lock of the span's class, or has an object of the span (S3).
#[cfg(not(loom))]
pub(crate) unsafe fn block_at(table: SpanTable, span: *const Span, addr: usize) -> (usize, usize) {
    // SAFETY: the caller's duty.
    let ((index, starts), length, fresh) = unsafe {
        let found = object_at(
            reciprocal_of((*span).class.into()),
            addr.wrapping_sub((*span).origin),
        );
        let continued = Continued::of(span, table);
        let length = continued.map_or(Some(1), |continued| continued.length(found.0));
        (found, length, (*span).fresh.load(Relaxed))
    };
    match length {
        Some(objects) if starts && index < usize::from(fresh) => (index, objects),
        _ => die(Fault::InteriorPointer, addr),
    }
}

/// The class that a block of so many objects of a span stands for.
///
/// # Safety
/// As [`block_at`].
#[cfg(not(loom))]
pub(crate) unsafe fn class_of_block(span: *const Span, objects: usize) -> usize {
    // SAFETY: the caller's duty.
    let own = usize::from(unsafe { (*span).class });
    match objects {
        1 => own,
        _ => longest_within(objects * size_of_class(own)),
    }
}

/// Whether a block of so many objects of a span may have been asked for as one of `class`.
///
/// # Safety
/// As [`block_at`].
#[cfg(not(loom))]
pub(crate) unsafe fn serves(span: *const Span, objects: usize, class: usize) -> bool {
    // SAFETY: the caller's duty.
    let own = usize::from(unsafe { (*span).class });
    match objects {
        1 => own == class,
        _ => size_of_class(class).div_ceil(size_of_class(own)) == objects,
    }
}
