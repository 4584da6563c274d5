//! A chain of free objects: each holds the address of the next in its first word, the last null.

use core::ptr::null_mut;

/// A chain with its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// First object, null for an empty chain.
    pub head: *mut u8,
    /// Objects in the chain.
    pub len: usize,
}

impl Chain {
    /// A chain without objects.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            head: null_mut(),
            len: 0,
        }
    }
}

/// The object after `object`.
///
/// # Safety
/// `object` is a free object of at least 8 bytes that is part of a chain.
#[inline(always)]
#[must_use]
pub unsafe fn next_of(object: *mut u8) -> *mut u8 {
    // SAFETY: the caller's duty; objects are at least 8-byte aligned.
    unsafe { object.cast::<*mut u8>().read() }
}

/// Makes `next` the object after `object`.
///
/// # Safety
/// `object` is a free object of at least 8 bytes that the caller owns.
#[inline(always)]
pub unsafe fn set_next(object: *mut u8, next: *mut u8) {
    // SAFETY: the caller's duty; objects are at least 8-byte aligned.
    unsafe { object.cast::<*mut u8>().write(next) };
}

/// Builds a chain in the order in which objects come.
#[derive(Debug)]
pub struct ChainBuilder {
    head: *mut u8,
    tail: *mut u8,
    len: usize,
}

impl ChainBuilder {
    /// Begins with nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: null_mut(),
            tail: null_mut(),
            len: 0,
        }
    }

    /// Appends an object.
    ///
    /// # Safety
    /// `object` is a free object of at least 8 bytes that the caller owns.
    #[inline]
    pub unsafe fn push(&mut self, object: *mut u8) {
        if self.tail.is_null() {
            self.head = object;
        } else {
            // SAFETY: the tail was pushed before.
            unsafe { set_next(self.tail, object) };
        }
        self.tail = object;
        self.len += 1;
    }

    /// Objects so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// First object so far, null if none.
    #[must_use]
    pub fn head(&self) -> *mut u8 {
        self.head
    }

    /// Nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the chain.
    #[must_use]
    pub fn finish(self) -> Chain {
        if !self.tail.is_null() {
            // SAFETY: the tail was pushed before.
            unsafe { set_next(self.tail, null_mut()) };
        }
        Chain {
            head: self.head,
            len: self.len,
        }
    }
}

impl Default for ChainBuilder {
    fn default() -> Self {
        Self::new()
    }
}
