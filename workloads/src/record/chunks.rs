//! Records out of chunks, in the order of their thread.

use super::clock::Calibration;
use super::stream::{Message, Pushed, Stream};
use heaplab_ring::{Pool, RECORDS_PER_CHUNK, RecordView, SlotInfo, SlotState};

/// Slots of a closed chunk that were empty when it was read: a hook interrupted by a handler that
/// went on to another chunk. The chunk stays until they are filled or the thread is gone.
#[derive(Debug)]
pub struct Pinned {
    pub index: u32,
    pub thread: u32,
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
    #[inline]
    fn push(&mut self, stream: &mut Stream, record: RecordView, clock: &Calibration) {
        match stream.push(record, clock) {
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

/// Reads what is committed of a chunk from `position` on. A chunk that is `over` is read to its
/// end, past empty slots, which are noted as `holes`; one in use up to the first empty slot.
/// `earlier` are this thread's chunks that wait for slots to be filled.
#[allow(clippy::too_many_arguments)]
pub fn read_chunk(
    pool: Pool<'_>,
    index: u32,
    slot: &SlotInfo,
    position: &mut usize,
    over: bool,
    holes: &mut Vec<usize>,
    mut earlier: Vec<&mut Pinned>,
    stream: &mut Stream,
    clock: &Calibration,
    got: &mut Got,
) {
    let closed = slot.state != SlotState::Active;
    let end = if closed {
        slot.length
    } else {
        RECORDS_PER_CHUNK
    };
    let mut trailing = 0;
    while *position < end {
        match pool.read(index, *position) {
            Some(record) => {
                trailing = 0;
                // What the thread committed before this record is to be seen now, and comes first:
                // else the free of a block could stand before its allocation.
                for chunk in &mut earlier {
                    fill(pool, chunk, stream, clock, got);
                }
                got.push(stream, record, clock);
            }
            None if over => {
                trailing += 1;
                holes.push(*position);
            }
            None => break,
        }
        *position += 1;
    }
    if !closed {
        // The unused end of a dead thread's chunk is no hole.
        holes.truncate(holes.len() - trailing);
    }
}

/// Reads the slots of a pinned chunk that were filled since.
pub fn fill(
    pool: Pool<'_>,
    chunk: &mut Pinned,
    stream: &mut Stream,
    clock: &Calibration,
    got: &mut Got,
) {
    chunk.holes.retain(|&position| {
        let Some(record) = pool.read(chunk.index, position) else {
            return true;
        };
        got.push(stream, record, clock);
        false
    });
}
