//! Positive controls: damage of each kind, planted into a heap that has been lived in, is noticed.

use super::walks::draw;
use super::{Op, World};
use crate::continued::{Continued, block_at};
use crate::heap::Block;
use crate::heap_tests::Random;
use crate::size_class::{NUM_CLASSES, size_of_class};
use crate::span::State;
use crate::units::PAGE_SIZE;

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

/// Some live block of several objects, behind which the next object is free: one in use would be no block any more once its bit is
/// set, and whoever looks at such an address ends the process.
fn a_joined_one(world: &mut World) -> usize {
    world.step(Op::Scatter {
        thread: 0,
        size: 200,
        count: 300,
    });
    world.step(Op::Rest);
    for _ in 0..200 {
        world.step(Op::Allocate {
            thread: 1,
            size: 700,
        });
        let block = *world.addresses.last().expect("there is memory");
        let map = &world.heap.pages.map;
        // SAFETY: the block is live, and nobody else is there.
        let (span, (first, objects)) = unsafe {
            let span = map.span_of_page(map.page_of(block).expect("a block"));
            (&*span, block_at(map.table(), span, block))
        };
        let behind = first + objects;
        let free = span.next_object::<true>(behind, usize::from(span.objects)) == Some(behind);
        if objects > 1 && free {
            world.check();
            return block;
        }
    }
    panic!("none of 200 blocks has several objects");
}

/// Which objects belong to the one before them in the span of some live block of several, and the number of its last one.
fn end_of_a_joined_one(world: &mut World) -> (Continued, usize) {
    let block = a_joined_one(world);
    let map = &world.heap.pages.map;
    // SAFETY: the block is live, and nobody else is there.
    unsafe {
        let span = map.span_of_page(map.page_of(block).expect("a block"));
        let (first, objects) = block_at(map.table(), span, block);
        let continued = Continued::of(span, map.table()).expect("it has several objects");
        (continued, first + objects - 1)
    }
}

#[test]
fn planted_damage_of_each_kind_is_noticed() {
    type Damage = (&'static str, fn(&mut World));
    let damages: [Damage; 13] = [
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
                    (*span).until_notice -= 1;
                    (*span).class as usize
                };
                let mut central = world.heap.central(class).inner.lock();
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
        (
            "an object belongs to the one before it for no reason",
            |world| {
                // The bit behind its last object is of another block or of none.
                let (continued, last) = end_of_a_joined_one(world);
                continued.join(last, 2);
            },
        ),
        ("a block of several objects lost its last one", |world| {
            let (continued, last) = end_of_a_joined_one(world);
            continued.part(last, 1);
        }),
        ("a span is missing from its list", |world| {
            for class in 1..NUM_CLASSES {
                let mut central = world.heap.central(class).inner.lock();
                if let Some(list) = central.lists.iter_mut().find(|list| list.head != 0) {
                    list.head = 0;
                    return;
                }
            }
        }),
        ("the count of purged pages is off", |world| {
            world.heap.central(3).inner.lock().purged_pages += 1;
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
                world.heap.pages.free_moved(span, State::FreeClean);
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
