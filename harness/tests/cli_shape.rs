//! The machine as the subject sees it, modes, tails, A/A, and the rules of integrity over everything that is built in.

mod support;

use heaplab_reports::schema::{ResultSet, Status};
use std::path::Path;
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
    }
}
