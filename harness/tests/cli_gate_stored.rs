//! Stored counts and the gate's test of itself, from the command line.

mod support;

use std::fs;
use std::path::Path;
use support::{heaplab, run};

const SMALL: [&str; 6] = ["tiny-churn", "--scale", "0.02", "-a", "system", "--quiet"];

fn baseline(folder: &Path, what: &str, more: &[&str]) -> (i32, String, String) {
    run(heaplab(folder)
        .args(["gate", "baseline", what, "--file", "counts.txt"])
        .args(SMALL)
        .args(more))
}

#[test]
fn stored_counts_are_made_compared_with_and_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) = baseline(folder.path(), "check", &[]);
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("`heaplab gate baseline update`"), "{err}");

    let (status, out, err) = baseline(folder.path(), "update", &[]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.ends_with("in counts.txt\n"), "{out}");
    let file = folder.path().join("counts.txt");
    let text = fs::read_to_string(&file).unwrap();
    let line = (text.lines().find(|line| line.contains(" instructions "))).unwrap();
    // The seed was drawn and is that of the file from now on.
    let (status, out, err) = baseline(folder.path(), "check", &["-o", "again"]);
    assert_eq!(status, 0, "{out}{err}");
    assert!(out.starts_with("PASS"), "{out}");
    assert!(folder.path().join("again/gate.json").is_file());

    // What was stored is 2 % less than what is measured now.
    let fields: Vec<&str> = line.split(' ').collect();
    let count: f64 = fields[3].parse().unwrap();
    let less = line.replace(fields[3], &(count * 0.98).round().to_string());
    fs::write(&file, text.replace(line, &less)).unwrap();
    let (status, out, _) = baseline(folder.path(), "check", &[]);
    assert_eq!(status, 1, "{out}");
    let (status, out, _) =
        run(heaplab(folder.path()).args(["gate", "compare", "counts.txt", "again"]));
    assert_eq!(status, 1, "{out}");
    assert!(
        out.contains("REGRESSION") && out.contains("instructions"),
        "{out}"
    );

    let (status, out, err) = run(heaplab(folder.path()).args([
        "gate",
        "baseline",
        "update",
        "--file",
        "counts.txt",
        "--from",
        "again",
    ]));
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("1 changed"), "{out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn what_is_no_baseline_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts.txt");
    fs::write(&file, "my notes\n").unwrap();
    let (status, _, err) = baseline(folder.path(), "update", &[]);
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("'counts.txt' is no baseline"), "{err}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "my notes\n");
    let (status, _, err) = baseline(folder.path(), "update", &["--measure", "speed"]);
    assert_eq!(status, 2, "{err}");
}

#[test]
fn an_unknown_workload_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) =
        run(heaplab(folder.path()).args(["gate", "self-test", "nope", "-o", "s"]));
    assert_eq!(status, 2, "{err}");
    assert!(!folder.path().join("s").exists());
}

/// Times are not asked for: what they say depends on what else the machine does.
#[test]
fn what_is_planted_in_counts_and_memory_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, err) = run(heaplab(folder.path()).args([
        "gate",
        "self-test",
        "churn",
        "--scale",
        "0.05",
        "--seed",
        "7",
        "--blocks",
        "1",
        "--format",
        "json",
        "-o",
        "s",
    ]));
    assert!([0, 1, 6].contains(&status), "{status}: {out}{err}");
    let test: serde_json::Value = serde_json::from_str(&out).unwrap();
    let said: Vec<(&str, &str)> = (test["said"].as_array().unwrap().iter())
        .filter(|said| said["figures"] != "times")
        .map(|said| {
            assert_eq!(said["holds"], true, "{said}");
            (
                said["planted"].as_str().unwrap(),
                said["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("nothing", "pass"),
            ("6 instructions a call", "regression"),
            ("nothing", "pass"),
            ("blocks 20 % larger", "regression"),
            ("one free of 20 forgotten", "regression"),
        ]
    );
    // One block of times decides nothing, and says so.
    let times = test["said"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|said| said["figures"] == "times");
    assert!(
        times.clone().count() == 3 && times.clone().all(|said| said["verdict"] == "inconclusive"),
        "{out}"
    );
    assert!(folder.path().join("s/times/result.json").is_file());
    let kept = fs::read_to_string(folder.path().join("s/self-test.json")).unwrap();
    assert_eq!(kept, out);
}

#[test]
fn the_planted_library_reads_its_settings_back() {
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) = run(heaplab(folder.path()).args([
        "run",
        "tiny-churn",
        "--scale",
        "0.02",
        "--measure",
        "memory",
        "--blocks",
        "1",
        "--no-report",
        "-o",
        "r",
        "-a",
        "planted:larger=50",
    ]));
    assert_eq!(status, 0, "{err}");
    let result = fs::read_to_string(folder.path().join("r/result.json")).unwrap();
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["subjects"][0]["settings"]["larger"], "50");
    let (status, _, err) = run(heaplab(folder.path()).args(["run", "-a", "planted:larger=much"]));
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("did not take larger=much"), "{err}");
}
