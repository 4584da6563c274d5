//! The first thread's ops, written where they will lie as they come.
//!
//! Where a thread's ops lie in the file follows from the number of threads and from the ops of the threads before it, and what
//! their slots are from the pools of those threads: of the first one all is known from the beginning, unless threads are added
//! or slots shared. Its ops then need no memory in which to wait, which costs more than to draw the simple ones.

use crate::hash::SegmentHash;
use crate::spill::SEGMENT;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are written at once: fewer wait, so that one op at a time is no write of its own.
const CHUNK: usize = 1 << 16;

/// See the module.
pub struct Settled {
    /// Where the ops begin in the file.
    at: u64,
    /// Bytes that are in the file.
    written: u64,
    /// Those that wait, whole ops.
    waiting: Vec<u8>,
    /// Hashes of the segments that are in the file whole, and that of the last one so far.
    hashes: Vec<u64>,
    hash: SegmentHash,
}

impl Settled {
    /// Ops that begin at `at`.
    pub fn new(at: u64) -> Self {
        Self {
            at,
            written: 0,
            waiting: Vec::new(),
            hashes: Vec::new(),
            hash: SegmentHash::new(),
        }
    }

    /// Bytes of ops so far.
    pub fn length(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// Appends whole ops.
    pub fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.waiting.len() + bytes.len() < CHUNK {
            self.waiting.extend_from_slice(bytes);
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        self.write(file, &waiting)?;
        waiting.clear();
        self.waiting = waiting;
        self.write(file, bytes)
    }

    /// Writes what waits; returns the hashes of all segments, the last of which may be short.
    pub fn finish(&mut self, file: &File) -> io::Result<&[u64]> {
        let waiting = std::mem::take(&mut self.waiting);
        self.write(file, &waiting)?;
        if !self.written.is_multiple_of(SEGMENT as u64) {
            self.hashes.push(self.hash.value());
        }
        Ok(&self.hashes)
    }

    fn write(&mut self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, self.at + self.written)?;
        while !bytes.is_empty() {
            let rest = SEGMENT - self.written as usize % SEGMENT;
            let (now, later) = bytes.split_at(bytes.len().min(rest));
            self.hash.ops(now);
            self.written += now.len() as u64;
            if now.len() == rest {
                self.hashes.push(self.hash.value());
                self.hash = SegmentHash::new();
            }
            bytes = later;
        }
        Ok(())
    }
}
