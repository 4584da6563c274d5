//! How much memory an allocator needs that never gives a class of sizes what it took for another: the sum of the most bytes written
//! that are alive of each class at once. Beside the largest sum of bytes alive it says how far live sets of different sizes have their
//! peaks at different times, which is where fragmentation comes from. Large blocks are one class: allocators give them whole pages,
//! which serve any other large block, or the system, after them.

use super::extent::Extent;
use heaplab_script::{FLAG_SHARED, Op, OpKind};

/// Classes for each power of two, as size-class allocators have them.
const STEPS: u32 = 2;
/// Blocks of so many bytes are large.
const LARGE: u64 = 256 << 10;

/// Bytes alive by class, and the largest of them.
#[derive(Default)]
pub(super) struct Spread {
    alive: Vec<u64>,
    most: Vec<u64>,
    /// Blocks by thread and private slot, and by shared slot.
    private: Vec<Vec<Extent>>,
    shared: Vec<Extent>,
    /// By thread: how much is written of what its next call allocates.
    reach: Vec<Option<u64>>,
}

fn class_of(size: u64) -> usize {
    let size = size.clamp(8, LARGE);
    let power = size.ilog2();
    ((power << STEPS) as u64 + ((size >> (power - STEPS)) & ((1 << STEPS) - 1))) as usize
}

impl Spread {
    /// A block changes, or comes from or becomes [`Extent::NONE`].
    pub fn change(&mut self, before: Extent, after: Extent) {
        if before.size > 0 {
            let alive = &mut self.alive[class_of(before.size)];
            *alive = alive.saturating_sub(before.written());
        }
        if after.size > 0 {
            let class = class_of(after.size);
            if class >= self.alive.len() {
                self.alive.resize(class + 1, 0);
                self.most.resize(class + 1, 0);
            }
            self.alive[class] += after.written();
            self.most[class] = self.most[class].max(self.alive[class]);
        }
    }

    /// The same by an op of a script; the bytes of its block before and after it.
    pub fn op(&mut self, thread: u32, op: &Op) -> Option<(u64, u64)> {
        let index = thread as usize;
        if index >= self.private.len() {
            self.private.resize(index + 1, Vec::new());
            self.reach.resize(index + 1, None);
        }
        let size = match op.kind {
            kind if kind == OpKind::Written as u8 => {
                self.reach[index] = Some(op.size());
                return None;
            }
            kind if kind == OpKind::Free as u8 => 0,
            kind if kind <= OpKind::Realloc as u8 => op.size(),
            _ => return None,
        };
        let after = Extent::new(size, self.reach[index].take());
        let blocks = match op.flags & FLAG_SHARED != 0 {
            true => &mut self.shared,
            false => &mut self.private[index],
        };
        let slot = op.slot as usize;
        if slot >= blocks.len() {
            blocks.resize(slot + 1, Extent::NONE);
        }
        let before = std::mem::replace(&mut blocks[slot], after);
        self.change(before, after);
        Some((before.size, after.size))
    }

    /// The sum.
    pub fn bytes(&self) -> u64 {
        self.most.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(size: u64) -> Extent {
        Extent::new(size, None)
    }

    #[test]
    fn classes_have_peaks_of_their_own() {
        let mut spread = Spread::default();
        for size in [100, 100, 5000] {
            spread.change(Extent::NONE, whole(size));
        }
        spread.change(whole(100), Extent::NONE);
        spread.change(whole(100), Extent::NONE);
        assert_eq!(spread.bytes(), 5200);
        // Another 5,000 at once with the first are a new peak of their class, two of 100 are none.
        spread.change(Extent::NONE, whole(5000));
        spread.change(Extent::NONE, whole(100));
        assert_eq!(spread.bytes(), 10_200);
        // A block that grows leaves its class.
        spread.change(whole(100), whole(7000));
        assert_eq!(spread.bytes(), 17_200);
    }

    #[test]
    fn large_blocks_come_after_each_other_in_the_same_pages() {
        let mut spread = Spread::default();
        for size in [400_000, 1 << 20, 300_000] {
            spread.change(Extent::NONE, whole(size));
            spread.change(whole(size), Extent::NONE);
        }
        assert_eq!(spread.bytes(), 1 << 20);
    }

    #[test]
    fn what_is_not_written_takes_nothing() {
        let mut spread = Spread::default();
        let op = |kind, size| Op::new(kind, 0, 0, 0, size, 0);
        spread.op(0, &op(OpKind::Written, 1000));
        assert_eq!(
            spread.op(0, &op(OpKind::Malloc, 100_000)),
            Some((0, 100_000))
        );
        assert_eq!(spread.bytes(), 1000);
        // The next one is not that block.
        spread.op(0, &op(OpKind::Free, 100_000));
        spread.op(0, &op(OpKind::Malloc, 100_000));
        assert_eq!(spread.bytes(), 100_000);
    }

    #[test]
    fn ops_of_a_script_count_as_changes_do() {
        let mut spread = Spread::default();
        let op = |kind, flags, slot, size| Op::new(kind, flags, 0, slot, size, 0);
        spread.op(0, &op(OpKind::Malloc, 0, 3, 100));
        spread.op(1, &op(OpKind::Malloc, 0, 3, 100));
        spread.op(1, &op(OpKind::Free, 0, 3, 100));
        spread.op(1, &op(OpKind::Malloc, FLAG_SHARED, 3, 100));
        spread.op(0, &op(OpKind::Free, FLAG_SHARED, 3, 100));
        spread.op(0, &op(OpKind::Realloc, 0, 3, 9000));
        assert_eq!(spread.bytes(), 9200);
    }
}
