//! The script file: what is known about it, its global order, its writer and its mapped reader.
//!
//! ```text
//! ScriptWriter::create(path, thread_count) -> push(thread, op) … order(thread, count) … finish(ScriptInfo)
//! Script::open(path) -> threads() -> &[Op], order() -> &[Run], info()
//! Script::open_windowed(path) -> cursor(thread) -> part after part, runs() -> run after run, in bounded memory
//! ```
//!
//! Layout, all numbers little endian:
//!
//! | part | bytes |
//! |---|---|
//! | header | 192: magic `HLSCRIPT`, version, counts, offsets of all parts, [`ScriptInfo`], a hash of the header |
//! | thread table | 24 per thread: offset of its ops, number of its ops, who starts it, whether it stays to the end |
//! | ops | one array of 16-byte [`crate::Op`] per thread, each at a multiple of 64 |
//! | order | 8-byte [`Run`]s, at a multiple of 64 |
//! | times | only where the writer was given them: a u64 for each op, nanoseconds since the beginning, thread after thread |
//! | phases | for each name: length (u32), UTF-8 bytes |
//!
//! A thread that no `ThreadStart` op names exists from the beginning: it is started together with thread 0.

pub use crate::cursor::{Cursor, Part, Runs};
pub use crate::reader::Script;
pub use crate::writer::ScriptWriter;

/// One run of the global order: `count` consecutive ops of `thread`. `#[repr(C)]`, 8 bytes, mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Run {
    /// Index of the thread in the script.
    pub thread: u32,
    /// How many of its ops come next (≥ 1).
    pub count: u32,
}

/// What is known about a script without reading its ops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptInfo {
    /// Calls of the malloc family, all threads.
    pub calls: u64,
    /// Allocating calls (malloc, calloc, aligned).
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Reallocs.
    pub reallocs: u64,
    /// Slots of the table. Slots `0..private_slots` are used by one thread only (at a time) and lie dense, in
    /// ranges per thread that start on a cache line; the remaining ones are shared and get a cache line each.
    pub private_slots: u32,
    /// Slots that cross threads.
    pub shared_slots: u32,
    /// Largest sum of requested bytes alive, following the global order.
    pub peak_live_bytes: u64,
    /// Largest number of blocks alive, following the global order.
    pub peak_live_blocks: u64,
    /// Sum of all `Idle` ops, nanoseconds: what a replay sleeps.
    pub idle_ns: u64,
    /// Recorded idle time that the compiler left out, nanoseconds (0 for models).
    pub idle_dropped_ns: u64,
    /// 64-bit hash over all ops (thread by thread, in segments of 1 MiB) and the order: "same script, byte for byte".
    pub checksum: u64,
}
