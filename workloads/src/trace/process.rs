//! The processes of a recording. An image is what the rest of the format calls a process: exec keeps the number that the
//! system gives, but begins a new heap.

use serde::{Deserialize, Serialize};

/// How a process came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// It is the program that was asked for.
    #[default]
    First,
    /// fork: it has a copy of its parent's blocks.
    Fork,
    /// It replaced its parent by exec: same process id, nothing of the heap left.
    Exec,
    /// A new program in a new process: posix_spawn, vfork or fork followed by exec.
    Spawn,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessInfo {
    /// Its number in the trace, dense from 0 in a final trace.
    pub process: u32,
    /// The system's id.
    pub pid: u32,
    /// Number of the process that started it, or that it was before exec.
    pub parent: Option<u32>,
    /// How it came to be.
    pub start: Start,
    /// Of a fork: its parent's events do not say when (a bare clone); it was just before its first event.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cloned: bool,
    /// Of a fork in a part of a recording: the part does not hold the moment of the fork, so the process stands for itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
    /// File that was executed. Dropped by `anonymise`.
    pub program: String,
    /// Its arguments, as far as 800 bytes go. Dropped by `anonymise`.
    pub argv: Vec<String>,
    /// Nanoseconds since the recording began.
    pub start_ns: u64,
    /// Nanoseconds of its end, where it was seen.
    pub end_ns: Option<u64>,
}

impl ProcessInfo {
    /// The program's file name; empty when it is not known.
    pub fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or_default()
    }
}

/// A process in the summary: who it is and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessCounts {
    /// Who it is.
    #[serde(flatten)]
    pub info: ProcessInfo,
    /// Threads that had events.
    pub threads: u32,
    /// Events.
    pub events: u64,
    /// Allocating calls that succeeded.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Resizes of a block; 0 in files of older versions.
    pub reallocs: u64,
    /// Bytes requested, reallocs with their whole new size.
    pub bytes_allocated: u64,
    /// Largest sum of requested bytes alive, without inherited blocks that it never touched.
    pub peak_live_bytes: u64,
    /// Requested bytes alive at its end.
    pub end_live_bytes: u64,
    /// Blocks alive at its end.
    pub end_live_blocks: u64,
    /// Forked processes that touched inherited blocks: offset of the FORK chunk that says which they were.
    pub fork_offset: Option<u64>,
}
