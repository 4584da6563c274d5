//! A model of the whole heap below the C names: every operation, by two threads' caches, against a map
//! of live blocks. Checked at each step: overlap, alignment, contents, zeros, and that every object of
//! every class is accounted for. Short runs walk the heap after every step and shrink when they fail;
//! long ones make millions of steps. Positive controls show that each kind of damage is noticed.

use crate::heap::{Block, Heap};
use crate::heap_tests::Random;
use crate::idle::Idle;
use crate::os::fake::FakeOs;
use crate::size_class::{NUM_CLASSES, class_of, class_of_aligned, size_of_class};
use crate::thread_cache::ThreadCache;
use crate::units::{PAGE_SIZE, pages_for};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

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
    /// The system's mood: memory that it still gives, and whether it takes pages back.
    Memory {
        limit: usize,
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
    /// Objects of each class in caches of threads that are gone.
    lost: [usize; NUM_CLASSES],
    threads: u32,
    steps: u64,
}

/// Objects of a class that a cache holds.
fn held(cache: &ThreadCache, class: usize) -> usize {
    cache.len(class)
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
        self.give(thread, address);
        self.allocate(thread, size);
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
                let (block, zero) = self.heap.allocate_growing(size);
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
                for class in 1..NUM_CLASSES {
                    self.lost[class] += held(cache, class);
                }
                self.threads += 1;
                self.caches[thread % 2] = ThreadCache::new();
                self.caches[thread % 2].start(self.threads, self.heap.epoch());
            }
            Op::Memory { limit } => self.heap.pages.os.limit.store(limit, Relaxed),
            Op::Purges { allowed } => {
                let count = if allowed { usize::MAX } else { 0 };
                self.heap.pages.os.purges_allowed.store(count, Relaxed);
            }
        }
    }

    /// Every object that has left the middle tier is live, cached, on its way, or lost.
    fn account(&self) {
        let mut live = [0; NUM_CLASSES];
        let mut large = 0;
        for &address in self.live.keys() {
            match self.heap.block_of(address as *mut u8) {
                Block::Small(class) => live[class] += 1,
                // SAFETY: the span is the live block's.
                Block::Large(span) => large += unsafe { (*span).pages } as usize,
            }
        }
        let mut small = 0;
        for (class, &live) in live.iter().enumerate().skip(1) {
            let cached: usize = self.caches.iter().map(|cache| held(cache, class)).sum();
            let moving = self.heap.transfers[class].0.inner.lock().objects;
            let central = self.heap.centrals[class].0.inner.lock();
            small += central.pages as usize;
            assert_eq!(
                (central.handed_out - central.taken_back) as usize,
                live + cached + moving + self.lost[class],
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
        self.heap.pages.os.purges_allowed.store(usize::MAX, Relaxed);
        self.heap.trim(0);
        let walk = self.heap.check_invariants();
        self.account();
        assert_eq!((walk.large, walk.dirty), (0, 0), "all pages went back");
        let lost: usize = self.lost.iter().sum();
        assert!(lost > 0 || walk.small == 0, "all spans went back");
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 1..200_usize,
        4 => 1..5_000_usize,
        2 => 1..70_000_usize,
        1 => 1..600_000_usize,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<usize>();
    prop_oneof![
        20 => (0..2_usize, size()).prop_map(|(thread, size)| Op::Allocate { thread, size }),
        4 => (0..2_usize, 3..17_u32, size())
            .prop_map(|(thread, shift, size)| Op::Aligned { thread, shift, size }),
        3 => size().prop_map(|size| Op::One { size }),
        2 => size().prop_map(|size| Op::Growing { size }),
        22 => (0..2_usize, at).prop_map(|(thread, at)| Op::Free { thread, at }),
        4 => (0..2_usize, any::<usize>(), size())
            .prop_map(|(thread, at, size)| Op::Resize { thread, at, size }),
        1 => (0..1_usize << 20).prop_map(|keep| Op::Trim { keep }),
        1 => Just(Op::Call),
        2 => Just(Op::Look),
        2 => (0..2_000_u64).prop_map(|ms| Op::Clock { ms }),
        1 => (0..2_usize).prop_map(|thread| Op::Orphan { thread }),
        1 => prop_oneof![Just(usize::MAX), 0..4_usize << 20]
            .prop_map(|limit| Op::Memory { limit }),
        1 => any::<bool>().prop_map(|allowed| Op::Purges { allowed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_keeps_every_invariant(ops in prop::collection::vec(op(), 1..400)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
            world.check();
        }
        world.finish();
    }
}

/// The same steps, drawn cheaply.
fn draw(random: &mut Random) -> Op {
    let thread = random.below(2);
    let at = random.next() as usize;
    match random.below(1_000) {
        0..440 => {
            let bits = if random.below(200) == 0 { 19 } else { 11 };
            Op::Allocate {
                thread,
                size: random.size(bits),
            }
        }
        440..460 => Op::Aligned {
            thread,
            shift: random.below(17) as u32,
            size: random.size(11),
        },
        460..470 => Op::One {
            size: random.size(14),
        },
        470..472 => Op::Growing {
            size: random.size(19),
        },
        472..950 => Op::Free { thread, at },
        950..990 => Op::Resize {
            thread,
            at,
            size: random.size(14),
        },
        _ if random.below(20) > 0 => Op::Clock { ms: 1 },
        _ => match random.below(60) {
            0..4 => Op::Trim {
                keep: random.size(20),
            },
            4..8 => Op::Call,
            8..20 => Op::Look,
            20 => Op::Orphan { thread },
            21..23 => Op::Purges { allowed: false },
            23..30 => Op::Purges { allowed: true },
            _ => Op::Clock { ms: 300 },
        },
    }
}

fn walk(seed: u64, steps: u32) {
    let mut random = Random::new(seed);
    let mut world = World::new();
    for step in 0..steps {
        world.step(draw(&mut random));
        if step % 100_000 == 0 {
            world.check();
        }
        // Growth and decline, so that spans and runs come and go.
        if world.addresses.len() > 6_000 {
            while world.addresses.len() > 500 {
                let at = random.next() as usize;
                world.step(Op::Free {
                    thread: random.below(2),
                    at,
                });
            }
        }
    }
    world.check();
    world.finish();
}

/// Steps of each long walk: there are four.
const STEPS: u32 = 2_600_000;

#[test]
fn ten_million_steps_first_part() {
    walk(1, STEPS);
}

#[test]
fn ten_million_steps_second_part() {
    walk(2, STEPS);
}

#[test]
fn ten_million_steps_third_part() {
    walk(3, STEPS);
}

#[test]
fn ten_million_steps_fourth_part() {
    walk(4, STEPS);
}

/// A world in which every tier holds something.
fn lived_in() -> World {
    let mut random = Random::new(11);
    let mut world = World::new();
    for _ in 0..20_000 {
        world.step(draw(&mut random));
    }
    world.step(Op::Purges { allowed: true });
    world.check();
    world
}

/// The span and number of some live small block.
fn some_live(world: &World) -> (*mut crate::span::Span, usize, usize) {
    let map = &world.heap.pages.map;
    let (&address, class) = world
        .live
        .keys()
        .find_map(|address| match world.heap.block_of(*address as *mut u8) {
            Block::Small(class) if size_of_class(class) >= 64 => Some((address, class)),
            _ => None,
        })
        .expect("small blocks are live");
    // SAFETY: the block is live.
    unsafe {
        let (span, index) = crate::central::locate(&world.heap.pages, class, address);
        assert!(!span.is_null() && map.class_of_page((*span).start as usize) == class);
        (span, index, address)
    }
}

#[test]
fn planted_damage_of_each_kind_is_noticed() {
    type Damage = (&'static str, fn(&mut World));
    let damages: [Damage; 11] = [
        ("nothing", |_| {}),
        ("a live object is marked free", |world| {
            let (span, index, _) = some_live(world);
            // SAFETY: the bit belongs to the object; nobody else runs.
            unsafe { *(*span).bits.add(index / 64) |= 1 << (index % 64) };
        }),
        (
            "a live object is counted and marked free, so that it is handed out twice",
            |world| {
                let (span, index, address) = some_live(world);
                // SAFETY: as above.
                let class = unsafe {
                    *(*span).bits.add(index / 64) |= 1 << (index % 64);
                    (*span).free += 1;
                    (*span).class as usize
                };
                let mut central = world.heap.centrals[class].0.inner.lock();
                central.taken_back += 1;
                drop(central);
                world.live.remove(&address);
                world.addresses.retain(|&other| other != address);
                // What the counts say now is consistent; only the contents betray it.
                let (block, _) = world.heap.take_one(class);
                world.enter(block, 8, 8, false);
                for _ in 0..100_000 {
                    let (block, _) = world.heap.take_one(class);
                    if block as usize == address {
                        break;
                    }
                    world.enter(block, 8, 8, false);
                }
                // SAFETY: the block is live: this is the damage.
                unsafe { *(world.addresses[0] as *mut u8) ^= 0x40 };
            },
        ),
        ("a byte of a live block is overwritten", |world| {
            let (_, _, address) = some_live(world);
            // SAFETY: the block is live.
            unsafe { *(address as *mut u8).add(1) ^= 0x10 };
        }),
        ("an object leaks out of a cache", |world| {
            let class = (1..NUM_CLASSES)
                .find(|&class| world.caches[0].len(class) > 0)
                .expect("something is cached");
            let _ = world.caches[0].pop(class);
        }),
        ("a span is missing from its list", |world| {
            for class in 1..NUM_CLASSES {
                let mut central = world.heap.centrals[class].0.inner.lock();
                if let Some(list) = central.lists.iter_mut().find(|list| list.head != 0) {
                    list.head = 0;
                    return;
                }
            }
        }),
        ("the count of purged pages is off", |world| {
            world.heap.centrals[3].0.inner.lock().purged_pages += 1;
        }),
        ("free pages are counted twice", |world| {
            world.heap.pages.inner.lock().clean.pages += 1;
        }),
        ("a page carries the class of another span", |world| {
            let (span, _, _) = some_live(world);
            // SAFETY: the record is live; the map is written back from it.
            unsafe {
                let class = (*span).class;
                (*span).class = if class == 5 { 6 } else { 5 };
                world.heap.pages.map.set_small(span);
                (*span).class = class;
            }
        }),
        ("two free neighbours are not joined", |world| {
            world.step(Op::Trim { keep: 0 });
            let mut inner = world.heap.pages.inner.lock();
            let id = inner.clean.longest();
            let table = world.heap.pages.map.table();
            // SAFETY: the number came from the lists.
            unsafe {
                let span = table.get(id);
                inner.unlist(table, span);
                inner.cut(&world.heap.pages, span, 1);
                let state = (*span).state;
                inner.lists_of(state).insert(table, span);
            }
        }),
        ("dirty pages are taken for zero", |world| {
            world.step(Op::Trim { keep: 0 });
            let (block, _) = world.heap.allocate_large(300 << 10, 1);
            let Block::Large(span) = world.heap.block_of(block) else {
                panic!("large")
            };
            // SAFETY: the block is ours; it is freed as if its pages had been moved away.
            unsafe {
                block.write_bytes(7, 300 << 10);
                world.heap.pages.free_moved(span);
            }
            let (block, zero) = world.heap.allocate_large(300 << 10, 1);
            world.enter(block, 300 << 10, PAGE_SIZE, zero);
        }),
    ];
    for (name, damage) in damages {
        let mut world = lived_in();
        let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            damage(&mut world);
            for (&address, live) in &world.live {
                World::check_contents(address, live.size, live.stamp);
            }
            world.check();
        }))
        .is_err();
        assert_eq!(noticed, name != "nothing", "{name}");
    }
}

/// The n-th request to the system fails, for every n, once each for mapping and giving back.
#[test]
fn a_failure_of_the_system_at_any_one_point_is_survived() {
    let script = |fail: &dyn Fn(&FakeOs)| {
        let mut random = Random::new(5);
        let mut world = World::new();
        fail(&world.heap.pages.os);
        for step in 0..2_500 {
            world.step(match draw(&mut random) {
                Op::Purges { .. } => Op::Look,
                _ if step % 40 == 0 => Op::Allocate {
                    thread: 0,
                    size: 700 << 10,
                },
                op => op,
            });
            if step % 500 == 499 {
                world.step(Op::Trim { keep: 0 });
                world.check();
            }
        }
        let os = &world.heap.pages.os;
        let calls = (os.maps.load(Relaxed), os.purges.load(Relaxed));
        world.finish();
        calls
    };
    let (maps, purges) = script(&|_| {});
    assert!(maps > 5 && purges > 50, "{maps} maps, {purges} purges");
    for nth in 0..maps {
        script(&|os| os.map_to_fail.store(nth, Relaxed));
    }
    for nth in 0..purges.min(150) {
        script(&|os| os.purge_to_fail.store(nth, Relaxed));
    }
}
