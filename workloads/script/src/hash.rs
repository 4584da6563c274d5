//! The script's checksum: FNV-1a's step over 64-bit words, with a fold so that high bits reach low ones.
//!
//! Not cryptographic: it tells whether two scripts are the same, and whether a file was damaged.

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
