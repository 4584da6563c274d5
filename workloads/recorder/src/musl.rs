//! Stand-ins for functions of musl that call others of its family by their public names: those calls would come back
//! through the exported functions here and be recorded a second time (musl binds its own calls to itself, but for the
//! malloc family, which a program may replace). musl's `memalign` is its `aligned_alloc`.

use core::ffi::{c_int, c_void};
use core::ptr;

use heaplab_ring::sys;

use crate::real;

const PAGE_BYTES: usize = 4096;
/// From here on pages are given back to be zeros again, rather than written: a table that is mostly empty stays so.
const LARGE: usize = 128 * 1024;

/// Whether the C library is another one than glibc.
pub fn is_here() -> bool {
    // SAFETY: the name is zero-terminated.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"gnu_get_libc_version".as_ptr()) }.is_null()
}

/// `calloc` by `malloc`.
///
/// # Safety
/// None beyond those of any foreign function.
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some((malloc, bytes)) = real::malloc().zip(count.checked_mul(size)) else {
        return no_memory();
    };
    // SAFETY: malloc accepts any size; the block has the bytes that are zeroed, and nobody else knows of it yet. Whole
    // pages inside it hold nothing but the block.
    unsafe {
        let block = malloc(bytes);
        if block.is_null() {
            return block;
        }
        let start = block as usize;
        let (first, end) = (
            start.next_multiple_of(PAGE_BYTES),
            (start + bytes) & !(PAGE_BYTES - 1),
        );
        if bytes >= LARGE && sys::discard(first, end - first) {
            ptr::write_bytes(block.cast::<u8>(), 0, first - start);
            ptr::write_bytes(end as *mut u8, 0, start + bytes - end);
        } else {
            ptr::write_bytes(block.cast::<u8>(), 0, bytes);
        }
        block
    }
}

/// `posix_memalign` by `aligned_alloc`.
///
/// # Safety
/// `out` must be valid for a write.
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return libc::EINVAL;
    }
    let Some(aligned_alloc) = real::aligned_alloc() else {
        return libc::ENOMEM;
    };
    // SAFETY: the alignment is a power of two; the caller promises that `out` is valid.
    unsafe {
        // This function does not set errno.
        let errno = *libc::__errno_location();
        let block = aligned_alloc(align, size);
        *libc::__errno_location() = errno;
        if block.is_null() {
            return libc::ENOMEM;
        }
        *out = block;
    }
    0
}

/// `valloc` by `aligned_alloc`.
///
/// # Safety
/// None beyond those of any foreign function.
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    match real::aligned_alloc() {
        // SAFETY: a power of two.
        Some(aligned_alloc) => unsafe { aligned_alloc(PAGE_BYTES, size) },
        None => no_memory(),
    }
}

fn no_memory() -> *mut c_void {
    // SAFETY: errno is a thread-local integer.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    ptr::null_mut()
}
