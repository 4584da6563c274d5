//! A chunk: the envelope of everything in a trace file.
//!
//! Chunk header, 32 bytes: magic `HLck`, kind (u16), flags (u16; bit 0: body is zstd), bytes of meta (u32), stored
//! bytes of body (u32), bytes of body before compression (u32), 4 reserved bytes, XXH64 of the first 24 header bytes +
//! meta + stored body (u64). Then meta, never compressed, and body. All numbers little endian.

use super::xxh64::xxh64;

pub(super) const CHUNK_MAGIC: u32 = u32::from_le_bytes(*b"HLck");
/// Bytes of a chunk header.
pub const CHUNK_HEADER: usize = 32;
/// Bytes of it that are hashed.
pub(super) const HASHED: usize = 24;
/// Flag: the body is compressed.
pub(super) const ZSTD: u16 = 1;
/// Bound of meta and of body, stored or not: what a hostile file can make a reader allocate.
pub const MAX_PART: u32 = 32 << 20;

/// What a chunk holds. The numbers are the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkKind(pub u16);

impl ChunkKind {
    pub const HEADER: Self = Self(1);
    pub const ARGV: Self = Self(2);
    pub const NAME: Self = Self(3);
    pub const MARK: Self = Self(4);
    pub const NOTE: Self = Self(5);
    pub const FINISH: Self = Self(6);
    pub const PROCESS: Self = Self(7);
    pub const FORK: Self = Self(8);
    pub const RAW_THREAD_START: Self = Self(16);
    pub const RAW_THREAD_END: Self = Self(17);
    /// Events of raw files that older versions wrote.
    pub const RAW_EVENTS_1: Self = Self(18);
    pub const RAW_PROCESS_END: Self = Self(19);
    pub const RAW_EVENTS: Self = Self(20);
    pub const RAW_STACK_MODE: Self = Self(24);
    pub const RAW_MODULE: Self = Self(25);
    pub const RAW_STACKS: Self = Self(26);
    pub const RAW_EVENT_STACKS: Self = Self(27);
    pub const SEGMENT: Self = Self(33);
    /// Events with whole varints: files of version 1.
    pub const EVENTS_1: Self = Self(34);
    pub const INDEX: Self = Self(35);
    pub const EVENT_STACKS: Self = Self(48);
    pub const MODULES: Self = Self(49);
    pub const FRAMES: Self = Self(50);
    pub const STACKS: Self = Self(51);
    pub const SYMBOLS: Self = Self(52);
    pub const CHECKPOINT: Self = Self(36);
    pub const EVENTS: Self = Self(37);
}

impl ChunkKind {
    /// Holds events of the final form.
    pub fn is_events(self) -> bool {
        matches!(self, Self::EVENTS | Self::EVENTS_1)
    }
}

/// The hash over a whole chunk in one buffer: header without the hash, then all that follows it.
pub(super) fn chunk_hash(chunk: &[u8]) -> u64 {
    xxh64(&chunk[..HASHED]) ^ xxh64(&chunk[CHUNK_HEADER..]).rotate_left(1)
}
