//! A model of the whole heap below the C names: every operation, by two threads' caches, against a map
//! of live blocks. Checked at each step: overlap, alignment, contents, zeros, and that every object of
//! every class is accounted for. Short runs walk the heap after every step and shrink when they fail;
//! long ones make millions of steps. Positive controls show that each kind of damage is noticed.
//!
//! Not in the model, as they are about the process's one heap, its threads and processors, and tested by programs instead:
//! caches per CPU (`preload/tests/front_end.rs`, `conformance.rs` and `stress.rs` with that setting), the data partition (a second heap
//! of the same code: `tests/partition.rs`, `preload/tests/data.rs`), `check` and `hardened` (`preload/tests/detection.rs`, `misuse.rs`
//! with 21 kinds of mistakes under nine settings), tiny pieces (`tests/tiny.rs`, at random against a map of live pieces), and two threads
//! at once (loom, `preload/tests/stress.rs`, ThreadSanitizer).

use crate::continued::block_at;
use crate::heap::{Block, Heap};
use crate::idle::Idle;
use crate::os::fake::{Call, FakeOs};
use crate::size_class::{NUM_CLASSES, class_of, class_of_aligned, size_of_class};
use crate::thread_cache::ThreadCache;
use crate::units::{PAGE_SIZE, pages_for};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

mod damage;
mod failures;
mod walks;

/// One step. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate {
        thread: usize,
        size: usize,
    },
    Aligned {
        thread: usize,
        shift: u32,
        size: usize,
    },
    /// From the central list, as calloc does.
    One {
        size: usize,
    },
    Growing {
        size: usize,
    },
    Free {
        thread: usize,
        at: usize,
    },
    Resize {
        thread: usize,
        at: usize,
        size: usize,
    },
    Trim {
        keep: usize,
    },
    /// All caches are called to empty themselves.
    Call,
    Look,
    Clock {
        ms: u64,
    },
    /// A thread is gone without its end having been seen, as others are in a fork child.
    Orphan {
        thread: usize,
    },
    /// Most of many blocks of a size die, and nobody wants that size any more.
    Scatter {
        thread: usize,
        size: usize,
        count: usize,
    },
    /// Every class is looked at as before growth, so that those at rest lend their objects to others.
    Rest,
    /// The system's mood: memory that it still gives, and whether it takes pages back.
    Memory {
        limit: usize,
    },
    /// Many threads wait for each other in a class's transfer cache.
    Crowd {
        class: usize,
    },
    Purges {
        allowed: bool,
    },
}

struct Live {
    size: usize,
    stamp: u8,
}

struct World {
    heap: Box<Heap<FakeOs>>,
    caches: [ThreadCache; 2],
    idle: Idle,
    live: BTreeMap<usize, Live>,
    addresses: Vec<usize>,
    /// Objects of each class's spans in caches of threads that are gone.
    lost: [usize; NUM_CLASSES],
    threads: u32,
    steps: u64,
    /// Blocks of several objects that were handed out.
    joined: u64,
}

impl World {
    fn new() -> Self {
        let world = Self {
            heap: Box::new(Heap::new(FakeOs::new(64 << 20))),
            caches: [ThreadCache::new(), ThreadCache::new()],
            idle: Idle::new(),
            live: BTreeMap::new(),
            addresses: Vec::new(),
            lost: [0; NUM_CLASSES],
            threads: 2,
            steps: 0,
            joined: 0,
        };
        world.caches[0].start(1, 0);
        world.caches[1].start(2, 0);
        world
    }

    fn take(&self, thread: usize, class: usize) -> *mut u8 {
        let cache = &self.caches[thread];
        match cache.pop(class) {
            block if block.is_null() => cache.refill(&self.heap, class),
            block => block,
        }
    }

    /// A new block enters the model. Null is an answer.
    fn enter(&mut self, block: *mut u8, size: usize, align: usize, zero: bool) {
        if block.is_null() {
            return;
        }
        let address = block as usize;
        let usable = self.heap.usable_size(block);
        assert!(usable >= size, "usable");
        assert_eq!(address % align, 0, "alignment");
        if let Some((&below, other)) = self.live.range(..=address).next_back() {
            assert!(
                below + other.size <= address,
                "overlap with the block below"
            );
        }
        if let Some((&above, _)) = self.live.range(address..).next() {
            assert!(address + usable <= above, "overlap with the block above");
        }
        self.steps += 1;
        let stamp = self.steps as u8 | 1;
        // SAFETY: the block is new, all of `usable`.
        unsafe {
            if zero {
                let bytes = core::slice::from_raw_parts(block, usable);
                assert!(bytes.iter().all(|&byte| byte == 0), "a zero block is zero");
            }
            // Large blocks: both ends and one byte a page, so that steps stay short.
            if usable <= 4096 {
                block.write_bytes(stamp, usable);
            } else {
                (0..usable)
                    .step_by(4096)
                    .for_each(|at| *block.add(at) = stamp);
                *block.add(usable - 1) = stamp;
            }
        }
        if let Block::Small(_) = self.heap.block_of(block) {
            self.joined += u64::from(self.objects_of(address).1 > 1);
        }
        self.live.insert(
            address,
            Live {
                size: usable,
                stamp,
            },
        );
        self.addresses.push(address);
    }

    fn check_contents(address: usize, size: usize, stamp: u8) {
        // SAFETY: the block is live, `size` bytes of it are the model's.
        let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, size) };
        let same = if size <= 4096 {
            bytes.iter().all(|&byte| byte == stamp)
        } else {
            bytes.iter().step_by(4096).all(|&byte| byte == stamp) && bytes[size - 1] == stamp
        };
        assert!(same, "contents of {address:#x}");
    }

    fn leave(&mut self, at: usize) -> Option<(usize, Live)> {
        if self.addresses.is_empty() {
            return None;
        }
        let address = self.addresses.swap_remove(at % self.addresses.len());
        let live = self.live.remove(&address).expect("addresses are live");
        Self::check_contents(address, live.size, live.stamp);
        Some((address, live))
    }

    fn give(&self, thread: usize, address: usize) {
        let block = address as *mut u8;
        match self.heap.block_of(block) {
            // SAFETY: the block is live and freed once.
            Block::Small(class) => unsafe {
                let class = if thread == 0 {
                    class
                } else {
                    self.least_class(address)
                };
                if !self.caches[thread].push(class, block) {
                    self.caches[thread].overflow(&self.heap, class, block);
                }
            },
            // SAFETY: as above.
            Block::Large(span) => unsafe { self.heap.pages.free(span) },
        }
    }

    fn allocate(&mut self, thread: usize, size: usize) {
        let align = if size > 8 { 16 } else { 8 };
        match class_of(size) {
            Some(class) => {
                let block = self.take(thread, class);
                self.enter(block, size, align, false);
            }
            None => {
                let (block, zero) = self.heap.allocate_large(size, 1);
                self.enter(block, size, PAGE_SIZE, zero);
            }
        }
    }

    fn resize(&mut self, thread: usize, at: usize, size: usize) {
        let Some((address, old)) = self.leave(at) else {
            return;
        };
        if let Block::Large(span) = self.heap.block_of(address as *mut u8)
            && size > 32 << 10
            // SAFETY: the span is the live block's.
            && unsafe { self.heap.pages.resize_in_place(span, pages_for(size)) }
        {
            // SAFETY: as above. The bytes that both sizes have are still there.
            let kept = old.size.min(unsafe { (*span).bytes() });
            let bytes = (0..kept).step_by(4096);
            for offset in bytes {
                // SAFETY: the block is live.
                let byte = unsafe { *(address as *const u8).add(offset) };
                assert_eq!(
                    byte, old.stamp,
                    "contents after growing or shrinking in place"
                );
            }
            self.enter(address as *mut u8, size, PAGE_SIZE, false);
            return;
        }
        if size > old.size && self.grow_by_moving(address, &old, size) {
            return;
        }
        self.give(thread, address);
        self.allocate(thread, size);
    }

    /// A large block that cannot grow where it is gives its pages to another; false: it is small, or that was refused.
    fn grow_by_moving(&mut self, address: usize, old: &Live, size: usize) -> bool {
        let Block::Large(from) = self.heap.block_of(address as *mut u8) else {
            return false;
        };
        let (block, _) = self.heap.allocate_growing(size, || ());
        if block.is_null() {
            return false;
        }
        let Block::Large(to) = self.heap.block_of(block) else {
            panic!("large")
        };
        // SAFETY: both blocks are live; the first is freed with its pages gone, or the second unused.
        unsafe {
            let Some(state) = self.heap.pages.move_pages(from, to) else {
                self.heap.pages.free(to);
                return false;
            };
            Self::check_contents(block as usize, old.size, old.stamp);
            self.heap.pages.free_moved(from, state);
        }
        self.enter(block, size, PAGE_SIZE, false);
        true
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Allocate { thread, size } => self.allocate(thread % 2, size),
            Op::Aligned {
                thread,
                shift,
                size,
            } => {
                let align = 1 << (shift % 17);
                match class_of_aligned(size, align) {
                    Some(class) => {
                        let block = self.take(thread % 2, class);
                        let block = self.heap.at_multiple(align, class, block);
                        self.enter(block, size, align, false);
                    }
                    None => {
                        let (block, zero) = self.heap.allocate_large(size, align);
                        self.enter(block, size, align.max(PAGE_SIZE), zero);
                    }
                }
            }
            Op::One { size } => {
                let class = class_of(size % (256 << 10)).expect("small");
                let (block, zero) = self.heap.take_one(class);
                self.enter(block, size_of_class(class), 8, zero);
            }
            Op::Growing { size } => {
                let (block, zero) = self.heap.allocate_growing(size, || ());
                self.enter(block, size, PAGE_SIZE, zero);
            }
            Op::Free { thread, at } => {
                if let Some((address, _)) = self.leave(at) {
                    self.give(thread % 2, address);
                }
            }
            Op::Resize { thread, at, size } => self.resize(thread % 2, at, size),
            Op::Trim { keep } => {
                self.heap.trim(keep);
            }
            Op::Call => {
                self.heap.raise_epoch();
                self.caches[0].follow_epoch(&self.heap);
            }
            Op::Look => {
                self.heap.release_idle(&mut self.idle);
            }
            Op::Clock { ms } => {
                self.heap.pages.os.clock_ms.fetch_add(ms, Relaxed);
            }
            Op::Orphan { thread } => {
                let cache = &self.caches[thread % 2];
                for &block in (1..NUM_CLASSES).flat_map(|class| cache.objects(class)) {
                    let (class, objects) = self.objects_of(block as usize);
                    self.lost[class] += objects;
                }
                self.threads += 1;
                self.caches[thread % 2] = ThreadCache::new();
                self.caches[thread % 2].start(self.threads, self.heap.epoch());
            }
            Op::Scatter {
                thread,
                size,
                count,
            } => {
                let from = self.addresses.len();
                (0..count).for_each(|_| self.allocate(thread % 2, size));
                for at in (from..self.addresses.len()).rev() {
                    if at % 7 > 0
                        && let Some((address, _)) = self.leave(at)
                    {
                        self.give(thread % 2, address);
                    }
                }
                self.caches[thread % 2].flush_all(&self.heap);
            }
            Op::Rest => {
                (0..2 * NUM_CLASSES).for_each(|_| self.heap.purge_unwanted(1));
                // Longer blocks shall find no free pages that are resident.
                self.heap.pages.release_free(0);
            }
            Op::Memory { limit } => self.heap.pages.os.limit.store(limit, Relaxed),
            Op::Crowd { class } => self.heap.transfer(class).spread(&self.heap.pages),
            Op::Purges { allowed } => {
                let count = if allowed { usize::MAX } else { 0 };
                self.heap.pages.os[Call::Purge].allow(count);
            }
        }
    }

    /// The class of the span that a small block is in, and how many of its objects the block has.
    fn objects_of(&self, address: usize) -> (usize, usize) {
        let map = &self.heap.pages.map;
        let page = map.page_of(address).expect("an address of the heap");
        // SAFETY: the block keeps its span.
        unsafe {
            let span = &*map.span_of_page(page);
            (span.class.into(), block_at(map.table(), span, address).1)
        }
    }

    /// The shortest class that a small block may have been asked for as: what freeing it by its size says.
    fn least_class(&self, address: usize) -> usize {
        let (class, objects) = self.objects_of(address);
        let class = class_of((objects - 1) * size_of_class(class) + 1).max(Some(class));
        class.expect("small")
    }

    /// Every object that has left the middle tier is live, cached, on its way, or lost.
    fn account(&self) {
        let mut outside = self.lost;
        let mut large = 0;
        let mut count = |address| {
            let (class, objects) = self.objects_of(address);
            outside[class] += objects;
        };
        for &address in self.live.keys() {
            match self.heap.block_of(address as *mut u8) {
                Block::Small(_) => count(address),
                // SAFETY: the span is the live block's.
                Block::Large(span) => large += unsafe { (*span).pages } as usize,
            }
        }
        for class in 1..NUM_CLASSES {
            for &block in self.caches.iter().flat_map(|cache| cache.objects(class)) {
                count(block as usize);
            }
            for shard in self.heap.transfer(class).all() {
                let inner = shard.lock();
                inner
                    .stored()
                    .iter()
                    .for_each(|&block| count(block as usize));
            }
        }
        let mut small = 0;
        for (class, &outside) in outside.iter().enumerate().skip(1) {
            let central = self.heap.central(class).inner.lock();
            small += central.pages as usize;
            assert_eq!(
                (central.handed_out - central.taken_back) as usize,
                outside,
                "objects of class {class}"
            );
        }
        assert_eq!(
            self.heap.pages.inner.lock().in_use,
            small + large,
            "pages in use"
        );
    }

    fn check(&self) {
        let walk = self.heap.check_invariants();
        let mut pages = [0; 5];
        let ended = self.heap.walk(|region| {
            pages[region.kind as usize] += region.bytes / PAGE_SIZE;
            true
        });
        assert!(ended);
        let seen = [0, walk.small, walk.large, walk.dirty, walk.clean];
        assert_eq!(
            pages, seen,
            "the heap walk and the invariant walker see the same"
        );
        self.caches.iter().for_each(ThreadCache::check_invariants);
        self.account();
    }

    fn finish(mut self) {
        while let Some((address, _)) = self.leave(0) {
            self.give(1, address);
        }
        self.caches
            .iter()
            .for_each(|cache| cache.flush_all(&self.heap));
        self.heap.pages.os[Call::Purge].allow(usize::MAX);
        self.heap.trim(0);
        let walk = self.heap.check_invariants();
        self.account();
        assert_eq!((walk.large, walk.dirty), (0, 0), "all pages went back");
        let lost: usize = self.lost.iter().sum();
        assert!(lost > 0 || walk.small == 0, "all spans went back");
    }
}
