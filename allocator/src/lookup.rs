//! The three words in which the fast path of `free` looks up a block's class, in a cache line of their own.
//!
//! They repeat what the page map of the process's heap says, because they cannot be zero at first: `free` reads a
//! class before it knows whether there is a heap. Were they part of [`crate::process::HEAP`], all its 14 KiB would have to
//! be in the library's file and be mapped from it; as it is the heap is zeros and only what is used becomes memory.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize};

#[cfg(not(loom))]
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize};

use core::sync::atomic::Ordering::{Relaxed, Release};

/// The class map before there is one: one page behind the end of an empty heap.
#[cfg(not(loom))]
static NO_CLASS: AtomicU8 = AtomicU8::new(0);

/// Where the fast path finds classes.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Lookup {
    base: AtomicUsize,
    words: AtomicUsize,
    classes: AtomicPtr<AtomicU8>,
    hidden: AtomicBool,
}

#[cfg(not(loom))]
impl Lookup {
    /// Offsets of the words: the heap's start, its length in the unit of the page map's positions, the address of the
    /// class map.
    pub(crate) const BASE_AT: usize = core::mem::offset_of!(Self, base);
    pub(crate) const WORDS_AT: usize = core::mem::offset_of!(Self, words);
    pub(crate) const CLASSES_AT: usize = core::mem::offset_of!(Self, classes);

    /// Of a heap without pages: every address is foreign.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            base: AtomicUsize::new(0),
            words: AtomicUsize::new(0),
            classes: AtomicPtr::new((&raw const NO_CLASS).cast_mut()),
            hidden: AtomicBool::new(false),
        }
    }

    /// From now on every address is foreign to fast paths, so that each operation comes to where it is checked: as
    /// [`Lookup::new`] has it, for good. Nobody has a block yet, or comes to one before this is done ([`crate::config`]).
    pub(crate) fn hide(&self) {
        self.hidden.store(true, Relaxed);
        self.words.store(0, Release);
        self.classes
            .store((&raw const NO_CLASS).cast_mut(), Release);
    }
}

impl Lookup {
    /// Says where the heap and its class map are, while the heap has no pages.
    pub(crate) fn set_plan(&self, base: usize, classes: *mut AtomicU8) {
        if !self.hidden.load(Relaxed) {
            self.classes.store(classes, Release);
            self.base.store(base, Release);
        }
    }

    /// Says how long the heap is.
    pub(crate) fn set_words(&self, words: usize) {
        if !self.hidden.load(Relaxed) {
            self.words.store(words, Release);
        }
    }
}

/// Of the process's heap.
#[cfg(not(loom))]
pub(crate) static LOOKUP: Lookup = Lookup::new();

#[cfg(not(loom))]
impl Default for Lookup {
    fn default() -> Self {
        Self::new()
    }
}
