//! Numbers without a pattern, the same each time: xorshift64* (Vigna 2016, doi.org/10.1145/2845077).

/// The state, which is not 0.
pub struct Random(pub u64);

impl Random {
    /// 53 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
