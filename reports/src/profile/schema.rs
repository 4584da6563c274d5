//! `profile.json`; `docs/profile.schema.json` is its JSON schema, `docs/PROFILE.md` says what the words mean.

use crate::schema::Better;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Name and version of the schema.
pub const PROFILE_SCHEMA: &str = "heaplab.profile/1";

/// A whole profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`PROFILE_SCHEMA`].
    pub schema: String,
    /// Version of heaplab that wrote it.
    pub heaplab: String,
    /// Program and arguments; empty when the trace does not say.
    pub program: Vec<String>,
    /// When it was recorded, RFC 3339; empty when the trace does not say.
    pub recorded: String,
    /// Nothing is missing in the trace.
    pub complete: bool,
    /// What is missing, in words.
    pub missing: Vec<String>,
    /// The user's own metrics of the recorded run (`--metric`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measured>,
    /// How stacks were chosen.
    pub sampling: Sampling,
    /// A block is short-lived when it is freed before its thread makes this many further allocations.
    pub short_lived_within: u64,
    /// Exact sums over the whole program.
    pub totals: Totals,
    /// The program's own calls, the largest at the peak first.
    pub sites: Vec<Site>,
    /// What is known of files of code.
    pub modules: Vec<ModuleNames>,
    /// Calls, by index.
    pub frames: Vec<Location>,
    /// Stacks.
    pub stacks: Vec<StackCosts>,
}

/// A metric of the user's own in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name.
    pub name: String,
    /// Unit, as the user writes it.
    pub unit: String,
    /// Which direction is good.
    pub better: Better,
    /// Value.
    pub value: f64,
}

/// How stacks were chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// `full` or `sampled`.
    pub mode: String,
    /// Mean distance of samples in bytes, when sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_bytes: Option<u32>,
    /// Allocations that brought their stacks.
    pub samples: u64,
}

/// Exact sums over the whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Allocations, resizes included.
    pub allocations: u64,
    /// Bytes requested by them.
    pub bytes: u64,
    /// Largest sum of live bytes.
    pub peak_bytes: u64,
    /// Blocks alive then.
    pub peak_blocks: u64,
    /// When that was, nanoseconds since the recording began.
    pub peak_ns: u64,
    /// Blocks alive at the end of their process.
    pub leaked_blocks: u64,
    /// Their bytes.
    pub leaked_bytes: u64,
    /// Short-lived blocks.
    pub short_lived_blocks: u64,
    /// Their bytes.
    pub short_lived_bytes: u64,
    /// From the begin of the recording to the last event, nanoseconds.
    pub duration_ns: u64,
}

/// A sum, and how sure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    /// The sum, or its estimate.
    pub value: f64,
    /// Half the width of its 95 % interval; 0 when it is exact.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub error95: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl AddAssign for Amount {
    /// Errors of independent samples add by their squares.
    fn add_assign(&mut self, other: Self) {
        self.value += other.value;
        self.error95 = self.error95.hypot(other.error95);
    }
}

/// What a stack or a site has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Allocations that brought this stack.
    pub samples: u64,
    /// Allocations, resizes included.
    pub allocations: Amount,
    /// Bytes requested by them.
    pub bytes: Amount,
    /// Blocks alive at the program's peak.
    pub peak_blocks: Amount,
    /// Bytes alive at the program's peak.
    pub peak_bytes: Amount,
    /// Blocks alive at the end of their process.
    pub leaked_blocks: Amount,
    /// Bytes alive at the end of their process.
    pub leaked_bytes: Amount,
    /// Short-lived blocks.
    pub short_lived_blocks: Amount,
    /// Bytes of short-lived blocks.
    pub short_lived_bytes: Amount,
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
        self.peak_blocks += other.peak_blocks;
        self.peak_bytes += other.peak_bytes;
        self.leaked_blocks += other.leaked_blocks;
        self.leaked_bytes += other.leaked_bytes;
        self.short_lived_blocks += other.short_lived_blocks;
        self.short_lived_bytes += other.short_lived_bytes;
    }
}

/// A call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// Function; `module+0xaddress` where no name is known.
    pub function: String,
    /// Source file; empty when unknown.
    pub file: String,
    /// Line; 0 when unknown.
    pub line: u32,
    /// File name of the module; empty for code in none.
    pub module: String,
}

impl Location {
    /// `file.c:12`, or the module where no line is known.
    pub fn place(&self) -> String {
        match (self.file.is_empty(), self.line) {
            (true, _) => self.module.clone(),
            (false, 0) => self.file.clone(),
            (false, line) => format!("{}:{line}", self.file),
        }
    }
}

/// A call of the program's own, with all that was allocated below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Where.
    #[serde(flatten)]
    pub location: Location,
    /// The function of a library that it called to allocate; empty when it called the allocator itself.
    pub via: String,
    /// What it has.
    #[serde(flatten)]
    pub costs: Costs,
}

/// What is known of a file of code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleNames {
    /// Path when recorded.
    pub path: String,
    /// The linker's build id, hexadecimal.
    pub build_id: String,
    /// `lines`, `functions`, or `nothing: <why>`.
    pub names: String,
}

/// A stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StackCosts {
    /// Indices of its calls, the outermost first.
    pub frames: Vec<u32>,
    /// What it has.
    #[serde(flatten)]
    pub costs: Costs,
}

/// What can be ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Bytes alive at the peak.
    Peak,
    /// Bytes allocated.
    Allocated,
    /// Short-lived blocks.
    ShortLived,
    /// Bytes alive at the end.
    Leaked,
}

impl Metric {
    /// All, in the order in which they are shown.
    pub const ALL: [Metric; 4] = [
        Metric::Peak,
        Metric::Allocated,
        Metric::ShortLived,
        Metric::Leaked,
    ];

    /// Part of file names.
    pub fn stem(self) -> &'static str {
        match self {
            Metric::Peak => "peak",
            Metric::Allocated => "allocated",
            Metric::ShortLived => "short-lived",
            Metric::Leaked => "leaked",
        }
    }

    /// The amount that is ranked.
    pub fn of(self, costs: &Costs) -> Amount {
        match self {
            Metric::Peak => costs.peak_bytes,
            Metric::Allocated => costs.bytes,
            Metric::ShortLived => costs.short_lived_blocks,
            Metric::Leaked => costs.leaked_bytes,
        }
    }

    /// What stands beside it: blocks for bytes, bytes for blocks.
    pub fn beside(self, costs: &Costs) -> Amount {
        match self {
            Metric::Peak => costs.peak_blocks,
            Metric::Allocated => costs.allocations,
            Metric::ShortLived => costs.short_lived_bytes,
            Metric::Leaked => costs.leaked_blocks,
        }
    }

    /// The exact sum over the program.
    pub fn total(self, totals: &Totals) -> u64 {
        match self {
            Metric::Peak => totals.peak_bytes,
            Metric::Allocated => totals.bytes,
            Metric::ShortLived => totals.short_lived_blocks,
            Metric::Leaked => totals.leaked_bytes,
        }
    }

    /// The ranked amount is in bytes (else in blocks).
    pub fn is_bytes(self) -> bool {
        self != Metric::ShortLived
    }
}
