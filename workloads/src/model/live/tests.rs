use super::*;
use crate::model::definition::Distribution;

fn block(slot: u32) -> Block {
    Block::new(Parts {
        slot,
        size: slot + 1,
        target: slot + 1,
        mark: 0,
        align_log2: 0,
        shared: false,
    })
}

fn filled(lifetime: &Lifetime, count: u32) -> (LiveSet, Pcg64) {
    let mut random = Pcg64::new(5, 6);
    let mut set = LiveSet::new(lifetime, 1000, 1.0);
    for slot in 0..count {
        set.put(block(slot), &mut random);
    }
    (set, random)
}

fn slots(blocks: &[Block]) -> Vec<u32> {
    blocks.iter().map(|block| block.slot()).collect()
}

#[test]
fn extraction_follows_its_order_and_keeps_the_rest() {
    let (mut set, mut random) = filled(&Lifetime::Phase, 8);
    assert_eq!(
        slots(&set.extract(0.5, DropOrder::Alternate, &mut random)),
        [1, 3, 5, 7]
    );
    assert_eq!(
        slots(&set.extract(0.5, DropOrder::Youngest, &mut random)),
        [6, 4]
    );
    assert_eq!(
        slots(&set.extract(0.5, DropOrder::Oldest, &mut random)),
        [0]
    );
    assert_eq!((set.len(), set.bytes()), (1, 3));
    for lifetime in [
        Lifetime::Random,
        Lifetime::Generational {
            nursery: 3,
            survive: 0.5,
            generations: 2,
        },
        Lifetime::Drawn {
            allocations: Distribution::Uniform { min: 90, max: 500 },
        },
    ] {
        let (mut set, mut random) = filled(&lifetime, 80);
        let bytes = set.bytes();
        let gone = set.extract(0.75, DropOrder::Random, &mut random);
        let gone_bytes: u64 = gone.iter().map(|block| u64::from(block.size())).sum();
        assert_eq!((gone.len(), set.len()), (60, 20), "{lifetime:?}");
        assert_eq!(set.bytes() + gone_bytes, bytes);
        assert_eq!(set.extract(1.0, DropOrder::Oldest, &mut random).len(), 20);
        assert_eq!(set.bytes(), 0);
    }
}

#[test]
fn victims_follow_their_rule() {
    let (mut set, mut random) = filled(&Lifetime::Lifo, 3);
    assert_eq!(
        set.take_victim(&mut random).map(|block| block.slot()),
        Some(2)
    );
    let by_size = Lifetime::BySize {
        dies: Dies::Small,
        tries: 16,
    };
    let (mut set, mut random) = filled(&by_size, 1000);
    let sum: u32 = (0..100)
        .filter_map(|_| set.take_victim(&mut random))
        .map(|block| block.slot())
        .sum();
    assert!(sum / 100 < 120, "{}", sum / 100);
    // Hot keys: the first of a thousand places is replaced about every seventh time, and keeps its place.
    let (mut set, mut random) = filled(&Lifetime::Zipf { exponent: 1.0 }, 1000);
    let mut first = 0;
    for slot in 1000..11_000 {
        let victim = set.take_victim(&mut random).unwrap();
        let is_first = victim.slot() == 0 || victim.target() == u32::MAX;
        first += u32::from(is_first);
        let target = if is_first { u32::MAX } else { 1 };
        let mut next = block(slot);
        next.set_target(target);
        set.put(next, &mut random);
    }
    assert!((1200..2000).contains(&first), "{first}");
}

#[test]
fn survivors_pass_through_their_nurseries() {
    let lifetime = Lifetime::Generational {
        nursery: 100,
        survive: 0.1,
        generations: 2,
    };
    let (mut set, mut random) = filled(&lifetime, 0);
    let mut ages = Vec::new();
    for slot in 0..100_000 {
        while let Some(dead) = set.take_surplus(50, &mut random) {
            ages.push(slot - dead.slot());
        }
        set.put(block(slot), &mut random);
    }
    let young = ages.iter().filter(|&&age| age <= 101).count() as f64;
    let share = young / ages.len() as f64;
    assert!((0.88..0.92).contains(&share), "{share}");
    let old = ages.iter().filter(|&&age| age > 3000).count() as f64 / ages.len() as f64;
    assert!((0.004..0.010).contains(&old), "{old}");
    assert!((240..=252).contains(&set.len()), "{}", set.len());
}

#[test]
fn recency_takes_each_kind_in_its_share() {
    let lifetime = Lifetime::Recency {
        newest: 4.0,
        near: 1.0,
        ranks: Some(Distribution::Fixed { values: 7 }),
        next: 2.0,
        previous: 0.0,
        oldest: 2.0,
        random: 1.0,
        run: 1.0,
        above: None,
        below: None,
    };
    let (mut set, mut random) = filled(&lifetime, 1000);
    let mut alive: Vec<u32> = (0..1000).collect();
    let mut seen = [0u32; 5];
    let mut above = None;
    for slot in 1000..51_000 {
        let dead = set.take_victim(&mut random).unwrap().slot();
        let place = alive.binary_search(&dead).unwrap();
        let kind = match alive.len() - 1 - place {
            0 => 0,
            7 => 1,
            _ if Some(dead) == above => 2,
            _ if place == 0 => 3,
            _ => 4,
        };
        seen[kind] += 1;
        alive.remove(place);
        above = alive.get(place).copied();
        set.put(block(slot), &mut random);
        alive.push(slot);
    }
    // Where nothing is above, a `next` is the newest; the one above the oldest is the oldest, and counts as `next`.
    let share = |kind: usize| f64::from(seen[kind]) / 50_000.0;
    assert!((0.095..0.14).contains(&share(1)), "{seen:?}");
    assert!((0.08..0.12).contains(&share(4)), "{seen:?}");
    assert!(share(0) > 0.38 && share(2) + share(3) > 0.2, "{seen:?}");
    assert!((seen.iter().sum::<u32>(), set.len()) == (50_000, 1000));
}
