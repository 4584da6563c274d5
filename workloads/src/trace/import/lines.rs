//! Lines of a text file, compressed or not, of bounded length. Pipes may be read, devices that never end may not.

use crate::trace::error::TraceError;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a line at most; what is longer in the formats is text that nobody needs, and hostile files.
const LONGEST: u64 = 1 << 16;
/// Bytes after which a line is no line any more but something else than text: command lines have 2 MiB at most.
const NO_LINE: u64 = 16 << 20;

/// Counts the bytes of the file that were read, for progress.
struct Counting {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(into)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Reads line by line.
pub(super) struct Lines {
    path: PathBuf,
    from: Box<dyn BufRead>,
    read: Arc<AtomicU64>,
    length: u64,
    buffer: Vec<u8>,
    line: String,
    number: u64,
    peeked: bool,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let failed = |error| TraceError::io("open", path, error);
        let about = fs::metadata(path).map_err(failed)?;
        if !about.is_file() && !about.file_type().is_fifo() {
            return Err(TraceError::Usage(format!(
                "'{}' cannot be imported: {}",
                path.display(),
                heaplab_bounded::other_than_a_file(about.file_type())
            )));
        }
        let file = File::open(path).map_err(failed)?;
        let length = about.len();
        let read = Arc::new(AtomicU64::new(0));
        let counting = Counting {
            file,
            read: Arc::clone(&read),
        };
        let mut plain = BufReader::with_capacity(1 << 16, counting);
        let magic = plain
            .fill_buf()
            .map_err(|error| TraceError::io("read", path, error))?;
        let from: Box<dyn BufRead> = if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::stream::read::Decoder::with_buffer(plain).map_err(failed)?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        } else if magic.starts_with(&[0x1f, 0x8b]) {
            let decoder = flate2::bufread::MultiGzDecoder::new(plain);
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        } else {
            Box::new(plain)
        };
        Ok(Self {
            path: path.to_path_buf(),
            from,
            read,
            length,
            buffer: Vec::new(),
            line: String::new(),
            number: 0,
            peeked: false,
        })
    }

    /// The next line, which will be read again.
    pub fn peek(&mut self) -> Result<&str, TraceError> {
        if !self.peeked {
            self.fill()?;
            self.peeked = true;
        }
        Ok(&self.line)
    }

    /// The next line without its end; `None` behind the last one.
    pub fn next(&mut self) -> Result<Option<&str>, TraceError> {
        if !std::mem::take(&mut self.peeked) {
            self.fill()?;
        }
        Ok((!self.buffer.is_empty()).then_some(self.line.as_str()))
    }

    fn fill(&mut self) -> Result<(), TraceError> {
        let failed = |error| TraceError::io("read", &self.path, error);
        self.buffer.clear();
        let mut part = (&mut self.from).take(LONGEST);
        part.read_until(b'\n', &mut self.buffer).map_err(failed)?;
        self.number += 1;
        if self.buffer.len() as u64 == LONGEST && !self.buffer.ends_with(b"\n") {
            // The rest of an overlong line is skipped, a piece at a time.
            let mut length = LONGEST;
            loop {
                let rest = self.from.fill_buf().map_err(failed)?;
                let end = rest.iter().position(|&byte| byte == b'\n');
                let skip = end.map_or(rest.len(), |end| end + 1);
                let over = end.is_some() || rest.is_empty();
                self.from.consume(skip);
                if over {
                    break;
                }
                length += skip as u64;
                if length > NO_LINE {
                    let mib = NO_LINE >> 20;
                    return Err(self.wrong(format!("it has more than {mib} MiB, this is no text")));
                }
            }
        }
        self.line.clear();
        let text = String::from_utf8_lossy(&self.buffer);
        self.line.push_str(text.trim_end_matches(['\n', '\r']));
        Ok(())
    }

    /// Bytes of the file that were read, and all.
    pub fn progress(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.length)
    }

    /// What is wrong with the present line.
    pub fn wrong(&self, reason: impl std::fmt::Display) -> TraceError {
        TraceError::Usage(format!(
            "'{}' cannot be imported: line {}: {reason}",
            self.path.display(),
            self.number
        ))
    }
}
