//! The calibration subject planted: the C library's malloc behind a front that makes it worse by a known amount, so that a gate
//! can be shown a change that it must not miss. Without settings it changes nothing, and base and head are the same code.
//!
//! `HEAPLAB_PLANTED=key=number,…`: see [`settings`].
#![no_std]
#![allow(clippy::missing_safety_doc)] // the contracts are those of the C functions of the same name

mod delay;
mod settings;

use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
}

/// What every call does first.
#[inline(always)]
fn work() {
    for _ in 0..settings::STEPS.get() {
        // SAFETY: an empty statement, there so that the loop is not optimised away.
        unsafe { core::arch::asm!("", options(nomem, nostack, preserves_flags)) };
    }
    delay::call(settings::SLOWER.get());
}

/// The size that is asked for in place of `size`. One that is too large stays so.
#[inline(always)]
fn larger(size: usize) -> usize {
    size.saturating_add((size / 100).saturating_mul(settings::LARGER.get()))
        .saturating_add(size % 100 * settings::LARGER.get() / 100)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    work();
    // SAFETY: the contract is the caller's; so below.
    unsafe { __libc_malloc(larger(size)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    static FREES: AtomicUsize = AtomicUsize::new(0);
    work();
    let every = settings::FORGETS.get();
    if every != 0 && FREES.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
        return;
    }
    // SAFETY: the contract is the caller's.
    unsafe { __libc_free(block) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    work();
    // SAFETY: the contract is the caller's.
    unsafe { __libc_calloc(count, larger(size)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    work();
    // SAFETY: the contract is the caller's.
    unsafe { __libc_realloc(block, larger(size)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the contract is the caller's.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => no_memory(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    work();
    // SAFETY: the contract is the caller's.
    unsafe { __libc_memalign(alignment, larger(size)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: the contract is the caller's.
    unsafe { memalign(alignment, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    // SAFETY: errno is this thread's, and the call must leave it as it was; the caller gives a place for the pointer.
    unsafe {
        let errno = *libc::__errno_location();
        let block = memalign(alignment, size);
        *libc::__errno_location() = errno;
        if block.is_null() {
            return libc::ENOMEM;
        }
        out.write(block);
    }
    0
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

fn no_memory() -> *mut c_void {
    // SAFETY: errno is this thread's.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    ptr::null_mut()
}

/// Writes `version=…` and the settings in force into `buffer`, a line each, and returns the bytes written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_subject_describe(buffer: *mut c_char, capacity: usize) -> usize {
    // SAFETY: the caller gives a writable buffer of `capacity` bytes.
    let room = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), capacity) };
    settings::describe(room)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}
