//! Programs that are servers, from the command line: redis-server as packaged, and a small server of our own that can
//! misbehave.

mod support;

use heaplab_reports::schema::{ResultSet, Status};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{heaplab, run};

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `server PORT MODE`: answers one byte a connection and holds a block of 1 MiB for each; MODE `deaf` ignores SIGTERM,
/// `shy` never listens, `frail` dies at the first connection that sends a byte, `daemon` goes on in a session of its own, in
/// which it listens a moment later, `workers` leaves the answers to such a child and waits.
fn small_server(folder: &Path) -> PathBuf {
    let source = folder.join("server.c");
    std::fs::write(
        &source,
        r#"
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int n, char **v) {
    const char *mode = n > 2 ? v[2] : "";
    if (!strcmp(mode, "deaf")) signal(SIGTERM, SIG_IGN);
    if (!strcmp(mode, "shy")) for (;;) pause();
    if (!strcmp(mode, "daemon")) { if (fork()) return 0; setsid(); usleep(200000); }
    if (!strcmp(mode, "workers")) { if (fork()) for (;;) pause(); setsid(); }
    int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(v[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(s, (void *)&a, sizeof a) || listen(s, 16)) { write(2, "no port\n", 8); return 9; }
    for (;;) {
        int c = accept(s, 0, 0);
        char byte = 0;
        char *block = malloc(1 << 20);
        memset(block, 1, 1 << 20);
        long got = read(c, &byte, 1);
        if (got > 0 && !strcmp(mode, "frail")) abort();
        write(c, block, 1);
        close(c);
    }
}
"#,
    )
    .unwrap();
    let program = folder.join("server");
    let built = Command::new("cc")
        .args(["-O1", "-w", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    program
}

/// Sends a byte and reads one, `times` times, and says how many answers came.
fn client(port: u16, times: u32) -> String {
    format!(
        "python3 -c \"import socket\nn = 0\nfor i in range({times}):\n  s = socket.create_connection(('127.0.0.1', {port}))\n  \
         s.send(b'x')\n  n += len(s.recv(1))\nprint('answers:', n)\""
    )
}

/// How many there were, as the client says.
const ANSWERS: &str = "answers=count:higher:answers: ([0-9]+)";

#[test]
fn a_server_is_compared_under_its_load() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    let (status, out, err) = run(heaplab(folder.path())
        .args([
            "run",
            "-a",
            "system,jemalloc",
            "--blocks",
            "1",
            "--no-report",
        ])
        .args([
            "--until-ready",
            &format!("tcp:{port}"),
            "--load",
            &client(port, 20),
        ])
        .args(["--metric", ANSWERS, "--format", "json", "--"])
        .arg(&server)
        .arg(port.to_string()));
    assert_eq!(status, 0, "{err}");
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    assert_eq!(result.cells.len(), 2);
    for cell in &result.cells {
        let median = |name: &str| {
            cell.metrics
                .get(name)
                .unwrap_or_else(|| panic!("{name} of {}", cell.subject))
                .median
        };
        // The look at the port is a connection too.
        assert!(median("answers") == 20.0 && median("peak_rss_bytes") > 20e6);
        assert!(
            median("load_s") > 0.0
                && median("ready_s") > 0.0
                && median("wall_s") >= median("load_s")
        );
        assert!(median("peak_pss_bytes") > 15e6 && median("processes") == 1.0);
    }
    let version = |name: &str| {
        let subject = result.subjects.iter().find(|s| s.name == name).unwrap();
        subject.version.clone()
    };
    assert!(version("system").starts_with("2.") && version("jemalloc").starts_with("5."));
}

#[test]
fn a_server_is_recorded_until_its_load_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    let (status, _, err) = run(heaplab(folder.path())
        .args([
            "record",
            "-o",
            "s.hltrace",
            "--until-ready",
            &format!("tcp:{port}"),
        ])
        .args(["--load", &client(port, 10), "--metric", ANSWERS, "--"])
        .arg(&server)
        .arg(port.to_string()));
    // It dies by the signal that it was sent, which is no failure.
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("\nanswers: 10\n"), "{err}");
    let json = |command: &str| -> serde_json::Value {
        let words = ["trace", command, "s.hltrace", "--format", "json"];
        let (status, out, err) = run(heaplab(folder.path()).args(words));
        assert_eq!(status, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let stats = json("stats");
    assert!(stats["peak_live_bytes"].as_f64().unwrap() > 10e6, "{stats}");
    // A remark, and nothing that is missing.
    assert_eq!(stats["complete"], true, "{stats}");
    let notes = json("info")["notes"].clone();
    assert_eq!(
        notes,
        serde_json::json!(["metric: answers=count:higher:10"])
    );
}

#[test]
fn a_metric_of_a_recording_is_the_loads_and_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    let ready = format!("tcp:{port}");
    let with = |options: &[&str]| {
        run(heaplab(folder.path())
            .args(["record", "-o", "s.hltrace", "--until-ready", &ready])
            .args(options)
            .args(["--metric", ANSWERS, "--"])
            .arg(&server)
            .arg(port.to_string()))
    };
    let (status, _, err) = with(&["--load", "echo none"]);
    assert!(
        status == 125 && err.contains("metric 'answers' does not match"),
        "{err}"
    );
    // The program has run, and its trace is kept.
    assert!(err.contains("the trace holds what was recorded"), "{err}");
    assert!(folder.path().join("s.hltrace").exists());
    let (status, _, err) = with(&[]);
    assert!(
        status == 2 && err.contains("add --load CMD"),
        "{status} {err}"
    );
}

#[test]
fn a_server_is_profiled_under_its_load() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    let (status, _, err) = run(heaplab(folder.path())
        .args(["profile", "--stacks", "full", "-o", "p"])
        .args(["--until-ready", &format!("tcp:{port}")])
        .args(["--load", &client(port, 10), "--metric", ANSWERS, "--"])
        .arg(&server)
        .arg(port.to_string()));
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("answers: 10\n"), "{err}");
    let profile = std::fs::read_to_string(folder.path().join("p/profile.json")).unwrap();
    let profile: serde_json::Value = serde_json::from_str(&profile).unwrap();
    let measured = serde_json::json!([
        {"name": "answers", "unit": "count", "better": "higher", "value": 10.0}
    ]);
    assert_eq!(profile["measured"], measured);
    // One block a connection, held to the end; the look at the port is a connection, too.
    assert_eq!(profile["totals"]["leaked_bytes"], 11 << 20);
    let (status, _, err) =
        run(heaplab(folder.path()).args(["profile", "p/trace.hltrace", "--metric", ANSWERS]));
    assert!(
        status == 2 && err.contains("name a program after --"),
        "{err}"
    );
}

#[test]
fn a_prediction_for_a_server_stands_beside_its_metrics_and_variants() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    // Built with what looks like an allocator of its own; what it maps is its heap and not the program's.
    let linked = Command::new("cc")
        .args(["-O1", "-w", "-Dmalloc=mi_malloc", "-c", "server.c"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    let own = "#include <sys/mman.h>\nvoid *mi_malloc(unsigned long n) {\n  \
               return mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n}\n";
    std::fs::write(folder.path().join("own.c"), own).unwrap();
    let built = Command::new("cc")
        .args(["-w", "-o", "mine", "server.o", "own.c"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(linked.success() && built.success());
    let (status, out, err) = run(heaplab(folder.path())
        .args([
            "validate", "-a", "system", "--runs", "1", "--format", "json",
        ])
        .args(["--until-ready", &format!("tcp:{port}")])
        .args(["--load", &client(port, 24), "--metric", ANSWERS])
        .args(["--variant", &format!("mine=./mine {port}"), "--"])
        .arg(&server)
        .arg(port.to_string()));
    assert_eq!(status, 0, "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = found["subjects"].as_array().unwrap();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["subject"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["system", "mine"]);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row["metrics"]["answers"]["median"], 24.0, "{row}");
        let ratio = &row["metrics"]["answers"]["ratio_to_system"];
        assert_eq!(ratio["median"].as_f64(), (at > 0).then_some(1.0), "{row}");
        // 24 blocks of 1 MiB, and that of the look at the port. What the variant maps is exactly that, less what the program writes to in
        // its own mappings while these are looked at (`program/own.rs`).
        let actual = row["actual_peak_bytes"].as_f64().unwrap();
        assert!((24.9..28.0).contains(&(actual / (1 << 20) as f64)), "{row}");
        let predicted = row["predicted_peak_bytes"].as_f64();
        assert_eq!(predicted.is_none(), names[at] == "mine", "{row}");
        if let Some(predicted) = predicted {
            assert!((predicted / actual - 1.0).abs() < 0.03, "{row}");
        }
    }
}

#[test]
fn servers_that_misbehave_are_rows_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let server = small_server(folder.path());
    let reason = |mode: &str, options: &[&str]| {
        let port = free_port();
        let ready = format!("tcp:{port}");
        let load = client(port, 3);
        let words: Vec<&str> = options
            .iter()
            .map(|word| if *word == "LOAD" { load.as_str() } else { word })
            .collect();
        let (status, out, err) = run(heaplab(folder.path())
            .args([
                "run",
                "-a",
                "system",
                "--blocks",
                "1",
                "--no-report",
                "--format",
                "json",
            ])
            .args(["--until-ready", &ready])
            .args(words)
            .arg("--")
            .arg(&server)
            .args([&port.to_string(), mode]));
        assert_eq!(status, 4, "{out}{err}");
        let result: ResultSet = serde_json::from_str(&out).unwrap();
        assert_eq!(result.cells[0].status, Status::Failed);
        result.cells[0].reason.clone().unwrap()
    };
    for (mode, options, wanted) in [
        (
            "shy",
            &["--ready-within", "200ms"][..],
            "was not ready after 200 ms",
        ),
        ("frail", &["--load", "LOAD"], "ended under the load"),
        (
            "",
            &["--load", "echo no >&2; exit 5"],
            "the load ended with exit status 5; its last words: no",
        ),
        (
            "",
            &["--load", "echo 1", "--metric", "x=1/s:higher:rate ([0-9]+)"],
            "metric 'x' does not match",
        ),
        (
            "",
            // A progress that is written over itself, as redis-benchmark's.
            &[
                "--load",
                "printf '10 %%\\r90 %%\\rdone'",
                "--metric",
                "x=1/s:higher:rate ([0-9]+)",
            ],
            "the last line is: done",
        ),
        (
            "",
            &["--load", "sleep 60", "--timeout", "1s"],
            "hung: killed after 1 s (--timeout); the load had not ended",
        ),
    ] {
        let reason = reason(mode, options);
        assert!(reason.contains(wanted), "{mode}: {reason}");
    }
}

#[test]
fn a_server_that_ignores_the_signal_is_killed_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (server, port) = (small_server(folder.path()), free_port());
    let args = ["run", "-a", "system", "--blocks", "1", "--no-report"];
    let at = format!("tcp:{port}");
    let with = |options: &[&str]| {
        run(heaplab(folder.path())
            .args(args)
            .args(["--until-ready", &at])
            .args(options)
            .arg("--")
            .arg(&server)
            .args([&port.to_string(), "deaf"]))
    };
    // It is up for longer than a run may hang.
    let (status, out, err) = with(&[
        "--stop-signal",
        "INT",
        "--duration",
        "2500ms",
        "--timeout",
        "2s",
    ]);
    assert_eq!(status, 0, "{out}{err}");
    let (status, out, _) = with(&["--duration", "10ms"]);
    assert!(status == 4 && out.contains("did not end within"), "{out}");
}

/// What goes on when a server was to be over would answer in the place of the next one.
#[test]
fn nothing_of_a_server_goes_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = small_server(folder.path()).display().to_string();
    let run_args = ["run", "-a", "system", "--blocks", "1", "--no-report"];
    let record_args = ["record", "-o", "s.hltrace"];
    // What is run, the load, and what is said of it.
    let background = format!("{server} PORT; true");
    for (program, load, failed, wanted) in [
        (
            vec![&*server, "PORT", "daemon"],
            "true",
            true,
            "a server must stay in the foreground",
        ),
        (
            vec![&*server, "PORT", "workers"],
            "exit 3",
            true,
            "the load ended with exit status 3",
        ),
        (
            vec!["sh", "-c", &background],
            "true",
            false,
            "should replace itself by it (exec)",
        ),
    ] {
        for (args, failure) in [(&run_args[..], 4), (&record_args[..], 125)] {
            let port = free_port().to_string();
            let words = program.iter().map(|word| word.replace("PORT", &port));
            let (status, out, err) = run(heaplab(folder.path())
                .args(args)
                .args([
                    "--until-ready",
                    &format!("tcp:{port}"),
                    "--load",
                    load,
                    "--",
                ])
                .args(words));
            let case = format!("{args:?} {program:?}: {out}{err}");
            assert_eq!(status, if failed { failure } else { 0 }, "{case}");
            assert!(out.contains(wanted) || err.contains(wanted), "{case}");
            // Bound and not only silent: a port that is listened at cannot be bound.
            assert!(
                std::net::TcpListener::bind(format!("127.0.0.1:{port}")).is_ok(),
                "{case}"
            );
        }
    }
}

#[test]
fn redis_says_which_allocator_it_uses_today() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let (status, out, err) = run(heaplab(folder.path())
        .args([
            "run",
            "-a",
            "system,spanalloc",
            "--blocks",
            "1",
            "--no-report",
            "--format",
            "json",
        ])
        .args([
            "--until-ready",
            &format!("redis-cli -p {port} ping | grep -q PONG"),
        ])
        .args([
            "--load",
            &format!("redis-benchmark -p {port} -q -n 20000 -r 5000 -d 100 -t set,lpush"),
        ])
        .args([
            "--metric",
            "set_rps=1/s:higher:SET: ([0-9.]+) requests per second",
        ])
        .args([
            "--",
            "env",
            "BEHIND=env",
            "redis-server",
            "--save",
            "",
            "--port",
            &port.to_string(),
        ]));
    assert_eq!(status, 0, "{err}");
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    for cell in &result.cells {
        assert!(cell.metrics["set_rps"].median > 100.0, "{cell:?}");
        assert!(cell.metrics["peak_rss_bytes"].median > 1e6);
    }
    // Debian's is linked to jemalloc, others are not: in both cases the row must say what it is, behind `env` as well.
    let system = &result.subjects[0];
    let linked = Command::new("ldd")
        .arg("/usr/bin/redis-server")
        .output()
        .unwrap();
    let linked = String::from_utf8_lossy(&linked.stdout).contains("libjemalloc");
    assert_eq!(system.version.contains("libjemalloc"), linked, "{system:?}");
}

#[test]
fn variants_are_subjects_and_wrappers_do_not_hide_what_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let build = |name: &str, text: &str, flags: &[&str]| {
        let source = folder.path().join("p.c");
        std::fs::write(&source, text).unwrap();
        let built = Command::new("cc")
            .args(["-o", name, "p.c"])
            .args(flags)
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(built.success());
    };
    let work = "#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\nvoid *mi_malloc(size_t n) { return malloc(n); }\n\
                int main(void) { char *p = WHICH(8 << 20); memset(p, 1, 8 << 20); usleep(150000); return 0; }\n";
    build(
        "plain",
        &work.replace("void *mi_malloc(size_t n) { return malloc(n); }\n", ""),
        &["-DWHICH=malloc"],
    );
    build("mine", work, &["-DWHICH=mi_malloc"]);
    build("static", work, &["-DWHICH=malloc", "-static"]);
    let json = |args: &[&str]| {
        let (status, out, err) = run(heaplab(folder.path())
            .args([
                "run",
                "-a",
                "system,jemalloc",
                "--blocks",
                "1",
                "--no-report",
                "--format",
                "json",
            ])
            .args(args));
        let result: ResultSet = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e} {err}"));
        (status, result)
    };
    let (status, result) = json(&["--variant", "mine=./mine", "--", "./plain"]);
    assert_eq!(status, 0);
    let names: Vec<&str> = result.cells.iter().map(|c| c.subject.as_str()).collect();
    assert_eq!(names, ["system", "jemalloc", "mine"]);
    assert!(result.cells[2].metrics["wall_s"].ratio_to_system.is_some());
    assert_eq!(result.subjects[2].version, "mimalloc");
    // The shell is reached, the programs that it starts are not: they are named in both rows.
    for (program, wanted) in [("./mine", "mimalloc"), ("./static", "static program")] {
        let (status, result) = json(&["--", "sh", "-c", &format!("{program}; true")]);
        assert_eq!(status, 4);
        for cell in &result.cells {
            let reason = cell.reason.as_deref().unwrap_or_default();
            assert!(
                reason.contains(wanted) && reason.contains(&program[2..]),
                "{reason}"
            );
        }
    }
    // An environment that is cleared on the way.
    let (_, result) = json(&["--", "sh", "-c", "env -i ./plain; true"]);
    assert_eq!(result.cells[0].status, Status::Ok, "{:?}", result.cells[0]);
    let reason = result.cells[1].reason.as_deref().unwrap_or_default();
    assert!(reason.contains("without jemalloc"), "{reason}");
}

#[test]
fn commands_are_printed_and_run_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (status, out, err) = run(heaplab(folder.path()).args([
        "run",
        "-a",
        "system,jemalloc",
        "--print-command",
        "--",
        "sh",
        "-c",
        "echo \"$LD_PRELOAD\"",
    ]));
    assert_eq!(status, 0, "{err}");
    assert!(!folder.path().join("heaplab-results").exists());
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 2, "{out}");
    let (status, said, _) = run(Command::new("sh")
        .args(["-c", lines[1]])
        .current_dir(folder.path()));
    assert!(
        status == 0 && said.contains("libheaplab_jemalloc.so"),
        "{said}"
    );
}

#[test]
fn the_machine_of_a_program_is_shaped_or_the_option_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let with = |options: &[&str]| {
        run(heaplab(folder.path())
            .args(["run", "-a", "system", "--blocks", "1", "--no-report", "--format", "json"])
            .args(options)
            .args(["--", "python3", "-c"])
            .arg("x = bytearray(100 << 20)\nfor l in open('/proc/self/status'):\n  if 'THP' in l: print(l)"))
    };
    let (status, out, err) = with(&[
        "--thp",
        "never",
        "--metric",
        "thp=x:higher:THP_enabled:\\s+([0-9])",
    ]);
    assert_eq!(status, 0, "{err}");
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    let cell = &result.cells[0];
    assert!(
        cell.thp == "never" && cell.metrics["thp"].median == 0.0,
        "{cell:?}"
    );
    let (status, out, _) = with(&["--memory-limit", "40MiB"]);
    assert_eq!(status, 4);
    let result: ResultSet = serde_json::from_str(&out).unwrap();
    assert_eq!(result.cells[0].memory_limit, Some(40 << 20));
    // By a control group, or by the program itself, which gets no memory beyond RLIMIT_DATA.
    let reason = result.cells[0].reason.clone().unwrap();
    assert!(
        reason.contains("at the memory limit of 40.0 MiB") || reason.contains("MemoryError"),
        "{reason}"
    );
    for options in [
        &["--cpus", "8"][..],
        &["--thp", "always"],
        &["--idle", "1s"],
        &["--mode", "paced"],
        &["--api", "sized"],
        &["--measure", "latency"],
        &["--scale", "2"],
        &["--shard", "1/2"],
    ] {
        let (status, _, err) = with(options);
        assert!(
            status == 2 && err.contains(options[0]),
            "{options:?}: {err}"
        );
    }
}

#[test]
fn options_that_have_no_program_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for (args, wanted) in [
        (&["run", "--load", "true"][..], "are for programs"),
        (
            &["run", "--stop-signal", "INT", "--", "true"],
            "but not when",
        ),
        (
            &["run", "--metric", "a=1/s:higher:x"],
            "name a program after --",
        ),
        (
            &["run", "--until-ready", "tcp:99999", "--", "true"],
            "port from 1 to 65535",
        ),
        (&["run", "--variant", "x=true"], "no program is named"),
    ] {
        let (status, out, err) = run(heaplab(folder.path()).args(args));
        assert!(
            status == 2 && out.is_empty() && err.contains(wanted),
            "{status} {err}"
        );
    }
}
