//! The script file: writer and mapped reader. (Interface first; owned by the workloads part.)
//!
//! ```text
//! ScriptWriter::create(path, thread_count) -> push(thread, op) … order(thread, count) … finish(ScriptInfo)
//! Script::open(path) -> threads() -> &[Op], order() -> &[Run], info()
//! ```

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
    /// FNV-1a 64 over all ops (thread by thread) and the order: "same script, byte for byte".
    pub checksum: u64,
}
