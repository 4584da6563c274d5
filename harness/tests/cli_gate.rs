//! The gate from the command line: the same thing twice passes, a head that needs more fails, a hole is no pass.

mod support;

use support::{heaplab, run};

const SMALL: [&str; 8] = [
    "churn",
    "--scale",
    "0.02",
    "--measure",
    "memory",
    "--blocks",
    "2",
    "--no-report",
];

fn gate(base: &str, head: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let sides = ["gate", "run", "--seed", "7", "--base", base, "--head", head];
    run(heaplab(folder.path()).args(sides).args(SMALL))
}

#[test]
fn the_same_allocator_passes() {
    let (status, out, err) = gate("system", "system");
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.starts_with("PASS"), "{out}");
}

#[test]
fn a_head_that_needs_more_memory_is_a_regression_that_can_be_reproduced() {
    // On a heap of one megabyte jemalloc needs more than half as much again as the C library.
    let (status, out, err) = gate("system", "new=jemalloc");
    assert_eq!(status, 1, "{out}{err}");
    assert!(
        out.contains("REGRESSION")
            && out.contains("peak_resident_bytes")
            && out.contains("--only churn"),
        "{out}"
    );
}

#[test]
fn a_missing_cell_is_never_a_pass() {
    let folder = tempfile::tempdir().unwrap();
    let one = [
        "run",
        "-a",
        "system",
        "--seed",
        "7",
        "--scale",
        "0.01",
        "--measure",
        "memory",
        "--blocks",
        "2",
    ];
    let made = |workloads: &[&str], out: &str| {
        let (status, _, err) = run(heaplab(folder.path())
            .args(one)
            .args(["--no-report", "-o", out])
            .args(workloads));
        assert_eq!(status, 0, "{err}");
    };
    made(&["churn", "async-tasks"], "old");
    made(&["churn"], "new");
    let compare =
        |old: &str, new: &str| run(heaplab(folder.path()).args(["gate", "compare", old, new]));
    let (status, out, _) = compare("old", "new");
    assert_eq!(status, 4, "{out}");
    let (status, out, _) = compare("old", "old");
    assert_eq!(status, 0, "{out}");
}

#[test]
fn what_a_gate_does_not_judge_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) = run(heaplab(folder.path())
        .args([
            "gate", "run", "--base", "system", "--head", "system", "--idle", "10s",
        ])
        .args(SMALL));
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("--idle"), "{err}");
}

/// jemalloc gives back by the clock: by the real one it would do so at other calls in each run, and slow as a run under callgrind is, more
/// often than in a program.
#[test]
fn counts_repeat_whatever_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) = run(heaplab(folder.path()).args([
        "run",
        "web-server",
        "--scale",
        "0.2",
        "-a",
        "jemalloc",
        "--measure",
        "counts",
        "--blocks",
        "3",
        "--seed",
        "7",
        "--no-report",
        "-o",
        "r",
    ]));
    assert_eq!(status, 0, "{err}");
    let result = std::fs::read_to_string(folder.path().join("r/result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    let samples = &result["cells"][0]["metrics"]["instructions_in_subject"]["samples"];
    let values: Vec<f64> = (samples.as_array().unwrap().iter())
        .map(|sample| sample["value"].as_f64().unwrap())
        .collect();
    assert_eq!(values.len(), 3);
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(low, high), v| {
            (low.min(*v), high.max(*v))
        });
    // By the real clock they lie 0.3 % apart.
    assert!(high - low <= 1e-5 * high, "{values:?}");
}
