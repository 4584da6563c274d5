//! A process that goes through phases: what its heap did about the first one shall not slow down the later ones.

use spanalloc::alloc::{allocate, free};
use spanalloc::size_class::class_of;
use spanalloc::stats::class_stats;

const SHORT: usize = 64;
const BLOCKS: usize = 20_000;

/// Objects of the short class that serve longer blocks, when these are the blocks that are live (or lie in a bin or a transfer cache: a
/// few hundred).
fn joined(sizes: &[usize]) -> usize {
    let short = class_of(SHORT);
    let stats = class_stats(short.expect("small"));
    let live = sizes.iter().filter(|&&size| class_of(size) == short);
    (stats.handed_out - stats.taken_back) as usize - live.count()
}

/// Numbers that look random and are always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// A size evenly spread over the powers of two from 16 bytes to 4 KiB.
    fn size(&mut self) -> usize {
        let least = 16 << self.below(8);
        least + self.below(least)
    }
}

#[test]
fn what_was_joined_while_a_program_grew_is_parted_when_it_has_grown() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    // The last ones to be freed lie in bins, scattered over all of the class's spans.
    let mut short: Vec<*mut u8> = (0..50_000).map(|_| allocate(SHORT)).collect();
    while !short.is_empty() {
        // SAFETY: each is freed once.
        unsafe { free(short.swap_remove(random.below(short.len()))) };
    }
    let mut sizes: Vec<usize> = (0..BLOCKS).map(|_| random.size()).collect();
    let mut blocks: Vec<*mut u8> = sizes.iter().map(|&size| allocate(size)).collect();
    let grown = joined(&sizes);
    for _ in 0..40 * BLOCKS {
        let at = random.below(BLOCKS);
        sizes[at] = random.size();
        // SAFETY: the block is live and is replaced at once.
        unsafe { free(blocks[at]) };
        blocks[at] = allocate(sizes[at]);
    }
    let left = joined(&sizes);
    assert!(grown > 5_000, "{grown}");
    assert!(left < grown / 5, "{left} of {grown}");
}
