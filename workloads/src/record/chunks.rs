//! Records out of chunks, in the order of their thread.

use super::clock::{Calibration, Span};
use super::stream::{Message, Pushed, Stream};
use heaplab_ring::{Pool, RECORDS_PER_CHUNK, RecordView, SlotInfo, SlotState};

/// Slots of a closed chunk that were empty when it was read: a hook interrupted by a handler that
/// went on to another chunk. The chunk stays until they are filled or the thread is gone.
#[derive(Debug)]
pub struct Pinned {
    pub index: u32,
    pub thread: u32,
    pub span: Span,
    pub holes: Vec<usize>,
}

/// What reading gave, besides the events in the threads' buffers.
#[derive(Debug, Default)]
pub struct Got {
    /// Events.
    pub events: usize,
    /// Records that made no sense.
    pub torn: u64,
    /// What threads said: process, message.
    pub messages: Vec<(u32, Message)>,
    /// Messages and parts of them.
    pub others: usize,
}

impl Got {
    #[inline(always)]
    fn push(&mut self, stream: &mut Stream, record: RecordView, span: Span) {
        if stream.take_event(&record, span) {
            self.events += 1;
        } else {
            self.push_other(stream, record, span);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_other(&mut self, stream: &mut Stream, record: RecordView, span: Span) {
        match stream.push(record, span) {
            Pushed::Event => self.events += 1,
            Pushed::Text => self.others += 1,
            Pushed::Message(message) => {
                self.others += 1;
                self.messages.push((stream.process, message));
            }
            Pushed::Nonsense => self.torn += 1,
        }
    }
}

/// A chunk that is read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub pool: Pool<'a>,
    pub index: u32,
    pub slot: &'a SlotInfo,
    /// Its thread or the program is gone, or it is closed: it is read to its end.
    pub over: bool,
    pub clock: &'a Calibration,
}

/// Reads what is committed of a chunk and was not read before. A chunk that is `over` is read to its
/// end, past empty slots, which are returned; one in use up to the first empty slot.
/// `pinned` are the chunks that wait for slots to be filled.
pub fn read_chunk(
    of: Reading<'_>,
    pinned: &mut [Pinned],
    stream: &mut Stream,
    got: &mut Got,
) -> Vec<usize> {
    let closed = of.slot.state != SlotState::Active;
    let end = if closed {
        of.slot.length
    } else {
        RECORDS_PER_CHUNK
    };
    let span = of.clock.span(of.slot.base);
    let chunk = of.pool.chunk(of.index);
    let (records, generation) = (&chunk.records()[..end], chunk.generation());
    let mut earlier: Vec<&mut Pinned> = pinned
        .iter_mut()
        .filter(|pinned| pinned.thread == of.slot.thread)
        .collect();
    let mut holes = Vec::new();
    if !of.over {
        let records: Vec<RecordView> = (records[stream.position.min(end)..].iter())
            .map_while(|record| record.read(generation))
            .collect();
        if of.pool.is_same(of.index, of.slot, generation) {
            stream.position += records.len();
            for record in records {
                for chunk in &mut earlier {
                    fill(of.pool, chunk, stream, got);
                }
                got.push(stream, record, span);
            }
        }
        return holes;
    }
    let mut trailing = 0;
    for (position, record) in records.iter().enumerate().skip(stream.position) {
        match record.read(generation) {
            Some(record) => {
                trailing = 0;
                // What the thread committed before this record is to be seen now, and comes first:
                // else the free of a block could stand before its allocation.
                for chunk in &mut earlier {
                    fill(of.pool, chunk, stream, got);
                }
                got.push(stream, record, span);
            }
            None => {
                trailing += 1;
                holes.push(position);
            }
        }
    }
    if !closed {
        // The unused end of a dead thread's chunk is no hole.
        holes.truncate(holes.len() - trailing);
    }
    holes
}

/// Reads the slots of a pinned chunk that were filled since.
pub fn fill(pool: Pool<'_>, chunk: &mut Pinned, stream: &mut Stream, got: &mut Got) {
    let span = chunk.span;
    chunk.holes.retain(|&position| {
        let Some(record) = pool.read(chunk.index, position) else {
            return true;
        };
        got.push(stream, record, span);
        false
    });
}
