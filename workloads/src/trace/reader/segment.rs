//! One segment: its chunks, and the global order over them.

use super::Trace;
use crate::trace::checkpoint::Walk;
use crate::trace::columns::{self, EventCursor};
use crate::trace::container::{Chunk, ChunkKind, ChunkPlace};
use crate::trace::error::TraceError;
use crate::trace::event::{Block, Effect, TraceEvent};
use crate::trace::varint::Cursor;
use crate::trace::writer::SEGMENT_EVENTS;

/// Numbers of threads that a trace of any length may have.
const FEW_THREADS: u64 = 1 << 16;

/// Meta of a SEGMENT chunk.
pub(super) struct SegmentMeta {
    pub first_event: u64,
    pub events: u32,
    pub chunks: u32,
}

impl SegmentMeta {
    pub fn decode(meta: &[u8]) -> Result<Self, String> {
        let (first, rest) = meta.split_first_chunk::<8>().ok_or("a segment is cut")?;
        let (events, rest) = rest.split_first_chunk::<4>().ok_or("a segment is cut")?;
        let chunks = rest.first_chunk::<4>().ok_or("a segment is cut")?;
        let this = Self {
            first_event: u64::from_le_bytes(*first),
            events: u32::from_le_bytes(*events),
            chunks: u32::from_le_bytes(*chunks),
        };
        if this.events == 0
            || this.events as usize > SEGMENT_EVENTS
            || this.chunks == 0
            || this.chunks > this.events
        {
            return Err("a segment claims impossible numbers".into());
        }
        Ok(this)
    }
}

impl Trace {
    /// Reads one segment in global order. `seen` gets each event with its block (for frees and resizes as it was before)
    /// and the live bytes and blocks after it; for kinds without a block it gets an empty one.
    pub(in crate::trace) fn segment(
        &self,
        index: usize,
        walk: &mut Walk,
        seen: &mut impl FnMut(&TraceEvent, &Block, (u64, u64)),
    ) -> Result<(), TraceError> {
        let segment = self.segments[index];
        let damaged =
            |offset: u64, reason: String| TraceError::damaged(self.reader.path(), offset, reason);
        let place = self.reader.place(segment.offset)?;
        let place = place
            .filter(|place| place.kind == ChunkKind::SEGMENT)
            .ok_or_else(|| damaged(segment.offset, "no segment begins here".into()))?;
        let order = self.reader.chunk(&place)?;
        let meta =
            SegmentMeta::decode(&order.meta).map_err(|reason| damaged(place.offset, reason))?;
        if meta.first_event != segment.first_event || u64::from(meta.events) != segment.events {
            return Err(damaged(
                place.offset,
                "the segment is not the one of the index".into(),
            ));
        }
        let mut chunks: Vec<(ChunkPlace, Chunk)> =
            Vec::with_capacity(meta.chunks.min(1024) as usize);
        let mut offset = place.end();
        let mut claimed = 0u64;
        for _ in 0..meta.chunks {
            let place = self.reader.place(offset)?;
            let place = place
                .filter(|place| place.kind.is_events())
                .ok_or_else(|| damaged(offset, "events of a segment are missing".into()))?;
            offset = place.end();
            let count = columns::claimed_events(&self.reader.meta(&place)?);
            // Before anything is decompressed: chunks that claim too much would fill the memory.
            claimed += u64::from(count);
            if claimed > segment.events || place.body_bytes() > columns::largest_body(count) {
                return Err(damaged(
                    place.offset,
                    "a segment holds more events than it says".into(),
                ));
            }
            chunks.push((place, self.reader.chunk(&place)?));
        }
        let mut threads = Vec::with_capacity(chunks.len());
        for (place, chunk) in &chunks {
            let cursor = EventCursor::new(place.kind, &chunk.meta, &chunk.body);
            let cursor = cursor.map_err(|reason| damaged(place.offset, reason))?;
            // Tables are as long as the largest number: it may not be out of proportion to the trace.
            if u64::from(cursor.thread) > FEW_THREADS + segment.first_event + segment.events {
                let reason = format!("{} is no number of a thread", cursor.thread);
                return Err(damaged(place.offset, reason));
            }
            threads.push((place.offset, cursor));
        }
        interleave(&order.body, meta.events, &mut threads, walk, seen)
            .map_err(|(at, reason)| damaged(at.unwrap_or(segment.offset), reason))
    }
}

/// What is wrong, and the chunk where it is when that is not the segment's.
type Fault = (Option<u64>, String);

/// Follows the runs of a segment over the threads' events and gives every event its block.
fn interleave(
    runs: &[u8],
    expected: u32,
    threads: &mut [(u64, EventCursor<'_>)],
    walk: &mut Walk,
    seen: &mut impl FnMut(&TraceEvent, &Block, (u64, u64)),
) -> Result<(), Fault> {
    let plain = |reason: &str| (None, reason.to_string());
    let mut runs = Cursor(runs);
    let mut left = expected as usize;
    while let Some(thread) = runs.next() {
        let count = runs
            .next()
            .ok_or_else(|| plain("the order of a segment is cut"))?;
        let index = match threads {
            [(_, only)] if u64::from(only.thread) == thread => 0,
            _ => threads
                .binary_search_by_key(&thread, |(_, events)| u64::from(events.thread))
                .map_err(|_| {
                    plain(&format!(
                        "the order names thread {thread}, which has no events"
                    ))
                })?,
        };
        let (offset, events) = &mut threads[index];
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count == 0 || count > events.left() || count > left {
            return Err(plain(&format!(
                "the order counts {count} events of thread {thread}"
            )));
        }
        left -= count;
        let number = thread as usize;
        if number >= walk.ticks.len() {
            walk.ticks.resize(number + 1, 0);
        }
        run(events, count, walk, seen).map_err(|reason| (Some(*offset), reason))?;
    }
    for (offset, events) in threads.iter() {
        if events.left() > 0 || left > 0 {
            return Err(plain("the order of a segment leaves events out"));
        }
        events.finish().map_err(|reason| (Some(*offset), reason))?;
    }
    Ok(())
}

/// The next events of one thread.
fn run(
    events: &mut EventCursor<'_>,
    count: usize,
    walk: &mut Walk,
    seen: &mut impl FnMut(&TraceEvent, &Block, (u64, u64)),
) -> Result<(), String> {
    let thread = events.thread;
    let mut tick = walk.ticks[thread as usize];
    for _ in 0..count {
        let mut event = events.next()?;
        if event.tick < tick {
            return Err(format!("time runs backwards in thread {thread}"));
        }
        tick = event.tick;
        let blocks = &mut walk.blocks;
        let block = match event.kind.effect() {
            Effect::Alloc => {
                event.block = blocks.alloc(thread, tick, event.size, event.align_log2)?;
                events.block = event.block;
                *blocks.state(event.block as usize)
            }
            Effect::Resize => {
                let old = blocks.resize(event.block, event.size)?;
                event.align_log2 = old.align_log2;
                old
            }
            Effect::Free => {
                let old = blocks.free(event.block)?;
                event.size = old.size;
                event.align_log2 = old.align_log2;
                old
            }
            Effect::Told => {
                let block = *blocks.get(event.block)?;
                if event.size > block.size {
                    return Err(format!(
                        "more of block {} is written than it has",
                        event.block
                    ));
                }
                event.align_log2 = block.align_log2;
                block
            }
            Effect::None => Block::FREE,
        };
        seen(&event, &block, (blocks.live_bytes, blocks.live_blocks));
    }
    walk.ticks[thread as usize] = tick;
    Ok(())
}
