//! The machine as the subject sees it, modes, tails, A/A, and the rules of integrity over everything that is built in.

mod support;

use heaplab_reports::schema::{ResultSet, Status};
use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{
    FinishInfo, MachineShape, ResolveOptions, TraceHeader, resolve_file,
};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use support::{heaplab, run};

fn measured(folder: &Path, words: &str) -> ResultSet {
    let (status, out, err) =
        run(heaplab(folder)
            .args(words.split(' '))
            .args(["--format", "json", "--no-report"]));
    assert_eq!(status, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_machine_is_part_of_the_cell_and_subjects_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let result = measured(
        folder.path(),
        "run churn --scale 0.01 --seed 7 --blocks 1 --measure memory --idle 40ms -a system,jemalloc \
         --cpus 64 --thp never --memory-limit 512MiB",
    );
    for cell in &result.cells {
        assert_eq!((cell.cpus, cell.thp.as_str()), (64, "never"));
        assert_eq!(cell.memory_limit, Some(512 << 20));
        for metric in [
            "resident_after_idle_40ms_bytes",
            "resident_after_trickle_40ms_bytes",
            "lazyfree_after_idle_bytes",
            "sampling_error_bytes",
        ] {
            assert!(cell.metrics.contains_key(metric), "{metric}");
        }
        let line = cell.timeline.as_ref().unwrap();
        assert_eq!(line.lazyfree_bytes.as_ref().unwrap().len(), line.ops.len());
    }
    let setting = |subject: usize, key: &str| result.subjects[subject].settings[key].clone();
    assert_eq!(setting(0, "glibc.malloc.arena_max"), "512");
    assert_eq!(
        setting(1, "narenas"),
        "256",
        "jemalloc takes four for a CPU"
    );
    let notes = result.notes.join("\n");
    assert!(notes.contains("memory limit is"), "{notes}");
    assert!(notes.contains("; smaps_rollup "), "{notes}");
}

/// A trace of some blocks that says of how many CPUs it was recorded on.
fn recorded_on(cpus: u32, folder: &Path) {
    let header = TraceHeader {
        machine: MachineShape {
            cpus,
            page_size: 4096,
            ..MachineShape::default()
        },
        ..TraceHeader::default()
    };
    let raw = folder.join("t.raw");
    let mut writer = RawWriter::create(&raw, &header).unwrap();
    writer.thread_start(0, 1000, 0).unwrap();
    let events: Vec<RawEvent> = (0..2000)
        .map(|number| RawEvent {
            time_ns: 1000 * number,
            address: 0x7000_0000 + 4096 * (number / 2 % 16),
            size: if number % 2 == 0 { 500 } else { 0 },
            kind: [RawKind::Malloc, RawKind::Free][number as usize % 2],
            align_log2: 0,
        })
        .collect();
    writer.events(0, &events).unwrap();
    writer.thread_end(0, u64::MAX / 4).unwrap();
    writer.finish(FinishInfo::default()).unwrap();
    let out = folder.join("t.hltrace");
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
}

#[test]
fn a_trace_is_replayed_on_as_many_cpus_as_it_was_recorded_on() {
    let folder = tempfile::tempdir().unwrap();
    recorded_on(64, folder.path());
    let words =
        "run t.hltrace --seed 7 --blocks 1 --measure memory --idle 0s -a jemalloc --no-report -o";
    let told = |folder_name: &str, more: &[&str]| {
        let (status, out, err) = run(heaplab(folder.path())
            .args(words.split(' '))
            .arg(folder_name)
            .args(more));
        assert_eq!(status, 0, "{err}");
        let text =
            std::fs::read_to_string(folder.path().join(folder_name).join("result.json")).unwrap();
        let result: ResultSet = serde_json::from_str(&text).unwrap();
        let arenas = result.subjects[0].settings["narenas"].clone();
        (result.cells[0].cpus, arenas, out)
    };
    let (cpus, arenas, screen) = told("recorded", &["--cpus", "recorded"]);
    assert_eq!((cpus, arenas.as_str()), (64, "256"));
    assert!(
        screen.contains("recorded on 64 CPUs (emulated; here"),
        "{screen}"
    );
    // Otherwise on those there are, which the screen says beside it.
    let (cpus, arenas, screen) = told("here", &[]);
    assert!(cpus != 64 && arenas != "256", "{cpus} CPUs, {arenas}");
    assert!(screen.contains("recorded on 64 CPUs (here"), "{screen}");
}

/// Random addresses and a CPU of its own for times; the same addresses in every run for memory and counts.
#[test]
fn addresses_are_random_for_times_and_the_same_for_memory_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    // The kernel's mask: the worker tells libraries another one, as a bound thread must not look like a smaller machine.
    std::fs::write(
        folder.path().join("where.c"),
        "#define _GNU_SOURCE\n#include <sched.h>\n#include <stdio.h>\n#include <stddef.h>\n#include <sys/syscall.h>\n#include <unistd.h>\n\
         extern void *__libc_malloc(size_t), __libc_free(void *), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);\n\
         extern void *__libc_memalign(size_t, size_t);\n\
         void *malloc(size_t s) { return __libc_malloc(s); }\nvoid free(void *p) { __libc_free(p); }\n\
         void *calloc(size_t a, size_t b) { return __libc_calloc(a, b); }\n\
         void *realloc(void *p, size_t s) { return __libc_realloc(p, s); }\n\
         void *aligned_alloc(size_t a, size_t s) { return __libc_memalign(a, s); }\n\
         size_t heaplab_subject_describe(char *b, size_t n) { int local; cpu_set_t set; CPU_ZERO(&set);\n\
           syscall(SYS_sched_getaffinity, 0, sizeof set, &set, 0, 0, 0);\n\
           return snprintf(b, n, \"stack=%p\\nlibrary=%p\\nmask=%d\\n\", (void *)&local, (void *)malloc, CPU_COUNT(&set)); }\n",
    )
    .unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin"])
        .args(["-o", "libwhere.so", "where.c"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(built.success());
    measured(
        folder.path(),
        "run json-dom --scale 0.002 --seed 7 --blocks 3 --measure speed,latency,memory,counts --idle 0s -a ./libwhere.so -o r",
    );
    let journal = std::fs::read_to_string(folder.path().join("r/runs.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = (journal.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for measure in ["speed", "latency", "memory", "counts"] {
        let told = |name: &str| -> Vec<String> {
            (lines.iter())
                .filter(|line| line["measure"] == measure && line["subject"] != "null")
                .map(|line| &line["answer"]["subject"]["settings"][name])
                .map(|value| value.as_str().unwrap().to_owned())
                .collect()
        };
        let timed = matches!(measure, "speed" | "latency");
        for name in ["stack", "library"] {
            let all = told(name);
            assert!(all.len() >= 3, "{measure}: {all:?}");
            let different: HashSet<&String> = all.iter().collect();
            let wanted = if timed { all.len() } else { 1 };
            assert_eq!(different.len(), wanted, "{measure}, {name}: {all:?}");
        }
        if timed {
            assert!(told("mask").iter().all(|cpus| cpus == "1"), "{measure}");
        }
    }
}

#[test]
fn a_run_beyond_its_memory_limit_is_a_failed_row() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, err) = run(heaplab(folder.path()).args(
        "run fragmenter --seed 7 --blocks 1 --measure memory -a system --memory-limit 4MiB --format json --no-report"
            .split(' '),
    ));
    assert_eq!(status, 4, "{err}");
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    assert_eq!(result.cells[0].status, Status::Failed);
    let reason = result.cells[0].reason.as_ref().unwrap();
    // Where no control group can be made the allocator is refused memory instead.
    let by_kernel = reason.contains("at the memory limit of 4.00 MiB; the workload has up to 29");
    assert!(by_kernel || reason.contains("returned null"), "{reason}");
}

/// The worker's own tables, its code and what it maps of the script have room beside the subject.
#[test]
fn a_script_ten_times_as_large_as_the_memory_limit_is_replayed_in_windows() {
    const LIMIT: u64 = 4 << 20;
    let folder = tempfile::tempdir().unwrap();
    let words = "run tiny-churn --scale 0.55 --seed 7 --blocks 1 --measure memory,speed,latency -a system,jemalloc,mimalloc,spanalloc";
    let limited = measured(
        folder.path(),
        &format!("{words} --memory-limit {LIMIT} -o r"),
    );
    let free = measured(folder.path(), words);
    let script = std::fs::read_to_string(folder.path().join("r/runs.jsonl")).unwrap();
    for line in script.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let answer = &line["answer"];
        assert_eq!(answer["windowed"], true, "{line}");
        assert!(answer["own_bytes"].as_u64().unwrap() < LIMIT / 4, "{line}");
        // 16 bytes for each of the script's calls.
        let measured = answer["memory"]["ops"].as_array();
        if let Some(calls) = measured.and_then(|ops| ops.last()?.as_u64()) {
            assert!(calls * 16 > 10 * LIMIT, "{calls} calls");
        }
    }
    let live = |result: &ResultSet| -> Vec<f64> {
        (result.cells.iter())
            .map(|cell| cell.metrics["peak_live_bytes"].median)
            .collect()
    };
    assert_eq!(live(&limited), live(&free));
}

#[test]
fn huge_pages_are_used_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = "/sys/kernel/mm/transparent_hugepage/enabled";
    let allowed = std::fs::read_to_string(file).is_ok_and(|text| !text.contains("[never]"));
    let words = "run churn --seed 7 --blocks 1 --measure memory -a system,jemalloc --thp always";
    if !allowed {
        let (status, _, _) = run(heaplab(folder.path()).args(words.split(' ')));
        assert_eq!(status, 4);
        return;
    }
    measured(folder.path(), &format!("{words} -o r"));
    let journal = std::fs::read_to_string(folder.path().join("r/runs.jsonl")).unwrap();
    for line in journal.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let huge = line["answer"]["memory"]["huge_bytes"].as_u64().unwrap();
        assert!(huge >= 2 << 20, "{}: {huge}", line["subject"]);
    }
}

#[test]
fn paced_traces_keep_their_time_and_models_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let result = measured(
        folder.path(),
        "run sqlite-insert --scale 0.02 --seed 7 --blocks 1 --mode paced --pace 0.5 -a system",
    );
    let cell = &result.cells[0];
    assert_eq!(cell.metrics["ns_per_op"].mode, "paced");
    assert_eq!(cell.metrics["peak_resident_bytes"].mode, "paced");
    assert!(cell.latency["malloc"].count > 0);
    assert!(result.notes.iter().any(|note| note.starts_with("paced: ")));
    let (status, _, err) =
        run(heaplab(folder.path()).args(["run", "churn", "--mode", "paced", "--blocks", "1"]));
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("no recorded times"), "{err}");
}

/// Needs the packages valgrind and strace.
#[test]
fn instructions_are_those_of_the_ops_and_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let result = measured(
        folder.path(),
        "run json-dom --scale 0.02 --seed 7 --blocks 2 --measure counts -a system,spanalloc",
    );
    assert_eq!(result.cells.len(), 2);
    for cell in &result.cells {
        let metric = |name: &str| &cell.metrics[name];
        let (all, inside) = (metric("instructions"), metric("instructions_in_subject"));
        assert_eq!((all.low, inside.low), (all.high, inside.high), "{cell:?}");
        assert!(inside.median > 0.0 && metric("syscalls").median > 0.0);
        // The replay itself takes 20 an op; opening and checking the script would add 29.
        let own = (all.median - inside.median) / result.workloads[0].ops as f64;
        assert!((10.0..40.0).contains(&own), "{own} instructions an op");
    }
}

#[test]
fn an_aa_pair_is_noise_beside_the_rows_not_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let result = measured(
        folder.path(),
        "run churn --scale 0.01 --seed 7 --blocks 6 --measure speed,memory -a system --aa",
    );
    assert_eq!((result.cells.len(), result.subjects.len()), (1, 1));
    let aa = result.calibration.aa.unwrap();
    assert_eq!(aa["of"], 2);
    assert_eq!(aa["pairs"][0]["ratio"]["pairs"], 6);
    assert!(result.notes.iter().any(|note| note.starts_with("A/A: ")));
    assert!(!result.calibration.touching_by_workload.is_empty());
}

/// Memory runs check alignment, overlap, contents, zeroes and what realloc keeps.
#[test]
fn every_built_in_subject_keeps_the_rules_on_every_built_in_workload() {
    let folder = tempfile::tempdir().unwrap();
    let names = heaplab_workloads::Workload::builtin_names();
    // Frees with a size take another way in a few kinds of programs only: aligned blocks, realloc, other threads' blocks.
    let sized = ["realloc-growth", "producer-consumer", "sqlite-insert"];
    for (api, names) in [("malloc", &names[..]), ("sized", &sized)] {
        let result = measured(
            folder.path(),
            &format!(
                "run {} --scale 0.001 --seed 7 --blocks 1 --measure memory --api {api} -a \
                 system,jemalloc,mimalloc,mimalloc-v3,spanalloc",
                names.join(" ")
            ),
        );
        assert_eq!(result.cells.len(), 5 * names.len());
        for cell in &result.cells {
            assert_eq!(cell.status, Status::Ok, "{cell:?}");
        }
        // The entry that frees took is told of each subject, and of none where frees have no size.
        for subject in &result.subjects {
            let told = (subject.notes.iter()).find(|note| note.starts_with("api sized"));
            let entry = match subject.name.as_str() {
                "system" => "free: the library has no sized one",
                _ => "free_sized",
            };
            let wanted = (api == "sized").then(|| format!("api sized frees with {entry}"));
            assert_eq!(told, wanted.as_ref(), "{}", subject.name);
        }
    }
}
