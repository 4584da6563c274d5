//! What the compiler makes of any possible stream of events can be executed under any interleaving.

mod common;

use common::{follow_order, interpret};
use heaplab_script::{FLAG_SHARED, OpKind, Script};
use heaplab_workloads::WorkloadError;
use heaplab_workloads::compile::{Action, Event, Source, compile};
use proptest::prelude::*;

struct Events(Vec<Event>);

impl Source for Events {
    fn phases(&self) -> Vec<String> {
        Vec::new()
    }

    fn expected_events(&self) -> u64 {
        self.0.len() as u64
    }

    fn tell<F>(&mut self, take: F) -> Result<(), WorkloadError>
    where
        F: FnMut(Event) -> Result<(), WorkloadError>,
    {
        self.0.iter().copied().try_for_each(take)
    }
}

/// Turns random numbers into a possible stream: threads 0 and 1 from the start, further ones started on the way.
fn stream(choices: &[(u8, u8, u16)]) -> Vec<Event> {
    let mut live: Vec<u32> = Vec::new();
    let mut free: Vec<u32> = Vec::new();
    let (mut next, mut threads) = (0, 2u32);
    let mut events = Vec::new();
    for &(who, what, which) in choices {
        let thread = u32::from(who) % threads;
        let pick = |live: &[u32]| usize::from(which) % live.len().max(1);
        let action = match what % 16 {
            0..=6 => {
                let block = free.pop().unwrap_or_else(|| {
                    next += 1;
                    next - 1
                });
                live.push(block);
                let kind =
                    [OpKind::Malloc, OpKind::Calloc, OpKind::AlignedAlloc][which as usize % 3];
                Action::Alloc {
                    kind,
                    block,
                    size: u64::from(which),
                    align_log2: (which % 7) as u8,
                }
            }
            7..=11 if !live.is_empty() => {
                let block = live.swap_remove(pick(&live));
                free.push(block);
                Action::Free { block }
            }
            12..=13 if !live.is_empty() => Action::Realloc {
                block: live[pick(&live)],
                size: u64::from(which) * 3,
            },
            14 if threads < 6 => {
                threads += 1;
                Action::Start {
                    thread: threads - 1,
                }
            }
            _ => Action::Idle { ns: 1_000_000 },
        };
        events.push(Event { thread, action });
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_interleaving_deadlocks(
        choices in prop::collection::vec(any::<(u8, u8, u16)>(), 1..400),
        order in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.hlscript");
        let mut source = Events(stream(&choices));
        compile(&mut source, &path, &mut |_, _| {}).unwrap();
        let script = Script::open(&path).unwrap();
        script.verify_checksum().unwrap();
        follow_order(&script);
        let mut turn = 0;
        interpret(&script, |count| {
            turn += 1;
            usize::from(order[turn % order.len()]) % count
        });
        // The worst drift: one thread runs as far as it can, first or last.
        interpret(&script, |_| 0);
        interpret(&script, |count| count - 1);
    }
}

#[test]
fn only_blocks_that_cross_are_shared() {
    let malloc = |thread, block| Event {
        thread,
        action: Action::Alloc {
            kind: OpKind::Malloc,
            block,
            size: 10,
            align_log2: 0,
        },
    };
    let free = |thread, block| Event {
        thread,
        action: Action::Free { block },
    };
    let mut source = Events(vec![
        malloc(0, 0),
        malloc(0, 1),
        malloc(1, 2),
        free(1, 0),
        free(0, 1),
        malloc(0, 1),
        free(1, 2),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.hlscript");
    let info = compile(&mut source, &path, &mut |_, _| {}).unwrap();
    assert_eq!((info.private_slots, info.shared_slots), (16, 1));
    let script = Script::open(&path).unwrap();
    let of = |thread| {
        script
            .thread(thread)
            .iter()
            .map(|op| (op.slot, op.flags))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(0), [(16, FLAG_SHARED), (0, 0), (0, 0), (0, 0)]);
    assert_eq!(of(1), [(8, 0), (16, FLAG_SHARED), (8, 0)]);
}

#[test]
fn impossible_events_are_refused_with_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.hlscript");
    let free = Event {
        thread: 0,
        action: Action::Free { block: 0 },
    };
    let alloc = |block| Event {
        thread: 0,
        action: Action::Alloc {
            kind: OpKind::Malloc,
            block,
            size: 1,
            align_log2: 0,
        },
    };
    for (events, reason) in [
        (vec![free], "event 0 is not possible: block 0 is not alive"),
        (
            vec![alloc(0), alloc(0)],
            "event 1 is not possible: block 0 is allocated twice",
        ),
        (vec![alloc(1_000_000)], "block number 1000000 skips others"),
        (
            vec![
                alloc(0),
                Event {
                    thread: 0,
                    action: Action::Start { thread: 0 },
                },
            ],
            "thread 0 cannot be started here",
        ),
    ] {
        let error = compile(&mut Events(events), &path, &mut |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
