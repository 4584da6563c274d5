//! One process of a trace, as if it had been recorded alone.
//!
//! A forked process begins as a copy of its parent: so the events of its ancestors up to the forks come first, and the
//! blocks that it has from them are theirs. Its first thread goes on as the thread that forked.

use super::container::ChunkKind;
use super::error::TraceError;
use super::event::{Effect, EventKind, TraceEvent};
use super::process::{ProcessCounts, Start};
use super::reader::Trace;
use super::varint::{self, Cursor};
use std::collections::{HashMap, VecDeque};

impl Trace {
    /// The processes of the trace, by number; empty where the recorder said nothing of them.
    pub fn processes(&self) -> &[ProcessCounts] {
        &self.summary().process_table
    }

    /// The process that a replay takes where none is named: the one with the most calls; `None` in a trace of one.
    pub fn busiest_process(&self) -> Option<u32> {
        let processes = self.processes();
        let busiest = processes
            .iter()
            .rev()
            .max_by_key(|process| process.allocations + process.frees)?;
        (processes.len() > 1).then_some(busiest.info.process)
    }

    /// The process that a word names: `PID` (the last image of it), `PID.N` (its N-th image, from 1), or the name of a
    /// program that only one process ran (forks of it not counted).
    ///
    /// # Errors
    /// A sentence with what there is.
    pub fn find_process(&self, word: &str) -> Result<u32, String> {
        let processes = self.processes();
        let (pid, image) = word.split_once('.').unwrap_or((word, ""));
        if let Ok(pid) = pid.parse::<u32>() {
            let images: Vec<u32> = processes
                .iter()
                .filter(|process| process.info.pid == pid)
                .map(|process| process.info.process)
                .collect();
            let at = match image.parse::<usize>() {
                Ok(number) => number.checked_sub(1),
                Err(_) => images.len().checked_sub(1),
            };
            if let Some(found) = at.and_then(|at| images.get(at)) {
                return Ok(*found);
            }
        }
        let named: Vec<&ProcessCounts> = processes
            .iter()
            .filter(|process| process.info.name() == word && process.info.start != Start::Fork)
            .collect();
        match named.as_slice() {
            [one] => Ok(one.info.process),
            [] => Err(format!("it has no process '{word}'")),
            several => {
                let pids: Vec<String> = several
                    .iter()
                    .take(8)
                    .map(|process| process.info.pid.to_string())
                    .collect();
                Err(format!(
                    "{} processes ran '{word}': {}",
                    several.len(),
                    pids.join(", ")
                ))
            }
        }
    }

    /// What a forked process inherited and touched, in that order; empty where the trace does not say.
    pub(super) fn inheritance_of(
        &self,
        process: &ProcessCounts,
    ) -> Result<Vec<Inheritance>, TraceError> {
        let Some(offset) = process.fork_offset else {
            return Ok(Vec::new());
        };
        let damaged = |reason: &str| TraceError::damaged(self.path(), offset, reason);
        let chunk = self
            .chunk_at(offset, ChunkKind::FORK)?
            .filter(|chunk| chunk.meta == process.info.process.to_le_bytes())
            .ok_or_else(|| damaged("the list of a fork's blocks is not there"))?;
        let mut rest = Cursor(&chunk.body);
        let mut list = Vec::new();
        while !rest.0.is_empty() {
            let mut next = || rest.next().and_then(|value| u32::try_from(value).ok());
            match (next(), next()) {
                (Some(up), Some(number)) => list.push(Inheritance { up, number }),
                _ => return Err(damaged("the list of a fork's blocks is cut")),
            }
        }
        Ok(list)
    }
}

/// Where a forked process has a block from that it inherited: an entry of a FORK list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inheritance {
    /// How many forks up its owner is; 0: the owner is not in the trace.
    pub up: u32,
    /// The block's number there, at the fork.
    pub number: u32,
}

impl Inheritance {
    /// An entry for a block whose source is not in the trace.
    pub const NOWHERE: Self = Self { up: 0, number: 0 };

    /// Appends the entry to the body of a FORK chunk.
    pub fn put(self, body: &mut Vec<u8>) {
        varint::put(body, u64::from(self.up));
        varint::put(body, u64::from(self.number));
    }
}

const NONE: u32 = u32::MAX;

/// Lets the events of one process through, its ancestors' before the forks, with block numbers of their own.
pub struct Alone {
    /// The first ancestor that was no fork, its descendants, the process.
    chain: Vec<u32>,
    /// Whose events are let through now.
    at: usize,
    /// Processes of the threads.
    owners: Vec<u32>,
    /// For each of the chain, what it inherited.
    sources: Vec<VecDeque<Inheritance>>,
    /// Our number of each block of the present process.
    ids: Vec<u32>,
    /// The same as it was when the ancestors forked.
    snapshots: Vec<Vec<u32>>,
    /// Ours that are free, and the first that was never used.
    free: Vec<u32>,
    next: u32,
    /// The thread that forked last, as ours; its child's first thread goes on as it.
    forker: Option<u32>,
    threads: HashMap<u32, u32>,
}

impl Alone {
    /// For process `process` of `trace`.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn new(trace: &Trace, process: u32) -> Result<Self, TraceError> {
        let table = trace.processes();
        let get = |number: u32| table.get(number as usize);
        let mut chain = vec![process];
        while let Some(first) = chain.first().copied().and_then(get)
            && first.info.start == Start::Fork
            && !first.info.apart
            // A parent has the lower number: no circle, whatever the file says.
            && let Some(parent) = first.info.parent.filter(|parent| *parent < first.info.process)
        {
            chain.insert(0, parent);
        }
        let sources = chain
            .iter()
            .map(|number| match get(*number) {
                Some(process) => Ok(trace.inheritance_of(process)?.into()),
                None => Ok(VecDeque::new()),
            })
            .collect::<Result<_, _>>()?;
        let owners = trace.summary().thread_table.iter();
        Ok(Self {
            chain,
            at: 0,
            owners: owners.map(|thread| thread.process).collect(),
            sources,
            ids: Vec::new(),
            snapshots: Vec::new(),
            free: Vec::new(),
            next: 0,
            forker: None,
            threads: HashMap::new(),
        })
    }

    /// The event as it is here; `None` when it is not one of the process's.
    pub fn take(&mut self, event: TraceEvent) -> Option<TraceEvent> {
        let process = self.owners.get(event.thread as usize).copied().unwrap_or(0);
        if process != self.chain[self.at] {
            if self.chain.get(self.at + 1) != Some(&process) {
                return None;
            }
            // A bare clone: the copy is made at its first event.
            self.enter_child(None);
        }
        let forker = &mut self.forker;
        let thread = *self
            .threads
            .entry(event.thread)
            .or_insert_with(|| forker.take().unwrap_or(event.thread));
        let block = match (event.kind, event.kind.effect()) {
            (EventKind::Fork, _) => {
                let child = self.chain.get(self.at + 1).copied().map(u64::from);
                if child == Some(event.size) {
                    self.enter_child(Some(thread));
                }
                return None;
            }
            // Blocks that are alive at the end stay so.
            (EventKind::Gone, _) => return None,
            (EventKind::Inherited, _) => {
                if let Some(id) = self.inherited() {
                    self.set(event.block, id);
                    return None;
                }
                self.give(event.block)
            }
            (_, Effect::Alloc) => self.give(event.block),
            (_, Effect::Resize | Effect::Told) => self.get(event.block)?,
            (_, Effect::Free) => {
                let id = self.get(event.block)?;
                self.set(event.block, NONE);
                self.free.push(id);
                id
            }
            (_, Effect::None) => 0,
        };
        Some(TraceEvent {
            thread,
            block,
            ..event
        })
    }

    fn enter_child(&mut self, forker: Option<u32>) {
        self.snapshots.push(std::mem::take(&mut self.ids));
        self.at += 1;
        self.forker = forker;
    }

    /// Our number of the inherited block that the present process touches now.
    fn inherited(&mut self) -> Option<u32> {
        let Inheritance { up, number } = self.sources[self.at].pop_front()?;
        let ancestor = self.at.checked_sub(up as usize)?;
        let id = *self.snapshots.get(ancestor)?.get(number as usize)?;
        (id != NONE).then_some(id)
    }

    fn get(&self, block: u32) -> Option<u32> {
        let id = self.ids.get(block as usize).copied();
        id.filter(|id| *id != NONE)
    }

    fn set(&mut self, block: u32, id: u32) {
        let index = block as usize;
        if index >= self.ids.len() {
            self.ids.resize(index + 1, NONE);
        }
        self.ids[index] = id;
    }

    fn give(&mut self, block: u32) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.set(block, id);
        id
    }
}
