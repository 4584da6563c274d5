//! From raw events to a trace: nothing is lost or invented, whatever the stamps say, and what was never recorded is counted.

mod common;
#[path = "common/streams.rs"]
mod streams;

use common::{follow_order, interpret};
use heaplab_script::Script;
use heaplab_workloads::trace::raw::{RawEvent, RawKind};
use heaplab_workloads::trace::{EventKind, Trace, TraceSummary};
use heaplab_workloads::{Params, Workload};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use streams::{all, event, header, record};

#[test]
fn one_thread_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut aligned = event(300, RawKind::PosixMemalign, 0x3000, 50);
    aligned.align_log2 = 6;
    let stream = vec![
        event(100, RawKind::Malloc, 0x1000, 10),
        event(200, RawKind::Calloc, 0x2000, 20),
        aligned,
        event(400, RawKind::ReallocBegin, 0x1000, 0),
        event(500, RawKind::ReallocEnd, 0x4000, 100),
        event(600, RawKind::Malloc, 0x1000, 30),
        event(700, RawKind::Free, 0x3000, 0),
        event(800, RawKind::ReallocBegin, 0, 0),
        event(900, RawKind::ReallocEnd, 0x5000, 5),
        event(1000, RawKind::ReallocBegin, 0x5000, 0),
        event(1100, RawKind::ReallocEnd, 0, 1 << 60),
        event(1200, RawKind::FreeSized, 0x5000, 0),
        event(1300, RawKind::ReallocBegin, 0x2000, 0),
        event(1400, RawKind::ReallocEnd, 0, 0),
        event(1500, RawKind::FailedAlloc, 0, 7),
        event(1600, RawKind::Free, 0, 0),
    ];
    let mut stream = stream;
    stream[10].size = 1 << 40;
    let (trace, summary) = record(folder.path(), &[stream], 3);
    assert!(summary.complete, "{:?}", summary.missing);
    let seen: Vec<_> = all(&trace)
        .iter()
        .map(|event| {
            (
                event.tick,
                event.kind,
                event.block,
                event.size,
                event.align_log2,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, EventKind::Malloc, 0, 10, 0),
            (2, EventKind::Calloc, 1, 20, 0),
            (3, EventKind::PosixMemalign, 2, 50, 6),
            (5, EventKind::Realloc, 0, 100, 0),
            (6, EventKind::Malloc, 3, 30, 0),
            (7, EventKind::Free, 2, 50, 6),
            (9, EventKind::ReallocNew, 2, 5, 0),
            (11, EventKind::Failed, 0, 1 << 40, 0),
            (12, EventKind::FreeSized, 2, 5, 0),
            (14, EventKind::ReallocFree, 1, 20, 0),
            (15, EventKind::Failed, 0, 7, 0),
        ]
    );
    assert_eq!(
        (
            summary.allocations,
            summary.frees,
            summary.reallocs,
            summary.failed
        ),
        (5, 3, 1, 2)
    );
    assert_eq!(
        (summary.peak_live_bytes, summary.end_live_bytes),
        (200, 130)
    );
    assert_eq!(trace.header().argv, header().argv);
    trace.verify(&mut |_, _| {}).unwrap();
}

#[test]
fn the_alternation_of_addresses_wins_over_time() {
    let folder = tempfile::tempdir().unwrap();
    // Thread 1 frees at 1,000 what thread 0's late stamp says was allocated at 9,000; and thread 1's allocation at the
    // same address (stamped 1,500) can only come after that free.
    let streams = [
        vec![event(9_000, RawKind::Malloc, 0x1000, 10)],
        vec![
            event(1_000, RawKind::Free, 0x1000, 0),
            event(1_500, RawKind::Malloc, 0x1000, 20),
        ],
        vec![
            event(1_200, RawKind::Malloc, 0x2000, 1),
            event(9_500, RawKind::Free, 0x2000, 0),
        ],
    ];
    let (trace, summary) = record(folder.path(), &streams, 10);
    let order: Vec<_> = all(&trace)
        .iter()
        .map(|event| (event.thread, event.kind))
        .collect();
    let expected = [
        (2, EventKind::Malloc),
        (0, EventKind::Malloc),
        (1, EventKind::Free),
        (1, EventKind::Malloc),
        (2, EventKind::Free),
    ];
    assert_eq!(order, expected);
    assert_eq!(
        (
            summary.foreign_frees,
            summary.lost_frees,
            summary.remote_frees
        ),
        (0, 0, 1)
    );
}

#[test]
fn what_was_never_recorded_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let streams = [vec![
        event(100, RawKind::Free, 0x9000, 0),
        event(200, RawKind::Malloc, 0x1000, 10),
        event(300, RawKind::Malloc, 0x1000, 20),
        event(400, RawKind::ReallocBegin, 0x8000, 0),
        event(500, RawKind::ReallocEnd, 0x8000, 30),
        event(600, RawKind::Free, 0x8000, 0),
    ]];
    let (trace, summary) = record(folder.path(), &streams, 10);
    assert_eq!((summary.foreign_frees, summary.lost_frees), (2, 1));
    assert_eq!((summary.allocations, summary.frees), (3, 1));
    trace.verify(&mut |_, _| {}).unwrap();
}

/// Streams of threads, and what really happened in its order.
type Execution = (Vec<Vec<RawEvent>>, Vec<(u32, RawKind)>);

/// A possible execution of some threads over a set of addresses. Stamps are late for allocations and early for frees, as
/// far as real ones can be: never beyond the neighbours in the same thread or at the same address. `skew` is how far the
/// clocks of the threads are apart, in steps.
fn execution(choices: &[(u8, u8, u8, u16)], skew: u64) -> Execution {
    const STEP: u64 = 1_000;
    let mut live: HashMap<u64, usize> = HashMap::new();
    let steps: Vec<_> = choices
        .iter()
        .map(|&(who, what, late, which)| {
            let (thread, address) = (usize::from(who) % 4, 0x10_0000 + u64::from(which % 24) * 16);
            let kinds = match live.get(&address) {
                None => {
                    live.insert(address, thread);
                    &[RawKind::Malloc][..]
                }
                Some(_) if what % 4 == 0 => &[RawKind::ReallocBegin, RawKind::ReallocEnd][..],
                Some(_) => {
                    live.remove(&address);
                    &[RawKind::Free][..]
                }
            };
            (thread, address, kinds, u64::from(late), u64::from(what))
        })
        .collect();
    let mut streams = vec![Vec::new(); 4];
    let mut truth = Vec::new();
    let mut last_of: HashMap<u64, usize> = HashMap::new();
    let mut last_in = [0usize; 4];
    for (index, &(thread, address, kinds, shift, what)) in steps.iter().enumerate() {
        let next = (index + 1..steps.len())
            .find(|&later| steps[later].0 == thread || steps[later].1 == address)
            .unwrap_or(steps.len());
        let before = last_in[thread].max(last_of.get(&address).copied().unwrap_or(0));
        let moment = 1_000_000 + index as u64 * STEP;
        // Half of the way at most, so that a late and an early stamp do not pass each other.
        let late = shift.min((next - index) as u64 * 8) * STEP / 17;
        let early = shift.min((index - before) as u64 * 8) * STEP / 17;
        let time = if kinds == [RawKind::Malloc] {
            moment + late
        } else {
            moment - early
        };
        let time = time + skew * STEP * thread as u64;
        for &kind in kinds {
            let size = match kind {
                RawKind::Malloc => what,
                RawKind::ReallocEnd => 77,
                _ => 0,
            };
            streams[thread].push(event(time, kind, address, size));
        }
        truth.push((thread as u32, kinds[kinds.len() - 1]));
        last_in[thread] = index;
        last_of.insert(address, index);
    }
    (streams, truth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Nothing is lost, nothing is invented, each thread keeps its order, and the trace replays.
    #[test]
    fn late_and_early_stamps_resolve(
        choices in prop::collection::vec(any::<(u8, u8, u8, u16)>(), 1..300),
        piece in 1usize..40,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (streams, truth) = execution(&choices, 0);
        let (trace, summary) = record(folder.path(), &streams, piece);
        let count = |kind| truth.iter().filter(|(_, found)| *found == kind).count() as u64;
        prop_assert_eq!(summary.foreign_frees + summary.lost_frees, 0);
        prop_assert_eq!(summary.allocations, count(RawKind::Malloc));
        prop_assert_eq!(summary.frees, count(RawKind::Free));
        prop_assert_eq!(summary.reallocs, count(RawKind::ReallocEnd));
        let mut kinds: HashMap<u32, Vec<EventKind>> = HashMap::new();
        for event in all(&trace) {
            kinds.entry(event.thread).or_default().push(event.kind);
        }
        for (thread, kinds) in kinds {
            let expected: Vec<_> = truth
                .iter()
                .filter(|(found, _)| *found == thread)
                .map(|(_, kind)| match kind {
                    RawKind::Malloc => EventKind::Malloc,
                    RawKind::Free => EventKind::Free,
                    _ => EventKind::Realloc,
                })
                .collect();
            prop_assert_eq!(kinds, expected);
        }
        replays(folder.path(), &trace, &summary);
    }

    /// Clocks that are apart can make events look impossible: then they are counted, and what is kept still replays.
    #[test]
    fn skewed_clocks_give_a_sound_trace(
        choices in prop::collection::vec(any::<(u8, u8, u8, u16)>(), 1..300),
        skew in 1u64..40,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (streams, truth) = execution(&choices, skew);
        let (trace, summary) = record(folder.path(), &streams, 20);
        let count = |kind| truth.iter().filter(|(_, found)| *found == kind).count() as u64;
        let foreign_reallocs = count(RawKind::ReallocEnd) - summary.reallocs;
        prop_assert_eq!(summary.allocations, count(RawKind::Malloc) + foreign_reallocs);
        let foreign_frees = summary.foreign_frees - foreign_reallocs;
        prop_assert_eq!(summary.frees + foreign_frees, count(RawKind::Free));
        replays(folder.path(), &trace, &summary);
    }
}

/// The trace is sound, and so is its script under several interleavings.
fn replays(folder: &Path, trace: &Trace, summary: &TraceSummary) {
    trace.verify(&mut |_, _| {}).unwrap();
    let path = folder.join("t.hltrace");
    let workload = Workload::resolve(path.to_str().unwrap()).unwrap();
    let script = workload
        .compile(&Params::default(), folder, &mut |_, _| {})
        .unwrap();
    assert_eq!(script.info.peak_live_bytes, summary.peak_live_bytes);
    assert_eq!(script.info.allocations, summary.allocations);
    let script = Script::open(&script.path).unwrap();
    follow_order(&script);
    interpret(&script, |count| count / 2);
    interpret(&script, |_| 0);
}
