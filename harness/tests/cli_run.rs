//! A small comparison from the command line to the stored result, and what is kept when it is cut short.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{heaplab, run};

const TINY: [&str; 8] = [
    "run",
    "churn",
    "--scale",
    "0.01",
    "--seed",
    "7",
    "-a",
    "system,jemalloc",
];

#[test]
fn a_tiny_model_gives_a_whole_result_set() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, err) = run(heaplab(folder.path())
        .args(TINY)
        .args(["--blocks", "2", "--format", "json", "-o", "r"]));
    assert_eq!(status, 0, "{err}");
    let printed: heaplab_reports::schema::ResultSet = serde_json::from_str(&out).unwrap();
    let stored = heaplab_reports::load(&folder.path().join("r")).unwrap();
    assert_eq!(printed, stored, "what is printed is what is stored");
    assert!(stored.complete && stored.seed == 7);
    assert_eq!(stored.cells.len(), 2);
    for cell in &stored.cells {
        assert!(cell.metrics["ns_per_op"].median > 0.0);
        assert!(
            cell.metrics["peak_resident_bytes"].median >= cell.metrics["peak_live_bytes"].median
        );
        assert_eq!(cell.metrics["ns_per_op"].samples.len(), 2);
        assert!(cell.latency["malloc"].count > 0 && cell.timeline.is_some());
    }
    assert!(stored.calibration.null_ns_per_op.is_some());
    // What the harness itself costs is said in every report.
    let null = stored.calibration.null_by_workload["churn t1"];
    let summary = std::fs::read_to_string(folder.path().join("r/summary.md")).unwrap();
    let times = stored.cells.iter().map(|c| c.metrics["ns_per_op"].median);
    let much = times.filter(|time| null > 0.25 * time).count();
    let marked = [
        "",
        ", over a quarter of the time of ",
        ", over a quarter of every time here",
    ][much];
    let said = format!(
        "harness {}{marked}",
        heaplab_reports::units::nanoseconds(null)
    );
    assert!(summary.contains(&said), "{said}: {summary}");
    assert!(summary.contains("an empty pair takes"), "{summary}");
    for latency in stored.cells.iter().flat_map(|c| c.latency.values()) {
        let of_parts = |cause| latency.by.iter().map(|part| part.slow[cause]).sum::<u64>();
        for (cause, calls) in &latency.slow {
            assert_eq!(of_parts(cause), *calls, "{cause}");
        }
    }
    assert!(
        stored.subjects.iter().all(|s| !s.version.is_empty()),
        "versions are read back"
    );
    for file in ["runs.jsonl", "session.json", "report.html", "summary.md"] {
        assert!(folder.path().join("r").join(file).exists(), "{file}");
    }
    let again = run(heaplab(folder.path()).args(["run", "--resume", "r"]));
    assert_eq!(
        again.0, 2,
        "a complete session is not run again: {}",
        again.2
    );
    let (status, out, _) = run(heaplab(folder.path()).args(["diff", "r", "r", "--format", "json"]));
    assert_eq!(status, 0);
    assert!(out.contains("\"ratio\": 1.0"), "{out}");
}

#[test]
fn control_c_keeps_what_was_finished() {
    let folder = tempfile::tempdir().unwrap();
    let child = heaplab(folder.path())
        .args(TINY)
        .args(["--blocks", "40", "--no-report", "-o", "r"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = folder.path().join("r/runs.jsonl");
    let lines = || std::fs::read_to_string(&journal).map_or(0, |t| t.lines().count());
    let began = Instant::now();
    // Far above what a loaded machine needs for three runs; ends the test instead of hanging it.
    while lines() < 3 && began.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let result = heaplab_reports::load(&folder.path().join("r")).unwrap();
    assert!(!result.complete);
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(said.matches("plan was not finished").count(), 1, "{said}");
    assert_eq!(said.matches("measured until then").count(), 1, "{said}");
    let kept = lines();
    assert!((3..40 * 6).contains(&kept), "{kept}");
    assert!(
        result
            .cells
            .iter()
            .all(|c| c.reason.as_deref().is_none_or(|r| !r.contains("interrupt")))
    );
}

/// Without room for it there is no `session.json`, and no half of one.
#[test]
fn a_session_that_cannot_be_written_leaves_no_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // What it makes beforehand lies in the cache after the first.
    let first = |name: &str| {
        let words = format!("run -a system --blocks 1 --no-report -o {name} -- true");
        words.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let (status, _, err) = run(heaplab(at).args(first("a")));
    assert_eq!(status, 0, "{err}");
    let (status, _, err) = run(std::process::Command::new("sh")
        .args(["-c", "ulimit -f 0; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_heaplab"))
        .args(first("b"))
        .current_dir(at));
    assert_eq!(status, 3, "{err}");
    assert!(err.contains("cannot write 'b/session.json'"), "{err}");
    assert_eq!(std::fs::read_dir(at.join("b")).unwrap().count(), 0);
}

#[test]
fn an_interrupted_run_is_carried_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut child = heaplab(at)
        .args(TINY)
        .args(["--blocks", "6", "--no-report", "-o", "r"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let journal = at.join("r/runs.jsonl");
    let text = || std::fs::read_to_string(&journal).unwrap_or_default();
    let began = Instant::now();
    while text().lines().count() < 3 && began.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let before = text();
    // From another folder: the session knows where it was started.
    let (status, out, err) = run(heaplab(std::path::Path::new("/")).args([
        "run",
        "--resume",
        at.join("r").to_str().unwrap(),
    ]));
    assert_eq!(status, 0, "{err}");
    assert!(
        text().starts_with(&before),
        "finished runs are not made again"
    );
    let result = heaplab_reports::load(&at.join("r")).unwrap();
    assert!(result.complete && result.notes.iter().all(|n| !n.contains("ended before")));
    for cell in &result.cells {
        let samples = &cell.metrics["ns_per_op"].samples;
        let blocks: std::collections::BTreeSet<u32> = samples.iter().map(|s| s.block).collect();
        assert_eq!((samples.len(), blocks.len()), (6, 6), "{}", cell.subject);
    }
    let again = out.lines().find(|l| l.contains("again: ")).unwrap();
    assert!(
        again.contains("again: heaplab run churn") && !again.contains(" -o "),
        "{again}"
    );
}

#[test]
fn every_command_has_an_example_in_its_help() {
    let commands = [
        "",
        "run",
        "record",
        "validate",
        "trace",
        "trace info",
        "trace verify",
        "trace stats",
        "trace cut",
        "trace anonymise",
        "trace export",
        "report",
        "diff",
        "gate",
        "gate run",
        "gate compare",
        "gate self-test",
        "gate baseline",
        "gate baseline update",
        "gate baseline check",
        "merge",
        "list",
        "doctor",
        "completions",
        "man",
        "licenses",
    ];
    for command in commands {
        let folder = tempfile::tempdir().unwrap();
        let (status, out, _) = run(heaplab(folder.path())
            .args(command.split_whitespace())
            .arg("--help"));
        assert_eq!(status, 0, "{command}");
        let (_, examples) = out
            .split_once("Example")
            .unwrap_or_else(|| panic!("{command}: no example"));
        assert!(
            examples.contains(&format!("heaplab {command}")),
            "{command}"
        );
    }
}

#[test]
fn what_the_doctor_finds_is_folded_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, _) = run(heaplab(folder.path()).arg("doctor").env("COLUMNS", "60"));
    assert_eq!(status, 0);
    let findings: Vec<&str> = (out.lines().skip(2))
        .take_while(|line| !line.is_empty())
        .collect();
    let whole = |line: &&str| line.starts_with(' ') && !line[17..].contains(' ');
    for line in findings.iter().filter(|line| !whole(line)) {
        assert!(line.chars().count() <= 60, "{out}");
    }
    assert!(
        findings
            .iter()
            .any(|line| line.starts_with("                 ")),
        "{out}"
    );
}

#[test]
fn a_model_is_called_by_its_threads_whatever_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, out, _) = run(heaplab(folder.path()).args(["list", "workloads", "--format", "json"]));
    let list: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let listed = &list.iter().find(|w| w["name"] == "larson").unwrap()["threads"];
    for seed in ["1", "2"] {
        let (status, out, err) = run(heaplab(folder.path()).args([
            "run",
            "larson",
            "--scale",
            "0.01",
            "--seed",
            seed,
            "--blocks",
            "1",
            "-a",
            "system",
            "--measure",
            "speed",
            "--no-report",
            "-q",
            "--format",
            "json",
        ]));
        assert_eq!(status, 0, "{err}");
        let result: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(&result["cells"][0]["threads"], listed, "seed {seed}");
    }
}

#[test]
fn a_part_of_a_recording_has_not_its_cpu_time() {
    let folder = tempfile::tempdir().unwrap();
    let quick = [
        "run",
        "imagemagick-stack",
        "-a",
        "system",
        "--measure",
        "speed",
        "--blocks",
        "1",
        "--no-report",
        "-q",
    ];
    for (scale, whole) in [("1", true), ("0.1", false)] {
        let (status, out, err) = run(heaplab(folder.path()).args(quick).args(["--scale", scale]));
        assert_eq!(status, 0, "{err}");
        let said = out.contains("of the program's CPU time");
        assert_eq!(said, whole, "scale {scale}: {out}");
    }
    let refused = run(heaplab(folder.path()).args(quick).args(["-t", "2"]));
    assert_eq!(refused.0, 2, "{}", refused.2);
    assert!(
        refused.2.contains("--threads is for models"),
        "{}",
        refused.2
    );
}

#[test]
fn a_program_is_compared_and_one_that_fails_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "-a",
        "system,jemalloc",
        "--blocks",
        "1",
        "--no-report",
        "--format",
        "json",
    ];
    let (status, out, err) = run(heaplab(folder.path()).args(args).args(["--", "ls", "/"]));
    assert_eq!(status, 0, "{err}");
    let result: heaplab_reports::schema::ResultSet = serde_json::from_str(&out).unwrap();
    assert!(
        result
            .cells
            .iter()
            .all(|c| c.api == "program" && c.metrics["peak_rss_bytes"].median > 0.0)
    );
    let (status, out, _) =
        run(heaplab(folder.path())
            .args(args)
            .args(["--", "ls", "/no/such/folder"]));
    assert_eq!(status, 4);
    assert!(
        out.contains("\"failed\"") && out.contains("\"reason\""),
        "{out}"
    );
}

/// With `--measure counts` a program is recorded with each subject underneath: what it asks for is known to the call, and the same in
/// every run of a program that does not care where its blocks lie.
#[test]
fn what_a_program_asks_for_is_counted_under_each_subject() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("asks.c"), folder.path().join("asks"));
    // A program whose calls depend on the allocator: it takes what a block really has.
    std::fs::write(
        &source,
        "#include <malloc.h>\n#include <stdlib.h>\nint main(void) {\n  for (int i = 0; i < 1000; i++) free(malloc(100));\n  \
         size_t has = malloc_usable_size(malloc(1 << 20));\n  void *volatile more = malloc(has);\n  return more == 0;\n}\n",
    )
    .unwrap();
    let mut cc = std::process::Command::new("cc");
    assert!(
        cc.args(["-O0", "-o"])
            .args([&program, &source])
            .status()
            .unwrap()
            .success()
    );
    let (status, out, err) = run(heaplab(folder.path())
        .args([
            "run",
            "-a",
            "system,jemalloc",
            "--measure",
            "counts",
            "--blocks",
            "2",
        ])
        .args(["--no-report", "--format", "json", "--"])
        .arg(&program));
    assert_eq!(status, 0, "{err}");
    let result: heaplab_reports::schema::ResultSet = serde_json::from_str(&out).unwrap();
    let figure = |cell: usize, name: &str| {
        let metric = &result.cells[cell].metrics[name];
        assert_eq!(
            (metric.samples.len(), metric.low),
            (2, metric.high),
            "{name}"
        );
        metric.median
    };
    for cell in 0..2 {
        assert!(figure(cell, "allocations") >= 1002.0);
        assert!(result.cells[cell].metrics.contains_key("wall_s"));
    }
    // glibc maps it and gives the rest of its last page, jemalloc has a class of that size.
    assert!(figure(0, "peak_live_bytes") > figure(1, "peak_live_bytes"));
    assert!(
        result.notes.iter().any(|note| note
            .contains("with its subject underneath; allocations repeated exactly in all 2 cells")),
        "{:?}",
        result.notes
    );
}

#[test]
fn lists_have_the_fields_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let fields = |what: &str, wanted: &[&str]| {
        let (status, out, err) =
            run(heaplab(folder.path()).args(["list", what, "--format", "json"]));
        assert_eq!(status, 0, "{err}");
        let list: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        assert!(!list.is_empty());
        for (entry, name) in list.iter().flat_map(|e| wanted.iter().map(move |n| (e, n))) {
            assert!(
                entry.get(name).is_some(),
                "{what}: {name} is missing in {entry}"
            );
        }
    };
    fields("subjects", &["name", "version", "available"]);
    fields(
        "workloads",
        &[
            "name",
            "kind",
            "threads",
            "ops",
            "peak_live_bytes",
            "purpose",
        ],
    );
    fields("suites", &["name", "workloads"]);
    fields("metrics", &["name", "unit", "better"]);
}

/// A file system of 64 KiB, mounted in a namespace of its own (root, or a user namespace where that is allowed).
#[test]
fn a_full_disk_keeps_the_finished_runs_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k none small || exit 99
         {} {} --blocks 30 --no-report -o small/r; echo status $?
         cat small/r/runs.jsonl >whole.jsonl; ls small/r",
        env!("CARGO_BIN_EXE_heaplab"),
        TINY.join(" ")
    );
    let in_namespace = |how: &str| {
        run(std::process::Command::new("unshare")
            .args([how, "sh", "-c", &script])
            .current_dir(folder.path()))
    };
    let (mut status, mut out, mut err) = in_namespace("-m");
    if status == 99 || status == 1 {
        (status, out, err) = in_namespace("-rm");
    }
    assert_eq!(status, 0, "no way to mount a small file system here: {err}");
    assert!(out.contains("status 3"), "{out}{err}");
    assert!(
        err.contains("no space left on device") && err.contains("--resume small/r"),
        "{err}"
    );
    assert!(
        !out.contains("result.json"),
        "no result that is not whole: {out}"
    );
    let kept = std::fs::read_to_string(folder.path().join("whole.jsonl")).unwrap();
    assert!(kept.lines().count() >= 3);
    for line in kept.lines() {
        serde_json::from_str::<heaplab_reports::schema::RunLine>(line)
            .expect("every kept line is whole");
    }
}

#[test]
fn each_subjects_own_statistics_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, err) = run(heaplab(folder.path()).args([
        "run",
        "churn",
        "--scale",
        "0.02",
        "--seed",
        "7",
        "--blocks",
        "1",
        "--measure",
        "memory",
        "--no-report",
        "--format",
        "json",
    ]));
    assert_eq!(status, 0, "{err}");
    let result: heaplab_reports::schema::ResultSet = serde_json::from_str(&out).unwrap();
    for (subject, field) in [
        ("system", "in_use_bytes"),
        ("mimalloc", "current_commit_bytes"),
    ] {
        let known = result.subjects.iter().find(|s| s.name == subject).unwrap();
        let statistics = known
            .stats_at_end
            .as_ref()
            .unwrap_or_else(|| panic!("{known:?}"));
        assert!(
            statistics[field].as_u64().is_some_and(|n| n > 0),
            "{statistics}"
        );
    }
    let ours = result
        .subjects
        .iter()
        .find(|s| s.name == "spanalloc")
        .unwrap();
    assert!(
        ours.stats_at_end
            .as_ref()
            .is_some_and(|s| s["settings"].is_object()),
        "{ours:?}"
    );
}

#[test]
fn two_hundred_threads_get_on_with_two_cpus() {
    let folder = tempfile::tempdir().unwrap();
    // Who waits for another thread's block must not keep the CPU from that thread: six of eight such runs hung once.
    let (status, out, err) = run(std::process::Command::new("taskset")
        .current_dir(folder.path())
        .env_remove("LD_PRELOAD")
        .args(["-c", "0,1", env!("CARGO_BIN_EXE_heaplab")])
        .args(["run", "producer-consumer", "-t", "200", "--scale", "0.05"])
        .args(["--measure", "latency", "-a", "system,spanalloc"])
        .args(["--seed", "51", "--blocks", "2", "--no-report"])
        .args(["--timeout", "60s", "--format", "json"]));
    assert_eq!(status, 0, "{err}{out}");
    let result: heaplab_reports::schema::ResultSet = serde_json::from_str(&out).unwrap();
    assert_eq!(result.cells.len(), 2);
    for cell in &result.cells {
        assert_eq!(cell.threads, 200);
        let calls = |op: &str| cell.latency.get(op).map_or(0, |latency| latency.count);
        let remote = cell.latency["free"].by.iter().any(|part| part.remote);
        assert!(calls("malloc") > 10_000 && remote, "{cell:?}");
    }
}
