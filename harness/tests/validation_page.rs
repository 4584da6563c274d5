//! The page that shows predicted against actual peaks is assembled from what was measured; rows without a verdict are measured anew alone.

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

/// A copy of the page's parts with figures of one program, `jq`.
fn page(folder: &Path, subjects: &[Value]) -> PathBuf {
    for name in ["validation.py", "validation-head.md", "validate.sh"] {
        std::fs::copy(Path::new(DOCS).join(name), folder.join(name)).unwrap();
    }
    let figures = folder.join("validation/jq.json");
    std::fs::create_dir_all(figures.parent().unwrap()).unwrap();
    let all = json!({
        "beside": {"others": 0.01, "seconds": 30.0}, "command": ["jq", "."], "disturbed_recordings": 0, "recordings": 4, "own_mappings_bytes": 0,
        "measured": {"kind": "open", "what": "A list", "commit": "aaaaaaa", "time": "2026-11-01 10:00 UTC"},
        "ranking": {"agree": 9, "disagree": 9, "undecided": 9}, "time_ranking": {"agree": 1, "disagree": 2, "undecided": 3},
        "remarks": ["a remark"], "trace": {"events": 10, "threads": 1, "peak_live_bytes": 100}, "subjects": subjects,
    });
    std::fs::write(&figures, all.to_string()).unwrap();
    figures
}

/// A row; its predicted time tells of which measurement it is.
fn row(subject: &str, predicted: f64, actual: &[f64], decided: bool, time: f64) -> Value {
    let middle = actual[actual.len() / 2];
    json!({
        "subject": subject, "predicted_peak_bytes": predicted, "predicted_spread": 0.0, "predicted_quartiles": null,
        "actual_peak_bytes": middle, "actual_spread": 0.0, "actual_quartiles": null, "actual_samples": actual, "actual_disturbed": 0,
        "predicted_samples": [predicted, predicted, predicted, predicted], "predicted_disturbed": 0,
        "error": predicted / middle - 1.0, "error_interval": [-0.05, 0.05], "within_goal": true, "decided": decided,
        "predicted_allocation_s": time, "actual_allocation_s": time, "actual_allocation_spread": 0.0, "own_mappings_bytes": 0.0,
    })
}

fn script(folder: &Path, words: &[&str], input: &str) -> (bool, String, String) {
    let mut child = Command::new("python3")
        .arg(folder.join("validation.py"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    to.write_all(input.as_bytes()).unwrap();
    drop(to);
    let done = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        done.status.success(),
        text(&done.stdout),
        text(&done.stderr),
    )
}

#[test]
fn rows_without_a_verdict_are_named_until_they_have_had_their_runs() {
    let folder = tempfile::tempdir().unwrap();
    let four = [100.0, 100.0, 101.0, 102.0];
    let mut held_up = row("mimalloc", 100.0, &four, false, 1.0);
    held_up["error_interval"] = json!([-0.001, 0.001]);
    page(
        folder.path(),
        &[
            row("system", 100.0, &four, true, 1.0),
            row("jemalloc", 100.0, &four, false, 1.0),
            held_up,
        ],
    );
    let (_, found, told) = script(folder.path(), &["--undecided", "16"], "");
    assert_eq!(found, "jq jemalloc,mimalloc\n");
    // 5 % either way for 4 runs; to lie within 2 %, with an error of 1 %, it must be a fifth: 25 times as many.
    assert!(
        told.contains("jq jemalloc: -1 % by 4 runs, -5 % to +5 %; some 98 runs would tell"),
        "{told}"
    );
    assert!(
        told.contains("jq mimalloc: -1 % by 4 runs, too many"),
        "{told}"
    );
    let (_, found, told) = script(folder.path(), &["--undecided", "4"], "");
    assert!(found.is_empty() && told.contains("MOST above 4"), "{told}");
    // 30 s for four rounds.
    let (_, found, _) = script(folder.path(), &["--took"], "");
    assert_eq!(found, "jq 7.50\n");
    let (_, found, _) = script(folder.path(), &["--undecided", "16", "lua"], "");
    assert_eq!(found, "");
}

#[test]
fn a_row_that_is_measured_anew_takes_the_place_of_the_old_one_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let low = [100.0, 100.0, 100.0, 100.0];
    let figures = page(
        folder.path(),
        &[
            row("system", 200.0, &[200.0; 4], true, 1.0),
            row("jemalloc", 300.0, &low, false, 1.0),
            row("mimalloc", 150.0, &[199.0; 4], true, 1.0),
        ],
    );
    let anew = |subject: &str| {
        json!({
            "beside": {"others": 0.02}, "recordings": 8, "disturbed_recordings": 1, "remarks": ["a remark", "another"],
            "subjects": [row(subject, 101.0, &low, true, 7.0)],
        })
        .to_string()
    };
    let merge = ["--merge", "jq", "bbbbbbb", "2026-11-02 10:00 UTC"];
    let (done, _, err) = script(folder.path(), &merge, &anew("jemalloc"));
    assert!(done, "{err}");
    let found: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
    let peaks: Vec<f64> = (found["subjects"].as_array().unwrap().iter())
        .map(|row| row["predicted_peak_bytes"].as_f64().unwrap())
        .collect();
    assert_eq!(peaks, [200.0, 101.0, 150.0]);
    // As the schema of the files that are kept has it.
    let measured = json!({"commit": "bbbbbbb", "time": "2026-11-02 10:00 UTC", "recordings": 8, "disturbed_recordings": 1, "others": 0.02});
    assert_eq!(found["subjects"][1]["measured"], measured);
    // Times of another day say nothing beside those of the others.
    assert_eq!(found["subjects"][1]["predicted_allocation_s"], 1.0);
    assert_eq!(found["time_ranking"]["disagree"], 2);
    // system and mimalloc are not separated, jemalloc has less than both.
    assert_eq!(
        found["ranking"],
        json!({"agree": 2, "disagree": 0, "undecided": 1})
    );
    assert_eq!(found["remarks"], json!(["a remark", "another"]));
    let (done, _, err) = script(folder.path(), &[], "");
    assert!(done, "{err}");
    let page = std::fs::read_to_string(folder.path().join("VALIDATION.md")).unwrap();
    assert!(
        page.contains("| jq | aaaaaaa, bbbbbbb | 1 | 1 % |"),
        "{page}"
    );
    let said = "The peaks of jemalloc were measured anew at commit bbbbbbb, 2026-11-02 10:00 UTC, on 8 recordings, of which 1 were disturbed";
    assert!(page.contains(said), "{page}");
    let (_, left, _) = script(folder.path(), &["--undecided", "16"], "");
    assert_eq!(left, "");
    // What cannot be taken leaves all as it is, and a busy machine takes nothing away.
    let mut disturbed: Value = serde_json::from_str(&anew("jemalloc")).unwrap();
    disturbed["subjects"][0]["predicted_disturbed"] = json!(1);
    let (done, _, told) = script(folder.path(), &merge, &disturbed.to_string());
    let why = "jq jemalloc stays as it was: 3 undisturbed runs, and before 4";
    assert!(done && told.contains(why), "{told}");
    let (done, _, err) = script(folder.path(), &merge, &anew("rpmalloc"));
    assert!(!done && err.contains("no row rpmalloc of jq"), "{err}");
    let failed = json!({"beside": {}, "recordings": 4, "disturbed_recordings": 0,
        "subjects": [{"subject": "jemalloc", "error": null, "reason": "program: hung"}]});
    let (done, _, err) = script(folder.path(), &merge, &failed.to_string());
    assert!(!done && err.contains("program: hung"), "{err}");
    let kept: Value = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
    assert_eq!(kept, found);
}
