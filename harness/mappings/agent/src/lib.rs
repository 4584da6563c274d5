//! `libheaplab_mappings_agent.so`: notes which memory an unmodified program maps by itself, beside what its allocator maps.
//!
//! Loaded by LD_PRELOAD in front of the subject. It stands before the C library's calls for mappings and keeps the private anonymous
//! ones of the program as ranges in a file that the harness reads (`heaplab_mappings`). Whose a mapping is, the return address
//! tells: the subject's where it lies in the subject's library, else the program's. What the C library maps itself (its malloc,
//! stacks of threads) does not come through here, nor does what is mapped by a system call without it.
//!
//! Everything here may run in the middle of an allocation, in any thread and in a signal handler: nothing allocates or looks up
//! a symbol, and a lock is never waited for by whoever holds it.
#![no_std]

mod begin;
mod calls;
mod table;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
compile_error!("the agent supports Linux on x86-64 with glibc only");

/// A program that maps nothing has its file, too: that it is empty is then known.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    begin::once();
}
