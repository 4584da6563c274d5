//! The transfer cache under loom: a batch that one thread stores is fetched by exactly one other,
//! which sees what was written into the blocks before, and the count of objects stays exact.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::ptr::without_provenance_mut;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use spanalloc::chain::Chain;
use spanalloc::transfer_cache::TransferCache;

const BLOCKS: usize = 3;

/// A cache, and the contents of the blocks that travel through it. A block's address is its number
/// times 16; what is in it is in `contents`, where loom watches who touches it when.
struct World {
    cache: TransferCache,
    contents: [UnsafeCell<u32>; BLOCKS + 1],
}

// SAFETY: a block's contents are touched by its owner only; that is what the model checks.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// A cache that has seen a consumer, so that two of its slots are open.
    fn new() -> Self {
        let cache = TransferCache::new();
        assert!(!cache.store(1, batch(0), false, usize::MAX));
        assert_eq!(cache.fetch(2), None);
        Self {
            cache,
            contents: Default::default(),
        }
    }

    /// Writes to a block and stores it; what is not taken stays with the caller, who may write
    /// again.
    fn produce(&self, number: usize) -> bool {
        self.write(number);
        let stored = self.cache.store(1, batch(number), false, usize::MAX);
        if !stored {
            self.write(number);
        }
        stored
    }

    fn write(&self, number: usize) {
        // SAFETY: the block is the caller's.
        self.contents[number].with_mut(|place| unsafe { *place = number as u32 });
    }

    /// Fetches a block, checks and overwrites what is in it.
    fn consume(&self, thread: u32) -> Option<usize> {
        let chain = self.cache.fetch(thread)?;
        let number = chain.head.addr() / 16;
        assert_eq!(chain.len, number + 1, "a batch keeps its length");
        self.contents[number].with_mut(|place| {
            // SAFETY: the block is the caller's now.
            unsafe {
                assert_eq!(*place, number as u32, "what the producer wrote is seen");
                *place = u32::MAX;
            }
        });
        Some(number)
    }
}

fn batch(number: usize) -> Chain {
    Chain {
        head: without_provenance_mut(number * 16),
        len: number + 1,
    }
}

#[test]
fn a_stored_batch_is_fetched_once_and_whole() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let world = Arc::new(World::new());
        let producer = {
            let world = Arc::clone(&world);
            thread::spawn(move || (1..=2).filter(|&number| world.produce(number)).count())
        };
        let consumer = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.consume(2))
        };
        let mut fetched: Vec<usize> = world.consume(3).into_iter().collect();
        let stored = producer.join().expect("the producer does not panic");
        fetched.extend(consumer.join().expect("the consumer does not panic"));
        while let Some(chain) = world.cache.drain() {
            fetched.push(chain.head.addr() / 16);
        }
        fetched.sort_unstable();
        fetched.dedup();
        assert_eq!(fetched.len(), stored, "each stored batch came out once");
    });
}

/// Two producers and the limit on objects: no interleaving stores more than it allows.
#[test]
fn producers_together_stay_within_the_limit() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let world = Arc::new(World::new());
        let store = |world: &World, number| world.cache.store(1, batch(number), false, 4);
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || store(&world, 1))
        };
        let here = store(&world, 2);
        let there = other.join().expect("the producer does not panic");
        assert!(
            here != there,
            "2 and 3 objects are more than 4: one is refused"
        );
        let left = world.cache.drain().expect("one batch was stored");
        assert_eq!(left.len, if here { 3 } else { 2 });
        assert_eq!(world.cache.drain(), None);
    });
}
