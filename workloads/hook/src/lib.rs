//! The recorded program's side of a recording.
//!
//! Each file uses those before it only: [`tls`] is the thread's state, [`session`] whether this process records and where
//! the pool of chunks is, [`chunks`] a thread's chunks and what is written into them, [`member`] joins, follows forks and
//! says what concerns the process, [`thread`] is the hot path, [`large`] how much of large blocks is written. Whoever stands in
//! front of an allocator calls [`thread::record`] for each call; nothing here knows the malloc family.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("heaplab records on Linux on x86-64 only");

pub mod chunks;
mod environment;
pub mod large;
pub mod member;
pub mod session;
pub mod thread;
pub mod tls;
