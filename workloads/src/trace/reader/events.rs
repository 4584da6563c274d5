//! All events of a trace, or of a part of it, one after the other.

use super::Trace;
use crate::trace::checkpoint::Walk;
use crate::trace::error::TraceError;
use crate::trace::event::{Block, Blocks, Effect, TraceEvent};

/// Iterator over events in global order; ends after the first error. Memory: one segment and the live blocks.
pub struct Events<'a> {
    trace: &'a Trace,
    next: usize,
    walk: Walk,
    buffer: Vec<(TraceEvent, Block)>,
    at: usize,
    number: u64,
    failed: bool,
}

impl Trace {
    /// All events in global order.
    pub fn events(&self) -> Events<'_> {
        Events {
            trace: self,
            next: 0,
            walk: Walk::default(),
            buffer: Vec::new(),
            at: 0,
            number: 0,
            failed: false,
        }
    }

    /// The events from the last checkpoint on that is not behind `event`: those before it are skipped without being read.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn events_near(&self, event: u64) -> Result<Events<'_>, TraceError> {
        let group = self
            .groups()
            .into_iter()
            .rev()
            .find(|group| self.segments[group.segments.start].first_event <= event);
        let Some(group) = group else {
            return Ok(self.events());
        };
        let first = group.segments.start;
        Ok(Events {
            next: first,
            walk: self.state_at(&group)?,
            number: self.segments[first].first_event,
            ..self.events()
        })
    }
}

impl Events<'_> {
    /// Number of the event that comes next.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The blocks alive before the next event, where that is the first of a segment.
    pub(in crate::trace) fn blocks(&self) -> &Blocks {
        &self.walk.blocks
    }

    /// The next event with its block (for frees and resizes as it was before).
    #[inline]
    pub(crate) fn next_with_block(&mut self) -> Option<Result<(TraceEvent, Block), TraceError>> {
        loop {
            if let Some(found) = self.buffer.get(self.at) {
                self.at += 1;
                self.number += 1;
                return Some(Ok(*found));
            }
            if self.failed || self.next == self.trace.segments.len() {
                return None;
            }
            self.at = 0;
            self.buffer.clear();
            let buffer = &mut self.buffer;
            let outcome = self
                .trace
                .segment(self.next, &mut self.walk, &mut |event, block, _| {
                    buffer.push((*event, *block));
                });
            self.next += 1;
            if let Err(error) = outcome {
                self.failed = true;
                self.buffer.clear();
                return Some(Err(error));
            }
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Result<TraceEvent, TraceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_with_block()
            .map(|found| found.map(|(event, _)| event))
    }
}

impl Trace {
    /// Whether addresses were kept: the first allocation has one.
    ///
    /// # Errors
    /// A damaged first segment.
    pub fn has_addresses(&self) -> Result<bool, TraceError> {
        for event in self.events() {
            let event = event?;
            if event.kind.effect() == Effect::Alloc {
                return Ok(event.address != 0);
            }
        }
        Ok(false)
    }
}
