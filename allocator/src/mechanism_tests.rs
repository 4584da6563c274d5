//! Observables of mechanisms (docs/DESIGN.md) that no other test shows: what each tier does for one request, what
//! the system is asked for, what records cost.

use crate::heap::{Block, Heap};
use crate::os::fake::{Call, FakeOs};
use crate::size_class::{MAX_SMALL, NUM_CLASSES, class_of, size_of_class};
use crate::thread_cache::ThreadCache;
use crate::units::{PAGE_SIZE, page_bytes};
use std::sync::atomic::Ordering::Relaxed;

fn heap(reach: usize) -> Box<Heap<FakeOs>> {
    Box::new(Heap::new(FakeOs::new(reach)))
}

fn take(heap: &Heap<FakeOs>, cache: &ThreadCache, class: usize) -> *mut u8 {
    match cache.pop(class) {
        block if block.is_null() => cache.refill(heap, class),
        block => block,
    }
}

/// The walk at the top of docs/DESIGN.md, with its figures.
#[test]
fn one_request_walks_down_the_tiers_and_the_next_ones_do_not() {
    let heap = heap(64 << 20);
    let cache = ThreadCache::new();
    cache.start(1, heap.epoch());
    let class = class_of(100).expect("small");
    assert_eq!((class, size_of_class(class)), (8, 112));
    let first = take(&heap, &cache, class);
    assert_eq!(cache.refills.load(Relaxed), 1);
    assert_eq!(cache.capacity(class), 17);
    assert_eq!(cache.len(class), 8, "one to the caller, eight into the bin");
    {
        let transfer = heap.transfer(class).totals();
        assert_eq!((transfer.hits, transfer.objects), (0, 0));
        let central = heap.central(class).inner.lock();
        assert_eq!(
            (central.handed_out, central.spans, central.pages),
            (9, 1, 1)
        );
        let pages = heap.pages.inner.lock();
        let counters = pages.counters;
        assert_eq!(
            (counters.growths, counters.splits, counters.spans_allocated),
            (1, 1, 1)
        );
        assert_eq!(page_bytes(pages.grown), 1 << 20);
        assert_eq!(pages.clean.pages, 127, "nothing behind the span is touched");
    }
    for number in 1..9 {
        let next = take(&heap, &cache, class);
        assert_eq!(
            next as usize,
            first as usize + number * 112,
            "in the order of addresses"
        );
    }
    assert_eq!(
        cache.refills.load(Relaxed),
        1,
        "no tier below the bin was asked"
    );
    take(&heap, &cache, class);
    assert_eq!(cache.refills.load(Relaxed), 2);
    assert!(cache.capacity(class) > 17, "a miss doubles the bin");
    assert_eq!(heap.pages.inner.lock().counters.spans_allocated, 1);
}

/// Pairs in a cache that has a block reach nothing else: all locks of the heap are held meanwhile.
#[test]
fn pairs_take_no_lock() {
    let heap = heap(64 << 20);
    let cache = ThreadCache::new();
    cache.start(1, heap.epoch());
    for size in [8, 64, 1000, 16 << 10] {
        let class = class_of(size).expect("small");
        // Bins of large objects have room after some misses.
        for _ in 0..16 {
            let block = take(&heap, &cache, class);
            // SAFETY: the block is ours and not in use.
            unsafe {
                if !cache.push(class, block) {
                    cache.overflow(&heap, class, block);
                }
            }
        }
        let block = take(&heap, &cache, class);
        heap.for_each_lock(|lock| assert!(lock.try_acquire(), "left locked"));
        let mut block = block;
        for _ in 0..1000 {
            // SAFETY: the block is ours and not in use.
            assert!(unsafe { cache.push(class, block) });
            block = cache.pop(class);
            assert!(!block.is_null());
        }
        heap.for_each_lock(crate::sync::RawLock::release);
    }
}

/// X3 of the transfer caches: whoever takes all locks, as a fork does, gives back the same ones, though classes get more of them
/// all the time.
#[test]
fn shards_do_not_open_between_the_taking_of_all_locks_and_their_release() {
    // Passes that met other locks than the one before.
    let mut changes = 0;
    for _ in 0..10_000 {
        let heap = heap(64 << 20);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for class in 1..NUM_CLASSES {
                    heap.transfer(class).spread(&heap.pages);
                }
                done.store(true, Relaxed);
            });
            let mut before = 0;
            while !done.load(Relaxed) {
                let (mut taken, mut given) = (Vec::new(), Vec::new());
                heap.for_each_lock(|lock| {
                    lock.acquire();
                    taken.push(core::ptr::from_ref(lock));
                });
                heap.for_each_lock(|lock| {
                    given.push(core::ptr::from_ref(lock));
                    lock.release();
                });
                assert_eq!(taken, given);
                changes += usize::from(before != 0 && taken.len() != before);
                before = taken.len();
            }
        });
        if changes >= 50 {
            return;
        }
    }
    panic!("only {changes} passes met other locks than the one before");
}

#[test]
fn small_and_large_blocks_meet_without_a_gap() {
    let heap = heap(64 << 20);
    for size in [32_767, 32_768, 32_769, MAX_SMALL - 1, MAX_SMALL] {
        let class = class_of(size).expect("small");
        let (block, _) = heap.take_one(class);
        assert!(matches!(heap.block_of(block), Block::Small(found) if found == class));
        assert!(heap.usable_size(block) >= size);
    }
    assert_eq!(class_of(MAX_SMALL + 1), None);
    for size in [MAX_SMALL + 1, 1_000_000] {
        let (block, _) = heap.allocate_large(size, 1);
        assert!(matches!(heap.block_of(block), Block::Large(_)));
        assert_eq!(heap.usable_size(block), size.next_multiple_of(PAGE_SIZE));
    }
}

#[test]
fn the_system_is_asked_at_most_once_for_a_mebibyte_and_records_stay_small() {
    let heap = heap(512 << 20);
    let cache = ThreadCache::new();
    cache.start(1, heap.epoch());
    let mut bytes = 0;
    let sizes = [16, 64, 100, 500, 1500, 4000, 30_000];
    for number in 0.. {
        let size = sizes[number % sizes.len()];
        assert!(!take(&heap, &cache, class_of(size).expect("small")).is_null());
        bytes += size;
        if bytes > 256 << 20 {
            break;
        }
    }
    let pages = heap.pages.inner.lock();
    let grown = page_bytes(pages.grown);
    // Heap, and four parts of the records each time they are full.
    let calls = heap.pages.os[Call::Map].made();
    assert!(calls <= grown >> 20, "{calls} calls for {grown} bytes");
    assert!(pages.counters.growths as usize <= grown >> 20);
    let records = pages.metadata_bytes();
    assert!(
        records * 50 <= grown,
        "{records} bytes of records for {grown}"
    );
}

/// Small blocks cost the most records: 1,024 of 8 bytes in a page have a bitmap of 128 bytes.
#[test]
fn records_of_the_smallest_blocks_stay_below_a_thirtieth() {
    let heap = heap(256 << 20);
    let class = class_of(8).expect("small");
    let mut objects = [core::ptr::null_mut(); 128];
    for _ in 0..(64 << 20) / 8 / objects.len() {
        assert_eq!(heap.refill(class, 1, &mut objects), objects.len());
    }
    let pages = heap.pages.inner.lock();
    let (grown, records) = (page_bytes(pages.grown), pages.metadata_bytes());
    assert!(
        records * 30 <= grown,
        "{records} bytes of records for {grown}"
    );
}

#[test]
fn stored_batches_are_sorted_before_the_heap_takes_fresh_pages() {
    let heap = heap(64 << 20);
    let class = class_of(1024).expect("small");
    let mut objects = [core::ptr::null_mut(); 32];
    let mut batches = Vec::new();
    for _ in 0..16 {
        // The first spans are short, and half of what was asked for is enough.
        let got = heap.refill(class, 1, &mut objects);
        assert!(got >= 16);
        batches.push(objects[..got].to_vec());
    }
    for batch in &batches {
        // SAFETY: the objects were handed out above and are nobody's.
        unsafe { heap.flush(class, 1, batch, true) };
    }
    let stored = heap.transfer(class).held() * 1024;
    assert!(stored >= 64 << 10, "{stored} bytes are stored");
    // Nothing resident is free that would do.
    let (block, _) = heap.allocate_large(1 << 20, 1);
    assert!(!block.is_null());
    assert_eq!(heap.transfer(class).held(), 0);
    heap.check_invariants();
}

#[test]
fn batches_of_few_objects_are_stored_up_to_a_share_or_sixteen_kib_unless_each_is_a_span() {
    for (size, stored) in [(8 << 10, 32 << 10), (64 << 10, 1 << 20)] {
        let heap = heap(64 << 20);
        let class = class_of(size).expect("small");
        let mut batches = Vec::new();
        // 256 KiB of the shorter blocks, an eighth of which is 32 KiB; 2 MiB of the longer ones.
        for _ in 0..32 {
            let mut objects = [core::ptr::null_mut()];
            assert_eq!(heap.refill(class, 1, &mut objects), 1);
            batches.push(objects);
        }
        for batch in &batches {
            // SAFETY: the objects were handed out above and are nobody's.
            unsafe { heap.flush(class, 1, batch, true) };
        }
        assert!(
            heap.transfer(class).held() * size <= stored,
            "{} of {size} bytes",
            heap.transfer(class).held()
        );
        assert!(heap.transfer(class).held() * size >= stored / 2);
        heap.check_invariants();
    }
}

#[test]
fn a_refill_is_content_with_half_rather_than_take_another_span() {
    let heap = heap(64 << 20);
    let class = class_of(1024).expect("small");
    let mut objects = [core::ptr::null_mut(); 32];
    // The first spans have a page, 8 objects.
    assert_eq!(heap.refill(class, 1, &mut objects), 16);
    assert_eq!(heap.refill(class, 1, &mut objects[..8]), 8);
    let (block, _) = heap.take_one(class);
    // Seven are left: less than half, so what they lack comes from pages that are resident ...
    let (large, _) = heap.allocate_large(1 << 20, 1);
    let crate::heap::Block::Large(span) = heap.block_of(large) else {
        panic!("1 MiB is no object of a class");
    };
    // SAFETY: the block is ours and not used any more.
    unsafe { heap.pages.free(span) };
    assert!(heap.refill(class, 1, &mut objects) >= 16);
    while !heap.central(class).is_dry() {
        assert!(!heap.take_one(class).0.is_null());
    }
    // ... and with a single one left and none such, that one is all.
    while heap.pages.has_dirty_run(1) {
        assert!(!heap.allocate_large(8 << 10, 1).0.is_null());
    }
    // SAFETY: the block was handed out above.
    unsafe { heap.give(class, &[block]) };
    assert_eq!(heap.refill(class, 1, &mut objects), 1);
    assert_eq!(objects[0], block);
    heap.check_invariants();
}
