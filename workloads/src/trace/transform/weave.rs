//! Several event streams in one: each with its own threads, start, speed and share of blocks.

use super::PROGRESS;
use super::copier::{ABSENT, Copier, Numbers, owners};
use super::forks::{Forks, Lineage, Origin};
use super::merge::end_ns;
use super::stacks::{StackCarrier, StackCursor};
use crate::trace::alone::Inheritance;
use crate::trace::columns::MAX_VALUE;
use crate::trace::error::TraceError;
use crate::trace::event::{Block, Effect, EventKind, TICK_NS, TraceEvent};
use crate::trace::process::ProcessInfo;
use crate::trace::reader::{Events, Trace};
use crate::trace::writer::TraceWriter;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// A trace that goes into another, and how.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub trace: &'a Trace,
    /// Nanoseconds between the start of the new trace and its own.
    pub offset_ns: u64,
    /// Factor on all times.
    pub time: f64,
    /// How many blocks each of its blocks becomes, on average.
    pub load: f64,
}

impl Input<'_> {
    /// The trace as it is.
    pub fn plain(trace: &Trace) -> Input<'_> {
        Input {
            trace,
            offset_ns: 0,
            time: 1.0,
            load: 1.0,
        }
    }

    /// Numbers that its threads take.
    pub fn threads(&self) -> u32 {
        self.trace.summary().thread_table.len() as u32
    }

    /// Numbers that its processes take beside others': one, where nothing is known of them.
    pub fn processes(&self) -> u32 {
        self.trace.processes().len().max(1) as u32
    }

    /// A time of the trace in the new one.
    pub fn tick(&self, tick: u64) -> u64 {
        let moved = if self.time == 1.0 {
            tick
        } else {
            (tick as f64 * self.time) as u64
        };
        moved.saturating_add(self.offset_ns / TICK_NS)
    }

    /// The same for nanoseconds.
    pub fn ns(&self, ns: u64) -> u64 {
        ((ns as f64 * self.time) as u64).saturating_add(self.offset_ns)
    }

    /// Whether a block has a copy in this replica: in all that are whole, and by a fixed share in the last one.
    fn has(&self, replica: u32, block: &Block) -> bool {
        let share = self.load - f64::from(replica);
        // A multiplicative hash of the number of its allocation: the same blocks each time, spread over the trace.
        let hash = block.birth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        share >= 1.0 || (hash as f64) < share * (1u64 << 53) as f64
    }
}

struct Stream<'a> {
    input: Input<'a>,
    events: Events<'a>,
    stacks: StackCursor<'a>,
    /// With its stack.
    next: Option<(TraceEvent, Block, u32)>,
    /// Its place in the order: the largest tick so far, so that its own order stays.
    tick: u64,
    first_thread: u32,
    /// Number of its first process.
    first_process: u32,
    replicas: Vec<Numbers>,
    forks: Forks,
}

impl Stream<'_> {
    fn advance(&mut self) -> Result<bool, TraceError> {
        self.next = None;
        if let Some((event, block)) = self.events.next_with_block().transpose()? {
            let stack = self.stacks.of(self.events.number() - 1)?;
            self.tick = self.tick.max(self.input.tick(event.tick));
            self.next = Some((event, block, stack));
        }
        Ok(self.next.is_some())
    }

    /// Appends the event that is next, once for each replica that has its block.
    fn write(
        &mut self,
        to: &mut Copier,
        carrier: &mut StackCarrier<'_>,
        index: usize,
    ) -> Result<(), TraceError> {
        let Some((old, block, stack)) = &self.next else {
            return Ok(());
        };
        let mut event = TraceEvent {
            thread: self.first_thread + old.thread,
            tick: self.input.tick(old.tick),
            ..*old
        };
        self.forks.follow(old, &self.replicas);
        // A fork names its child, whose number is another here; one that failed names nobody.
        let known = self.input.trace.processes().len() as u64;
        if event.kind == EventKind::Fork && event.size < known {
            event.size += u64::from(self.first_process);
        }
        let inherited = (event.kind == EventKind::Inherited).then(|| self.forks.touched(old));
        let replicas = match event.kind.effect() {
            Effect::None => 1,
            _ => self.replicas.len(),
        };
        for replica in 0..replicas {
            // Resizes and frees follow their block.
            let mut kept = match event.kind.effect() {
                Effect::Alloc => self.input.has(replica as u32, block),
                _ => true,
            };
            if let Some((process, place)) = inherited {
                // A copy is where the block is that it is a copy of.
                let from = match self.forks.origin(replica, (process, place)) {
                    Origin::Block(from) => Some(from),
                    Origin::LeftOut => None,
                    Origin::Unknown => kept.then_some(Inheritance::NOWHERE),
                };
                kept = from.is_some();
                if let Some(from) = from {
                    to.inherits(self.first_process + process as u32, from);
                }
            }
            let numbers = &mut self.replicas[replica];
            if kept {
                let draw = to.writer.events();
                let stack = carrier.carry(index, *stack, event.size, draw);
                numbers.copy(to, &event, stack)?;
            } else {
                numbers.set(event.block, ABSENT);
            }
        }
        Ok(())
    }
}

fn years(ns: u64) -> u64 {
    ns / 1_000_000_000 / 86_400 / 365
}

/// Appends all events of the inputs in the order of their times; events of one input keep their order. Memory is what
/// reading all of them at once needs.
pub(super) fn weave(
    inputs: &[Input<'_>],
    writer: TraceWriter,
    one_process: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copier, TraceError> {
    for input in inputs {
        if input.ns(end_ns(input.trace)) / TICK_NS >= MAX_VALUE {
            return Err(TraceError::Usage(format!(
                "the last event would be {} years after the first, and no trace can say more than {}: give a smaller \
                 factor on time or a smaller distance",
                years(input.ns(end_ns(input.trace))),
                years(MAX_VALUE * TICK_NS)
            )));
        }
    }
    let (owners, processes) = match one_process {
        true => (Vec::new(), Vec::new()),
        false => processes(inputs),
    };
    let mut to = Copier::new(writer, owners, processes);
    let total = inputs.iter().map(|one| one.trace.summary().events).sum();
    let mut streams = Vec::new();
    let mut order = BinaryHeap::new();
    let mut first_thread = 0u32;
    let mut first_process = 0u32;
    let mut lineages: Vec<(&Trace, Rc<Lineage>)> = Vec::new();
    for &input in inputs {
        let known = lineages
            .iter()
            .find(|(of, _)| std::ptr::eq(*of, input.trace));
        let lineage = match known {
            Some((_, lineage)) => Rc::clone(lineage),
            None => Lineage::of(input.trace)?,
        };
        lineages.push((input.trace, Rc::clone(&lineage)));
        let replicas = input.load.ceil() as usize;
        let mut stream = Stream {
            input,
            events: input.trace.events(),
            stacks: StackCursor::new(input.trace),
            next: None,
            tick: 0,
            first_thread,
            first_process,
            replicas: (0..replicas).map(|_| Numbers::default()).collect(),
            forks: Forks::new(lineage, replicas),
        };
        first_thread = first_thread.saturating_add(input.threads());
        first_process = first_process.saturating_add(input.processes());
        if stream.advance()? {
            order.push(Reverse((stream.tick, streams.len())));
        }
        streams.push(stream);
    }
    let mut carrier = StackCarrier::new(inputs.iter().map(|input| input.trace));
    let mut done = 0u64;
    while let Some(Reverse((_, index))) = order.pop() {
        let until = order.peek().map_or(u64::MAX, |Reverse((tick, _))| *tick);
        let stream = &mut streams[index];
        // A stream goes on as long as no other is earlier.
        loop {
            stream.write(&mut to, &mut carrier, index)?;
            done += 1;
            if done.is_multiple_of(PROGRESS) {
                progress(done, total);
            }
            if !stream.advance()? {
                break;
            }
            if stream.tick > until {
                order.push(Reverse((stream.tick, index)));
                break;
            }
        }
    }
    to.writer.stacks(&carrier.table())?;
    Ok(to)
}

/// Process of each thread, and the processes of all inputs in a row; none when nothing is known of any.
fn processes(inputs: &[Input<'_>]) -> (Vec<u32>, Vec<ProcessInfo>) {
    let (mut all, mut infos) = (Vec::new(), Vec::<ProcessInfo>::new());
    let known = (inputs.iter()).any(|input| !input.trace.summary().process_table.is_empty());
    for input in inputs {
        let summary = input.trace.summary();
        let first = infos.len() as u32;
        all.extend(owners(summary).iter().map(|owner| first + owner));
        let table = &summary.process_table;
        infos.extend(table.iter().map(|process| ProcessInfo {
            process: first + process.info.process,
            parent: process.info.parent.map(|parent| first + parent),
            start_ns: input.ns(process.info.start_ns),
            end_ns: process.info.end_ns.map(|ns| input.ns(ns)),
            ..process.info.clone()
        }));
        if table.is_empty() && known {
            // Of one trace the processes are known: the other is one too.
            infos.push(ProcessInfo {
                process: first,
                start_ns: input.offset_ns,
                ..ProcessInfo::default()
            });
        }
    }
    (all, infos)
}
