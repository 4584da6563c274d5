//! Live bytes and blocks along a run of ops, and along the whole order.

/// How ops change what is alive, and how far up it went.
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

    /// The ops of another tally come next.
    #[inline]
    pub fn follow(&mut self, run: &Self) {
        self.most_bytes = self.most_bytes.max(self.bytes + run.most_bytes);
        self.most_blocks = self.most_blocks.max(self.blocks + run.most_blocks);
        self.bytes += run.bytes;
        self.blocks += run.blocks;
    }

    /// The largest sum of bytes and the largest number of blocks that were alive, if none was before.
    pub fn peaks(&self) -> (u64, u64) {
        (self.most_bytes as u64, self.most_blocks as u64)
    }
}
