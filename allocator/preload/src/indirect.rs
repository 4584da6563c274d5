//! Allocation in resolvers of indirect functions (IFUNC), which the loader calls while it relocates the program: the program's
//! thread-local storage is there and all zeros, and gets its first values only when everything is relocated.
//!
//! A slot of zeros would be followed to nowhere, and no fast path looks for it. So this library has an indirect function
//! itself. The loader relocates a library before what needs it, and indirect functions after everything else of their object,
//! so the resolver here finds the library relocated and is called before any of the program's: it writes what the slots
//! will hold anyway. That the real values are still to come the allocator sees by a word of its own (`spanalloc::tls`), and
//! gives no thread a cache until then.
//!
//! A library that does not need this one is relocated earlier than it is, and can call no `malloc` here from a resolver.

use core::arch::global_asm;

global_asm!(
    // Among the first code, as every start comes here.
    ".pushsection .text.malloc,\"ax\",@progbits",
    ".hidden __spanalloc_before_tls",
    ".globl __spanalloc_before_tls",
    ".type __spanalloc_before_tls,@gnu_indirect_function",
    "__spanalloc_before_tls:",
    ".cfi_startproc",
    "endbr64",
    "lea rax, [rip + {empty}]",
    "mov rcx, qword ptr [rip + __spanalloc_cache_slot@GOTTPOFF]",
    // The thread's cache, and that of the data partition.
    "mov qword ptr fs:[rcx], rax",
    "mov qword ptr fs:[rcx + 16], rax",
    // What it resolves to is asked for by nobody.
    "ret",
    ".cfi_endproc",
    ".size __spanalloc_before_tls, . - __spanalloc_before_tls",
    ".popsection",
    empty = sym spanalloc::tls::EMPTY,
);

unsafe extern "C" {
    fn __spanalloc_before_tls();
}

/// An address that the loader has to ask the resolver for.
#[used]
static RESOLVED: unsafe extern "C" fn() = __spanalloc_before_tls;
