//! The bytes of the header and the thread table: the only place that knows offsets inside them.

use crate::file::ScriptInfo;
use crate::hash::WordHash;

/// First bytes of every script.
pub const MAGIC: [u8; 8] = *b"HLSCRIPT";
/// Version of the layout and of the meaning of ops.
pub const VERSION: u32 = 3;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 192;
/// Bytes of one entry of the thread table.
pub const THREAD_BYTES: usize = 24;
/// Op arrays and the order start at multiples of this.
pub const ALIGN: u64 = 64;
/// `started_by` of a thread that exists from the beginning.
pub const AT_START: u32 = u32::MAX;
/// More threads than any machine starts: a bound for hostile headers.
pub const MAX_THREADS: u32 = 1 << 20;

/// The header as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub threads: u32,
    pub thread_table: u64,
    pub order: u64,
    pub runs: u64,
    pub phases: u64,
    pub phase_bytes: u64,
    /// Start of the times, 0 = there are none: one u64 for each op, thread after thread.
    pub times: u64,
    pub file_length: u64,
    /// Hash of what the checksum leaves out: the thread table, the names of phases, the times.
    pub rest_checksum: u64,
    pub info: ScriptInfo,
}

/// One thread of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadEntry {
    pub ops: u64,
    pub count: u64,
    pub started_by: u32,
    /// The thread is still there when everything is over, instead of ending with its last op.
    pub stays: bool,
}

const HASHED: usize = HEADER_BYTES - 8;

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let info = &self.info;
        bytes[..8].copy_from_slice(&MAGIC);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            pair(VERSION, self.threads),
            self.thread_table,
            self.order,
            self.runs,
            self.phases,
            self.phase_bytes,
            self.file_length,
            info.calls,
            info.allocations,
            info.frees,
            info.reallocs,
            pair(info.private_slots, info.shared_slots),
            info.peak_live_bytes,
            info.peak_live_blocks,
            info.idle_ns,
            info.idle_dropped_ns,
            info.checksum,
            self.times,
            self.rest_checksum,
        ];
        for (index, word) in words.into_iter().enumerate() {
            bytes[8 + 8 * index..16 + 8 * index].copy_from_slice(&word.to_le_bytes());
        }
        let mut hash = WordHash::new();
        hash.bytes(&bytes[..HASHED]);
        bytes[HASHED..].copy_from_slice(&hash.value().to_le_bytes());
        bytes
    }

    /// Reads a header; the error says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("{} bytes are too few for the header", bytes.len()));
        }
        if bytes[..8] != MAGIC {
            return Err("it does not begin with HLSCRIPT".into());
        }
        let word = |index: usize| read_u64(bytes, 8 + 8 * index);
        let low = |index: usize| word(index) as u32;
        let high = |index: usize| (word(index) >> 32) as u32;
        if low(0) != VERSION {
            return Err(format!(
                "its version is {}, this program reads version {VERSION}",
                low(0)
            ));
        }
        let mut hash = WordHash::new();
        hash.bytes(&bytes[..HASHED]);
        if read_u64(bytes, HASHED) != hash.value() {
            return Err("the checksum of its header does not match".into());
        }
        Ok(Self {
            threads: high(0),
            thread_table: word(1),
            order: word(2),
            runs: word(3),
            phases: word(4),
            phase_bytes: word(5),
            file_length: word(6),
            times: word(17),
            rest_checksum: word(18),
            info: ScriptInfo {
                calls: word(7),
                allocations: word(8),
                frees: word(9),
                reallocs: word(10),
                private_slots: low(11),
                shared_slots: high(11),
                peak_live_bytes: word(12),
                peak_live_blocks: word(13),
                idle_ns: word(14),
                idle_dropped_ns: word(15),
                checksum: word(16),
            },
        })
    }
}

impl ThreadEntry {
    pub fn encode(&self) -> [u8; THREAD_BYTES] {
        let mut bytes = [0u8; THREAD_BYTES];
        bytes[..8].copy_from_slice(&self.ops.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.started_by.to_le_bytes());
        bytes[20] = u8::from(self.stays);
        bytes
    }

    /// `bytes` has at least [`THREAD_BYTES`].
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            ops: read_u64(bytes, 0),
            count: read_u64(bytes, 8),
            started_by: read_u64(bytes, 16) as u32,
            stays: read_u64(bytes, 16) >> 32 & 1 != 0,
        }
    }
}

/// Rounds up to the next multiple of [`ALIGN`].
pub fn align_up(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGN)
}

/// The 64-bit number at `at`; the caller has checked the length.
pub fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
