//! The protocol under loom: every order of the atomic operations that the memory model allows
//! (up to a bound of preemptions) hands each record over exactly once, whole and in order.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p heaplab-ring --test 'loom*'`
#![cfg(loom)]

use heaplab_ring::model::Session;
use heaplab_ring::pool::Owner;
use heaplab_ring::{Kind, Pool, RECORDS_PER_CHUNK, SlotState};
use loom::sync::Arc;
use loom::thread;

/// Preemptions in one execution; most defects of lock-free code need one or two.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A thread of the program: the steps of the recorder's hook and refill, without its cursor.
struct Producer {
    thread: u32,
    sequence: u32,
    chunk: Option<(u32, usize)>,
    /// Number of the next event, which is its time, address and size.
    next: u64,
}

impl Producer {
    fn new(thread: u32) -> Self {
        let next = u64::from(thread) * 100 + 1;
        Self {
            thread,
            sequence: 0,
            chunk: None,
            next,
        }
    }

    /// Records one event; `false` when no chunk was free (the event is then not made).
    fn record(&mut self, pool: Pool<'_>) -> bool {
        let (index, position) = match self.chunk {
            Some((index, position)) if position < RECORDS_PER_CHUNK => (index, position),
            full => {
                if let Some((index, _)) = full {
                    pool.close(index, RECORDS_PER_CHUNK, false, [0; 16]);
                    self.chunk = None;
                }
                let owner = Owner {
                    thread: self.thread,
                    os_tid: self.thread + 1000,
                    sequence: self.sequence,
                    image: 1,
                    name: [0; 16],
                };
                let Some(index) = pool.take(&owner) else {
                    return false;
                };
                self.sequence += 1;
                (index, 0)
            }
        };
        let chunk = pool.chunk(index);
        let event = self.next;
        chunk.records()[position].publish(event, Kind::Malloc, event, event, 0, chunk.generation());
        self.next += 1;
        self.chunk = Some((index, position + 1));
        true
    }

    fn end(self, pool: Pool<'_>) {
        if let Some((index, position)) = self.chunk {
            pool.close(index, position, true, [0; 16]);
        }
    }
}

/// The drainer: one pass after another over the slots, as in `heaplab_workloads::record`.
struct Drainer {
    positions: Vec<usize>,
    /// By thread: sequence number of the chunk that is read, events read.
    threads: Vec<(u32, Vec<u64>)>,
}

impl Drainer {
    fn new(chunks: usize, threads: usize) -> Self {
        Self {
            positions: vec![0; chunks],
            threads: vec![(0, Vec::new()); threads],
        }
    }

    /// Looks at every chunk once; `true` when something was read or recycled.
    fn pass(&mut self, pool: Pool<'_>) -> bool {
        let mut progress = false;
        for index in 0..pool.high_water() {
            let slot = pool.slot(index);
            if slot.state == SlotState::Free {
                continue;
            }
            assert_eq!(slot.os_tid, slot.thread + 1000, "a slot's owner was torn");
            let (sequence, events) = &mut self.threads[slot.thread as usize];
            if slot.sequence != *sequence {
                continue;
            }
            let closed = slot.state != SlotState::Active;
            let end = if closed {
                slot.length
            } else {
                RECORDS_PER_CHUNK
            };
            let position = &mut self.positions[index as usize];
            while *position < end {
                let Some(record) = pool.read(index, *position) else {
                    assert!(!closed, "a closed chunk lacks a committed record");
                    break;
                };
                assert_eq!(
                    (record.time, record.address),
                    (record.size, record.size),
                    "a record was read before it was whole"
                );
                assert_eq!(record.kind, Kind::Malloc as u8);
                events.push(record.size);
                *position += 1;
                progress = true;
            }
            if closed {
                *sequence += 1;
                *position = 0;
                pool.recycle(index);
                progress = true;
            }
        }
        progress
    }

    /// What is left when all threads are over.
    fn finish(&mut self, pool: Pool<'_>) {
        while self.pass(pool) {}
    }

    fn assert_all(&self, thread: u32, made: u64) {
        let first = u64::from(thread) * 100 + 1;
        let expected: Vec<u64> = (first..first + made).collect();
        assert_eq!(self.threads[thread as usize].1, expected, "thread {thread}");
    }
}

/// One thread fills more chunks than there are while the drainer reads and recycles: chunks are
/// used again, and what an earlier use left in them must not be read.
#[test]
fn a_thread_and_the_drainer_hand_chunks_round() {
    check(|| {
        let session = Arc::new(Session::new(2));
        let shared = Arc::clone(&session);
        let program = thread::spawn(move || {
            let pool = shared.pool();
            let mut producer = Producer::new(0);
            let mut made = 0;
            for _ in 0..5 {
                made += u64::from(producer.record(pool));
            }
            producer.end(pool);
            made
        });
        let mut drainer = Drainer::new(2, 1);
        for _ in 0..3 {
            drainer.pass(session.pool());
        }
        let made = program.join().unwrap();
        drainer.finish(session.pool());
        drainer.assert_all(0, made);
        assert!(made >= 4, "both chunks were free at the start");
    });
}

/// Two threads and the drainer on one stack of free chunks: no chunk is ever held twice (the head's
/// tag), none is lost.
#[test]
fn two_threads_take_what_the_drainer_gives_back() {
    check(|| {
        let session = Arc::new(Session::new(2));
        let programs: Vec<_> = (0..2)
            .map(|number| {
                let session = Arc::clone(&session);
                thread::spawn(move || {
                    let pool = session.pool();
                    let mut producer = Producer::new(number);
                    let made = u64::from(producer.record(pool));
                    producer.end(pool);
                    made
                })
            })
            .collect();
        let mut drainer = Drainer::new(2, 2);
        drainer.pass(session.pool());
        for (number, program) in programs.into_iter().enumerate() {
            let made = program.join().unwrap();
            assert_eq!(made, 1, "a chunk was free for each thread");
            drainer.finish(session.pool());
            drainer.assert_all(number as u32, made);
        }
        // Both chunks are back, each once.
        let owner = Owner {
            thread: 9,
            os_tid: 1009,
            sequence: 0,
            image: 1,
            name: [0; 16],
        };
        let pool = session.pool();
        let mut taken: Vec<_> = (0..2).filter_map(|_| pool.take(&owner)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        assert_eq!(pool.take(&owner), None);
    });
}
