//! The recorded program's side of a recording.
//!
//! [`session`] finds the session and follows forks, [`thread`] is the hot path and a thread's
//! chunks, [`tls`] the thread's state, [`large`] how much of large blocks is written. Whoever stands in front of an allocator calls
//! [`thread::record`] for each call; nothing here knows the malloc family.
#![no_std]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("heaplab records on Linux on x86-64 only");

pub mod large;
pub mod session;
pub mod thread;
pub mod tls;
