//! Runs of the plan as whole programs under each subject.

use crate::assemble;
use crate::engine::Executor;
use crate::plan::{Item, Kind};
use crate::program::{self, ProgramOptions, ProgramReport};
use crate::subject::Subject;
use serde_json::{Value, json};
use std::ffi::OsString;

/// Makes runs of programs; each comparison is one command.
pub struct Programs<'a> {
    /// Command and arguments by subject: one for all, or one for each (a gate of two builds).
    pub commands: &'a [Vec<OsString>],
    /// Subjects.
    pub subjects: &'a [Subject],
    /// Time limit, output.
    pub options: ProgramOptions,
}

impl Executor for Programs<'_> {
    fn run(&mut self, item: &Item) -> Result<Value, String> {
        let command = self.commands.get(item.subject).unwrap_or(&self.commands[0]);
        program::run_program(&self.subjects[item.subject], command, &self.options)
            .map_err(|failure| failure.reason)
            .and_then(|report| answer(&report))
    }

    fn calibrate(&mut self, _: usize) -> Option<Result<Value, String>> {
        None
    }

    fn figure(&self, _: usize, kind: Kind, answer: &Value) -> Option<f64> {
        assemble::figure(kind, 0, answer)
    }
}

/// The report with times in seconds beside it, under the names of the metrics.
fn answer(report: &ProgramReport) -> Result<Value, String> {
    let mut answer =
        serde_json::to_value(report).map_err(|e| format!("the answer cannot be kept: {e}"))?;
    for (name, ns) in [
        ("wall_s", report.wall_ns),
        ("user_s", report.user_ns),
        ("sys_s", report.sys_ns),
    ] {
        answer[name] = json!(ns as f64 / 1e9);
    }
    Ok(answer)
}
