//! Program mode from outside: whole programs under subjects, and programs that no subject reaches.

use heaplab::exec::Limits;
use heaplab::program::{HeapLook, ProgramOptions, ProgramReport, run_program};
use heaplab::subject;
use std::ffi::OsString;
use std::process::Command;

fn run(spec: &str, argv: &[&str]) -> Result<ProgramReport, String> {
    let subject = subject::parse(spec).unwrap().remove(0);
    let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
    let options = ProgramOptions {
        heap: HeapLook::Mappings,
        ..ProgramOptions::plain(Limits::seconds(60))
    };
    run_program(&subject, &argv, &options).map_err(|failure| failure.reason)
}

#[test]
fn a_program_runs_under_every_subject() {
    for spec in ["system", "jemalloc", "mimalloc", "spanalloc"] {
        let report = run(spec, &["sh", "-c", "exit 0"]).unwrap();
        assert!(
            report.wall_ns > 0 && report.peak_rss_bytes > 0,
            "{report:?}"
        );
        let wanted = if spec == "system" { "libc.so" } else { spec };
        assert!(report.malloc_object.contains(wanted), "{report:?}");
        // The launcher is small, so a small program's peak is not that of this test.
        assert!(report.peak_rss_bytes < 16 << 20, "{report:?}");
    }
}

#[test]
fn the_heap_of_a_program_is_seen() {
    let script =
        "i=0; x=aaaaaaaaaaaaaaaa; while [ $i -lt 18 ]; do x=$x$x; i=$((i+1)); done; sleep 0.3";
    let report = run("system", &["sh", "-c", script]).unwrap();
    assert!(
        report.heap_peak_bytes.is_some_and(|bytes| bytes > 4 << 20),
        "{report:?}"
    );
}

#[test]
fn failures_have_their_reason() {
    for (argv, wanted) in [
        (
            &["heaplab-no-such-program"][..],
            "'heaplab-no-such-program' was not found",
        ),
        (
            &["sh", "-c", "echo broken >&2; exit 3"],
            "exit status 3; its last words: broken",
        ),
        (
            &["sh", "-c", "kill -SEGV $$"],
            "SIGSEGV (invalid memory access)",
        ),
    ] {
        let reason = run("jemalloc", argv).unwrap_err();
        assert!(reason.contains(wanted), "{reason}");
    }
}

#[test]
fn programs_with_their_own_allocator_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("p.c");
    let program = folder.path().join("p");
    let built = |text: &str, flags: &[&str]| {
        std::fs::write(&source, text).unwrap();
        let status = Command::new("cc")
            .args(["-o"])
            .args([&program, &source])
            .args(flags)
            .status()
            .unwrap();
        assert!(status.success());
    };
    let path = program.to_str().unwrap();
    built(
        "#include <stdlib.h>\nint main(void) { return malloc(1) == 0; }\n",
        &["-static", "-fno-builtin"],
    );
    assert!(
        run("jemalloc", &[path])
            .unwrap_err()
            .contains("is a static program")
    );
    built(
        "#include <stddef.h>\nvoid *mi_malloc(size_t n) { return 0; }\nint main(void) { return 0; }\n",
        &[],
    );
    assert!(
        run("jemalloc", &[path])
            .unwrap_err()
            .contains("carries its own allocator (mimalloc)")
    );
}

/// The static library of a subject, as the build of the harness has left it.
fn static_library(name: &str) -> std::path::PathBuf {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_heaplab"));
    let builds = program
        .ancestors()
        .nth(2)
        .unwrap()
        .join("embedded/embedded/build");
    let mut folders = vec![builds];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.file_name().is_some_and(|file| file == name) {
                return path;
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    panic!("{name} was not left by the build");
}

/// What real programs are: Go's, Rust's with the usual crates linked statically and stripped, musl's.
#[test]
fn programs_that_no_library_reaches_are_refused_with_what_they_carry() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("p");
    let path = program.to_str().unwrap();
    let built = |compiler: &str, text: &str, flags: &[&str]| {
        let source = folder.path().join("p.c");
        std::fs::write(&source, text).unwrap();
        let status = Command::new(compiler)
            .args(["-w", "-o"])
            .args([&program, &source])
            .args(flags)
            .status()
            .unwrap();
        assert!(status.success(), "{compiler} {flags:?}");
    };
    let refused = |argv: &[&str], wanted: &str| {
        for subject in ["jemalloc", "system"] {
            let reason = run(subject, argv).unwrap_err();
            assert!(reason.contains(wanted), "{subject} {argv:?}: {reason}");
        }
    };
    // Debian's fzf is written in Go and stripped.
    refused(
        &["fzf"],
        "carries its own allocator (the Go runtime's allocator)",
    );
    for (library, call, wanted) in [
        ("libmimalloc.a", "mi_malloc", "mimalloc"),
        ("libjemalloc.a", "_rjem_malloc", "jemalloc"),
    ] {
        let library = static_library(library);
        let text =
            format!("void *{call}(unsigned long);\nint main(void) {{ return !{call}(100); }}\n");
        for more in [&["-static", "-s"][..], &["-static"], &["-s"]] {
            let mut flags = vec![library.to_str().unwrap()];
            flags.extend(more);
            flags.extend(["-lpthread", "-lm", "-ldl"]);
            built("cc", &text, &flags);
            let carries = match more[0] {
                "-static" => format!("is a static program and carries {wanted}"),
                _ => format!("carries its own allocator ({wanted})"),
            };
            refused(&[path], &carries);
        }
    }
    let text = "#include <stdlib.h>\nint main(void) { return malloc(100) == 0; }\n";
    built("cc", text, &["-static", "-s", "-fno-builtin"]);
    refused(
        &[path],
        "is a static program and carries the C library's malloc",
    );
    built("musl-gcc", text, &["-static", "-fno-builtin"]);
    refused(&[path], "is a static program and carries an own malloc");
    built("musl-gcc", text, &["-static", "-s", "-fno-builtin"]);
    refused(&[path], "is a static program without symbols");
    built("musl-gcc", text, &["-fno-builtin"]);
    refused(&[path], "is linked to musl's C library");
}

#[test]
fn a_program_that_lends_its_malloc_is_reached() {
    // At a fixed address the program's own jump stands for malloc's address, and libraries are bound to it: so it is in
    // Debian's python3.
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("lend.c");
    std::fs::write(
        &source,
        "#include <stdlib.h>\nvoid *(*get)(size_t) = malloc;\nint main(void) { void *p = get(100); free(p); return !p; }\n",
    )
    .unwrap();
    let program = folder.path().join("lend");
    let built = Command::new("cc")
        .args(["-no-pie", "-fno-pie", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let report = run("jemalloc", &[program.to_str().unwrap()]).unwrap();
    assert!(report.malloc_object.contains("jemalloc"), "{report:?}");
}

/// Whether this machine lets users sample their own programs; a filter on system calls, as containers have it, may forbid it besides.
fn permitted() -> bool {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let unfiltered = status.lines().any(|line| line == "Seccomp:\t0");
    paranoid.is_some_and(|level| level <= 2) && unfiltered
}

#[test]
fn time_in_the_allocator_is_told_from_other_time() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("p.c");
    std::fs::write(
        &source,
        "#include <stdlib.h>\n#include <stdio.h>\nint main(int n, char **v) {\n  volatile unsigned long x = 0;\n  \
         static void *volatile held[64];\n  for (unsigned long i = 0; i < atol(v[2]); i++) {\n    if (v[1][0] == 'a') { \
         free(held[i & 63]); held[i & 63] = malloc(16 + (i & 1023)); }\n    else x += i * i;\n  }\n  return 0;\n}\n",
    )
    .unwrap();
    let program = folder.path().join("p");
    let built = Command::new("cc")
        .args(["-O1", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let program = program.to_str().unwrap();
    for spec in ["system", "jemalloc"] {
        let busy = run(spec, &[program, "allocate", "5000000"]).unwrap();
        if let Some(why) = &busy.not_sampled {
            // The kernel forbids it here: that must be said, and there is no figure.
            assert!(!why.is_empty() && busy.allocator_share().is_none());
            assert!(!permitted(), "{spec}: {why}");
            eprintln!("the allocator's share was not looked at: {why}");
            continue;
        }
        let idle = run(spec, &[program, "count", "120000000"]).unwrap();
        let (busy, idle) = (
            busy.allocator_share().unwrap(),
            idle.allocator_share().unwrap(),
        );
        // About half of the first program's time is its own loop; how much differs with the machine's load.
        assert!(busy > 0.25 && idle < 0.1, "{spec}: {busy} {idle}");
    }
}
