//! `lockstep`: the script's global order, one thread at a time, handed on directly from thread to thread.
//!
//! A thread that ends hands on from beyond its grave: the next one joins it first, so that what the subject does at a
//! thread's end is over before the next op, in every run alike.

use crate::engine::{Play, Player};
use crate::probe::Probe;
use crate::shared::SharedArray;
use crate::threads::{futex_wait, futex_wake};
use crate::world::World;
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

/// Whose turn it is.
pub struct Baton {
    turns: SharedArray<Turn>,
    state: UnsafeCell<State>,
}

/// Used by the thread whose turn it is.
struct State {
    /// Next run of the order.
    position: usize,
    /// Next op of each thread.
    next: Vec<usize>,
    /// A thread that has ended and must be waited for.
    leaving: Option<u32>,
}

impl Baton {
    /// The baton before the first op, or `None` when the memory cannot be mapped.
    pub fn new(threads: usize) -> Option<Self> {
        let state = State {
            position: 0,
            next: vec![0; threads],
            leaving: None,
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

    /// Gives the first turn.
    pub fn begin(&self, world: &World) {
        match world.script.order().first() {
            Some(run) => self.give(run.thread, GO),
            None => self.finish(world),
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
        let ops = world.script.thread(thread as usize);
        let order = world.script.order();
        let stays = world.script.exists_from_start(thread as usize);
        if ops.is_empty() && !stays {
            return;
        }
        loop {
            let word = loop {
                match self.turn(thread).swap(WAIT, Ordering::AcqRel) {
                    WAIT => futex_wait(self.turn(thread), WAIT),
                    word => break word,
                }
            };
            if word == OVER {
                return;
            }
            // SAFETY: it is this thread's turn, so nobody else uses the state.
            let state = unsafe { &mut *self.state.get() };
            if let Some(ended) = state.leaving.take() {
                world.crew.join(ended);
            }
            let next_thread = loop {
                let Some(run) = order.get(state.position) else {
                    break None;
                };
                if run.thread != thread {
                    break Some(run.thread);
                }
                let start = state.next[thread as usize];
                let end = start + run.count as usize;
                state.position += 1;
                state.next[thread as usize] = end;
                play(player, &ops[start..end]);
            };
            let ended = state.next[thread as usize] == ops.len();
            match next_thread {
                None => {
                    self.finish(world);
                    return;
                }
                Some(next) => {
                    let leaves = ended && !stays;
                    if leaves {
                        state.leaving = Some(thread);
                    }
                    self.give(next, GO);
                    if leaves {
                        return;
                    }
                }
            }
        }
    }

    /// After the last op: the idle tail, in which every thread that still exists sleeps, then everybody may end.
    fn finish(&self, world: &World) {
        end_of_memory(world);
        for thread in 0..self.turns.len() {
            if world.script.exists_from_start(thread) {
                self.give(thread as u32, OVER);
            }
        }
    }
}

/// The memory measure's last sample and idle tail.
pub fn end_of_memory(world: &World) {
    if world.spec.measure == heaplab_worker::protocol::Measure::Memory {
        // SAFETY: called by the thread whose turn it is, or by the only one.
        unsafe { (*world.recorder()).end(world.spec.idle_tail_ms) };
    }
}
