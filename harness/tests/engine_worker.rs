//! Workers as the harness runs them: every built-in subject, and subjects that crash or hang.

use heaplab::calibrate::baseline_bytes;
use heaplab::exec::{Limits, run_worker, worker_command};
use heaplab::subject::{self, Subject};
use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_SHARED, Op, OpKind};
use heaplab_worker::protocol::{Api, Measure, Mode, RunSpec, Touch};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn script(path: &Path) {
    let mut script = ScriptWriter::create(path, 1).unwrap();
    for round in 0..200u64 {
        for slot in 0..32u32 {
            script
                .push(
                    0,
                    Op::new(
                        OpKind::Malloc,
                        0,
                        0,
                        slot,
                        16 + (round * 97 + u64::from(slot) * 61) % 2000,
                        0,
                    ),
                )
                .unwrap();
        }
        for slot in 0..32u32 {
            script
                .push(
                    0,
                    Op::new(
                        OpKind::Free,
                        0,
                        0,
                        slot,
                        16 + (round * 97 + u64::from(slot) * 61) % 2000,
                        0,
                    ),
                )
                .unwrap();
        }
    }
    script.order(0, 200 * 64).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: 32,
            ..ScriptInfo::default()
        })
        .unwrap();
}

fn spec(script: &Path, measure: Measure) -> RunSpec {
    RunSpec {
        mode: if measure == Measure::Memory {
            Mode::Lockstep
        } else {
            Mode::Fast
        },
        touch: Touch::Page,
        api: Api::Sized,
        integrity: true,
        samples: 20,
        ..RunSpec::new(script.to_owned(), measure)
    }
}

#[test]
fn every_built_in_subject_replays_and_keeps_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    script(&path);
    for subject in subject::parse("system,jemalloc,mimalloc,mimalloc-v3,spanalloc,null").unwrap() {
        for measure in [Measure::Speed, Measure::Latency, Measure::Memory] {
            if subject.name == "null" && measure == Measure::Memory {
                continue;
            }
            let report =
                run_worker(&subject, &spec(&path, measure), &Limits::seconds(120)).unwrap();
            assert_eq!(report.calls, 200 * 64);
            assert_eq!(report.memory.is_some(), measure == Measure::Memory);
        }
    }
}

fn bad(folder: &Path, malloc: &str) -> Subject {
    let (source, library) = (folder.join("bad.c"), folder.join("libbad.so"));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <unistd.h>\n\
         extern void *__libc_malloc(size_t); extern void __libc_free(void *);\n\
         extern void *__libc_calloc(size_t, size_t); extern void *__libc_realloc(void *, size_t);\n\
         extern void *__libc_memalign(size_t, size_t);\nstatic unsigned long n;\n\
         void *malloc(size_t s) {{ n++; {malloc} return __libc_malloc(s); }}\n\
         void *calloc(size_t a, size_t b) {{ return __libc_calloc(a, b); }}\n\
         void *realloc(void *p, size_t s) {{ return __libc_realloc(p, s); }}\n\
         void *aligned_alloc(size_t a, size_t s) {{ return __libc_memalign(a, s); }}\n\
         void free(void *p) {{ __libc_free(p); }}\n"
    );
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-fno-builtin", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
    subject::parse(library.to_str().unwrap()).unwrap().remove(0)
}

#[test]
fn a_subject_that_crashes_or_hangs_gives_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    script(&path);
    let limits = Limits {
        timeout: Duration::from_secs(3),
        cancel: None,
    };
    for (malloc, wanted) in [
        (
            "if (n == 500) *(volatile int *)8 = 1;",
            "killed by SIGSEGV (invalid memory access)",
        ),
        (
            "if (n == 500) { write(2, \"arena corrupt\\n\", 14); _exit(9); }",
            "exit status 9); its last words: arena corrupt",
        ),
        ("if (n == 500) for (;;) pause();", "hung: killed after 3 s"),
        (
            "if (n == 500) return (void *)((char *)__libc_malloc(s + 16) + 1);",
            "misaligned block",
        ),
    ] {
        let subject = bad(folder.path(), malloc);
        let failure = run_worker(&subject, &spec(&path, Measure::Speed), &limits).unwrap_err();
        assert!(failure.reason.contains(wanted), "{wanted}: {failure}");
    }
}

#[test]
fn the_printed_command_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    script(&path);
    let subject = subject::parse("jemalloc:dirty_decay_ms=5")
        .unwrap()
        .remove(0);
    let line = worker_command(&subject, &spec(&path, Measure::Speed)).unwrap();
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("\"status\":\"ok\"") && text.contains("\"dirty_decay_ms\":\"5\""),
        "{output:?}"
    );
}

/// Thread 1 frees 5,000 blocks and ends; thread 2 begins after that and allocates: null gives it what thread 1 left.
#[test]
fn null_serves_threads_that_follow_others() {
    const BLOCKS: u32 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut script = ScriptWriter::create(&path, 3).unwrap();
    let mut push = |thread, kind, slot| {
        let flags = if kind == OpKind::ThreadStart {
            0
        } else {
            FLAG_SHARED
        };
        script
            .push(thread, Op::new(kind, flags, 0, slot, 64, 0))
            .unwrap();
        script.order(thread, 1).unwrap();
    };
    push(0, OpKind::ThreadStart, 1);
    for slot in 0..BLOCKS {
        push(0, OpKind::Malloc, slot);
    }
    for slot in 0..BLOCKS {
        push(1, OpKind::Free, slot);
    }
    push(0, OpKind::ThreadStart, 2);
    for slot in BLOCKS..3 * BLOCKS {
        push(2, OpKind::Malloc, slot);
    }
    script
        .finish(ScriptInfo {
            shared_slots: 3 * BLOCKS,
            ..ScriptInfo::default()
        })
        .unwrap();
    let null = subject::parse("null").unwrap().remove(0);
    let spec = RunSpec {
        mode: Mode::Lockstep,
        touch: Touch::None,
        null: true,
        ..RunSpec::new(path, Measure::Speed)
    };
    let report = run_worker(&null, &spec, &Limits::seconds(60)).unwrap();
    assert_eq!(report.calls, u64::from(4 * BLOCKS));
}

/// What waits for a free block's line of the cache would count as the harness's own cost.
#[test]
fn null_touches_no_free_block() {
    const LOOKS: &str = r#"
import ctypes
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [c.malloc(3000) for _ in range(12000)]
for block in blocks: ctypes.memset(block, 0xa5, 3000)
for block in blocks: c.free(block)
written = sum(ctypes.string_at(block, 3000) != b"\xa5" * 3000 for block in blocks)
again = len({c.malloc(3000) for _ in range(12000)} & set(blocks))
print(written, again)
"#;
    let null = subject::parse("null").unwrap().pop().unwrap();
    let out = Command::new("/usr/bin/python3")
        .env("LD_PRELOAD", null.library.unwrap())
        .args(["-c", LOOKS])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let numbers: Vec<u32> = said
        .split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect();
    // A few may be Python's own again. A stack holds 4,096, so that the others have come through batches.
    assert!(
        numbers[0] < 50 && numbers[1] > 11_900,
        "written and found again: {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// What of a worker is not in the bare one would be in every figure, and what differs from process to process in some: the stack that
/// a run reaches and the statics that it writes to were.
#[test]
fn of_a_replay_only_the_heap_is_not_in_the_bare_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut script = ScriptWriter::create(&path, 1).unwrap();
    for kind in [OpKind::Malloc, OpKind::Free] {
        script.push(0, Op::new(kind, 0, 0, 0, 100, 0)).unwrap();
    }
    script.order(0, 2).unwrap();
    let info = ScriptInfo {
        private_slots: 1,
        ..ScriptInfo::default()
    };
    script.finish(info).unwrap();
    let limits = Limits::seconds(60);
    let system = subject::parse("system").unwrap().remove(0);
    let bare = baseline_bytes(1, &limits).unwrap();
    for fixed in [true, false] {
        let heap = |round: usize| {
            let mut spec = RunSpec {
                api: Api::Malloc,
                ..spec(&path, Measure::Memory)
            };
            spec.machine.fixed_addresses = fixed;
            let subject = Subject {
                // Variables lie above the stack.
                env: vec![("LONG".to_owned(), "x".repeat(round * 3000))],
                ..system.clone()
            };
            let report = run_worker(&subject, &spec, &limits).unwrap();
            report.memory.unwrap().peak_resident_bytes - bare
        };
        // At random addresses the loader has a page more once in a hundred times.
        let least = (0..4).map(heap).min();
        assert_eq!(least, Some(4096), "fixed addresses: {fixed}");
    }
}
