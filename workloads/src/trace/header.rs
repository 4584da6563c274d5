//! What is said once about a recording: where it was made, of what, and how it ended.

use serde::{Deserialize, Serialize};

/// The machine that a trace was recorded on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineShape {
    /// CPUs that the program could use.
    pub cpus: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Setting of transparent huge pages ("always", "madvise", "never").
    pub thp: String,
    /// Kernel release.
    pub kernel: String,
    /// C library and version.
    pub libc: String,
    /// CPU model name.
    pub cpu_model: String,
    /// Bytes that the control group allows, if there is a limit.
    pub memory_limit: Option<u64>,
}

/// What a recorder knows when it begins. Fields that a reader does not know are ignored, missing ones are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceHeader {
    /// When the recording began, UTC, RFC 3339.
    pub created: String,
    /// Program and version that wrote the file.
    pub tool: String,
    /// The machine's shape.
    pub machine: MachineShape,
    /// Allocator of the recorded program ("system", or the library that defined `malloc`).
    pub allocator: String,
    /// Program and arguments. Stored in a chunk of its own, which `anonymise` drops.
    #[serde(skip)]
    pub argv: Vec<String>,
}

/// What a recorder knows at the end. Absent in a file whose recording was cut off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FinishInfo {
    /// Events that the recorder had to drop (0 unless it was told to be lossy).
    pub lost_events: u64,
    /// Measured cost of the recorder's hook, nanoseconds an event.
    pub recorder_ns_per_event: Option<f64>,
    /// Its measurements differed from each other, or something else ran meanwhile.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recorder_ns_uncertain: bool,
    /// Exit status of the program, if it exited by itself.
    pub exit_status: Option<i32>,
    /// Signal that ended the program, if one did.
    pub signal: Option<i32>,
    /// Duration of the recording, nanoseconds.
    pub duration_ns: u64,
    /// CPU time of the program and its waited-for children, the recorder's cost in it, nanoseconds; from the kernel's
    /// accounts in steps of 10 ms.
    pub cpu_ns: Option<u64>,
}
