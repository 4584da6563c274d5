//! What a program maps by itself is told from what its allocator maps, in each run.

mod support;

use heaplab::exec::Limits;
use heaplab::program::{HeapLook, ProgramOptions, ProgramReport, run_program};
use heaplab::subject;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{heaplab, run};

const SUBJECTS: [&str; 4] = ["system", "jemalloc", "mimalloc", "spanalloc"];

fn program(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("own.c"), folder.join("own"));
    std::fs::write(&source, include_str!("support/own_memory.c")).unwrap();
    let built = Command::new("cc")
        .args(["-O1", "-pthread", "-w", "-o"])
        .args([&program, &source])
        .status();
    assert!(built.unwrap().success());
    program
}

fn followed(folder: &Path, spec: &str, part: &str, heap: HeapLook) -> ProgramReport {
    let subject = subject::parse(spec).unwrap().remove(0);
    let options = ProgramOptions {
        heap,
        follow_mappings: true,
        ..ProgramOptions::plain(Limits::seconds(60))
    };
    let argv = [program(folder).into(), part.into()];
    let report = run_program(&subject, &argv, &options);
    report.unwrap_or_else(|failure| panic!("{spec} {part}: {}", failure.reason))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Peak without own mappings, and these, MiB. What a subject has beside 8 KiB blocks, stacks and the loader's is some 4 MiB at most.
fn assert_apart(part: &str, peak: f64, own: impl Fn(&str) -> f64) {
    let folder = tempfile::tempdir().unwrap();
    for spec in SUBJECTS {
        let report = followed(folder.path(), spec, part, HeapLook::Size);
        let apart = report
            .apart
            .unwrap_or_else(|| panic!("{spec} {part}: {report:?}"));
        let found = mib(apart.peak_bytes);
        assert!(
            (peak..peak + 4.5).contains(&found),
            "{spec} {part}: {report:?}"
        );
        let off = mib(apart.own_bytes) - own(spec);
        assert!(off.abs() < 0.5, "{spec} {part}: {report:?}");
    }
}

#[test]
fn a_program_may_map_less_under_another_allocator() {
    let own = |spec: &str| if spec == "system" { 40.0 } else { 8.0 };
    assert_apart("by_usable_size", 16.0, own);
}

#[test]
fn the_heaps_peak_is_found_where_own_mappings_come_and_go_around_it() {
    let folder = tempfile::tempdir().unwrap();
    for spec in SUBJECTS {
        let report = followed(folder.path(), spec, "around_the_peak", HeapLook::Size);
        // At the peak of everything 64 MiB are its own, and of those that give back at once 8 of 24 are heap.
        let (all, apart) = (report.anonymous_peak_bytes.unwrap(), report.apart.unwrap());
        assert!(mib(all) > 72.0, "{spec}: {report:?}");
        let found = mib(apart.peak_bytes);
        assert!((24.0..28.5).contains(&found), "{spec}: {report:?}");
    }
}

#[test]
fn own_mappings_of_threads_are_followed() {
    assert_apart("threads", 17.0, |_| 8.0);
}

#[test]
fn only_private_anonymous_memory_is_own() {
    assert_apart("others", 16.0, |_| 2.0);
}

#[test]
fn memory_that_comes_and_goes_is_never_taken_for_heap() {
    assert_apart("comes_and_goes", 17.0, |_| 2.0);
}

#[test]
fn an_unmapping_that_the_kernel_refuses_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report = followed(folder.path(), "system", "torn", HeapLook::Size);
    let apart = report.apart.unwrap_or_else(|| panic!("{report:?}"));
    let (peak, own) = (mib(apart.peak_bytes), mib(apart.own_bytes));
    assert!(
        (16.0..17.0).contains(&peak) && (own - 2.0).abs() < 0.5,
        "{report:?}"
    );
}

#[test]
fn another_program_in_the_place_of_the_first_has_its_own() {
    let own = |spec: &str| if spec == "system" { 40.0 } else { 8.0 };
    assert_apart("in_place", 16.0, own);
}

#[test]
fn what_cannot_be_followed_is_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    for (part, why) in [
        (
            "interrupted",
            "a mapping changed in a way that could not be noted",
        ),
        ("reserve", "more than 16 GiB"),
    ] {
        let report = followed(folder.path(), "system", part, HeapLook::Size);
        let said = report.not_followed.clone().unwrap_or_default();
        assert!(said.contains(why) && report.apart.is_none(), "{report:?}");
        assert!(
            mib(report.anonymous_peak_bytes.unwrap()) > 16.0,
            "{report:?}"
        );
    }
}

#[test]
fn the_own_part_of_what_lies_outside_brk_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let report = followed(folder.path(), "system", "others", HeapLook::EveryMaximum);
    let (outside, own) = (
        report.outside_brk_bytes.unwrap(),
        report.own_outside_brk_bytes.unwrap(),
    );
    assert!((mib(own) - 2.0).abs() < 0.5, "{report:?}");
    // The loader's.
    assert!((0.0..0.5).contains(&mib(outside - own)), "{report:?}");
}

/// What `validate` finds of one of the programs, under two subjects.
fn validated(part: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let program = program(folder.path());
    let (status, out, err) = run(heaplab(folder.path())
        .args(["validate", "-a", "system,jemalloc"])
        .args(["--runs", "1", "--most-runs", "1", "--format", "json", "--"])
        .arg(program)
        .arg(part));
    assert_eq!(status, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_validation_leaves_out_what_each_run_maps() {
    let found = validated("by_usable_size");
    for (at, own) in [(0, 40.0), (1, 8.0)] {
        let row = &found["subjects"][at];
        let number = |name: &str| mib(row[name].as_f64().unwrap() as u64);
        assert!((number("own_mappings_bytes") - own).abs() < 0.5, "{found}");
        // With those of the C library's malloc there would be nothing left of 24 MiB on jemalloc.
        assert!(
            (16.0..20.0).contains(&number("actual_peak_bytes")),
            "{found}"
        );
        assert!(row["error"].as_f64().unwrap().abs() < 0.05, "{found}");
    }
    assert!(found["remarks"].as_array().unwrap().is_empty(), "{found}");
    let found = validated("reserve");
    let remark = found["remarks"][0].as_str().unwrap_or_default();
    assert!(
        remark.contains("could not be followed (it maps more"),
        "{found}"
    );
}

#[test]
fn a_heap_in_shared_memory_counts_as_it_does_in_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let built = |name: &str, text: &str, flags: &[&str]| {
        let (source, built) = (folder.path().join("s.c"), folder.path().join(name));
        std::fs::write(&source, text).unwrap();
        let status = (Command::new("cc").args(["-O1", "-w", "-o"]))
            .args([&built, &source])
            .args(flags)
            .status();
        assert!(status.unwrap().success());
        built
    };
    // Blocks of 16 MiB in mappings of their own, whose pages are shared memory.
    built(
        "shared.so",
        "#include <stddef.h>\n#include <sys/mman.h>\n#define LARGE (16L << 20)\n\
         void *__libc_malloc(size_t); void __libc_free(void *); void *__libc_calloc(size_t, size_t);\n\
         void *__libc_realloc(void *, size_t); void *__libc_memalign(size_t, size_t);\nstatic char *large[4];\n\
         void *calloc(size_t n, size_t s) { return __libc_calloc(n, s); }\n\
         void *realloc(void *p, size_t s) { return __libc_realloc(p, s); }\n\
         void *aligned_alloc(size_t a, size_t s) { return __libc_memalign(a, s); }\n\
         void *malloc(size_t s) { if (s != LARGE) return __libc_malloc(s);\n\
           char *p = mmap(0, s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);\n\
           for (int i = 0; i < 4; i++) if (!large[i]) return large[i] = p; return 0; }\n\
         void free(void *p) { for (int i = 0; i < 4; i++) if (p && large[i] == p) {\n\
           munmap(p, LARGE); large[i] = 0; return; } __libc_free(p); }\n\
         size_t malloc_usable_size(void *p) { return p ? LARGE : 0; }\n",
        &["-shared", "-fPIC", "-fno-builtin"],
    );
    // Beside them it has shared memory of its own, and a file in memory, which is none to `validate` where nothing else is.
    let program = built(
        "p",
        "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <string.h>\n#include <sys/mman.h>\n#include <unistd.h>\nint main(void) {\n\
           int f = memfd_create(\"file\", 0);\n  if (ftruncate(f, 8 << 20)) return 1;\n\
           volatile char *b = mmap(0, 8 << 20, PROT_READ, MAP_PRIVATE, f, 0);\n  for (long i = 0; i < 8 << 20; i += 4096) b[i];\n\
           memset(mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), 1, 8 << 20);\n\
           void *p[2];\n  for (int i = 0; i < 2; i++) memset(p[i] = malloc(16 << 20), 1, 16 << 20);\n\
           usleep(200000);\n  for (int i = 0; i < 2; i++) free(p[i]);\n  return 0;\n}\n",
        &["-fno-builtin"],
    );
    let (status, out, err) = run(heaplab(folder.path())
        .args(["validate", "-a", "system", "-a", "./shared.so"])
        .args(["--runs", "1", "--most-runs", "1", "--format", "json", "--"])
        .arg(program));
    assert_eq!(status, 0, "{out}{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    for row in found["subjects"].as_array().unwrap() {
        for side in ["predicted_peak_bytes", "actual_peak_bytes"] {
            let peak = mib(row[side].as_f64().unwrap() as u64);
            assert!((32.0..33.0).contains(&peak), "{side}: {found}");
        }
    }
}
