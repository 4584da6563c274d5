//! Puts a script's file together: segments of the streams, relocated and hashed on their way, written by several threads.

use crate::hash::{SegmentHash, WordHash};
use crate::layout;
use crate::op::{FLAG_SHARED, OpKind};
use crate::spill::{SEGMENT, Spill};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Stream of the global order; thread n has stream n + 1.
pub const ORDER: usize = 0;

/// Threads that put the file together, at most.
const HANDS: usize = 8;

/// Batches after which memory is given back: what was written is not needed again, and the file's pages can take its place. Memory that a
/// virtual machine has not used for a while costs more than drawing the ops that lie in it.
const WAVE: usize = 16;

/// Bytes of ops that are copied and then changed: they are still in the core's first cache.
const HANDFUL: usize = 1 << 13;

/// A segment and its place in the file.
pub struct Piece {
    stream: usize,
    segment: usize,
    at: u64,
}

/// What is added to slots.
#[derive(Clone, Copy)]
pub struct Bases {
    pub private: u32,
    pub shared: u32,
}

/// Adds the segments of a stream that begins at `at` in the file.
pub fn add(spill: &Spill, stream: usize, at: u64, pieces: &mut Vec<Piece>) {
    for segment in 0..spill.segments(stream) {
        pieces.push(Piece {
            stream,
            segment,
            at: at + (segment * SEGMENT) as u64,
        });
    }
}

/// Writes all pieces, which lie in the order of the file, and takes them out of `spill`; returns the checksum. `before` are the
/// hashes of segments that lie in the file already, before all pieces. `progress` takes how many pieces are written, and how many
/// there are.
pub fn write(
    spill: &mut Spill,
    file: &File,
    before: &[u64],
    pieces: &[Piece],
    bases: impl Fn(usize) -> Bases + Sync,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<u64> {
    let hashes: Vec<AtomicU64> = pieces.iter().map(|_| AtomicU64::new(0)).collect();
    let batches = batches(pieces);
    for wave in batches.chunks(WAVE) {
        write_wave(spill, file, pieces, &hashes, wave, &bases)?;
        for range in wave {
            for piece in &pieces[range.clone()] {
                spill.forget(piece.stream, piece.segment);
            }
        }
        let written = wave.last().map_or(0, |range| range.end);
        progress(written as u64, pieces.len() as u64);
    }
    let mut all = WordHash::new();
    for hash in before {
        all.word(*hash);
    }
    for hash in &hashes {
        all.word(hash.load(Ordering::Relaxed));
    }
    Ok(all.value())
}

fn write_wave(
    spill: &Spill,
    file: &File,
    pieces: &[Piece],
    hashes: &[AtomicU64],
    batches: &[Range<usize>],
    bases: &(impl Fn(usize) -> Bases + Sync),
) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    // The file system lets one in at a time and has the others spin.
    let writing = Mutex::new(());
    let work = || -> io::Result<()> {
        let (mut read, mut batch) = (Vec::new(), Vec::with_capacity(2 * SEGMENT));
        while let Some(range) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begin = pieces[range.start].at;
            batch.clear();
            for (piece, hash) in pieces[range.clone()].iter().zip(&hashes[range.clone()]) {
                let bytes = match spill.view(piece.stream, piece.segment) {
                    Some(bytes) => bytes,
                    None => {
                        spill.read(piece.stream, piece.segment, &mut read)?;
                        &read
                    }
                };
                batch.resize((piece.at - begin) as usize, 0);
                let value = if piece.stream == ORDER {
                    batch.extend_from_slice(bytes);
                    SegmentHash::of(bytes)
                } else {
                    relocate(bytes, &mut batch, bases(piece.stream))
                };
                hash.store(value, Ordering::Relaxed);
            }
            let _turn = writing.lock();
            file.write_all_at(&batch, begin)?;
        }
        Ok(())
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // A thread costs as much as writing some pieces.
    let hands = (batches.len() / 4).min(cpus).clamp(1, HANDS);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..hands).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let theirs = other.join();
            result =
                result.and(theirs.unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
        }
        result
    })
}

/// Neighbours that are written at once: about [`SEGMENT`] bytes, so that many small threads are no small writes.
fn batches(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if piece.at - pieces[batch.start].at < SEGMENT as u64 => {
                batch.end = index + 1
            }
            _ => batches.push(index..index + 1),
        }
    }
    batches
}

/// Appends ops to `to` with the bases added to the slots of calls; returns the hash of the result.
fn relocate(from: &[u8], to: &mut Vec<u8>, bases: Bases) -> u64 {
    let mut hash = SegmentHash::new();
    for part in from.chunks(HANDFUL) {
        let begin = to.len();
        to.extend_from_slice(part);
        for op in to[begin..].chunks_exact_mut(16) {
            let (mut low, high) = (layout::read_u64(op, 0), layout::read_u64(op, 8));
            if low as u8 <= OpKind::Free as u8 {
                let shared = (low >> 8) as u8 & FLAG_SHARED != 0;
                let base = if shared { bases.shared } else { bases.private };
                low = low.wrapping_add(u64::from(base) << 32);
            }
            op[..8].copy_from_slice(&low.to_le_bytes());
            hash.pair(low, high);
        }
    }
    hash.value()
}
