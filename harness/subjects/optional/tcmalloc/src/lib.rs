//! The optional subject tcmalloc: Google's, not the one of gperftools. Its caches are for each CPU where the kernel has
//! restartable sequences that libc has not taken (`GLIBC_TUNABLES=glibc.pthread.rseq=0`), else for each thread.
#![no_std]

#[path = "../../exports.rs"]
mod exports;

/// The binding's version, and for what its caches are now.
fn described() -> &'static str {
    // SAFETY: it takes nothing and may be asked at any time.
    match unsafe { raw::per_cpu_caches_active() } {
        true => "version=libtcmalloc-sys 0.1.14\nmode=cpu\n",
        false => "version=libtcmalloc-sys 0.1.14\nmode=thread\n",
    }
}

mod raw {
    use core::ffi::c_void;
    // Only for what it links.
    use libtcmalloc_sys as _;

    unsafe extern "C" {
        #[link_name = "TCMallocInternalMalloc"]
        pub fn malloc(size: usize) -> *mut c_void;
        #[link_name = "TCMallocInternalCalloc"]
        pub fn calloc(count: usize, size: usize) -> *mut c_void;
        #[link_name = "TCMallocInternalRealloc"]
        pub fn realloc(block: *mut c_void, size: usize) -> *mut c_void;
        #[link_name = "TCMallocInternalFree"]
        pub fn free(block: *mut c_void);
        #[link_name = "TCMallocInternalAlignedAlloc"]
        pub fn aligned(alignment: usize, size: usize) -> *mut c_void;
        #[link_name = "TCMallocInternalMallocSize"]
        pub fn usable(block: *mut c_void) -> usize;
        #[link_name = "MallocExtension_Internal_GetPerCpuCachesActive"]
        pub fn per_cpu_caches_active() -> bool;
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}

// `core` names the personality routine of unwinding where it is not optimised away; this library never unwinds
// (`panic = "abort"`). Hidden, so that it cannot stand in for a program's own.
core::arch::global_asm!(
    ".pushsection .text.heaplab_no_unwinding,\"ax\",@progbits",
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality, @function",
    "rust_eh_personality:",
    "ud2",
    ".size rust_eh_personality, 2",
    ".popsection",
);
