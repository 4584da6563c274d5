//! Recording from the command line: the program is left alone, its status passed through, its allocations kept; and what
//! `trace` and `run` make of the file, whole or not.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{heaplab, run};

/// Not what PATH finds first: that may be a wrapper of a version manager.
const PYTHON: &str = "/usr/bin/python3";

/// Compiles a C program; the path of the executable.
fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> String {
    let file = folder.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let program = folder.join(name);
    let built = Command::new("cc")
        .args(flags)
        .arg("-o")
        .args([&program, &file])
        .status()
        .unwrap();
    assert!(built.success(), "cc {flags:?} {name}.c");
    program.display().to_string()
}

fn json(folder: &Path, args: &[&str]) -> serde_json::Value {
    let (status, out, err) = run(heaplab(folder).args(args).args(["--format", "json"]));
    assert_eq!(status, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn python_is_recorded_and_its_trace_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "import sys; print(sys.stdin.read()); x = [bytearray(1000) for _ in range(3000)]; sys.exit(7)";
    let mut child = heaplab(at)
        .args(["record", "-o", "p.hltrace", "--", PYTHON, "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through").unwrap();
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(7), "{err}");
    assert_eq!(
        ended.stdout, b"through\n",
        "standard output is the program's"
    );
    assert!(
        err.contains("recorded p.hltrace:")
            && err.contains("1 thread")
            && err.contains("peak live")
            && err.contains("bytes per event")
            && err.contains("ns per event"),
        "{err}"
    );
    assert!(!at.join("p.hltrace.part").exists());

    let stats = json(at, &["trace", "stats", "p.hltrace"]);
    assert!(stats["allocations"].as_u64().unwrap() >= 3000, "{stats}");
    assert!(stats["peak_live_bytes"].as_u64().unwrap() >= 3_000_000);
    assert_eq!(
        (&stats["threads"], &stats["processes"]),
        (&1.into(), &1.into())
    );
    assert_eq!(stats["complete"], true);
    for name in ["frees", "reallocs", "bytes_allocated", "remote_frees"] {
        assert!(stats[name].is_u64(), "{name}");
    }
    let info = json(at, &["trace", "info", "p.hltrace"]);
    assert_eq!(info["command"][0], PYTHON);
    assert_eq!(info["finish"]["exit_status"], 7);
    assert!(info["finish"]["recorder_ns_per_event"].is_f64());
    assert!(info["header"]["machine"]["cpus"].as_u64().unwrap() > 0);
    let (status, out, err) = run(heaplab(at).args(["trace", "verify", "p.hltrace"]));
    assert_eq!((status, out.contains("whole")), (0, true), "{out}{err}");

    let result = json(
        at,
        &[
            "run",
            "p.hltrace",
            "-a",
            "system,jemalloc",
            "--blocks",
            "1",
            "--no-report",
            "-q",
            "-o",
            "r",
        ],
    );
    for cell in result["cells"].as_array().unwrap() {
        assert_eq!(
            (&cell["workload"], &cell["status"]),
            (&"p".into(), &"ok".into())
        );
        let live = &cell["metrics"]["peak_live_bytes"]["median"];
        assert_eq!(
            live.as_f64(),
            stats["peak_live_bytes"].as_f64(),
            "live bytes to the byte"
        );
    }
}

#[test]
fn statuses_and_signals_pass_through() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let status = |command: &[&str]| {
        let (status, out, err) = run(heaplab(at)
            .args(["record", "-o", "s.hltrace", "--"])
            .args(command));
        assert_eq!(out, "", "{command:?}");
        (status, err)
    };
    assert_eq!(status(&["true"]).0, 0);
    assert_eq!(status(&["false"]).0, 1);
    assert_eq!(status(&["sh", "-c", "kill -KILL $$"]).0, 137);
    assert_eq!(status(&["sh", "-c", "kill -SEGV $$"]).0, 139);
    let (code, err) = status(&["no-such-program-9"]);
    assert!(
        code == 127 && err.contains("'no-such-program-9' is not found along PATH"),
        "{code} {err}"
    );
    let (code, err) = status(&["./missing"]);
    assert!(
        code == 127 && err.contains("'./missing' does not exist"),
        "{code} {err}"
    );
    std::fs::write(at.join("plain"), "x").unwrap();
    let (code, err) = status(&["./plain"]);
    assert!(
        code == 126 && err.contains("'./plain' is not executable"),
        "{code} {err}"
    );
    let (code, _, err) = run(heaplab(at).args(["record", "-o", "no/such/x.hltrace", "--", "true"]));
    assert!(
        code == 125 && err.contains("no/such/x.hltrace"),
        "{code} {err}"
    );
    let (code, _, err) = run(heaplab(at).args(["record", "true"]));
    assert!(code == 2 && err.contains("behind `--`"), "{code} {err}");
}

#[test]
fn the_default_name_is_the_programs_and_never_taken_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["true.hltrace", "true-2.hltrace"] {
        let (status, _, err) = run(heaplab(at).args(["record", "--", "true"]));
        assert!(status == 0 && err.contains(name), "{err}");
        assert!(at.join(name).exists());
    }
    // What a recording that was cut off has left is all there is of it.
    std::fs::write(at.join("true-3.hltrace.part"), "kept").unwrap();
    let (status, out, err) = run(heaplab(at).args(["-q", "record", "--", "true"]));
    assert_eq!((status, out.as_str(), err.as_str()), (0, "", ""));
    assert!(at.join("true-4.hltrace").exists());
    assert_eq!(
        std::fs::read_to_string(at.join("true-3.hltrace.part")).unwrap(),
        "kept"
    );
}

#[test]
fn what_cannot_be_recorded_has_its_cause_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let nothing = "int main(int c, char **v) { return c > 1 ? v[1][0] - '0' : 0; }";
    compile(at, "fixed", nothing, &["-static"]);
    let (status, _, err) = run(heaplab(at).args(["record", "-o", "x.hltrace", "--", "./fixed"]));
    assert_eq!(
        status, 125,
        "a script must not go on without a trace: {err}"
    );
    assert!(
        err.contains("recorded nothing, because")
            && err.contains("static executable")
            && err.contains("-static"),
        "{err}"
    );
    let (status, _, _) = run(heaplab(at).args(["record", "-o", "x.hltrace", "--", "./fixed", "3"]));
    assert_eq!(status, 3, "the program's own failure comes first");
    let own = "#include <stddef.h>\nstatic char pool[1 << 16]; static size_t used;\n\
               void *malloc(size_t n) { void *p = pool + used; used += (n + 15) & ~15ul; return p; }\n\
               void free(void *p) { (void)p; }\n\
               int main(void) { char *volatile p = malloc(10); p[0] = 1; return 0; }";
    compile(at, "own", own, &[]);
    let (status, _, err) = run(heaplab(at).args(["record", "-o", "x.hltrace", "--", "./own"]));
    assert!(err.contains("carries an own malloc"), "{status} {err}");
    let left: Vec<_> = std::fs::read_dir(at)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().ends_with(".part")),
        "{left:?}"
    );
}

#[test]
fn threads_are_recorded_each_with_its_frees() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = "#include <pthread.h>\n#include <stdlib.h>\n\
        static void *work(void *x) { for (int i = 0; i < 1000; i++) free(malloc(64)); free(x); return 0; }\n\
        int main(void) { pthread_t t[8]; for (int i = 0; i < 8; i++) pthread_create(t + i, 0, work, malloc(100));\n\
        for (int i = 0; i < 8; i++) pthread_join(t[i], 0); return 0; }";
    compile(at, "threads", source, &["-O1", "-fno-builtin", "-pthread"]);
    let (status, _, err) = run(heaplab(at).args(["record", "--", "./threads"]));
    assert_eq!(status, 0, "{err}");
    let stats = json(at, &["trace", "stats", "threads.hltrace"]);
    assert_eq!(stats["threads"], 9);
    assert!(stats["allocations"].as_u64().unwrap() >= 8008);
    assert!(stats["remote_frees"].as_u64().unwrap() >= 8);
}

/// An interruption that only heaplab gets (no terminal here) reaches the program, which ends as it likes.
#[test]
fn an_interruption_goes_to_the_program_and_the_trace_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "import time\ntry:\n  print('ready', flush=True)\n  time.sleep(600)\nexcept KeyboardInterrupt:\n  raise SystemExit(9)";
    let mut child = heaplab(at)
        .args(["record", "-o", "i.hltrace", "--", PYTHON, "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    out.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(json(at, &["trace", "stats", "i.hltrace"])["complete"], true);
}

/// A daemon that the program left behind is recorded until a signal ends the recording; the daemon goes on. It has records that
/// only the last look at its memory brings, so that look is not the end yet.
#[test]
fn a_signal_ends_the_wait_for_what_the_program_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut child = heaplab(at)
        .args(["record", "-o", "d.hltrace", "--", "sh", "-c"])
        .arg("setsid sleep 60 >/dev/null 2>&1 </dev/null & echo $!")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut daemon = String::new();
    out.read_line(&mut daemon).unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("1 of its processes goes on"), "{line}");
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let went_on = Command::new("kill").arg(daemon.trim()).status().unwrap();
    assert!(
        went_on.success(),
        "ended by the signal, not by the daemon's end"
    );
    err.read_to_string(&mut line).unwrap();
    assert!(line.contains("recorded d.hltrace"), "{line}");
    assert_eq!(json(at, &["trace", "stats", "d.hltrace"])["complete"], true);
}

/// Ctrl-C after the program's end, while its events are being brought into order: what was recorded stays readable.
#[test]
fn an_interruption_while_events_are_ordered_keeps_the_recording() {
    const SOURCE: &str = "#include <stdlib.h>\nvoid *volatile kept;\n\
        int main(void) { for (int i = 0; i < 1000000; i++) free(kept = malloc(i % 500)); return 0; }";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let program = compile(at, "many", SOURCE, &[]);
    let mut child = heaplab(at)
        .args(["record", "-o", "i.hltrace", "--", &program])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The trace under its temporary name: the program has ended, and no event is in its order yet.
    let begun = || {
        std::fs::read_dir(at).unwrap().flatten().any(|file| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            name.contains("i.hltrace") && name != "i.hltrace.part"
        })
    };
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let mut err = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{err}");
    assert!(
        err.contains("interrupted while the events were being brought into order"),
        "{err}"
    );
    let left: Vec<_> = std::fs::read_dir(at)
        .unwrap()
        .flatten()
        .map(|file| file.file_name())
        .collect();
    let traces: Vec<_> = left
        .iter()
        .filter(|name| name.to_string_lossy().contains("hltrace"))
        .collect();
    assert_eq!(traces, ["i.hltrace.part"], "{left:?}");
    let stats = json(at, &["trace", "stats", "i.hltrace.part"]);
    assert!(
        stats["allocations"].as_u64().unwrap() >= 1_000_000,
        "{stats}"
    );
}

/// The recorder's process is killed: the program goes on, and the part is read up to its last whole chunk.
#[test]
fn a_recording_that_is_cut_off_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "import sys\nx = [bytearray(1000) for _ in range(5000)]\nprint('ready', flush=True)\nsys.stdin.read()\nprint('alive')";
    let mut child = heaplab(at)
        .args(["record", "-o", "k.hltrace", "--", PYTHON, "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let part = at.join("k.hltrace.part");
    let written = || std::fs::metadata(&part).map_or(0, |file| file.len());
    // Buffers are written at least every quarter of a second; the bound ends the test instead of hanging it.
    let began = std::time::Instant::now();
    while written() < 4000 && began.elapsed() < std::time::Duration::from_secs(300) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(child.stdin.take());
    line.clear();
    out.read_to_string(&mut line).unwrap();
    assert_eq!(line, "alive\n", "the program is not harmed");
    assert!(
        !at.join("k.hltrace").exists(),
        "nothing under the final name"
    );
    let stats = json(at, &["trace", "stats", "k.hltrace.part"]);
    assert_eq!(stats["complete"], false);
    assert!(stats["allocations"].as_u64().unwrap() > 0, "{stats}");
    let (status, _, err) = run(heaplab(at).args(["trace", "verify", "k.hltrace.part"]));
    assert!(status == 1 && err.contains("cut off"), "{status} {err}");
}

#[test]
fn damaged_files_are_refused_in_one_sentence_or_read_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "x = [bytearray(200 + i % 900) for i in range(300000)]";
    let (status, _, err) =
        run(heaplab(at).args(["record", "-o", "w.hltrace", "--", PYTHON, "-c", script]));
    assert_eq!(status, 0, "{err}");
    let whole = std::fs::read(at.join("w.hltrace")).unwrap();
    std::fs::write(at.join("garbage.hltrace"), vec![0xa5; 5000]).unwrap();
    std::fs::write(at.join("empty.hltrace"), "").unwrap();
    for file in ["garbage.hltrace", "empty.hltrace"] {
        for (args, wanted) in [
            (&["trace", "stats", file][..], 3),
            (&["trace", "verify", file], 1),
            (&["run", file, "-a", "system"], 3),
        ] {
            let (status, out, err) = run(heaplab(at).args(args));
            assert_eq!(status, wanted, "{args:?}: {err}");
            assert!(
                out.is_empty() && err.contains(file) && err.lines().count() == 1,
                "{out}{err}"
            );
        }
    }
    let (status, _, err) = run(heaplab(at).args(["trace", "info", "none.hltrace"]));
    assert!(
        status == 3 && err.contains("'none.hltrace'"),
        "{status} {err}"
    );

    // Without its end: what is there is used, and said to be a part.
    std::fs::write(at.join("cut.hltrace"), &whole[..whole.len() * 3 / 4]).unwrap();
    let stats = json(at, &["trace", "stats", "cut.hltrace"]);
    assert_eq!(stats["complete"], false);
    let all = json(at, &["trace", "stats", "w.hltrace"]);
    let count = |of: &serde_json::Value| of["allocations"].as_u64().unwrap();
    assert!(
        count(&stats) > 0 && count(&stats) < count(&all),
        "{} of {}",
        count(&stats),
        count(&all)
    );
    assert_eq!(
        run(heaplab(at).args(["trace", "verify", "cut.hltrace"])).0,
        1
    );
    let result = json(
        at,
        &[
            "run",
            "cut.hltrace",
            "-a",
            "system",
            "--blocks",
            "1",
            "--measure",
            "memory",
            "--no-report",
            "-q",
            "-o",
            "r",
        ],
    );
    let notes = result["notes"].to_string();
    assert!(notes.contains("is not whole"), "{notes}");

    // A flipped bit is noticed.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    std::fs::write(at.join("flip.hltrace"), flipped).unwrap();
    assert_eq!(
        run(heaplab(at).args(["trace", "verify", "flip.hltrace"])).0,
        1
    );
}

#[test]
fn traces_are_cut_anonymised_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (status, ..) = run(heaplab(at).args([
        "record",
        "-o",
        "p.hltrace",
        "--",
        PYTHON,
        "-c",
        "print('secret-word')",
    ]));
    assert_eq!(status, 0);
    let (status, _, err) = run(heaplab(at).args([
        "trace",
        "cut",
        "p.hltrace",
        "-o",
        "c.hltrace",
        "--from-event",
        "100",
        "--to-event",
        "600",
    ]));
    assert_eq!(status, 0, "{err}");
    let cut = json(at, &["trace", "verify", "c.hltrace"]);
    assert!(cut["events"].as_u64().unwrap() >= 500, "{cut}");
    let (status, _, err) =
        run(heaplab(at).args(["trace", "anonymise", "p.hltrace", "-o", "a.hltrace"]));
    assert_eq!(status, 0, "{err}");
    let (before, after) = (
        json(at, &["trace", "info", "p.hltrace"]),
        json(at, &["trace", "info", "a.hltrace"]),
    );
    assert!(
        before.to_string().contains("secret-word") && !after.to_string().contains("secret-word")
    );
    assert_eq!(before["events"], after["events"]);
    assert_eq!(before["peak_live_bytes"], after["peak_live_bytes"]);
    let (status, out, _) = run(heaplab(at).args(["trace", "export", "p.hltrace"]));
    assert_eq!(status, 0);
    assert_eq!(
        out.lines().count() as u64,
        1 + before["events"].as_u64().unwrap()
    );
    let (status, _, err) = run(heaplab(at).args(["trace", "export", "p.hltrace", "-o", "p.csv"]));
    assert_eq!(status, 0, "{err}");
    assert_eq!(std::fs::read_to_string(at.join("p.csv")).unwrap(), out);
    let (status, _, err) =
        run(heaplab(at).args(["trace", "cut", "p.hltrace", "-o", "p.hltrace", "--to", "1s"]));
    assert!(
        status == 2 && err.contains("would replace itself"),
        "{status} {err}"
    );
}
