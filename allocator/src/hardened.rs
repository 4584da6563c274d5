//! The settings `check` and `hardened`: every mistake is found at once, or made to fail.
//!
//! *Checked*: threads get no caches, so that every operation goes to the bitmaps of the middle tier
//! and to the page heap, which know exactly what is in use: a block that is freed twice, at a wrong
//! address or with a wrong size is reported by the very call. The fast paths are what they always are
//! (an empty cache sends each operation to the slow path), so the setting costs nothing when it is off.
//!
//! *Hardened* adds: freed blocks are filled with a pattern and wait in a quarantine, so that they are
//! not handed out again soon, and a write to one is found when it leaves; free memory holds no links
//! that could be overwritten (nothing is ever linked: caches are off); and one allocation in
//! `guard_rate` lies at the end of a page of its own between pages that nobody can touch, and becomes
//! untouchable when it is freed. Invariant: Q1 a block in the quarantine is in use for the tiers below
//! and holds the pattern; Q2 the slots' pages are in use for the page heap.

mod guard;
mod quarantine;

pub(crate) use guard::explain_faults;

use crate::alloc::{aligned_class, stays};
use crate::fault::{Fault, die};
use crate::heap::Block;
use crate::process::HEAP;
use crate::size_class::{class_of_aligned, size_of_class};
use crate::slow_path::SlowPath;
use crate::sync::{Locked, RawLock};
use crate::units::MIN_ALIGN;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The settings `check` and `hardened`; the second implies the first.
pub static CHECKED: AtomicU32 = AtomicU32::new(0);
pub static HARDENED: AtomicU32 = AtomicU32::new(0);
/// The setting `guard_rate`: one allocation in so many gets guard pages; 0 none.
pub use guard::RATE;
/// The setting `quarantine_bytes`.
pub use quarantine::LIMIT_BYTES;

/// What a block is filled with when it is freed.
const PATTERN: u8 = 0xDF;

/// What the lock guards.
#[derive(Debug)]
struct State {
    quarantine: quarantine::Quarantine,
    guards: guard::Guards,
}

/// Taken with no other lock held, and no other is taken while it is held.
static STATE: Locked<State> = Locked::new(State {
    quarantine: quarantine::Quarantine::new(),
    guards: guard::Guards::new(),
});

/// The lock, for the fork handlers.
pub(crate) fn lock() -> &'static RawLock {
    STATE.raw()
}

/// Threads have no caches.
#[inline]
pub(crate) fn checked() -> bool {
    CHECKED.load(Relaxed) != 0
}

/// Blocks are filled, wait and are guarded.
#[inline]
pub(crate) fn on() -> bool {
    HARDENED.load(Relaxed) != 0
}

/// Bytes that are in use for the tiers below, and not by the program: of small blocks, and of spans.
pub(crate) fn set_aside() -> [usize; 2] {
    if on() {
        [STATE.lock().quarantine.bytes(), guard::unused_bytes()]
    } else {
        [0; 2]
    }
}

/// A block as [`crate::alloc::allocate_aligned`] gives it; null: no memory.
pub(crate) fn allocate(size: usize, align: usize) -> *mut u8 {
    let _slow_path = SlowPath::enter();
    if on() {
        let guarded = guard::allocate(size, align);
        if !guarded.is_null() {
            return guarded;
        }
    }
    match aligned_class(size, align) {
        Some(class) => HEAP.take_one(class).0,
        None => HEAP.allocate_large(size, align).0,
    }
}

/// Takes a block back; anything that is no live block ends the process.
///
/// # Safety
/// Nobody uses the block any more, or it is none.
pub(crate) unsafe fn free(block: *mut u8) {
    let _slow_path = SlowPath::enter();
    if on() && guard::free(block) {
        return;
    }
    match HEAP.block_of(block) {
        // SAFETY: the caller's duty.
        Block::Small(class) if !on() => unsafe { give(block, class) },
        Block::Small(class) => {
            HEAP.central(class).expect_live(&HEAP.pages, class, block);
            // SAFETY: the block is live, for the tiers below at least, and the caller's.
            unsafe {
                quarantine::expect_absent(block, class);
                quarantine::admit(block, class);
            }
        }
        // SAFETY: the span is the block's.
        Block::Large(span) => unsafe { HEAP.pages.free(span) },
    }
}

/// As [`free`], by a caller who says which class the block has.
///
/// # Safety
/// As [`free`].
pub(crate) unsafe fn free_class(block: *mut u8, class: usize) {
    if !on() {
        let _slow_path = SlowPath::enter();
        // SAFETY: the caller's duty.
        return unsafe { give(block, class) };
    }
    let real = match guard::size_of(block) {
        Some(size) => class_of_aligned(size, 1),
        None => match HEAP.block_of(block) {
            Block::Small(real) => Some(real),
            Block::Large(_) => None,
        },
    };
    if real != Some(class) {
        die(Fault::WrongSize, block as usize);
    }
    // SAFETY: the caller's duty.
    unsafe { free(block) }
}

/// Gives a block to the middle tier, which ends the process unless it is a live one of `class`.
///
/// # Safety
/// As [`free`].
#[inline]
unsafe fn give(block: *mut u8, class: usize) {
    // SAFETY: the caller's duty.
    unsafe { HEAP.give(class, &[block]) }
}

/// Bytes of the block that the program may use.
pub(crate) fn usable_size(block: *mut u8) -> usize {
    guard::size_of(block).unwrap_or_else(|| HEAP.usable_size(block))
}

/// Moves a block to one of another size. Null: no memory, and the block stays.
///
/// # Safety
/// The block is live and nobody else uses it.
pub(crate) unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    let old = usable_size(block);
    let moved = allocate(size, 1);
    if moved.is_null() {
        return null_mut();
    }
    // SAFETY: both blocks have the bytes, and they differ.
    unsafe {
        moved.copy_from_nonoverlapping(block, old.min(size));
        free(block);
    }
    moved
}

/// Ends the process unless the block is live.
pub(crate) fn expect_live(block: *mut u8) {
    if guard::expect_live(block) {
        return;
    }
    if let Block::Small(class) = HEAP.block_of(block) {
        let _slow_path = SlowPath::enter();
        HEAP.central(class).expect_live(&HEAP.pages, class, block);
        if on() {
            // SAFETY: the tiers below have it in use.
            unsafe { quarantine::expect_absent(block, class) };
        }
    }
}

/// Ends the process unless a block of `size` bytes at a multiple of `align`, as the program remembers it, may be this one:
/// where blocks are freed by size, in checked mode.
pub(crate) fn expect_size(block: *mut u8, size: usize, align: usize) {
    if let Some(exact) = guard::size_of(block) {
        // Those are moved whenever they get another size. The smallest may have been asked for with an alignment as large.
        if size > exact || (size < exact && exact > MIN_ALIGN) {
            die(Fault::WrongSize, block as usize);
        }
        return;
    }
    let fits = match HEAP.block_of(block) {
        // Shrinking by realloc leaves a block where it is if it wastes less than half.
        Block::Small(class) => {
            aligned_class(size, align) == Some(class) || stays(size, size_of_class(class))
        }
        // SAFETY: the span is the block's.
        Block::Large(span) => size <= unsafe { (*span).bytes() },
    };
    if !fits {
        die(Fault::WrongSize, block as usize);
    }
}
