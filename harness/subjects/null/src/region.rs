//! The address space of the null allocator: one region per size class, handed out from its start.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// log2 of the bytes of a class's region: 256 GiB.
const REGION_SHIFT: u32 = 38;
/// log2 of the smallest class: 16 bytes.
const FIRST_SHIFT: u32 = 4;
/// Classes 16 B, 32 B … 128 GiB.
pub const CLASSES: usize = (REGION_SHIFT - FIRST_SHIFT) as usize;

/// Start of the regions; 0 = not yet reserved. Aligned to a region, so that blocks are aligned to their size.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// Bytes handed out, per class.
static USED: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];

/// Class of a request of `size` bytes; `CLASSES` and more: too large to serve.
#[inline(always)]
pub const fn class_of(size: usize) -> usize {
    // The low bits are set so that nothing is below 16, and that the highest bit always exists.
    let highest = usize::BITS - 1 - (size.saturating_sub(1) | 15).leading_zeros();
    (highest + 1 - FIRST_SHIFT) as usize
}

/// Bytes of each block of `class`.
#[inline(always)]
pub const fn bytes_of(class: usize) -> usize {
    1 << (class as u32 + FIRST_SHIFT)
}

/// Class of a block that this allocator gave out.
#[inline(always)]
pub fn class_of_address(block: *mut c_void) -> usize {
    (block as usize - BASE.load(Ordering::Relaxed)) >> REGION_SHIFT
}

/// Cuts `count` fresh blocks of `class` from its region: address of the first, or 0 when the region is used up.
pub fn take(class: usize, count: usize) -> usize {
    let base = match BASE.load(Ordering::Acquire) {
        0 => reserve(),
        base => base,
    };
    let bytes = bytes_of(class) * count;
    let start = USED[class].fetch_add(bytes, Ordering::Relaxed);
    if base == 0 || start + bytes > 1 << REGION_SHIFT {
        return 0;
    }
    base + (class << REGION_SHIFT) + start
}

/// Reserves the address space of all classes; the losers of a race give theirs back. 0 when the kernel refuses.
fn reserve() -> usize {
    let bytes = (CLASSES + 1) << REGION_SHIFT;
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return 0;
    }
    let base = (start as usize).next_multiple_of(1 << REGION_SHIFT);
    match BASE.compare_exchange(0, base, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => base,
        Err(winner) => {
            // SAFETY: the mapping was made above and nobody knows it.
            unsafe { libc::munmap(start, bytes) };
            winner
        }
    }
}
