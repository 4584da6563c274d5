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

/// Who opens the page of a gate looks for its verdict, and counts are no time.
#[test]
fn the_page_of_a_gate_begins_with_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let words = "gate run --seed 7 --base system --head new=jemalloc churn --scale 0.005 --blocks 2 \
                 --measure memory,counts -o g";
    let (status, out, err) = run(heaplab(folder.path()).args(words.split_whitespace()));
    assert_eq!(status, 1, "{out}{err}");
    let page = std::fs::read_to_string(folder.path().join("g/report.html")).unwrap();
    let (_, below) = page.split_once("<pre id=\"verdict\">").expect("a verdict");
    let (verdict, below) = below.split_once("</pre>").unwrap();
    assert!(
        verdict.starts_with("FAIL") && verdict.contains("REGRESSION"),
        "{verdict}"
    );
    assert!(below.contains("ANSWER") && !below.contains("-a system adds it"));
    // Made again it still has it.
    let (status, _, err) = run(heaplab(folder.path()).args(["report", "g", "-o", "again"]));
    assert_eq!(status, 0, "{err}");
    let again = std::fs::read_to_string(folder.path().join("again/report.html")).unwrap();
    assert!(again.contains(verdict), "{again}");
    assert!(page.contains("instructions / base"), "of the charts");
    assert!(!page.contains("time / base"), "nothing was timed");
    assert!(page.contains("shown: instructions") || !page.contains("shown: time"));
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
    let allocators = ["--base", "system", "--head", "system"];
    let programs = ["--base-cmd", "true", "--head-cmd", "true"];
    for (sides, options) in [
        (allocators, &["churn", "--idle", "10s"][..]),
        (allocators, &["--metric", "a=1/s:higher:x"]),
        (allocators, &["--load", "true"]),
        (programs, &["churn"]),
        (programs, &["--suite", "gate"]),
    ] {
        let (status, _, err) = run(heaplab(folder.path())
            .args(["gate", "run"])
            .args(sides)
            .args(options));
        assert_eq!(status, 2, "{options:?}: {err}");
        let named = options[0].trim_start_matches("churn");
        assert!(err.contains(named), "{options:?}: {err}");
    }
}

/// `git bisect run` takes 1 to 124 as bad: what is no verdict must be none of them.
#[test]
fn a_bisection_gets_pass_regression_or_skip() {
    let folder = tempfile::tempdir().unwrap();
    // The first word behind the options is the workload.
    let small = |base: &str, head: &str, more: &[&str]| {
        run(heaplab(folder.path())
            .args(["gate", "run", "--bisect", "--seed", "7"])
            .args(["--base", base, "--head", head])
            .args(["--scale", "0.02", "--measure", "memory", "--no-report"])
            .args(more))
    };
    let two = ["churn", "--blocks", "2"];
    for (base, head, more, wanted, word) in [
        ("system", "system", &two[..], 0, ""),
        ("system", "new=jemalloc", &two, 1, ""),
        // What one run a side cannot decide is no pass.
        (
            "system",
            "system",
            &["churn", "--blocks", "1"],
            125,
            "is 125",
        ),
        (
            "system",
            "system",
            &["chrun", "--blocks", "2"],
            125,
            "chrun",
        ),
        // This commit's library was not built.
        ("system", "./libnot-there.so", &two, 125, "not-there"),
        (
            "system",
            "system",
            &["churn", "--bolcks", "2"],
            125,
            "--bolcks",
        ),
        // It hangs, or so it seems: the rows fail.
        (
            "system",
            "system",
            &["churn", "--blocks", "2", "--timeout", "0s"],
            125,
            "",
        ),
    ] {
        let (status, out, err) = small(base, head, more);
        assert_eq!(status, wanted, "{head} {more:?}: {out}{err}");
        assert!(err.contains(word), "{head} {more:?}: {err}");
    }
}

/// A verdict that nobody reads to its end is still the verdict.
#[test]
fn a_closed_output_does_not_turn_a_regression_into_a_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut started = heaplab(folder.path())
        .args(["gate", "run", "--seed", "7"])
        .args(["--base", "system", "--head", "new=jemalloc"])
        .args(SMALL)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(started.stdout.take());
    assert_eq!(started.wait().unwrap().code(), Some(1));
}

#[test]
fn commands_of_both_sides_are_printed_and_nothing_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let printed = |sides: [&str; 4], more: &[&str]| {
        let (status, out, err) = run(heaplab(folder.path())
            .args(["gate", "run", "--print-command"])
            .args(sides)
            .args(more));
        assert_eq!(status, 0, "{err}");
        assert!(!folder.path().join("heaplab-results").exists());
        out
    };
    let out = printed(["--base", "system", "--head", "new=jemalloc"], &SMALL);
    let heads: Vec<&str> = out.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(heads.len(), 2, "{out}");
    assert!(
        heads[0].ends_with("memory base") && heads[1].ends_with("memory new"),
        "{out}"
    );
    let sides = ["--base-cmd", "echo one", "--head-cmd", "echo two"];
    let out = printed(sides, &[]);
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
    let (status, said, _) = run(std::process::Command::new("sh").args(["-c", lines[1]]));
    assert_eq!((status, said.as_str()), (0, "two\n"));
}

#[test]
fn what_a_replay_in_lockstep_costs_is_said_before_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["--scale", "0.01", "--measure", "memory", "-v"];
    for args in [
        &[
            "run",
            "churn",
            "-a",
            "system",
            "--blocks",
            "1",
            "--no-report",
        ][..],
        &[
            "gate",
            "run",
            "--base",
            "system",
            "--head",
            "system",
            "--blocks",
            "1",
            "--no-report",
            "churn",
        ],
        &["gate", "baseline", "update", "-a", "system", "churn"],
    ] {
        let (_, _, err) = run(heaplab(folder.path()).args(args).args(small));
        let said = err.find("churn t1: a replay in lockstep takes about");
        let first = err.find("memory system").or(err.find("memory base"));
        assert!(said.is_some() && said < first, "{args:?}: {err}");
    }
    // The model, its twin and the trace are replayed by a run of its own.
    let model = [
        "trace", "model", "fd-tree", "-o", "m.toml", "-a", "system", "--blocks", "1", "-v",
    ];
    let (status, _, err) = run(heaplab(folder.path()).args(model));
    assert_eq!(status, 0, "{err}");
    for title in ["fd-tree t6", "m t6", "m-twin t6"] {
        assert!(
            err.contains(&format!("{title}: a replay in lockstep takes about")),
            "{err}"
        );
    }
    // One that takes long is told to everybody; here it is given no time to.
    let (_, _, err) = run(heaplab(folder.path()).args([
        "gate",
        "run",
        "--base",
        "system",
        "--head",
        "system",
        "larson",
        "--measure",
        "memory",
        "--blocks",
        "1",
        "--timeout",
        "1ms",
        "--scale",
        "4",
        "--no-report",
    ]));
    assert!(err.contains("a replay in lockstep takes about"), "{err}");
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
