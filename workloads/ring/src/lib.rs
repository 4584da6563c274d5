//! The shared-memory session between a recorded program and the drainer.
//!
//! One file of fixed size (a memfd by default) is mapped by both sides. The program's threads
//! write fixed-size records into *chunks* that they own one at a time; the drainer, another
//! process, reads them while they are being filled and hands empty chunks back. Nothing in the
//! program has to be flushed: a record is committed by the single store of its last word, so a
//! program that is killed at any instant leaves every committed record readable.
//!
//! This crate owns the layout ([`layout`]), the protocol ([`pool`], [`record`]), the mapping
//! ([`map`]) and the few raw system calls both need ([`sys`]). It allocates nothing, calls no
//! libc function and knows neither the malloc family nor the trace format. The protocol is
//! described, with its invariants, in this folder's README.
#![cfg_attr(not(any(test, loom)), no_std)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("heaplab records on Linux on x86-64 only");

pub mod clock;
pub mod layout;
#[cfg(not(loom))]
pub mod map;
#[cfg(loom)]
pub mod model;
pub mod pool;
pub mod record;
pub mod sampler;
pub mod stack;
mod sync;
#[cfg(not(loom))]
pub mod sys;

pub use layout::{CHUNK_BYTES, Chunk, Control, RECORDS_PER_CHUNK, Slot};
#[cfg(not(loom))]
pub use map::{Mapping, SessionConfig};
pub use pool::{Pool, SlotInfo, SlotState};
pub use record::{Kind, Record, RecordView};

/// Blocks of so many bytes and more are *large*: it is told of them how much the program has written.
pub const LARGE_BYTES: usize = 16 * 1024;
/// Of blocks of so many bytes up to [`LARGE_BYTES`] it is told at most that they were never written to, and that of a process's first
/// ones alone.
pub const EARLY_BYTES: usize = 512;

/// The environment variable that carries a session to the recorded program:
/// `<fd>:<nonce in hex>:<path>`; the path serves when the descriptor was closed.
pub const SESSION_VARIABLE: &str = "HEAPLAB_SESSION";
