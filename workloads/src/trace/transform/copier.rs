//! Writes a copy: block numbers as they are in the copy, totals of each process counted again.

use crate::trace::alone::Inheritance;
use crate::trace::error::TraceError;
use crate::trace::event::{Effect, EventKind, TraceEvent};
use crate::trace::header::FinishInfo;
use crate::trace::process::{ProcessCounts, ProcessInfo, Start};
use crate::trace::summary::{ThreadInfo, TraceSummary};
use crate::trace::writer::TraceWriter;

/// A block that the copy does not have.
pub(super) const ABSENT: u32 = u32::MAX;

/// Block numbers of a trace that is read, as they are in the one that is written.
#[derive(Default)]
pub(super) struct Numbers(Vec<u32>);

impl Numbers {
    pub fn set(&mut self, old: u32, new: u32) {
        let index = old as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, ABSENT);
        }
        self.0[index] = new;
    }

    /// The block's number in the copy, unless it was left out.
    pub fn get(&self, old: u32) -> Option<u32> {
        self.0
            .get(old as usize)
            .copied()
            .filter(|&new| new != ABSENT)
    }

    /// Appends an event whose block may have another number; events of blocks that were left out are dropped.
    pub fn copy(
        &mut self,
        to: &mut Copier,
        event: &TraceEvent,
        stack: u32,
    ) -> Result<(), TraceError> {
        match event.kind.effect() {
            Effect::None => {
                to.event(*event, stack)?;
            }
            Effect::Alloc => {
                let new = to.event(*event, stack)?;
                self.set(event.block, new);
            }
            Effect::Resize | Effect::Free | Effect::Told => {
                if let Some(block) = self.get(event.block) {
                    to.event(TraceEvent { block, ..*event }, stack)?;
                }
            }
        }
        Ok(())
    }
}

/// A trace that is written, with its processes.
pub(super) struct Copier {
    pub writer: TraceWriter,
    /// Process of each thread.
    owners: Vec<u32>,
    processes: Vec<ProcessCounts>,
    live: Vec<(u64, u64)>,
    /// Bodies of the FORK chunks.
    inherited: Vec<Vec<u8>>,
}

impl Copier {
    /// `owners` names the process of each thread; with no `processes`, all are one that nothing is known of.
    pub fn new(writer: TraceWriter, owners: Vec<u32>, processes: Vec<ProcessInfo>) -> Self {
        let processes: Vec<_> = processes
            .into_iter()
            .map(|info| ProcessCounts {
                info,
                ..ProcessCounts::default()
            })
            .collect();
        Self {
            writer,
            owners,
            live: vec![(0, 0); processes.len()],
            inherited: vec![Vec::new(); processes.len()],
            processes,
        }
    }

    /// A copy of one trace.
    pub fn like(summary: &TraceSummary, writer: TraceWriter) -> Self {
        let infos = (summary.process_table.iter())
            .map(|process| process.info.clone())
            .collect();
        Self::new(writer, owners(summary), infos)
    }

    /// The next thread belongs to this process.
    pub fn thread(&mut self, process: u32) {
        self.owners.push(process);
    }

    /// Appends an event with its stack in the copy (0: none); gives its block.
    pub fn event(&mut self, event: TraceEvent, stack: u32) -> Result<u32, TraceError> {
        if self.processes.is_empty() {
            return self.writer.event_on(event, stack);
        }
        let old = match event.kind.effect() {
            Effect::Resize | Effect::Free => self.writer.blocks().get(event.block).ok().copied(),
            _ => None,
        };
        let block = self.writer.event_on(event, stack)?;
        let process = |thread: u32| {
            self.owners
                .get(thread as usize)
                .map_or(0, |&one| one as usize)
        };
        let actor = process(event.thread);
        let heap = old.map_or(actor, |old| process(old.thread));
        let counts = &mut self.processes[actor];
        counts.events += 1;
        let size = event.size;
        match event.kind.effect() {
            Effect::Alloc if event.kind != EventKind::Inherited => {
                counts.allocations += 1;
                counts.bytes_allocated = counts.bytes_allocated.saturating_add(size);
            }
            Effect::Resize => {
                counts.reallocs += 1;
                counts.bytes_allocated = counts.bytes_allocated.saturating_add(size);
            }
            Effect::Free if !matches!(event.kind, EventKind::Gone | EventKind::LostFree) => {
                counts.frees += 1;
            }
            _ => {}
        }
        let (bytes, blocks) = &mut self.live[heap];
        match event.kind.effect() {
            Effect::Alloc => {
                *bytes += size;
                *blocks += 1;
            }
            Effect::Resize => *bytes = *bytes + size - old.map_or(0, |old| old.size),
            Effect::Free => {
                *bytes -= old.map_or(0, |old| old.size);
                *blocks -= 1;
            }
            Effect::Told | Effect::None => {}
        }
        let counts = &mut self.processes[heap];
        counts.peak_live_bytes = counts.peak_live_bytes.max(*bytes);
        // What goes with its process was alive at its end.
        if event.kind != EventKind::Gone {
            (counts.end_live_bytes, counts.end_live_blocks) = (*bytes, *blocks);
        }
        Ok(block)
    }

    /// The next inherited block that a process touches is from there.
    pub fn inherits(&mut self, process: u32, from: Inheritance) {
        if let Some(body) = self.inherited.get_mut(process as usize) {
            from.put(body);
        }
    }

    /// The copy does not hold the moment at which a process begins.
    pub fn begins_outside(&mut self, process: u32) {
        if let Some(process) = self.processes.get_mut(process as usize) {
            process.info.apart = process.info.start == Start::Fork;
        }
    }

    /// Ends the copy; `complete` as of the writer.
    pub fn finish(
        self,
        finish: Option<FinishInfo>,
        complete: impl FnOnce(&mut TraceSummary),
    ) -> Result<TraceSummary, TraceError> {
        let Self {
            mut writer,
            owners,
            mut processes,
            inherited,
            ..
        } = self;
        for (process, body) in processes.iter_mut().zip(inherited) {
            writer.process(&process.info)?;
            if !body.is_empty() {
                process.fork_offset = writer.fork(process.info.process, &body)?;
            }
        }
        writer.finish(finish, |summary| {
            let table = &mut summary.thread_table;
            if table.len() < owners.len() {
                table.resize(owners.len(), ThreadInfo::default());
            }
            for (thread, owner) in table.iter_mut().zip(owners) {
                thread.process = owner;
                if thread.events > 0
                    && let Some(process) = processes.get_mut(owner as usize)
                {
                    process.threads += 1;
                }
            }
            summary.process_table = processes;
            complete(summary);
        })
    }
}

/// Process of each thread, with none that the process table lacks.
pub(super) fn owners(summary: &TraceSummary) -> Vec<u32> {
    let most = summary.process_table.len().saturating_sub(1) as u32;
    (summary.thread_table.iter())
        .map(|thread| thread.process.min(most))
        .collect()
}
