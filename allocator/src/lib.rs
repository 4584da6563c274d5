//! spanalloc: a general-purpose memory allocator in TCMalloc's three tiers.
//!
//! *Front end*: a cache per thread. *Middle tier*: per size class a transfer cache of batches and
//! a central free list of spans. *Back end*: a page heap. `docs/DESIGN.md` follows one allocation
//! through all of them. Linux on x86-64 only.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
//!
//! let text = String::from("lives in a 16-byte block");
//! assert!(spanalloc::stats().in_use_bytes > 0);
//! # drop(text);
//! ```
//!
//! Modules stand in the order of their layers: each uses only those above it in this list.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod units;

#[cfg(not(loom))]
pub mod size_class;

pub mod lookup;

#[cfg(not(loom))]
pub mod os;

pub mod plant;

pub mod published;

pub mod registry;

pub mod sync;

pub mod on_duty;

#[cfg(not(loom))]
pub mod fault;

#[cfg(not(loom))]
mod mark;

pub mod span;

pub mod page_map;

#[cfg(not(loom))]
pub mod metadata;

#[cfg(not(loom))]
pub mod run_lists;

#[cfg(not(loom))]
pub mod limits;

#[cfg(not(loom))]
pub mod page_heap;

#[cfg(not(loom))]
pub mod scavenger;

pub mod continued;

#[cfg(not(loom))]
pub mod central;

#[cfg(not(loom))]
mod holes;

#[cfg(not(loom))]
mod joining;

pub mod transfer_cache;

#[cfg(not(loom))]
pub mod heap;

#[cfg(not(loom))]
pub mod idle;

#[cfg(not(loom))]
mod lending;

#[cfg(all(test, not(loom)))]
pub mod check;

#[cfg(not(loom))]
pub mod walk;

#[cfg(not(loom))]
mod cutting;

#[cfg(not(loom))]
pub mod thread_cache;

#[cfg(not(loom))]
mod process;

#[cfg(all(test, not(loom)))]
mod heap_tests;

#[cfg(all(test, not(loom)))]
mod mechanism_tests;

#[cfg(all(test, not(loom)))]
mod model_tests;

#[cfg(not(loom))]
pub mod tls;

#[cfg(not(loom))]
pub mod config;

#[cfg(not(loom))]
pub mod hardened;

#[cfg(not(loom))]
pub mod profile;

#[cfg(not(loom))]
pub mod alloc;

#[cfg(not(loom))]
mod partition;

#[cfg(not(loom))]
pub mod tiny;

#[cfg(not(loom))]
pub mod rseq;

#[cfg(not(loom))]
mod cpu_cache;

#[cfg(not(loom))]
mod slow_path;

#[cfg(not(loom))]
pub mod last_look;

#[cfg(not(loom))]
pub mod front_end;

#[cfg(not(loom))]
pub mod helper;

#[cfg(not(loom))]
pub mod thread;

#[cfg(not(loom))]
pub mod vfork;

#[cfg(not(loom))]
pub mod stats;

#[cfg(not(loom))]
pub mod dump;

#[cfg(not(loom))]
mod on_signal;

#[cfg(not(loom))]
mod global;

#[cfg(not(loom))]
pub use global::SpanAlloc;

#[cfg(not(loom))]
pub use alloc::{Trimmed, set_limits, trim};

#[cfg(not(loom))]
pub use partition::DataAlloc;

#[cfg(not(loom))]
pub use tiny::TinyAlloc;

#[cfg(not(loom))]
pub use walk::walk;

#[cfg(not(loom))]
pub use stats::{Stats, stats};
