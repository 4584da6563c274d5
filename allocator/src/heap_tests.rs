//! Tests of the tiers on a fake page source: a random walk over all operations with a model of
//! what must be true, and failures of the source at every point.

use crate::heap::{Block, Heap};
use crate::os::fake::{Call, FakeOs};
use crate::page_heap::growth::headroom;
use crate::page_heap::{PageHeap, Use};
use crate::size_class::{MAX_SMALL, NUM_CLASSES, class_of, size_of_class};
use crate::span::Span;
use crate::thread_cache::ThreadCache;
use crate::transfer_cache::Places;
use crate::units::{PAGE_SIZE, pages_for};
use std::sync::atomic::Ordering::Relaxed;

/// A small xorshift generator: the tests must not depend on a crate for this.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A size, about evenly spread over the powers of two up to `1 << bits`.
    pub fn size(&mut self, bits: u32) -> usize {
        let bound = 1_usize << self.below(bits as usize + 1);
        self.below(bound) + 1
    }
}

fn heap(reach: usize) -> Box<Heap<FakeOs>> {
    Box::new(Heap::new(FakeOs::new(reach)))
}

struct Live {
    block: *mut u8,
    usable: usize,
    stamp: u8,
}

/// One thread's view: a cache on a heap and the blocks that it holds.
struct Model<'a> {
    heap: &'a Heap<FakeOs>,
    cache: ThreadCache,
    live: Vec<Live>,
}

impl<'a> Model<'a> {
    fn new(heap: &'a Heap<FakeOs>) -> Self {
        let cache = ThreadCache::new();
        cache.start(1, heap.epoch());
        Self {
            heap,
            cache,
            live: Vec::new(),
        }
    }

    fn allocate(&mut self, size: usize, stamp: u8) -> bool {
        let (block, zero) = match class_of(size) {
            Some(class) => {
                let block = self.cache.pop(class);
                let block = if block.is_null() {
                    self.cache.refill(self.heap, class)
                } else {
                    block
                };
                (block, false)
            }
            None => self.heap.allocate_large(size, 1),
        };
        self.keep(block, size, stamp, zero)
    }

    fn keep(&mut self, block: *mut u8, size: usize, stamp: u8, zero: bool) -> bool {
        if block.is_null() {
            return false;
        }
        let usable = self.heap.usable_size(block);
        assert!(usable >= size);
        assert_eq!(block as usize % if usable < 16 { 8 } else { 16 }, 0);
        // SAFETY: the block is ours, all of `usable`.
        unsafe {
            if zero {
                assert!(
                    (0..usable).all(|at| *block.add(at) == 0),
                    "a block said to be zero is"
                );
            }
            block.write_bytes(stamp, usable);
        }
        self.live.push(Live {
            block,
            usable,
            stamp,
        });
        true
    }

    fn check(live: &Live) {
        // SAFETY: the block is live; only the model writes to it.
        let bytes = unsafe { core::slice::from_raw_parts(live.block, live.usable) };
        assert!(
            bytes.iter().all(|&byte| byte == live.stamp),
            "contents of {:p} changed",
            live.block
        );
    }

    fn free(&mut self, at: usize) {
        let live = self.live.swap_remove(at);
        Self::check(&live);
        match self.heap.block_of(live.block) {
            // SAFETY: the block is live and freed once.
            Block::Small(class) => unsafe {
                if !self.cache.push(class, live.block) {
                    self.cache.overflow(self.heap, class, live.block);
                }
            },
            // SAFETY: as above.
            Block::Large(span) => unsafe { self.heap.pages.free(span) },
        }
    }

    fn finish(mut self) {
        while !self.live.is_empty() {
            self.free(self.live.len() - 1);
        }
        self.cache.check_invariants();
        self.cache.flush_all(self.heap);
        assert!(self.cache.is_empty());
        self.heap.trim(0);
        let walk = self.heap.check_invariants();
        assert_eq!(
            (walk.small, walk.large, walk.dirty),
            (0, 0, 0),
            "all pages went back"
        );
    }
}

#[test]
fn random_walk_keeps_every_invariant() {
    for seed in 0..6 {
        let heap = heap(128 << 20);
        let mut random = Random::new(seed);
        let mut model = Model::new(&heap);
        for step in 0..60_000 {
            let stamp = step as u8 | 1;
            match random.below(100) {
                0..50 => {
                    let bits = if random.below(50) == 0 { 20 } else { 12 };
                    let size = random.size(bits);
                    model.allocate(size, stamp);
                }
                50..97 if !model.live.is_empty() => {
                    let at = random.below(model.live.len());
                    model.free(at);
                }
                97 => {
                    let size = random.size(21);
                    let (block, zero) = heap.allocate_growing(size, || ());
                    model.keep(block, size, stamp, zero);
                }
                98 => {
                    let (block, zero) = heap.take_one(class_of(random.size(18)).expect("small"));
                    let size = heap.usable_size(block);
                    model.keep(block, size, stamp, zero);
                }
                _ if random.below(20) == 0 => {
                    heap.raise_epoch();
                    heap.trim(random.size(20));
                }
                _ => {}
            }
            if model.live.len() > 3_000 {
                while model.live.len() > 500 {
                    let at = random.below(model.live.len());
                    model.free(at);
                }
            }
            if step % 5_000 == 0 {
                heap.check_invariants();
                model.cache.check_invariants();
            }
        }
        model.finish();
    }
}

#[test]
fn memory_that_runs_out_at_any_point_is_an_answer_and_nothing_is_lost() {
    for limit in (0..160)
        .chain((160..3_000).step_by(31))
        .map(|step| step * 4096)
    {
        let heap = heap(64 << 20);
        heap.pages.os.limit.store(limit, Relaxed);
        let mut random = Random::new(limit as u64);
        let mut model = Model::new(&heap);
        let mut refused = 0;
        for step in 0..150 {
            if random.below(4) == 0 && !model.live.is_empty() {
                let at = random.below(model.live.len());
                model.free(at);
            } else if !model.allocate(random.size(19), step as u8) {
                refused += 1;
            }
        }
        assert!(
            limit > 0 || refused > 0,
            "a source without memory must show"
        );
        heap.check_invariants();
        model.finish();
    }
}

#[test]
fn purges_that_fail_leave_pages_dirty_and_their_contents_known_as_such() {
    let heap = heap(64 << 20);
    heap.pages.os[Call::Purge].allow(0);
    let (block, _) = heap.allocate_large(1 << 20, 1);
    // SAFETY: the block has that many bytes.
    unsafe { block.write_bytes(1, 1 << 20) };
    let Block::Large(span) = heap.block_of(block) else {
        panic!("1 MiB is large")
    };
    // SAFETY: the block is live.
    unsafe { heap.pages.free(span) };
    assert_eq!(heap.trim(0), 0);
    assert_eq!(heap.check_invariants().dirty, (1 << 20) / PAGE_SIZE);
    let (again, zero) = heap.allocate_large(1 << 20, 1);
    assert_eq!(again, block, "dirty pages are used first");
    assert!(!zero, "what could not be purged is not zero");
}

#[test]
fn decay_releases_what_exceeds_recent_demand_and_not_before_its_time() {
    let heap = heap(256 << 20);
    let os = &heap.pages.os;
    let spike = |bytes: usize| {
        let (block, _) = heap.allocate_large(bytes, 1);
        let Block::Large(span) = heap.block_of(block) else {
            panic!("large")
        };
        // SAFETY: the block is live.
        unsafe { heap.pages.free(span) };
    };
    let idle = || (0..32).for_each(|_| spike(MAX_SMALL + 1));
    os.clock_ms.store(1, Relaxed);
    spike(100 << 20);
    idle();
    assert_eq!(os[Call::Purge].made(), 0, "the window is not over");
    os.clock_ms.store(1_500, Relaxed);
    idle();
    os.clock_ms.store(3_000, Relaxed);
    idle();
    os.clock_ms.store(4_500, Relaxed);
    idle();
    let walk = heap.check_invariants();
    assert!(
        walk.dirty * PAGE_SIZE <= 2 << 20,
        "{} pages are still dirty",
        walk.dirty
    );
}

/// Frees a large block.
fn free_large(heap: &Heap<FakeOs>, block: *mut u8) {
    let Block::Large(span) = heap.block_of(block) else {
        panic!("large")
    };
    // SAFETY: the block is live and nobody else's.
    unsafe { heap.pages.free(span) };
}

#[test]
fn what_is_released_beside_growth_again_and_again_may_stay_and_is_forgotten() {
    const MIB: usize = 1 << 20;
    let heap = heap(256 << 20);
    heap.pages.os.clock_ms.store(1, Relaxed);
    let base = heap.allocate_large(64 * MIB, 1).0;
    // In each round something longer is wanted than what is free.
    let round = || {
        let (short, between) = (
            heap.allocate_large(2 * MIB, 1).0,
            heap.allocate_large(MIB, 1).0,
        );
        free_large(&heap, short);
        // Of zeros, so that nothing goes under it.
        let long = heap.allocate_large_after(3 * MIB, 1, Use::Zeros, || ()).0;
        let inner = heap.pages.inner.lock();
        let (resident, peak) = (inner.in_use + inner.dirty.pages, inner.peak_in_use);
        assert!(
            resident <= peak + peak / 8 + 8,
            "{resident} pages of {peak} at most in use"
        );
        drop(inner);
        free_large(&heap, between);
        free_large(&heap, long);
    };
    let released = || heap.pages.inner.lock().counters.pages_released;
    (0..4).for_each(|_| round());
    let first = released();
    assert!(first > 0, "at first free memory does not pile up");
    (0..100).for_each(|_| round());
    let learnt = released();
    assert!(learnt > first);
    (0..100).for_each(|_| round());
    assert_eq!(released(), learnt, "it has been wanted again often enough");
    // Windows in which nothing like it happens.
    for window in 1..40 {
        heap.pages.os.clock_ms.store(2_000 * window, Relaxed);
        (0..32).for_each(|_| free_large(&heap, heap.allocate_large(MAX_SMALL + 1, 1).0));
    }
    heap.pages.release_free(0);
    let before = released();
    (0..4).for_each(|_| round());
    assert!(released() > before, "forgotten");
    free_large(&heap, base);
    heap.check_invariants();
}

#[test]
fn taken_addresses_become_holes_that_the_heap_steps_over() {
    let mut os = FakeOs::new(256 << 20);
    let plan = crate::page_map::Plan::new(os.start(), 256 << 20);
    os.taken = (plan.heap + (8 << 20), plan.heap + (9 << 20));
    let heap = Box::new(Heap::new(os));
    let blocks: Vec<*mut u8> = (0..60)
        .map(|_| heap.allocate_large(1 << 20, 1).0)
        .filter(|block| !block.is_null())
        .collect();
    assert_eq!(blocks.len(), 60);
    assert!(heap.check_invariants().holes > 0);
    let inside = blocks.iter().any(|&block| {
        let at = block as usize;
        at < plan.heap + (9 << 20) && at + (1 << 20) > plan.heap + (8 << 20)
    });
    assert!(!inside, "no block overlaps somebody else's mapping");
}

#[test]
fn page_heap_splits_takes_the_best_fit_and_joins() {
    let pages = Box::new(PageHeap::new(FakeOs::new(64 << 20)));
    let take = |count| -> *mut Span { pages.allocate(count, 1, Use::Large) };
    let spans: Vec<*mut Span> = [10, 1, 20, 1, 30, 1].map(take).to_vec();
    // SAFETY: the spans are live; each is freed once.
    unsafe {
        let starts: Vec<u32> = spans.iter().map(|&span| (*span).start).collect();
        for gap in [0, 2, 4] {
            pages.free(spans[gap]);
        }
        let fit = take(15);
        assert_eq!((*fit).start, starts[2], "20 pages fit 15 better than 30");
        let rest = take(5);
        assert_eq!(
            (*rest).start,
            starts[2] + 15,
            "the rest of the split run is the best fit for 5"
        );
        for span in [fit, rest, spans[1], spans[3], spans[5]] {
            pages.free(span);
        }
        let all = take(63);
        assert_eq!((*all).start, starts[0], "everything was joined again");
    }
}

#[test]
fn aligned_spans_start_at_their_alignment() {
    let heap = heap(512 << 20);
    for shift in 13..25 {
        let align = 1_usize << shift;
        let (block, _) = heap.allocate_large(10_000, align);
        assert_eq!(block as usize % align, 0);
    }
    heap.check_invariants();
}

#[test]
fn headroom_is_given_up_where_a_limit_or_the_next_block_is() {
    let heap = heap(64 << 20);
    let pages_of = |block| heap.usable_size(block) / PAGE_SIZE;
    let (block, _) = heap.allocate_growing(800 << 10, || ());
    let Block::Large(span) = heap.block_of(block) else {
        panic!("large")
    };
    // SAFETY: the span is live.
    unsafe {
        heap.pages.limits.set_hard(129 * PAGE_SIZE);
        assert!(heap.pages.resize_in_place(span, 128));
        assert_eq!(pages_of(block), 128, "16 more are beyond the limit");
        assert!(!heap.pages.resize_in_place(span, 130));
        assert_eq!(heap.pages.limits.refused(), 1);
        heap.pages.limits.set_hard(0);
        heap.check_invariants();
        // Two pages stay free behind the block, fewer than the headroom.
        heap.pages.resize_in_place(span, 130);
        assert_eq!(pages_of(block), 130 + headroom(130));
        let free = heap.pages.inner.lock().clean.pages;
        let (next, _) = heap.allocate_large((free - 2) * PAGE_SIZE, 1);
        assert!(!next.is_null());
        heap.check_invariants();
        let before = pages_of(block);
        if heap.pages.resize_in_place(span, before + 1) {
            assert!(pages_of(block) <= before + 2);
        }
        heap.check_invariants();
        for block in [block, next] {
            let Block::Large(span) = heap.block_of(block) else {
                panic!("large")
            };
            heap.pages.free(span);
        }
    }
    assert_eq!(heap.pages.in_use_bytes(), 0);
    heap.check_invariants();
}

#[test]
fn a_growing_block_starts_in_the_longest_resident_run() {
    let heap = heap(64 << 20);
    let (first, _) = heap.allocate_large(1 << 20, 1);
    let Block::Large(span) = heap.block_of(first) else {
        panic!("large")
    };
    // SAFETY: the block is ours.
    unsafe { heap.pages.free(span) };
    let (block, zero) = heap.allocate_growing(64 << 10, || ());
    assert_eq!(block, first);
    assert!(!zero);
}

#[test]
fn free_pages_do_not_pile_up_beside_a_block_that_grows_over_fresh_ones() {
    const MIB: usize = 1 << 20;
    let heap = heap(64 << 20);
    heap.pages.os.clock_ms.store(1, Relaxed);
    let before = heap.allocate_large(MIB, 1).0;
    let (growing, _) = heap.allocate_growing(MIB, || ());
    let Block::Large(span) = heap.block_of(growing) else {
        panic!("large")
    };
    free_large(&heap, before);
    // SAFETY: the span is live.
    assert!(unsafe { heap.pages.resize_in_place(span, pages_for(2 * MIB)) });
    let inner = heap.pages.inner.lock();
    let resident = inner.in_use + inner.dirty.pages;
    assert!(
        resident <= inner.peak_in_use + pages_for(64 << 10),
        "{resident} pages of {} at most in use",
        inner.peak_in_use
    );
    drop(inner);
    heap.check_invariants();
}

#[test]
fn places_are_made_of_wider_ones_that_were_given_back() {
    let heap = Box::new(Heap::new(FakeOs::new(64 << 20)));
    let places = &heap.pages;
    let wide = places.take(6);
    // SAFETY: the places are ours and not used any more.
    unsafe { places.give(wide, 6) };
    let used = places.inner.lock().metadata_bytes();
    let taken = [4, 4, 5].map(|width| places.take(width));
    // SAFETY: within the 64 places.
    assert_eq!(taken, unsafe { [wide, wide.add(16), wide.add(32)] });
    assert_eq!(places.inner.lock().metadata_bytes(), used);
    assert_eq!(places.take(2).align_offset(32), 0, "none is left");
    assert!(places.inner.lock().metadata_bytes() > used);
}

#[test]
fn large_blocks_grow_and_shrink_in_place() {
    let heap = heap(64 << 20);
    let (block, _) = heap.allocate_growing(300 << 10, || ());
    let Block::Large(span) = heap.block_of(block) else {
        panic!("large")
    };
    // SAFETY: the span is live.
    unsafe {
        for pages in [50, 200, 1_000, 300, 38] {
            let grows = pages > (*span).pages as usize;
            assert!(heap.pages.resize_in_place(span, pages), "{pages} pages");
            let room = if grows { headroom(pages) } else { 0 };
            let has = heap.usable_size(block) / PAGE_SIZE;
            assert!((pages..=pages + room).contains(&has), "{has} for {pages}");
            heap.check_invariants();
        }
        let (_, _) = heap.allocate_large(300 << 10, 1);
        assert!(
            !heap.pages.resize_in_place(span, 7_000),
            "something is in the way or no room"
        );
    }
}

/// A free run that is too short is taken before it is known that nothing follows.
#[test]
fn growth_in_vain_changes_nothing() {
    let heap = heap(64 << 20);
    let span_of = |bytes: usize| match heap.block_of(heap.allocate_large(bytes, 1).0) {
        Block::Large(span) => span,
        Block::Small(_) => panic!("large"),
    };
    let spans = [1 << 20, 512 << 10, 1 << 20].map(span_of);
    // SAFETY: the spans are in use until they are freed.
    unsafe {
        assert_eq!((*spans[0]).end(), (*spans[1]).start, "they are neighbours");
        assert_eq!((*spans[1]).end(), (*spans[2]).start, "they are neighbours");
        heap.pages.free(spans[1]);
        let in_use = heap.pages.in_use_bytes();
        assert!(!heap.pages.resize_in_place(spans[0], (4 << 20) / PAGE_SIZE));
        assert_eq!((*spans[0]).bytes(), 1 << 20);
        assert_eq!(heap.pages.in_use_bytes(), in_use);
        heap.check_invariants();
        heap.pages.free(spans[0]);
        heap.pages.free(spans[2]);
    }
    assert_eq!(heap.pages.in_use_bytes(), 0);
    heap.check_invariants();
}

#[test]
fn a_consumer_gets_the_producers_batches_through_the_transfer_cache() {
    let heap = heap(64 << 20);
    let (producer, consumer) = (ThreadCache::new(), ThreadCache::new());
    producer.start(1, heap.epoch());
    consumer.start(2, heap.epoch());
    let class = class_of(64).expect("small");
    for _ in 0..200_000 {
        let mut block = producer.pop(class);
        if block.is_null() {
            block = producer.refill(&heap, class);
        }
        // SAFETY: the block is live and given to the consumer, who frees it.
        unsafe {
            if !consumer.push(class, block) {
                consumer.overflow(&heap, class, block);
            }
        }
    }
    let hits = heap.transfer(class).totals().hits;
    assert!(hits > 1_000, "only {hits} batches went through");
    let spans = heap.central(class).inner.lock().pages;
    assert!(spans < 64, "{spans} pages for a ring that holds nothing");
    producer.flush_all(&heap);
    consumer.flush_all(&heap);
    heap.trim(0);
    heap.check_invariants();
}

#[test]
fn one_thread_sees_addresses_in_order_after_freeing_at_random() {
    let heap = heap(64 << 20);
    let mut random = Random::new(7);
    let mut model = Model::new(&heap);
    // Less than a megabyte, in which batches in any order are stored (`thread_cache/unsorted`).
    for _ in 0..12_000 {
        model.allocate(64, 1);
    }
    while !model.live.is_empty() {
        let at = random.below(model.live.len());
        model.free(at);
    }
    model.cache.flush_all(&heap);
    for _ in 0..10_000 {
        model.allocate(64, 1);
    }
    let ascending = model
        .live
        .windows(2)
        .filter(|pair| pair[1].block > pair[0].block)
        .count();
    assert!(ascending > 9_000, "only {ascending} of 9,999 steps ascend");
    model.finish();
}

#[test]
fn caches_stay_within_their_budget() {
    let heap = heap(256 << 20);
    let mut model = Model::new(&heap);
    for round in 0..3 {
        for class in 1..NUM_CLASSES {
            for _ in 0..50 {
                model.allocate(size_of_class(class), round);
            }
            while !model.live.is_empty() {
                model.free(0);
            }
        }
    }
    let firsts: usize = (1..NUM_CLASSES)
        .map(|class| size_of_class(class).max(2048))
        .sum();
    assert!(model.cache.bytes() <= crate::thread_cache::DEFAULT_BYTES + firsts);
    model.finish();
}
