//! The calibration subject null: the cheapest allocator that a replay can call, so that its time is the harness's
//! own cost.
//!
//! A block's size class (a power of two) is told by its address: each class owns a region of the address space.
//! So there are no headers, alignment comes by itself, and a free touches nothing but the thread's own stack of
//! free blocks. There are no checks of any kind. Blocks that one thread frees and another allocates travel in
//! batches through a list per class (see [`cache`]).
#![no_std]
#![allow(clippy::missing_safety_doc)] // the contracts are those of the C functions of the same name

mod cache;
mod region;

use cache::Cache;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    allocate(region::class_of(size))
}

#[inline(always)]
fn allocate(class: usize) -> *mut c_void {
    let cache = cache::current();
    if !cache.is_null() {
        // SAFETY: the pointer is this thread's cache, which lives until the thread's end; only this thread uses it.
        if let Some(block) = unsafe { (*cache).pop(class) } {
            return block;
        }
    }
    Cache::refill(cache, class)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    let class = region::class_of_address(block);
    let cache = cache::current();
    // SAFETY: as in `allocate`.
    if cache.is_null() || !unsafe { (*cache).push(class, block) } {
        Cache::spill(cache, class, block);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return ptr::null_mut();
    };
    let block = allocate(region::class_of(bytes));
    if !block.is_null() {
        // SAFETY: the block has at least `bytes` bytes.
        unsafe { block.cast::<u8>().write_bytes(0, bytes) };
    }
    block
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return allocate(region::class_of(size));
    }
    let (old, new) = (region::class_of_address(block), region::class_of(size));
    if old == new {
        return block;
    }
    let moved = allocate(new);
    if !moved.is_null() {
        let kept = region::bytes_of(old).min(size);
        // SAFETY: both blocks have at least `kept` bytes and are different blocks.
        unsafe {
            ptr::copy_nonoverlapping(block.cast::<u8>(), moved.cast::<u8>(), kept);
            free(block);
        }
    }
    moved
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    allocate(region::class_of(size.max(alignment)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    allocate(region::class_of(size.max(alignment)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    allocate(region::class_of(size.max(4096)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    allocate(region::class_of(size.max(4096)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    let block = allocate(region::class_of(size.max(alignment)));
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller gives a place for the pointer.
    unsafe { out.write(block) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        return ptr::null_mut();
    };
    // SAFETY: the contract is the caller's.
    unsafe { realloc(block, bytes) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    if block.is_null() {
        0
    } else {
        region::bytes_of(region::class_of_address(block))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(block: *mut c_void, _size: usize) {
    // SAFETY: the contract is the caller's.
    unsafe { free(block) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, _alignment: usize, _size: usize) {
    // SAFETY: the contract is the caller's.
    unsafe { free(block) }
}

/// Writes `version=…` into `buffer` and returns the bytes written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_subject_describe(buffer: *mut c_char, capacity: usize) -> usize {
    let text = concat!("version=", env!("CARGO_PKG_VERSION"), "\n").as_bytes();
    let used = text.len().min(capacity);
    // SAFETY: the caller gives a writable buffer of `capacity` bytes, and `used` is at most that.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), used) };
    used
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}
