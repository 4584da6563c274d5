//! Instructions of a replay, counted by callgrind around the worker.
//!
//! callgrind runs threads one after the other and knows no restartable sequences, so an allocator's per-CPU path is
//! counted as its fallback; the totals repeat exactly for a deterministic (lockstep) replay.

use crate::assemble::INSTRUCTIONS_KEY;
use crate::exec::{self, Limits};
use crate::subject::Subject;
use crate::tools::VALGRIND;
use heaplab_worker::protocol::RunSpec;
use serde_json::{Value, json};

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
        format!("--callgrind-out-file={}", file.display()),
    ];
    let report =
        exec::run_wrapped(subject, spec, limits, &wrapper).map_err(|failure| failure.reason)?;
    let text =
        std::fs::read_to_string(&file).map_err(|e| format!("callgrind left no output: {e}"))?;
    let total = total_of(&text).ok_or("callgrind's output has no total")?;
    let mut answer =
        serde_json::to_value(report).map_err(|e| format!("the answer cannot be kept: {e}"))?;
    answer[INSTRUCTIONS_KEY] = json!(total);
    Ok(answer)
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
    fn totals_are_found() {
        assert_eq!(
            super::total_of("version: 1\nevents: Ir\nfn=(1) x\n3 5\n\ntotals: 123456\n"),
            Some(123_456)
        );
        assert_eq!(super::total_of("events: Ir\nsummary: 9 1\n"), Some(9));
        assert_eq!(super::total_of("events: Ir\n"), None);
    }
}
