//! The script's checksum: FNV-1a's step over 64-bit words, with a fold so that high bits reach low ones.
//!
//! A script is hashed in segments of 1 MiB, each alone; the checksum is the hash of their hashes, in file order.
//! Not cryptographic: it tells whether two scripts are the same, and whether a file was damaged.

use crate::layout::read_u64;

/// Running hash; feed words in file order.
#[derive(Clone, Copy, Debug)]
pub struct WordHash(u64);

impl WordHash {
    /// The empty hash.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes one word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// Takes bytes, eight at a time, the last group filled with zeros; the length is part of the hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    /// The value so far.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Hash of one segment of a script: two lanes, so that one multiplication need not wait for the other.
#[derive(Clone, Copy, Debug)]
pub struct SegmentHash {
    even: WordHash,
    odd: WordHash,
}

impl SegmentHash {
    /// The empty hash.
    pub const fn new() -> Self {
        Self {
            even: WordHash::new(),
            odd: WordHash(0x6c62_272e_07bb_0142),
        }
    }

    /// Takes two words.
    #[inline(always)]
    pub fn pair(&mut self, even: u64, odd: u64) {
        self.even.word(even);
        self.odd.word(odd);
    }

    /// Takes ops as they lie in the file.
    pub fn ops(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(16) {
            self.pair(read_u64(pair, 0), read_u64(pair, 8));
        }
    }

    /// The value so far.
    pub fn value(self) -> u64 {
        let mut both = self.even;
        both.word(self.odd.value());
        both.value()
    }

    /// The hash of a whole segment: words in pairs, an odd last one with 0.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        let mut pairs = bytes.chunks_exact(16);
        for pair in &mut pairs {
            hash.pair(read_u64(pair, 0), read_u64(pair, 8));
        }
        let rest = pairs.remainder();
        if rest.len() >= 8 {
            hash.pair(read_u64(rest, 0), 0);
        }
        hash.value()
    }
}
