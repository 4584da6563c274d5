//! The model on a system that refuses.

use super::walks::draw;
use super::{Op, World};
use crate::heap_tests::Random;
use crate::os::fake::{Call, FakeOs};
use crate::plant::{Plant, plant};
use std::sync::atomic::Ordering::Relaxed;

/// Which calls of a kind a life makes, and whose: [`Call::Protect`] is the guarded blocks' alone (`hardened/guard.rs`).
type Made = [usize; Call::ALL.len()];

fn allocate(world: &mut World, count: usize, size: usize) {
    (0..count).for_each(|_| world.step(Op::Allocate { thread: 0, size }));
}

/// A random life, ...
fn mixed(world: &mut World) {
    let mut random = Random::new(5);
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
}

/// ... one in which a class and the heap grow long, so that pages are populated and become huge, ...
fn growing(world: &mut World) {
    allocate(world, 3_500, 480);
    allocate(world, 1_000, 16 << 10);
    world.check();
}

/// ... one at the end of memory, where short blocks use what large ones have left, ...
fn exhausted(world: &mut World) {
    world.step(Op::Memory { limit: 12 << 20 });
    allocate(world, 60, 512 << 10);
    let mapped = world.heap.pages.os.mapped.load(Relaxed);
    world.step(Op::Memory { limit: mapped });
    while !world.addresses.is_empty() {
        world.step(Op::Free { thread: 0, at: 0 });
    }
    allocate(world, 30_000, 40);
    world.check();
    world.step(Op::Memory { limit: usize::MAX });
}

/// ... and the same where no pages can be handed over, so that they are unmapped.
fn exhausted_for_good(world: &mut World) {
    world.heap.pages.os[Call::HandOver].allow(0);
    exhausted(world);
}

/// What a life calls on a system of which `fail` says what it refuses.
fn calls(life: fn(&mut World), fail: impl Fn(&FakeOs)) -> Made {
    let mut world = World::new();
    fail(&world.heap.pages.os);
    life(&mut world);
    let os = &world.heap.pages.os;
    let made = Call::ALL.map(|call| os[call].made());
    world.finish();
    made
}

/// The n-th request of a kind to the system fails, for every kind and every n.
#[test]
fn a_failure_of_the_system_at_any_one_point_is_survived() {
    let mut all = [0; Call::ALL.len()];
    for life in [mixed, growing, exhausted, exhausted_for_good] {
        let made = calls(life, |_| ());
        for (at, call) in Call::ALL.into_iter().enumerate() {
            all[at] += made[at];
            for nth in 0..made[at] {
                calls(life, |os| os[call].fail(nth));
            }
        }
    }
    for (call, made) in Call::ALL.into_iter().zip(all) {
        assert!(made > 0 || call == Call::Protect, "no {call:?} was made");
    }
}

/// The control: an answer of the system that nobody looks at.
#[test]
fn a_refusal_that_is_overlooked_is_noticed() {
    for (mistake, noticed) in [(None, false), (Some(Plant::RefusalOverlooked), true)] {
        plant(mistake);
        let life = || calls(mixed, |os| os[Call::Purge].allow(20));
        let end = std::panic::catch_unwind(life);
        plant(None);
        assert_eq!(end.is_err(), noticed, "{mistake:?}");
    }
}
