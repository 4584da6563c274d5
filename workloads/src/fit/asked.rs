//! What is asked of an allocator that decides about its time: the functions that are called, and how often a thread's cache of a class
//! of sizes is empty or full.

use heaplab_script::OpKind;

/// Blocks that a cache holds; half of them are fetched or given away at once.
const CAPACITY: u32 = 7;
/// What calls of another function cost beside a miss, about.
const KINDS: f64 = 0.25;

/// What threads asked.
#[derive(Default)]
pub(super) struct Asked {
    calls: u64,
    /// By [`OpKind`], the calls of the malloc family.
    kinds: [u64; OpKind::Free as usize + 1],
    misses: u64,
    /// Blocks in each cache, by thread and class.
    caches: Vec<Vec<u32>>,
}

/// Four classes for each power of two.
fn class_of(size: u64) -> usize {
    let size = size.max(16);
    let power = size.ilog2();
    ((power << 2) as u64 + ((size >> (power - 2)) & 3)) as usize
}

impl Asked {
    /// A thread's call, after which a block of `from` bytes (0: none) has `to` bytes (0: it is gone).
    pub fn take(&mut self, thread: u32, kind: OpKind, from: u64, to: u64) {
        self.calls += 1;
        if let Some(count) = self.kinds.get_mut(kind as usize) {
            *count += 1;
        }
        if from > 0 && to > 0 && class_of(from) == class_of(to) {
            // It stays where it is.
            return;
        }
        if from > 0 {
            let kept = self.cache(thread, from);
            *kept += 1;
            if *kept > CAPACITY {
                *kept -= CAPACITY / 2;
                self.misses += 1;
            }
        }
        if to > 0 {
            let kept = self.cache(thread, to);
            let empty = *kept == 0;
            if empty {
                *kept = CAPACITY / 2;
            }
            *kept -= 1;
            self.misses += u64::from(empty);
        }
    }

    fn cache(&mut self, thread: u32, size: u64) -> &mut u32 {
        let (thread, class) = (thread as usize, class_of(size));
        if thread >= self.caches.len() {
            self.caches.resize(thread + 1, Vec::new());
        }
        let caches = &mut self.caches[thread];
        if class >= caches.len() {
            caches.resize(class + 1, 0);
        }
        &mut caches[class]
    }

    /// How far another is from this one, in misses for each call.
    pub fn apart(&self, other: &Self) -> f64 {
        let share = |of: &Self, count: u64| count as f64 / of.calls.max(1) as f64;
        let apart = |mine: u64, theirs: u64| (share(self, mine) - share(other, theirs)).abs();
        let kinds = self.kinds.iter().zip(&other.kinds);
        apart(self.misses, other.misses)
            + KINDS
                * kinds
                    .map(|(mine, theirs)| apart(*mine, *theirs))
                    .sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` blocks are allocated, then freed, ten times.
    fn waves(count: u32, by: OpKind) -> Asked {
        let mut asked = Asked::default();
        for _ in 0..10 {
            (0..count).for_each(|_| asked.take(0, by, 0, 100));
            (0..count).for_each(|_| asked.take(0, OpKind::Free, 100, 0));
        }
        asked
    }

    #[test]
    fn waves_that_a_cache_holds_do_not_miss_it() {
        assert_eq!(waves(3, OpKind::Malloc).misses, 1);
        assert!(waves(30, OpKind::Malloc).misses > 10 * 2 * 8);
    }

    #[test]
    fn what_is_apart_is_told() {
        let small = waves(3, OpKind::Malloc);
        assert!(small.apart(&waves(3, OpKind::Malloc)) < 1e-9);
        assert!(small.apart(&waves(30, OpKind::Malloc)) > 0.2);
        // Half of the calls are others.
        let cleared = small.apart(&waves(3, OpKind::Calloc));
        assert!((cleared - KINDS).abs() < 1e-9, "{cleared}");
    }

    #[test]
    fn a_block_that_grows_within_its_class_stays() {
        let mut asked = Asked::default();
        asked.take(0, OpKind::Malloc, 0, 100);
        asked.take(0, OpKind::Realloc, 100, 101);
        assert_eq!(asked.misses, 1);
        asked.take(0, OpKind::Realloc, 101, 5000);
        assert_eq!(asked.misses, 2);
    }
}
