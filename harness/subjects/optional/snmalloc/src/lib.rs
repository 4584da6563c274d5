//! The optional subject snmalloc.
#![no_std]

#[path = "../../exports.rs"]
mod exports;

/// The binding's version, which is the one of the sources it brings.
fn described() -> &'static str {
    "version=0.7.6\n"
}

mod raw {
    use core::ffi::c_void;
    pub use snmalloc_sys::sn_realloc as realloc;
    pub use snmalloc_sys::{sn_calloc as calloc, sn_free as free, sn_malloc as malloc};

    /// # Safety
    /// `alignment` is a power of two.
    pub unsafe fn aligned(alignment: usize, size: usize) -> *mut c_void {
        // SAFETY: the contract is the caller's.
        unsafe { snmalloc_sys::sn_rust_alloc(alignment, size) }
    }

    /// # Safety
    /// `block` is a live block.
    pub unsafe fn usable(block: *mut c_void) -> usize {
        // SAFETY: the contract is the caller's.
        unsafe { snmalloc_sys::sn_malloc_usable_size(block) }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}
