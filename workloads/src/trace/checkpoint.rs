//! Checkpoints: the live blocks between two segments, so that reading can begin there.
//!
//! A checkpoint is a row of CHECKPOINT chunks. Meta (24 bytes): number of the next event (u64), chunks of the checkpoint
//! that follow (u32), section (u32), number of the first entry (u32), entries (u32). The body is varints:
//!
//! - section 0: the count of allocations so far (only before entry 0), then each thread's last tick, by thread number;
//! - section 1, for each block number ever used: 0 when it is free, else size + 1, thread, zigzag of the largest tick of
//!   section 0 minus the tick of allocation, allocations so far minus the number of its allocation, log2 of its alignment;
//! - section 2: the free block numbers, the one that is given out next last, each as zigzag of the step from the one before.

use super::columns::{MAX_THREADS, MAX_VALUE};
use super::container::{ChunkKind, ChunkReader, ChunkWriter};
use super::error::TraceError;
use super::event::{Block, Blocks, MAX_LIVE};
use super::varint::{self, Cursor};

/// Entries of a chunk at most; an entry has at most 36 bytes, so a body stays below 10 MiB.
const ENTRIES: usize = 1 << 18;
const META: usize = 24;
const SECTIONS: usize = 3;

/// What goes from segment to segment while reading.
#[derive(Default)]
pub(super) struct Walk {
    /// The blocks.
    pub blocks: Blocks,
    /// Last tick of each thread.
    pub ticks: Vec<u64>,
}

impl Walk {
    /// The largest tick so far.
    pub fn max_tick(&self) -> u64 {
        self.ticks.iter().copied().max().unwrap_or(0)
    }

    /// Both would go on in the same way.
    pub fn same(&self, other: &Self) -> bool {
        let seen = |walk: &Self| {
            let used = walk.ticks.iter().rposition(|&tick| tick != 0);
            used.map_or(0, |last| last + 1)
        };
        let (mine, theirs) = (seen(self), seen(other));
        self.ticks[..mine] == other.ticks[..theirs] && self.blocks.same(&other.blocks)
    }
}

/// A rough size of the checkpoint, bytes: to decide when one is worth it.
pub(super) fn expected_bytes(blocks: &Blocks) -> u64 {
    64 + 8 * blocks.live_blocks + 2 * (blocks.numbers() as u64 - blocks.live_blocks)
}

/// Writes the state before event `next_event`.
pub(super) fn write(
    out: &mut ChunkWriter,
    next_event: u64,
    blocks: &Blocks,
    ticks: &[u64],
) -> Result<(), TraceError> {
    let counts = [ticks.len(), blocks.numbers(), blocks.free_numbers().len()];
    let parts = |count: usize| count.div_ceil(ENTRIES);
    // The first section is there even without a thread: it holds the count.
    let mut left = counts.iter().map(|&count| parts(count)).sum::<usize>();
    left += usize::from(counts[0] == 0);
    let latest = ticks.iter().copied().max().unwrap_or(0);
    let mut body = Vec::new();
    for (section, &count) in counts.iter().enumerate() {
        let mut from = 0;
        while from < count || (section == 0 && from == 0) {
            let to = count.min(from + ENTRIES);
            body.clear();
            match section {
                0 => {
                    if from == 0 {
                        varint::put(&mut body, blocks.allocations);
                    }
                    ticks[from..to]
                        .iter()
                        .for_each(|&tick| varint::put(&mut body, tick));
                }
                1 => (from..to).for_each(|number| {
                    put_block(&mut body, blocks.state(number), latest, blocks.allocations);
                }),
                _ => {
                    let free = blocks.free_numbers();
                    let mut before = from.checked_sub(1).map_or(0, |index| free[index]);
                    for &number in &free[from..to] {
                        let step = i64::from(number) - i64::from(before);
                        varint::put(&mut body, varint::zigzag(step));
                        before = number;
                    }
                }
            }
            left -= 1;
            let mut meta = next_event.to_le_bytes().to_vec();
            for word in [left, section, from, to - from] {
                meta.extend_from_slice(&(word as u32).to_le_bytes());
            }
            out.write(ChunkKind::CHECKPOINT, &meta, &body)?;
            from = to.max(1);
        }
    }
    Ok(())
}

fn put_block(body: &mut Vec<u8>, block: &Block, latest: u64, allocations: u64) {
    if !block.alive {
        body.push(0);
        return;
    }
    varint::put(body, block.size + 1);
    varint::put(body, u64::from(block.thread));
    varint::put(body, varint::zigzag(latest.wrapping_sub(block.tick) as i64));
    varint::put(body, allocations - block.birth);
    varint::put(body, u64::from(block.align_log2));
}

/// Reads the checkpoint that begins at `offset`; it must be the one before event `next_event`.
pub(super) fn read(reader: &ChunkReader, offset: u64, next_event: u64) -> Result<Walk, TraceError> {
    let mut at = offset;
    let mut parts = Parts::default();
    loop {
        let damaged = |reason: String| TraceError::damaged(reader.path(), at, reason);
        let place = reader
            .place(at)?
            .filter(|place| place.kind == ChunkKind::CHECKPOINT)
            .ok_or_else(|| damaged("a part of a checkpoint is missing".into()))?;
        let chunk = reader.chunk(&place)?;
        let left = parts
            .take(&chunk.meta, &chunk.body, next_event)
            .map_err(damaged)?;
        if left == 0 {
            return parts.finish().map_err(damaged);
        }
        at = place.end();
    }
}

#[derive(Default)]
struct Parts {
    left: Option<u32>,
    section: usize,
    allocations: u64,
    ticks: Vec<u64>,
    latest: u64,
    blocks: Vec<Block>,
    free: Vec<u32>,
}

impl Parts {
    fn take(&mut self, meta: &[u8], body: &[u8], next_event: u64) -> Result<u32, String> {
        let wrong = || "a checkpoint is cut or out of order".to_string();
        if meta.len() != META || meta[..8] != next_event.to_le_bytes() {
            return Err("the checkpoint is not the one of its place".into());
        }
        let word =
            |at: usize| u32::from_le_bytes([meta[at], meta[at + 1], meta[at + 2], meta[at + 3]]);
        let (left, section) = (word(8), word(12) as usize);
        let (first, count) = (word(16) as usize, word(20) as usize);
        if self
            .left
            .is_some_and(|before| before != left.wrapping_add(1))
            || section < self.section
            || section >= SECTIONS
            || count > ENTRIES
        {
            return Err(wrong());
        }
        let have = match section {
            0 => self.ticks.len(),
            1 => self.blocks.len(),
            _ => self.free.len(),
        };
        // Bounds of what is kept: threads, block numbers (each needed an event), free ones among them.
        let most = match section {
            0 => MAX_THREADS as usize,
            1 => MAX_LIVE.min(usize::try_from(self.allocations).unwrap_or(usize::MAX)),
            _ => self.blocks.len(),
        };
        if first != have || first + count > most {
            return Err(wrong());
        }
        (self.left, self.section) = (Some(left), section);
        let mut body = Cursor(body);
        if section == 0 && first == 0 {
            self.allocations = body
                .next()
                .filter(|&all| all <= next_event)
                .ok_or_else(wrong)?;
        }
        for _ in 0..count {
            let value = body.next().ok_or_else(wrong)?;
            match section {
                0 if value < MAX_VALUE => {
                    self.ticks.push(value);
                    self.latest = self.latest.max(value);
                }
                1 => {
                    let block = self.block(value, &mut body).ok_or_else(wrong)?;
                    self.blocks.push(block);
                }
                2 => {
                    let before = self.free.last().copied().unwrap_or(0);
                    self.free
                        .push(before.wrapping_add(varint::unzigzag(value) as u32));
                }
                _ => return Err(wrong()),
            }
        }
        if body.0.is_empty() {
            Ok(left)
        } else {
            Err(wrong())
        }
    }

    fn block(&self, size: u64, body: &mut Cursor<'_>) -> Option<Block> {
        let Some(size) = size.checked_sub(1) else {
            return Some(Block::FREE);
        };
        let thread = body
            .next()
            .filter(|&thread| thread < u64::from(MAX_THREADS))?;
        let age = varint::unzigzag(body.next()?);
        let tick = self.latest.wrapping_sub(age as u64);
        let births = body.next().filter(|&back| back > 0)?;
        let align_log2 = body.next().filter(|&log2| log2 < 48)?;
        (size < MAX_VALUE && tick < MAX_VALUE).then_some(())?;
        Some(Block {
            size,
            tick,
            birth: self.allocations.checked_sub(births)?,
            thread: thread as u32,
            align_log2: align_log2 as u8,
            alive: true,
        })
    }

    fn finish(self) -> Result<Walk, String> {
        Ok(Walk {
            blocks: Blocks::restored(self.blocks, self.free, self.allocations)?,
            ticks: self.ticks,
        })
    }
}
