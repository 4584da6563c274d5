//! What the libraries have in common that are preloaded into unmodified programs: such a library is its own root, without `std`.
#![no_std]

pub mod calls;
pub mod process_file;

/// Nothing panics on purpose; a defect must not unwind into the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort never returns and is allowed in any state.
    unsafe { libc::abort() }
}

// The unoptimised `core` names the personality routine of unwinding, which is never entered (`panic = "abort"`). Hidden, so
// that it cannot stand in for a program's own.
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
