//! How much memory an allocator needs that never gives a class of sizes what it took for another: the sum of the largest bytes
//! alive of each class. Beside the largest sum of bytes alive it says how far live sets of different sizes have their peaks
//! at different times, which is where fragmentation comes from.

use heaplab_script::{FLAG_SHARED, Op, OpKind};

/// Classes for each power of two, as size-class allocators have them.
const STEPS: u32 = 2;

/// Bytes alive by class, and the largest of them.
#[derive(Default)]
pub(super) struct Spread {
    alive: Vec<u64>,
    most: Vec<u64>,
    /// Sizes by thread and private slot, and by shared slot.
    private: Vec<Vec<u64>>,
    shared: Vec<u64>,
}

fn class_of(size: u64) -> usize {
    let size = size.max(8);
    let power = size.ilog2();
    ((power << STEPS) as u64 + ((size >> (power - STEPS)) & ((1 << STEPS) - 1))) as usize
}

impl Spread {
    /// A block of `from` bytes (0: none) has `to` bytes (0: it is gone).
    pub fn change(&mut self, from: u64, to: u64) {
        if from > 0 {
            let alive = &mut self.alive[class_of(from)];
            *alive = alive.saturating_sub(from);
        }
        if to > 0 {
            let class = class_of(to);
            if class >= self.alive.len() {
                self.alive.resize(class + 1, 0);
                self.most.resize(class + 1, 0);
            }
            self.alive[class] += to;
            self.most[class] = self.most[class].max(self.alive[class]);
        }
    }

    /// The same by an op of a script; the bytes before and after it.
    pub fn op(&mut self, thread: u32, op: &Op) -> Option<(u64, u64)> {
        let to = match op.kind {
            kind if kind == OpKind::Free as u8 => 0,
            kind if kind <= OpKind::Realloc as u8 => op.size(),
            _ => return None,
        };
        let sizes = match op.flags & FLAG_SHARED != 0 {
            true => &mut self.shared,
            false => {
                let index = thread as usize;
                if index >= self.private.len() {
                    self.private.resize(index + 1, Vec::new());
                }
                &mut self.private[index]
            }
        };
        let slot = op.slot as usize;
        if slot >= sizes.len() {
            sizes.resize(slot + 1, 0);
        }
        let from = std::mem::replace(&mut sizes[slot], to);
        self.change(from, to);
        Some((from, to))
    }

    /// The sum.
    pub fn bytes(&self) -> u64 {
        self.most.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_peaks_of_their_own() {
        let mut spread = Spread::default();
        for size in [100, 100, 5000] {
            spread.change(0, size);
        }
        spread.change(100, 0);
        spread.change(100, 0);
        assert_eq!(spread.bytes(), 5200);
        // Another 5,000 at once with the first are a new peak of their class, two of 100 are none.
        spread.change(0, 5000);
        spread.change(0, 100);
        assert_eq!(spread.bytes(), 10_200);
        // A block that grows leaves its class.
        spread.change(100, 7000);
        assert_eq!(spread.bytes(), 17_200);
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
