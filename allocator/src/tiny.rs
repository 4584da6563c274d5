//! Tiny blocks: several pieces of up to [`LARGEST`] bytes share one block of [`BLOCK`] bytes (Go's tiny allocator).
//!
//! C code may free a pointer of which nothing else is known and rely on 8-byte alignment, so combining is for callers
//! who give size and alignment at free: [`TinyAlloc`]. Go's collector finds out when all pieces of a block are dead; here
//! the block's first byte counts them. A piece's block is its address rounded down, as blocks of this class start at
//! multiples of their size.
//!
//! A thread cuts pieces off one block at a time and counts those in its own cache, without atomics; to all others the
//! byte holds [`HELD`] more than pieces, so that it cannot reach 0 meanwhile. Whoever brings it to 0, a free or the
//! holder's leaving, frees the block. Invariants: N1 byte = pieces alive, or, while a thread holds the block, [`HELD`]
//! minus the pieces that came back past the holder; N2 a held block belongs to one thread's cache; N3 pieces of a block do not
//! overlap while they are alive: the holder starts a block over only when every piece that it cut has come back to itself.

use crate::fault::{Fault, die};
use crate::thread_cache::ThreadCache;
use crate::units::round_up;
use crate::{SpanAlloc, alloc, hardened, thread, tls};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Bytes of a shared block, its count included. Larger ones save a little more and are pinned as a whole by one piece.
pub const BLOCK: usize = 16;
/// The largest piece; up to here three fit into a block, if their size is a multiple of their alignment.
pub const LARGEST: usize = 5;
/// What a block's count is raised by while a thread cuts pieces off it.
const HELD: u8 = 128;

const _: () = assert!(BLOCK.is_power_of_two() && BLOCK < HELD as usize);

/// The block that a thread cuts pieces off. Only its own thread uses it.
#[derive(Debug)]
pub(crate) struct Cutting {
    block: AtomicPtr<u8>,
    /// Bytes of the block that are not given away; 0, if there is none.
    left: AtomicU32,
    /// Pieces cut off it that have not come back to this thread.
    pieces: AtomicU32,
    /// Blocks taken so far.
    pub(crate) blocks: AtomicU64,
}

impl Cutting {
    pub(crate) const fn new() -> Self {
        Self {
            block: AtomicPtr::new(null_mut()),
            left: AtomicU32::new(0),
            pieces: AtomicU32::new(0),
            blocks: AtomicU64::new(0),
        }
    }

    /// A piece of the block at hand, null if it does not fit.
    #[inline(always)]
    fn cut(&self, size: usize, align: usize) -> *mut u8 {
        let from = round_up(BLOCK - self.left.load(Relaxed) as usize, align);
        if from + size > BLOCK {
            return null_mut();
        }
        self.left.store((BLOCK - from - size) as u32, Relaxed);
        self.pieces.store(self.pieces.load(Relaxed) + 1, Relaxed);
        // SAFETY: without a block nothing fits, so there is one, and the piece is in it.
        unsafe { self.block.load(Relaxed).add(from) }
    }

    /// Takes back a piece if it is of the block at hand.
    #[inline(always)]
    fn take_back(&self, block: *mut u8) -> bool {
        if self.block.load(Relaxed) != block {
            return false;
        }
        let pieces = self.pieces.load(Relaxed).wrapping_sub(1);
        self.pieces.store(pieces, Relaxed);
        if pieces == 0 {
            // All are back, so the block is as new.
            self.left.store(BLOCK as u32 - 1, Relaxed);
        }
        true
    }

    /// Leaves the block at hand to its pieces.
    pub(crate) fn leave(&self) {
        let block = self.block.swap(null_mut(), Relaxed);
        self.left.store(0, Relaxed);
        let pieces = self.pieces.swap(0, Relaxed);
        if !block.is_null() {
            // SAFETY: N2: the block was ours.
            unsafe { drop_pieces(block, HELD.wrapping_sub(pieces as u8)) };
        }
    }
}

/// Takes pieces off a block's count, and frees the block if none are left.
///
/// # Safety
/// The block's count holds them.
#[inline]
unsafe fn drop_pieces(block: *mut u8, pieces: u8) {
    // SAFETY: the count is the block's first byte; all accesses to it are atomic.
    let before = unsafe { AtomicU8::from_ptr(block) }.fetch_sub(pieces, Release);
    if before < pieces {
        die(Fault::DoubleFree, block as usize);
    }
    if before == pieces {
        core::sync::atomic::fence(Acquire);
        // SAFETY: nobody has a piece of it any more.
        unsafe { alloc::free_sized(block, BLOCK, 1) };
    }
}

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
    debug_assert!((block as usize).is_multiple_of(BLOCK));
    // SAFETY: the block is ours.
    let count = unsafe { AtomicU8::from_ptr(block) };
    match own {
        Some(ThreadCache { tiny, .. }) => {
            tiny.leave();
            count.store(HELD, Relaxed);
            tiny.block.store(block, Relaxed);
            tiny.left.store(BLOCK as u32 - 1, Relaxed);
            tiny.blocks.store(tiny.blocks.load(Relaxed) + 1, Relaxed);
            tiny.cut(size, align)
        }
        // Nothing remembers a block for a thread without a cache: it has one piece.
        None => {
            count.store(1, Relaxed);
            // SAFETY: a piece and the count fit into the block.
            unsafe { block.add(round_up(1, align)) }
        }
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
        drop_pieces(block, 1);
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
