//! The subject jemalloc: exports the malloc family and forwards each call to `tikv-jemalloc-sys`.
//!
//! jemalloc is built with its prefix (`_rjem_`), so nothing but the names below leaves this library. Every
//! forward is a tail call: one direct jump more than in a library whose own names are exported. Settings come
//! from `_RJEM_MALLOC_CONF`; the plain `MALLOC_CONF` is ignored by a prefixed build.
#![no_std]
#![allow(clippy::missing_safety_doc)] // the contracts are those of the C functions of the same name

use core::ffi::{c_char, c_int, c_void};
use tikv_jemalloc_sys as je;

// SAFETY (all functions of this library): callers keep the contract of the C function of the same name, and
// jemalloc's functions have the same contract, so handing the arguments on unchanged keeps it.
macro_rules! forward {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: see the head of the macro.
            unsafe { je::$name($($arg),*) }
        }
    )*};
}

forward! {
    malloc(size: usize) -> *mut c_void;
    calloc(count: usize, size: usize) -> *mut c_void;
    realloc(block: *mut c_void, size: usize) -> *mut c_void;
    free(block: *mut c_void);
    aligned_alloc(alignment: usize, size: usize) -> *mut c_void;
    posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int;
    malloc_usable_size(block: *const c_void) -> usize;
    free_sized(block: *mut c_void, size: usize);
    free_aligned_sized(block: *mut c_void, alignment: usize, size: usize);
    mallocx(size: usize, flags: c_int) -> *mut c_void;
    rallocx(block: *mut c_void, size: usize, flags: c_int) -> *mut c_void;
    dallocx(block: *mut c_void, flags: c_int);
    sdallocx(block: *mut c_void, size: usize, flags: c_int);
    mallctl(name: *const c_char, old: *mut c_void, old_len: *mut usize, new: *mut c_void, new_len: usize) -> c_int;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: see the head of the macro; aligned_alloc of jemalloc takes any size.
    unsafe { je::aligned_alloc(alignment, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    // SAFETY: see the head of the macro.
    unsafe { je::aligned_alloc(PAGE, size) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let rounded = size
        .max(1)
        .checked_next_multiple_of(PAGE)
        .unwrap_or(usize::MAX);
    // SAFETY: see the head of the macro; a size that cannot be served gives null.
    unsafe { je::aligned_alloc(PAGE, rounded) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let bytes = count.saturating_mul(size);
    // SAFETY: see the head of the macro; a product that overflows asks for the impossible and gives null.
    unsafe { je::realloc(block, bytes) }
}

/// What `valloc` aligns to on x86-64.
const PAGE: usize = 4096;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}
