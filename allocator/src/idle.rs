//! What can be given back while the program rests: what its classes hold and do not use.

use crate::heap::Heap;
use crate::os::Os;
use crate::size_class::NUM_CLASSES;
use crate::units::OS_PAGE;

/// What was seen at the last look.
#[derive(Debug)]
pub struct Idle {
    activity: [u64; NUM_CLASSES],
    /// Spans that had been allocated in all.
    allocated: u64,
}

impl Idle {
    /// Nothing has been seen: the first look only remembers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            activity: [u64::MAX; NUM_CLASSES],
            allocated: u64::MAX,
        }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Self::new()
    }
}

/// What a look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Bytes given back.
    pub given: usize,
    /// Free bytes that were left alone because they have been in use since the last look.
    pub busy: usize,
}

impl<O: Os> Heap<O> {
    /// Gives back what no object has come from or gone to since the last look: the transfer caches
    /// and free spans of classes at rest, kernel pages inside their other spans, and free runs beyond
    /// recent demand.
    pub fn release_idle(&self, idle: &mut Idle) -> Look {
        let mut look = Look::default();
        for (class, seen) in idle.activity.iter_mut().enumerate().skip(1) {
            let activity = self.central(class).activity();
            if activity == 0 {
                continue;
            }
            if activity == *seen {
                look.given += self.settle(class);
            } else {
                let inner = self.central(class).inner.lock();
                let purged = inner.purged_pages as usize * OS_PAGE;
                look.busy += inner.free_bytes(class).saturating_sub(purged);
            }
            // What settling itself moved is no activity of the program.
            *seen = self.central(class).activity();
        }
        let (given, busy) = self.pages.release_idle(&mut idle.allocated);
        look.given += given;
        look.busy += busy;
        look
    }

    /// Empties the middle tier of a class and gives back the holes in its spans; bytes of these.
    pub(crate) fn settle(&self, class: usize) -> usize {
        self.empty_transfer(class);
        self.central(class).trim(&self.pages);
        self.central(class).purge_holes(&self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::fake::{Call, FakeOs};
    use crate::size_class::class_of;
    use crate::thread_cache::ThreadCache;
    use core::sync::atomic::Ordering::Relaxed;

    /// Frees 19 of 20 blocks of `size` bytes; the survivors, each filled with its number.
    fn scatter(heap: &Heap<FakeOs>, size: usize, count: usize) -> Vec<*mut u8> {
        let class = class_of(size).expect("small");
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        let blocks: Vec<*mut u8> = (0..count)
            .map(|number| {
                let block = match cache.pop(class) {
                    block if block.is_null() => cache.refill(heap, class),
                    block => block,
                };
                // SAFETY: the block is ours, `size` bytes.
                unsafe { block.write_bytes(number as u8, size) };
                block
            })
            .collect();
        let mut kept = Vec::new();
        for (number, block) in blocks.into_iter().enumerate() {
            if number % 20 == 7 {
                kept.push(block);
            // SAFETY: the block is live and freed once.
            } else if unsafe { !cache.push(class, block) } {
                // SAFETY: as above.
                unsafe { cache.overflow(heap, class, block) };
            }
        }
        cache.flush_all(heap);
        // What the transfer cache holds would be sorted at the second look, and a tick of the scavenger
        // might release some of it unseen by the counts here.
        heap.empty_transfer(class);
        for (index, &block) in kept.iter().enumerate() {
            // SAFETY: the survivor is live.
            let bytes = unsafe { core::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|&byte| byte == (index * 20 + 7) as u8));
        }
        kept
    }

    #[test]
    fn holes_go_back_at_the_second_look_and_survivors_keep_their_contents() {
        for size in [64, 512, 1024, 2048, 3072, 4096, 6144, 32 << 10] {
            let heap = Box::new(Heap::new(FakeOs::new(256 << 20)));
            let count = (16 << 20) / size;
            let kept = scatter(&heap, size, count);
            let os = &heap.pages.os;
            let mut idle = Idle::new();
            heap.release_idle(&mut idle);
            os.clock_ms.store(2_000, Relaxed);
            let bytes = heap.release_idle(&mut idle).given;
            let least = match size {
                64 => 0,
                512 => 50,
                1024 => 65,
                _ => 75,
            };
            assert!(
                bytes >= (16 << 20) / 100 * least,
                "{size}: {bytes} bytes given back"
            );
            let again = heap.release_idle(&mut idle);
            assert_eq!(
                again,
                Look::default(),
                "{size}: nothing is given back twice"
            );
            heap.check_invariants();
            for (index, &block) in kept.iter().enumerate() {
                // SAFETY: the survivor is live.
                let bytes = unsafe { core::slice::from_raw_parts(block, size) };
                assert!(
                    bytes.iter().all(|&byte| byte == (index * 20 + 7) as u8),
                    "{size}: survivor {index}"
                );
            }
            // What was given back can be used again and is counted as resident then.
            let class = class_of(size).expect("small");
            let mut objects = [core::ptr::null_mut(); 8];
            assert_eq!(heap.refill(class, 1, &mut objects), 8);
            heap.check_invariants();
        }
    }

    #[test]
    fn a_class_in_use_is_left_alone_and_a_refused_purge_ends_the_look() {
        let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
        let _kept = scatter(&heap, 2048, 4_000);
        let class = class_of(2048).expect("small");
        let mut idle = Idle::new();
        for round in 0..5 {
            let look = heap.release_idle(&mut idle);
            assert!(round == 0 || look.busy > 4 << 20, "{look:?}");
            let purges = heap.pages.os[Call::Purge].made();
            let (block, _) = heap.take_one(class);
            assert!(!block.is_null());
            assert_eq!(heap.central(class).inner.lock().purged_pages, 0);
            assert_eq!(heap.pages.os[Call::Purge].made(), purges);
        }
        heap.pages.os[Call::Purge].allow(3);
        heap.release_idle(&mut idle);
        assert!(heap.release_idle(&mut idle).given <= 3 * 64 * 1024);
        heap.check_invariants();
    }
}
