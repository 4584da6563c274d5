//! The model on a system that refuses.

use super::walks::draw;
use super::{Op, World};
use crate::heap_tests::Random;
use crate::os::fake::FakeOs;
use std::sync::atomic::Ordering::Relaxed;

/// The n-th request to the system fails, for every n, once each for mapping, giving back and moving.
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
        let calls = [&os.maps, &os.purges, &os.moves].map(|calls| calls.load(Relaxed));
        world.finish();
        calls
    };
    let [maps, purges, moves] = script(&|_| {});
    assert!(
        maps > 5 && purges > 50 && moves > 3,
        "{maps} maps, {purges} purges, {moves} moves"
    );
    for nth in 0..maps {
        script(&|os| os.map_to_fail.store(nth, Relaxed));
    }
    for nth in 0..purges.min(150) {
        script(&|os| os.purge_to_fail.store(nth, Relaxed));
    }
    for nth in 0..moves.min(150) {
        script(&|os| os.move_to_fail.store(nth, Relaxed));
    }
}
