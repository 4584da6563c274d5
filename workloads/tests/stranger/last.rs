//! The final form, as `docs/TRACE_FORMAT.md` has it.

use super::chunks::{Bytes, Chunk, planes, unzigzag};
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub thread: u32,
    pub tick: u64,
    pub kind: u8,
    pub block: u32,
    pub size: u64,
    pub align_log2: u8,
}

/// What a block is: size, thread, tick and number of its allocation, alignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub size: u64,
    pub thread: u32,
    pub tick: u64,
    pub birth: u64,
    pub align_log2: u8,
}

/// The blocks along the global order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    pub blocks: Vec<Option<Block>>,
    pub free: Vec<u32>,
    pub allocations: u64,
    pub ticks: Vec<u64>,
}

/// Everything of a trace that this reader understands.
#[derive(Debug, Default)]
pub struct Read {
    pub events: Vec<Event>,
    /// Number of the event, number of its stack.
    pub stacks_of: Vec<(u64, u32)>,
    /// Module and address.
    pub frames: Vec<(Option<u32>, u64)>,
    /// Innermost frame, the stack that called.
    pub stacks: Vec<(u32, Option<u32>)>,
    /// Heaps of checkpoints, by the number of the next event, and those of this reader at the same places.
    pub checkpoints: BTreeMap<u64, (Heap, Heap)>,
}

fn is_alloc(kind: u8) -> bool {
    matches!(kind, 0..=7 | 17)
}

fn is_free(kind: u8) -> bool {
    matches!(kind, 9..=11 | 15 | 16 | 18)
}

fn has_block(kind: u8) -> bool {
    matches!(kind, 8 | 12 | 24) || is_free(kind)
}

/// The events of one EVENTS chunk; blocks of allocations are not known yet, others are distances that wait for them.
struct Columns {
    kinds: VecDeque<u8>,
    ticks: VecDeque<u64>,
    blocks: VecDeque<u64>,
    sizes: VecDeque<u64>,
    alignments: VecDeque<u8>,
    tick: u64,
    last_block: i64,
}

impl Columns {
    fn of(chunk: &Chunk) -> (u32, Self) {
        let mut meta = Bytes(&chunk.meta);
        let (thread, events) = (meta.number(4) as u32, meta.number(4) as usize);
        let tick = meta.number(8);
        let mut body = Bytes(&chunk.body);
        let lengths: Vec<usize> = (0..6).map(|_| body.number(4) as usize).collect();
        let columns: Vec<&[u8]> = lengths.iter().map(|length| body.take(*length)).collect();
        let numbers = |column: &[u8]| match chunk.kind {
            37 => planes(column),
            _ => {
                let mut bytes = Bytes(column);
                let mut found = VecDeque::new();
                while !bytes.0.is_empty() {
                    found.push_back(bytes.varint());
                }
                found
            }
        };
        assert_eq!(columns[0].len(), events);
        let this = Self {
            kinds: columns[0].iter().copied().collect(),
            ticks: numbers(columns[1]),
            blocks: numbers(columns[2]),
            sizes: numbers(columns[3]),
            alignments: columns[4].iter().copied().collect(),
            tick,
            last_block: 0,
        };
        (thread, this)
    }

    fn next(&mut self, thread: u32, heap: &mut Heap) -> Event {
        let kind = self.kinds.pop_front().unwrap();
        self.tick += self.ticks.pop_front().unwrap();
        let mut event = Event {
            thread,
            tick: self.tick,
            kind,
            ..Event::default()
        };
        if !is_free(kind) {
            event.size = self.sizes.pop_front().unwrap();
        }
        if matches!(kind, 2..=4) {
            event.align_log2 = self.alignments.pop_front().unwrap();
        }
        if is_alloc(kind) {
            event.block = heap.free.pop().unwrap_or(heap.blocks.len() as u32);
            let index = event.block as usize;
            heap.blocks.resize(heap.blocks.len().max(index + 1), None);
            assert_eq!(heap.blocks[index], None);
            heap.blocks[index] = Some(Block {
                size: event.size,
                thread,
                tick: event.tick,
                birth: heap.allocations,
                align_log2: event.align_log2,
            });
            heap.allocations += 1;
            self.last_block = i64::from(event.block);
        } else if has_block(kind) {
            self.last_block += unzigzag(self.blocks.pop_front().unwrap());
            event.block = self.last_block as u32;
            let block = heap.blocks[event.block as usize]
                .as_mut()
                .expect("a living block");
            event.align_log2 = block.align_log2;
            match kind {
                8 | 12 => block.size = event.size,
                24 => assert!(event.size <= block.size),
                _ => {
                    event.size = block.size;
                    heap.blocks[event.block as usize] = None;
                    heap.free.push(event.block);
                }
            }
        }
        let ticks = &mut heap.ticks;
        ticks.resize(ticks.len().max(thread as usize + 1), 0);
        assert!(
            event.tick >= ticks[thread as usize],
            "time in a thread never goes back"
        );
        ticks[thread as usize] = event.tick;
        event
    }

    fn is_empty(&self) -> bool {
        let columns = [
            self.ticks.len(),
            self.blocks.len(),
            self.sizes.len(),
            self.alignments.len(),
        ];
        self.kinds.is_empty() && columns == [0; 4]
    }
}

/// Adds a CHECKPOINT chunk's entries; sections follow each other.
fn checkpoint(chunk: &Chunk, heap: &mut Heap) -> u64 {
    let mut meta = Bytes(&chunk.meta);
    let (next, _follow) = (meta.number(8), meta.number(4));
    let (section, first, entries) = (meta.number(4), meta.number(4), meta.number(4));
    let mut body = Bytes(&chunk.body);
    if section == 0 && first == 0 {
        heap.allocations = body.varint();
    }
    let largest = heap.ticks.iter().copied().max().unwrap_or(0);
    let mut number = 0;
    for _ in 0..entries {
        match section {
            0 => heap.ticks.push(body.varint()),
            1 => {
                let block = match body.varint() {
                    0 => None,
                    size => Some(Block {
                        size: size - 1,
                        thread: body.varint() as u32,
                        tick: largest.wrapping_add_signed(-body.zigzag()),
                        birth: heap.allocations - body.varint(),
                        align_log2: body.varint() as u8,
                    }),
                };
                heap.blocks.push(block);
            }
            _ => {
                number += body.zigzag();
                heap.free.push(number as u32);
            }
        }
    }
    assert!(body.0.is_empty(), "section {section}");
    next
}

/// Two columns of varints: what distances and values there are.
fn references(body: &[u8], count: usize) -> Vec<(u64, u64)> {
    let mut bytes = Bytes(body);
    let distances: Vec<u64> = (0..count).map(|_| bytes.varint()).collect();
    let found = distances
        .into_iter()
        .map(|distance| (distance, bytes.varint()))
        .collect();
    assert!(bytes.0.is_empty());
    found
}

/// Reads a whole file of the final form.
pub fn read(chunks: &[Chunk]) -> Read {
    assert_eq!(
        (chunks[0].kind, chunks[0].meta.as_slice()),
        (1, &[1][..]),
        "the final form"
    );
    let mut read = Read::default();
    let mut heap = Heap::default();
    let mut stored = Heap::default();
    for (at, chunk) in chunks.iter().enumerate() {
        let mut meta = Bytes(&chunk.meta);
        match chunk.kind {
            33 => {
                let (first, events, busy) = (
                    meta.number(8),
                    meta.number(4) as usize,
                    meta.number(4) as usize,
                );
                assert_eq!(first, read.events.len() as u64);
                let parts = &chunks[at + 1..=at + busy];
                assert!(parts.iter().all(|part| matches!(part.kind, 34 | 37)));
                let mut threads: HashMap<u32, Columns> = parts.iter().map(Columns::of).collect();
                let mut runs = Bytes(&chunk.body);
                while !runs.0.is_empty() {
                    let (thread, count) = (runs.varint() as u32, runs.varint());
                    let columns = threads.get_mut(&thread).unwrap();
                    for _ in 0..count {
                        read.events.push(columns.next(thread, &mut heap));
                    }
                }
                assert_eq!(read.events.len(), first as usize + events);
                assert!(
                    threads.values().all(Columns::is_empty),
                    "something was left over"
                );
            }
            36 => {
                let next = checkpoint(chunk, &mut stored);
                assert_eq!(next, read.events.len() as u64);
                let follow = u32::from_le_bytes(chunk.meta[8..12].try_into().unwrap());
                if follow == 0 {
                    read.checkpoints
                        .insert(next, (std::mem::take(&mut stored), heap.clone()));
                }
            }
            48 => {
                let (first, count) = (meta.number(8), meta.number(4) as usize);
                let mut event = first;
                for (distance, stack) in references(&chunk.body, count) {
                    event += distance;
                    read.stacks_of.push((event, stack as u32));
                }
            }
            50 => {
                let mut body = Bytes(&chunk.body);
                let mut address = 0u64;
                for _ in 0..meta.number(4) {
                    let module = (body.varint() as u32).checked_sub(1);
                    address = address.wrapping_add_signed(body.zigzag());
                    read.frames.push((module, address));
                }
                assert!(body.0.is_empty());
            }
            51 => {
                let mut body = Bytes(&chunk.body);
                for _ in 0..meta.number(4) {
                    let number = read.stacks.len() as u32 + 1;
                    let (frame, down) = (body.varint() as u32, body.varint() as u32);
                    read.stacks
                        .push((frame, Some(number - down).filter(|caller| *caller > 0)));
                }
                assert!(body.0.is_empty());
            }
            _ => {}
        }
    }
    read
}
