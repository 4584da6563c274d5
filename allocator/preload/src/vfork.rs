//! `vfork`: the C library's, and word for the allocator of who is the child (`spanalloc::vfork`).
//!
//! The child returns first and uses the stack from there on, so the parent must not need anything on it but what is above
//! the return address: that one is kept in a register while the system call is made, and put back by each of the two.

use core::arch::naked_asm;
use core::ffi::c_int;

/// Largest number that a system call returns for an error, as an address.
const LAST_ERROR: i64 = -4095;

/// As `vfork(2)`.
///
/// # Safety
/// The child may not return from the function that called this, as POSIX says. (The heap it may use.)
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfork() -> c_int {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {before}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        // The kernel keeps both registers.
        "mov rsi, rax",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_register rip, rdi",
        "mov eax, {number}",
        "syscall",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_offset rip, -8",
        "push rax",
        ".cfi_adjust_cfa_offset 8",
        "cmp rax, {last_error}",
        "jae 3f",
        "test eax, eax",
        "jnz 2f",
        "call {enter}",
        "jmp 4f",
        "2:",
        "mov rdi, rsi",
        "call {leave}",
        "jmp 4f",
        "3:",
        "call {errno}",
        "mov ecx, dword ptr [rsp]",
        "neg ecx",
        "mov dword ptr [rax], ecx",
        "mov qword ptr [rsp], -1",
        "4:",
        "pop rax",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        before = sym spanalloc::vfork::before,
        enter = sym spanalloc::vfork::enter,
        leave = sym spanalloc::vfork::leave,
        errno = sym libc::__errno_location,
        number = const libc::SYS_vfork,
        last_error = const LAST_ERROR,
    )
}
