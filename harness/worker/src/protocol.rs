//! What the harness tells a worker and what the worker answers.
//!
//! A worker is started as `heaplab-worker '<RunSpec as JSON>'` with the subject in `LD_PRELOAD`, and prints
//! exactly one line of JSON on standard output: a [`Answer`]. Everything else it has to say goes to standard error.
//! The command can be typed by hand (`heaplab run --print-command`).

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What one run measures; each measure has its own process because one disturbs the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Wall and CPU time over all ops; no clock inside.
    Speed,
    /// `rdtsc` around every call, into histograms.
    Latency,
    /// Live, usable and resident bytes over progress.
    Memory,
    /// The replay alone, to be counted from outside (callgrind, strace, faults).
    Counts,
}

/// How the threads advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As fast as causality allows.
    Fast,
    /// At the recorded times × a factor; `memory` keeps the global order and one thread at a time besides.
    Paced,
    /// The script's global order, one thread at a time: deterministic.
    Lockstep,
}

/// Which bytes of a fresh block the replay writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touch {
    /// None.
    None,
    /// The first cache line.
    First,
    /// One byte a page (and the first cache line).
    Page,
    /// As `page`, but of large blocks only as many pages as the recording saw written, where it did.
    Recorded,
    /// Every byte.
    All,
}

/// Which entry points the replay calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// malloc, calloc, aligned_alloc, realloc, free.
    Malloc,
    /// The subject's own sized free (free_sized, sdallocx, mi_free_size) where it has one.
    Sized,
}

/// Transparent huge pages, as the subject sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thp {
    /// As the machine is set.
    #[default]
    Default,
    /// None, whatever the subject asks for.
    Never,
    /// Asked for on every mapping of 2 MiB and more.
    Always,
}

impl Thp {
    /// The word of cells and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// The machine as a run sees it; part of the cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs that the subject is told of; 0 = those there are.
    #[serde(default)]
    pub cpus: u32,
    /// Huge pages.
    #[serde(default)]
    pub thp: Thp,
    /// Bytes of memory; 0 = no limit of ours.
    #[serde(default)]
    pub memory_limit: u64,
    /// Addresses are the same in every run (for counts) instead of random (for times).
    #[serde(default)]
    pub fixed_addresses: bool,
}

/// The clock that a subject reads follows a recording's, in a script with times: in each measure but paced. `keep` and
/// `recorded` are for memory in lockstep; elsewhere the clock shows the recorded times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedClock {
    /// What the recorder took of each event, nanoseconds: taken off.
    pub recorder_ns: f64,
    /// A file to be made of what each op takes, a `u32` of nanoseconds each, in the order of the script.
    #[serde(default)]
    pub keep: Option<PathBuf>,
    /// Such a file of the recorded allocator: the clock goes on by what the subject takes beyond that.
    #[serde(default)]
    pub recorded: Option<PathBuf>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSpec {
    /// The script file.
    pub script: PathBuf,
    /// What is measured.
    pub measure: Measure,
    /// How threads advance.
    pub mode: Mode,
    /// Touch policy.
    pub touch: Touch,
    /// Entry points.
    pub api: Api,
    /// Check alignment, overlap, contents, zeroing and prefix kept by realloc. Always set for `memory`.
    pub integrity: bool,
    /// How often the script is run from start to end in this process (speed); ≥ 1. Blocks alive at the end
    /// are freed (untimed) between repetitions.
    pub repeat: u32,
    /// Points of the memory curve wanted over progress.
    pub samples: u32,
    /// Idle tail after the last op, milliseconds (all threads asleep, memory still sampled).
    pub idle_tail_ms: u64,
    /// Path of the library that must be in force, for the proof; `None` for the system allocator.
    pub expect_library: Option<PathBuf>,
    /// The subject is the null allocator: integrity and memory make no sense.
    pub null: bool,
    /// Anonymous bytes of a bare worker, left out of `footprint_mean` (every other figure is reported as read);
    /// 0 = not known.
    #[serde(default)]
    pub baseline_bytes: u64,
    /// `paced`: recorded times are multiplied by this (2 = half as fast); > 0.
    #[serde(default = "one")]
    pub pace: f64,
    /// After the idle tail, milliseconds in which every thread that is still there makes a call or two each millisecond
    /// (`memory`).
    #[serde(default)]
    pub trickle_ms: u64,
    /// A file that the worker makes when the idle tail begins, so that others need not wait for the sleeper.
    #[serde(default)]
    pub tail_file: Option<PathBuf>,
    /// Scripts above this size are read in windows instead of mapped whole; 0 = the worker chooses by the memory there is.
    #[serde(default)]
    pub whole_script_bytes: u64,
    /// Each thread stays on a CPU of its own where there are enough of them (`speed`, `latency`).
    #[serde(default)]
    pub pin: bool,
    /// The machine as the run sees it. It is in force when the worker starts; here it is only told.
    #[serde(default)]
    pub machine: Machine,
    /// `None`: the clock shows the recorded times.
    #[serde(default)]
    pub recorded_clock: Option<RecordedClock>,
}

fn one() -> f64 {
    1.0
}

impl RunSpec {
    /// A plain run of a script: `fast`, first cache line touched, `malloc`, no checks, once, without a tail.
    pub fn new(script: PathBuf, measure: Measure) -> Self {
        Self {
            script,
            measure,
            mode: Mode::Fast,
            touch: Touch::First,
            api: Api::Malloc,
            integrity: false,
            repeat: 1,
            samples: 50,
            idle_tail_ms: 0,
            expect_library: None,
            null: false,
            baseline_bytes: 0,
            pace: 1.0,
            trickle_ms: 0,
            tail_file: None,
            whole_script_bytes: 0,
            pin: false,
            machine: Machine::default(),
            recorded_clock: None,
        }
    }
}

/// The worker's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Answer {
    /// The run is done.
    Ok(Box<Report>),
    /// The subject broke a rule, or the run could not be done.
    Failed {
        /// One lower-case sentence: what and where ("overlapping blocks at op 1,204,331 of thread 2").
        reason: String,
    },
}

/// What was measured in one run. Fields that a measure does not produce are absent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Calls of the malloc family that were made; must equal the script's count times `repeat`.
    pub calls: u64,
    /// Wall nanoseconds from the start barrier to the last thread's end (all repetitions).
    pub wall_ns: u64,
    /// CPU nanoseconds of the replaying threads (all repetitions).
    pub cpu_ns: u64,
    /// Nanoseconds spent waiting for another thread's block, summed over threads.
    pub wait_ns: u64,
    /// Nanoseconds of the pauses that the replay itself makes after some waits, summed over threads: neither waiting nor the
    /// allocator's.
    #[serde(default)]
    pub slip_ns: u64,
    /// Nanoseconds slept for the script's idle ops (`memory` only: the other measures skip them).
    #[serde(default)]
    pub idle_ns: u64,
    /// Blocks of which the script tells how much is written; 0: touch `recorded` was the same as `page`.
    #[serde(default)]
    pub told_blocks: u64,
    /// Minor faults during the replay.
    pub minor_faults: u64,
    /// Major faults during the replay.
    pub major_faults: u64,
    /// Voluntary and involuntary context switches during the replay.
    pub context_switches: u64,
    /// Anonymous resident bytes of the whole process at the start of main, before the worker did anything.
    pub start_anon_bytes: u64,
    /// Memory curve (`memory` only).
    pub memory: Option<MemoryCurve>,
    /// Histograms (`latency` only).
    pub latency: Vec<LatencyHistogram>,
    /// Cost of an empty pair of clock reads, nanoseconds (`latency` only).
    pub timer_ns: f64,
    /// How late ops were made (`paced` only).
    #[serde(default)]
    pub lateness: Option<Lateness>,
    /// Shared memory of the worker itself at its end, bytes: slots, tables, stacks, histograms. O(peak live blocks) + 16 MiB
    /// for each thread; more is a failed run.
    #[serde(default)]
    pub own_bytes: u64,
    /// Resident pages of files at the end, bytes: what is mapped of the script, and libraries. The kernel's, not the worker's own: they can be
    /// dropped at any time.
    #[serde(default)]
    pub file_bytes: u64,
    /// The script was read in windows, not mapped whole.
    #[serde(default)]
    pub windowed: bool,
    /// CPUs that the process may use, and that the subject was told of.
    #[serde(default)]
    pub cpus: u32,
    /// Frequency of the first thread's CPU, kHz, when the threads were let go and when the last one had ended (`speed`, `latency`);
    /// absent where it cannot be seen.
    #[serde(default)]
    pub own_cpu_khz: Option<[u64; 2]>,
    /// What enforced the memory limit, set by the harness: `control group` or `RLIMIT_DATA`.
    #[serde(default)]
    pub memory_limit_by: Option<String>,
    /// What the subject said of itself.
    pub subject: SubjectProof,
}

/// How late ops were made against their intended times.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lateness {
    /// Ops with an intended time.
    pub ops: u64,
    /// Nanoseconds: median.
    pub p50_ns: u64,
    /// Nanoseconds: 99th percentile.
    pub p99_ns: u64,
    /// Nanoseconds: largest.
    pub max_ns: u64,
}

/// Memory at instants of the run; all arrays have the same length.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MemoryCurve {
    /// Calls done, all threads.
    pub ops: Vec<u64>,
    /// Nanoseconds since the start.
    pub time_ns: Vec<u64>,
    /// Requested bytes alive.
    pub live_bytes: Vec<u64>,
    /// `malloc_usable_size` summed over live blocks.
    pub usable_bytes: Vec<u64>,
    /// Anonymous resident bytes + shared memory that is not the worker's + pages of the hugetlb pool, minus nothing: the
    /// harness subtracts the bare worker's baseline.
    pub resident_bytes: Vec<u64>,
    /// Resident bytes at the highest point seen (sampled more densely than the curve).
    pub peak_resident_bytes: u64,
    /// Resident bytes at the instant that stands for the peak: within 5 % of the highest, and with the most alive of those.
    pub resident_at_peak_resident_bytes: u64,
    /// Live bytes at that instant.
    pub live_at_peak_resident_bytes: u64,
    /// Usable bytes at that instant.
    pub usable_at_peak_resident_bytes: u64,
    /// Live bytes at that instant that the program never writes (touch `recorded`).
    #[serde(default)]
    pub unwritten_at_peak_resident_bytes: u64,
    /// Highest live bytes, exact.
    pub peak_live_bytes: u64,
    /// Resident bytes at that instant (nearest sample).
    pub resident_at_peak_live_bytes: u64,
    /// Usable bytes at that instant.
    pub usable_at_peak_live_bytes: u64,
    /// Live bytes at that instant that the program never writes (touch `recorded`).
    #[serde(default)]
    pub unwritten_at_peak_live_bytes: u64,
    /// Average of resident bytes weighted by ops.
    pub mean_resident_bytes: u64,
    /// Average resident bytes, the bare worker's left out, over average live bytes (without what is never written), both weighted by
    /// ops; absent where the latter is below 64 KiB.
    pub footprint_mean: Option<f64>,
    /// Resident bytes after the idle tail; absent without a tail.
    pub after_idle_bytes: Option<u64>,
    /// Lazily freed bytes after the idle tail.
    #[serde(default)]
    pub lazyfree_after_idle_bytes: u64,
    /// Resident bytes after the trickle that follows the idle tail; absent without one.
    #[serde(default)]
    pub after_trickle_bytes: Option<u64>,
    /// Lazily freed bytes (MADV_FREE: resident until the kernel needs them) at each point; read from `smaps_rollup`, which
    /// gets rare (the last value is repeated) where it would take more than 5 % of the run.
    #[serde(default)]
    pub lazyfree_bytes: Vec<u64>,
    /// Most bytes in transparent huge pages seen.
    #[serde(default)]
    pub huge_bytes: u64,
    /// Most bytes of the subject seen in shared mappings and pages of the hugetlb pool. They are in every resident figure from the first
    /// walk on that has found some.
    #[serde(default)]
    pub elsewhere_bytes: u64,
    /// Largest difference seen between `statm` and `smaps_rollup` (checked a few times), bytes.
    pub sampling_error_bytes: u64,
}

/// One histogram of call latencies, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyHistogram {
    /// `malloc`, `calloc`, `aligned`, `realloc`, `free`.
    pub op: String,
    /// Upper end of the size range, bytes (inclusive): 64, 1024, 32768, 1048576 or `u64::MAX`.
    pub size_le: u64,
    /// The block was freed by another thread than allocated it (frees only).
    pub remote: bool,
    /// HdrHistogram V2 (not compressed), base64; 2 significant digits; unit: nanoseconds.
    pub hdr_v2_base64: String,
    /// Calls that took longer than 1 µs, told apart: a page fault happened, the thread was preempted, or neither
    /// (the allocator's slow path).
    pub slow_by_fault: u64,
    /// See above.
    pub slow_by_preemption: u64,
    /// See above.
    pub slow_by_allocator: u64,
}

/// Evidence that the subject was in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SubjectProof {
    /// Object file that `malloc` resolved to (dladdr).
    pub malloc_object: String,
    /// Name and version as the subject tells it (`mallctl("version")`, `mi_version`, `gnu_get_libc_version`,
    /// `spanalloc_version`), if it does.
    pub version: Option<String>,
    /// Effective settings read back from the subject.
    pub settings: std::collections::BTreeMap<String, String>,
    /// The subject has an own sized free, used with `Api::Sized`.
    pub sized_free: Option<String>,
    /// What the subject counts itself, at the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<serde_json::Value>,
}

/// What the kernel accounted to a program that `heaplab-worker --launch` ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Launched {
    /// The program could not be started: the system's error number.
    pub start_error: Option<i32>,
    /// Exit status, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// From before the start to after the end.
    pub wall_ns: u64,
    /// CPU time in user mode, of all its processes that have ended.
    pub user_ns: u64,
    /// CPU time in the kernel, of all its processes that have ended.
    pub sys_ns: u64,
    /// Largest resident set of one of its processes.
    pub peak_rss_bytes: u64,
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that needed I/O.
    pub major_faults: u64,
    /// Voluntary and involuntary switches.
    pub context_switches: u64,
    /// Processes of it that still ran when the first one had ended, and were killed.
    #[serde(default)]
    pub left_behind: u32,
    /// Where its CPU time went, where that was asked for and permitted.
    #[serde(default)]
    pub sampled: Option<Sampled>,
    /// Why it was not sampled, in the system's words.
    #[serde(default)]
    pub not_sampled: Option<String>,
}

/// Samples of a program's CPU time, children included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// CPU time from one sample to the next.
    pub period_ns: u64,
    /// Samples in the kernel are among them; without the right to see them, all figures are of user mode.
    pub with_kernel: bool,
    /// All samples.
    pub samples: u64,
    /// In the code in question.
    pub counted_user: u64,
    /// In the kernel on behalf of that code: page faults and system calls.
    pub counted_kernel: u64,
    /// Records that the kernel had to drop.
    pub lost: u64,
}
