//! Rust's face of the allocator: [`SpanAlloc`].

use crate::alloc;
use core::alloc::{GlobalAlloc, Layout};

/// The allocator as a `#[global_allocator]`. It has no state of its own; all values are the same
/// allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanAlloc;

// SAFETY: blocks are at least as large and as aligned as the layout asks, stay in place until
// freed, and nothing here unwinds.
unsafe impl GlobalAlloc for SpanAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc::allocate_aligned(layout.align(), layout.size())
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that the block came from here with this layout.
        unsafe { alloc::free_sized(block, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        alloc::allocate_zeroed_aligned(layout.align(), layout.size())
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let plain =
            layout.align() <= 8 || (layout.align() <= 16 && layout.size() > 8 && new_size > 8);
        if plain {
            // SAFETY: the caller promises that the block came from here with this layout.
            return unsafe { alloc::reallocate_exact(block, layout.size(), new_size) };
        }
        // SAFETY: the caller promises that the block came from here with this layout.
        let stays = layout.align() > 16
            && unsafe { alloc::resize_aligned(block, layout.size(), new_size, layout.align()) };
        if stays {
            return block;
        }
        // SAFETY: `new_size`, rounded up to the alignment, does not overflow isize, as the caller
        // promises; both blocks have the bytes that are copied.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            let moved = self.alloc(new_layout);
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}
