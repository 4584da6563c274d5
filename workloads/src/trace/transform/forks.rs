//! Where the blocks that forked processes inherited come from, in the block numbers of a copy.
//!
//! A FORK list names each inherited block by its number in an ancestor at the moment of a fork. In a copy that block has
//! another number, or is not there: so each number is looked up when the copy comes to that fork, and written when the
//! child touches the block.

use super::copier::{ABSENT, Copier, Numbers, owners};
use crate::trace::alone::Inheritance;
use crate::trace::error::TraceError;
use crate::trace::event::{EventKind, TraceEvent};
use crate::trace::process::Start;
use crate::trace::reader::Trace;
use std::rc::Rc;

/// What the FORK lists of a trace say; shared by all that read it.
pub(super) struct Lineage {
    /// Process of each thread.
    owners: Vec<u32>,
    /// By process: what it inherited, in the order in which it touches that.
    lists: Vec<Vec<Inheritance>>,
    /// By process: whose entries are looked up when it is forked, as process and place in its list.
    due: Vec<Vec<(u32, u32)>>,
}

impl Lineage {
    /// Reads the lists of a trace; none in a trace of one process.
    ///
    /// # Errors
    /// A damaged list, or lists longer than the trace.
    pub fn of(trace: &Trace) -> Result<Rc<Self>, TraceError> {
        let table = trace.processes();
        let mut lists = Vec::new();
        let mut due = vec![Vec::new(); table.len()];
        let (mut entries, most) = (0u64, trace.summary().events);
        for (process, about) in (0u32..).zip(table) {
            let list = trace.inheritance_of(about)?;
            entries += list.len() as u64;
            // Each entry belongs to an event: a file that says otherwise must not fill the memory.
            if entries > most {
                let offset = about.fork_offset.unwrap_or(0);
                let reason = "forks inherit more blocks than the trace has events";
                return Err(TraceError::damaged(trace.path(), offset, reason));
            }
            // The process and its ancestors, as far as the trace holds their forks.
            let mut line = vec![process];
            let deepest = list.iter().map(|entry| entry.up).max().unwrap_or(0) as usize;
            while line.len() < deepest
                && let Some(parent) = line.last().and_then(|last| parent_of(trace, *last))
            {
                line.push(parent);
            }
            for (place, entry) in (0u32..).zip(&list) {
                // The fork directly below the block's owner.
                let forked = (entry.up as usize)
                    .checked_sub(1)
                    .and_then(|at| line.get(at));
                if let Some(forked) = forked {
                    due[*forked as usize].push((process, place));
                }
            }
            lists.push(list);
        }
        Ok(Rc::new(Self {
            owners: owners(trace.summary()),
            lists,
            due,
        }))
    }
}

/// The process that forked `process` off, where it was forked.
fn parent_of(trace: &Trace, process: u32) -> Option<u32> {
    let info = &trace.processes().get(process as usize)?.info;
    let forked = info.start == Start::Fork && !info.apart;
    info.parent
        .filter(|parent| forked && *parent < info.process)
}

/// In place of a number that was not looked up.
const UNSEEN: u32 = ABSENT - 1;

/// Where a copied block of kind `Inherited` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From this block of the copy.
    Block(Inheritance),
    /// From one that the copy leaves out.
    LeftOut,
    /// The trace does not say.
    Unknown,
}

/// The lists while a trace is copied into one with `replicas` of each block.
pub(super) struct Forks {
    lineage: Rc<Lineage>,
    /// By process: it was forked already, or had an event.
    begun: Vec<bool>,
    /// By process: its moment of birth is not in the copy.
    apart: Vec<bool>,
    /// By process: the place in its list of what it touches next.
    next: Vec<usize>,
    /// By replica and process: the numbers in the copy; an empty list while no fork has filled one.
    found: Vec<Vec<Vec<u32>>>,
}

impl Forks {
    pub fn new(lineage: Rc<Lineage>, replicas: usize) -> Self {
        let processes = lineage.lists.len();
        Self {
            lineage,
            begun: vec![false; processes],
            apart: vec![false; processes],
            next: vec![0; processes],
            found: vec![vec![Vec::new(); processes]; replicas],
        }
    }

    fn process(&self, event: &TraceEvent) -> usize {
        let owner = self.lineage.owners.get(event.thread as usize);
        owner.map_or(0, |owner| *owner as usize)
    }

    fn child(&self, event: &TraceEvent) -> Option<usize> {
        let known = self.begun.len() as u64;
        let forks = event.kind == EventKind::Fork && event.size < known;
        forks.then_some(event.size as usize)
    }

    /// Before an event is copied: looks up what the process that begins with it inherits. `numbers` of each replica.
    pub fn follow(&mut self, event: &TraceEvent, numbers: &[Numbers]) {
        // One that no event announced (a bare clone) has its copy of the heap at its first event.
        let begins = [Some(self.process(event)), self.child(event)];
        for process in begins.into_iter().flatten() {
            if self.begun.get(process).is_none_or(|begun| *begun) {
                continue;
            }
            self.begun[process] = true;
            for &(of, place) in &self.lineage.due[process] {
                let (of, place) = (of as usize, place as usize);
                let list = &self.lineage.lists[of];
                for (found, numbers) in self.found.iter_mut().zip(numbers) {
                    let found = &mut found[of];
                    found.resize(list.len(), UNSEEN);
                    found[place] = numbers.get(list[place].number).unwrap_or(ABSENT);
                }
            }
        }
    }

    /// An event that is not copied: what begins with it begins outside the copy.
    pub fn skip(&mut self, event: &TraceEvent) {
        self.begins_outside(self.process(event));
        if let Some(child) = self.child(event) {
            self.begins_outside(child);
        }
        if event.kind == EventKind::Inherited {
            self.touched(event);
        }
    }

    /// A process was born where the copy does not reach, unless it was seen to begin.
    pub fn begins_outside(&mut self, process: usize) {
        if self.begun.get(process).is_some_and(|begun| !begun) {
            self.begun[process] = true;
            self.apart[process] = true;
        }
    }

    /// The process of an event, when it is its first.
    pub fn first_of(&self, event: &TraceEvent) -> Option<usize> {
        let process = self.process(event);
        let waits = self.begun.get(process).is_some_and(|begun| !begun);
        waits.then_some(process)
    }

    /// An event of kind `Inherited`: process and place in its list.
    pub fn touched(&mut self, event: &TraceEvent) -> (usize, usize) {
        let process = self.process(event);
        let Some(next) = self.next.get_mut(process) else {
            return (process, 0);
        };
        *next += 1;
        (process, *next - 1)
    }

    /// Where the block at that place comes from in a replica.
    pub fn origin(&self, replica: usize, (process, place): (usize, usize)) -> Origin {
        let entry = self.lineage.lists.get(process).and_then(|l| l.get(place));
        let found = self.found.get(replica).and_then(|all| all.get(process));
        match (entry, found.and_then(|list| list.get(place))) {
            (Some(_), Some(&ABSENT)) => Origin::LeftOut,
            (Some(entry), Some(&number)) if number != UNSEEN => {
                Origin::Block(Inheritance { number, ..*entry })
            }
            _ => Origin::Unknown,
        }
    }

    /// Tells the copy which of its processes begin outside of it.
    pub fn tell(&self, to: &mut Copier) {
        for (process, apart) in (0u32..).zip(&self.apart) {
            if *apart {
                to.begins_outside(process);
            }
        }
    }
}
