//! What is measured: name, unit, direction, measure and meaning of every metric, for `list metrics`.

use serde::Serialize;

/// One metric.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Described {
    /// Name in result.json; the unit is part of it.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// `lower` or `higher`.
    pub better: &'static str,
    /// The measure that produces it.
    pub measure: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

const fn lower(
    name: &'static str,
    unit: &'static str,
    measure: &'static str,
    meaning: &'static str,
) -> Described {
    Described {
        name,
        unit,
        better: "lower",
        measure,
        meaning,
    }
}

/// Every metric, in the order of the documentation.
pub const ALL: [Described; 39] = [
    lower(
        "ns_per_op",
        "ns",
        "speed",
        "wall time of all threads from start to end, divided by the calls",
    ),
    lower(
        "cpu_ns_per_op",
        "ns",
        "speed",
        "CPU time of the replaying threads, divided by the calls",
    ),
    lower(
        "wait_ns_per_op",
        "ns",
        "speed",
        "waiting for a block of another thread; not the allocator's time",
    ),
    Described {
        name: "ops_per_s",
        unit: "1/s",
        better: "higher",
        measure: "speed",
        meaning: "calls per second",
    },
    lower(
        "minor_faults",
        "count",
        "speed, counts, program",
        "page faults without a disk access",
    ),
    lower(
        "major_faults",
        "count",
        "speed, counts, program",
        "page faults with a disk access",
    ),
    lower(
        "context_switches",
        "count",
        "speed, program",
        "voluntary and involuntary switches",
    ),
    lower(
        "peak_resident_bytes",
        "bytes",
        "memory",
        "highest resident bytes, without the worker's own",
    ),
    lower(
        "mean_resident_bytes",
        "bytes",
        "memory",
        "resident bytes averaged over ops",
    ),
    lower(
        "peak_live_bytes",
        "bytes",
        "memory, counts of a program",
        "highest requested bytes alive: the workload's own",
    ),
    lower(
        "start_resident_bytes",
        "bytes",
        "memory",
        "resident bytes that the library needs at start",
    ),
    lower(
        "footprint_at_peak_live",
        "ratio",
        "memory",
        "resident / live bytes when most bytes are live",
    ),
    lower(
        "footprint_at_peak_resident",
        "ratio",
        "memory",
        "resident / live bytes when most bytes are resident",
    ),
    lower(
        "footprint_mean",
        "ratio",
        "memory",
        "resident bytes averaged over ops / live bytes averaged over ops",
    ),
    lower(
        "rounding_at_peak_bytes",
        "bytes",
        "memory",
        "usable minus live bytes at the highest resident",
    ),
    lower(
        "unused_resident_at_peak_bytes",
        "bytes",
        "memory",
        "resident minus usable bytes at the highest resident, without what is never written",
    ),
    lower(
        "resident_after_idle_10s_bytes",
        "bytes",
        "memory",
        "resident bytes after ten seconds of idle; the name says how long the tail was (`_500ms_`)",
    ),
    lower(
        "resident_after_trickle_10s_bytes",
        "bytes",
        "memory",
        "resident bytes after ten more seconds in which every thread makes a few calls a millisecond",
    ),
    lower(
        "lazyfree_peak_bytes",
        "bytes",
        "memory",
        "most bytes freed lazily (MADV_FREE): resident until the kernel needs them",
    ),
    lower(
        "lazyfree_after_idle_bytes",
        "bytes",
        "memory",
        "lazily freed bytes after the idle tail",
    ),
    lower(
        "sampling_error_bytes",
        "bytes",
        "memory",
        "largest difference between statm, which is sampled, and smaps_rollup, which is exact",
    ),
    lower(
        "instructions",
        "count",
        "counts",
        "instructions from the first op to the end of the last thread, the replay's own among them, counted by callgrind",
    ),
    lower(
        "instructions_in_subject",
        "count",
        "counts",
        "those of them in the subject's library (for the C library's malloc all of the C library)",
    ),
    lower(
        "syscalls",
        "count",
        "counts",
        "system calls for memory of the whole worker: mmap, munmap, mremap, madvise, mprotect, brk",
    ),
    lower(
        "allocations",
        "count",
        "counts of a program",
        "allocating calls of the program, recorded with the subject underneath",
    ),
    lower(
        "bytes_allocated",
        "bytes",
        "counts of a program",
        "bytes that they request, reallocs with their whole new size",
    ),
    lower(
        "latency",
        "ns",
        "latency",
        "percentiles of single calls by op kind, size and side of the free",
    ),
    lower("wall_s", "s", "program", "wall time of the program"),
    lower(
        "user_s",
        "s",
        "program",
        "CPU time of the program in user mode",
    ),
    lower(
        "sys_s",
        "s",
        "program",
        "CPU time of the program in the kernel",
    ),
    lower(
        "peak_rss_bytes",
        "bytes",
        "program",
        "highest resident set of the program, everything included",
    ),
    lower(
        "allocator_cpu_share",
        "share",
        "program",
        "share of the program's CPU time that the allocator has, sampled",
    ),
    lower(
        "allocator_cpu_s",
        "s",
        "program",
        "CPU time that the allocator has, sampled",
    ),
    lower(
        "peak_pss_bytes",
        "bytes",
        "program",
        "peak memory of all processes of the program together, shared pages counted once",
    ),
    lower("processes", "count", "program", "most processes at a time"),
    lower(
        "ready_s",
        "s",
        "program",
        "a server's start until it is ready",
    ),
    lower(
        "load_s",
        "s",
        "program",
        "the time that a server's load takes",
    ),
    lower(
        "null_ns_per_op",
        "ns",
        "calibration",
        "the harness's own cost, with an allocator that does nothing",
    ),
    lower(
        "timer_ns",
        "ns",
        "calibration",
        "an empty pair of clock reads; the floor of latency",
    ),
];
