//! The transfer cache under loom: a block that one thread stores is fetched by exactly one other,
//! which sees what was written into the blocks before, and the count of objects stays exact.
//!
//! Controls plant a mistake (`plant`), which loom has to find.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p spanalloc --test 'loom*'`
#![cfg(loom)]

use core::ptr::{null_mut, without_provenance_mut};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use spanalloc::plant::{Plant, plant};
use spanalloc::transfer_cache::{Places, TransferCache};

const BLOCKS: usize = 2;

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

/// Memory that is never used twice: whose it is is the lock's business, which other models check.
struct Leaked;

impl Places for Leaked {
    fn take_then(&self, width: u8, then: impl FnOnce(*mut *mut u8)) {
        #[repr(align(64))]
        #[derive(Clone)]
        struct Line(#[expect(dead_code, reason = "room only")] [*mut u8; 8]);
        let lines = (1_usize << width).div_ceil(8);
        then(
            Vec::leak(vec![Line([null_mut(); 8]); lines])
                .as_mut_ptr()
                .cast(),
        );
    }

    fn processors(&self) -> usize {
        4
    }

    unsafe fn give(&self, _: *mut *mut u8, _: u8) {}
}

impl World {
    /// A cache that has seen a consumer, so that two of its slots are open.
    fn new() -> Self {
        let world = Self {
            cache: TransferCache::new(),
            contents: Default::default(),
        };
        assert!(!world.store(&[0], usize::MAX));
        assert_eq!(world.cache.fetch(2, &mut [null_mut()]), 0);
        world
    }

    /// Stores blocks in one batch.
    fn store(&self, numbers: &[usize], limit: usize) -> bool {
        let batch: Vec<*mut u8> = numbers
            .iter()
            .map(|&number| without_provenance_mut(number * 16))
            .collect();
        self.cache.store(1, &batch, false, limit, &Leaked)
    }

    /// Writes to a block and stores it; what is not taken stays with the caller, who may write
    /// again.
    fn produce(&self, number: usize) -> bool {
        self.write(number);
        let stored = self.store(&[number], usize::MAX);
        if !stored {
            self.write(number);
        }
        stored
    }

    fn write(&self, number: usize) {
        // SAFETY: the block is the caller's.
        self.contents[number].with_mut(|place| unsafe { *place = number as u32 });
    }

    /// Fetches up to `most` blocks, checks and overwrites what is in them.
    fn consume(&self, thread: u32, most: usize) -> Vec<usize> {
        let mut batch = vec![null_mut(); most];
        let got = self.cache.fetch(thread, &mut batch);
        let numbers: Vec<usize> = batch[..got].iter().map(|block| block.addr() / 16).collect();
        for &number in &numbers {
            self.contents[number].with_mut(|place| {
                // SAFETY: the block is the caller's now.
                unsafe {
                    assert_eq!(*place, number as u32, "what the producer wrote is seen");
                    *place = u32::MAX;
                }
            });
        }
        numbers
    }

    /// What is left.
    fn drain(&self) -> Vec<usize> {
        let mut batch = [null_mut(); 8];
        let got = self.cache.drain(&mut batch);
        batch[..got].iter().map(|block| block.addr() / 16).collect()
    }
}

fn model(mistake: Option<Plant>, run: impl Fn() + Sync + Send + 'static) {
    plant(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

fn a_block_is_stored_and_fetched(mistake: Option<Plant>) {
    model(mistake, || {
        let world = Arc::new(World::new());
        let producer = {
            let world = Arc::clone(&world);
            thread::spawn(move || (1..=2).filter(|&number| world.produce(number)).count())
        };
        let consumer = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.consume(2, 2))
        };
        let mut fetched = world.consume(3, 1);
        let stored = producer.join().expect("the producer does not panic");
        fetched.extend(consumer.join().expect("the consumer does not panic"));
        fetched.extend(world.drain());
        let all = fetched.len();
        fetched.sort_unstable();
        fetched.dedup();
        assert_eq!(
            (all, fetched.len()),
            (stored, stored),
            "each stored block came out once"
        );
    });
}

#[test]
fn a_stored_block_is_fetched_once() {
    a_block_is_stored_and_fetched(None);
}

#[test]
#[should_panic]
fn control_a_shard_given_back_without_what_was_stored_is_noticed() {
    a_block_is_stored_and_fetched(Some(Plant::ReleaseRelaxed));
}

/// Two producers and the limit on objects: no interleaving stores more than it allows.
#[test]
fn producers_together_stay_within_the_limit() {
    model(None, || {
        let world = Arc::new(World::new());
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.store(&[1, 2], 4))
        };
        let here = world.store(&[3, 4, 5], 4);
        let there = other.join().expect("the producer does not panic");
        assert!(
            here != there,
            "2 and 3 objects are more than 4: one is refused"
        );
        assert_eq!(world.drain(), if here { vec![3, 4, 5] } else { vec![1, 2] });
    });
}

/// A class gets its further shards while others store and fetch: whoever sees them sees them whole, and no block is lost or
/// comes out twice.
fn shards_open_meanwhile(mistake: Option<Plant>) {
    model(mistake, || {
        let world = Arc::new(World::new());
        let producer = {
            let world = Arc::clone(&world);
            thread::spawn(move || usize::from(world.produce(1)))
        };
        let opener = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.cache.spread(&Leaked))
        };
        let mut fetched = world.consume(2, 1);
        let stored = producer.join().expect("the producer does not panic");
        opener.join().expect("the opener does not panic");
        assert_eq!(world.cache.totals().shards, 2);
        fetched.extend(world.drain());
        assert_eq!(fetched, vec![1; stored]);
    });
}

#[test]
fn shards_that_open_meanwhile_lose_nothing() {
    shards_open_meanwhile(None);
}

#[test]
#[should_panic]
fn control_shards_that_are_named_before_they_are_there_are_noticed() {
    shards_open_meanwhile(Some(Plant::ShardsRelaxed));
}
