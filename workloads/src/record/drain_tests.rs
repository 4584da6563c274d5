//! The drainer against a program played step by step, for orders that a real one shows rarely.

use super::clock::Calibration;
use super::drain::Drainer;
use super::sink::Sink;
use super::summary::DrainSummary;
use crate::trace::TraceError;
use crate::trace::packed::Packed;
use crate::trace::raw::{RawEvent, RawKind};
use heaplab_ring::clock::Clock;
use heaplab_ring::layout::session_bytes;
use heaplab_ring::pool::Owner;
use heaplab_ring::{Kind, Mapping, Pool, RECORDS_PER_CHUNK, SessionConfig};
use rustix::fs::MemfdFlags;
use std::os::fd::AsRawFd;

const CHUNKS: u32 = 4;

/// All events in the order in which they were drained.
#[derive(Default)]
struct Events {
    all: Vec<(u32, RawEvent)>,
    /// Done in the middle of a pass: where the first thread is met.
    in_pass: Option<Box<dyn FnOnce()>>,
}

impl Sink for Events {
    fn thread_start(&mut self, _: u32, _: u32, _: u32, _: u64) -> Result<(), TraceError> {
        if let Some(act) = self.in_pass.take() {
            act();
        }
        Ok(())
    }
    fn thread_name(&mut self, _: u32, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        self.all
            .extend(events.events().into_iter().map(|event| (thread, event)));
        Ok(())
    }
    fn thread_end(&mut self, _: u32, _: u64) -> Result<(), TraceError> {
        Ok(())
    }
    fn mark(&mut self, _: Option<u32>, _: u64, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
    fn note(&mut self, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
}

impl Events {
    fn place(&self, kind: RawKind, address: u64) -> usize {
        self.all
            .iter()
            .position(|(_, event)| event.kind == kind && event.address == address)
            .unwrap_or_else(|| panic!("no {kind:?} of {address:#x}"))
    }
}

/// Drains what `step` does before each pass, until it says that the program is gone. Afterwards
/// all chunks must be free again.
fn play(step: impl FnMut(Pool<'_>, u32) -> bool) -> (Events, DrainSummary) {
    play_in(session(), Events::default(), step)
}

/// A session of [`CHUNKS`] chunks that stays mapped.
fn session() -> Pool<'static> {
    let file = rustix::fs::memfd_create("played", MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&file, session_bytes(CHUNKS) as u64).expect("size");
    let config = SessionConfig {
        chunks: CHUNKS,
        nonce: 1,
        clock: Clock::Monotonic,
        lossy: false,
        drainer_pid: std::process::id(),
        stacks: heaplab_ring::stack::StackMode::Off,
        first_only: true,
        mappings: false,
        paused: false,
    };
    let mapping = Mapping::create(file.as_raw_fd(), &config).expect("session");
    Box::leak(Box::new(mapping)).pool()
}

/// As [`play`], in a session and with a sink that the test has made.
fn play_in(
    pool: Pool<'static>,
    mut events: Events,
    mut step: impl FnMut(Pool<'_>, u32) -> bool,
) -> (Events, DrainSummary) {
    let mut number = 0;
    let summary = Drainer::new(pool, Calibration::measure(Clock::Monotonic), 1, &mut events)
        .run(
            || {
                number += 1;
                step(pool, number)
            },
            |_| true,
        )
        .expect("drained");
    let free = (0..=CHUNKS).map_while(|_| pool.take(&owner(99, 0))).count();
    assert_eq!(free, CHUNKS as usize, "chunks were lost");
    (events, summary)
}

fn owner(thread: u32, sequence: u32) -> Owner {
    Owner {
        thread,
        os_tid: 1000 + thread,
        sequence,
        process: 1,
        pid: std::process::id(),
        base: 0,
        name: [0; 16],
    }
}

fn publish(pool: Pool<'_>, index: u32, position: usize, kind: Kind, address: u64) {
    let chunk = pool.chunk(index);
    let word = heaplab_ring::record::event_word(0, 8, 0);
    chunk.records()[position].publish(word, kind, address, chunk.generation());
}

/// Fills a chunk with allocations, except for the slots in `holes`, and closes it.
fn fill_and_close(pool: Pool<'_>, index: u32, holes: &[usize]) {
    for position in (0..RECORDS_PER_CHUNK).filter(|position| !holes.contains(position)) {
        publish(
            pool,
            index,
            position,
            Kind::Malloc,
            16 * (position as u64 + 1),
        );
    }
    pool.close(index, RECORDS_PER_CHUNK, false, [0; 16]);
}

#[test]
fn an_interrupted_allocation_comes_before_its_free_in_the_next_chunk() {
    const BLOCK: u64 = 0x7000_0000;
    let (mut first, mut second) = (0, 0);
    let (events, summary) = play(|pool, number| {
        match number {
            1 => {
                first = pool.take(&owner(0, 0)).expect("a chunk");
                fill_and_close(pool, first, &[5]);
                second = pool.take(&owner(0, 1)).expect("a chunk");
                publish(pool, second, 0, Kind::Malloc, 0x1234_0000);
            }
            2 => {
                publish(pool, first, 5, Kind::Malloc, BLOCK);
                publish(pool, second, 1, Kind::Free, BLOCK);
            }
            _ => return false,
        }
        true
    });
    assert!(events.place(RawKind::Malloc, BLOCK) < events.place(RawKind::Free, BLOCK));
    assert_eq!(summary.events, RECORDS_PER_CHUNK as u64 + 2);
    assert_eq!((summary.torn_records, summary.threads), (0, 1));
}

#[test]
fn a_slot_that_is_never_filled_is_counted_and_its_chunk_comes_back() {
    let (events, summary) = play(|pool, number| {
        if number == 1 {
            let index = pool.take(&owner(3, 0)).expect("a chunk");
            fill_and_close(pool, index, &[0, 9]);
        }
        number < 3
    });
    assert_eq!(events.all.len(), RECORDS_PER_CHUNK - 2);
    assert_eq!(summary.torn_records, 2);
}

#[test]
fn chunks_are_read_in_the_threads_order_whatever_their_place() {
    // Three chunks are taken, the first comes back and is used again as the latest.
    let (events, summary) = play(|pool, number| {
        match number {
            1 => {
                let first = pool.take(&owner(0, 0)).expect("a chunk");
                let other = pool.take(&owner(1, 0)).expect("a chunk");
                publish(pool, first, 0, Kind::Malloc, 0x10);
                pool.close(first, 1, false, [0; 16]);
                pool.close(other, 0, true, [0; 16]);
            }
            2 => {
                // The last given back is the first taken.
                let second = pool.take(&owner(0, 1)).expect("a chunk");
                let third = pool.take(&owner(0, 2)).expect("a chunk");
                assert!(
                    second > third,
                    "the case needs the later chunk at the lower place"
                );
                publish(pool, third, 0, Kind::Malloc, 0x30);
                publish(pool, second, 0, Kind::Malloc, 0x20);
                pool.close(second, 1, false, [0; 16]);
            }
            _ => return false,
        }
        true
    });
    let addresses: Vec<u64> = events.all.iter().map(|(_, event)| event.address).collect();
    assert_eq!(addresses, [0x10, 0x20, 0x30]);
    assert_eq!((summary.events, summary.torn_records), (3, 0));
}

#[test]
fn one_pass_reads_all_that_a_thread_has_filled() {
    // Chunks that were given back in one order are taken in the other: later ones lie at lower places.
    let mut free_after = Vec::new();
    let (events, _) = play(|pool, number| {
        match number {
            1 => {
                let taken: Vec<u32> = (0..CHUNKS)
                    .map(|sequence| pool.take(&owner(0, sequence)).expect("a chunk"))
                    .collect();
                for index in taken {
                    fill_and_close(pool, index, &[]);
                }
            }
            2 | 3 => {
                let taken: Vec<u32> = (0..CHUNKS)
                    .map(|place| pool.take(&owner(0, CHUNKS * (number - 1) + place)))
                    .map_while(|index| index)
                    .collect();
                free_after.push(taken.len());
                for index in taken {
                    fill_and_close(pool, index, &[]);
                }
            }
            _ => return false,
        }
        true
    });
    assert_eq!(free_after, [CHUNKS as usize; 2]);
    assert_eq!(events.all.len(), RECORDS_PER_CHUNK * 3 * CHUNKS as usize);
}

#[test]
fn chunks_that_are_filled_during_a_pass_are_worth_waiting_for() {
    let pool = session();
    let first = pool.take(&owner(0, 0)).expect("a chunk");
    publish(pool, first, 0, Kind::Malloc, 0x10);
    // The pass has looked which chunks are in use: the thread fills its own and all the others.
    let events = Events {
        in_pass: Some(Box::new(move || {
            fill_and_close(pool, first, &[]);
            for sequence in 1..CHUNKS {
                let next = pool.take(&owner(0, sequence)).expect("a chunk");
                fill_and_close(pool, next, &[]);
            }
            assert!(!pool.has_free());
        })),
        ..Events::default()
    };
    let mut found = Vec::new();
    let (events, _) = play_in(pool, events, |pool, number| {
        found.push(pool.is_exhausted());
        number < 4
    });
    assert_eq!(found, [false; 4]);
    assert_eq!(events.all.len(), RECORDS_PER_CHUNK * CHUNKS as usize);
}

#[test]
fn chunks_that_threads_hold_are_not_worth_waiting_for_until_one_is_closed() {
    let mut found = Vec::new();
    let (mut held, mut waits_since) = (Vec::new(), 0);
    play(|pool, number| {
        match number {
            1 => {
                held.extend((0..CHUNKS).map_while(|thread| pool.take(&owner(thread, 0))));
                assert_eq!(held.len(), CHUNKS as usize);
            }
            2 => {
                found.push(pool.is_exhausted());
                // One of the threads now waits as well, with the verdict of the last pass before its eyes.
                pool.close(held[2], 0, false, [0; 16]);
                waits_since = pool.heartbeat();
                found.push(pool.is_exhausted_since(waits_since));
            }
            3 => {
                found.push(pool.is_exhausted_since(waits_since) || !pool.has_free());
                return false;
            }
            _ => return false,
        }
        true
    });
    assert_eq!(found, [true, false, false]);
}
