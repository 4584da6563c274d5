//! Streams that are written interleaved and read back one after the other, without holding them in memory.
//!
//! Each stream gathers a piece in memory; a full piece goes to the end of one scratch file and is remembered by
//! its place. A script of any size costs one piece per stream plus 16 bytes per piece written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a piece: large enough that reading back is sequential in effect.
const PIECE: usize = 256 * 1024;

#[derive(Default)]
struct Stream {
    pending: Vec<u8>,
    pieces: Vec<(u64, usize)>,
    length: u64,
}

/// A set of streams over one scratch file.
pub struct Spill {
    file: File,
    end: u64,
    streams: Vec<Stream>,
    piece: usize,
}

impl Spill {
    /// `file` is an empty scratch file, open for reading and writing.
    pub fn new(file: File, streams: usize) -> Self {
        // Many threads share a fixed sum of buffers, so that a thousand threads do not cost 256 MiB.
        let piece = (64 * 1024 * 1024 / streams.max(1)).clamp(4096, PIECE);
        let streams = (0..streams).map(|_| Stream::default()).collect();
        Self {
            file,
            end: 0,
            streams,
            piece,
        }
    }

    /// Bytes of a stream so far.
    pub fn length(&self, stream: usize) -> u64 {
        self.streams[stream].length
    }

    /// Appends to a stream.
    #[inline]
    pub fn append(&mut self, stream: usize, bytes: &[u8]) -> io::Result<()> {
        let this = &mut self.streams[stream];
        this.pending.extend_from_slice(bytes);
        this.length += bytes.len() as u64;
        if this.pending.len() >= self.piece {
            self.flush(stream)?;
        }
        Ok(())
    }

    #[cold]
    fn flush(&mut self, stream: usize) -> io::Result<()> {
        let this = &mut self.streams[stream];
        self.file.write_all_at(&this.pending, self.end)?;
        this.pieces.push((self.end, this.pending.len()));
        self.end += this.pending.len() as u64;
        this.pending.clear();
        Ok(())
    }

    /// Hands the bytes of one stream, in order, to `take`. Each piece is a whole number of appended records.
    pub fn replay(
        &self,
        stream: usize,
        mut take: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let this = &self.streams[stream];
        let mut buffer = Vec::new();
        for &(offset, length) in &this.pieces {
            buffer.resize(length, 0);
            self.file.read_exact_at(&mut buffer, offset)?;
            take(&mut buffer)?;
        }
        if !this.pending.is_empty() {
            buffer.clear();
            buffer.extend_from_slice(&this.pending);
            take(&mut buffer)?;
        }
        Ok(())
    }
}
