//! What is known at the end of a recording.

use super::processes::NotRecorded;
use std::collections::BTreeSet;

/// What a drained recording consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainSummary {
    /// Events written.
    pub events: u64,
    /// Threads that had events.
    pub threads: u32,
    /// Processes that took part; each image is one, exec begins another. 0: no recorder attached.
    pub processes: u32,
    /// Files of the programs that they ran, each once.
    pub programs: BTreeSet<String>,
    /// How many of them began by exec.
    pub execs: u32,
    /// Events that were not recorded: dropped in lossy mode, or after recording was stopped.
    pub lost_events: u64,
    /// Slots reserved and never committed (the program died or jumped out in between), and records
    /// that made no sense.
    pub torn_records: u64,
    /// How often a thread had to wait for the drainer.
    pub waits: u64,
    /// Processes that were left out because only the first one was to be recorded.
    pub left_out: u64,
    /// Programs that were started and did not load the recorder.
    pub not_recorded: Vec<NotRecorded>,
    /// Processes that were still running when the recording was ended.
    pub left_running: u32,
    /// Errno of a recorder that found the session and could not record, 0 for none.
    pub attach_errno: u32,
    /// From the session's start to the end, nanoseconds.
    pub duration_ns: u64,
}

impl DrainSummary {
    /// What the reader of the trace must know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.attach_errno != 0 {
            let error = std::io::Error::from_raw_os_error(self.attach_errno as i32);
            notes.push(format!(
                "a recorder could not map the session: {error}; what its process did is missing"
            ));
        }
        if self.lost_events > 0 {
            notes.push(format!("{} events were lost", self.lost_events));
        }
        if self.torn_records > 0 {
            notes.push(format!(
                "{} records were begun and never finished",
                self.torn_records
            ));
        }
        if self.left_running > 0 {
            notes.push(format!(
                "the recording was ended while {} of the processes went on",
                self.left_running
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{} further processes were left out: only the first was to be recorded",
                self.left_out
            ));
        }
        notes
    }
}
