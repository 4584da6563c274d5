//! Instructions of a replay, counted by callgrind around the worker, and its system calls for memory, counted by strace
//! around a second one.
//!
//! callgrind runs threads one after the other and knows no restartable sequences, so an allocator's per-CPU path is
//! counted as its fallback; the totals repeat exactly for a deterministic (lockstep) replay.

use crate::assemble::{IN_SUBJECT_KEY, INSTRUCTIONS_KEY, SYSCALLS_KEY};
use crate::exec::{self, Limits};
use crate::subject::Subject;
use crate::tools::{STRACE, VALGRIND};
use heaplab_worker::protocol::RunSpec;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Replays once under callgrind; the answer carries the worker's report and the number of instructions.
///
/// # Errors
/// One sentence: valgrind is not installed, the run failed, or callgrind wrote no total.
pub fn run(subject: &Subject, spec: &RunSpec, limits: &Limits) -> Result<Value, String> {
    let valgrind = VALGRIND
        .find()
        .ok_or_else(|| format!("instructions cannot be counted: {}", VALGRIND.missing()))?;
    let folder = tempfile::tempdir()
        .map_err(|e| format!("no folder for callgrind's output: {e}; set TMPDIR"))?;
    let file = folder.path().join("callgrind.out");
    let wrapper = [
        valgrind.display().to_string(),
        "--tool=callgrind".into(),
        "--quiet".into(),
        // The worker says from where to where.
        "--instr-atstart=no".into(),
        format!("--callgrind-out-file={}", file.display()),
    ];
    let report =
        exec::run_wrapped(subject, spec, limits, &wrapper).map_err(|failure| failure.reason)?;
    let text =
        std::fs::read_to_string(&file).map_err(|e| format!("callgrind left no output: {e}"))?;
    let total = total_of(&text).ok_or("callgrind's output has no total")?;
    let inside = in_object(&text, &report.subject.malloc_object);
    let mut answer =
        serde_json::to_value(report).map_err(|e| format!("the answer cannot be kept: {e}"))?;
    answer[INSTRUCTIONS_KEY] = json!(total);
    answer[IN_SUBJECT_KEY] = json!(inside);
    if let Some(strace) = STRACE.find() {
        let file = folder.path().join("strace.out");
        let wrapper = [
            strace.display().to_string(),
            "-f".into(),
            "-c".into(),
            "-e".into(),
            "trace=mmap,munmap,mremap,madvise,mprotect,brk".into(),
            "-o".into(),
            file.display().to_string(),
        ];
        exec::run_wrapped(subject, spec, limits, &wrapper).map_err(|failure| failure.reason)?;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        answer[SYSCALLS_KEY] = json!(calls_of(&text));
    }
    Ok(answer)
}

/// Instructions that callgrind saw in the code of one object file: its own ones, not those of what it calls.
fn in_object(text: &str, object: &str) -> u64 {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut here, mut called, mut sum) = (false, false, 0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("ob=") {
            // `ob=(3) /path` names number 3, `ob=(3)` repeats it.
            let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            here = names
                .get(number)
                .is_some_and(|name| same_file(name, object));
        } else if let Some(rest) = line.strip_prefix("cob=") {
            if let Some((number, name)) = rest.split_once(' ') {
                names.insert(number, name);
            }
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            // The line behind a call is the cost of what was called.
            if here && !called {
                let cost = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
                sum += cost.unwrap_or(0);
            }
            called = false;
        }
    }
    sum
}

fn same_file(one: &str, other: &str) -> bool {
    one == other
        || match (std::fs::canonicalize(one), std::fs::canonicalize(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

/// The calls of strace's summary: the line that ends in `total`.
fn calls_of(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))?;
    // % time, seconds, usecs/call, calls, errors if there were any, "total".
    line.split_whitespace().nth(3)?.parse().ok()
}

/// The total of the event `Ir`, from the line `totals:` or `summary:`.
fn total_of(text: &str) -> Option<u64> {
    let line = text.lines().rev().find_map(|l| {
        l.strip_prefix("totals:")
            .or_else(|| l.strip_prefix("summary:"))
    })?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn costs_are_told_apart_by_object() {
        let text = "ob=(1) /a/lib.so\nfn=(1) f\n10 5\ncob=(2) /b/other.so\ncfn=(2) g\ncalls=1 3\n11 100\n+2 7\n\nob=(2)\nfn=(2)\n3 100\nob=(1)\nfn=(3) h\n* 1\ntotals: 113\n";
        assert_eq!(super::in_object(text, "/a/lib.so"), 13);
        assert_eq!(super::in_object(text, "/b/other.so"), 100);
    }

    #[test]
    fn system_calls_are_summed() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n------ ----\n 60.00    0.000012           2         5           mmap\n100.00    0.000020           2        12         1 total\n";
        assert_eq!(super::calls_of(text), Some(12));
        assert_eq!(super::calls_of(""), None);
    }

    #[test]
    fn totals_are_found() {
        assert_eq!(
            super::total_of("version: 1\nevents: Ir\nfn=(1) x\n3 5\n\ntotals: 123456\n"),
            Some(123_456)
        );
        assert_eq!(super::total_of("events: Ir\nsummary: 9 1\n"), Some(9));
        assert_eq!(super::total_of("events: Ir\n"), None);
    }
}
