//! The exported malloc family. Each function calls the next library's and records the call:
//! allocations after it, frees before it, realloc on both sides, so that for every address the
//! recorded events alternate in time. In the build that captures stacks (feature `stacks`) the
//! allocating ones are exported by `stacks::entry` instead, which comes here.

use core::ffi::{c_int, c_void};
use core::ptr;

use heaplab_ring::Kind;

use crate::real;
use heaplab_hook::large;
use heaplab_hook::thread::record;

const ENOMEM: c_int = 12;

/// Records an allocation that returned `block`, and returns it: a function that ends with this call keeps nothing for after it.
#[inline(always)]
fn allocated(kind: Kind, block: *mut c_void, size: usize, align_log2: u8) -> *mut c_void {
    if block.is_null() || size >= large::seen_from() {
        return failed_or_large(kind, block, size, align_log2);
    }
    #[cfg(feature = "stacks")]
    crate::stacks::allocation(block as usize, size);
    record(kind, block as usize, size, align_log2) as *mut c_void
}

#[cold]
#[inline(never)]
fn failed_or_large(kind: Kind, block: *mut c_void, size: usize, align_log2: u8) -> *mut c_void {
    if block.is_null() {
        return record(Kind::FailedAlloc, 0, size, align_log2) as *mut c_void;
    }
    #[cfg(feature = "stacks")]
    crate::stacks::allocation(block as usize, size);
    // SAFETY: the block is fresh, so its contents mean nothing, or are zeros where calloc gave it.
    unsafe { large::appeared(block as usize, size, Some(0)) };
    record(kind, block as usize, size, align_log2) as *mut c_void
}

/// log2 of a requested alignment; 0 for what is no power of two.
pub fn log2(align: usize) -> u8 {
    if align.is_power_of_two() {
        align.trailing_zeros() as u8
    } else {
        0
    }
}

/// Records a free as `kind` and calls the next library's `free`.
///
/// # Safety
/// As for C `free`: `block` is null or a live block.
#[inline(always)]
pub unsafe fn release(kind: Kind, block: *mut c_void, size: usize, align_log2: u8) {
    if block.is_null() || real::is_bootstrap(block) {
        return;
    }
    if large::may_hold(block as usize) {
        // SAFETY: the caller's promise is passed on.
        return unsafe { release_large(kind, block, size, align_log2) };
    }
    // What comes back is the same block: nothing has to be kept for it meanwhile.
    let block = record(kind, block as usize, size, align_log2) as *mut c_void;
    if let Some(next) = real::free() {
        // SAFETY: the caller's promise that the block is live is passed on.
        unsafe { next(block) };
    }
}

/// # Safety
/// As for [`release`], of a block that is neither null nor of the bootstrap arena.
#[cold]
#[inline(never)]
unsafe fn release_large(kind: Kind, block: *mut c_void, size: usize, align_log2: u8) {
    large::leaves(block as usize);
    record(kind, block as usize, size, align_log2);
    if let Some(next) = real::free() {
        // SAFETY: the caller's promise that the block is live is passed on.
        unsafe { next(block) };
    }
}

/// C `malloc`.
#[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    let Some(next) = real::malloc() else {
        return real::bootstrap_allocate(size, 16);
    };
    // SAFETY: the next library's malloc accepts any size.
    let block = unsafe { next(size) };
    allocated(Kind::Malloc, block, size, 0)
}

/// C `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's promise is passed on.
    unsafe { release(Kind::Free, block, 0, 0) }
}

/// C `calloc`.
#[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let bytes = count.saturating_mul(size);
    // The bootstrap arena is zeroed and never used twice.
    let Some(next) = real::calloc() else {
        return real::bootstrap_allocate(bytes, 16);
    };
    // SAFETY: the next library's calloc accepts any arguments.
    let block = unsafe { next(count, size) };
    allocated(Kind::Calloc, block, bytes, 0)
}

/// C `realloc`.
#[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise is passed on.
    unsafe { reallocate(block, size, Kind::ReallocEnd) }
}

/// `reallocarray`: by the next library's realloc, because libc's own version would come back
/// through our realloc and be recorded twice.
#[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        record(Kind::FailedAlloc, 0, usize::MAX, 0);
        // SAFETY: errno is a thread-local integer.
        unsafe { *libc::__errno_location() = ENOMEM };
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise is passed on.
    unsafe { reallocate(block, bytes, Kind::ReallocArrayEnd) }
}

/// # Safety
/// As for C `realloc`: `block` is null or a live block.
#[inline(always)]
unsafe fn reallocate(block: *mut c_void, size: usize, end: Kind) -> *mut c_void {
    if real::is_bootstrap(block) {
        // SAFETY: malloc accepts any size; old and new block are distinct and at least as long as
        // what is copied.
        unsafe {
            let new = malloc(size);
            if !new.is_null() {
                let bytes = real::bootstrap_size(block).min(size);
                ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast::<u8>(), bytes);
            }
            return new;
        }
    }
    let Some(next) = real::realloc() else {
        return real::bootstrap_allocate(size, 16);
    };
    let before = large::resizes(block as usize, size);
    let kept = match (before.bytes, real::malloc_usable_size()) {
        _ if block.is_null() => Some(0),
        // SAFETY: a live block of the next library's.
        (1.., Some(usable)) if size > before.bytes => Some(unsafe { usable(block) }),
        _ => None,
    };
    record(Kind::ReallocBegin, block as usize, 0, 0);
    // SAFETY: the caller's promise is passed on.
    let new = unsafe { next(block, size) };
    if new.is_null() && size > 0 {
        before.stays(block as usize);
    } else if size >= large::LARGE_BYTES {
        // SAFETY: what realloc keeps of a block lies within its usable size of before; the rest means nothing.
        unsafe { before.becomes(new as usize, size, kept) };
    }
    #[cfg(feature = "stacks")]
    if !new.is_null() {
        crate::stacks::allocation(new as usize, size);
    }
    // Address 0 in the end record: the call failed (size > 0) or was a free (size 0).
    record(end, new as usize, size, 0) as *mut c_void
}

macro_rules! aligned {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(align: usize, size: usize) -> *mut c_void {
            let Some(next) = real::$name() else { return real::bootstrap_allocate(size, align) };
            // SAFETY: the next library checks the arguments as its own interface says.
            let block = unsafe { next(align, size) };
            allocated($kind, block, size, log2(align))
        }
    };
}

aligned!(
    /// C11 `aligned_alloc`.
    aligned_alloc,
    Kind::AlignedAlloc
);
aligned!(
    /// `memalign`.
    memalign,
    Kind::Memalign
);

/// POSIX `posix_memalign`.
#[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    let Some(next) = real::posix_memalign() else {
        let block = real::bootstrap_allocate(size, align);
        if block.is_null() {
            return ENOMEM;
        }
        // SAFETY: the caller passes a valid place for the result.
        unsafe { *out = block };
        return 0;
    };
    // SAFETY: the caller's promise about `out` is passed on.
    let status = unsafe { next(out, align, size) };
    let block = if status == 0 {
        // SAFETY: on success the next library has written the result.
        unsafe { *out }
    } else {
        ptr::null_mut()
    };
    allocated(Kind::PosixMemalign, block, size, log2(align));
    status
}

macro_rules! page_aligned {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[cfg_attr(not(feature = "stacks"), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(size: usize) -> *mut c_void {
            let Some(next) = real::$name() else { return real::bootstrap_allocate(size, 4096) };
            // SAFETY: the next library's function accepts any size.
            let block = unsafe { next(size) };
            // Pages of this machine have 4 KiB: log2 is 12.
            allocated($kind, block, size, 12)
        }
    };
}

page_aligned!(
    /// `valloc`.
    valloc,
    Kind::Valloc
);
page_aligned!(
    /// `pvalloc`.
    pvalloc,
    Kind::Pvalloc
);

/// C23 `free_sized`; the next library's free where it has no such function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    if block.is_null() || real::is_bootstrap(block) {
        return;
    }
    large::leaves(block as usize);
    record(Kind::FreeSized, block as usize, size, 0);
    // SAFETY: the caller's promise that the block is live and of this size is passed on.
    unsafe {
        if let Some(next) = real::free_sized() {
            next(block, size);
        } else if let Some(next) = real::free() {
            next(block);
        }
    }
}

/// C23 `free_aligned_sized`; the next library's free where it has no such function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, align: usize, size: usize) {
    if block.is_null() || real::is_bootstrap(block) {
        return;
    }
    large::leaves(block as usize);
    record(Kind::FreeAlignedSized, block as usize, size, log2(align));
    // SAFETY: the caller's promise about the block is passed on.
    unsafe {
        if let Some(next) = real::free_aligned_sized() {
            next(block, align, size);
        } else if let Some(next) = real::free() {
            next(block);
        }
    }
}
