//! A block of which a thread cuts pieces, for [`crate::tiny`]: part of the thread's cache, and nothing but counting.
//!
//! Go's collector finds out when all pieces of a block are dead; here the block's first byte counts them. A piece's block
//! is its address rounded down, as blocks of this class start at multiples of their size.
//!
//! A thread cuts pieces off one block at a time and counts those in its own cache, without atomics; to all others the
//! byte holds [`HELD`] more than pieces, so that it cannot reach 0 meanwhile. Whoever brings it to 0, a free or the
//! holder's leaving, has to free the block. Invariants: N1 byte = pieces alive, or, while a thread holds the block,
//! [`HELD`] minus the pieces that came back past the holder; N2 a held block belongs to one thread's cache; N3 pieces of a
//! block do not overlap while they are alive: the holder starts a block over only when every piece that it cut has come
//! back to itself.

use crate::fault::{Fault, die};
use crate::units::round_up;
use core::ptr::null_mut;
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

    /// Takes a block to cut pieces off, while there is none at hand.
    ///
    /// # Safety
    /// The block is the caller's and has [`BLOCK`] bytes, at a multiple of as many.
    pub(crate) unsafe fn start(&self, block: *mut u8) {
        debug_assert!((block as usize).is_multiple_of(BLOCK));
        debug_assert!(self.block.load(Relaxed).is_null());
        // SAFETY: the caller's duty; the count is the block's first byte.
        unsafe { AtomicU8::from_ptr(block) }.store(HELD, Relaxed);
        self.block.store(block, Relaxed);
        self.left.store(BLOCK as u32 - 1, Relaxed);
        self.blocks.store(self.blocks.load(Relaxed) + 1, Relaxed);
    }

    /// A piece of the block at hand, null if it does not fit.
    #[inline(always)]
    pub(crate) fn cut(&self, size: usize, align: usize) -> *mut u8 {
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
    pub(crate) fn take_back(&self, block: *mut u8) -> bool {
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

    /// Leaves the block at hand to its pieces. The block, if there are none, for the caller to free; else null.
    #[must_use]
    pub(crate) fn leave(&self) -> *mut u8 {
        let block = self.block.swap(null_mut(), Relaxed);
        self.left.store(0, Relaxed);
        let pieces = self.pieces.swap(0, Relaxed);
        if block.is_null() {
            return block;
        }
        // SAFETY: N2: the block was ours.
        unsafe { drop_pieces(block, HELD.wrapping_sub(pieces as u8)) }
    }
}

/// Makes `block` one with a single piece that no thread holds.
///
/// # Safety
/// The block is the caller's.
pub(crate) unsafe fn single(block: *mut u8) {
    // SAFETY: the caller's duty.
    unsafe { AtomicU8::from_ptr(block) }.store(1, Relaxed);
}

/// Takes pieces off a block's count. The block, if none are left, for the caller to free; else null.
///
/// # Safety
/// The block's count holds them.
#[inline]
#[must_use]
pub(crate) unsafe fn drop_pieces(block: *mut u8, pieces: u8) -> *mut u8 {
    // SAFETY: the count is the block's first byte; all accesses to it are atomic.
    let before = unsafe { AtomicU8::from_ptr(block) }.fetch_sub(pieces, Release);
    if before < pieces {
        die(Fault::DoubleFree, block as usize);
    }
    if before > pieces {
        return null_mut();
    }
    core::sync::atomic::fence(Acquire);
    block
}
