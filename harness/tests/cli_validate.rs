//! The prediction is checked on small programs from the command line.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use support::{heaplab, run};

const PYTHON: &str = "/usr/bin/python3";

#[test]
fn predicted_and_actual_peak_of_a_program_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    // Every object through malloc, and long enough at the peak to be looked at.
    let script = "import time; x = [bytes(1000 + i % 500) for i in range(20000)]; time.sleep(0.5)";
    let (status, out, err) = run(heaplab(folder.path())
        .env("PYTHONMALLOC", "malloc")
        .args([
            "validate",
            "-a",
            "system,jemalloc",
            "--runs",
            "2",
            "--keep-trace",
            "kept.hltrace",
            "-v",
        ])
        .args(["--format", "json", "--", PYTHON, "-c", script]));
    assert_eq!(status, 0, "{err}");
    // What the replays cost is said before the first.
    let said = err.find("python3 t1: a replay in lockstep takes about");
    assert!(
        said.is_some() && said < err.find("replay for memory system"),
        "{err}"
    );
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let subjects = found["subjects"].as_array().unwrap();
    assert_eq!(subjects.len(), 2);
    // jemalloc's classes waste an eighth of these sizes on average, the C library's 16 bytes a block: the program's runs are far
    // apart, and the replays must have them in the same order.
    let order = serde_json::json!({"agree": 1, "disagree": 0, "undecided": 0});
    assert_eq!(found["ranking"], order, "{found}");
    assert!(found["time_ranking"]["agree"].is_u64(), "{found}");
    assert!(found["beside"]["others"].is_f64(), "{found}");
    assert!(found["disturbed_recordings"].is_u64(), "{found}");
    let live = found["trace"]["peak_live_bytes"].as_f64().unwrap();
    assert!(live > 20_000.0 * 1000.0, "{found}");
    for subject in subjects {
        let number = |name: &str| {
            subject[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name} in {subject}"))
        };
        let (predicted, actual) = (number("predicted_peak_bytes"), number("actual_peak_bytes"));
        // Neither side can hold less than what is alive.
        assert!(predicted > live && actual > 0.95 * live, "{subject}");
        // One thread and nothing that depends on the clock: what a prediction is good for.
        assert!((predicted / actual - 1.0).abs() < 0.03, "{subject}");
        assert!(number("actual_spread") >= 0.0);
        assert_eq!(subject["actual_samples"].as_array().unwrap().len(), 2);
        // Whether it was disturbed is the machine's affair, and is told.
        for disturbed in [
            "actual_disturbed",
            "predicted_disturbed",
            "actual_allocation_disturbed",
        ] {
            assert!(number(disturbed) <= 2.0, "{subject}");
        }
    }
    assert!(folder.path().join("kept.hltrace").exists());
}

#[test]
fn programs_that_cannot_be_validated_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (command, wanted, why) in [
        (&["no-such-program-9"][..], 3, "'no-such-program-9'"),
        (&["false"], 4, "exit status 1"),
        (&["sh", "-c", "kill -SEGV $$"], 4, "SIGSEGV"),
    ] {
        let (status, out, err) = run(heaplab(folder.path())
            .args(["validate", "-a", "system", "--"])
            .args(command));
        assert!(
            status == wanted && out.is_empty() && err.contains(why),
            "{status} {out}{err}"
        );
    }
}

/// Ctrl-C reaches the whole group, so that the program that is being recorded ends with it: there is no recording to go on with.
#[test]
fn control_c_during_the_first_recording_ends_it_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let child = heaplab(folder.path())
        .args(["validate", "-a", "system", "--"])
        .args(["perl", "-e", "open my $f, '>', 'begun'; sleep 300"])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !begun.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert_eq!(said, "interrupted; nothing is kept of a validation\n");
    assert!(ended.stdout.is_empty());
}

/// Ctrl-C while the events of a recording are brought into order: the folder with all that was made until then goes, too.
#[test]
fn control_c_between_recording_and_replay_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (at, temporary) = (folder.path(), folder.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let mut child = heaplab(at)
        .args(["validate", "-v", "-a", "system", "--"])
        .args([
            "perl",
            "-e",
            "my @a = map { 'x' x ($_ % 999) } 1 .. 400_000",
        ])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("brought into order") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(
        rest.ends_with("interrupted; nothing is kept of a validation\n"),
        "{rest}"
    );
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "{rest}");
}
