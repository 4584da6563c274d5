//! The columns of an EVENTS chunk: one thread's events of a segment.

use super::container::ChunkKind;
use super::event::{Effect, EventKind, TraceEvent};
use super::planes::{Numbers, Planes};
use super::varint;
use super::writer::SEGMENT_EVENTS;

/// Columns, and their lengths before them (u32 each).
const COLUMNS: usize = 6;
/// Bytes before the columns.
const LENGTHS: usize = 4 * COLUMNS;
/// Bytes of an event at most: kind and alignment one each, four varints.
const MAX_EVENT: u64 = 2 + 4 * 10;
/// Lengths of planes, of four columns.
const PLANES: u64 = 4 * (1 + 4 * 10);
/// Threads are numbered below this.
pub(super) const MAX_THREADS: u32 = 1 << 20;
/// Ticks and sizes lie below this.
pub(super) const MAX_VALUE: u64 = 1 << 56;

/// Gathers a thread's events for one chunk.
#[derive(Default)]
pub(super) struct Columns {
    events: u32,
    first_tick: u64,
    tick: u64,
    block: u32,
    address: u64,
    kinds: Vec<u8>,
    ticks: Planes,
    blocks: Planes,
    sizes: Planes,
    alignments: Vec<u8>,
    addresses: Planes,
}

impl Columns {
    /// Appends an event whose block is known.
    #[inline]
    pub fn push(&mut self, event: &TraceEvent, keep_addresses: bool) {
        if self.events == 0 {
            self.first_tick = event.tick;
            self.tick = event.tick;
        }
        self.events += 1;
        self.kinds.push(event.kind as u8);
        self.ticks.put(event.tick - self.tick);
        self.tick = event.tick;
        let effect = event.kind.effect();
        if matches!(effect, Effect::Resize | Effect::Free | Effect::Told) {
            let step = i64::from(event.block) - i64::from(self.block);
            self.blocks.put(varint::zigzag(step));
        }
        if effect != Effect::None {
            self.block = event.block;
        }
        if event.kind.has_size() {
            self.sizes.put(event.size);
        }
        if event.kind.has_alignment() {
            self.alignments.push(event.align_log2);
        }
        if keep_addresses && matches!(effect, Effect::Alloc | Effect::Resize) {
            let step = event.address.wrapping_sub(self.address) as i64;
            self.addresses.put(varint::zigzag(step));
            self.address = event.address;
        }
    }

    /// Meta and body of the chunk; starts again empty, keeping the memory.
    pub fn take(&mut self, thread: u32) -> (Vec<u8>, Vec<u8>) {
        let mut meta = thread.to_le_bytes().to_vec();
        meta.extend_from_slice(&self.events.to_le_bytes());
        meta.extend_from_slice(&self.first_tick.to_le_bytes());
        meta.extend_from_slice(&self.tick.to_le_bytes());
        let mut body = vec![0; LENGTHS];
        let mut column = |index: usize, write: &mut dyn FnMut(&mut Vec<u8>)| {
            let start = body.len();
            write(&mut body);
            let length = (body.len() - start) as u32;
            body[4 * index..4 * index + 4].copy_from_slice(&length.to_le_bytes());
        };
        column(0, &mut |body| body.append(&mut self.kinds));
        column(1, &mut |body| self.ticks.write(body));
        column(2, &mut |body| self.blocks.write(body));
        column(3, &mut |body| self.sizes.write(body));
        column(4, &mut |body| body.append(&mut self.alignments));
        column(5, &mut |body| self.addresses.write(body));
        (self.events, self.block, self.address) = (0, 0, 0);
        (meta, body)
    }

    /// Nothing was pushed since the last write.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }
}

/// The events that the meta of a chunk claims; 0 when it is cut.
pub(super) fn claimed_events(meta: &[u8]) -> u32 {
    meta.get(4..8).map_or(0, |count| {
        u32::from_le_bytes([count[0], count[1], count[2], count[3]])
    })
}

/// Bytes that the body of a chunk with so many events can have: what a hostile file can make a reader decompress.
pub(super) fn largest_body(events: u32) -> u64 {
    LENGTHS as u64 + PLANES + MAX_EVENT * u64::from(events)
}

/// Reads a chunk's events one after the other, without a copy of them in memory.
pub(super) struct EventCursor<'a> {
    pub thread: u32,
    kinds: std::slice::Iter<'a, u8>,
    ticks: Numbers<'a>,
    blocks: Numbers<'a>,
    sizes: Numbers<'a>,
    alignments: std::slice::Iter<'a, u8>,
    addresses: Numbers<'a>,
    keep: bool,
    tick: u64,
    last_tick: u64,
    /// The block that the thread touched last.
    pub block: u32,
    address: u64,
}

fn short() -> String {
    "the columns of a chunk are cut".to_string()
}

impl<'a> EventCursor<'a> {
    /// Splits the columns of a checked chunk.
    pub fn new(kind: ChunkKind, meta: &[u8], body: &'a [u8]) -> Result<Self, String> {
        let (thread, rest) = meta.split_first_chunk::<4>().ok_or_else(short)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (first, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let last = rest.first_chunk::<8>().ok_or_else(short)?;
        let (thread, count) = (
            u32::from_le_bytes(*thread),
            u32::from_le_bytes(*count) as usize,
        );
        if thread >= MAX_THREADS {
            return Err(format!("{thread} is no number of a thread"));
        }
        let (lengths, mut rest) = body.split_at_checked(LENGTHS).ok_or_else(short)?;
        let mut columns = [&[][..]; COLUMNS];
        for (column, length) in columns.iter_mut().zip(lengths.chunks_exact(4)) {
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            (*column, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        }
        let [kinds, ticks, blocks, sizes, alignments, addresses] = columns;
        let numbers = |column| match kind {
            ChunkKind::EVENTS => Numbers::planes(column),
            _ => Ok(Numbers::varints(column)),
        };
        if kinds.len() != count || count == 0 || count > SEGMENT_EVENTS || !rest.is_empty() {
            return Err(format!(
                "a chunk says {count} events and holds {}",
                kinds.len()
            ));
        }
        Ok(Self {
            thread,
            kinds: kinds.iter(),
            ticks: numbers(ticks)?,
            blocks: numbers(blocks)?,
            sizes: numbers(sizes)?,
            alignments: alignments.iter(),
            keep: !addresses.is_empty(),
            addresses: numbers(addresses)?,
            tick: u64::from_le_bytes(*first),
            last_tick: u64::from_le_bytes(*last),
            block: 0,
            address: 0,
        })
    }

    /// Events that are left.
    pub fn left(&self) -> usize {
        self.kinds.len()
    }

    /// The next event. Its block is known for resizes and frees; of an allocation the caller says it by setting
    /// [`Self::block`]. The size of a free is its block's: 0 here.
    #[inline]
    pub fn next(&mut self) -> Result<TraceEvent, String> {
        let number = *self.kinds.next().ok_or_else(short)?;
        let kind = EventKind::from_number(number)
            .ok_or_else(|| format!("{number} is no kind of event"))?;
        let step = self.ticks.next().ok_or_else(short)?;
        let tick = self.tick.wrapping_add(step);
        if tick >= MAX_VALUE || step >= MAX_VALUE {
            return Err("a time is out of range".into());
        }
        self.tick = tick;
        let effect = kind.effect();
        if matches!(effect, Effect::Resize | Effect::Free | Effect::Told) {
            let step = varint::unzigzag(self.blocks.next().ok_or_else(short)?);
            self.block = self.block.wrapping_add(step as u32);
        }
        let size = if kind.has_size() {
            self.sizes.next().ok_or_else(short)?
        } else {
            0
        };
        let align_log2 = if kind.has_alignment() {
            *self.alignments.next().ok_or_else(short)?
        } else {
            0
        };
        if align_log2 >= 48 || size >= MAX_VALUE {
            return Err("a size or an alignment is out of range".into());
        }
        let mut address = 0;
        if self.keep && matches!(effect, Effect::Alloc | Effect::Resize) {
            let step = varint::unzigzag(self.addresses.next().ok_or_else(short)?);
            self.address = self.address.wrapping_add(step as u64);
            address = self.address;
        }
        Ok(TraceEvent {
            thread: self.thread,
            tick,
            kind,
            block: if effect == Effect::None {
                0
            } else {
                self.block
            },
            size,
            align_log2,
            address,
        })
    }

    /// After the last event: nothing may be left, and the time of the end must be the one of the meta.
    pub fn finish(&self) -> Result<(), String> {
        let over = [
            self.kinds.len(),
            self.ticks.left(),
            self.blocks.left(),
            self.sizes.left(),
            self.addresses.left(),
            self.alignments.len(),
        ];
        if self.tick != self.last_tick || over.iter().any(|&left| left != 0) {
            return Err("the columns of a chunk do not agree with each other".into());
        }
        Ok(())
    }
}
