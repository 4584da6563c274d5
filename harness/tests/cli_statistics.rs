//! What each subject counts itself is kept at a program's peak and at its end, and shown.

mod support;

use heaplab_reports::schema::ResultSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{heaplab, run};

const MIB: u64 = 1 << 20;

/// Allocates 48 MiB in small blocks, waits so long that a busy machine finds time to look and to ask, frees most of them, and ends
/// as `MODE` says: `exit`, `_exit`, in a child, or by a signal's handler in the middle of a call of the allocator, whose lock it
/// then holds.
fn program(folder: &Path) -> PathBuf {
    let source = folder.join("grow.c");
    std::fs::write(
        &source,
        r#"
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
enum { N = 48 << 10 };
static char *blocks[N];
static void end(int signal) { (void)signal; _exit(0); }
int main(int n, char **v) {
    const char *mode = n > 1 ? v[1] : "exit";
    int child = 0;
    if (!strcmp(mode, "child") && (child = fork())) { waitpid(child, 0, 0); return 0; }
    for (int i = 0; i < N; i++) { blocks[i] = malloc(1000); memset(blocks[i], 1, 1000); }
    usleep(600000);
    for (int i = 0; i < N; i++) if (i % 8) free(blocks[i]);
    usleep(30000);
    if (!strcmp(mode, "_exit")) _exit(0);
    if (!strcmp(mode, "handler")) {
        struct itimerval soon = {{0, 0}, {0, 20000}};
        signal(SIGALRM, end);
        setitimer(ITIMER_REAL, &soon, 0);
        for (;;) mallinfo2();
    }
    return 0;
}
"#,
    )
    .unwrap();
    let program = folder.join("grow");
    let built = Command::new("cc")
        .args(["-O1", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    program
}

/// The result of one block of `grow MODE`.
fn result(folder: &Path, subjects: &str, mode: &str, more: &[&str]) -> ResultSet {
    let program = program(folder);
    let out = folder.join(mode);
    let (status, _, err) = run(heaplab(folder)
        .args(["run", "-a", subjects, "--blocks", "1", "-o"])
        .arg(&out)
        .args(more)
        .arg("--")
        .arg(program)
        .arg(mode));
    assert_eq!(status, 0, "{err}");
    heaplab_reports::load(&out).unwrap()
}

/// The subjects with what each calls its blocks in use; whether it counts the freed ones out.
const SUBJECTS: [(&str, &str, bool); 5] = [
    ("system", "in_use_bytes", true),
    ("jemalloc", "active_bytes", false),
    ("mimalloc", "current_commit_bytes", false),
    ("mimalloc-v3", "current_commit_bytes", false),
    ("spanalloc", "in_use_bytes", true),
];

#[test]
fn every_subject_is_asked_at_the_peak_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<&str> = SUBJECTS.iter().map(|(name, ..)| *name).collect();
    let result = result(folder.path(), &names.join(","), "exit", &[]);
    for (name, field, counts_out) in SUBJECTS {
        let subject = result.subjects.iter().find(|s| s.name == name).unwrap();
        let of = |statistics: &Option<serde_json::Value>| {
            let statistics = statistics.as_ref();
            let statistics = statistics.unwrap_or_else(|| panic!("{name}: {subject:?}"));
            statistics[field]
                .as_u64()
                .unwrap_or_else(|| panic!("{name} {field}: {statistics}"))
        };
        let (peak, end) = (of(&subject.stats_at_peak), of(&subject.stats_at_end));
        assert!(peak > 40 * MIB, "{name}: {peak}");
        if counts_out {
            assert!(end < 12 * MIB, "{name}: {end}");
        }
    }
    // For the eye, beside each subject.
    let read = |name: &str| std::fs::read_to_string(folder.path().join("exit").join(name)).unwrap();
    let (summary, page) = (read("summary.md"), read("report.html"));
    assert!(summary.contains("- system, at the peak: "), "{summary}");
    assert!(summary.contains("- spanalloc, at the end: "), "{summary}");
    assert!(page.contains("counts itself, at the peak"));
}

#[test]
fn a_program_that_ends_at_once_and_a_forked_child_are_asked_too() {
    let folder = tempfile::tempdir().unwrap();
    for mode in ["_exit", "child"] {
        let result = result(folder.path(), "system,spanalloc", mode, &["--no-report"]);
        for subject in &result.subjects {
            let field = "in_use_bytes";
            let of = |statistics: &Option<serde_json::Value>| {
                statistics.as_ref().and_then(|s| s[field].as_u64())
            };
            let (peak, end) = (of(&subject.stats_at_peak), of(&subject.stats_at_end));
            assert!(peak.is_some_and(|n| n > 40 * MIB), "{mode}: {subject:?}");
            assert!(end.is_some_and(|n| n < 12 * MIB), "{mode}: {subject:?}");
        }
    }
}

/// The program's end is the program's: the last words are left out where they cannot be had.
#[test]
fn a_handler_that_ends_the_program_inside_the_allocator_does_not_wait_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path(), "system", "handler", &["--no-report"]);
    for cell in &result.cells {
        assert_eq!(cell.reason, None);
    }
    let peak = (result.subjects[0].stats_at_peak.as_ref()).and_then(|s| s["in_use_bytes"].as_u64());
    assert!(peak.is_some_and(|n| n > 40 * MIB), "{peak:?}");
}
