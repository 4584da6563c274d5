//! The system calls for mappings with the results of the C library's functions, errno included. Made directly: a library that stands
//! before these functions needs them before the next one's can be looked up.

use core::ffi::{c_int, c_long, c_void};

/// # Safety
/// As `mmap(2)`.
pub unsafe fn mmap(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: c_long,
) -> *mut c_void {
    // SAFETY: the caller's promises are passed on.
    unsafe {
        libc::syscall(
            libc::SYS_mmap,
            address,
            bytes,
            c_long::from(protection),
            c_long::from(flags),
            c_long::from(fd),
            offset,
        ) as *mut c_void
    }
}

/// # Safety
/// As `munmap(2)`.
pub unsafe fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's promises are passed on.
    unsafe { libc::syscall(libc::SYS_munmap, address, bytes) as c_int }
}

/// # Safety
/// As `mremap(2)`.
pub unsafe fn mremap(
    address: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    wish: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promises are passed on.
    unsafe {
        libc::syscall(
            libc::SYS_mremap,
            address,
            old_bytes,
            bytes,
            c_long::from(flags),
            wish,
        ) as *mut c_void
    }
}
