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

/// `preemptions` in one execution; most defects of lock-free code need one or two.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// What a chunk with this sequence number says of the thread that takes it.
fn owner(thread: u32, sequence: u32) -> Owner {
    Owner {
        thread,
        os_tid: thread + 1000,
        sequence,
        process: 1,
        pid: 1,
        base: 0,
        name: [0; 16],
    }
}

/// A thread of the program: the steps of the recorder's hook and refill, without its cursor.
struct Producer {
    thread: u32,
    sequence: u32,
    chunk: Option<(u32, usize)>,
    /// Number of the next event, which is both of its words.
    next: u64,
    /// A full chunk is copied, if there is one to copy to.
    copies: bool,
}

impl Producer {
    fn new(thread: u32) -> Self {
        let next = u64::from(thread) * 100 + 1;
        Self {
            thread,
            sequence: 0,
            chunk: None,
            next,
            copies: false,
        }
    }

    /// Hands on a copy of the full chunk and begins it anew.
    fn hand_on(&mut self, pool: Pool<'_>, index: u32) -> bool {
        let copy = self
            .copies
            .then(|| pool.take_for_copy(&owner(self.thread, self.sequence - 1)));
        let Some(Some(copy)) = copy else { return false };
        assert!(pool.copy(index, copy));
        pool.close(copy, RECORDS_PER_CHUNK, false, [0; 16]);
        pool.restart(index, self.sequence, 0);
        self.sequence += 1;
        self.chunk = Some((index, 0));
        true
    }

    /// Records one event; `false` when no chunk was free (the event is then not made).
    fn record(&mut self, pool: Pool<'_>) -> bool {
        let held = self.chunk;
        let (index, position) = match held {
            Some((index, position)) if position < RECORDS_PER_CHUNK => (index, position),
            Some((index, _)) if self.hand_on(pool, index) => (index, 0),
            full => {
                if let Some((index, _)) = full {
                    pool.close(index, RECORDS_PER_CHUNK, false, [0; 16]);
                    self.chunk = None;
                }
                let Some(index) = pool.take(&owner(self.thread, self.sequence)) else {
                    return false;
                };
                self.sequence += 1;
                (index, 0)
            }
        };
        let chunk = pool.chunk(index);
        let event = self.next;
        chunk.records()[position].publish(event, Kind::Malloc, event, chunk.generation());
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
    /// By thread: sequence number of the chunk that is read, records read of it, events read.
    threads: Vec<(u32, usize, Vec<u64>)>,
    /// The threads are gone.
    over: bool,
}

impl Drainer {
    fn new(threads: usize) -> Self {
        Self {
            threads: vec![(0, 0, Vec::new()); threads],
            over: false,
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
            let (sequence, position, events) = &mut self.threads[slot.thread as usize];
            if slot.state == SlotState::Filling || slot.sequence != *sequence {
                if self.over && (slot.state == SlotState::Filling || slot.sequence < *sequence) {
                    pool.recycle(index);
                    progress = true;
                }
                continue;
            }
            let closed = slot.state != SlotState::Active;
            let end = if closed {
                slot.length
            } else {
                RECORDS_PER_CHUNK
            };
            let chunk = pool.chunk(index);
            let generation = chunk.generation();
            let records: Vec<_> = (chunk.records()[*position..end].iter())
                .map_while(|record| record.read(generation))
                .collect();
            let over = closed || self.over;
            if !over && !pool.is_same(index, &slot, generation) {
                continue;
            }
            assert!(
                !closed || records.len() == end - *position,
                "a closed chunk lacks a committed record"
            );
            for record in &records {
                assert_eq!(
                    record.word, record.address,
                    "a record was read before it was whole"
                );
                assert_eq!(record.kind, Kind::Malloc as u8);
                events.push(record.word);
            }
            *position += records.len();
            progress |= !records.is_empty();
            if over {
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
        self.over = true;
        while self.pass(pool) {}
    }

    fn assert_all(&self, thread: u32, made: u64) {
        let first = u64::from(thread) * 100 + 1;
        let expected: Vec<u64> = (first..first + made).collect();
        assert_eq!(self.threads[thread as usize].2, expected, "thread {thread}");
    }
}

/// One thread and the drainer; `events` are tried, `least` have room whatever the drainer does.
fn hand_over(chunks: usize, events: u64, passes: usize, least: u64, copies: bool) {
    // A copy has so many steps that three would take minutes.
    check(if copies { 2 } else { 3 }, move || {
        let session = Arc::new(Session::new(chunks));
        let shared = Arc::clone(&session);
        let program = thread::spawn(move || {
            let pool = shared.pool();
            let mut producer = Producer::new(0);
            producer.copies = copies;
            let made = (0..events).filter(|_| producer.record(pool)).count() as u64;
            if !copies {
                producer.end(pool);
            }
            made
        });
        let mut drainer = Drainer::new(1);
        for _ in 0..passes {
            drainer.pass(session.pool());
        }
        let made = program.join().unwrap();
        drainer.finish(session.pool());
        drainer.assert_all(0, made);
        assert!(made >= least, "only {made} events found room");
    });
}

/// The one chunk goes round: what its first use left in it must not be read in the second.
#[test]
fn a_chunk_that_is_used_again_shows_only_new_records() {
    hand_over(1, 4, 2, 2, false);
}

/// The thread goes on to a second chunk, which the drainer may see first.
#[test]
fn chunks_of_a_thread_are_read_in_their_order() {
    hand_over(2, 3, 1, 3, false);
}

/// A full chunk is copied and begun anew while the drainer reads it, and the thread dies without closing what it has: its
/// records are read once, whole and in order.
#[test]
fn a_chunk_that_is_copied_is_read_once() {
    hand_over(2, 3, 1, 3, true);
}

/// A thread takes a chunk while others are taken and one of them comes back: the head of the stack
/// is the same as before, what is below it is not. Nobody gets a chunk that another holds, and who
/// gets the one that came back writes in its new generation.
#[test]
fn no_chunk_is_held_twice_when_the_first_comes_back() {
    fn take(pool: Pool<'_>, thread: u32) -> Option<u32> {
        pool.take(&owner(thread, 0))
    }
    check(3, || {
        let session = Arc::new(Session::new(3));
        let shared = Arc::clone(&session);
        let other = thread::spawn(move || {
            let pool = shared.pool();
            let index = take(pool, 1)?;
            let chunk = pool.chunk(index);
            chunk.records()[0].publish(7, Kind::Malloc, 7, chunk.generation());
            Some(index)
        });
        let pool = session.pool();
        let mut held: Vec<u32> = (0..2).filter_map(|number| take(pool, number + 2)).collect();
        let first = held.remove(0);
        pool.close(first, 0, true, [0; 16]);
        pool.recycle(first);
        let theirs = other.join().unwrap().expect("three chunks are enough");
        assert_eq!(pool.read(theirs, 0).map(|record| record.word), Some(7));
        held.push(theirs);
        held.extend((0..3).map_while(|number| take(pool, number + 4)));
        held.sort_unstable();
        assert_eq!(held, [0, 1, 2]);
    });
}

/// A thread that has closed its chunk and waits for one learns that waiting does not help only from a pass that looked
/// after the closing, and then it is so: the chunk it closed was not there to be given back.
#[test]
fn a_chunk_closed_before_waiting_is_not_taken_for_held() {
    check(3, || {
        let session = Arc::new(Session::new(1));
        let chunk = session.pool().take(&owner(0, 0)).expect("the chunk");
        let shared = Arc::clone(&session);
        let program = thread::spawn(move || {
            let pool = shared.pool();
            pool.close(chunk, 0, false, [0; 16]);
            let heartbeat = pool.heartbeat();
            assert!(!pool.is_exhausted_since(heartbeat), "lost for nothing");
        });
        let pool = session.pool();
        for _ in 0..2 {
            pool.beat();
            pool.set_exhausted(pool.slot(chunk).state == SlotState::Active);
        }
        program.join().unwrap();
    });
}
