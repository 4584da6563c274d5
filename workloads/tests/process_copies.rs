//! Trees of processes in traces that are made from traces: each process is, alone, what it was in the original.

mod common;
#[path = "common/family.rs"]
mod family;
#[path = "common/random.rs"]
mod random;

use common::{follow_order, interpret};
use family::{Recorded, event, process, write};
use heaplab_script::{OpKind, Script};
use heaplab_workloads::trace::raw::RawKind;
use heaplab_workloads::trace::{
    CutOptions, EventKind, MergeOptions, ScaleOptions, Start, Trace, anonymise, cut, merge,
    one_process, scale,
};
use heaplab_workloads::{Params, Workload};
use random::Random;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// A tree of up to `most` processes that fork, each with one thread and few words about it: some are bare clones, some
/// end early. No two blocks are ever of the same size, so that a block can be told by it.
fn tree(seed: u64, most: usize, first_pid: u32) -> Vec<Recorded> {
    let mut random = Random::new(seed);
    let mut all = vec![Recorded {
        info: process(0, first_pid, None, Start::First, 500),
        end_ns: None,
        threads: vec![Vec::new()],
    }];
    // Live addresses of each process, and addresses that it freed.
    let mut heaps: Vec<(Vec<u64>, Vec<u64>)> = vec![Default::default()];
    let mut address = 0x1000;
    for step in 1..700u64 {
        let time = step * 1000;
        let one = random.below(all.len());
        if all[one].end_ns.is_some() {
            continue;
        }
        let here = all.len();
        let (live, free) = &mut heaps[one];
        let stream = &mut all[one].threads[0];
        let pick = random.below(live.len());
        match random.below(20) {
            0 if here < most && step > 20 => {
                let child = here as u32;
                let cloned = random.below(4) == 0;
                if !cloned {
                    stream.push(event(time, RawKind::Fork, 0, u64::from(child)));
                }
                let heap = (live.clone(), free.clone());
                heaps.push(heap);
                let start_ns = time + if cloned { 1000 } else { 10 };
                let pid = first_pid + child;
                let mut info = process(child, pid, Some(one as u32), Start::Fork, start_ns);
                info.cloned = cloned;
                let mut events = Vec::new();
                if cloned {
                    // It has its copy at its first event, and its parent does nothing in between.
                    events.push(event(time + 500, RawKind::FailedAlloc, 0, 1));
                }
                all.push(Recorded {
                    info,
                    end_ns: None,
                    threads: vec![events],
                });
            }
            1 if one > 0 && random.below(8) == 0 => all[one].end_ns = Some(time),
            2..=4 if !live.is_empty() => {
                let old = live[pick];
                address += 16;
                stream.push(event(time, RawKind::ReallocBegin, old, 0));
                stream.push(event(time + 1, RawKind::ReallocEnd, address, step));
                live[pick] = address;
                free.push(old);
            }
            5..=10 if !live.is_empty() => {
                let old = live.swap_remove(pick);
                stream.push(event(time, RawKind::Free, old, 0));
                free.push(old);
            }
            _ => {
                let reused = (random.below(2) == 0).then(|| free.pop()).flatten();
                let at = reused.unwrap_or_else(|| {
                    address += 16;
                    address
                });
                stream.push(event(time, RawKind::Malloc, at, step));
                live.push(at);
            }
        }
    }
    all
}

/// A call in a script: what, slot, bytes.
type Call = (OpKind, u32, u64);

/// The calls of one process alone, in their order. Every rule of scripts holds.
fn alone(trace: &Trace, word: &str, scripts: &Path) -> Vec<Call> {
    let named = format!("{}#{word}", trace.path().display());
    let workload = Workload::resolve(&named).unwrap();
    let compiled = workload
        .compile(&Params::default(), scripts, &mut |_, _| {})
        .unwrap();
    let script = Script::open(&compiled.path).unwrap();
    follow_order(&script);
    interpret(&script, |count| count / 2);
    // A bare clone goes on in a thread of its own.
    let mut at = vec![0; script.thread_count()];
    let turns = script.order().iter();
    let turns = turns.flat_map(|run| std::iter::repeat_n(run.thread as usize, run.count as usize));
    let ops = turns.map(|thread| {
        at[thread] += 1;
        script.thread(thread)[at[thread] - 1]
    });
    ops.filter(|op| op.is_call())
        .map(|op| (op.kind().unwrap(), op.slot, op.size()))
        .collect()
}

/// Sizes that are alive at the end.
fn left(calls: &[Call]) -> HashSet<u64> {
    let mut slots = HashMap::new();
    for (kind, slot, size) in calls {
        match kind {
            OpKind::Free => drop(slots.remove(slot)),
            _ => drop(slots.insert(slot, *size)),
        }
    }
    slots.into_values().collect()
}

/// No block came into being twice.
fn once(calls: &[Call]) {
    let mut seen = HashSet::new();
    for (kind, _, size) in calls {
        assert!(*kind == OpKind::Free || seen.insert(*size), "{size} twice");
    }
}

fn checked(path: &Path) -> Trace {
    let trace = Trace::open(path).unwrap();
    trace.verify(&mut |_, _| {}).unwrap();
    trace
}

fn pids(trace: &Trace) -> Vec<String> {
    let processes = trace.processes().iter();
    processes.map(|one| one.info.pid.to_string()).collect()
}

#[test]
fn each_process_of_a_copy_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let quiet = &mut |_: u64, _: u64| {};
    let mut inherited = 0;
    for seed in 0..3 {
        let trace = checked(&write(folder.path(), &tree(seed, 9, 100)));
        let events = trace.events().map(Result::unwrap);
        inherited += events
            .filter(|event| event.kind == EventKind::Inherited)
            .count();
        let words = pids(&trace);
        let was: Vec<_> = words
            .iter()
            .map(|word| alone(&trace, word, folder.path()))
            .collect();
        was.iter().for_each(|calls| once(calls));

        anonymise(&trace, &at("a.hltrace"), quiet).unwrap();
        let bare = checked(&at("a.hltrace"));
        for (number, calls) in was.iter().enumerate() {
            let word = (number + 1).to_string();
            assert_eq!(&alone(&bare, &word, folder.path()), calls, "{seed}: {word}");
        }

        let twice = ScaleOptions {
            copies: 2,
            stagger_ns: 77_000,
            time: 0.5,
            ..ScaleOptions::default()
        };
        scale(&trace, &at("s.hltrace"), &twice, quiet).unwrap();
        let twice = checked(&at("s.hltrace"));
        merge(
            &[trace, bare],
            &at("m.hltrace"),
            &MergeOptions::default(),
            quiet,
        )
        .unwrap();
        let merged = checked(&at("m.hltrace"));
        assert_eq!(merged.processes().len(), 2 * words.len());
        for (number, (word, calls)) in words.iter().zip(&was).enumerate() {
            for image in 1..=2 {
                let word = format!("{word}.{image}");
                assert_eq!(
                    &alone(&twice, &word, folder.path()),
                    calls,
                    "{seed}: {word}"
                );
            }
            for word in [word.clone(), (number + 1).to_string()] {
                assert_eq!(
                    &alone(&merged, &word, folder.path()),
                    calls,
                    "{seed}: {word}"
                );
            }
        }
    }
    assert!(inherited > 200, "{inherited}");
}

#[test]
fn a_process_cut_out_is_what_it_was_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("one.hltrace");
    let mut with_ancestors = 0;
    for seed in 0..3 {
        let trace = checked(&write(folder.path(), &tree(seed, 9, 100)));
        for (number, word) in (0u32..).zip(pids(&trace)) {
            let was = alone(&trace, &word, folder.path());
            let made = one_process(&trace, &out, number, &mut |_, _| {}).unwrap();
            let one = checked(&out);
            assert_eq!(alone(&one, &word, folder.path()), was, "{seed}: {word}");
            let (old, new) = (&trace.processes()[number as usize], &one.processes()[0]);
            assert_eq!(one.processes().len(), 1);
            assert_eq!(new.info.argv, old.info.argv);
            assert_eq!(one.header().argv, old.info.argv);
            assert_eq!((new.info.start, new.info.parent), (Start::First, None));
            assert_eq!((made.processes, made.threads), (1, new.threads));
            with_ancestors += u32::from(new.events > old.events + 10);
        }
        let many = trace.processes().len() as u32;
        assert!(one_process(&trace, &out, many, &mut |_, _| {}).is_err());
    }
    assert!(with_ancestors > 5, "{with_ancestors}");
}

#[test]
fn more_or_fewer_blocks_are_the_same_on_both_sides_of_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        let trace = checked(&write(folder.path(), &tree(seed, 9, 100)));
        let out = folder.path().join("s.hltrace");
        for load in [0.4, 2.0] {
            let options = ScaleOptions {
                load,
                ..ScaleOptions::default()
            };
            scale(&trace, &out, &options, &mut |_, _| {}).unwrap();
            let scaled = checked(&out);
            for word in pids(&trace) {
                let was = alone(&trace, &word, folder.path());
                let is = alone(&scaled, &word, folder.path());
                let count = |calls: &[Call]| {
                    let mut count = HashMap::new();
                    for (kind, _, size) in calls {
                        *count.entry((*kind, *size)).or_insert(0u32) += 1;
                    }
                    count
                };
                let (was_count, is_count) = (count(&was), count(&is));
                if load == 2.0 {
                    assert_eq!(is_count.len(), was_count.len(), "{seed}: {word}");
                    assert!(was_count.iter().all(|(call, n)| is_count[call] == 2 * n));
                    continue;
                }
                // What is left out is left out from its beginning to its end.
                once(&is);
                assert!(is_count.keys().all(|call| was_count.contains_key(call)));
                assert!(left(&is).is_subset(&left(&was)), "{seed}: {word}");
                let kept = is.len() as f64 / was.len().max(1) as f64;
                assert!(was.len() < 100 || (0.2..0.6).contains(&kept), "{kept}");
            }
        }
    }
}

#[test]
fn each_process_of_a_part_is_a_part_of_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (mut apart, mut whole) = (0, 0);
    for seed in 0..8 {
        let trace = checked(&write(folder.path(), &tree(seed, 9, 100)));
        let events = trace.summary().events;
        let (from, to) = (events / (3 + 5 * (seed % 2)), events * 4 / 5);
        let make = |from_event: u64, out: &str| {
            let options = CutOptions {
                from_event: Some(from_event),
                to_event: Some(to),
                ..CutOptions::default()
            };
            cut(&trace, &at(out), &options, &mut |_, _| {}).unwrap();
            checked(&at(out))
        };
        let (front, part) = (make(0, "f.hltrace"), make(from, "p.hltrace"));
        for (number, word) in pids(&trace).iter().enumerate() {
            if front.processes()[number].events == 0 {
                continue;
            }
            let calls = alone(&front, word, folder.path());
            let was = alone(&trace, word, folder.path());
            // Slots depend on what comes later.
            let sizes = |calls: &[Call]| Vec::from_iter(calls.iter().map(|call| (call.0, call.2)));
            assert_eq!(sizes(&calls), sizes(&was[..calls.len()]), "{seed}: {word}");
            let about = &part.processes()[number];
            if about.events == 0 {
                continue;
            }
            let is = alone(&part, word, folder.path());
            once(&is);
            let mut line = vec![about];
            while let Some(parent) = line.last().unwrap().info.parent {
                line.push(&part.processes()[parent as usize]);
            }
            if line.iter().any(|one| one.info.apart) {
                // What it inherited and did not touch in the part is not there.
                apart += 1;
                assert!(left(&is).is_subset(&left(&calls)), "{seed}: {word}");
            } else {
                whole += 1;
                assert_eq!(left(&is), left(&calls), "{seed}: {word}");
            }
        }
        // The blocks of every other thread: what others inherit from them is theirs.
        let threads = trace.summary().thread_table.len() as u32;
        let options = CutOptions {
            threads: (0..threads).filter(|thread| thread % 2 == 0).collect(),
            ..CutOptions::default()
        };
        cut(&trace, &at("t.hltrace"), &options, &mut |_, _| {}).unwrap();
        let some = checked(&at("t.hltrace"));
        for (number, word) in pids(&trace).iter().enumerate() {
            if some.processes()[number].events > 0 {
                once(&alone(&some, word, folder.path()));
            }
        }
    }
    assert!(apart > 10 && whole > 10, "{apart} {whole}");
}
