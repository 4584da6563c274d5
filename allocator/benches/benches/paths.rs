//! What single operations cost: pairs, batches in three orders of freeing, hand-over between two
//! threads, and growth by realloc. Times are of whole iterations; throughput says how many blocks
//! (or bytes) one has.

use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use spanalloc_benches::{ALLOCATORS, Allocator, Order};
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// malloc and free of one block, which comes from and goes to the thread's cache.
fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("pair");
    for size in [16, 64, 256, 1024, 4096, 16 << 10] {
        for allocator in ALLOCATORS {
            group.bench_function(BenchmarkId::new(allocator.name, size), |b| {
                b.iter(|| {
                    let block = black_box(allocator.block(black_box(size)));
                    // SAFETY: the block is freed once.
                    unsafe { allocator.release(block) };
                });
            });
        }
    }
    group.finish();
}

fn batch(
    group: &mut criterion::BenchmarkGroup<'_, WallTime>,
    allocator: Allocator,
    size: usize,
    count: usize,
    order: Order,
) {
    let frees = spanalloc_benches::order(count, order);
    let mut blocks = vec![std::ptr::null_mut(); count];
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function(BenchmarkId::new(allocator.name, size), |b| {
        b.iter(|| {
            for block in &mut blocks {
                *block = allocator.block(size);
            }
            for &at in &frees {
                // SAFETY: `frees` has each index once.
                unsafe { allocator.release(blocks[at as usize]) };
            }
        });
    });
}

/// Many blocks, then all of them freed.
fn batches(c: &mut Criterion) {
    for (name, count, order) in [
        ("batch-1000-lifo", 1_000, Order::Lifo),
        ("batch-1000-fifo", 1_000, Order::Fifo),
        ("batch-50000-random", 50_000, Order::Random),
    ] {
        let mut group = c.benchmark_group(name);
        for size in [64, 1024] {
            for allocator in ALLOCATORS {
                batch(&mut group, allocator, size, count, order);
            }
        }
        group.finish();
    }
}

/// Blocks in flight between the two threads of `hand_over`.
const RING: usize = 1024;

/// One thread allocates, another frees, with a ring between them.
fn hand_over(c: &mut Criterion) {
    let mut group = c.benchmark_group("hand-over");
    group.throughput(Throughput::Elements(1));
    for size in [64, 1024] {
        for allocator in ALLOCATORS {
            group.bench_function(BenchmarkId::new(allocator.name, size), |b| {
                let ring: Arc<Vec<AtomicPtr<u8>>> =
                    Arc::new((0..RING).map(|_| AtomicPtr::default()).collect());
                let stop = Arc::new(AtomicBool::new(false));
                let consumer = {
                    let (ring, stop) = (Arc::clone(&ring), Arc::clone(&stop));
                    std::thread::spawn(move || consume(allocator, &ring, &stop))
                };
                let mut at = 0;
                b.iter(|| {
                    let block = allocator.block(size);
                    wait_until(|| ring[at].load(Ordering::Relaxed).is_null());
                    ring[at].store(block, Ordering::Release);
                    at = (at + 1) % RING;
                });
                stop.store(true, Ordering::Release);
                consumer.join().expect("the consumer does not panic");
            });
        }
    }
    group.finish();
}

/// Spins, and lets others run when it takes long: there may be fewer CPUs than threads.
fn wait_until(mut ready: impl FnMut() -> bool) {
    let mut rounds = 0_u32;
    while !ready() {
        rounds += 1;
        if rounds.is_multiple_of(1024) {
            std::thread::yield_now();
        }
        spin_loop();
    }
}

fn consume(allocator: Allocator, ring: &[AtomicPtr<u8>], stop: &AtomicBool) {
    for slot in ring.iter().cycle() {
        let mut block = std::ptr::null_mut();
        wait_until(|| {
            // The order matters: after `stop` nothing more is put into the ring.
            let stopped = stop.load(Ordering::Acquire);
            block = slot.load(Ordering::Acquire);
            stopped || !block.is_null()
        });
        if block.is_null() {
            return;
        }
        // SAFETY: the producer gave the block away.
        unsafe { allocator.release(block) };
        slot.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// One block that grows: by a page at a time, as a buffer that is appended to, or by doubling, as
/// a vector.
fn growth(c: &mut Criterion) {
    /// The size after this one.
    type Next = fn(usize) -> usize;
    let next: [(&str, Next); 2] = [
        ("realloc-steps-of-4096", |size| size + 4096),
        ("realloc-doubling", |size| size * 2),
    ];
    for (name, next) in next {
        let mut group = c.benchmark_group(name);
        for last in [64 << 10, 4 << 20] {
            group.throughput(Throughput::Bytes(last as u64));
            for allocator in ALLOCATORS {
                group.bench_function(BenchmarkId::new(allocator.name, last), |b| {
                    b.iter(|| {
                        let mut size = 64;
                        let mut block = allocator.block(size);
                        while size < last {
                            size = next(size);
                            // SAFETY: the block is live; it is replaced by what realloc returns.
                            block = unsafe { (allocator.realloc)(block.cast(), size).cast() };
                            assert!(!block.is_null());
                        }
                        // SAFETY: the block is freed once.
                        unsafe { allocator.release(black_box(block)) };
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(paths, pairs, batches, hand_over, growth);
criterion_main!(paths);
