//! The stack of each event of a trace.

use super::super::checkpoint::Walk;
use super::super::container::ChunkKind;
use super::super::error::TraceError;
use super::super::event::{Block, TraceEvent};
use super::super::reader::Trace;
use super::chunks;

impl Trace {
    /// Visits all events in the global order with their blocks (for frees and resizes as they were before), the live
    /// bytes and blocks after them, and their stacks (0: it brought none). Memory: one segment and the live blocks.
    pub fn events_with_stacks(
        &self,
        mut seen: impl FnMut(&TraceEvent, &Block, (u64, u64), u32),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), TraceError> {
        let stacks = self.stacks().map_or(0, |table| table.nodes.len() as u32);
        let mut walk = Walk::default();
        for (index, segment) in self.segments().iter().enumerate() {
            let refs = self.segment_stacks(index)?;
            let mut refs = refs.into_iter().peekable();
            let mut number = 0u64;
            self.segment(index, &mut walk, &mut |event, block, live| {
                let stack = match refs.next_if(|(event, _)| *event == number) {
                    Some((_, stack)) if stack <= stacks => stack,
                    _ => 0,
                };
                number += 1;
                seen(event, block, live, stack);
            })?;
            progress(segment.first_event + segment.events, self.summary().events);
        }
        Ok(())
    }

    /// (Number of the event in the segment, stack), rising; empty in traces without stacks.
    pub fn segment_stacks(&self, index: usize) -> Result<Vec<(u64, u32)>, TraceError> {
        let Some(segment) = self
            .segments()
            .get(index)
            .filter(|_| self.stacks().is_some())
        else {
            return Ok(Vec::new());
        };
        let mut offset = segment.offset;
        while let Some(place) = self.chunks().place(offset)? {
            match place.kind {
                ChunkKind::SEGMENT if offset == segment.offset => {}
                kind if kind.is_events() => {}
                ChunkKind::EVENT_STACKS => {
                    let damaged =
                        |reason| TraceError::damaged(self.chunks().path(), place.offset, reason);
                    let chunk = self.chunks().chunk(&place)?;
                    let (first, refs) =
                        chunks::decode_event_stacks(&chunk.meta, &chunk.body).map_err(damaged)?;
                    if first != segment.first_event {
                        return Err(damaged("stacks of another segment".into()));
                    }
                    return Ok(refs);
                }
                _ => break,
            }
            offset = place.end();
        }
        Ok(Vec::new())
    }
}
