//! Cases with two threads.

use crate::{Work, timed};
use spanalloc_benches::Allocator;
use spanalloc_benches::threads::{pin, wait_until};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Blocks in flight between the two threads.
const SLOTS: usize = 1024;

/// One thread allocates, another frees, with a ring between them.
pub struct Ring {
    allocator: Allocator,
    size: usize,
    slots: Vec<AtomicPtr<u8>>,
}

impl Ring {
    pub fn new(allocator: Allocator, size: usize) -> Self {
        let slots = (0..SLOTS).map(|_| AtomicPtr::default()).collect();
        Self {
            allocator,
            size,
            slots,
        }
    }
}

impl Work for Ring {
    /// Both threads are new in each round, so that the caller's own affinity stays as it is.
    fn round(&mut self, operations: usize) -> f64 {
        // Enough to fill the ring many times: the caches of the new threads start empty.
        let operations = operations.max(64 * SLOTS);
        let ready = AtomicBool::new(false);
        let (allocator, size, slots) = (self.allocator, self.size, &self.slots[..]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(1);
                ready.store(true, Ordering::Release);
                for at in 0..operations {
                    let slot = &slots[at % SLOTS];
                    let mut block = null_mut();
                    wait_until(|| {
                        block = slot.load(Ordering::Acquire);
                        !block.is_null()
                    });
                    // SAFETY: the producer gave the block away.
                    unsafe { allocator.release(block) };
                    slot.store(null_mut(), Ordering::Release);
                }
            });
            let producer = scope.spawn(|| {
                pin(0);
                wait_until(|| ready.load(Ordering::Acquire));
                timed(operations, || {
                    for at in 0..operations {
                        let block = allocator.block(size);
                        let slot = &slots[at % SLOTS];
                        wait_until(|| slot.load(Ordering::Relaxed).is_null());
                        slot.store(block, Ordering::Release);
                    }
                })
            });
            producer.join().expect("the producer does not panic")
        })
    }
}

/// A thread that allocates a little, started and joined.
pub struct Spawn(pub Allocator);

impl Work for Spawn {
    fn round(&mut self, operations: usize) -> f64 {
        let allocator = self.0;
        timed(operations, || {
            for _ in 0..operations {
                let thread = std::thread::spawn(move || {
                    let blocks: [_; 20] = std::array::from_fn(|at| allocator.block(16 << (at % 8)));
                    for block in blocks {
                        // SAFETY: each block is freed once.
                        unsafe { allocator.release(block) };
                    }
                });
                thread.join().expect("the thread does not panic");
            }
        })
    }
}
