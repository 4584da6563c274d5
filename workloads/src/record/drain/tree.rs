//! The processes of the session, as the trace is told of them.

use super::super::sink::Sink;
use super::super::target;
use super::Drainer;
use crate::trace::{Start, TraceError};
use std::collections::HashSet;

impl<S: Sink> Drainer<'_, S> {
    /// Writes who the processes are, as soon as it is known; with `all` also those that never said it. Then the ends of
    /// those that are dead.
    pub(super) fn tell_processes(&mut self, all: bool) -> Result<(), TraceError> {
        let untold: Vec<u32> = self
            .processes
            .iter_mut()
            .filter(|(_, process)| !process.told)
            .map(|(number, _)| number)
            .collect();
        for number in untold {
            let info = match all {
                true => self.processes.info_at_end(number),
                false => self.processes.info(number),
            };
            let Some(info) = info else { continue };
            if info.start == Start::Exec {
                self.summary.execs += 1;
            }
            self.sink.process_start(&info)?;
            if !info.program.is_empty() {
                self.summary.programs.insert(info.program);
            }
            if let Some(process) = self.processes.get_mut(number) {
                process.told = true;
            }
        }
        // A process is known to be dead before what it committed has been read.
        let unread: HashSet<u32> = (self.threads.values())
            .filter(|stream| !stream.ended)
            .map(|stream| stream.process)
            .collect();
        for (number, process) in self.processes.iter_mut() {
            if process.dead && process.told && !process.ended && !unread.contains(&number) {
                process.ended = true;
                let end_ns = process.exit_ns.unwrap_or(0).max(process.last_ns);
                self.sink.process_end(number, end_ns)?;
            }
        }
        Ok(())
    }

    /// Processes of the session that live, met or not.
    pub(super) fn left(&mut self) -> Vec<u32> {
        let mut left = target::members(self.nonce);
        // Their environment may have been overwritten.
        left.extend(self.processes.alive());
        left.sort_unstable();
        left.dedup();
        left
    }
}
