//! What `operator new` does without memory: calls the program's new handler as long as there is one,
//! then throws `std::bad_alloc` (C++ standard, [new.delete.single]).
//!
//! Rust cannot throw through its own frames, so the loop is in assembly with unwind information of its
//! own, entered by a jump: an exception thrown by the handler or by us passes through one foreign frame
//! and none of Rust's. Handler and exception belong to the C++ library, which is found when it is
//! needed; a process without one (C calling these names) ends with a line that says so.

use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use spanalloc::alloc;
use spanalloc::fault::die_out_of_memory;

/// The C++ library whose handler and exceptions are meant.
const LIBRARY: &CStr = c"libstdc++.so.6";
/// `std::get_new_handler()` and `std::__throw_bad_alloc()`.
const GET_HANDLER: &CStr = c"_ZSt15get_new_handlerv";
const THROW: &CStr = c"_ZSt17__throw_bad_allocv";

core::arch::global_asm!(
    ".pushsection .text.spanalloc_new_failed,\"ax\",@progbits",
    ".balign 16",
    ".hidden spanalloc_new_failed",
    ".globl spanalloc_new_failed",
    ".type spanalloc_new_failed,@function",
    "spanalloc_new_failed:",
    ".cfi_startproc",
    "push rbx",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_offset rbx, -16",
    "push r12",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_offset r12, -24",
    "sub rsp, 8",
    ".cfi_adjust_cfa_offset 8",
    "mov rbx, rdi",
    "mov r12, rsi",
    "2:",
    "call {handler}",
    "test rax, rax",
    "jz 3f",
    "call rax",
    "mov rdi, rbx",
    "mov rsi, r12",
    "call {again}",
    "test rax, rax",
    "jz 2b",
    ".cfi_remember_state",
    "add rsp, 8",
    ".cfi_adjust_cfa_offset -8",
    "pop r12",
    ".cfi_adjust_cfa_offset -8",
    "pop rbx",
    ".cfi_adjust_cfa_offset -8",
    "ret",
    ".cfi_restore_state",
    "3:",
    "mov rdi, rbx",
    "call {thrower}",
    "call rax",
    "ud2",
    ".cfi_endproc",
    ".size spanalloc_new_failed, . - spanalloc_new_failed",
    ".popsection",
    handler = sym handler,
    again = sym again,
    thrower = sym thrower,
);

unsafe extern "C" {
    /// The rest of `operator new(size, align)` after the first attempt failed. Returns a block or
    /// throws; to be called in tail position only.
    pub(crate) fn spanalloc_new_failed(size: usize, align: usize) -> *mut c_void;
}

/// A function of the C++ library that this process has loaded, null if it has none.
fn find(name: &CStr) -> *mut c_void {
    // SAFETY: C strings; NOLOAD only looks for what is loaded already, by whomever.
    unsafe {
        let library = libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        let mut found = null_mut();
        if !library.is_null() {
            found = libc::dlsym(library, name.as_ptr());
            libc::dlclose(library);
        }
        if found.is_null() {
            found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        }
        found
    }
}

/// The present new handler, null if there is none.
extern "C" fn handler() -> *mut c_void {
    let get = find(GET_HANDLER);
    if get.is_null() {
        return null_mut();
    }
    // SAFETY: the function has this signature and does not throw.
    unsafe { core::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(get)() }
}

extern "C" fn again(size: usize, align: usize) -> *mut c_void {
    alloc::allocate_aligned(align, size).cast()
}

/// The function that throws `std::bad_alloc`. Does not return when there is none.
extern "C" fn thrower(size: usize) -> *mut c_void {
    let throw = find(THROW);
    if throw.is_null() {
        die_out_of_memory("operator new", size);
    }
    throw
}

/// The rest of a nothrow `operator new` after the first attempt failed. With a handler the C++
/// library's own version does it, because only C++ can catch what the handler throws.
#[cold]
pub(crate) fn nothrow_failed(size: usize, align: usize, tag: *const c_void) -> *mut c_void {
    if handler().is_null() {
        return null_mut();
    }
    // SAFETY: the functions have these signatures and throw nothing; they call our throwing forms.
    unsafe {
        let library = libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() {
            return null_mut();
        }
        let block = if align == 1 {
            match libc::dlsym(library, c"_ZnwmRKSt9nothrow_t".as_ptr()) {
                null if null.is_null() => null_mut(),
                new => core::mem::transmute::<
                    *mut c_void,
                    extern "C" fn(usize, *const c_void) -> *mut c_void,
                >(new)(size, tag),
            }
        } else {
            match libc::dlsym(library, c"_ZnwmSt11align_val_tRKSt9nothrow_t".as_ptr()) {
                null if null.is_null() => null_mut(),
                new => core::mem::transmute::<
                    *mut c_void,
                    extern "C" fn(usize, usize, *const c_void) -> *mut c_void,
                >(new)(size, align, tag),
            }
        };
        libc::dlclose(library);
        block
    }
}
