//! `lockstep`: the script's global order, one thread at a time, handed on directly from thread to thread.
//!
//! A thread that ends hands on from beyond its grave: the next one joins it first, so that what the subject does at a
//! thread's end is over before the next op, in every run alike.

use crate::engine::{Play, Player};
use crate::fail;
use crate::probe::Probe;
use crate::shared::SharedArray;
use crate::threads::{futex_wait, futex_wake};
use crate::world::World;
use heaplab_script::Runs;
use heaplab_worker::protocol::Measure;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};

/// A thread's word, alone on its cache line.
#[repr(C, align(64))]
struct Turn {
    word: AtomicU32,
}

/// Not this thread's turn.
const WAIT: u32 = 0;
/// This thread's turn.
const GO: u32 = 1;
/// The script is over.
const OVER: u32 = 2;
/// The script is over, and the thread is to make a call of the trickle.
const TRICKLE: u32 = 3;

/// Whose turn it is.
pub struct Baton {
    turns: SharedArray<Turn>,
    state: UnsafeCell<State>,
}

/// Used by the thread whose turn it is.
struct State {
    /// The order, from the next run on.
    runs: Option<Runs<'static>>,
    /// A thread that has ended and must be waited for.
    leaving: Option<u32>,
    /// The thread that made the last op and leads through the tail.
    leader: u32,
}

impl Baton {
    /// The baton before the first op, or `None` when the memory cannot be mapped.
    pub fn new(threads: usize) -> Option<Self> {
        let state = State {
            runs: None,
            leaving: None,
            leader: 0,
        };
        Some(Self {
            turns: SharedArray::new(threads)?,
            state: UnsafeCell::new(state),
        })
    }

    fn turn(&self, thread: u32) -> &AtomicU32 {
        // SAFETY: in range, never unmapped, and zero bytes are an atomic 0.
        unsafe { &(*self.turns.at(thread as usize)).word }
    }

    fn give(&self, thread: u32, word: u32) {
        self.turn(thread).store(word, Ordering::Release);
        futex_wake(self.turn(thread), 1);
    }

    /// Waits for this thread's turn; returns its word.
    fn take(&self, thread: u32) -> u32 {
        loop {
            match self.turn(thread).swap(WAIT, Ordering::AcqRel) {
                WAIT => futex_wait(self.turn(thread), WAIT),
                word => return word,
            }
        }
    }

    /// Gives the first turn. No other thread may have one.
    pub fn begin(&self, world: &'static World) {
        // SAFETY: nobody has the turn, so nobody else uses the state.
        let state = unsafe { &mut *self.state.get() };
        *state = State {
            runs: Some(world.script.runs()),
            leaving: None,
            leader: 0,
        };
        match next_thread(state) {
            Some(thread) => self.give(thread, GO),
            None => self.finish(world, 0),
        }
    }

    /// Plays one thread's part of the order.
    pub fn play<P: Probe>(
        &self,
        world: &'static World,
        thread: u32,
        player: &mut Player<P>,
        play: Play<P>,
    ) {
        let mut cursor = world.cursor(thread);
        let stays = world.stays(thread);
        if cursor.left() == 0 && !stays {
            return;
        }
        loop {
            match self.take(thread) {
                OVER => return,
                TRICKLE => {
                    trickle_call(world);
                    // SAFETY: the leader waits for this answer, so it does not use the state.
                    let leader = unsafe { (*self.state.get()).leader };
                    self.give(leader, GO);
                    continue;
                }
                _ => {}
            }
            // SAFETY: it is this thread's turn, so nobody else uses the state.
            let state = unsafe { &mut *self.state.get() };
            if let Some(ended) = state.leaving.take() {
                world.crew.join(ended);
            }
            let next = loop {
                let run = match state.runs.as_mut().map(Runs::peek) {
                    Some(Ok(Some(run))) => run,
                    Some(Err(error)) => fail::with(error.to_string()),
                    _ => break None,
                };
                if run.thread != thread {
                    break Some(run.thread);
                }
                state.runs.as_mut().map(Runs::advance);
                player.plays(play, &mut cursor, u64::from(run.count));
            };
            let Some(next) = next else {
                self.finish(world, thread);
                return;
            };
            let leaves = cursor.left() == 0 && !stays;
            if leaves {
                state.leaving = Some(thread);
            }
            self.give(next, GO);
            if leaves {
                return;
            }
        }
    }

    /// After the last op: the idle tail, in which every thread that still exists sleeps, the trickle, in which each makes
    /// a call now and then, then everybody may end.
    fn finish(&self, world: &World, leader: u32) {
        let others: Vec<u32> = (0..self.turns.len() as u32)
            .filter(|thread| world.stays(*thread) && *thread != leader)
            .collect();
        // SAFETY: the script is over and this thread had the last turn: nobody else uses the state.
        unsafe { (*self.state.get()).leader = leader };
        end_of_memory(world, || {
            for thread in &others {
                self.give(*thread, TRICKLE);
                self.take(leader);
            }
        });
        for thread in others {
            self.give(thread, OVER);
        }
    }
}

fn next_thread(state: &mut State) -> Option<u32> {
    match state.runs.as_mut()?.peek() {
        Ok(run) => Some(run?.thread),
        Err(error) => fail::with(error.to_string()),
    }
}

/// One round of the trickle in one thread: a small block comes and goes.
fn trickle_call(world: &World) {
    for size in [24, 200] {
        // SAFETY: any size may be asked for, and the block is freed at once.
        unsafe { (world.calls.free)((world.calls.malloc)(size)) };
    }
}

/// The memory measure's last sample, idle tail and trickle; `others` makes the calls of the other threads.
pub fn end_of_memory(world: &World, others: impl Fn()) {
    if world.spec.measure == Measure::Memory {
        // SAFETY: called by the thread whose turn it is, or by the only one.
        let recorder = unsafe { &mut *world.recorder() };
        if let Some(path) = &world.spec.tail_file {
            // Nobody waits long for a sign that cannot be given: the run's end is one as well.
            let _ = std::fs::write(path, []);
        }
        recorder.end(world.spec.idle_tail_ms);
        recorder.trickle(world.spec.trickle_ms, || {
            trickle_call(world);
            others();
        });
    }
}
