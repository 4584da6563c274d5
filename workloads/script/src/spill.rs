//! Streams that are written interleaved and read back in pieces, in memory as long as they fit a budget.
//!
//! Each stream is cut into segments of [`SEGMENT`] bytes. What lies in memory goes to one scratch file whenever all
//! streams together exceed the budget, so a script of any size costs the budget plus 32 bytes for each piece
//! written. Small scripts never touch the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a segment. The checksum is made segment by segment: part of the file format.
pub const SEGMENT: usize = 1 << 20;

/// Bytes that all streams may hold in memory.
const BUDGET: usize = 256 << 20;

enum Chunk {
    Memory(Vec<u8>),
    File { offset: u64, length: usize },
}

#[derive(Default)]
struct Stream {
    /// Closed chunks; none crosses a segment's end.
    chunks: Vec<Chunk>,
    /// Index of the first chunk of each segment.
    segments: Vec<usize>,
    open: Vec<u8>,
    length: u64,
}

/// A set of streams.
pub struct Spill {
    path: PathBuf,
    file: Option<File>,
    end: u64,
    streams: Vec<Stream>,
    /// Bytes in memory.
    held: usize,
    budget: usize,
}

impl Spill {
    /// `path` is that of the scratch file, made only when it is needed.
    pub fn new(path: &Path, streams: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            file: None,
            end: 0,
            streams: (0..streams).map(|_| Stream::default()).collect(),
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

    /// The scratch file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Segments of a stream; the last one may be short.
    pub fn segments(&self, stream: usize) -> usize {
        self.streams[stream].length.div_ceil(SEGMENT as u64) as usize
    }

    /// Appends to a stream.
    #[inline]
    pub fn append(&mut self, stream: usize, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let this = &mut self.streams[stream];
            let within = this.length as usize % SEGMENT;
            if within == 0 {
                this.segments.push(this.chunks.len());
                // What has filled a segment mostly fills the next one: growing it step by step would copy it.
                if this.length > 0 {
                    this.open.reserve_exact(SEGMENT);
                }
            }
            let (now, later) = bytes.split_at(bytes.len().min(SEGMENT - within));
            this.open.extend_from_slice(now);
            this.length += now.len() as u64;
            self.held += now.len();
            if within + now.len() == SEGMENT {
                this.chunks
                    .push(Chunk::Memory(std::mem::take(&mut this.open)));
                if self.held > self.budget {
                    self.flush()?;
                }
            }
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
            self.file = Some(file);
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        for stream in &mut self.streams {
            if !stream.open.is_empty() {
                stream
                    .chunks
                    .push(Chunk::Memory(std::mem::take(&mut stream.open)));
            }
            for chunk in stream.chunks.iter_mut().rev() {
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
        let begin = *this.segments.get(segment)?;
        let last = this.segments.get(segment + 1).copied();
        match this.chunks.get(begin..last.unwrap_or(this.chunks.len()))? {
            [Chunk::Memory(bytes)] if last.is_some() || this.open.is_empty() => Some(bytes),
            [] if last.is_none() => Some(&this.open),
            _ => None,
        }
    }

    /// Puts the bytes of one segment into `out`, in place of what it holds.
    pub fn read(&self, stream: usize, segment: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let this = &self.streams[stream];
        out.clear();
        let last = this.segments.get(segment + 1).copied();
        let chunks = this.segments[segment]..last.unwrap_or(this.chunks.len());
        for chunk in &this.chunks[chunks] {
            match chunk {
                Chunk::Memory(bytes) => out.extend_from_slice(bytes),
                Chunk::File { offset, length } => {
                    let before = out.len();
                    out.resize(before + length, 0);
                    if let Some(file) = &self.file {
                        file.read_exact_at(&mut out[before..], *offset)?;
                    }
                }
            }
        }
        if last.is_none() {
            out.extend_from_slice(&this.open);
        }
        Ok(())
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
        assert!(spill.end > 0, "the budget was never exceeded");
        assert!(views > 0, "nothing lay in memory at the end");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
