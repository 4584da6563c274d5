//! The worker from outside: small scripts against the system's allocator and against libraries that break a rule each.

use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind};
use heaplab_worker::protocol::{Answer, Api, Measure, Mode, Report, RunSpec, Touch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thread: `rounds` times 64 blocks of mixed sizes, one of them grown, freed in another order.
fn single(path: &Path, rounds: u64) {
    let mut script = ScriptWriter::create(path, 1).unwrap();
    let mut count = 0;
    let mut push = |op| {
        script.push(0, op).unwrap();
        count += 1;
    };
    for round in 0..rounds {
        for slot in 0..64u32 {
            let size = (u64::from(slot) * 37 + round * 11) % 3000;
            let (kind, align) = match slot % 8 {
                1 => (OpKind::Calloc, 0),
                2 => (OpKind::AlignedAlloc, 7),
                _ => (OpKind::Malloc, 0),
            };
            push(Op::new(kind, 0, 0, slot, size, align));
        }
        push(Op::new(OpKind::Realloc, 0, 0, 3, 9000, 0));
        for slot in (0..64u32).rev() {
            let size = (u64::from(slot) * 37 + round * 11) % 3000;
            let size = if slot == 3 { 9000 } else { size };
            push(Op::new(
                OpKind::Free,
                0,
                0,
                slot,
                size,
                if slot % 8 == 2 { 7 } else { 0 },
            ));
        }
    }
    script.order(0, count).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 64,
            ..ScriptInfo::default()
        })
        .unwrap();
}

/// Thread 0 starts all others and hands blocks to each in turn; they free them and end.
fn handed_over(path: &Path, threads: u32, blocks: u16) {
    let mut script = ScriptWriter::create(path, threads).unwrap();
    for thread in 1..threads {
        script
            .push(0, Op::new(OpKind::ThreadStart, 0, 0, thread, 0, 0))
            .unwrap();
        script.order(0, 1).unwrap();
    }
    for generation in 0..blocks {
        for thread in 1..threads {
            let size = 100 + u64::from(thread);
            script
                .push(
                    0,
                    Op::new(OpKind::Malloc, FLAG_SHARED, generation, thread - 1, size, 0),
                )
                .unwrap();
            script.order(0, 1).unwrap();
            script
                .push(
                    thread,
                    Op::new(OpKind::Free, FLAG_SHARED, generation, thread - 1, size, 0),
                )
                .unwrap();
            script.order(thread, 1).unwrap();
        }
    }
    script
        .finish(ScriptInfo {
            shared_slots: threads - 1,
            ..ScriptInfo::default()
        })
        .unwrap();
}

fn spec(script: &Path, measure: Measure, mode: Mode) -> RunSpec {
    RunSpec {
        mode,
        touch: Touch::Page,
        api: Api::Malloc,
        integrity: false,
        samples: 50,
        ..RunSpec::new(script.to_owned(), measure)
    }
}

fn run(spec: &RunSpec, library: Option<&Path>) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaplab-worker"));
    command
        .arg(serde_json::to_string(spec).unwrap())
        .env_clear();
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn report(spec: &RunSpec) -> Report {
    match run(spec, None) {
        Answer::Ok(report) => *report,
        Answer::Failed { reason } => panic!("{reason}"),
    }
}

#[test]
fn every_touch_and_api_makes_all_calls() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    single(&script, 50);
    for touch in [
        Touch::None,
        Touch::First,
        Touch::Page,
        Touch::Recorded,
        Touch::All,
    ] {
        for api in [Api::Malloc, Api::Sized] {
            for integrity in [false, true] {
                let spec = RunSpec {
                    touch,
                    api,
                    integrity,
                    repeat: 3,
                    ..spec(&script, Measure::Speed, Mode::Fast)
                };
                assert_eq!(report(&spec).calls, 3 * 50 * 129);
            }
        }
    }
}

#[test]
fn the_memory_curve_is_exact_and_the_same_in_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 5, 40);
    let spec = RunSpec {
        idle_tail_ms: 20,
        ..spec(&script, Measure::Memory, Mode::Lockstep)
    };
    let curves: Vec<_> = (0..3).map(|_| report(&spec).memory.unwrap()).collect();
    assert_eq!(curves[0].live_bytes, curves[1].live_bytes);
    assert_eq!(curves[0].usable_bytes, curves[2].usable_bytes);
    assert_eq!(curves[0].peak_live_bytes, 104);
    assert_eq!(*curves[0].live_bytes.last().unwrap(), 0);
    assert!(curves[0].after_idle_bytes.unwrap() > 0);
}

/// A block of 8 MiB of which the first MiB is written, one of 4 MiB of which nothing is known, the first grown to 12 MiB with
/// nothing more written.
fn partly_written(path: &Path) {
    let mut script = ScriptWriter::create(path, 1).unwrap();
    let ops = [
        Op::new(OpKind::Written, 0, 0, 0, 1 << 20, 0),
        Op::new(OpKind::Malloc, 0, 0, 0, 8 << 20, 0),
        Op::new(OpKind::Malloc, 0, 0, 1, 4 << 20, 0),
        Op::new(OpKind::Written, 0, 0, 0, 1 << 20, 0),
        Op::new(OpKind::Realloc, 0, 0, 0, 12 << 20, 0),
        Op::new(OpKind::Free, 0, 0, 0, 12 << 20, 0),
        Op::new(OpKind::Free, 0, 0, 1, 4 << 20, 0),
    ];
    for op in ops {
        script.push(0, op).unwrap();
    }
    script.order(0, 7).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 2,
            ..ScriptInfo::default()
        })
        .unwrap();
}

#[test]
fn only_what_the_recording_saw_written_is_written() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    partly_written(&script);
    for (touch, mib, unwritten) in [(Touch::Recorded, 5, 11 * MIB), (Touch::Page, 16, 0)] {
        let spec = RunSpec {
            touch,
            samples: 7,
            ..spec(&script, Measure::Memory, Mode::Lockstep)
        };
        let report = report(&spec);
        assert_eq!(report.calls, 5, "to be told is no call");
        let curve = report.memory.unwrap();
        assert_eq!(curve.peak_live_bytes, 16 * MIB);
        assert_eq!(curve.unwritten_at_peak_live_bytes, unwritten);
        let resident = curve.peak_resident_bytes - report.start_anon_bytes;
        assert!(
            (mib * MIB..mib * MIB + MIB / 2).contains(&resident),
            "{touch:?}: {resident} for {mib} MiB"
        );
    }
}

#[test]
fn two_hundred_threads_finish() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 200, 20);
    for mode in [Mode::Fast, Mode::Lockstep] {
        assert_eq!(
            report(&spec(&script, Measure::Speed, mode)).calls,
            199 * 20 * 2
        );
    }
}

#[test]
fn latency_tells_remote_frees_apart() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 3, 100);
    let report = report(&spec(&script, Measure::Latency, Mode::Fast));
    let kinds: Vec<_> = report
        .latency
        .iter()
        .map(|h| (h.op.as_str(), h.size_le, h.remote))
        .collect();
    assert_eq!(kinds, [("malloc", 1024, false), ("free", 1024, true)]);
    assert!(report.timer_ns > 0.0);
}

/// Thread 0 makes `pairs` blocks of 1,000 bytes come and go, 2 µs apart, and starts a thread that stays with a block.
fn timed(path: &Path, pairs: u64) {
    let mut script = ScriptWriter::create(path, 2).unwrap();
    script.timed();
    script.stays(1).unwrap();
    let mut push = |thread, op, ns| {
        script.push(thread, op).unwrap();
        script.time(thread, ns).unwrap();
        script.order(thread, 1).unwrap();
    };
    push(0, Op::new(OpKind::ThreadStart, 0, 0, 1, 0, 0), 0);
    push(1, Op::new(OpKind::Malloc, 0, 0, 8, 5000, 0), 0);
    for pair in 0..pairs {
        let at = pair * 4_000;
        push(0, Op::new(OpKind::Malloc, 0, 0, 0, 1000, 0), at);
        push(0, Op::new(OpKind::Free, 0, 0, 0, 1000, 0), at + 2_000);
    }
    script
        .finish(ScriptInfo {
            private_slots: 16,
            ..ScriptInfo::default()
        })
        .unwrap();
}

#[test]
fn paced_replays_take_their_time_and_say_how_late_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    timed(&script, 5_000);
    for (pace, measure) in [
        (1.0, Measure::Speed),
        (2.0, Measure::Latency),
        (1.0, Measure::Memory),
    ] {
        let spec = RunSpec {
            pace,
            ..spec(&script, measure, Mode::Paced)
        };
        let report = report(&spec);
        let least = (19_994_000.0 * pace) as u64;
        assert!(report.wall_ns >= least, "{} of {least}", report.wall_ns);
        let late = report.lateness.unwrap();
        assert_eq!(late.ops, 10_002);
        assert!(late.p50_ns <= late.p99_ns && late.p99_ns <= late.max_ns);
    }
    let plain = folder.path().join("p");
    single(&plain, 1);
    let spec = spec(&plain, Measure::Speed, Mode::Paced);
    assert!(
        matches!(run(&spec, None), Answer::Failed { reason } if reason.contains("script with times"))
    );
}

#[test]
fn the_tail_has_all_threads_asleep_and_then_a_trickle() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    timed(&script, 50);
    let spec = RunSpec {
        idle_tail_ms: 40,
        trickle_ms: 40,
        ..spec(&script, Measure::Memory, Mode::Lockstep)
    };
    let library = counting_library(folder.path());
    let Answer::Ok(report) = run(&spec, Some(&library)) else {
        panic!("failed")
    };
    let curve = report.memory.unwrap();
    assert!(curve.after_idle_bytes.unwrap() > 0 && curve.after_trickle_bytes.unwrap() > 0);
    assert_eq!(
        *curve.live_bytes.last().unwrap(),
        5000,
        "the thread that stays keeps its block"
    );
    assert_eq!(curve.lazyfree_bytes.len(), curve.ops.len());
    assert_eq!(report.calls, 101, "the trickle is no op");
    // Both threads, two blocks a millisecond each, in and out.
    assert!(calls_counted(&report.subject) >= 101 + 40 * 2 * 4);
}

#[test]
fn libc_makes_two_calls_for_each_thread_and_no_others_reach_the_subject() {
    let folder = tempfile::tempdir().unwrap();
    let library = counting_library(folder.path());
    let script = folder.path().join("s");
    let mut counted = Vec::new();
    for threads in [2, 12] {
        handed_over(&script, threads, 10);
        for (measure, mode) in [
            (Measure::Speed, Mode::Fast),
            (Measure::Memory, Mode::Lockstep),
        ] {
            let Answer::Ok(report) = run(&spec(&script, measure, mode), Some(&library)) else {
                panic!("failed")
            };
            counted.push(calls_counted(&report.subject) - report.calls);
        }
    }
    // Ten more threads: a vector for thread-local storage each, allocated and freed.
    assert_eq!(counted[2] - counted[0], 20, "{counted:?}");
    assert_eq!(counted[0], counted[1], "{counted:?}");
    assert_eq!(counted[2], counted[3], "{counted:?}");
    assert!(counted[0] <= 4, "{counted:?}");
}

#[test]
fn lockstep_makes_the_same_calls_in_the_same_order_in_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    // A hash over kind, size and thread of every call, threads numbered by their first one.
    let library = bad_library(
        folder.path(),
        "#include <stdio.h>\nstatic unsigned long h, threads; static __thread unsigned long me;\n\
         static void note(unsigned long what) { if (!me) me = ++threads; h = (h ^ what ^ me << 40) * 1099511628211u; }\n\
         size_t heaplab_subject_describe(char *b, size_t n) { return snprintf(b, n, \"calls=%lu\\n\", h); }\n\
         #define MALLOC(s) (note(1 | (s) << 3), __libc_malloc(s))\n\
         #define CALLOC(a, b) (note(2 | (a) * (b) << 3), __libc_calloc(a, b))\n\
         #define REALLOC(p, s) (note(3 | (s) << 3), __libc_realloc(p, s))\n\
         #define FREE(p) note(4); __libc_free(p)",
    );
    let hash = |threads| {
        handed_over(&script, threads, 30);
        let spec = spec(&script, Measure::Memory, Mode::Lockstep);
        let Answer::Ok(report) = run(&spec, Some(&library)) else {
            panic!("failed")
        };
        let curve = report.memory.unwrap();
        (
            calls_counted(&report.subject),
            curve.ops,
            curve.live_bytes,
            curve.usable_bytes,
        )
    };
    let first = hash(6);
    for _ in 0..5 {
        assert_eq!(hash(6), first);
    }
    assert_ne!(hash(5).0, first.0, "the hash tells scripts apart");
}

/// A library that counts its calls and tells the number as its setting `calls`.
fn counting_library(folder: &Path) -> PathBuf {
    bad_library(
        folder,
        "#include <stdio.h>\nstatic unsigned long c;\n\
         #define COUNT __atomic_add_fetch(&c, 1, __ATOMIC_RELAXED)\n\
         size_t heaplab_subject_describe(char *b, size_t n) { return snprintf(b, n, \"version=1\\ncalls=%lu\\n\", c); }\n\
         #define MALLOC(s) (COUNT, __libc_malloc(s))\n\
         #define CALLOC(a, b) (COUNT, __libc_calloc(a, b))\n\
         #define REALLOC(p, s) (COUNT, __libc_realloc(p, s))\n\
         #define FREE(p) if (p) COUNT; __libc_free(p)",
    )
}

fn calls_counted(proof: &heaplab_worker::protocol::SubjectProof) -> u64 {
    proof.settings["calls"].parse().unwrap()
}

#[test]
fn a_script_ten_times_larger_than_the_address_space_allowed_replays() {
    const LIMIT: u64 = 24 << 20;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let mut writer = ScriptWriter::create(&script, 1).unwrap();
    let pairs = 10 * LIMIT / 16 / 2 + 1;
    for pair in 0..pairs {
        let (slot, size) = (pair as u32 % 8, 16 + pair % 500);
        writer
            .push(0, Op::new(OpKind::Malloc, 0, 0, slot, size, 0))
            .unwrap();
        writer
            .push(0, Op::new(OpKind::Free, 0, 0, slot, size, 0))
            .unwrap();
    }
    writer.order(0, 2 * pairs as u32).unwrap();
    writer
        .finish(ScriptInfo {
            private_slots: 8,
            ..ScriptInfo::default()
        })
        .unwrap();
    assert!(std::fs::metadata(&script).unwrap().len() > 10 * LIMIT);
    let spec = RunSpec {
        touch: Touch::First,
        whole_script_bytes: LIMIT / 8,
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            &format!("ulimit -v {}; exec \"$0\" \"$1\"", LIMIT >> 10),
        ])
        .arg(env!("CARGO_BIN_EXE_heaplab-worker"))
        .arg(serde_json::to_string(&spec).unwrap());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let Ok(Answer::Ok(report)) = serde_json::from_str::<Answer>(text.trim()) else {
        panic!("{output:?}")
    };
    assert_eq!(report.calls, 2 * pairs);
    assert!(report.windowed && report.own_bytes < LIMIT);
}

#[test]
fn the_subject_is_told_of_as_many_cpus_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    single(&script, 1);
    let library = bad_library(
        folder.path(),
        "#include <sched.h>\n#include <stdio.h>\n#include <sys/sysinfo.h>\n\
         static int early, mask;\n\
         __attribute__((constructor)) static void look(void) { cpu_set_t s; early = get_nprocs();\
         sched_getaffinity(0, sizeof s, &s); mask = CPU_COUNT(&s); }\n\
         size_t heaplab_subject_describe(char *b, size_t n) {\
         return snprintf(b, n, \"cpus=%ld %d %d\\n\", sysconf(_SC_NPROCESSORS_ONLN), early, mask); }",
    );
    let told = |cpus: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heaplab-worker"));
        command
            .arg("--describe")
            .env_clear()
            .env("LD_PRELOAD", &library);
        command.envs(cpus.map(|cpus| ("HEAPLAB_CPUS", cpus)));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text[text.find("cpus\":\"").unwrap() + 7..]
            .split('"')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(told(Some("64")), "64 64 64");
    let here = std::thread::available_parallelism().unwrap();
    assert_eq!(told(None).split(' ').next_back().unwrap(), here.to_string());
}

/// Compiles a library that forwards to glibc's own entry points except for what `body` does wrong.
fn bad_library(folder: &Path, body: &str) -> PathBuf {
    let (source, library) = (folder.join("bad.c"), folder.join("libbad.so"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <stddef.h>\n#include <string.h>\n#include <unistd.h>\n\
         extern void *__libc_malloc(size_t); extern void __libc_free(void *);\n\
         extern void *__libc_calloc(size_t, size_t); extern void *__libc_realloc(void *, size_t);\n\
         extern void *__libc_memalign(size_t, size_t);\n\
         static unsigned long n; static char *last;\n{body}\n\
         #ifndef MALLOC\n#define MALLOC(s) __libc_malloc(s)\n#endif\n\
         #ifndef CALLOC\n#define CALLOC(a, b) __libc_calloc(a, b)\n#endif\n\
         #ifndef REALLOC\n#define REALLOC(p, s) __libc_realloc(p, s)\n#endif\n\
         #ifndef FREE\n#define FREE(p) __libc_free(p)\n#endif\n\
         void *malloc(size_t s) {{ n++; return MALLOC(s); }}\n\
         void *calloc(size_t a, size_t b) {{ return CALLOC(a, b); }}\n\
         void *realloc(void *p, size_t s) {{ return REALLOC(p, s); }}\n\
         void *aligned_alloc(size_t a, size_t s) {{ return __libc_memalign(a, s); }}\n\
         void free(void *p) {{ FREE(p); }}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
    library
}

#[test]
fn each_violation_is_caught_and_named() {
    let cases = [
        (
            "static void *bad(size_t s) { if (n % 50 == 0 && last) return last; return last = __libc_malloc(s < 4096 ? 4096 : s); }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "overlapping blocks",
        ),
        (
            "#define MALLOC(s) (n % 50 ? __libc_malloc(s) : (char *)__libc_malloc(s + 16) + 1)\n#define FREE(p)",
            "misaligned block",
        ),
        (
            "#define CALLOC(a, b) memset(__libc_malloc((a) * (b)), 1, (a) * (b))",
            "is not zeroed",
        ),
        ("#define REALLOC(p, s) __libc_calloc(1, s)", "lost contents"),
        (
            "static void *bad(size_t s) { if (last) memset(last, 7, 8); return last = __libc_malloc(s < 64 ? 64 : s); }\n#define MALLOC(s) bad(s)\n#define FREE(p)",
            "contents of a block",
        ),
        (
            "#define MALLOC(s) (n % 50 ? __libc_malloc(s) : 0)",
            "returned null",
        ),
        (
            "size_t malloc_usable_size(void *p) { return p ? 1 : 0; }",
            "malloc_usable_size gives 1",
        ),
    ];
    for (body, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s");
        single(&script, 20);
        let library = bad_library(folder.path(), body);
        let spec = RunSpec {
            integrity: true,
            expect_library: Some(library.clone()),
            ..spec(&script, Measure::Speed, Mode::Fast)
        };
        match run(&spec, Some(&library)) {
            Answer::Failed { reason } => assert!(reason.contains(wanted), "{wanted}: {reason}"),
            Answer::Ok(_) => panic!("{wanted}: not caught"),
        }
    }
}

#[test]
fn a_library_that_is_not_in_force_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    single(&script, 1);
    let spec = RunSpec {
        expect_library: Some("/nowhere/libother.so".into()),
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    assert!(
        matches!(run(&spec, None), Answer::Failed { reason } if reason.contains("/nowhere/libother.so"))
    );
}
