//! `libheaplab_recorder.so`: records every allocation of an unmodified program.
//!
//! Loaded by LD_PRELOAD, it stands in front of the malloc family, calls the next library's
//! function and writes one 16-byte record for it into shared memory (`heaplab-ring`); the drainer,
//! another process, does everything else. In the program it takes no lock, allocates nothing,
//! starts no thread and touches neither errno nor the program's signals.
//!
//! [`hooks`] are the exported functions of C, [`operators`] those of C++, [`real`] finds the next
//! library's functions, [`process`] is what the program says about itself, [`own`] what an allocator of the program's own
//! reports, [`mappings`] the calls below an allocator, [`deepbind`] libraries that are bound past it, [`musl`] what differs on that C library, `stacks` the part of the build that captures stacks; `heaplab-hook`
//! joins the session and writes. What is recorded and what is
//! not stands in this folder's README.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")))]
compile_error!(
    "the recorder supports Linux on x86-64 as a library for glibc, which musl loads as well"
);

use heaplab_hook::member;
use heaplab_preloaded as _;

mod deepbind;
mod hooks;
mod mappings;
mod musl;
mod operators;
mod own;
mod process;
mod real;
#[cfg(feature = "stacks")]
mod stacks;

/// Runs before main, usually before any other constructor that allocates: everything that may
/// be done lazily at the first event is done here when no event came earlier.
extern "C" fn constructor() {
    real::resolve();
    process::resolve();
    #[cfg(feature = "stacks")]
    stacks::resolve();
    member::attach();
    process::follow_forks();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = process::at_exit;
