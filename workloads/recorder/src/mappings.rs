//! mmap, munmap, mremap, brk and sbrk, recorded where the session asks for it. The C library's own calls, such as those of
//! its allocator, do not come through here; those of other allocators do.
//!
//! The system calls are made directly: these functions may be needed before the next library's can be looked up.

use core::arch::naked_asm;
use core::ffi::{c_int, c_long, c_void};

use heaplab_hook::{session, thread};
use heaplab_preloaded::calls;
use heaplab_ring::Kind;

fn wanted() -> bool {
    session::mode() == session::RECORDING
        && session::pool().is_some_and(|pool| pool.wants_mappings())
}

/// C `mmap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: c_long,
) -> *mut c_void {
    // SAFETY: the caller's promises are passed on.
    let mapped = unsafe { calls::mmap(address, bytes, protection, flags, fd, offset) };
    if mapped != libc::MAP_FAILED && wanted() {
        thread::record(Kind::Mmap, mapped as usize, bytes, 0);
    }
    mapped
}

/// `mmap` under the name that programs with large files use.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64() {
    naked_asm!("jmp {mmap}", mmap = sym mmap)
}

/// C `munmap`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    if wanted() {
        thread::record(Kind::Munmap, address as usize, bytes, 0);
    }
    // SAFETY: the caller's promises are passed on.
    unsafe { calls::munmap(address, bytes) }
}

/// `mremap`; the fifth argument is variadic in C, which on this machine is passed alike.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    address: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    wish: *mut c_void,
) -> *mut c_void {
    // SAFETY: the caller's promises are passed on.
    let mapped = unsafe { calls::mremap(address, old_bytes, bytes, flags, wish) };
    if mapped != libc::MAP_FAILED && wanted() {
        thread::record(Kind::Mremap, mapped as usize, bytes, 0);
    }
    mapped
}

/// C `brk`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn brk(address: *mut c_void) -> c_int {
    // SAFETY: the name is zero-terminated; the function found has this signature; its promises are the caller's.
    let status = unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"brk".as_ptr());
        if next.is_null() {
            *libc::__errno_location() = libc::ENOSYS;
            return -1;
        }
        let next: unsafe extern "C" fn(*mut c_void) -> c_int = core::mem::transmute(next);
        next(address)
    };
    if status == 0 && wanted() {
        thread::record(Kind::Brk, address as usize, 0, 0);
    }
    status
}

/// C `sbrk`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sbrk(step: isize) -> *mut c_void {
    // SAFETY: as in `brk`.
    let before = unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"sbrk".as_ptr());
        if next.is_null() {
            *libc::__errno_location() = libc::ENOSYS;
            return usize::MAX as *mut c_void;
        }
        let next: unsafe extern "C" fn(isize) -> *mut c_void = core::mem::transmute(next);
        next(step)
    };
    if before as usize != usize::MAX && step != 0 && wanted() {
        let now = (before as usize).wrapping_add_signed(step);
        thread::record(Kind::Brk, now, 0, 0);
    }
    before
}
