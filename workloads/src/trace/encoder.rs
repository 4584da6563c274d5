//! A chunk's bytes: header, checksum, compression.

use super::chunk::{CHUNK_HEADER, CHUNK_MAGIC, ChunkKind, HASHED, MAX_PART, ZSTD, chunk_hash};
use std::io;

/// Makes chunks, with the memory of one compressor.
pub(super) struct Encoder {
    level: i32,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// `level` is zstd's.
    pub fn new(level: i32) -> Self {
        Self {
            level,
            compressor: None,
        }
    }

    /// Appends a chunk to `into`; the body is compressed when that makes it smaller.
    ///
    /// # Errors
    /// A part of more than [`MAX_PART`] bytes (`InvalidInput`); zstd's own.
    pub fn put(
        &mut self,
        kind: ChunkKind,
        meta: &[u8],
        body: &[u8],
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        for part in [meta, body] {
            if part.len() > MAX_PART as usize {
                let reason = format!("{} bytes are too many for a chunk", part.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
        }
        let begin = into.len();
        into.resize(begin + CHUNK_HEADER, 0);
        into.extend_from_slice(meta);
        let start = into.len();
        let mut flags = 0;
        if body.len() >= 64 {
            let compressor = match &mut self.compressor {
                Some(compressor) => compressor,
                none => none.insert(zstd::bulk::Compressor::new(self.level)?),
            };
            into.resize(start + zstd::zstd_safe::compress_bound(body.len()), 0);
            let stored = compressor.compress_to_buffer(body, &mut into[start..])?;
            into.truncate(start + stored);
            flags = ZSTD;
        }
        if flags == 0 || into.len() - start >= body.len() {
            into.truncate(start);
            into.extend_from_slice(body);
            flags = 0;
        }
        let stored = (into.len() - start) as u32;
        let mut head = Vec::with_capacity(CHUNK_HEADER);
        head.extend_from_slice(&CHUNK_MAGIC.to_le_bytes());
        head.extend_from_slice(&kind.0.to_le_bytes());
        head.extend_from_slice(&flags.to_le_bytes());
        head.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        head.extend_from_slice(&stored.to_le_bytes());
        head.extend_from_slice(&(body.len() as u32).to_le_bytes());
        head.resize(HASHED, 0);
        let chunk = &mut into[begin..];
        chunk[..HASHED].copy_from_slice(&head);
        let hash = chunk_hash(chunk);
        chunk[HASHED..CHUNK_HEADER].copy_from_slice(&hash.to_le_bytes());
        Ok(())
    }
}
