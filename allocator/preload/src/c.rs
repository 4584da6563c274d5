//! The C names, with what C, POSIX and glibc's manual demand of arguments and `errno`.
//!
//! Successful calls and `free` leave `errno` alone. A request of 0 bytes gets a block of its own.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use spanalloc::alloc;
use spanalloc::units::{MAX_REQUEST, MIN_ALIGN};

const PAGE: usize = 4096;

pub(crate) fn set_errno(code: c_int) {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = code };
}

#[cold]
fn fail(code: c_int) -> *mut c_void {
    set_errno(code);
    null_mut()
}

#[cold]
#[inline(never)]
extern "C" fn fail_no_memory() -> *mut c_void {
    fail(libc::ENOMEM)
}

/// C `malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    alloc::allocate_loosely(size).cast()
}

/// C `free`.
///
/// # Safety
/// As C demands: null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the caller's duty.
    unsafe { alloc::free(block.cast()) }
}

/// C `calloc`.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => alloc::allocate_zeroed_loosely(bytes).cast(),
        None => fail_no_memory(),
    }
}

/// C `realloc`. As in glibc, a live block and size 0 frees and returns null.
///
/// # Safety
/// As C demands: null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() || size == 0 {
        // SAFETY: the caller's duty.
        return unsafe { realloc_of_nothing(block, size) };
    }
    // SAFETY: the caller's duty.
    unsafe { alloc::reallocate(block.cast(), size).cast() }
}

/// `realloc` with null, which is `malloc`, or with size 0, which is `free`.
///
/// # Safety
/// As [`realloc`].
#[cold]
#[inline(never)]
unsafe extern "C" fn realloc_of_nothing(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: the caller's duty.
    unsafe { free(block) };
    null_mut()
}

/// BSD `reallocarray`: `realloc` with a checked product.
///
/// # Safety
/// As [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's duty.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => fail(libc::ENOMEM),
    }
}

/// C11 `aligned_alloc`. As in glibc, the size need not be a multiple of the alignment.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // Sizes above `MAX_REQUEST` find no class and get null further down.
    if align & align.wrapping_sub(1) == 0 && align.wrapping_sub(1) < MIN_ALIGN {
        alloc::allocate_aligned(align, size).cast()
    } else {
        aligned_alloc_slow(align, size)
    }
}

#[inline(never)]
extern "C" fn aligned_alloc_slow(align: usize, size: usize) -> *mut c_void {
    if align.is_power_of_two() {
        alloc::allocate_aligned(align, size).cast()
    } else {
        fail(libc::EINVAL)
    }
}

/// `memalign`. As in glibc, an alignment that is no power of two is rounded up to one.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) if align <= MAX_REQUEST => aligned_alloc(align, size),
        _ => fail(libc::EINVAL),
    }
}

/// POSIX `posix_memalign`: returns the error, leaves `errno` and, on error, `*out` alone.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    if size > MAX_REQUEST {
        return libc::ENOMEM;
    }
    // SAFETY: errno is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    let block = alloc::allocate_aligned(align, size);
    if block.is_null() {
        set_errno(errno);
        return libc::ENOMEM;
    }
    // SAFETY: the caller's duty.
    unsafe { *out = block.cast() };
    0
}

/// `valloc`: aligned to the kernel's page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned_alloc(PAGE, size)
}

/// `pvalloc`: as `valloc`, the size rounded up to whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    if size > MAX_REQUEST {
        return fail(libc::ENOMEM);
    }
    aligned_alloc(PAGE, spanalloc::units::round_up(size.max(1), PAGE))
}

/// `malloc_usable_size`: bytes of the block, all of which may be used.
///
/// # Safety
/// Null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's duty.
    unsafe { alloc::usable_size(block.cast()) }
}

/// C23 `free_sized`. The block may have been shrunk in place by `realloc`, so its class is looked
/// up; the size is compared in checked mode only.
///
/// # Safety
/// Null or a live block of `malloc`, `calloc` or `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, size: usize) {
    // SAFETY: the caller's duty.
    unsafe { alloc::free_expecting(block.cast(), size, 1) }
}

/// C23 `free_aligned_sized`. Size and alignment are compared in checked mode only.
///
/// # Safety
/// Null or a live block of `aligned_alloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, align: usize, size: usize) {
    // SAFETY: the caller's duty.
    unsafe { alloc::free_expecting(block.cast(), size, align) }
}

/// The old name of `free` in some libraries.
///
/// # Safety
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(block: *mut c_void) {
    // SAFETY: the caller's duty.
    unsafe { alloc::free(block.cast()) }
}
