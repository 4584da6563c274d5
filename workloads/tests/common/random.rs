//! Numbers without a pattern, the same each time: Knuth's MMIX generator (The Art of Computer Programming, volume 2, 3.3.4).

/// The state; every seed is as good as another.
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        let mut this = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        this.below(1);
        this
    }

    /// A number below `count`; 0 for none.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) as usize) % count.max(1)
    }
}
