//! The exports of the optional subjects: the malloc family, forwarded to the functions that the including crate names in its
//! module `raw`, and what its `described` says of it.
#![allow(clippy::missing_safety_doc)] // the contracts are those of the C functions of the same name

use crate::{described, raw};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;

/// What `valloc` aligns to on x86-64.
const PAGE: usize = 4096;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size may be asked for.
    unsafe { raw::malloc(size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: any product may be asked for.
    unsafe { raw::calloc(count, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the contract is the caller's.
    unsafe { raw::realloc(block, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    // SAFETY: the contract is the caller's; a product that overflows asks for the impossible and gives null.
    unsafe { raw::realloc(block, count.saturating_mul(size)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: the contract is the caller's.
    unsafe { raw::free(block) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: the contract is the caller's.
    unsafe { raw::aligned(alignment, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: the contract is the caller's.
    unsafe { raw::aligned(alignment, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    // SAFETY: a page is a power of two.
    unsafe { raw::aligned(PAGE, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let Some(rounded) = size.max(1).checked_next_multiple_of(PAGE) else {
        return ptr::null_mut();
    };
    // SAFETY: a page is a power of two.
    unsafe { raw::aligned(PAGE, rounded) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    if !alignment.is_power_of_two() || alignment < size_of::<usize>() {
        return libc::EINVAL;
    }
    // SAFETY: the alignment is a power of two; the caller gives a place for the pointer.
    unsafe {
        let block = raw::aligned(alignment, size);
        if block.is_null() {
            return libc::ENOMEM;
        }
        out.write(block);
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        return 0;
    }
    // SAFETY: the contract is the caller's.
    unsafe { raw::usable(block) }
}

/// Writes lines `key=value` into `buffer`, the version and what is to be known of its settings, and returns the bytes written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_subject_describe(buffer: *mut c_char, capacity: usize) -> usize {
    let text = described().as_bytes();
    let used = text.len().min(capacity);
    // SAFETY: the caller gives a writable buffer of `capacity` bytes, and `used` is at most that.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), used) };
    used
}
