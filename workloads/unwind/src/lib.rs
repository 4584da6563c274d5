//! Unwinding x86-64 stacks inside `malloc`: no allocation, no lock, no library call, no unsafe code.
//!
//! Compiled code says in `.eh_frame` how to find its caller's frame at every instruction (System V
//! ABI for x86-64, DWARF 5 section 6.4, LSB `.eh_frame_hdr`). [`row`] looks that up for one address
//! and packs it into a word that the caller caches; [`walk`] goes from frame to frame by such words.
//! Code without tables (made at run time, old assembly) is walked by its frame pointer. [`Shadow`] remembers
//! the last walk, so that the next one is short.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod cfi;
mod hash;
mod reader;
mod row;
mod shadow;
mod walk;

pub use cfi::row;
pub use hash::{OuterHash, StackHash};
pub use row::Row;
pub use shadow::{REMEMBERED, Shadow};
pub use walk::{Registers, Stack, Walked, step, walk};

/// Memory that unwind tables are read from: the mapping of one module.
pub trait Memory {
    /// The `N` bytes at `address`; `None` when they are not all inside.
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]>;
}
