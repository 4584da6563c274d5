//! Streams that are written interleaved and read back in pieces, in memory as long as they fit a budget.
//!
//! Each stream is cut into segments of [`SEGMENT`] bytes. What lies in memory goes to one scratch file whenever all
//! streams together exceed the budget, so a script of any size costs the budget plus 40 bytes for each piece
//! written. Small scripts never touch the file.

use crate::buffer::{Buffer, Slab};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a segment. The checksum is made segment by segment: part of the file format.
pub const SEGMENT: usize = 1 << 20;

/// Bytes that all streams may hold in memory.
const BUDGET: usize = 256 << 20;

/// Smallest and largest capacity of a chunk. What a stream has so far mostly comes once more, so chunks double.
const LEAST_CHUNK: usize = 64;
const MOST_CHUNK: usize = 4 << 20;

/// A piece of a stream.
enum Chunk {
    Memory(Buffer),
    File {
        offset: u64,
        length: usize,
    },
    /// Nobody asks for it again.
    Gone {
        length: usize,
    },
}

impl Chunk {
    fn length(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File { length, .. } | Self::Gone { length } => *length,
        }
    }
}

#[derive(Default)]
struct Stream {
    /// Closed chunks, each with its place in the stream.
    chunks: Vec<(u64, Chunk)>,
    open: Buffer,
    length: u64,
}

impl Stream {
    /// The open chunk is closed and a new one begins.
    fn close(&mut self) {
        if !self.open.is_empty() {
            let at = self.length - self.open.len() as u64;
            self.chunks
                .push((at, Chunk::Memory(std::mem::take(&mut self.open))));
        }
    }

    /// The chunks from the one that holds the byte at `at` on.
    fn from(&self, at: u64) -> &[(u64, Chunk)] {
        let after = self.chunks.partition_point(|(begin, _)| *begin <= at);
        &self.chunks[after.saturating_sub(1)..]
    }
}

/// A set of streams.
pub struct Spill {
    path: PathBuf,
    file: Option<File>,
    end: u64,
    streams: Vec<Stream>,
    /// First chunks of streams.
    firsts: Slab,
    /// Bytes in memory.
    held: usize,
    budget: usize,
}

impl Spill {
    /// `path` is that of the scratch file, made only when it is needed and without a name at once.
    pub fn new(path: &Path, streams: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            file: None,
            end: 0,
            streams: (0..streams).map(|_| Stream::default()).collect(),
            firsts: Slab::default(),
            held: 0,
            budget: BUDGET,
        }
    }

    /// Bytes that may lie in memory from now on.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// One more stream.
    pub fn add(&mut self) {
        self.streams.push(Stream::default());
    }

    /// Bytes of a stream so far.
    pub fn length(&self, stream: usize) -> u64 {
        self.streams[stream].length
    }

    /// Bytes of the first `streams` streams so far.
    pub fn total(&self, streams: usize) -> u64 {
        self.streams[..streams].iter().map(|s| s.length).sum()
    }

    /// Segments of a stream; the last one may be short.
    pub fn segments(&self, stream: usize) -> usize {
        self.streams[stream].length.div_ceil(SEGMENT as u64) as usize
    }

    /// Appends to a stream.
    #[inline]
    pub fn append(&mut self, stream: usize, bytes: &[u8]) -> io::Result<()> {
        let this = &mut self.streams[stream];
        if this.open.room() < bytes.len() {
            return self.append_more(stream, bytes);
        }
        this.open.extend(bytes);
        this.length += bytes.len() as u64;
        self.held += bytes.len();
        Ok(())
    }

    /// Appends where the open chunk has no room.
    #[cold]
    fn append_more(&mut self, stream: usize, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let this = &mut self.streams[stream];
            if this.open.room() == 0 {
                this.close();
                if self.held > self.budget {
                    self.flush()?;
                }
                let this = &mut self.streams[stream];
                this.open = match this.length {
                    0 => self.firsts.cut(LEAST_CHUNK),
                    length => {
                        let wanted = (length as usize).clamp(LEAST_CHUNK, MOST_CHUNK);
                        Buffer::with_capacity(wanted.next_power_of_two())
                    }
                };
            }
            let this = &mut self.streams[stream];
            let room = this.open.room();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            this.open.extend(now);
            this.length += now.len() as u64;
            self.held += now.len();
            bytes = later;
        }
        Ok(())
    }

    /// All that lies in memory goes to the file.
    #[cold]
    fn flush(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&self.path)?;
            // It stays as long as it is open: nothing is left of it however the process ends.
            std::fs::remove_file(&self.path)?;
            self.file = Some(file);
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        for stream in &mut self.streams {
            stream.close();
            for (_, chunk) in stream.chunks.iter_mut().rev() {
                let Chunk::Memory(bytes) = chunk else {
                    // Older ones are in the file already.
                    break;
                };
                file.write_all_at(bytes, self.end)?;
                let length = bytes.len();
                *chunk = Chunk::File {
                    offset: self.end,
                    length,
                };
                self.end += length as u64;
            }
        }
        self.held = 0;
        Ok(())
    }

    /// The bytes of one segment where they lie in memory in one piece.
    pub fn view(&self, stream: usize, segment: usize) -> Option<&[u8]> {
        let this = &self.streams[stream];
        let (begin, end) = self.bounds(stream, segment);
        let closed = this.length - this.open.len() as u64;
        let (at, bytes) = match this.from(begin).first() {
            Some((at, Chunk::Memory(bytes))) if begin < closed => (*at, bytes),
            _ if begin >= closed => (closed, &this.open),
            _ => return None,
        };
        bytes.get((begin - at) as usize..(end - at) as usize)
    }

    /// Puts the bytes of one segment into `out`, in place of what it holds.
    pub fn read(&self, stream: usize, segment: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let this = &self.streams[stream];
        let (begin, end) = self.bounds(stream, segment);
        out.clear();
        for (at, chunk) in this.from(begin) {
            let low = begin.max(*at) - at;
            let high = end.min(at + chunk.length() as u64).saturating_sub(*at);
            if low >= high {
                break;
            }
            match chunk {
                Chunk::Memory(bytes) => out.extend_from_slice(&bytes[low as usize..high as usize]),
                Chunk::Gone { .. } => {
                    return Err(io::Error::other(
                        "a segment was asked for after it was forgotten",
                    ));
                }
                Chunk::File { offset, .. } => {
                    let before = out.len();
                    out.resize(before + (high - low) as usize, 0);
                    if let Some(file) = &self.file {
                        file.read_exact_at(&mut out[before..], offset + low)?;
                    }
                }
            }
        }
        let closed = this.length - this.open.len() as u64;
        if end > closed {
            let low = begin.max(closed) - closed;
            out.extend_from_slice(&this.open[low as usize..(end - closed) as usize]);
        }
        Ok(())
    }

    /// Nobody asks again for this segment and those before it: memory that holds nothing else is given back.
    pub fn forget(&mut self, stream: usize, segment: usize) {
        let (_, end) = self.bounds(stream, segment);
        let this = &mut self.streams[stream];
        let after = this.chunks.partition_point(|(begin, _)| *begin < end);
        for (begin, chunk) in this.chunks[..after].iter_mut().rev() {
            let length = chunk.length();
            match chunk {
                Chunk::Memory(_) if *begin + length as u64 <= end => {
                    *chunk = Chunk::Gone { length }
                }
                // It holds the beginning of the next segment.
                Chunk::Memory(_) => {}
                Chunk::File { .. } | Chunk::Gone { .. } => break,
            }
        }
    }

    /// Where a segment lies in its stream.
    fn bounds(&self, stream: usize, segment: usize) -> (u64, u64) {
        let begin = (segment * SEGMENT) as u64;
        let length = self.streams[stream].length;
        (begin, length.min(begin + SEGMENT as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three streams of several segments under a budget that is exceeded again and again.
    #[test]
    fn what_was_written_comes_back() {
        let folder = std::env::temp_dir().join(format!("heaplab-spill-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut spill = Spill::new(&folder.join("scratch"), 2);
        spill.add();
        spill.set_budget(SEGMENT / 2);
        let mut wanted = vec![Vec::new(); 3];
        for step in 0..40_000usize {
            let bytes: Vec<u8> = (0..16 + step % 200)
                .map(|index| (index * step) as u8)
                .collect();
            let stream = step % 7 % 3;
            spill.append(stream, &bytes).unwrap();
            wanted[stream].extend(bytes);
        }
        let (mut segment, mut views) = (Vec::new(), 0);
        for (stream, wanted) in wanted.iter().enumerate() {
            assert_eq!(spill.length(stream), wanted.len() as u64);
            let mut all = Vec::new();
            for number in 0..spill.segments(stream) {
                spill.read(stream, number, &mut segment).unwrap();
                if let Some(seen) = spill.view(stream, number) {
                    assert!(seen == segment, "stream {stream}, segment {number}");
                    views += 1;
                }
                all.extend_from_slice(&segment);
            }
            assert!(all == *wanted, "stream {stream}");
        }
        for (stream, wanted) in wanted.iter().enumerate() {
            let last = spill.segments(stream) - 1;
            spill.forget(stream, last - 1);
            spill.read(stream, last, &mut segment).unwrap();
            assert!(wanted.ends_with(&segment), "stream {stream}");
        }
        assert!(spill.end > 0, "the budget was never exceeded");
        assert!(views > 0, "nothing lay in memory at the end");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
