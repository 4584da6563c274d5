//! Reading a script from its beginning to its end in bounded memory: part after part of a thread's ops, each mapped by
//! itself and unmapped when the next one is asked for.

use crate::error::ScriptError;
use crate::file::{Run, Script};
use crate::map::Mapping;
use crate::op::Op;

/// Consecutive ops of one thread.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The ops.
    pub ops: &'a [Op],
    /// Their times, nanoseconds since the beginning; empty in a script without times.
    pub times: &'a [u64],
}

/// A place in one thread's ops.
pub struct Cursor<'a> {
    script: &'a Script,
    thread: usize,
    /// Number of the next op.
    next: u64,
    /// Ops mapped at a time.
    window: u64,
    /// What is mapped: number of its first op, number of its ops, ops, times.
    mapped: Option<(u64, u64, Mapping, Mapping)>,
}

impl<'a> Cursor<'a> {
    /// Before the first op of `thread`; at most about `window_bytes` are mapped at a time.
    pub(crate) fn new(script: &'a Script, thread: usize, window_bytes: usize) -> Self {
        Self {
            script,
            thread,
            next: 0,
            window: (window_bytes / size_of::<Op>()).max(256) as u64,
            mapped: None,
        }
    }

    /// Ops that have not been handed out.
    pub fn left(&self) -> u64 {
        self.script.op_count(self.thread) - self.next
    }

    /// The next ops: at least one unless all have been handed out, at most `most`, fewer where a window ends.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn next(&mut self, most: u64) -> Result<Part<'_>, ScriptError> {
        let wanted = most.min(self.left());
        if wanted == 0 {
            return Ok(Part {
                ops: &[],
                times: &[],
            });
        }
        if let Some(part) = self.script.whole(self.thread) {
            let range = self.next as usize..(self.next + wanted) as usize;
            self.next += wanted;
            return Ok(Part {
                ops: &part.ops[range.clone()],
                times: part.times.get(range).unwrap_or_default(),
            });
        }
        let inside = |first: u64, count: u64| self.next < first + count && self.next >= first;
        if !(self.mapped.as_ref()).is_some_and(|(first, count, ..)| inside(*first, *count)) {
            // The old window goes first: two would be twice the memory.
            self.mapped = None;
            let count = self.window.min(self.left());
            let (ops, times) = self.script.window(self.thread, self.next, count)?;
            self.mapped = Some((self.next, count, ops, times));
        }
        let Some((first, count, ops, times)) = &self.mapped else {
            return Ok(Part {
                ops: &[],
                times: &[],
            });
        };
        let from = self.next - first;
        let given = wanted.min(count - from);
        self.next += given;
        Ok(Part {
            ops: ops
                .records(from * size_of::<Op>() as u64, given)
                .unwrap_or_default(),
            times: times.records(from * 8, given).unwrap_or_default(),
        })
    }
}

/// A place in the global order.
pub struct Runs<'a> {
    script: &'a Script,
    next: u64,
    first: u64,
    window: Option<Mapping>,
}

/// Runs mapped at a time: 256 KiB.
const RUNS_AT_A_TIME: u64 = 1 << 15;

impl<'a> Runs<'a> {
    pub(crate) fn new(script: &'a Script) -> Self {
        Self {
            script,
            next: 0,
            first: 0,
            window: None,
        }
    }

    /// The run that [`Runs::advance`] moves past; `None` after the last.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn peek(&mut self) -> Result<Option<Run>, ScriptError> {
        let all = self.script.run_count();
        if self.next >= all {
            return Ok(None);
        }
        if self.window.is_none() || self.next - self.first >= RUNS_AT_A_TIME {
            self.window = None;
            self.first = self.next;
            let count = RUNS_AT_A_TIME.min(all - self.next);
            self.window = Some(self.script.run_window(self.next, count)?);
        }
        let at = (self.next - self.first) * size_of::<Run>() as u64;
        let run = self
            .window
            .as_ref()
            .and_then(|map| map.records::<Run>(at, 1));
        Ok(run.and_then(|run| run.first().copied()))
    }

    /// Moves past the present run.
    pub fn advance(&mut self) {
        self.next += 1;
    }
}
