//! What memory runs say: exact, the same in every run, and nothing of the worker's own in it.

use crate::support::{
    bad_library, calls_counted, counting_library, handed_over, report, reported, run, single, spec,
    steady, timed,
};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{Op, OpKind};
use heaplab_worker::protocol::{Answer, Measure, Mode, RecordedClock, Report, RunSpec, Touch};
use std::path::Path;
use std::process::Command;

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

/// A subject on such memory would have next to none by `statm`.
#[test]
fn shared_mappings_and_huge_pages_set_apart_are_resident_too_and_none_of_the_replays_own() {
    const MIB: u64 = 1 << 20;
    const BLOCKS: u64 = 4;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let mut writer = ScriptWriter::create(&script, 1).unwrap();
    // One of them stays.
    for (kind, first) in [(OpKind::Malloc, 0), (OpKind::Free, 1)] {
        for slot in first..BLOCKS as u32 {
            let op = Op::new(kind, 0, 0, slot, 16 * MIB, 0);
            writer.push(0, op).unwrap();
        }
    }
    writer.order(0, 2 * BLOCKS as u32 - 1).unwrap();
    let info = ScriptInfo {
        private_slots: BLOCKS as u32,
        ..ScriptInfo::default()
    };
    writer.finish(info).unwrap();
    let mut mappings = vec![
        ("MAP_SHARED | MAP_ANONYMOUS, -1", true),
        ("MAP_SHARED, file()", true),
        ("MAP_PRIVATE | MAP_ANONYMOUS, -1", false),
    ];
    // Where an administrator has set 64 MiB of huge pages apart: sysctl vm.nr_hugepages=40.
    let pool = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if pool.is_ok_and(|free| free.trim().parse().is_ok_and(|pages: u32| pages >= 32)) {
        mappings.push(("MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1", true));
    }
    for (mapping, elsewhere) in mappings {
        let library = bad_library(
            folder.path(),
            &format!(
                "#include <sys/mman.h>\n#define LARGE (16L << 20)\n\
                 static int file(void) {{ int f = memfd_create(\"pool\", 0); return ftruncate(f, LARGE + 4096) ? -1 : f; }}\n\
                 static char *large[{BLOCKS}];\n\
                 static void *come(size_t s) {{ if (s != LARGE) return __libc_malloc(s);\n\
                   char *p = mmap(0, LARGE, PROT_READ | PROT_WRITE, {mapping}, 0);\n\
                   for (int i = 0; i < {BLOCKS}; i++) if (!large[i]) return large[i] = p; return 0; }}\n\
                 static void go(void *p) {{ for (int i = 0; i < {BLOCKS}; i++) if (p && large[i] == p) {{\n\
                   munmap(p, LARGE); large[i] = 0; return; }} __libc_free(p); }}\n\
                 #define MALLOC(s) come(s)\n#define FREE(p) go(p)"
            ),
        );
        let spec = spec(&script, Measure::Memory, Mode::Lockstep);
        let report = reported(run(&spec, Some(&library)));
        let own = report.own_bytes;
        assert!(own < 16 * MIB, "{mapping}: {own} bytes of the replay's own");
        let curve = report.memory.unwrap();
        let peak = curve.peak_resident_bytes - report.start_anon_bytes;
        let whole = BLOCKS * 16 * MIB..BLOCKS * 16 * MIB + MIB;
        assert!(whole.contains(&peak), "{mapping}: {peak}");
        let wanted = if elsewhere { BLOCKS * 16 * MIB } else { 0 };
        assert_eq!(curve.elsewhere_bytes, wanted, "{mapping}");
        let last = curve.resident_bytes.last().unwrap() - report.start_anon_bytes;
        let one = 16 * MIB..17 * MIB;
        assert!(one.contains(&last), "{mapping}: {last} after the last free");
    }
}

/// The pattern of the checks once stood in blocks that the program never wrote to.
#[test]
fn what_was_never_written_to_is_left_alone() {
    const BLOCKS: u32 = 512;
    const PAGE_LOG2: u8 = 12;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut script = ScriptWriter::create(&path, 1).unwrap();
    // Two pages each, from a page's begin on: the C library's header lies in the page before.
    for slot in 0..BLOCKS {
        let none = Op::new(OpKind::Written, 0, 0, 0, 0, 0);
        let block = Op::new(OpKind::AlignedAlloc, 0, 0, slot, 2 << PAGE_LOG2, PAGE_LOG2);
        script.push(0, none).unwrap();
        script.push(0, block).unwrap();
    }
    for slot in 0..BLOCKS {
        let free = Op::new(OpKind::Free, 0, 0, slot, 2 << PAGE_LOG2, PAGE_LOG2);
        script.push(0, free).unwrap();
    }
    script.order(0, 3 * BLOCKS).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: BLOCKS,
            ..ScriptInfo::default()
        })
        .unwrap();
    let report = report(&RunSpec {
        touch: Touch::Recorded,
        samples: 7,
        ..spec(&path, Measure::Memory, Mode::Lockstep)
    });
    let curve = report.memory.unwrap();
    let requested = u64::from(BLOCKS) * (2 << PAGE_LOG2);
    assert_eq!(curve.unwritten_at_peak_live_bytes, requested);
    let pages = (curve.peak_resident_bytes - report.start_anon_bytes) >> PAGE_LOG2;
    let headers = u64::from(BLOCKS);
    assert!(
        (headers..headers + headers / 2).contains(&pages),
        "{pages} pages for {headers} headers"
    );
}

/// The stack that a replay reaches, and the bare worker did not, stood in every figure.
#[test]
fn beside_the_heap_a_replay_has_no_more_than_the_bare_worker() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let mut writer = ScriptWriter::create(&script, 1).unwrap();
    writer
        .push(0, Op::new(OpKind::Malloc, 0, 0, 0, 100, 0))
        .unwrap();
    writer
        .push(0, Op::new(OpKind::Free, 0, 0, 0, 100, 0))
        .unwrap();
    writer.order(0, 2).unwrap();
    let info = ScriptInfo {
        private_slots: 1,
        ..ScriptInfo::default()
    };
    writer.finish(info).unwrap();
    let spec = spec(&script, Measure::Memory, Mode::Lockstep);
    // Addresses are random: where the stack begins within a page is worth a page.
    let least = |bytes: &dyn Fn() -> u64| (0..8).map(|_| bytes()).min().unwrap();
    let replay = least(&|| report(&spec).memory.unwrap().peak_resident_bytes);
    let bare = least(&|| {
        let out = Command::new(env!("CARGO_BIN_EXE_heaplab-worker"))
            .args(["--baseline", "1"])
            .output()
            .unwrap();
        String::from_utf8(out.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    });
    // The heap is a page.
    assert!(replay <= bare + 8192, "{replay} and {bare} bytes");
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
fn idle_times_of_a_script_are_slept_where_memory_is_measured_and_left_out_elsewhere() {
    const IDLE_NS: u64 = 50_000_000;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let mut writer = ScriptWriter::create(&script, 1).unwrap();
    for (kind, size) in [
        (OpKind::Malloc, 4_001),
        (OpKind::Idle, IDLE_NS),
        (OpKind::Free, 4_001),
        (OpKind::Malloc, 4_002),
        (OpKind::Free, 4_002),
    ] {
        writer.push(0, Op::new(kind, 0, 0, 0, size, 0)).unwrap();
    }
    writer.order(0, 5).unwrap();
    let info = ScriptInfo {
        private_slots: 1,
        ..ScriptInfo::default()
    };
    writer.finish(info).unwrap();
    // What passes on the subject's clock from the first of these blocks to the second.
    let library = bad_library(
        folder.path(),
        "#include <stdio.h>\n#include <time.h>\nstatic long from, to;\n\
         static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }\n\
         static void *seen(size_t s) { if (s == 4001) from = now(); if (s == 4002) to = now(); return __libc_malloc(s); }\n\
         #define MALLOC(s) seen(s)\n\
         size_t heaplab_subject_describe(char *t, size_t n) { return snprintf(t, n, \"passed=%ld\\n\", to - from); }",
    );
    let passed = |report: &Report| report.subject.settings["passed"].parse::<u64>().unwrap();
    let memory = steady(&spec(&script, Measure::Memory, Mode::Lockstep), &library);
    assert_eq!((memory.calls, memory.idle_ns), (4, IDLE_NS));
    assert!(memory.wall_ns >= IDLE_NS, "{}", memory.wall_ns);
    // And 250 ns for a call.
    let beyond = passed(&memory).checked_sub(IDLE_NS);
    assert!(beyond.is_some_and(|ns| ns < 2_000), "{}", passed(&memory));
    for measure in [Measure::Speed, Measure::Latency] {
        let report = reported(run(&spec(&script, measure, Mode::Fast), Some(&library)));
        assert_eq!((report.calls, report.idle_ns), (4, 0));
        assert!(passed(&report) < IDLE_NS, "{}", passed(&report));
    }
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
            // As the harness asks for it.
            let spec = RunSpec {
                expect_library: Some(library.clone()),
                ..spec(&script, measure, mode)
            };
            let report = reported(run(&spec, Some(&library)));
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

/// 8 MiB live for half of the calls, then 128 KiB above 8 MiB of holes for the other half.
fn emptied(path: &Path) {
    const BLOCK: u64 = 64 << 10;
    let mut script = ScriptWriter::create(path, 1).unwrap();
    let mut count = 0;
    let mut push = |kind, slot, size| {
        script.push(0, Op::new(kind, 0, 0, slot, size, 0)).unwrap();
        count += 1;
    };
    for half in 0..2 {
        for slot in 0..128 {
            match half {
                0 => push(OpKind::Malloc, slot, BLOCK),
                _ if slot < 126 => push(OpKind::Free, slot, BLOCK),
                _ => {}
            }
        }
        for _ in 0..2000 {
            push(OpKind::Malloc, 128, 100);
            push(OpKind::Free, 128, 100);
        }
    }
    script.order(0, count).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 129,
            ..ScriptInfo::default()
        })
        .unwrap();
}

#[test]
fn the_mean_footprint_is_not_decided_by_the_calls_after_everything_was_freed() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    emptied(&script);
    let curve = report(&spec(&script, Measure::Memory, Mode::Lockstep))
        .memory
        .unwrap();
    // What lies below live blocks stays resident: 8 MiB all the time, of which 4 live on average. The average of the ratios
    // would be near (1 + 64) / 2.
    let mean = curve.footprint_mean.unwrap();
    assert!((1.8..2.4).contains(&mean), "{mean}");
}

#[test]
fn the_subjects_clock_and_random_numbers_are_the_same_in_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 3, 100);
    // What passes between the constructors and the 50th call, and what is drawn: by mimalloc's way and by libc's.
    let library = bad_library(
        folder.path(),
        "#include <stdio.h>\n#include <sys/random.h>\n#include <sys/syscall.h>\n#include <time.h>\n\
         static unsigned long a, b; static long since, passed, raw;\n\
         static long hard(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC_RAW, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }\n\
         static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }\n\
         __attribute__((constructor)) static void look(void) { since = now(); syscall(SYS_getrandom, &a, 8, 0); getrandom(&b, 8, 0);\n\
         raw = hard(); struct timespec m = { 0, 1000000 }; nanosleep(&m, 0); raw = hard() - raw; }\n\
         static void *seen(size_t s) { if (n == 50) passed = now() - since; return __libc_malloc(s); }\n\
         #define MALLOC(s) seen(s)\n\
         size_t heaplab_subject_describe(char *t, size_t n) { return snprintf(t, n, \"all=%ld %ld %lx %lx %d\\n\", passed, since % 100000000, a, b, raw > 0); }",
    );
    let spec = spec(&script, Measure::Memory, Mode::Lockstep);
    let all = |fixed: bool| match fixed {
        true => steady(&spec, &library),
        false => reported(run(&spec, Some(&library))),
    };
    let all = |fixed| all(fixed).subject.settings["all"].clone();
    let first = all(true);
    for _ in 0..3 {
        assert_eq!(all(true), first);
    }
    let words: Vec<&str> = first.split(' ').collect();
    // 250 ns for each of the calls before, and nothing before the first.
    let passed: u64 = words[0].parse().unwrap();
    assert!((1..100 * 250).contains(&passed), "{first}");
    assert!(words[1] == "0" && words[2] != words[3], "{first}");
    // The clock by which a library measures its counter's frequency goes on: Google's TCMalloc divides by what passed on it.
    assert_eq!(words[4], "1", "{first}");
    assert_ne!(all(false), all(false));
}

/// spanalloc's helper sleeps so, on a futex until the clock shows a time.
#[test]
fn a_thread_of_the_subjects_own_wakes_at_the_same_ops_in_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    single(&script, 2_000);
    let library = bad_library(
        folder.path(),
        "#include <pthread.h>\n#include <stdio.h>\n#include <sys/syscall.h>\n#include <time.h>\n\
         static unsigned long at[64]; static int looks;\n\
         static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC_COARSE, &t); return t.tv_sec * 1000000000 + t.tv_nsec; }\n\
         static void *helper(void *p) { static int word; for (;;) {\n\
           for (long end = now() + 10000000; now() < end;) {\n\
             struct timespec t = { 0, end - now() }; syscall(SYS_futex, &word, 128, 0, &t, 0, 0); }\n\
           if (looks < 64) at[looks++] = n; } return p; }\n\
         static void begin(void) { pthread_t t; pthread_create(&t, 0, helper, 0); }\n\
         /* Nothing of the allocator's lasts as long in one run as in another. */\n\
         static void *slow(size_t s) { if (n == 1000) begin(); if (n % 5000 == 0) usleep(getpid() % 7 * 1000); return __libc_malloc(s); }\n\
         #define MALLOC(s) slow(s)\n\
         size_t heaplab_subject_describe(char *t, size_t n) { int l = 0; for (int i = 0; i < looks && l < 4000; i++)\n\
           l += snprintf(t + l, n - l, i ? \" %lu\" : \"at=%lu\", at[i]); return l + snprintf(t + l, n - l, \"\\n\"); }",
    );
    let all = |idle_tail_ms| {
        let spec = RunSpec {
            idle_tail_ms,
            ..spec(&script, Measure::Memory, Mode::Lockstep)
        };
        steady(&spec, &library).subject.settings["at"].clone()
    };
    // 258,000 calls are 64 ms on the clock; a look takes 12 of them, as the clock has steps of 4.
    let first = all(0);
    assert_eq!(first.split(' ').count(), 5, "{first}");
    for _ in 0..5 {
        assert_eq!(all(0), first);
    }
    // In the tail it goes on.
    let tail = all(60);
    assert!(tail.starts_with(&first), "{tail}");
    assert_eq!(tail.split(' ').count(), 10, "{tail}");
}

#[test]
fn the_clock_goes_on_by_what_the_subject_takes_beyond_the_recorded_allocator() {
    const PAIRS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let (script, times) = (folder.path().join("s"), folder.path().join("t"));
    timed(&script, 2 * PAIRS);
    // Nanoseconds on its clock from a call to the one PAIRS pairs later, and in a call; each waits for some ticks of the counter.
    let library = |ticks: u64| {
        let folder = folder.path().join(ticks.to_string());
        std::fs::create_dir(&folder).unwrap();
        bad_library(
            &folder,
            &format!(
                "#include <stdio.h>\n#include <time.h>\n#include <x86intrin.h>\nstatic long made, from, to, within, before, back;\n\
                 static long now(void) {{\n\
                   struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t);\n\
                   long ns = t.tv_sec * 1000000000 + t.tv_nsec; back += ns < before; return before = ns;\n\
                 }}\n\
                 static void *slow(size_t s) {{\n\
                   if (s == 1000) {{\n\
                     long begin = now(), since = __rdtsc(); if (++made == 50) from = begin; if (made == 50 + {PAIRS}) to = begin;\n\
                     while (__rdtsc() - since < {ticks}) {{}}\n\
                     within = now() - begin;\n\
                   }}\n\
                   return __libc_malloc(s);\n\
                 }}\n\
                 #define MALLOC(s) slow(s)\n\
                 size_t heaplab_subject_describe(char *t, size_t n) {{ return snprintf(t, n, \"passed=%ld\\nwithin=%ld\\nback=%ld\\n\", to - from, within, back); }}"
            ),
        )
    };
    let told = |library: &Path, clock: Option<RecordedClock>| {
        let spec = RunSpec {
            recorded_clock: clock,
            ..spec(&script, Measure::Memory, Mode::Lockstep)
        };
        let Answer::Ok(report) = run(&spec, Some(library)) else {
            panic!("failed")
        };
        let number = |name: &str| {
            let told = &report.subject.settings[name];
            told.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}={told}"))
        };
        assert_eq!(number("back"), 0, "the clock went back");
        (number("passed"), number("within"))
    };
    // What else the machine does is on the thread's clock at times.
    let told = |library: &Path, clock: Option<RecordedClock>| {
        let mut runs: Vec<_> = (0..5).map(|_| told(library, clock.clone())).collect();
        runs.sort_unstable();
        runs[2]
    };
    let (quick, slow) = (library(0), library(300_000));
    let clock = |recorder_ns, keep: bool, recorded: bool| {
        Some(RecordedClock {
            recorder_ns,
            keep: keep.then(|| times.clone()),
            recorded: recorded.then(|| times.clone()),
        })
    };
    // Recorded times; less than the recorder took of two events a pair, and with what passes in a call before it is asked for.
    assert_eq!(told(&slow, None), (PAIRS * 4_000, 0));
    let near = |told: u64, wanted: u64| assert!(told.abs_diff(wanted) < 20_000, "{told}");
    near(told(&slow, clock(500.0, false, false)).0, PAIRS * 3_000);
    near(told(&quick, clock(0.0, true, false)).0, PAIRS * 4_000);
    // 300,000 ticks are at least 50 µs on any machine, and time goes on in the call.
    let (passed, within) = told(&slow, clock(0.0, false, true));
    assert!(passed >= PAIRS * 54_000, "{passed}");
    assert!(within >= 50_000, "{within}");
    // Against its own times next to nothing is left.
    told(&slow, clock(0.0, true, false));
    let (own, _) = told(&slow, clock(0.0, false, true));
    assert!(own < passed / 2, "{own} of {passed}");
    // Where time is measured the clock shows the recorded times, however fast the calls are.
    let timed = RunSpec {
        recorded_clock: clock(0.0, false, false),
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    let Answer::Ok(report) = run(&timed, Some(&quick)) else {
        panic!("failed")
    };
    assert_eq!(
        report.subject.settings["passed"],
        (PAIRS * 4_000).to_string()
    );
    // Times of another script.
    std::fs::write(&times, [0; 4]).unwrap();
    let spec = RunSpec {
        recorded_clock: clock(0.0, false, true),
        ..spec(&script, Measure::Memory, Mode::Lockstep)
    };
    let Answer::Failed { reason } = run(&spec, None) else {
        panic!("taken")
    };
    assert!(reason.contains("are of another script"), "{reason}");
}
