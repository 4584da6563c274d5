//! The exported allocating functions: each leaves an [`super::state::Entry`] with its caller's
//! frame on the stack, where the walk begins, and calls the hook. Assembly, because the compiler
//! promises nothing about the caller's rbp once a function of its own runs.
//!
//! Entries are linked from the inner to the outer, so that a signal handler that allocates leaves
//! the thread's entry as it was. A handler that jumps out leaves a stale one, which the next call replaces.

use core::arch::naked_asm;

use crate::hooks;

macro_rules! entries {
    ($($name:ident)*) => {$(
        /// The C function with this name; `hooks` has the meaning.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "mov rax, qword ptr [rip + heaplab_recorder_stacks@GOTTPOFF]",
                "push qword ptr fs:[rax]",
                ".cfi_adjust_cfa_offset 8",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "mov qword ptr fs:[rax], rsp",
                "call {hook}",
                "mov rcx, qword ptr [rip + heaplab_recorder_stacks@GOTTPOFF]",
                "mov rdx, qword ptr [rsp + 16]",
                "mov qword ptr fs:[rcx], rdx",
                "add rsp, 24",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_endproc",
                hook = sym hooks::$name,
            )
        }
    )*};
}

entries! {
    malloc calloc realloc reallocarray aligned_alloc memalign posix_memalign valloc pvalloc
}
