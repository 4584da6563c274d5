//! Trees of processes from the command line: one file with all of them, one of them replayed, what could not be recorded named.

mod support;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{heaplab, run};

fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) {
    let file = folder.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let built = Command::new("cc")
        .args(flags)
        .arg("-o")
        .args([&folder.join(name), &file])
        .status()
        .unwrap();
    assert!(built.success(), "cc {flags:?} {name}.c");
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let (status, out, err) = run(heaplab(folder).args(args).args(["--format", "json"]));
    assert_eq!(status, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn programs(info: &Value) -> Vec<String> {
    let table = info["process_table"].as_array().unwrap();
    let name = |process: &Value| {
        let path = process["program"].as_str().unwrap();
        path.rsplit('/').next().unwrap().to_owned()
    };
    table.iter().map(name).collect()
}

/// `make -j2` of three C files, in parallel, with their compilers, assemblers and the linker.
#[test]
fn a_build_is_one_trace_and_one_of_its_processes_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["one", "two", "main"] {
        let body = format!("int {name}(void) {{ return sizeof \"{name}\" > 1 ? 0 : 1; }}\n");
        std::fs::write(at.join(format!("{name}.c")), body).unwrap();
    }
    let makefile = "out: one.o two.o main.o\n\tcc -o $@ $^\n%.o: %.c\n\tcc -c -o $@ $<\n";
    std::fs::write(at.join("Makefile"), makefile).unwrap();
    let (status, _, err) =
        run(heaplab(at).args(["record", "-o", "b.hltrace", "--", "make", "-s", "-j2"]));
    assert_eq!(status, 0, "{err}");
    assert!(at.join("out").exists(), "{err}");
    assert!(
        err.contains("processes") && err.contains("b.hltrace#PID"),
        "{err}"
    );

    let info = json(at, &["trace", "info", "b.hltrace"]);
    let names = programs(&info);
    assert_eq!(names[0], "make");
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    assert_eq!(count("cc1"), 3, "{names:?}");
    assert!(count("collect2") == 1 && names.len() >= 9, "{names:?}");
    assert_eq!(info["complete"], true, "{}", info["missing"]);
    assert_eq!(info["processes"], names.len());
    let table = info["process_table"].as_array().unwrap();
    for process in &table[1..] {
        let parent = process["parent"]
            .as_u64()
            .expect("every process has a parent");
        assert!(parent < process["process"].as_u64().unwrap());
    }
    let (_, text, _) = run(heaplab(at).args(["trace", "info", "b.hltrace"]));
    assert!(
        text.contains("spawn by") && text.contains("collect2"),
        "{text}"
    );
    assert_eq!(run(heaplab(at).args(["trace", "verify", "b.hltrace"])).0, 0);

    let args = |of: &'static str, out: &'static str| {
        let common = [
            "-a",
            "system",
            "--blocks",
            "1",
            "--measure",
            "memory",
            "--no-report",
            "-q",
        ];
        [&["run", of][..], &common, &["-o", out]].concat()
    };
    let linker = names.iter().position(|name| name == "collect2").unwrap();
    let of = format!("b.hltrace#{}", table[linker]["pid"]);
    let one = json(at, &args(of.clone().leak(), "r1"));
    let cell = &one["cells"][0];
    assert_eq!(cell["status"], "ok", "{cell}");
    let live = cell["metrics"]["peak_live_bytes"]["median"].as_f64();
    assert_eq!(live, table[linker]["peak_live_bytes"].as_f64());
    // Cut out it is a trace of its own, which all other commands take; they say so where a process is named.
    let (status, _, err) = run(heaplab(at).args(["trace", "stats", &of]));
    assert!(
        status == 2 && err.contains(&format!("heaplab trace cut {of} -o")),
        "{status} {err}"
    );
    let cut = ["trace", "cut", &of, "-o", "linker.hltrace"];
    let (status, _, err) = run(heaplab(at).args(cut));
    assert_eq!(status, 0, "{err}");
    assert_eq!(
        run(heaplab(at).args(["trace", "verify", "linker.hltrace"])).0,
        0
    );
    let stats = json(at, &["trace", "stats", "linker.hltrace"]);
    assert_eq!(stats["peak_live_bytes"].as_f64(), live);
    let about = json(at, &["trace", "info", "linker.hltrace"]);
    assert_eq!(about["process_table"][0]["argv"], table[linker]["argv"]);
    for (wrong, reason) in [
        (&["trace", "cut", "b.hltrace#1"][..], "no process '1'"),
        (&["trace", "cut", &of, "--to", "1s"], "is cut out whole"),
    ] {
        let (status, _, err) = run(heaplab(at).args(wrong).args(["-o", "wrong.hltrace"]));
        assert!(status == 2 && err.contains(reason), "{status} {err}");
        assert!(!at.join("wrong.hltrace").exists());
    }
    // Without a choice: the one with the most events, and that is said.
    let busiest = json(at, &args("b.hltrace", "r2"));
    let notes = busiest["notes"].to_string();
    assert!(
        notes.contains("the busiest, cc1") && notes.contains("#PID"),
        "{notes}"
    );
    let (status, _, err) = run(heaplab(at).args(["run", "b.hltrace#1", "-a", "system"]));
    assert!(
        status == 2 && err.contains("no process '1'"),
        "{status} {err}"
    );
}

/// What is made of a build's trace has its processes, and each of them replays.
#[test]
fn copies_of_a_build_keep_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let makefile = "out: one.o two.o\n\tcc -shared -o $@ $^\n%.o: %.c\n\tcc -fPIC -c -o $@ $<\n";
    std::fs::write(at.join("Makefile"), makefile).unwrap();
    for name in ["one", "two"] {
        std::fs::write(at.join(format!("{name}.c")), format!("int {name};\n")).unwrap();
    }
    // A shell that forks on its way, so that blocks are inherited.
    let script =
        "x=$(echo a | { read y; echo $y; }); make -s -j2; (x=$x$x; echo $x) >/dev/null; true";
    let (status, _, err) =
        run(heaplab(at).args(["record", "-o", "b.hltrace", "--", "bash", "-c", script]));
    assert_eq!(status, 0, "{err}");
    let events = json(at, &["trace", "info", "b.hltrace"])["events"]
        .as_u64()
        .unwrap();
    let (from, to) = ((events / 5).to_string(), (events * 4 / 5).to_string());
    for args in [
        &["cut", "b.hltrace", "--from-event", &from, "--to-event", &to][..],
        &["scale", "b.hltrace", "--copies", "2", "--load", "0.5"],
        &["merge", "b.hltrace", "copy.hltrace"],
        &["anonymise", "b.hltrace"],
    ] {
        let out = if args[0] == "merge" {
            "more.hltrace"
        } else {
            "copy.hltrace"
        };
        let (status, _, err) = run(heaplab(at).arg("trace").args(args).args(["-o", out]));
        assert_eq!(status, 0, "{args:?}: {err}");
        assert_eq!(
            run(heaplab(at).args(["trace", "verify", out])).0,
            0,
            "{args:?}"
        );
        let table = json(at, &["trace", "info", out])["process_table"].clone();
        let table = table.as_array().unwrap();
        let text = run(heaplab(at).args(["trace", "info", out])).1;
        let mut images = std::collections::HashMap::new();
        let (mut named, mut inherited) = (Vec::new(), false);
        for process in table {
            let pid = process["pid"].as_u64().unwrap();
            let image = images.entry(pid).and_modify(|n| *n += 1).or_insert(1);
            inherited |= process["fork_offset"].is_u64();
            if process["events"] != 0 {
                let shown = if *image == 1 {
                    format!("{pid} ")
                } else {
                    format!("{pid}.{image} ")
                };
                assert!(text.contains(&shown), "{shown}: {text}");
                named.push(format!("{out}#{pid}.{image}"));
            }
        }
        assert!(
            (inherited || args[0] == "cut") && named.len() >= 5,
            "{args:?}: {text}"
        );
        let (status, _, err) = run(heaplab(at)
            .args([
                "run",
                "-a",
                "system",
                "--blocks",
                "1",
                "--measure",
                "memory",
            ])
            .args([
                "--idle",
                "0s",
                "--no-report",
                "-q",
                "-o",
                &format!("of-{}", args[0]),
            ])
            .args(&named));
        assert_eq!(status, 0, "{args:?}: {err}");
    }
}

#[test]
fn what_a_tree_runs_without_the_recorder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    compile(at, "fixed", "int main(void) { return 0; }", &["-static"]);
    let script = "./fixed; ./fixed; no-such-program-9 2>/dev/null; env -i /bin/true; true";
    let (status, _, err) =
        run(heaplab(at).args(["record", "-o", "t.hltrace", "--", "sh", "-c", script]));
    assert_eq!(status, 0, "{err}");
    assert!(
        err.contains("not recorded: './fixed' (2 times)") && err.contains("static executable"),
        "{err}"
    );
    assert!(
        err.contains("not recorded: '/bin/true'") && err.contains("LD_PRELOAD"),
        "{err}"
    );
    assert!(!err.contains("no-such-program-9"), "{err}");
    let info = json(at, &["trace", "info", "t.hltrace"]);
    assert!(
        info["notes"].to_string().contains("./fixed"),
        "{}",
        info["notes"]
    );
    assert!(programs(&info).iter().any(|name| name == "env"), "{info}");
}

/// The dynamic loader ignores LD_PRELOAD in programs that run with another user's rights. Root makes one of another user's;
/// others find root's on every system.
#[test]
fn setuid_programs_are_named_alone_and_in_a_tree() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    compile(
        at,
        "lent",
        "#include <stdlib.h>\nint main(void) { free(malloc(9)); return 7; }",
        &[],
    );
    let own = at.join("lent");
    let (file, status) = match chown(&own, Some(65_534), None) {
        Ok(()) => {
            // A change of the owner takes the bit away.
            std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o4755)).unwrap();
            ("./lent", 7)
        }
        Err(_) => ("/bin/su", 0),
    };
    let said = |err: &str| {
        err.contains("is setuid or setgid") && err.contains("record a copy without the bit")
    };
    let alone = run(heaplab(at).args(["record", "-o", "alone.hltrace", "--", file, "--version"]));
    assert_eq!(alone.0, if status == 0 { 3 } else { status }, "{}", alone.2);
    assert!(said(&alone.2), "{}", alone.2);
    let script = format!("{file} --version; true");
    let (code, _, err) =
        run(heaplab(at).args(["record", "-o", "t.hltrace", "--", "sh", "-c", &script]));
    assert_eq!(code, 0, "{err}");
    assert!(
        err.contains(&format!("not recorded: '{file}'")) && said(&err),
        "{err}"
    );
    let notes = json(at, &["trace", "info", "t.hltrace"])["notes"].to_string();
    assert!(notes.contains(file), "{notes}");
}

/// Where they end is known only when what they committed has been read, and that they are gone is known before.
#[test]
fn short_processes_end_behind_their_last_call() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "for i in 1 2 3 4 5 6; do sh -c 'sleep 0.1; true' | cat; done";
    let (code, _, err) =
        run(heaplab(at).args(["record", "-o", "t.hltrace", "--", "sh", "-c", script]));
    assert_eq!(code, 0, "{err}");
    let info = json(at, &["trace", "info", "t.hltrace"]);
    let table = info["process_table"].as_array().unwrap();
    assert!(table.len() > 12, "{info}");
    for process in table {
        let (start, end) = (process["start_ns"].as_u64(), process["end_ns"].as_u64());
        assert!(end > start, "{process}");
    }
}

/// Numbers of processes mean others there: the recording ends with the program all the same.
#[test]
fn processes_in_a_namespace_of_their_own_are_recorded_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let may = Command::new("unshare").args(["-pf", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        return;
    }
    let mut child = heaplab(at)
        .args([
            "record",
            "-q",
            "-o",
            "t.hltrace",
            "--",
            "unshare",
            "-pf",
            "--mount-proc",
        ])
        .args(["sh", "-c", "ls /; ls /; ls /; true"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed().as_secs() > 60 {
            child.kill().unwrap();
            panic!("it waits for processes that are others");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let info = json(at, &["trace", "info", "t.hltrace"]);
    assert!(
        programs(&info).iter().filter(|name| *name == "ls").count() == 3,
        "{info}"
    );
}

/// A program that goes on as another user finds the recorder, too.
#[test]
fn what_goes_on_as_another_user_is_recorded() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (code, _, err) = run(heaplab(at)
        .env_remove("XDG_CACHE_HOME")
        .args([
            "record",
            "-o",
            "t.hltrace",
            "--",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .args(["sh", "-c", "ls /; id"]));
    assert!(
        code == 0 && !err.contains("not recorded") && !err.contains("ld.so"),
        "{err}"
    );
    let info = json(at, &["trace", "info", "t.hltrace"]);
    for program in ["setpriv", "sh", "ls", "id"] {
        assert!(
            programs(&info).iter().any(|name| name.ends_with(program)),
            "{program}: {info}"
        );
    }
}

/// The first process ends at once; what it leaves behind is recorded to its end.
#[test]
fn the_recording_outlives_the_first_process() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    compile(
        at,
        "late",
        "#include <stdlib.h>\n#include <unistd.h>\n\
         int main(void) { usleep(400000); for (int i = 0; i < 5000; i++) free(malloc(77)); return 0; }",
        &["-O1", "-fno-builtin"],
    );
    let (status, _, err) = run(heaplab(at)
        .args([
            "record",
            "-o",
            "l.hltrace",
            "--",
            "sh",
            "-c",
            "./late & exit 3",
        ])
        .stdout(Stdio::null()));
    assert_eq!(status, 3, "the first one's status: {err}");
    let info = json(at, &["trace", "info", "l.hltrace"]);
    let late = programs(&info)
        .iter()
        .position(|name| name == "late")
        .unwrap();
    let events = info["process_table"][late]["events"].as_u64().unwrap();
    assert!(events >= 10_000, "{events} events of what came late");
    assert_eq!(info["complete"], true);
}

#[test]
fn a_recording_can_be_paused_and_marked_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/recorder/include");
    let flags = format!("-I{}", header.display());
    compile(
        at,
        "phases",
        "#include <stdlib.h>\n#include \"heaplab.h\"\n\
         static void churn(int size) { for (int i = 0; i < 1000; i++) free(malloc(size)); }\n\
         int main(void) {\n\
           int on = heaplab_is_recording();\n\
           HEAPLAB_RESUME(); HEAPLAB_MARK(\"a phase with a name longer than a record\"); churn(100);\n\
           on += 2 * HEAPLAB_IS_RECORDING(); HEAPLAB_PAUSE(); churn(200);\n\
           heaplab_resume(); heaplab_mark(\"end\"); churn(300); return on; }",
        &["-O1", "-fno-builtin", &flags],
    );
    // Outside a recording the calls do nothing.
    let alone = Command::new(at.join("phases")).status().unwrap();
    assert_eq!(alone.code(), Some(0));
    let (status, _, err) =
        run(heaplab(at).args(["record", "--paused", "-o", "p.hltrace", "--", "./phases"]));
    assert_eq!(status, 2, "{err}");
    assert!(err.contains("kill -USR1"), "{err}");
    let info = json(at, &["trace", "info", "p.hltrace"]);
    let marks = info["marks"].to_string();
    assert!(
        marks.contains("a phase with a name longer than a record"),
        "{marks}"
    );
    assert!(
        marks.contains("\"end\"")
            && marks.matches("recording paused").count() == 2
            && marks.matches("recording resumed").count() == 2,
        "from outside at the start, and each call of the program: {marks}"
    );
    let (status, table, _) = run(heaplab(at).args(["trace", "export", "p.hltrace"]));
    assert_eq!(status, 0);
    let of = |size: &str| table.lines().filter(|line| line.contains(size)).count();
    assert!(
        of(",malloc,1,100,") + of(",100,0") >= 1000,
        "{}",
        &table[..600]
    );
    assert_eq!(of(",200,0"), 0);
    assert!(of(",300,0") >= 1000);
}

/// SIGUSR1 to heaplab starts a paused recording.
#[test]
fn a_signal_starts_a_paused_recording() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let script = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\nx = [bytearray(1000) for _ in range(2000)]";
    let mut child = heaplab(at)
        .args([
            "record",
            "--paused",
            "-o",
            "s.hltrace",
            "--",
            "/usr/bin/python3",
            "-c",
            script,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let sent = Command::new("kill")
        .args(["-USR1", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    // The mark is in the part as soon as the signal has been acted upon; the bound ends the test instead of hanging it.
    let part = at.join("s.hltrace.part");
    let begun = std::time::Instant::now();
    let resumed = || {
        let bytes = std::fs::read(&part).unwrap_or_default();
        bytes
            .windows(17)
            .any(|window| window == b"recording resumed")
    };
    while !resumed() && begun.elapsed().as_secs() < 300 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
    let stats = json(at, &["trace", "stats", "s.hltrace"]);
    let allocations = stats["allocations"].as_u64().unwrap();
    assert!(
        (2000..20_000).contains(&allocations),
        "{allocations}: not what came after the start"
    );
}

#[test]
fn mappings_are_recorded_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    compile(
        at,
        "maps",
        "#define _GNU_SOURCE\n#include <sys/mman.h>\n#include <unistd.h>\n\
         int main(void) {\n\
           void *p = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n\
           p = mremap(p, 12288, 40960, MREMAP_MAYMOVE); ((char *)p)[40000] = 1;\n\
           if (munmap(p, 40960)) return 1;\n\
           char *brk = sbrk(8192); brk[0] = 1; return mmap(0, 0, 0, 0, -1, 0) != MAP_FAILED; }",
        &[],
    );
    let table = |options: &[&str]| {
        let (status, _, err) = run(heaplab(at)
            .args(["record", "-o", "m.hltrace"])
            .args(options)
            .args(["--", "./maps"]));
        assert_eq!(status, 0, "{err}");
        run(heaplab(at).args(["trace", "export", "m.hltrace"])).1
    };
    let with = table(&["--mappings"]);
    for call in [
        ",mmap,0,12288",
        ",mremap,0,40960",
        ",munmap,0,40960",
        ",brk,",
    ] {
        assert!(with.contains(call), "{call}: {with}");
    }
    let without = table(&[]);
    assert!(
        !without.contains(",mmap,") && !without.contains(",brk,"),
        "{without}"
    );
}

/// An allocator inside the program reports by the header's calls.
#[test]
fn an_allocator_of_the_programs_own_can_report() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads/recorder/include");
    let flags = format!("-I{}", header.display());
    compile(
        at,
        "arena",
        "#include \"heaplab.h\"\n\
         static char pool[1 << 20]; static unsigned long used;\n\
         static void *take(unsigned long n) { void *p = pool + used; used += (n + 15) & ~15ul; HEAPLAB_ALLOCATED(p, n, 0); return p; }\n\
         static void give(void *p) { HEAPLAB_FREEING(p); }\n\
         int main(void) { for (int i = 0; i < 400; i++) give(take(1237)); return 0; }",
        &[&flags],
    );
    let (status, _, err) = run(heaplab(at).args(["record", "-o", "a.hltrace", "--", "./arena"]));
    assert_eq!(status, 0, "{err}");
    let (_, table, _) = run(heaplab(at).args(["trace", "export", "a.hltrace"]));
    let own = table.lines().filter(|line| line.contains(",1237,"));
    assert_eq!(own.count(), 800, "each allocation and its free");
}
