//! Memory for ops that wait: a buffer of a fixed capacity that is filled from its beginning.
//!
//! A `Vec` cannot ask for an alignment. Large buffers begin at huge pages here, so that all of one is filled at a fault for 2 MiB: in a
//! vector of 4 MiB half of the memory came in by pages of 4 KiB, which cost as much as writing the script.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// A huge page.
const HUGE: usize = 2 << 20;

/// Bytes of a [`Slab`]'s memory.
const SLAB: usize = 256 << 10;

/// An allocation, not initialised.
///
/// Invariant: `start` is an allocation of [`Memory::layout`] for `capacity` > 0.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: it owns its allocation, which no thread is bound to; nothing is read or written through a shared reference.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// From 2 MiB on in huge pages where the system has them.
    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        assert!(layout.size() > 0, "an allocation without bytes");
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) });
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        let huge = capacity & !(HUGE - 1);
        if huge > 0 {
            // SAFETY: whole pages within the allocation, which begins at one; the advice changes no contents.
            unsafe { libc::madvise(start.as_ptr().cast(), huge, libc::MADV_HUGEPAGE) };
        }
        Self { start, capacity }
    }

    fn layout(capacity: usize) -> Layout {
        let align = if capacity >= HUGE { HUGE } else { 16 };
        match Layout::from_size_align(capacity, align) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {capacity} bytes"),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and nobody else frees it.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) };
    }
}

/// Bytes, up to a capacity.
///
/// Invariant: the `capacity` bytes from `start` on lie in `_memory`, which lives as long as the buffer, and in no other buffer; the
/// first `length` ≤ `capacity` of them are initialised. Without memory the capacity is 0.
pub struct Buffer {
    start: NonNull<u8>,
    length: usize,
    capacity: usize,
    /// Kept, not looked at.
    _memory: Option<Arc<Memory>>,
}

// SAFETY: the buffer is the only one with access to its bytes, as a vector of bytes is.
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
            _memory: None,
        }
    }
}

impl Buffer {
    /// An empty one that takes `capacity` bytes; from 2 MiB on in huge pages where the system has them.
    pub fn with_capacity(capacity: usize) -> Self {
        if capacity == 0 {
            return Self::default();
        }
        let memory = Memory::new(capacity);
        Self {
            start: memory.start,
            length: 0,
            capacity,
            _memory: Some(Arc::new(memory)),
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
        // SAFETY: the target is the rest of the buffer's part of its memory, which has room (checked above); `bytes` cannot lie in
        // it, since it is borrowed while `self` is borrowed exclusively, and no other buffer has this part.
        unsafe {
            let end = self.start.as_ptr().add(self.length);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.length += bytes.len();
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

/// Many small buffers in common memory: a script may have 65,536 threads of a few ops each, and an allocation for each of them costs
/// more than its ops.
#[derive(Default)]
pub struct Slab {
    memory: Option<Arc<Memory>>,
    /// Bytes of the memory that belong to buffers.
    used: usize,
}

impl Slab {
    /// An empty buffer that takes `capacity` bytes.
    pub fn cut(&mut self, capacity: usize) -> Buffer {
        if capacity == 0 || capacity > SLAB {
            return Buffer::with_capacity(capacity);
        }
        let memory = match &self.memory {
            Some(memory) if memory.capacity - self.used >= capacity => memory,
            _ => {
                self.used = 0;
                self.memory.insert(Arc::new(Memory::new(SLAB)))
            }
        };
        // SAFETY: `used` + `capacity` ≤ the memory's capacity (checked above, or a new one of `SLAB` bytes).
        let start = unsafe { memory.start.add(self.used) };
        // Each byte is given out once: no two buffers overlap.
        self.used += capacity;
        Buffer {
            start,
            length: 0,
            capacity,
            _memory: Some(Arc::clone(memory)),
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
    fn small_buffers_share_memory_and_nothing_else() {
        let mut slab = Slab::default();
        let mut buffers: Vec<Buffer> = (0..3 * SLAB / 48).map(|_| slab.cut(48)).collect();
        // One larger than a slab, and none at all.
        buffers.extend([slab.cut(SLAB + 1), slab.cut(0), slab.cut(SLAB)]);
        let pattern = |index: usize| (index % 251) as u8;
        for (index, buffer) in buffers.iter_mut().enumerate() {
            buffer.extend(&vec![pattern(index); buffer.room()]);
        }
        drop(slab);
        let odd = buffers.iter().enumerate().skip(1).step_by(2);
        let kept: Vec<_> = odd.map(|(index, buffer)| (index, buffer.len())).collect();
        let mut index = 0;
        buffers.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        for ((index, length), buffer) in kept.into_iter().zip(&buffers) {
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|byte| *byte == pattern(index)), "{index}");
        }
    }

    #[test]
    #[should_panic(expected = "fixed capacity")]
    fn more_than_fits_is_refused() {
        let mut buffer = Buffer::with_capacity(4);
        buffer.extend(b"hello");
    }
}
