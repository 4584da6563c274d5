//! Live bytes and blocks along a run of ops, and along the whole order.

/// How a run of ops changes what is alive, and how far up it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    bytes: i64,
    most_bytes: i64,
    blocks: i64,
    most_blocks: i64,
}

impl Tally {
    /// A block of so many bytes is born.
    #[inline(always)]
    pub fn up(&mut self, bytes: u32) {
        self.add(i64::from(bytes), 1);
    }

    /// A block of so many bytes dies: no level can be the highest.
    #[inline(always)]
    pub fn down(&mut self, bytes: u32) {
        self.bytes -= i64::from(bytes);
        self.blocks -= 1;
    }

    /// One op adds bytes and blocks, or takes them away.
    #[inline(always)]
    pub fn add(&mut self, bytes: i64, blocks: i64) {
        self.bytes += bytes;
        self.most_bytes = self.most_bytes.max(self.bytes);
        self.blocks += blocks;
        self.most_blocks = self.most_blocks.max(self.blocks);
    }
}

/// What is alive now, and the peaks so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Level {
    bytes: i64,
    blocks: i64,
    pub peak_bytes: u64,
    pub peak_blocks: u64,
}

impl Level {
    /// Follows a run.
    pub fn follow(&mut self, run: &Tally) {
        self.peak_bytes = self.peak_bytes.max((self.bytes + run.most_bytes) as u64);
        self.peak_blocks = self.peak_blocks.max((self.blocks + run.most_blocks) as u64);
        self.bytes += run.bytes;
        self.blocks += run.blocks;
    }
}
