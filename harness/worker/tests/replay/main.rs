//! The worker from outside: small scripts against the system's allocator and against libraries that break a rule each.

mod integrity;
mod memory;
mod sized;
mod support;
mod timing;
mod touch;

use heaplab_script::file::{ScriptInfo, ScriptWriter};
use heaplab_script::{FLAG_INHERITED, Op, OpKind};
use heaplab_worker::protocol::{Answer, Api, Measure, Mode, RunSpec, Touch};
use std::path::Path;
use std::process::Command;
use support::{bad_library, handed_over, report, reported, run, single, spec, timed};

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

/// Mallocs and frees are played four at a time where nothing else lies between them.
#[test]
fn each_call_is_made_with_its_size_on_its_slot() {
    const SLOTS: usize = 61;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut script = ScriptWriter::create(&path, 1).unwrap();
    let (mut live, mut state, mut allocated, mut freed) = ([0u64; SLOTS], 1u64, 0, 0);
    for number in 0..4_003u64 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let slot = (state >> 40) as usize % SLOTS;
        let (kind, flags, size) = match live[slot] {
            0 => (OpKind::Malloc, 0, 5000 + number % 2000),
            size if number % 97 < 3 => (OpKind::Realloc, 0, size),
            size => (
                OpKind::Free,
                if number % 5 == 0 { FLAG_INHERITED } else { 0 },
                size,
            ),
        };
        match kind {
            OpKind::Malloc => (live[slot], allocated) = (size, allocated + size),
            OpKind::Free => (live[slot], freed) = (0, freed + size),
            _ => {}
        }
        script
            .push(0, Op::new(kind, flags, 0, slot as u32, size, 0))
            .unwrap();
    }
    script.order(0, 4_003).unwrap();
    script
        .finish(ScriptInfo {
            private_slots: SLOTS as u32,
            ..ScriptInfo::default()
        })
        .unwrap();
    // Each block tells its size, which nothing overwrites without a touch.
    let library = bad_library(
        folder.path(),
        "#include <stdio.h>\nstatic unsigned long in, out;\n\
         static size_t mine(size_t s) { return s >= 5000 && s < 7000 ? s : 0; }\n\
         static void *come(size_t s) { size_t *p = __libc_malloc(s + 8); in += mine(s); *p = s; return p; }\n\
         static void go(size_t *p) { if (p) out += mine(*p); __libc_free(p); }\n\
         #define MALLOC(s) come(s)\n#define FREE(p) go(p)\n\
         size_t heaplab_subject_describe(char *t, size_t n) { return snprintf(t, n, \"in=%lu\\nout=%lu\\n\", in, out); }",
    );
    let spec = RunSpec {
        touch: Touch::None,
        ..spec(&path, Measure::Speed, Mode::Fast)
    };
    let Answer::Ok(report) = run(&spec, Some(&library)) else {
        panic!("failed")
    };
    let told = ["in", "out"].map(|name| report.subject.settings[name].parse::<u64>().unwrap());
    assert_eq!(told, [allocated, freed]);
}

#[test]
fn two_hundred_threads_finish_on_two_cpus() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    handed_over(&script, 200, 20);
    for mode in [Mode::Fast, Mode::Lockstep] {
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0,1", env!("CARGO_BIN_EXE_heaplab-worker")])
            .arg(serde_json::to_string(&spec(&script, Measure::Speed, mode)).unwrap());
        let output = command.output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        let report = reported(serde_json::from_str(answer.trim()).unwrap());
        assert_eq!(report.calls, 199 * 20 * 2);
        assert!(report.cpus <= 2, "{}", report.cpus);
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
    // Of the script a window, and the pages of the libraries that were needed.
    assert!(
        report.file_bytes < LIMIT / 2,
        "{} bytes of files",
        report.file_bytes
    );
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

/// Threads that each keep `live` blocks and churn over them, so that ops can be many while slots are few.
fn kept(path: &Path, threads: u32, live: u32, rounds: u64) {
    let mut script = ScriptWriter::create(path, threads).unwrap();
    for thread in 0..threads {
        let mut count = 0;
        let mut push = |op| {
            script.push(thread, op).unwrap();
            count += 1;
        };
        for round in 0..=rounds {
            for block in 0..live {
                let slot = thread * live + block;
                if round > 0 {
                    push(Op::new(OpKind::Free, 0, 0, slot, 64, 0));
                }
                push(Op::new(OpKind::Malloc, 0, 0, slot, 64, 0));
            }
        }
        script.order(thread, count).unwrap();
    }
    script
        .finish(ScriptInfo {
            private_slots: threads * live,
            ..ScriptInfo::default()
        })
        .unwrap();
}

/// The bound of `docs/METHODOLOGY.md`; the worker itself ends a run that is beyond it, so what is printed is read here.
#[test]
fn the_replay_itself_needs_memory_by_thread_and_by_live_block_and_none_by_op() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s");
    let files = std::cell::Cell::new(0);
    let own = |threads: u32, live: u32, rounds: u64, measure, mode| {
        kept(&script, threads, live, rounds);
        let report = report(&spec(&script, measure, mode));
        files.set(report.file_bytes);
        report.own_bytes
    };
    for (measure, mode) in [
        (Measure::Speed, Mode::Fast),
        (Measure::Latency, Mode::Fast),
        (Measure::Memory, Mode::Lockstep),
    ] {
        let few = own(1, 1000, 1, measure, mode);
        assert!(few < 16 * MIB, "{measure:?}: {few} bytes for one thread");
        let longer = own(1, 1000, 200, measure, mode);
        // The script, mapped whole, is not among it, and is all that there is of files besides libraries.
        let (size, files) = (std::fs::metadata(&script).unwrap().len(), files.get());
        assert!(
            (size..size + 8 * MIB).contains(&files),
            "{measure:?}: {files} bytes of files for a script of {size}"
        );
        assert!(
            longer < few + 64 * 1024,
            "{measure:?}: {few} bytes, {longer} with 100 times as many ops"
        );
        let threads = own(32, 10, 1, measure, mode);
        assert!(
            threads < 32 * 16 * MIB,
            "{measure:?}: {threads} bytes for 32 threads"
        );
        let blocks = own(1, 200_000, 1, measure, mode);
        assert!(
            blocks < 16 * MIB + 200_000 * 256,
            "{measure:?}: {blocks} bytes for 200,000 live blocks"
        );
        println!(
            "{measure:?}: {few}, 100 times the ops {longer}, 32 threads {threads}, 200,000 live blocks {blocks} bytes"
        );
    }
}
