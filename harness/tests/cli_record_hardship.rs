//! Recordings where something fails: no room, no memory file, a folder that takes nothing, little memory. The program's
//! status and output are its own, and what is missing from the trace is said.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{heaplab, run};

const HEAPLAB: &str = env!("CARGO_BIN_EXE_heaplab");

/// `work PAIRS STATUS`: random sizes, so that an event takes bytes in the file.
const WORK: &str = "#include <stdio.h>\n#include <stdlib.h>\n
    int main(int c, char **v) {
        static void *slots[512];
        unsigned long state = 88172645463325252ul;
        puts(\"begun\");
        for (long i = c > 1 ? atol(v[1]) : 0; i > 0; i--) {
            state ^= state << 13; state ^= state >> 7; state ^= state << 17;
            void **slot = &slots[state % 512];
            free(*slot);
            *slot = malloc(16 + (state >> 20) % 4000);
        }
        puts(\"done\");
        return c > 2 ? atoi(v[2]) : 0;
    }";

/// A folder with the program in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("work.c"), WORK).unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-O1", "-fno-builtin", "-o", "work", "work.c"])
        .current_dir(folder.path());
    assert!(compile.status().unwrap().success());
    folder
}

/// Runs a script in which `$H` is heaplab, in `folder`.
fn script(folder: &Path, script: &str) -> (i32, String, String) {
    shell(Command::new("sh"), folder, script)
}

/// As [`script`], where it may mount file systems of its own: as root, or in a user namespace. `None`: not on this machine,
/// which is printed.
fn script_with_mounts(folder: &Path, script: &str) -> Option<(i32, String, String)> {
    for how in ["-m", "-rm"] {
        let may = Command::new("unshare")
            .args([how, "mount", "-t", "tmpfs", "none", "/dev/shm"])
            .output()
            .is_ok_and(|output| output.status.success());
        if may {
            let mut command = Command::new("unshare");
            command.args([how, "sh"]);
            return Some(shell(command, folder, script));
        }
    }
    println!("file systems cannot be mounted here, as root or in a user namespace");
    None
}

fn shell(mut command: Command, folder: &Path, script: &str) -> (i32, String, String) {
    command
        .args(["-c", script])
        .current_dir(folder)
        .env("H", HEAPLAB)
        .env("NO_COLOR", "1")
        .env_remove("LD_PRELOAD");
    run(&mut command)
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let (status, out, err) = run(heaplab(folder).args(args).args(["--format", "json"]));
    assert_eq!(status, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn events(of: &Value) -> u64 {
    of["events"].as_u64().unwrap_or_else(|| panic!("{of}"))
}

/// The number before a word.
fn number_before(text: &str, word: &str) -> u64 {
    let (before, _) = text
        .split_once(word)
        .unwrap_or_else(|| panic!("no '{word}' in {text}"));
    let number = before.trim_end().rsplit(' ').next().unwrap();
    number
        .parse()
        .unwrap_or_else(|_| panic!("'{number}' in {text}"))
}

/// All events of a recording of `./work 100000 3` with room for it.
fn all_events(at: &Path) -> u64 {
    let args = ["record", "-o", "all.hltrace", "--", "./work", "100000", "3"];
    assert_eq!(run(heaplab(at).args(args)).0, 3);
    let info = json(at, &["trace", "info", "all.hltrace"]);
    assert_eq!(info["complete"], true, "{info}");
    events(&info)
}

/// A recording that was cut off: the program's own output and status, why, and every event in the file or in the count.
fn assert_cut_off(at: &Path, (_, out, err): (i32, String, String), why: &str) {
    assert_eq!(out, "begun\ndone\nstatus 3\n", "{err}");
    assert!(err.contains(why) && err.contains(".part'"), "{err}");
    let part: Value =
        serde_json::from_slice(&std::fs::read(at.join("part.json")).unwrap()).unwrap();
    assert_eq!(part["complete"], false);
    assert!(events(&part) > 10_000, "{part}");
    let lost = number_before(&err, " events are lost");
    assert_eq!(events(&part) + lost, all_events(at), "{err}");
}

/// A disk that is full while the program runs.
#[test]
fn on_a_full_disk_the_program_goes_on_and_the_loss_is_counted() {
    let folder = folder();
    let at = folder.path();
    std::fs::create_dir(at.join("small")).unwrap();
    let full = script_with_mounts(
        at,
        "mount -t tmpfs -o size=256k none small
         $H record -o small/x.hltrace -- ./work 100000 3; echo status $?
         $H trace info small/x.hltrace.part --format json >part.json",
    );
    match full {
        Some(full) => assert_cut_off(at, full, "no space left on device"),
        None => println!("a limit on files stands for it in the next test"),
    }
}

/// Needs nothing but `ulimit`. The limit holds for the memory of the recording as well, so that must be smaller.
#[test]
fn where_files_may_not_grow_the_program_goes_on_and_the_loss_is_counted() {
    let folder = folder();
    let at = folder.path();
    let limited = script(
        at,
        "ulimit -f 1000
         $H record --pool 256KiB -o x.hltrace -- ./work 100000 3; echo status $?
         $H trace info x.hltrace.part --format json >part.json",
    );
    assert_cut_off(at, limited, "file too large");
    // With the usual memory nothing can begin, which is said before the program runs.
    let (_, out, err) = script(
        at,
        "ulimit -f 1000; $H record -o y.hltrace -- ./work 10 3; echo status $?",
    );
    assert_eq!(out, "status 125\n", "{err}");
    assert!(
        err.contains("file too large") && err.contains("smaller --pool"),
        "{err}"
    );
}

/// A script must not take a trace that is not whole for one, so a program that went well does not hide it.
#[test]
fn a_cut_recording_of_a_program_that_went_well_is_a_failure() {
    let folder = folder();
    let (_, out, err) = script(
        folder.path(),
        "ulimit -f 1000; $H record --pool 256KiB -o x.hltrace -- ./work 100000 0; echo status $?",
    );
    assert_eq!(out, "begun\ndone\nstatus 125\n", "{err}");
}

/// /dev/shm full from the start, full while the program runs, or taking nothing at all: it is not needed.
#[test]
fn a_recording_needs_no_dev_shm() {
    let folder = folder();
    let at = folder.path();
    let mounted = script_with_mounts(
        at,
        "mount -t tmpfs -o size=64k none /dev/shm
         $H record -o during.hltrace -- sh -c './work 30000 0; head -c 100000 /dev/zero 2>/dev/null >/dev/shm/x; ./work 30000 3'
         echo status $?
         $H record -o full.hltrace -- ./work 100000 3; echo status $?
         mount -o remount,ro /dev/shm
         $H record -o none.hltrace -- ./work 100000 3; echo status $?",
    );
    let traces: &[&str] = match mounted {
        Some((_, out, err)) => {
            let one = "begun\ndone\n";
            assert_eq!(
                out,
                format!("{one}{one}status 3\n{one}status 3\n{one}status 3\n"),
                "{err}"
            );
            &["during.hltrace", "full.hltrace", "none.hltrace"]
        }
        None => {
            // Without mounts: no system call of a recording names it.
            let (_, out, err) = script(
                at,
                "strace -f -o calls $H record -o none.hltrace -- ./work 100000 3; echo status $?",
            );
            assert_eq!(out, "begun\ndone\nstatus 3\n", "{err}");
            let calls = std::fs::read_to_string(at.join("calls")).unwrap();
            assert!(calls.contains("memfd_create") && !calls.contains("/dev/shm"));
            &["none.hltrace"]
        }
    };
    for trace in traces {
        let info = json(at, &["trace", "info", trace]);
        assert_eq!(info["complete"], true, "{trace}: {info}");
        assert!(events(&info) > 80_000, "{trace}: {info}");
    }
}

/// A kernel or a container without memfd: the memory is a file in the trace's folder, which nobody sees.
#[test]
fn without_memory_files_the_traces_folder_serves() {
    let folder = folder();
    let at = folder.path();
    let without = "strace -f --seccomp-bpf -o /dev/null -e trace=memfd_create -e inject=memfd_create:error=ENOSYS";
    let (_, out, err) = script(
        at,
        &format!("{without} $H record -o x.hltrace -- ./work 100000 3; echo status $?; ls -A"),
    );
    assert_eq!(
        out, "begun\ndone\nstatus 3\nwork\nwork.c\nx.hltrace\n",
        "{err}"
    );
    let found = events(&json(at, &["trace", "info", "x.hltrace"]));
    assert_eq!(found, all_events(at));
    // Where that folder has no room for it, nothing is begun.
    std::fs::create_dir(at.join("small")).unwrap();
    let full = script_with_mounts(
        at,
        &format!(
            "mount -t tmpfs -o size=1m none small
             {without} $H record -o small/x.hltrace -- ./work 10 3; echo status $?; ls -A small"
        ),
    );
    if let Some((_, out, err)) = full {
        assert_eq!(out, "status 125\n", "{err}");
        assert!(
            err.contains("no space left on device") && err.contains("smaller --pool"),
            "{err}"
        );
    }
}

/// A folder that takes no files: said before the program runs. The program's own folders may be so.
#[test]
fn a_read_only_folder_is_said_before_the_program_runs() {
    let folder = folder();
    let at = folder.path();
    let other = tempfile::tempdir().unwrap();
    let out_at = other.path().join("x.hltrace");
    let mounted = script_with_mounts(
        at,
        &format!(
            "mount --bind . . && mount -o remount,ro,bind . && cd . && cd \"$PWD\"
             $H record -- ./work 10 3; echo status $?
             HOME=$PWD XDG_CACHE_HOME=$PWD $H record -o {} -- ./work 100000 3; echo status $?",
            out_at.display()
        ),
    );
    match mounted {
        Some((_, out, err)) => {
            assert_eq!(out, "status 125\nbegun\ndone\nstatus 3\n", "{err}");
            assert!(
                err.contains("work.hltrace") && err.contains("read-only file system"),
                "{err}"
            );
            let info = json(at, &["trace", "info", out_at.to_str().unwrap()]);
            assert_eq!(info["complete"], true, "{info}");
        }
        None => {
            // A folder that takes no files even from root.
            let (_, out, err) = script(
                at,
                "$H record -o /sys/x.hltrace -- ./work 10 3; echo status $?",
            );
            assert_eq!(out, "status 125\n", "{err}");
            assert!(err.contains("/sys/x.hltrace"), "{err}");
        }
    }
}

/// Makes a control group of 24 MiB and goes into it; 9 where that cannot be done. Version 2 beside the own group, version 1 in it.
const IN_24_MIB: &str = "
    v2=/sys/fs/cgroup/heaplab-test-$$
    v1=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)/heaplab-test-$$
    for group in $v1 $v2; do
        mkdir $group 2>/dev/null || continue
        limit=$group/memory.max; test $group = $v1 && limit=$group/memory.limit_in_bytes
        if echo 25165824 >$limit && echo $$ >$group/cgroup.procs; then entered=1; break; fi
        rmdir $group
    done 2>/dev/null
    test $entered || exit 9
    leave() { echo $$ >${group%/*}/cgroup.procs; rmdir $group; }";

/// The memory of the recording counts to the container's. A container of 24 MiB, and, everywhere, limits of address space
/// and data.
#[test]
fn in_little_memory_the_program_goes_on_and_is_recorded() {
    let folder = folder();
    let at = folder.path();
    let all = all_events(at);
    let is_whole = |trace: &str| {
        let info = json(at, &["trace", "info", trace]);
        assert_eq!(
            (&info["complete"], events(&info)),
            (&true.into(), all),
            "{trace}"
        );
    };
    let (status, out, err) = script(
        at,
        &format!(
            "{IN_24_MIB}\n$H record -o group.hltrace -- ./work 100000 3; echo status $?; leave"
        ),
    );
    match status {
        9 => println!("no control group can be made here: only limits of one process are tried"),
        _ => {
            assert_eq!(out, "begun\ndone\nstatus 3\n", "{err}");
            is_whole("group.hltrace");
        }
    }
    let (_, out, err) = script(
        at,
        "ulimit -v 1000000; ulimit -d 300000; $H record -o limits.hltrace -- ./work 100000 3; echo status $?",
    );
    assert_eq!(out, "begun\ndone\nstatus 3\n", "{err}");
    is_whole("limits.hltrace");
    // Too little for the recording's memory in the program: it runs as ever, and that it was not recorded is said.
    let (_, out, err) = script(
        at,
        "$H record -o none.hltrace -- sh -c 'ulimit -v 40000; exec ./work 100000 3'; echo status $?",
    );
    assert_eq!(out, "begun\ndone\nstatus 3\n", "{err}");
    assert!(err.contains("cannot allocate memory"), "{err}");
}

/// A Rust program that carries an allocator, as examples of the subjects' packages.
fn carried(allocator: &str) -> PathBuf {
    // <target folder>/<profile>/heaplab; what heaplab carries is built in a folder beside it.
    let target = Path::new(HEAPLAB)
        .ancestors()
        .nth(2)
        .unwrap()
        .join("embedded");
    let name = format!("carried_{allocator}");
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--locked", "--profile", "embedded"])
        .args([
            "-p",
            &format!("heaplab-subject-{allocator}"),
            "--example",
            &name,
        ])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("subjects"));
    assert!(build.status().unwrap().success(), "{build:?}");
    target.join("embedded/examples").join(name)
}

#[test]
fn programs_with_an_allocator_of_their_own_are_told_the_cause_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for allocator in ["jemalloc", "mimalloc"] {
        let program = carried(allocator);
        let stripped = at.join(allocator);
        let mut strip = Command::new("strip");
        assert!(
            strip
                .arg("-o")
                .args([&stripped, &program])
                .status()
                .unwrap()
                .success()
        );
        for program in [&program, &stripped] {
            let (status, out, err) = run(heaplab(at)
                .args(["record", "-o", "x.hltrace", "--"])
                .arg(program)
                .arg("3"));
            assert_eq!((status, out.as_str()), (3, "1000 blocks\n"), "{err}");
            assert!(
                err.contains(&format!("carries {allocator} in its executable"))
                    && err.contains("heaplab_recorded::Recorded<ALLOCATOR>")
                    && err.contains("heaplab.h"),
                "{program:?}: {err}"
            );
        }
        // One that another program starts or becomes: the trace holds the other's calls and says what it lacks.
        for script in ["\"$0\" 3; exit 4", "exec \"$0\" 4"] {
            let (status, _, err) = run(heaplab(at)
                .args(["record", "-o", "y.hltrace", "--", "sh", "-c", script])
                .arg(&program));
            assert_eq!(status, 4, "{err}");
            let said = format!("'{}' carries {allocator}", program.display());
            assert_eq!(err.matches(&said).count(), 1, "{script}: {err}");
            let (_, info, _) = run(heaplab(at).args(["trace", "info", "y.hltrace"]));
            assert!(info.contains(&said), "{info}");
            std::fs::remove_file(at.join("y.hltrace")).unwrap();
        }
    }
}

/// What the recorder itself asks of the dynamic loader is no event of the program, and leaves no error for its `dlerror`.
#[test]
fn a_program_that_calls_nothing_has_no_events() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(
        at.join("idle.c"),
        "#include <dlfcn.h>\nint main(void) { return dlerror() ? 96 : 4; }\n",
    )
    .unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-o", "idle", "idle.c"]).current_dir(at);
    assert!(compile.status().unwrap().success());
    for stacks in ["off", "full"] {
        let (status, _, err) = run(heaplab(at)
            .args(["record", "--stacks", stacks, "-o"])
            .args([stacks, "--", "./idle"]));
        assert_eq!(status, 4, "{err}");
        let info = json(at, &["trace", "info", stacks]);
        assert_eq!(info["complete"], true, "{info}");
        assert_eq!(events(&info), 0, "{info}");
    }
}

/// Static programs of both C libraries are told what to do; a dynamic one on musl is recorded.
#[test]
fn static_programs_are_told_the_cause_and_musl_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("work.c"), WORK).unwrap();
    for (compiler, option) in [
        ("cc", "-static"),
        ("musl-gcc", "-static"),
        ("musl-gcc", "-O1"),
    ] {
        let mut compile = Command::new(compiler);
        compile.args([option, "-fno-builtin", "-o", "work", "work.c"]);
        assert!(
            compile.current_dir(at).status().unwrap().success(),
            "{compile:?}"
        );
        let (status, out, err) =
            run(heaplab(at).args(["record", "-o", "x.hltrace", "--", "./work", "1000", "3"]));
        assert_eq!(
            (status, out.as_str()),
            (3, "begun\ndone\n"),
            "{compiler}: {err}"
        );
        if option == "-static" {
            assert!(
                err.contains("recorded nothing, because it is a static executable")
                    && err.contains("without -static")
                    && err.contains("workloads/linked"),
                "{compiler}: {err}"
            );
        } else {
            let info = json(at, &["trace", "info", "x.hltrace"]);
            assert_eq!(info["complete"], true, "{info}");
            assert!(events(&info) >= 1500, "{info}");
        }
    }
}
