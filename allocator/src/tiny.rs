//! Tiny blocks: several pieces of up to [`LARGEST`] bytes share one block of [`BLOCK`] bytes (Go's tiny allocator).
//!
//! C code may free a pointer of which nothing else is known and rely on 8-byte alignment, so combining is for callers
//! who give size and alignment at free: [`TinyAlloc`]. How pieces are cut and counted: [`crate::cutting`].

pub use crate::cutting::{BLOCK, LARGEST};
use crate::cutting::{drop_pieces, single};
use crate::units::round_up;
use crate::{SpanAlloc, alloc, hardened, thread, tls};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::with_exposed_provenance_mut;

#[inline(always)]
fn is_tiny(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= LARGEST
}

/// [`TinyAlloc::alloc`] when the block at hand has no room.
#[cold]
#[inline(never)]
fn allocate_slow(size: usize, align: usize) -> *mut u8 {
    // First, as what has no cache is so for a reason that settings tell.
    let own = thread::attach();
    if hardened::checked() {
        return alloc::allocate_aligned(align, size);
    }
    if let Some(own) = own {
        let piece = own.tiny.cut(size, align);
        if !piece.is_null() {
            // The slot had not shown the thread's own cache.
            return piece;
        }
    }
    let block = alloc::allocate(BLOCK);
    if block.is_null() {
        return block;
    }
    // SAFETY: the block is ours and has `BLOCK` bytes.
    unsafe {
        match own {
            Some(own) => {
                free_block(own.tiny.leave());
                own.tiny.start(block);
                own.tiny.cut(size, align)
            }
            // Nothing remembers a block for a thread without a cache: it has one piece.
            None => {
                single(block);
                block.add(round_up(1, align))
            }
        }
    }
}

/// Frees a block of which no piece is left; null is ignored.
///
/// # Safety
/// Nobody has a piece of it, nor holds it.
#[inline]
unsafe fn free_block(block: *mut u8) {
    if !block.is_null() {
        // SAFETY: the caller's duty.
        unsafe { alloc::free_sized(block, BLOCK, 1) };
    }
}

/// Frees a piece of a block that is not the one at hand.
///
/// # Safety
/// As [`TinyAlloc::dealloc`].
#[inline(never)]
unsafe fn free_slow(piece: *mut u8, block: *mut u8, layout: Layout) {
    // SAFETY: the caller's duty.
    unsafe {
        if hardened::checked() {
            return alloc::free_sized(piece, layout.size(), layout.align());
        }
        free_block(drop_pieces(block, 1));
    }
}

/// [`SpanAlloc`] that puts several blocks of up to [`LARGEST`] bytes into one: for programs with very many boxed bytes,
/// flags or characters. A `Box<u8>` costs 1.2 bytes instead of 8. One at a time a piece is a little dearer than `SpanAlloc`'s block, as frees of
/// other blocks' pieces are atomic; many at once are mostly cheaper. A block that has been freed may stay as long as its
/// neighbours live; double frees of pieces are mostly not found. With `check` or `hardened` nothing is combined, and with
/// `front_end=cpu` each piece takes a block of [`BLOCK`] bytes for itself.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: spanalloc::TinyAlloc = spanalloc::TinyAlloc;
/// let flags: Vec<Box<bool>> = (0..1000).map(|n| Box::new(n % 3 == 0)).collect();
/// let near = |a: &Box<bool>, b: &Box<bool>| (&raw const **a as usize).abs_diff(&raw const **b as usize);
/// assert!(flags.windows(2).filter(|pair| near(&pair[0], &pair[1]) == 1).count() > 900);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TinyAlloc;

// SAFETY: pieces are as large and as aligned as the layout asks and do not overlap (N3); the rest is `SpanAlloc`'s.
unsafe impl GlobalAlloc for TinyAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_tiny(layout) {
            // SAFETY: the caller's duty.
            return unsafe { SpanAlloc.alloc(layout) };
        }
        let piece = tls::cache().tiny.cut(layout.size(), layout.align());
        if piece.is_null() {
            return allocate_slow(layout.size(), layout.align());
        }
        piece
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that the piece came from here with this layout.
        unsafe {
            if !is_tiny(layout) {
                return SpanAlloc.dealloc(piece, layout);
            }
            // The program's pointer may stand for its own bytes only; the heap's for all of it.
            let block = with_exposed_provenance_mut(piece.addr() & !(BLOCK - 1));
            if !tls::cache().tiny.take_back(block) {
                free_slow(piece, block, layout);
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duty; the piece has the layout's size.
        unsafe {
            if !is_tiny(layout) {
                return SpanAlloc.alloc_zeroed(layout);
            }
            let piece = self.alloc(layout);
            if !piece.is_null() {
                piece.write_bytes(0, layout.size());
            }
            piece
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises; both blocks have the bytes that are copied.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            match (is_tiny(layout), is_tiny(new_layout)) {
                (false, false) => SpanAlloc.realloc(block, layout, new_size),
                (true, true) if new_size <= layout.size() => block,
                _ => {
                    let moved = self.alloc(new_layout);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}
