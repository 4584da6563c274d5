//! What a model says is what its script does: lifetimes, shares and orders, seen in the ops themselves.

use heaplab_script::{FLAG_SHARED, Op, OpKind, Script};
use heaplab_workloads::{Model, ModelParams};
use std::collections::HashMap;

/// The script of a model with one role "r" of `threads` threads and these keys in its table.
fn script(threads: u32, ops: u64, keys: &str) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    let text = format!(
        "name = 'm'\nkind = 'application'\npurpose = 'p'\nanalysis = 'a'\nsources = ['s']\nops = {ops}\n\
         [[role]]\nname = 'r'\nthreads = {threads}\n{keys}\n"
    );
    std::fs::write(&file, text).unwrap();
    let out = folder.path().join("script");
    let params = ModelParams {
        seed: 11,
        ..ModelParams::default()
    };
    Model::load(&file)
        .unwrap()
        .compile(&params, &out, &mut |_, _| {})
        .unwrap();
    // Mapped: the file may go.
    Script::open(&out).unwrap()
}

fn allocates(op: &Op) -> bool {
    op.kind <= OpKind::AlignedAlloc as u8
}

fn frees(op: &Op) -> bool {
    op.kind() == Some(OpKind::Free)
}

/// One death: how many blocks of the thread are older, how many younger, and its age in allocations.
struct Death {
    older: usize,
    younger: usize,
    age: usize,
}

/// The deaths of a thread that keeps its blocks to itself, in order. Quadratic in the live set.
fn deaths(script: &Script) -> Vec<Death> {
    let (mut alive, mut born, mut deaths) = (Vec::<(u32, usize)>::new(), 0, Vec::new());
    for op in script.thread(0) {
        if allocates(op) {
            born += 1;
            alive.push((op.slot, born));
        } else if frees(op) {
            let place = alive.iter().position(|(slot, _)| *slot == op.slot);
            let place = place.expect("it is alive");
            let (_, birth) = alive.remove(place);
            deaths.push(Death {
                older: place,
                younger: alive.len() - place,
                age: born - birth,
            });
        }
    }
    deaths
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

/// Four standard deviations of a share of `all` draws.
fn four_sigma(share: f64, all: usize) -> f64 {
    4.0 * (share * (1.0 - share) / all as f64).sqrt()
}

#[test]
fn exponential_ages_have_their_mean_and_their_shape() {
    let keys =
        "live = 200\nlifetime = { kind = 'exponential' }\nsize = { kind = 'fixed', bytes = 32 }";
    let deaths = deaths(&script(1, 400_000, keys));
    // Behind the filling of the set. In a steady set of 200 blocks one lives for 200 allocations on average (Little's law).
    let steady = &deaths[20_000..];
    let mean = steady.iter().map(|death| death.age as f64).sum::<f64>() / steady.len() as f64;
    assert!((mean - 200.0).abs() < 8.0, "{mean}");
    // exp(-1) live longer than the mean, exp(-3) three times as long, ln 2 of the mean is the median.
    for (times, wanted) in [(1.0, 0.368), (3.0, 0.050), (0.693, 0.5)] {
        let longer = steady
            .iter()
            .filter(|death| death.age as f64 > times * mean)
            .count();
        let seen = share(longer, steady.len());
        assert!((seen - wanted).abs() < 0.02, "{times}: {seen}");
    }
}

#[test]
fn fifo_frees_the_oldest_and_lifo_the_youngest_always() {
    let keys = |kind: &str| {
        format!(
            "live = 300\nlifetime = {{ kind = '{kind}' }}\nsize = {{ kind = 'uniform', min = 8, max = 800 }}"
        )
    };
    let fifo = deaths(&script(1, 60_000, &keys("fifo")));
    assert!(fifo.len() > 25_000 && fifo.iter().all(|death| death.older == 0));
    assert!(fifo.iter().all(|death| (299..=301).contains(&death.age)));
    let lifo = deaths(&script(1, 60_000, &keys("lifo")));
    assert!(lifo.len() > 25_000 && lifo.iter().all(|death| death.younger == 0));
    // The depth wanders: it is no alternation of two blocks.
    let depths: std::collections::HashSet<_> = lifo.iter().map(|death| death.older).collect();
    assert!(depths.len() > 50, "{}", depths.len());
}

#[test]
fn a_batch_dies_together_in_its_order() {
    let keys = |order: &str| {
        format!(
            "live = 120\nlifetime = {{ kind = 'batch', order = '{order}' }}\nsize = {{ kind = 'fixed', bytes = 48 }}"
        )
    };
    for order in ["fifo", "lifo", "random"] {
        let script = script(1, 48_000, &keys(order));
        let calls: Vec<_> = script.thread(0).iter().filter(|op| op.is_call()).collect();
        for batch in calls.chunks_exact(240) {
            let (made, gone) = batch.split_at(120);
            assert!(made.iter().all(|op| allocates(op)) && gone.iter().all(|op| frees(op)));
            let made: Vec<u32> = made.iter().map(|op| op.slot).collect();
            let mut gone: Vec<u32> = gone.iter().map(|op| op.slot).collect();
            match order {
                "fifo" => assert_eq!(made, gone),
                "lifo" => {
                    gone.reverse();
                    assert_eq!(made, gone);
                }
                _ => {
                    assert_ne!(made, gone);
                    let sorted = |mut slots: Vec<u32>| {
                        slots.sort_unstable();
                        slots
                    };
                    assert_eq!(sorted(made), sorted(gone));
                }
            }
        }
    }
}

#[test]
fn the_short_share_of_bimodal_blocks_dies_young_and_in_order() {
    let keys = "live = 2000\nlifetime = { kind = 'bimodal', short-share = 0.8, short-live = 10 }\n\
                size = { kind = 'fixed', bytes = 32 }";
    let deaths = deaths(&script(1, 200_000, keys));
    let steady = &deaths[deaths.len() / 4..];
    // Ten short ones at a time, four of five allocations are short: a short one dies when about 10 / 0.8 = 12.5 others have come
    // after it. The 1,990 long ones live for 1,990 / 0.2 = 9,950 allocations on average.
    let young = steady.iter().filter(|death| death.age <= 60).count();
    let seen = share(young, steady.len());
    // A long one dies as young as that with 60 / 9,950 by chance.
    assert!(
        (seen - 0.8).abs() < 0.01 + four_sigma(0.8, steady.len()),
        "{seen}"
    );
    let ages: f64 = steady
        .iter()
        .filter(|death| death.age <= 60)
        .map(|death| death.age as f64)
        .sum();
    let mean = ages / young as f64;
    assert!((11.0..15.0).contains(&mean), "{mean}");
}

#[test]
fn calloc_and_alignment_have_their_shares() {
    let keys = "live = 100\nlifetime = { kind = 'random' }\nsize = { kind = 'uniform', min = 1, max = 5000 }\n\
                calloc = 0.3\naligned = { share = 0.2, to = [64, 256, 4096] }";
    let script = script(1, 120_000, keys);
    let births: Vec<_> = script.thread(0).iter().filter(|op| allocates(op)).collect();
    let of = |kind| births.iter().filter(|op| op.kind() == Some(kind)).count();
    for (kind, wanted) in [
        (OpKind::Calloc, 0.3),
        (OpKind::AlignedAlloc, 0.2),
        (OpKind::Malloc, 0.5),
    ] {
        let seen = share(of(kind), births.len());
        assert!(
            (seen - wanted).abs() < four_sigma(wanted, births.len()),
            "{kind:?}: {seen}"
        );
    }
    let mut alignments: HashMap<u8, usize> = HashMap::new();
    for op in &births {
        assert_eq!(
            op.kind() == Some(OpKind::AlignedAlloc),
            op.align_log2() != 0
        );
        *alignments.entry(op.align_log2()).or_default() += 1;
    }
    alignments.remove(&0);
    let all: usize = alignments.values().sum();
    assert_eq!(alignments.len(), 3);
    for log2 in [6, 8, 12] {
        let seen = share(alignments[&log2], all);
        assert!(
            (seen - 1.0 / 3.0).abs() < four_sigma(1.0 / 3.0, all),
            "{log2}: {seen}"
        );
    }
    // A free says how its block was aligned, as sized frees have to.
    let mut alive: HashMap<u32, (u64, u8)> = HashMap::new();
    for op in script.thread(0) {
        if allocates(op) {
            alive.insert(op.slot, (op.size(), op.align_log2()));
        } else if frees(op) {
            assert_eq!(alive.remove(&op.slot), Some((op.size(), op.align_log2())));
        }
    }
}

/// The thread that allocated each block that was freed, and the one that freed it.
fn hands(script: &Script) -> Vec<(usize, usize)> {
    let mut born: HashMap<(u32, u16), usize> = HashMap::new();
    let mut own: HashMap<u32, usize> = HashMap::new();
    let mut freed = Vec::new();
    for thread in 0..script.thread_count() {
        for op in script.thread(thread).iter().filter(|op| allocates(op)) {
            born.insert((op.slot, op.generation), thread);
        }
    }
    for thread in 0..script.thread_count() {
        for op in script.thread(thread) {
            if frees(op) && op.flags & FLAG_SHARED != 0 {
                freed.push((born[&(op.slot, op.generation)], thread));
            } else if frees(op) {
                own.insert(op.slot, thread);
                freed.push((thread, thread));
            }
        }
    }
    freed
}

#[test]
fn the_share_of_blocks_that_others_free_is_the_models() {
    let group =
        "live = 200\nlifetime = { kind = 'random' }\nsize = { kind = 'fixed', bytes = 64 }\n";
    for wanted in [0.1, 0.5, 1.0] {
        let keys = format!("{group}hand-over = {{ kind = 'random', share = {wanted} }}");
        let hands = hands(&script(4, 200_000, &keys));
        let remote = hands.iter().filter(|(from, to)| from != to).count();
        let seen = share(remote, hands.len());
        assert!(
            (seen - wanted).abs() <= 0.004 + four_sigma(wanted, hands.len()),
            "{wanted}: {seen}"
        );
        // Everybody frees for everybody.
        let mut pairs: Vec<_> = hands.into_iter().filter(|(from, to)| from != to).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 12);
    }
}

#[test]
fn a_queues_share_goes_to_its_role_and_the_rest_stays() {
    let keys = "live = 100\nlifetime = { kind = 'fifo' }\nsize = { kind = 'fixed', bytes = 64 }\n\
                hand-over = { kind = 'queue', to = 'sink', depth = 64, share = 0.25, batch = 4 }\n\
                [[role]]\nname = 'sink'";
    let script = script(2, 200_000, keys);
    let count = |thread: usize, what: fn(&Op) -> bool| {
        let ops = script.thread(thread).iter();
        ops.filter(|op| what(op)).count()
    };
    let mut sinks = (0..3).filter(|&thread| count(thread, allocates) == 0);
    let sink = sinks.next().expect("one only frees");
    assert_eq!(sinks.next(), None);
    let born: usize = (0..3).map(|thread| count(thread, allocates)).sum();
    let sunk = count(sink, frees);
    let seen = share(sunk, born);
    assert!(
        (seen - 0.25).abs() < 0.004 + four_sigma(0.25, born),
        "{seen}"
    );
    assert!(
        hands(&script)
            .iter()
            .all(|(from, to)| from == to || *to == sink)
    );
}
