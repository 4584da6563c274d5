//! `libheaplab_linked.a`: records a statically linked program.
//!
//! Nothing can be preloaded into a static program, so this is linked into it. The linker's `--wrap` (ld(1)) sends every
//! reference to `malloc` to `__wrap_malloc` here, in the C library's own objects, too, and `__real_malloc` to the allocator
//! that the program has. Events go into the session that `heaplab record` names in the environment; without one a call
//! costs a few instructions more.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("heaplab records on Linux on x86-64 only");

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use heaplab_hook::{chunks, large, member, session, thread};
use heaplab_ring::Kind;

/// Nothing here panics on purpose; a defect must not unwind into the recorded program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort never returns and is allowed in any state.
    unsafe { libc::abort() }
}

unsafe extern "C" {
    fn __real_malloc(size: usize) -> *mut c_void;
    fn __real_calloc(count: usize, size: usize) -> *mut c_void;
    fn __real_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __real_free(block: *mut c_void);
    fn __real_aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn __real_memalign(align: usize, size: usize) -> *mut c_void;
    fn __real_posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
}

/// Records an allocation that returned `block`.
#[inline(always)]
fn allocated(kind: Kind, block: *mut c_void, size: usize, align: usize) {
    let kind = if block.is_null() {
        Kind::FailedAlloc
    } else {
        if size >= large::LARGE_BYTES {
            // SAFETY: the block is fresh, so its contents mean nothing, or are zeros where calloc gave it.
            unsafe { large::appeared(block as usize, size, Some(0)) };
        }
        kind
    };
    let align_log2 = if align.is_power_of_two() {
        align.trailing_zeros() as u8
    } else {
        0
    };
    thread::record(kind, block as usize, size, align_log2);
}

/// C `malloc`.
///
/// # Safety
/// None beyond those of any foreign function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_malloc(size: usize) -> *mut c_void {
    // SAFETY: malloc accepts any size.
    let block = unsafe { __real_malloc(size) };
    allocated(Kind::Malloc, block, size, 0);
    block
}

/// C `calloc`.
///
/// # Safety
/// None beyond those of any foreign function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: calloc accepts any arguments.
    let block = unsafe { __real_calloc(count, size) };
    allocated(Kind::Calloc, block, count.saturating_mul(size), 0);
    block
}

/// C `free`.
///
/// # Safety
/// `block` must be null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_free(block: *mut c_void) {
    if !block.is_null() {
        // Before the call: afterwards another thread may have the block already.
        large::leaves(block as usize);
        thread::record(Kind::Free, block as usize, 0, 0);
    }
    // SAFETY: the caller's promise is passed on.
    unsafe { __real_free(block) }
}

/// C `realloc`.
///
/// # Safety
/// `block` must be null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise is passed on.
    unsafe { reallocate(block, size, Kind::ReallocEnd) }
}

/// `reallocarray`, by realloc: the C library's own comes back through it and would be recorded twice.
///
/// # Safety
/// `block` must be null or a live block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_reallocarray(
    block: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        thread::record(Kind::FailedAlloc, 0, usize::MAX, 0);
        // SAFETY: errno is a thread-local integer.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise is passed on.
    unsafe { reallocate(block, bytes, Kind::ReallocArrayEnd) }
}

/// # Safety
/// As for C `realloc`: `block` is null or a live block.
#[inline(always)]
unsafe fn reallocate(block: *mut c_void, size: usize, end: Kind) -> *mut c_void {
    let before = large::resizes(block as usize, size);
    thread::record(Kind::ReallocBegin, block as usize, 0, 0);
    // SAFETY: the caller's promise is passed on.
    let new = unsafe { __real_realloc(block, size) };
    if new.is_null() && size > 0 {
        before.stays(block as usize);
    } else if size >= large::LARGE_BYTES {
        // SAFETY: nothing is said of its contents but for a fresh block, whose contents mean nothing.
        unsafe { before.becomes(new as usize, size, block.is_null().then_some(0)) };
    }
    thread::record(end, new as usize, size, 0);
    new
}

/// C11 `aligned_alloc`.
///
/// # Safety
/// None beyond those of any foreign function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // SAFETY: the allocator checks the arguments as its own interface says.
    let block = unsafe { __real_aligned_alloc(align, size) };
    allocated(Kind::AlignedAlloc, block, size, align);
    block
}

/// `memalign`.
///
/// # Safety
/// None beyond those of any foreign function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_memalign(align: usize, size: usize) -> *mut c_void {
    // SAFETY: the allocator checks the arguments as its own interface says.
    let block = unsafe { __real_memalign(align, size) };
    allocated(Kind::Memalign, block, size, align);
    block
}

/// POSIX `posix_memalign`.
///
/// # Safety
/// `out` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_posix_memalign(
    out: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise about `out` is passed on; it was written where the status is 0.
    unsafe {
        let status = __real_posix_memalign(out, align, size);
        let block = if status == 0 { *out } else { ptr::null_mut() };
        allocated(Kind::PosixMemalign, block, size, align);
        status
    }
}

/// Names this instant, as `include/heaplab.h` of the recorder declares it.
///
/// # Safety
/// `name` must be null or a zero-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_mark(name: *const c_char) {
    const MOST: usize = 400;
    if name.is_null() {
        return;
    }
    // SAFETY: zero-terminated, as the caller promises.
    let name = unsafe { core::ffi::CStr::from_ptr(name) }.to_bytes();
    member::record_with_text(name.get(..MOST).unwrap_or(name), Kind::Mark, 0, 0);
}

extern "C" fn start() {
    member::attach();
    if session::mode() == session::RECORDING {
        member::register_fork_handler();
    }
}

extern "C" fn end() {
    if session::mode() == session::RECORDING {
        large::tell_all();
        member::record_always(Kind::Exit, 0, 0);
        chunks::hand_over();
    }
}

// Named, so that `link.options` can ask the linker for them: an archive's object that nothing refers to is left out.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".init_array")]
static HEAPLAB_LINKED_START: extern "C" fn() = start;

#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".fini_array")]
static HEAPLAB_LINKED_END: extern "C" fn() = end;

// The unoptimised `core` names the personality routine of unwinding, which is never entered (`panic = "abort"`). Weak, so
// that a C++ or Rust part of the program may bring its own.
core::arch::global_asm!(
    ".pushsection .text.heaplab_no_unwinding,\"ax\",@progbits",
    ".weak rust_eh_personality",
    ".type rust_eh_personality, @function",
    "rust_eh_personality:",
    "ud2",
    ".size rust_eh_personality, 2",
    ".popsection",
);
