//! Every mistake ends with one clear sentence and the right exit status.

mod support;

use support::{heaplab, run};

fn refused(args: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.so"), "no library").unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let (status, out, err) = run(heaplab(folder.path()).args(args));
    assert_eq!(status, code, "{args:?}: {err}");
    assert_eq!(out, "", "{args:?} printed a result");
    assert_eq!(
        err.trim_end().lines().count(),
        1,
        "{args:?}: one sentence, not\n{err}"
    );
    let sentence = err
        .strip_prefix("heaplab: ")
        .unwrap_or_else(|| panic!("{err}"));
    assert!(!sentence.starts_with(|c: char| c.is_uppercase()), "{err}");
    for word in words {
        assert!(err.contains(word), "{args:?}: '{word}' is missing in {err}");
    }
}

#[test]
fn wrong_usage_is_two() {
    refused(
        &["run", "--format", "xml"],
        2,
        &["'xml'", "--format", "json"],
    );
    refused(&["run", "nope"], 2, &["'nope'", "list workloads"]);
    refused(&["run", "churn", "-a", "foo"], 2, &["'foo'", "jemalloc"]);
    refused(
        &["run", "churn", "-a", "./text.so"],
        2,
        &["text.so", "not a shared library"],
    );
    refused(&["run", "--suite", "nope"], 2, &["'nope'", "quick"]);
    refused(
        &["run", "churn", "--only", "other"],
        2,
        &["'other'", "churn"],
    );
    refused(&["rum"], 2, &["'rum'", "'run'"]);
    refused(&["gate", "run", "--base", "system"], 2, &["--head"]);
    refused(&["run", "--resume", "."], 2, &["no session"]);
    // A damaged baseline is no regression.
    refused(
        &["gate", "compare", "file", "file"],
        2,
        &["file is not a result set", "heaplab run"],
    );
}

#[test]
fn what_the_environment_cannot_do_is_three() {
    refused(
        &["run", "-a", "system", "--", "/no/such/program"],
        3,
        &["/no/such/program", "does not exist"],
    );
    refused(
        &["run", "-a", "system", "--", "no-such-program"],
        3,
        &["no-such-program", "PATH"],
    );
    // A path under a file cannot be made by anybody, root included.
    refused(
        &[
            "run",
            "churn",
            "-a",
            "system",
            "--scale",
            "0.001",
            "--blocks",
            "1",
            "-o",
            "file/results",
        ],
        3,
        &["file/results"],
    );
    refused(
        &["gate", "compare", "none", "none"],
        3,
        &["'none'", "heaplab run", "-o none`"],
    );
    refused(
        &["gate", "compare", "none/result.json", "none"],
        3,
        &["'none/result.json'", "-o none`"],
    );
}

#[test]
fn results_are_never_overwritten() {
    refused(
        &[
            "run", "churn", "-a", "system", "--scale", "0.001", "-o", ".",
        ],
        2,
        &["never overwritten"],
    );
}

#[test]
fn a_full_disk_behind_standard_output_is_said() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (status, _, err) = run(heaplab(folder.path())
        .args(["list", "metrics"])
        .stdout(full));
    // `output()` keeps a standard output that was set.
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("no space left on device"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "{} man | head -1; {} licenses | head -1",
        env!("CARGO_BIN_EXE_heaplab"),
        env!("CARGO_BIN_EXE_heaplab")
    );
    let (status, out, err) = run(std::process::Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path()));
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[test]
fn every_command_helps_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        "run",
        "report",
        "diff",
        "gate",
        "merge",
        "list",
        "doctor",
        "completions",
        "man",
        "licenses",
    ] {
        let (status, out, _) = run(heaplab(folder.path()).args([command, "--help"]));
        assert_eq!(status, 0);
        assert!(
            out.contains("Example") && out.contains(&format!("  heaplab {command}")),
            "{command}:\n{out}"
        );
    }
}

#[test]
fn what_is_no_regular_file_is_not_replaced_by_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let trace = folder.path().join("true.hltrace");
    let traced = trace.to_str().unwrap();
    let (status, _, err) =
        run(heaplab(folder.path()).args(["record", "-o", traced, "--", "sh", "-c", ":"]));
    assert_eq!(status, 0, "{err}");
    for (command, code) in [
        (&["record", "-o", "socket", "--", "true"][..], 125),
        (
            &["trace", "export", traced, "--as", "csv", "-o", "socket"],
            3,
        ),
        (
            &["trace", "cut", traced, "--to-event", "1", "-o", "socket"],
            3,
        ),
        (&["trace", "model", traced, "-o", "socket"], 3),
    ] {
        let (status, _, err) = run(heaplab(folder.path()).args(command));
        assert_eq!(status, code, "{command:?}: {err}");
        assert!(err.contains("no regular file"), "{command:?}: {err}");
    }
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn an_interrupted_copy_leaves_nothing_behind_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let words = "my @a = map { 'x' x $_ } 1 .. 3000";
    let (status, _, err) =
        run(heaplab(at).args(["record", "-o", "p.hltrace", "--", "perl", "-e", words]));
    assert_eq!(status, 0, "{err}");
    // Millions of events: seconds of work.
    let copies = [
        "trace",
        "scale",
        "p.hltrace",
        "-o",
        "q.hltrace",
        "--copies",
        "1000",
    ];
    let child = heaplab(at)
        .args(copies)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || std::fs::read_dir(at).unwrap().count() > 1;
    while !begun() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert_eq!(said, "heaplab: interrupted; nothing was written\n");
    assert_eq!(std::fs::read_dir(at).unwrap().count(), 1, "only the trace");
}
