//! What is whose time: the allocator's, another thread's, the kernel's.

use crate::support::{bad_library, handed_over, reported, run, spec, timed};
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind};
use heaplab_worker::protocol::{LatencyHistogram, Measure, Mode, Report};
use std::path::Path;

const MS: u64 = 1_000_000;
/// Blocks of which each takes 20 ms to come.
const BLOCKS: u16 = 5;
const SLEEPS: &str = "#define MALLOC(s) ((s) == 101 ? usleep(20000) : 0, __libc_malloc(s))";

fn times(histogram: &LatencyHistogram) -> Histogram<u64> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&histogram.hdr_v2_base64)
        .unwrap();
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .unwrap()
}

/// Nanoseconds that the middle call of a kind took.
fn median(report: &Report, op: &str, size_le: u64, remote: bool) -> u64 {
    let found = (report.latency.iter())
        .find(|row| row.op == op && row.size_le == size_le && row.remote == remote);
    times(found.unwrap_or_else(|| panic!("{op} {size_le} {remote}: {:?}", report.latency)))
        .value_at_quantile(0.5)
}

#[test]
fn waiting_for_a_block_is_neither_the_allocators_time_nor_the_cpus() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 2, BLOCKS);
    let library = bad_library(folder.path(), SLEEPS);
    let least = u64::from(BLOCKS) * 20 * MS;
    for measure in [Measure::Speed, Measure::Latency] {
        let report = reported(run(&spec(&script, measure, Mode::Fast), Some(&library)));
        assert!(report.wall_ns >= least, "{report:?}");
        // Thread 1 has nothing else to do, once it runs.
        assert!(report.wait_ns >= least / 2, "{}", report.wait_ns);
        assert!(report.wait_ns <= 2 * report.wall_ns, "{}", report.wait_ns);
        assert!(report.cpu_ns < report.wall_ns / 2, "{} CPU", report.cpu_ns);
        if measure == Measure::Latency {
            assert!(median(&report, "malloc", 1024, false) >= 20 * MS);
            assert!(median(&report, "free", 1024, true) < 5 * MS);
        }
    }
}

/// Thread 0 allocates a block each 30 ms; thread 1 is to free it at once, and to make 50 calls of its own within the next 50 µs.
fn answered(path: &Path) {
    let mut script = ScriptWriter::create(path, 2).unwrap();
    script.timed();
    let mut push = |thread, kind, shared: bool, slot, size, generation, ns| {
        let flags = if shared { FLAG_SHARED } else { 0 };
        script
            .push(thread, Op::new(kind, flags, generation, slot, size, 0))
            .unwrap();
        script.time(thread, ns).unwrap();
        script.order(thread, 1).unwrap();
    };
    push(0, OpKind::ThreadStart, false, 1, 0, 0, 0);
    for block in 0..BLOCKS {
        let at = MS + u64::from(block) * 30 * MS;
        push(0, OpKind::Malloc, true, 1, 101, block, at);
        push(1, OpKind::Free, true, 1, 101, block, at + 1_000);
        for call in 0..25 {
            let at = at + 2_000 + 2_000 * call;
            push(1, OpKind::Malloc, false, 0, 5_000, 0, at);
            push(1, OpKind::Free, false, 0, 5_000, 0, at + 1_000);
        }
    }
    script
        .finish(ScriptInfo {
            private_slots: 1,
            shared_slots: 1,
            ..ScriptInfo::default()
        })
        .unwrap();
}

#[test]
fn from_the_intended_start_another_threads_slowness_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    answered(&script);
    let library = bad_library(folder.path(), SLEEPS);
    let spec = spec(&script, Measure::Latency, Mode::Paced);
    let report = reported(run(&spec, Some(&library)));
    assert!(report.wait_ns >= u64::from(BLOCKS) * 10 * MS, "{report:?}");
    assert!(median(&report, "malloc", 1024, false) >= 20 * MS);
    // Neither in the call that waited nor in those that were late because of it.
    for (op, size, remote) in [
        ("free", 1024, true),
        ("malloc", 32 << 10, false),
        ("free", 32 << 10, false),
    ] {
        let ns = median(&report, op, size, remote);
        assert!(ns < 5 * MS, "{op} of {size}: {ns} ns");
    }
    // How late they were is told all the same.
    assert!(report.lateness.unwrap().p99_ns >= 10 * MS);
}

#[test]
fn a_slow_call_delays_those_behind_it_where_ops_have_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    timed(&script, 5_000);
    // A quarter of the recording's 20 ms.
    let library = bad_library(
        folder.path(),
        "static unsigned long c;\n\
         #define MALLOC(s) ((s) == 1000 && ++c == 1000 ? usleep(5000) : 0, __libc_malloc(s))",
    );
    let late = |mode| {
        let report = reported(run(&spec(&script, Measure::Latency, mode), Some(&library)));
        let found = (report.latency.iter()).find(|row| row.op == "free");
        let times = times(found.unwrap());
        assert_eq!(times.len(), 5_000);
        times.value_at_quantile(0.9)
    };
    let (paced, fast) = (late(Mode::Paced), late(Mode::Fast));
    assert!(paced >= MS, "{paced} ns");
    assert!(fast < MS / 2, "{fast} ns");
}

/// Calls above a microsecond: by fault, by preemption, by the allocator.
fn causes(folder: &Path, body: &str) -> [u64; 3] {
    let folder = folder.join(body.len().to_string());
    std::fs::create_dir(&folder).unwrap();
    let script = folder.join("s");
    timed(&script, 200);
    let library = bad_library(
        &folder,
        &format!(
            "#include <pthread.h>\n#include <sched.h>\n#include <sys/mman.h>\n#include <sys/resource.h>\n#include <time.h>\n\
             static long now(void) {{ struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }}\n\
             static long preempted(void) {{ struct rusage u; getrusage(RUSAGE_THREAD, &u); return u.ru_nivcsw; }}\n\
             {body}\n\
             static void *bad(size_t s) {{ if (s == 1000) slow(); return __libc_malloc(s); }}\n\
             #define MALLOC(s) bad(s)"
        ),
    );
    let report = reported(run(
        &spec(&script, Measure::Latency, Mode::Fast),
        Some(&library),
    ));
    let row = (report.latency.iter()).find(|row| row.op == "malloc" && row.size_le == 1024);
    let row = row.unwrap();
    [
        row.slow_by_fault,
        row.slow_by_preemption,
        row.slow_by_allocator,
    ]
}

#[test]
fn slow_calls_are_told_apart_by_what_made_them_slow() {
    let folder = tempfile::tempdir().unwrap();
    // 200 calls; now and then one of another cause comes between.
    let most = |[part, ..]: [u64; 3], of: [u64; 3]| assert!(part >= 160, "{of:?}");
    let fault = causes(
        folder.path(),
        "static void slow(void) { char *p = mmap(0, 16384, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n\
           for (int i = 0; i < 4; i++) p[4096 * i] = 1; munmap(p, 16384); }",
    );
    most(fault, fault);
    let path = causes(
        folder.path(),
        "static void slow(void) { for (long end = now() + 5000; now() < end;) {} }",
    );
    most([path[2], 0, 0], path);
    // Another thread on the same CPU, to which the kernel gives it in the middle of the call.
    let preemption = causes(
        folder.path(),
        "static void *other(void *p) { for (;;) sched_yield(); return p; }\n\
         static void slow(void) {\n\
           static int begun; long before = preempted(), end = now() + 1000000000;\n\
           if (!begun) { begun = 1; cpu_set_t one; CPU_ZERO(&one); CPU_SET(sched_getcpu(), &one);\n\
             pthread_t t; sched_setaffinity(0, sizeof one, &one); pthread_create(&t, 0, other, 0); }\n\
           while (preempted() == before && now() < end) sched_yield(); }",
    );
    most([preemption[1], 0, 0], preemption);
}
