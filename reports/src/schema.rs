//! The result set as data: `result.json`, schema `heaplab.result/1`. Names follow the contract; adding a field is
//! compatible, removing or renaming one is not.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema string written by this version.
pub const SCHEMA: &str = "heaplab.result/1";

/// A whole result set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultSet {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The tool that wrote it.
    pub heaplab: Tool,
    /// Fingerprint of the machine.
    pub machine: Machine,
    /// The command line.
    pub command: Vec<String>,
    /// Seed of workloads and of the order of runs.
    pub seed: u64,
    /// UTC, RFC 3339.
    pub started: String,
    /// UTC, RFC 3339.
    pub finished: String,
    /// Allocators under test.
    pub subjects: Vec<Subject>,
    /// Name of the subject that `ratio_to_system` is taken against; absent in older sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// What is known of the workloads beside their figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<WorkloadFacts>,
    /// Rows.
    pub cells: Vec<Cell>,
    /// The harness's own cost.
    pub calibration: Calibration,
    /// Things a reader must know, one sentence each (noise, interruption, modes that change the result).
    #[serde(default)]
    pub notes: Vec<String>,
    /// Whether the plan was finished; `false` after Ctrl-C or an exhausted budget.
    #[serde(default = "yes")]
    pub complete: bool,
}

fn yes() -> bool {
    true
}

/// Version of heaplab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Semantic version.
    pub version: String,
    /// Commit it was built from, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Fingerprint of the machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name from `/proc/cpuinfo`.
    pub cpu: String,
    /// Online CPUs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// C library and version.
    pub libc: String,
    /// `/sys/kernel/mm/transparent_hugepage/enabled`, the active word.
    pub thp: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// SHA-256 over host-stable fields and boot id: equal only for the same host.
    pub host_id: String,
    /// Anything that may change results, name → value (governor, kdamond, virtualisation …).
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

/// An allocator under test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Label shown in rows.
    pub name: String,
    /// Version as read back from it.
    pub version: String,
    /// Library that was preloaded; empty for the system allocator.
    pub path: String,
    /// Of the library.
    pub sha256: String,
    /// Effective settings.
    pub settings: BTreeMap<String, String>,
    /// Its own statistics at the end, where it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_at_end: Option<serde_json::Value>,
    /// The same when the program was largest, for whole programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_at_peak: Option<serde_json::Value>,
    /// Modes that change results.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A workload's own facts, the same for every subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadFacts {
    /// Of what was run, as in the cells.
    pub workload_hash: String,
    /// Calls of one pass.
    pub ops: u64,
    /// Where it was recorded; absent for models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// The recording behind a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// CPUs that the program could use.
    pub cpus: u32,
    /// The allocator that it ran on: `system`, or what it brings.
    pub allocator: String,
    /// Program and arguments; empty in an anonymised trace.
    pub command: Vec<String>,
    /// CPU time of the program, seconds, the recorder's estimated cost left out; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<f64>,
}

/// State of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Measured.
    Ok,
    /// At least one run failed; `reason` says why.
    Failed,
    /// Not run; `reason` says why.
    Skipped,
}

/// One row: workload × subject × API × threads × machine shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Name of the workload, or the program's command line.
    pub workload: String,
    /// Hash of what was run (script checksum, or of the program and arguments), hexadecimal.
    pub workload_hash: String,
    /// Label of the subject.
    pub subject: String,
    /// `malloc`, `sized` or `program`.
    pub api: String,
    /// Threads of the workload.
    pub threads: u32,
    /// CPUs that the subject saw.
    pub cpus: u32,
    /// Huge-page setting of the run: `default`, `never`, `always`.
    pub thp: String,
    /// Memory limit of the run, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// State.
    pub status: Status,
    /// Why it failed or was skipped: one lower-case sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Metrics by name (unit in the name).
    pub metrics: BTreeMap<String, Metric>,
    /// Latency by op kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latency: BTreeMap<String, Latency>,
    /// Memory over progress, from the first block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// Which direction is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Smaller is better.
    Lower,
    /// Larger is better.
    Higher,
}

/// What `low` and `high` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntervalKind {
    /// An exact confidence interval of at least 95 %.
    Ci95,
    /// Smallest and largest sample (below 6 blocks).
    Range,
}

/// One metric of one cell with all its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// `ns`, `bytes`, `ratio`, `count`, `s`, `1/s`.
    pub unit: String,
    /// Direction.
    pub better: Better,
    /// Replay mode, `program` for whole programs.
    pub mode: String,
    /// Touch policy, `program` for whole programs.
    pub touch: String,
    /// Median of the samples.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// What the ends are.
    pub interval: IntervalKind,
    /// Every run.
    pub samples: Vec<Sample>,
    /// Paired with the system allocator of the same block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_to_system: Option<Ratio>,
}

/// One run's value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Block number, from 0: the unit of pairing.
    pub block: u32,
    /// Position within the block, from 0.
    pub order: u32,
    /// Value in the metric's unit.
    pub value: f64,
}

/// A paired ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median of the per-block ratios (Hodges–Lehmann or sample median; see the statistics module).
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Blocks in which both ran.
    pub pairs: u32,
}

/// Latency of one op kind, all threads and blocks merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Calls.
    pub count: u64,
    /// Nanoseconds; null below the clock's floor.
    pub p50_ns: Option<f64>,
    /// Nanoseconds; null below the clock's floor.
    pub p90_ns: Option<f64>,
    /// Nanoseconds; null below the clock's floor or with too few events.
    pub p99_ns: Option<f64>,
    /// Nanoseconds; null below the clock's floor or with too few events.
    pub p999_ns: Option<f64>,
    /// Nanoseconds; null below the clock's floor or with too few events.
    pub p9999_ns: Option<f64>,
    /// Nanoseconds.
    pub max_ns: f64,
    /// The clock's floor: no percentile below it is shown.
    pub floor_ns: f64,
    /// HdrHistogram V2 + deflate, base64.
    pub hdr: String,
    /// By size range and side of the free.
    pub by: Vec<LatencyPart>,
    /// Calls over 1 µs by cause: `fault`, `preemption`, `allocator`.
    #[serde(default)]
    pub slow: BTreeMap<String, u64>,
}

/// Latency of one size range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyPart {
    /// Upper end of the range, bytes; null = no upper end.
    pub size_le: Option<u64>,
    /// Freed by another thread than allocated it.
    pub remote: bool,
    /// Calls.
    pub count: u64,
    /// Nanoseconds; null below the clock's floor.
    pub p50_ns: Option<f64>,
    /// Nanoseconds.
    pub p99_ns: Option<f64>,
    /// Nanoseconds.
    pub p999_ns: Option<f64>,
    /// Nanoseconds.
    pub max_ns: f64,
    /// Calls over 1 µs by cause, as in [`Latency::slow`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slow: BTreeMap<String, u64>,
}

/// Memory over progress; all arrays have the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Calls done.
    pub ops: Vec<u64>,
    /// Nanoseconds since the start.
    pub time_ns: Vec<u64>,
    /// Requested and not yet freed.
    pub live_bytes: Vec<u64>,
    /// `malloc_usable_size` summed.
    pub usable_bytes: Vec<u64>,
    /// What occupies RAM, the worker's own share subtracted.
    pub resident_bytes: Vec<u64>,
    /// Lazily freed pages, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lazyfree_bytes: Option<Vec<u64>>,
}

/// Where the harness's own cost is a larger share of an op's time than this, the row is marked.
pub const HARNESS_SHARE: f64 = 0.25;

/// The harness's own cost, from the `null` subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Replay cost per op with the null allocator, nanoseconds, median; absent if it was not run.
    pub null_ns_per_op: Option<f64>,
    /// An empty pair of clock reads, nanoseconds; absent if neither latency nor speed was measured.
    pub timer_ns: Option<f64>,
    /// Anonymous resident bytes of a bare worker, subtracted from every memory figure.
    #[serde(default)]
    pub worker_baseline_bytes: u64,
    /// Null cost by workload.
    #[serde(default)]
    pub null_by_workload: BTreeMap<String, f64>,
    /// What writing to fresh blocks costs by workload, nanoseconds per op: the program's work, in every subject's time
    /// alike, not the harness's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub touching_by_workload: BTreeMap<String, f64>,
    /// An A/A pair, where one was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aa: Option<serde_json::Value>,
}

/// One line of `runs.jsonl`: a finished run, appended at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLine {
    /// Workload.
    pub workload: String,
    /// Subject label.
    pub subject: String,
    /// `speed`, `latency`, `memory`, `counts`, `program`.
    pub measure: String,
    /// Block.
    pub block: u32,
    /// Position within the block.
    pub order: u32,
    /// `malloc`, `sized` or `program`: with `threads` and `workload_hash` what tells two rows apart that share a
    /// workload's name, so that a resumed session continues the right one.
    #[serde(default)]
    pub api: String,
    /// Threads of the workload.
    #[serde(default)]
    pub threads: u32,
    /// Hash of what was run.
    #[serde(default)]
    pub workload_hash: String,
    /// `Ok` or `Failed`.
    pub status: Status,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the run answered, as the worker's (or the program runner's) JSON.
    pub answer: serde_json::Value,
}
