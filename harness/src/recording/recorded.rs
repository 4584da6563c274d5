//! What became of a recording, and what of the program is not in it.

use super::cause::{self, Inspected};
use crate::tools;
use heaplab_reports::profile::Measured;
use heaplab_workloads::record::DrainSummary;
use heaplab_workloads::trace::TraceSummary;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// What became of it.
#[derive(Debug)]
pub struct Recorded {
    /// How the program ended.
    pub status: ExitStatus,
    /// A server that was stopped as it was asked to be; its status is no failure.
    pub stopped: bool,
    /// A server that was not served as it should: why.
    pub trouble: Option<String>,
    /// Metrics of the user's own.
    pub measured: Vec<Measured>,
    /// The trace's totals; `None` when nothing could be recorded and no trace was written.
    pub trace: Option<TraceSummary>,
    /// How long the program's threads were ready to run and did not, as a share of its time; absent where the kernel does not
    /// note it.
    pub held_up: Option<f64>,
    /// Remarks for the person at the terminal: what is missing and why.
    pub remarks: Vec<String>,
}

impl Recorded {
    /// The program has run and there is no trace of it.
    pub(super) fn without_trace(status: ExitStatus, why: String) -> Self {
        Self {
            status,
            stopped: false,
            trouble: None,
            measured: Vec::new(),
            trace: None,
            held_up: None,
            remarks: vec![why],
        }
    }

    /// The status that a shell would show for the program.
    pub fn code(&self) -> u8 {
        if self.stopped {
            return 0;
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        }
    }
}

/// What was started and did not come to be recorded, a sentence for each file.
pub(super) fn not_recorded(drained: &DrainSummary) -> Vec<String> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for program in &drained.not_recorded {
        *times.entry(&program.file).or_default() += 1;
    }
    times
        .into_iter()
        .filter_map(|(file, count)| {
            // What is not there was one of the places where a shell looks for a program.
            let path = tools::find_program(file.as_ref()).ok()?;
            let reason = cause::inspect(&path).not_recorded(drained);
            let count = match count {
                1 => String::new(),
                n => format!(" ({n} times)"),
            };
            Some(format!("not recorded: '{file}'{count}, because {reason}"))
        })
        .collect()
}

/// What the programs that it started allocate without the C library, a sentence for each file.
pub(super) fn warnings_of_others(first: &Inspected, drained: &DrainSummary) -> Vec<String> {
    let others = drained.programs.iter();
    others
        .filter(|file| !first.is_file(Path::new(file)))
        .filter_map(|file| cause::inspect(Path::new(file)).warning(file))
        .collect()
}

/// What of the program is not in the trace.
pub(super) fn remarks(drained: &DrainSummary) -> Vec<String> {
    let mut remarks = Vec::new();
    if drained.execs > 0 {
        let times = match drained.execs {
            1 => "once".to_string(),
            more => format!("{more} times"),
        };
        remarks.push(format!(
            "a program replaced itself {times} (exec), as wrappers do; each image is a process of its own in the trace"
        ));
    }
    if drained.left_out > 0 {
        let processes = match drained.left_out {
            1 => "1 further process".to_owned(),
            more => format!("{more} further processes"),
        };
        remarks.push(format!(
            "{processes} of the program {} left out: only the first one is recorded",
            if drained.left_out == 1 { "is" } else { "are" }
        ));
    }
    if drained.lost_events > 0 {
        remarks.push(format!("{} events were lost", drained.lost_events));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let of = |status| {
            Recorded {
                status: ExitStatus::from_raw(status),
                stopped: false,
                trouble: None,
                measured: Vec::new(),
                trace: None,
                held_up: None,
                remarks: Vec::new(),
            }
            .code()
        };
        assert_eq!(of(0), 0);
        assert_eq!(of(3 << 8), 3);
        assert_eq!(of(9), 137);
    }
}
