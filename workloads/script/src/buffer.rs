//! Memory for ops that wait: a buffer of a fixed capacity that is filled from its beginning.
//!
//! A `Vec` cannot ask for an alignment. Large buffers begin at huge pages here, so that all of one is filled at a fault for 2 MiB: in a
//! vector of 4 MiB half of the memory came in by pages of 4 KiB, which cost as much as writing the script.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;

/// A huge page.
const HUGE: usize = 2 << 20;

/// Bytes, up to a capacity.
///
/// Invariant: `start` is an allocation of [`Buffer::layout`] where `capacity` is not 0, and its first `length` ≤ `capacity` bytes are
/// initialised.
pub struct Buffer {
    start: NonNull<u8>,
    length: usize,
    capacity: usize,
}

// SAFETY: the buffer owns its memory, as a vector of bytes does.
unsafe impl Send for Buffer {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Buffer {}

impl Default for Buffer {
    /// One without memory.
    fn default() -> Self {
        Self {
            start: NonNull::dangling(),
            length: 0,
            capacity: 0,
        }
    }
}

impl Buffer {
    /// An empty one that takes `capacity` bytes; from 2 MiB on in huge pages where the system has them.
    pub fn with_capacity(capacity: usize) -> Self {
        if capacity == 0 {
            return Self::default();
        }
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) });
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        let huge = capacity & !(HUGE - 1);
        if huge > 0 {
            // SAFETY: whole pages within the allocation, which begins at one; the advice changes no contents.
            unsafe { libc::madvise(start.as_ptr().cast(), huge, libc::MADV_HUGEPAGE) };
        }
        Self {
            start,
            length: 0,
            capacity,
        }
    }

    /// Bytes that still fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// Appends bytes, for which there must be room.
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a buffer of fixed capacity");
        // SAFETY: the target is the rest of the allocation, which has room (checked above); `bytes` cannot lie in it, since it is
        // borrowed while `self` is borrowed exclusively.
        unsafe {
            let end = self.start.as_ptr().add(self.length);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.length += bytes.len();
    }

    fn layout(capacity: usize) -> Layout {
        let align = if capacity >= HUGE { HUGE } else { 16 };
        match Layout::from_size_align(capacity, align) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {capacity} bytes"),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `length` bytes are initialised, and live as long as `self`; without memory the length is 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.capacity != 0 {
            // SAFETY: allocated in `with_capacity` with this layout, and nobody else frees it.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_large_ones_begin_at_huge_pages() {
        assert!(Buffer::default().is_empty() && Buffer::with_capacity(0).room() == 0);
        for capacity in [1, 64, HUGE - 1, HUGE, 2 * HUGE] {
            let mut buffer = Buffer::with_capacity(capacity);
            assert_eq!((buffer.room(), buffer.len()), (capacity, 0));
            if capacity >= HUGE {
                assert!(buffer.as_ptr().addr().is_multiple_of(HUGE));
            }
            let bytes: Vec<u8> = (0..capacity).map(|index| index as u8).collect();
            for piece in bytes.chunks(4096) {
                buffer.extend(piece);
            }
            assert!(*buffer == *bytes && buffer.room() == 0);
        }
    }

    #[test]
    #[should_panic(expected = "fixed capacity")]
    fn more_than_fits_is_refused() {
        let mut buffer = Buffer::with_capacity(4);
        buffer.extend(b"hello");
    }
}
