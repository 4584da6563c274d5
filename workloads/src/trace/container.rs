//! A trace file: chunks one behind the other, written, found and checked. Knows nothing of their contents.
//!
//! File header, 16 bytes: magic `HLTRACE\n`, major version (u16), minor version (u16), 4 reserved bytes.
//! Behind it come chunks ([`super::chunk`]).

use super::chunk::{CHUNK_MAGIC, HASHED, ZSTD, chunk_hash};
use super::encoder::Encoder;
use super::error::TraceError;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use super::chunk::{CHUNK_HEADER, ChunkKind, MAX_PART};

/// First bytes of every trace.
pub const MAGIC: [u8; 8] = *b"HLTRACE\n";
/// Readers refuse a larger major version.
pub const MAJOR: u16 = 2;
/// Counts additions that old readers may ignore.
pub const MINOR: u16 = 1;
/// Bytes of the file header.
pub const FILE_HEADER: u64 = 16;
/// Writes chunks one behind the other; each reaches the file in one call, so that a cut file ends in one bad chunk.
pub struct ChunkWriter {
    path: PathBuf,
    file: File,
    offset: u64,
    encoder: Encoder,
    buffer: Vec<u8>,
}

impl ChunkWriter {
    /// Starts a file, replacing what was there. `level` is zstd's (1 fast … 19 small).
    pub fn create(path: &Path, level: i32) -> Result<Self, TraceError> {
        let mut file = File::create(path).map_err(|error| TraceError::io("create", path, error))?;
        let mut header = Vec::with_capacity(FILE_HEADER as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&MAJOR.to_le_bytes());
        header.extend_from_slice(&MINOR.to_le_bytes());
        header.resize(FILE_HEADER as usize, 0);
        if let Err(error) = file.write_all(&header) {
            // A full disk: nobody else knows of the file yet.
            let _ = std::fs::remove_file(path);
            return Err(TraceError::io("write", path, error));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            offset: FILE_HEADER,
            encoder: Encoder::new(level),
            buffer: Vec::new(),
        })
    }

    /// Goes on writing a file of chunks at `offset`; what was behind it is gone.
    pub fn resume(path: &Path, offset: u64, level: i32) -> Result<Self, TraceError> {
        use std::io::Seek;
        let open = || {
            let mut file = File::options().write(true).open(path)?;
            file.set_len(offset)?;
            file.seek(std::io::SeekFrom::Start(offset))?;
            Ok(file)
        };
        Ok(Self {
            path: path.to_path_buf(),
            file: open().map_err(|error| TraceError::io("write", path, error))?,
            offset,
            encoder: Encoder::new(level),
            buffer: Vec::new(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next chunk begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a chunk; the body is compressed when that makes it smaller. Both parts are at most [`MAX_PART`] bytes.
    pub fn write(&mut self, kind: ChunkKind, meta: &[u8], body: &[u8]) -> Result<(), TraceError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let encoded = self.encoder.put(kind, meta, body, &mut buffer);
        let written = self.append(encoded.map(|()| buffer.as_slice()));
        self.buffer = buffer;
        written
    }

    /// Appends chunks that were encoded elsewhere, or the error of that.
    pub fn append(&mut self, chunks: std::io::Result<&[u8]>) -> Result<(), TraceError> {
        let chunks = chunks.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                TraceError::damaged(&self.path, self.offset, error.to_string())
            }
            _ => TraceError::io("write", &self.path, error),
        })?;
        self.file
            .write_all(chunks)
            .map_err(|error| TraceError::io("write", &self.path, error))?;
        self.offset += chunks.len() as u64;
        Ok(())
    }

    /// Appends bytes that are no chunk (the trailer).
    pub fn trailer(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        self.file
            .write_all(bytes)
            .map_err(|error| TraceError::io("write", &self.path, error))
    }
}

/// A chunk's place and kind, from its header alone (nothing behind it has been checked yet).
#[derive(Clone, Copy, Debug)]
pub struct ChunkPlace {
    pub offset: u64,
    pub kind: ChunkKind,
    flags: u16,
    meta: u32,
    stored: u32,
    raw: u32,
}

impl ChunkPlace {
    /// Bytes of the body in memory at most.
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.raw.max(self.stored))
    }

    /// Where the next chunk begins.
    pub fn end(&self) -> u64 {
        self.offset + CHUNK_HEADER as u64 + u64::from(self.meta) + u64::from(self.stored)
    }
}

/// A checked chunk.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    pub meta: Vec<u8>,
    pub body: Vec<u8>,
}

enum Data {
    File(File),
    Embedded(&'static [u8]),
}

/// Reads chunks at any place of a file, or of a trace that is embedded in the program.
pub struct ChunkReader {
    path: PathBuf,
    data: Data,
    length: u64,
}

impl ChunkReader {
    /// Opens a file and checks magic and version.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        // Before it is opened: opening a pipe would wait for somebody who writes to it.
        let about = std::fs::metadata(path).map_err(|error| TraceError::io("open", path, error))?;
        let not = |reason: String| TraceError::NotATrace {
            path: path.to_path_buf(),
            reason,
        };
        if !about.is_file() {
            return Err(not(heaplab_bounded::other_than_a_file(about.file_type())));
        }
        let file = File::open(path).map_err(|error| TraceError::io("open", path, error))?;
        let length = file
            .metadata()
            .map_err(|error| TraceError::io("read", path, error))?
            .len();
        Self::checked(path, length, Data::File(file))
    }

    /// Reads an embedded trace; `name` stands for its path in errors.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, TraceError> {
        Self::checked(Path::new(name), bytes.len() as u64, Data::Embedded(bytes))
    }

    fn checked(path: &Path, length: u64, data: Data) -> Result<Self, TraceError> {
        let not = |reason: String| TraceError::NotATrace {
            path: path.to_path_buf(),
            reason,
        };
        if length < FILE_HEADER {
            return Err(not(match length {
                0 => "it is empty".into(),
                1 => "it has only 1 byte".into(),
                _ => format!("it has only {length} bytes"),
            }));
        }
        let this = Self {
            path: path.to_path_buf(),
            data,
            length,
        };
        let mut header = [0u8; FILE_HEADER as usize];
        this.bytes_at(0, &mut header)?;
        if header[..8] != MAGIC {
            return Err(not("its first bytes are not HLTRACE".into()));
        }
        let major = u16::from_le_bytes([header[8], header[9]]);
        if major > MAJOR {
            return Err(TraceError::TooNew {
                path: path.to_path_buf(),
                version: major,
                known: MAJOR,
            });
        }
        if major == 0 {
            return Err(not("its format version is 0".into()));
        }
        Ok(this)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads bytes that are no chunk (the trailer).
    pub fn bytes_at(&self, offset: u64, into: &mut [u8]) -> Result<(), TraceError> {
        let outcome = match &self.data {
            Data::File(file) => file.read_exact_at(into, offset),
            Data::Embedded(bytes) => usize::try_from(offset)
                .ok()
                .and_then(|offset| bytes.get(offset..)?.get(..into.len()))
                .map(|part| into.copy_from_slice(part))
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into()),
        };
        outcome.map_err(|error| TraceError::io("read", &self.path, error))
    }

    /// The header of the chunk at `offset`; `None` at the end of the file.
    pub fn place(&self, offset: u64) -> Result<Option<ChunkPlace>, TraceError> {
        let damaged = |reason: &str| TraceError::damaged(&self.path, offset, reason);
        if offset >= self.length {
            return Ok(None);
        }
        if self.length - offset < CHUNK_HEADER as u64 {
            return Err(damaged("the file ends inside a chunk header"));
        }
        let mut head = [0u8; CHUNK_HEADER];
        self.bytes_at(offset, &mut head)?;
        let (u16_at, u32_at) = (
            |at: usize| u16::from_le_bytes([head[at], head[at + 1]]),
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]),
        );
        if u32_at(0) != CHUNK_MAGIC {
            return Err(damaged("no chunk begins here"));
        }
        let place = ChunkPlace {
            offset,
            kind: ChunkKind(u16_at(4)),
            flags: u16_at(6),
            meta: u32_at(8),
            stored: u32_at(12),
            raw: u32_at(16),
        };
        if place.meta > MAX_PART || place.stored > MAX_PART || place.raw > MAX_PART {
            return Err(damaged("a chunk claims more than 32 MiB"));
        }
        if place.end() > self.length {
            return Err(damaged("the file ends inside a chunk"));
        }
        Ok(Some(place))
    }

    /// Only the meta of a chunk, not checked against the hash: to know sizes before anything is decoded.
    pub fn meta(&self, place: &ChunkPlace) -> Result<Vec<u8>, TraceError> {
        // At most MAX_PART bytes, and within the file: `place` has checked both.
        let mut meta = vec![0; place.meta as usize];
        self.bytes_at(place.offset + CHUNK_HEADER as u64, &mut meta)?;
        Ok(meta)
    }

    /// The whole chunk, checked and decompressed.
    pub fn chunk(&self, place: &ChunkPlace) -> Result<Chunk, TraceError> {
        let damaged = |reason: String| TraceError::damaged(&self.path, place.offset, reason);
        let mut bytes = vec![0; (place.end() - place.offset) as usize];
        self.bytes_at(place.offset, &mut bytes)?;
        let mut stored_hash = [0u8; 8];
        stored_hash.copy_from_slice(&bytes[HASHED..CHUNK_HEADER]);
        if chunk_hash(&bytes) != u64::from_le_bytes(stored_hash) {
            return Err(damaged("the checksum of a chunk does not match".into()));
        }
        let body_at = CHUNK_HEADER + place.meta as usize;
        let body = if place.flags & ZSTD != 0 {
            let body = zstd::bulk::decompress(&bytes[body_at..], place.raw as usize)
                .map_err(|error| damaged(format!("a chunk does not decompress: {error}")))?;
            if body.len() != place.raw as usize {
                return Err(damaged("a chunk decompresses to another length".into()));
            }
            body
        } else {
            bytes.split_off(body_at)
        };
        bytes.truncate(body_at);
        bytes.drain(..CHUNK_HEADER);
        Ok(Chunk { meta: bytes, body })
    }
}
