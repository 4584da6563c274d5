//! What the threads do.

use spanalloc_benches::Allocator;
use spanalloc_benches::threads::pin;
use std::hint::spin_loop;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::*};
use std::time::{Duration, Instant};

/// What one thread does until it is told to stop; returns its operations.
type Body = fn(&Round, usize) -> u64;

/// A case.
pub struct Case {
    pub name: &'static str,
    pub operation: &'static str,
    /// The least number of threads with which it makes sense, and of which their number is a multiple.
    pub unit: usize,
    /// Threads have nothing to do with one another.
    pub alone: bool,
    body: Body,
}

/// Every case.
pub const CASES: [Case; 4] = [
    Case {
        name: "pair",
        operation: "malloc of 64 B, write, free; every thread by itself",
        unit: 1,
        alone: true,
        body: pair,
    },
    Case {
        name: "local",
        operation: "one of a thread's own 1,000 blocks of 16 to 1,024 B replaced",
        unit: 1,
        alone: true,
        body: local,
    },
    Case {
        name: "hand-over",
        operation: "a block of 64 B from one thread of a pair to the other, which frees it",
        unit: 2,
        alone: false,
        body: hand_over,
    },
    Case {
        name: "exchange",
        operation: "a block of 16 to 1,024 B changed for one of any thread, which is freed",
        unit: 1,
        alone: false,
        body: exchange,
    },
];

/// Operations between two looks at the stop sign.
const STRETCH: usize = 256;

/// Blocks in flight between the two threads of a pair.
const RING: usize = 1024;

/// Blocks of one thread: its own, or its share of those that all have.
const BLOCKS: usize = 1_000;

/// A place of a block on a line of its own, as neighbours must not slow each other down by sharing one.
#[repr(align(128))]
struct Ring([AtomicPtr<u8>; RING]);

/// What the threads of one round share.
pub struct Round {
    allocator: Allocator,
    stop: AtomicBool,
    rings: Vec<Ring>,
    common: Vec<AtomicPtr<u8>>,
}

/// Marsaglia's xorshift: cheap, and the same in every run.
struct Random(u64);

impl Random {
    fn of_thread(number: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(number as u64 * 2 + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 16 to 1,024 bytes, small ones as often as large ones.
    fn size(&mut self) -> usize {
        let random = self.next();
        let low = 16 << (random % 6);
        low + (random >> 32) as usize % low
    }
}

impl Round {
    /// Operations per second of all threads together over `time`, one on each of these CPUs.
    pub fn run(case: &Case, allocator: Allocator, cpus: Range<usize>, time: Duration) -> f64 {
        let threads = cpus.len();
        let round = Self {
            allocator,
            stop: AtomicBool::new(false),
            rings: (0..threads.div_ceil(2))
                .map(|_| Ring([const { AtomicPtr::new(null_mut()) }; RING]))
                .collect(),
            common: (0..threads * BLOCKS)
                .map(|_| AtomicPtr::default())
                .collect(),
        };
        let gate = Barrier::new(threads + 1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|number| {
                    let (round, gate, cpu) = (&round, &gate, cpus.start + number);
                    scope.spawn(move || {
                        pin(cpu);
                        gate.wait();
                        (case.body)(round, number)
                    })
                })
                .collect();
            gate.wait();
            let start = Instant::now();
            std::thread::sleep(time);
            round.stop.store(true, Relaxed);
            let seconds = start.elapsed().as_secs_f64();
            let operations: u64 = threads
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"))
                .sum();
            operations as f64 / seconds
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn free(&self, block: *mut u8) {
        // SAFETY: every caller takes the block out of the one place that it stood in.
        unsafe { self.allocator.release(block) };
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let rings = self.rings.iter_mut().flat_map(|ring| &mut ring.0);
        for place in rings.chain(&mut self.common) {
            let block = *place.get_mut();
            if !block.is_null() {
                // SAFETY: all threads have ended; the block stands in this place only.
                unsafe { self.allocator.release(block) };
            }
        }
    }
}

fn pair(round: &Round, _: usize) -> u64 {
    let mut operations = 0;
    while !round.stopped() {
        for _ in 0..STRETCH {
            round.free(std::hint::black_box(round.allocator.block(64)));
        }
        operations += STRETCH as u64;
    }
    operations
}

fn local(round: &Round, number: usize) -> u64 {
    let mut random = Random::of_thread(number);
    let mut blocks: Vec<_> = (0..BLOCKS)
        .map(|_| round.allocator.block(random.size()))
        .collect();
    let mut operations = 0;
    while !round.stopped() {
        for _ in 0..STRETCH {
            let place = random.next() as usize % BLOCKS;
            round.free(blocks[place]);
            blocks[place] = round.allocator.block(random.size());
        }
        operations += STRETCH as u64;
    }
    for block in blocks {
        round.free(block);
    }
    operations
}

fn exchange(round: &Round, number: usize) -> u64 {
    let mut random = Random::of_thread(number);
    let mut operations = 0;
    while !round.stopped() {
        for _ in 0..STRETCH {
            let place = &round.common[random.next() as usize % round.common.len()];
            let old = place.swap(round.allocator.block(random.size()), AcqRel);
            if !old.is_null() {
                round.free(old);
            }
        }
        operations += STRETCH as u64;
    }
    operations
}

/// Even threads give, odd ones take; those that take count.
fn hand_over(round: &Round, number: usize) -> u64 {
    let ring = &round.rings[number / 2].0;
    let mut taken = 0;
    'all: for at in (0..RING).cycle() {
        let place = &ring[at];
        if number.is_multiple_of(2) {
            let block = round.allocator.block(64);
            while !place.load(Relaxed).is_null() {
                if round.stopped() {
                    round.free(block);
                    break 'all;
                }
                spin_loop();
            }
            place.store(block, Release);
        } else {
            let block = loop {
                let block = place.load(Acquire);
                if !block.is_null() {
                    break block;
                }
                if round.stopped() {
                    break 'all;
                }
                spin_loop();
            };
            round.free(block);
            place.store(null_mut(), Release);
            taken += 1;
        }
    }
    taken
}
