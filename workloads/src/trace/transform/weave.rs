//! Several event streams in one: each with its own threads, start, speed and share of blocks.

use super::{Numbers, PROGRESS};
use crate::trace::error::TraceError;
use crate::trace::event::{Block, Effect, TICK_NS, TraceEvent};
use crate::trace::reader::{Events, Trace};
use crate::trace::writer::TraceWriter;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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
    next: Option<(TraceEvent, Block)>,
    /// Its place in the order: the largest tick so far, so that its own order stays.
    tick: u64,
    first_thread: u32,
    replicas: Vec<Numbers>,
}

impl Stream<'_> {
    fn advance(&mut self) -> Result<bool, TraceError> {
        self.next = self.events.next_with_block().transpose()?;
        if let Some((event, _)) = &self.next {
            self.tick = self.tick.max(self.input.tick(event.tick));
        }
        Ok(self.next.is_some())
    }

    /// Appends the event that is next, once for each replica that has its block.
    fn write(&mut self, writer: &mut TraceWriter) -> Result<(), TraceError> {
        let Some((event, block)) = &self.next else {
            return Ok(());
        };
        let event = TraceEvent {
            thread: self.first_thread + event.thread,
            tick: self.input.tick(event.tick),
            address: 0,
            ..*event
        };
        let replicas = match event.kind.effect() {
            Effect::None => 1,
            _ => self.replicas.len(),
        };
        for (index, numbers) in self.replicas.iter_mut().enumerate().take(replicas) {
            let kept = event.kind.effect() == Effect::None || self.input.has(index as u32, block);
            if kept {
                numbers.copy(writer, &event)?;
            }
        }
        Ok(())
    }
}

/// Appends all events of the inputs in the order of their times; events of one input keep their order. Memory is what
/// reading all of them at once needs.
pub(super) fn weave(
    inputs: &[Input<'_>],
    writer: &mut TraceWriter,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let total = inputs.iter().map(|one| one.trace.summary().events).sum();
    let mut streams = Vec::new();
    let mut order = BinaryHeap::new();
    let mut first_thread = 0u32;
    for &input in inputs {
        let mut stream = Stream {
            input,
            events: input.trace.events(),
            next: None,
            tick: 0,
            first_thread,
            replicas: (0..input.load.ceil() as u32)
                .map(|_| Numbers::default())
                .collect(),
        };
        first_thread = first_thread.saturating_add(input.threads());
        if stream.advance()? {
            order.push(Reverse((stream.tick, streams.len())));
        }
        streams.push(stream);
    }
    let mut done = 0u64;
    while let Some(Reverse((_, index))) = order.pop() {
        let until = order.peek().map_or(u64::MAX, |Reverse((tick, _))| *tick);
        let stream = &mut streams[index];
        // A stream goes on as long as no other is earlier.
        loop {
            stream.write(writer)?;
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
    Ok(())
}
