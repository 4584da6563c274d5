//! Raw files, as `docs/TRACE_FORMAT.md` has them.

use super::chunks::{Bytes, Chunk, unzigzag};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawEvent {
    pub kind: u8,
    pub time_ns: u64,
    pub size: u64,
    pub address: u64,
    pub align_log2: u8,
}

/// A length in a head: 7 stands for 8 bytes.
fn length(bits: u8) -> usize {
    match bits & 7 {
        7 => 8,
        bits => usize::from(bits),
    }
}

/// Kind 20: a head of two bytes an event, and as many bytes in each column as it says.
fn packed(chunk: &Chunk, events: usize, first: u64) -> Vec<RawEvent> {
    let mut body = Bytes(&chunk.body);
    let lengths: Vec<usize> = (0..3).map(|_| body.number(4) as usize).collect();
    let heads = body.take(2 * events);
    let mut columns: Vec<Bytes<'_>> = lengths
        .iter()
        .map(|length| Bytes(body.take(*length)))
        .collect();
    let mut alignments = body;
    let mut last = RawEvent {
        time_ns: first,
        ..RawEvent::default()
    };
    let found = heads
        .chunks(2)
        .map(|head| {
            let distance = columns[2].number(length(head[1])).rotate_left(4);
            last = RawEvent {
                kind: head[0] & 31,
                time_ns: last.time_ns + columns[0].number(length(head[1] >> 5)),
                size: columns[1].number(length(head[0] >> 5)),
                address: match head[1] & 8 {
                    0 => last.address.wrapping_add(distance),
                    _ => last.address.wrapping_sub(distance),
                },
                align_log2: match head[1] & 16 {
                    0 => 0,
                    _ => alignments.number(1) as u8,
                },
            };
            last
        })
        .collect();
    assert!(columns.iter().all(|column| column.0.is_empty()) && alignments.0.is_empty());
    found
}

/// Kind 18: five columns.
fn columns(chunk: &Chunk, events: usize, first: u64) -> Vec<RawEvent> {
    let mut body = Bytes(&chunk.body);
    let lengths: Vec<usize> = (0..4).map(|_| body.number(4) as usize).collect();
    let mut columns: Vec<Bytes<'_>> = lengths
        .iter()
        .map(|length| Bytes(body.take(*length)))
        .collect();
    columns.push(body);
    let mut last = RawEvent {
        time_ns: first,
        ..RawEvent::default()
    };
    let found = (0..events)
        .map(|_| {
            let kind = columns[0].number(1) as u8;
            let distance = columns[2].varint().rotate_left(4);
            let (below, kind) = (kind & 0x80 != 0, kind & 0x7f);
            last = RawEvent {
                kind,
                time_ns: last.time_ns + columns[1].varint(),
                address: match below {
                    false => last.address.wrapping_add(distance),
                    true => last.address.wrapping_sub(distance),
                },
                size: match kind {
                    7 | 9 | 10 | 11 => 0,
                    _ => columns[3].varint(),
                },
                align_log2: match kind {
                    2 | 3 | 4 | 11 | 13 => columns[4].number(1) as u8,
                    _ => 0,
                },
            };
            last
        })
        .collect();
    assert!(columns.iter().all(|column| column.0.is_empty()));
    found
}

/// What a raw file holds.
#[derive(Debug, Default)]
pub struct Raw {
    pub threads: BTreeMap<u32, Vec<RawEvent>>,
    /// Stacks by number: process, epoch, run-time addresses, the innermost first.
    pub stacks: BTreeMap<u32, (u32, u32, Vec<u64>)>,
    /// By thread: number of the event, number of its stack.
    pub stacks_of: BTreeMap<u32, Vec<(u64, u32)>>,
}

pub fn read(chunks: &[Chunk]) -> Raw {
    assert!(
        chunks[0].kind == 1 && chunks[0].meta.is_empty(),
        "a raw file"
    );
    let mut raw = Raw::default();
    for chunk in chunks {
        let mut meta = Bytes(&chunk.meta);
        match chunk.kind {
            18 | 20 => {
                let (thread, events) = (meta.number(4) as u32, meta.number(4) as usize);
                let (first, last) = (meta.number(8), meta.number(8));
                let found = match chunk.kind {
                    18 => columns(chunk, events, first),
                    _ => packed(chunk, events, first),
                };
                assert_eq!(found.last().map(|event| event.time_ns), Some(last));
                raw.threads.entry(thread).or_default().extend(found);
            }
            26 => {
                let mut body = Bytes(&chunk.body);
                for _ in 0..meta.number(4) {
                    let number = body.varint() as u32;
                    let (process, epoch, count) =
                        (body.varint() as u32, body.varint() as u32, body.varint());
                    let mut address = 0u64;
                    let frames = (0..count).map(|_| {
                        address = address.wrapping_add_signed(unzigzag(body.varint()));
                        address
                    });
                    let frames = frames.collect();
                    raw.stacks.insert(number, (process, epoch, frames));
                }
                assert!(body.0.is_empty());
            }
            27 => {
                let (thread, count) = (meta.number(4) as u32, meta.number(4) as usize);
                let mut event = meta.number(8);
                let mut body = Bytes(&chunk.body);
                let distances: Vec<u64> = (0..count).map(|_| body.varint()).collect();
                for distance in distances {
                    event += distance;
                    let stack = body.varint() as u32;
                    raw.stacks_of
                        .entry(thread)
                        .or_default()
                        .push((event, stack));
                }
                assert!(body.0.is_empty());
            }
            _ => {}
        }
    }
    raw
}
