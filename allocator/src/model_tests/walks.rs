//! The model walked: short runs that shrink when they fail, with the heap looked at after every step, and long ones.

use super::{Op, World};
use crate::heap_tests::Random;
use proptest::prelude::*;

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
        1 => (1..crate::size_class::NUM_CLASSES).prop_map(|class| Op::Crowd { class }),
        1 => (0..2_usize, 9..600_usize, 20..200_usize)
            .prop_map(|(thread, size, count)| Op::Scatter { thread, size, count }),
        2 => Just(Op::Rest),
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
pub(super) fn draw(random: &mut Random) -> Op {
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
            size: {
                let bits = if random.below(50) == 0 { 20 } else { 14 };
                random.size(bits)
            },
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
            30..33 => Op::Crowd {
                class: 1 + random.below(40),
            },
            33..36 => Op::Scatter {
                thread,
                size: 9 + random.below(600),
                count: 200,
            },
            36..48 => Op::Rest,
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
    assert!(
        world.joined > 200,
        "{} blocks of several objects",
        world.joined
    );
    let moves = world.heap.pages.inner.lock().counters.moves;
    assert!(moves > 10, "{moves} runs went under blocks");
    world.finish();
}

/// Steps of each long walk: there are four.
const STEPS: u32 = 2_600_000;

/// Seed of a part: its number, or beyond `WALK_SEED`, which the nightly draws anew.
fn seed(part: u64) -> u64 {
    match std::env::var("WALK_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("WALK_SEED is a number");
            eprintln!("WALK_SEED={seed}");
            seed.wrapping_mul(4).wrapping_add(part)
        }
        Err(_) => part,
    }
}

#[test]
fn ten_million_steps_first_part() {
    walk(seed(1), STEPS);
}

#[test]
fn ten_million_steps_second_part() {
    walk(seed(2), STEPS);
}

#[test]
fn ten_million_steps_third_part() {
    walk(seed(3), STEPS);
}

#[test]
fn ten_million_steps_fourth_part() {
    walk(seed(4), STEPS);
}
