//! Blocks below [`LARGE_BYTES`] that a process allocates early and never writes to.
//!
//! A small program may reserve tables of which it uses none, such as bc its 32 bodies of functions, of 1 KiB each; in a heap of
//! 0.4 MiB they are 6 %. Pages cannot tell: in an allocator with headers each holds one, so that the kernel has it in memory. So the
//! contents are looked at: a block of malloc that lies on memory never used before, or a block of calloc, that has nothing but zeros when
//! the process ends was not written to, unless with zeros only. That is told as 0 bytes written.
//!
//! Why only the first [`MOST`] of a process: what takes part in the table costs each free of another block in its bucket a look. Why
//! only those alive at its end: a block that is freed as zeros may have been written to all the same. A library that fills fresh blocks of
//! malloc with a mark told them apart: in bc 17 of 41 blocks that ended as zeros had been written to, all of them freed before the end; of
//! those alive at the end of 16 programs (those of `harness/docs/validate.sh`) 55 KiB had not, and 1 KiB (of dot) had.

use core::sync::atomic::{AtomicUsize, Ordering};

use heaplab_ring::{EARLY_BYTES, LARGE_BYTES, sys};

/// Blocks that are looked at: one bucket of the table in 16 has one then.
const MOST: usize = 256;
/// Bytes that are looked at together; on the stack.
const PIECE: usize = 512;

/// [`EARLY_BYTES`] at first, then [`LARGE_BYTES`].
static FROM: AtomicUsize = AtomicUsize::new(EARLY_BYTES);
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// The smallest size of which [`super::appeared`] is to be told now.
#[inline(always)]
pub fn seen_from() -> usize {
    FROM.load(Ordering::Relaxed)
}

/// After a block below [`LARGE_BYTES`] appeared; whether it is one of those.
pub(super) fn takes_part() -> bool {
    let seen = SEEN.fetch_add(1, Ordering::Relaxed);
    if seen + 1 >= MOST {
        FROM.store(LARGE_BYTES, Ordering::Relaxed);
    }
    seen < MOST
}

/// Whether a block has nothing but zeros; `false` where it cannot be read. Another thread may free it meanwhile and its memory may
/// go: the kernel copies it, which then fails, where reading it would end the program.
pub(super) fn is_zero(address: usize, bytes: usize) -> bool {
    let mut piece = [0u8; PIECE];
    let mut at = 0;
    while at < bytes {
        let piece = &mut piece[..PIECE.min(bytes - at)];
        if !sys::peek(address + at, piece) || piece.iter().any(|byte| *byte != 0) {
            return false;
        }
        at += piece.len();
    }
    true
}
