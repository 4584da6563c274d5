//! Blocks of several objects ([`crate::joining`]): which objects of a span belong to the one before them.
//!
//! A block's objects lie in one word of the bitmap, so that one look tells its length. Invariant: J3 the bitmap stays until
//! the span is retired, as whoever has an object there may look into it without a lock.

use crate::fault::{Fault, die};
use crate::size_class::{NUM_CLASSES, class_of, object_at, reciprocal_of, size_of_class};
use crate::span::{Span, SpanTable};
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};

/// The second bitmap of a span: a bit is set while its object belongs to the one before it. Changed under the lock of the span's
/// class; the bits of a block are read by whoever has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Continued<'a>(&'a [AtomicU64]);

impl<'a> Continued<'a> {
    /// That of a small span, if there is one.
    pub(crate) fn of(span: &'a Span, table: SpanTable) -> Option<Self> {
        let at = span.continued.load(Acquire);
        // SAFETY: J3; the bitmap has a word for every 64 objects.
        (at != 0).then(|| unsafe {
            Self(core::slice::from_raw_parts(
                table.behind(at).cast::<AtomicU64>(),
                span.words(),
            ))
        })
    }

    /// The word of the object, its bit the lowest; 0 for none of the span.
    #[inline]
    fn from(self, object: usize) -> u64 {
        let word = self.0.get(object / 64);
        word.map_or(0, |word| word.load(Relaxed)) >> (object % 64)
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
fn longest_within(bytes: usize) -> usize {
    match class_of(bytes) {
        Some(class) if size_of_class(class) == bytes => class,
        Some(class) => class - 1,
        None => NUM_CLASSES - 1,
    }
}

/// Number of the object that starts at `addr` in a small span, and how many objects the block has. An address at which no block
/// starts ends the process.
pub(crate) fn block_at(table: SpanTable, span: &Span, addr: usize) -> (usize, usize) {
    let (index, starts) = object_at(
        reciprocal_of(span.class.into()),
        addr.wrapping_sub(span.origin),
    );
    let bits = Continued::of(span, table).map_or(0, |continued| continued.from(index));
    if !starts || index >= usize::from(span.fresh) || bits & 1 != 0 {
        die(Fault::InteriorPointer, addr);
    }
    (index, (bits >> 1).trailing_ones() as usize + 1)
}

/// The class that a block of so many objects of a span stands for.
pub(crate) fn class_of_block(span: &Span, objects: usize) -> usize {
    match objects {
        1 => span.class.into(),
        _ => longest_within(objects * span.size()),
    }
}

/// Whether a block of so many objects of a span may have been asked for as one of `class`.
pub(crate) fn serves(span: &Span, objects: usize, class: usize) -> bool {
    match objects {
        1 => usize::from(span.class) == class,
        _ => size_of_class(class).div_ceil(span.size()) == objects,
    }
}
