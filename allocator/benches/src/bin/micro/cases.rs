//! The cases, in the order of the table, and the work of those with blocks of one size.

use crate::memory::{Growth, Large, Zeroed};
use crate::threads::{Ring, Spawn};
use crate::{Case, Goal, Work, timed};
use spanalloc_benches::{Allocator, Order, order};
use std::hint::black_box;

fn case<W: Work + 'static>(
    name: &'static str,
    operation: &'static str,
    goal: Option<Goal>,
    prepare: impl Fn(Allocator) -> W + 'static,
) -> Case {
    Case {
        name,
        operation,
        goal,
        prepare: Box::new(move |allocator| Box::new(prepare(allocator))),
    }
}

/// A goal of so many nanoseconds where gperftools took `peer`.
fn goal(nanoseconds: f64, peer: f64) -> Option<Goal> {
    Some(Goal {
        nanoseconds,
        peer: Some(peer),
    })
}

/// A goal that no other allocator's time puts in terms of another machine.
fn absolute(nanoseconds: f64) -> Option<Goal> {
    Some(Goal {
        nanoseconds,
        peer: None,
    })
}

/// Every case.
pub fn all() -> Vec<Case> {
    const PAIR: &str = "malloc, write, free";
    const BATCH: &str = "one block of as many malloc'ed, then freed in this order";
    let batch = |name, goal, size, count, kind| {
        case(name, BATCH, goal, move |allocator| {
            Batch::new(allocator, size, count, kind)
        })
    };
    let mut cases = vec![
        case("pair-16", PAIR, goal(5.2, 5.9), |a| Pair(a, 16)),
        case("pair-64", PAIR, goal(5.2, 6.1), |a| Pair(a, 64)),
        case("pair-256", PAIR, goal(5.2, 5.9), |a| Pair(a, 256)),
        case("pair-1024", PAIR, goal(5.2, 6.1), |a| Pair(a, 1024)),
        case("pair-16k", PAIR, goal(6.0, 6.8), |a| Pair(a, 16 << 10)),
        batch("batch-1000-lifo-64", goal(5.5, 5.3), 64, 1_000, Order::Lifo),
        batch(
            "batch-1000-lifo-1k",
            goal(6.5, 7.0),
            1024,
            1_000,
            Order::Lifo,
        ),
        batch("batch-1000-fifo-64", goal(5.5, 6.5), 64, 1_000, Order::Fifo),
        batch(
            "batch-1000-fifo-1k",
            goal(6.5, 6.6),
            1024,
            1_000,
            Order::Fifo,
        ),
        batch("batch-1000-random-64", None, 64, 1_000, Order::Random),
        batch("batch-50000-lifo-64", None, 64, 50_000, Order::Lifo),
        batch("batch-50000-fifo-64", None, 64, 50_000, Order::Fifo),
        batch(
            "batch-50000-random-64",
            goal(10.0, 21.2),
            64,
            50_000,
            Order::Random,
        ),
    ];
    cases.extend([
        case(
            "ring-64",
            "one block from a thread to another",
            absolute(11.0),
            |a| Ring::new(a, 64),
        ),
        case(
            "ring-1k",
            "one block from a thread to another",
            absolute(11.0),
            |a| Ring::new(a, 1024),
        ),
        case(
            "churn-16-4k",
            "one of 20,000 blocks of 16 B to 4 KiB replaced",
            goal(10.0, 9.9),
            Churn::new,
        ),
        case("calloc-64k", "calloc, write, free of 64 KiB", None, |a| {
            Zeroed(a, 64 << 10)
        }),
        case(
            "realloc-4k-steps-4m",
            "one block from 4 KiB to 4 MiB in steps of 4 KiB, then freed",
            goal(10_000.0, 453_032.0),
            |a| Growth {
                allocator: a,
                last: 4 << 20,
                next: |size| size + 4096,
            },
        ),
        case(
            "growth-64k",
            "one block from 64 B to 64 KiB by doubling, then freed",
            goal(300.0, 2_043.0),
            |a| Growth {
                allocator: a,
                last: 64 << 10,
                next: |size| size * 2,
            },
        ),
        case(
            "large-1m",
            "malloc, touch each 4 KiB, free of 1 MiB",
            goal(1_140.0, 1_139.0),
            |a| Large(a, 1 << 20),
        ),
        case(
            "large-16m",
            "malloc, touch each 4 KiB, free of 16 MiB",
            goal(23_000.0, 25_597.0),
            |a| Large(a, 16 << 20),
        ),
        case(
            "spawn",
            "a thread started that allocates 20 blocks, and joined",
            None,
            Spawn,
        ),
        case(
            "p99.9-malloc-1k",
            "the slowest of 1,000 mallocs of up to 1 KiB while blocks are replaced",
            absolute(200.0),
            Latency::new,
        ),
    ]);
    cases
}

/// malloc and free of one block, which comes from and goes to the thread's cache.
struct Pair(Allocator, usize);

impl Work for Pair {
    fn round(&mut self, operations: usize) -> f64 {
        timed(operations, || {
            for _ in 0..operations {
                let block = black_box(self.0.block(black_box(self.1)));
                // SAFETY: the block is freed once.
                unsafe { self.0.release(block) };
            }
        })
    }
}

/// Many blocks, then all of them freed.
struct Batch {
    allocator: Allocator,
    size: usize,
    frees: Vec<u32>,
    blocks: Vec<*mut u8>,
}

impl Batch {
    fn new(allocator: Allocator, size: usize, count: usize, kind: Order) -> Self {
        Self {
            allocator,
            size,
            frees: order(count, kind),
            blocks: vec![std::ptr::null_mut(); count],
        }
    }
}

impl Work for Batch {
    fn round(&mut self, operations: usize) -> f64 {
        let batches = operations.div_ceil(self.blocks.len());
        timed(batches * self.blocks.len(), || {
            for _ in 0..batches {
                for block in &mut self.blocks {
                    *block = self.allocator.block(self.size);
                }
                for &at in &self.frees {
                    // SAFETY: `frees` has each index once.
                    unsafe { self.allocator.release(self.blocks[at as usize]) };
                }
            }
        })
    }
}

/// Sizes that look random, evenly spread over the powers of two from 16 to `most`.
fn sizes(count: usize, most: usize) -> Vec<u32> {
    let doublings = (most / 16).ilog2() as usize;
    order(count, Order::Random)
        .into_iter()
        .enumerate()
        .map(|(at, random)| {
            let low = 16 << (at % doublings);
            (low + random as usize % low) as u32
        })
        .collect()
}

/// A table of live blocks of which one after the other is replaced.
struct Blocks {
    allocator: Allocator,
    blocks: Vec<*mut u8>,
    sizes: Vec<u32>,
    places: Vec<u32>,
    step: usize,
}

impl Blocks {
    fn new(allocator: Allocator, count: usize, most: usize) -> Self {
        let sizes = sizes(1 << 16, most);
        Self {
            allocator,
            blocks: sizes[..count]
                .iter()
                .map(|&size| allocator.block(size as usize))
                .collect(),
            sizes,
            places: order(1 << 16, Order::Random)
                .into_iter()
                .map(|random| random % count as u32)
                .collect(),
            step: 0,
        }
    }

    /// The place and the size of the next replacement.
    fn next(&mut self) -> (usize, usize) {
        // Of different periods, so that sizes and places do not repeat together.
        let size = self.sizes[self.step % (self.sizes.len() - 1)] as usize;
        let place = self.places[self.step % self.places.len()] as usize;
        self.step = self.step.wrapping_add(1);
        (place, size)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for &block in &self.blocks {
            // SAFETY: each is live.
            unsafe { self.allocator.release(block) };
        }
    }
}

struct Churn(Blocks);

impl Churn {
    fn new(allocator: Allocator) -> Self {
        Self(Blocks::new(allocator, 20_000, 4096))
    }
}

impl Work for Churn {
    fn round(&mut self, operations: usize) -> f64 {
        timed(operations, || {
            for _ in 0..operations {
                let (place, size) = self.0.next();
                // SAFETY: the block is live and is replaced at once.
                unsafe { self.0.allocator.release(self.0.blocks[place]) };
                self.0.blocks[place] = self.0.allocator.block(size);
            }
        })
    }
}

/// Times single calls of malloc by the processor's counter.
struct Latency {
    blocks: Blocks,
    nanoseconds_per_tick: f64,
    overhead: u64,
    ticks: Vec<u64>,
}

impl Latency {
    /// Fewer samples than this have no 99.9th percentile worth the name.
    const LEAST: usize = 50_000;

    fn new(allocator: Allocator) -> Self {
        let (from, start) = (counter(), std::time::Instant::now());
        while start.elapsed().as_millis() < 20 {}
        let nanoseconds_per_tick = start.elapsed().as_nanos() as f64 / (counter() - from) as f64;
        let overhead = (0..1000)
            .map(|_| {
                let from = counter();
                counter() - from
            })
            .min()
            .unwrap_or(0);
        Self {
            blocks: Blocks::new(allocator, 20_000, 1024),
            nanoseconds_per_tick,
            overhead,
            ticks: Vec::new(),
        }
    }
}

/// The time stamp counter, once everything before is done.
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has both instructions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

impl Work for Latency {
    fn round(&mut self, operations: usize) -> f64 {
        self.ticks.clear();
        for _ in 0..operations.max(Self::LEAST) {
            let (place, size) = self.blocks.next();
            // SAFETY: the block is live and is replaced at once.
            unsafe { self.blocks.allocator.release(self.blocks.blocks[place]) };
            let from = counter();
            let block = self.blocks.allocator.block(size);
            let taken = counter() - from;
            self.ticks.push(taken.saturating_sub(self.overhead));
            self.blocks.blocks[place] = block;
        }
        self.ticks.sort_unstable();
        self.ticks[self.ticks.len() * 999 / 1000] as f64 * self.nanoseconds_per_tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanalloc_benches::ALLOCATORS;

    #[test]
    fn sizes_cover_the_range_and_stay_in_it() {
        let sizes = sizes(1 << 12, 4096);
        assert!(sizes.iter().all(|size| (16..4096).contains(size)));
        assert!(sizes.iter().any(|&size| size < 32) && sizes.iter().any(|&size| size >= 2048));
    }

    #[test]
    fn every_case_runs_with_every_allocator() {
        for case in all() {
            for allocator in ALLOCATORS {
                let value = (case.prepare)(allocator).round(1);
                assert!(
                    value >= 0.0 && value.is_finite(),
                    "{} {}",
                    case.name,
                    allocator.name
                );
            }
        }
    }
}
