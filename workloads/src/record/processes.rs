//! The processes of a session, as their records and /proc show them.

use super::target::Target;
use crate::trace::{ProcessInfo, Start};
use std::collections::{BTreeMap, HashMap};

/// Notes of programs that were about to be executed that are kept at most.
const MOST_NOTES: usize = 100_000;

/// One process (an image: exec begins another).
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    pub target: Target,
    /// Nothing of it follows: it is gone, or another image took its place.
    pub dead: bool,
    /// It was written to the sink.
    pub told: bool,
    /// Its end was written to the sink.
    pub ended: bool,
    /// From its own first record, once that was read.
    start: Option<Said>,
    /// Time of its exit in order.
    pub exit_ns: Option<u64>,
    /// Time of its last event.
    pub last_ns: u64,
}

/// What a process says at its start.
#[derive(Debug)]
pub struct Said {
    pub time_ns: u64,
    /// Number of the process that it was forked from, 0 for none.
    pub forked_from: u32,
    pub parent_pid: u32,
    pub cloned: bool,
    pub text: Vec<u8>,
}

/// A program that did not come to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotRecorded {
    /// The file, as it was named in exec.
    pub file: String,
    /// The system's id of the process.
    pub pid: u32,
}

struct Note {
    file: String,
    time_ns: u64,
    /// Said by another process, after the start.
    by_parent: bool,
}

/// All of them, by their number in the session.
#[derive(Default)]
pub struct Processes {
    nonce: u64,
    all: BTreeMap<u32, Process>,
    /// The process that has this id now.
    by_pid: HashMap<u32, u32>,
    /// What process ids were about to execute.
    notes: HashMap<u32, Note>,
    /// Start of the last recorded program of a process id.
    started: HashMap<u32, u64>,
}

impl Processes {
    pub fn new(nonce: u64) -> Self {
        Self {
            nonce,
            ..Self::default()
        }
    }

    /// Makes a process's acquaintance at its first chunk. `true` when it was not known. Of two images with one id the
    /// earlier is then over.
    pub fn meet(&mut self, number: u32, pid: u32) -> bool {
        if self.all.contains_key(&number) {
            return false;
        }
        // Chunks are met in the order in which they lie, so that a later image may come first. Numbers rise with time.
        let present = self.by_pid.entry(pid).or_insert(number);
        let dead = *present > number;
        if *present < number {
            let earlier = std::mem::replace(present, number);
            if let Some(earlier) = self.all.get_mut(&earlier) {
                earlier.dead = true;
            }
        }
        self.all.insert(
            number,
            Process {
                pid,
                target: Target::new(pid, self.nonce),
                dead,
                told: false,
                ended: false,
                start: None,
                exit_ns: None,
                last_ns: 0,
            },
        );
        true
    }

    pub fn get(&self, number: u32) -> Option<&Process> {
        self.all.get(&number)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut Process> {
        self.all.get_mut(&number)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All, by number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Process)> {
        self.all
            .iter_mut()
            .map(|(&number, process)| (number, process))
    }

    /// The process's own first record.
    pub fn start(&mut self, number: u32, said: Said) {
        if let Some(process) = self.all.get_mut(&number) {
            if said.forked_from == 0 {
                let last = self.started.entry(process.pid).or_default();
                *last = said.time_ns.max(*last);
            }
            process.start = Some(said);
        }
    }

    /// Process id `pid` is about to execute `file`, or was started with it.
    pub fn executes(&mut self, pid: u32, time_ns: u64, file: String, by_parent: bool) {
        let later = |note: &Note| note.time_ns > time_ns;
        if self.notes.len() < MOST_NOTES && !self.notes.get(&pid).is_some_and(later) {
            self.notes.insert(
                pid,
                Note {
                    file,
                    time_ns,
                    by_parent,
                },
            );
        }
    }

    /// What was to be executed and did not come to be recorded. A file that does not exist was one of several tries.
    pub fn not_recorded(&self) -> Vec<NotRecorded> {
        let mut found: Vec<NotRecorded> = self
            .notes
            .iter()
            .filter(|(pid, note)| match self.started.get(pid) {
                // A parent says it when the child may already run.
                Some(_) if note.by_parent => false,
                Some(&start) => start < note.time_ns,
                None => true,
            })
            .map(|(&pid, note)| NotRecorded {
                file: note.file.clone(),
                pid,
            })
            .collect();
        found.sort();
        found
    }

    /// Who a process is; `None` before its first record was read.
    pub fn info(&self, number: u32) -> Option<ProcessInfo> {
        let process = self.all.get(&number)?;
        let said = process.start.as_ref()?;
        let first = self.all.keys().next() == Some(&number);
        let before = |pid: u32| {
            self.all
                .range(..number)
                .rev()
                .find(|(_, other)| other.pid == pid)
                .map(|(&number, _)| number)
        };
        let (start, parent) = match said.forked_from {
            0 => match before(process.pid) {
                Some(earlier) => (Start::Exec, Some(earlier)),
                None if first => (Start::First, None),
                None => (Start::Spawn, before(said.parent_pid)),
            },
            parent => (Start::Fork, Some(parent)),
        };
        let mut words: Vec<String> = said
            .text
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if words.last().is_some_and(String::is_empty) {
            words.pop();
        }
        let mut info = ProcessInfo {
            process: number,
            pid: process.pid,
            parent,
            start,
            cloned: said.cloned,
            start_ns: said.time_ns,
            ..ProcessInfo::default()
        };
        if start == Start::Fork {
            // It runs its parent's program.
            if let Some(of) = parent
                .filter(|of| *of < number)
                .and_then(|of| self.info(of))
            {
                (info.program, info.argv) = (of.program, of.argv);
            }
        } else if !words.is_empty() {
            info.program = words.remove(0);
            info.argv = words;
        }
        Some(info)
    }

    /// As [`Processes::info`], with what little is known where a process died before it could say who it is.
    pub fn info_at_end(&self, number: u32) -> Option<ProcessInfo> {
        self.info(number).or_else(|| {
            let process = self.all.get(&number)?;
            Some(ProcessInfo {
                process: number,
                pid: process.pid,
                start: Start::Spawn,
                start_ns: process.last_ns,
                ..ProcessInfo::default()
            })
        })
    }

    /// Ids of the processes that were met and still live.
    pub fn alive(&mut self) -> Vec<u32> {
        let living = self.all.values_mut().filter_map(|process| {
            process.dead = process.dead || process.target.is_over();
            (!process.dead && process.target.is_visible()).then_some(process.pid)
        });
        living.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_read_in_the_wrong_order_are_still_one_after_the_other() {
        // An id that no process has.
        let pid = u32::MAX - 1;
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2]] {
            let mut processes = Processes::new(1);
            for number in order {
                assert!(processes.meet(number, pid));
                let time_ns = u64::from(number) * 100;
                processes.start(
                    number,
                    Said {
                        time_ns,
                        forked_from: 0,
                        parent_pid: 1,
                        cloned: false,
                        text: Vec::new(),
                    },
                );
                if number < 3 {
                    processes.executes(pid, time_ns + 50, "next".into(), false);
                }
            }
            let dead = |number| processes.get(number).map(|process| process.dead);
            assert_eq!(
                [1, 2, 3].map(dead),
                [Some(true), Some(true), Some(false)],
                "{order:?}"
            );
            assert_eq!(processes.not_recorded(), [], "{order:?}");
        }
    }
}
