//! Chunks and numbers, as `docs/TRACE_FORMAT.md` has them.

use crate::xxh64::xxh64;
use std::collections::VecDeque;

/// A chunk whose checksum is right, decompressed.
#[derive(Debug)]
pub struct Chunk {
    pub offset: usize,
    pub kind: u16,
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

/// All chunks of a file, in their order.
pub fn chunks(file: &[u8]) -> Vec<Chunk> {
    assert_eq!(&file[..8], b"HLTRACE\n");
    let mut found = Vec::new();
    let mut at = 16;
    while file[at..].starts_with(b"HLck") {
        let head = &file[at..at + 32];
        let half = |from: usize| u16::from_le_bytes(head[from..from + 2].try_into().unwrap());
        let length =
            |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().unwrap()) as usize;
        let (meta, stored, whole) = (length(8), length(12), length(16));
        let parts = &file[at + 32..at + 32 + meta + stored];
        let sum = xxh64(&head[..24]) ^ xxh64(parts).rotate_left(1);
        assert_eq!(
            sum.to_le_bytes(),
            head[24..32],
            "checksum of the chunk at {at}"
        );
        let body = match half(6) & 1 {
            0 => parts[meta..].to_vec(),
            _ => zstd::decode_all(&parts[meta..]).unwrap(),
        };
        assert_eq!(body.len(), whole);
        found.push(Chunk {
            offset: at,
            kind: half(4),
            meta: parts[..meta].to_vec(),
            body,
        });
        at += 32 + meta + stored;
    }
    // What is left is the trailer, or nothing in a file that was cut off.
    match &file[at..] {
        [] => {}
        trailer => {
            assert_eq!((&trailer[..8], trailer.len()), (&b"HLTRACEX"[..], 16));
            let index = u64::from_le_bytes(trailer[8..].try_into().unwrap()) as usize;
            assert!(
                found
                    .iter()
                    .any(|chunk| (chunk.offset, chunk.kind) == (index, 35))
            );
        }
    }
    found
}

/// Numbers one behind the other.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// Little endian, `count` bytes of at most 8.
    pub fn number(&mut self, count: usize) -> u64 {
        let mut word = [0; 8];
        word[..count].copy_from_slice(self.take(count));
        u64::from_le_bytes(word)
    }

    pub fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    pub fn zigzag(&mut self) -> i64 {
        unzigzag(self.varint())
    }
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A column of varints in planes.
pub fn planes(column: &[u8]) -> VecDeque<u64> {
    if column.is_empty() {
        return VecDeque::new();
    }
    let mut bytes = Bytes(column);
    let count = bytes.number(1) as usize;
    let lengths: Vec<usize> = (0..count).map(|_| bytes.number(4) as usize).collect();
    let planes: Vec<&[u8]> = lengths.iter().map(|length| bytes.take(*length)).collect();
    assert!(bytes.0.is_empty());
    let mut at = vec![0; count];
    (0..lengths[0])
        .map(|_| {
            let mut value = 0;
            for (plane, shift) in (0..count).zip((0..).step_by(7)) {
                let byte = planes[plane][at[plane]];
                at[plane] += 1;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        })
        .collect()
}
