//! Plays a model's threads and tells their ops in one global order: rounds of a random permutation of threads, one turn
//! each.
//!
//! Each thread draws from random numbers of its own. Threads that never touch one another's blocks are therefore played
//! in parallel, many turns at a time; all others take their turns one after the other, because what a thread may do depends
//! on what has been handed to it. Memory is bounded by the live sets and by the ops of one window.

mod actor;
mod commons;
mod desk;
mod group;
mod recall;
mod run;
mod tally;

use super::definition::Succession;
use super::plan::Plan;
use super::sampler::below;
use crate::compile::Progress;
use crate::error::WorkloadError;
use actor::{Actor, Turn};
use commons::Commons;
use heaplab_script::{Op, OpKind};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use rayon::prelude::*;
use tally::Tally;

/// Changes when the same definition and seed would give other ops; part of every hash.
pub const VERSION: u32 = 5;

/// Threads of a script at most, all generations of respawned ones together: a block knows its thread by 16 bits.
const MAX_THREADS: u32 = 1 << 16;
/// Calls of all threads in a window of parallel play, about: the order of turns is told window by window.
const WINDOW: u64 = 1 << 21;
/// Ops that a thread plays ahead before they are told: half a mebibyte, which stays in a core's cache together with the live
/// set. Alone it need not wait for others, and its ops can be told sooner.
const STRETCH: usize = 1 << 15;
const STRETCH_ALONE: usize = 1 << 13;

/// Ops of a thread that are told at once where threads take short turns: telling two ops costs as much as telling twenty.
const HELD: usize = 512;

/// Rounds without a call after which a part of a course is over.
const IDLE_ROUNDS: u32 = 64;

/// Takes the ops of a model.
pub trait Sink {
    /// A further thread, whose number is the next one, is about to be started.
    fn successor(&mut self) -> Result<(), WorkloadError>;
    /// The next ops of a thread.
    fn ops(&mut self, thread: u32, ops: &[Op]) -> Result<(), WorkloadError>;
    /// So many ops of the thread come next in the global order; they may be told later than this.
    fn order(&mut self, thread: u32, count: u32) -> Result<(), WorkloadError>;
}

/// What is known when a model has been played.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// Calls of the malloc family.
    pub calls: u64,
    /// For each script thread: the one from the beginning whose private slots it uses.
    pub pools: Vec<usize>,
    /// Private slots of each pool.
    pub private_slots: Vec<u32>,
    /// Slots of blocks that cross threads.
    pub shared_slots: u32,
    /// Largest sum of requested bytes alive.
    pub peak_bytes: u64,
    /// Largest number of blocks alive.
    pub peak_blocks: u64,
}

/// Plays a plan.
pub fn play(
    plan: &Plan,
    sink: &mut impl Sink,
    progress: Progress<'_>,
) -> Result<Played, WorkloadError> {
    let mut play = Play {
        plan,
        actors: (0..plan.threads.len())
            .map(|index| Actor::new(plan, index))
            .collect(),
        order: actor::stream(plan.seed, 0),
        level: Tally::default(),
        calls: 0,
        sink,
        progress,
        pools: (0..plan.threads.len()).collect(),
    };
    let shared_slots = if plan.separate {
        play.separately()?;
        0
    } else {
        play.together()?
    };
    let (peak_bytes, peak_blocks) = play.level.peaks();
    Ok(Played {
        calls: play.calls,
        private_slots: play.actors.iter().map(Actor::private_slots).collect(),
        pools: play.pools,
        shared_slots,
        peak_bytes,
        peak_blocks,
    })
}

struct Play<'p, 's, S> {
    plan: &'p Plan,
    actors: Vec<Actor<'p>>,
    /// Random numbers of the global order.
    order: Pcg64,
    /// What is alive along the whole order.
    level: Tally,
    calls: u64,
    sink: &'s mut S,
    progress: Progress<'s>,
    pools: Vec<usize>,
}

impl<S: Sink> Play<'_, '_, S> {
    /// The mark of a phase, and what changes with it.
    fn begin_phase(&mut self, phase: usize) -> Result<(), WorkloadError> {
        let about = &self.plan.phases[phase];
        if about.name.is_some() {
            self.tell(0)?;
            let number = self.actors[0].number;
            let mark = Op::new(OpKind::Mark, 0, 0, 0, phase as u64, 0);
            self.sink.ops(number, &[mark])?;
            self.sink.order(number, 1)?;
        }
        for actor in &mut self.actors {
            actor.begin_phase(about);
        }
        Ok(())
    }

    /// Threads that have nothing to do with one another: in windows of many turns, in parallel.
    fn separately(&mut self) -> Result<(), WorkloadError> {
        let count = self.actors.len() as u64;
        let turns = self.turns_of_a_window();
        for round in 0..self.plan.rounds {
            for phase in 0..self.plan.phases.len() {
                self.begin_phase(phase)?;
                let all = self.plan.end_of(round, phase) - self.calls;
                let mut parts: Vec<Part> = (0..count)
                    .map(|index| Part::new(all / count + u64::from(index < all % count)))
                    .collect();
                while parts.iter().any(|part| part.left > 0) {
                    self.play_window(&mut parts, turns)?;
                    self.tell_order(&parts, turns)?;
                    (self.progress)(self.calls, self.plan.calls);
                }
            }
        }
        Ok(())
    }

    /// Plays a window and tells the ops of each thread, stretch by stretch.
    fn play_window(&mut self, parts: &mut [Part], turns: usize) -> Result<(), WorkloadError> {
        for part in &mut *parts {
            part.turns.clear();
        }
        while parts.iter().any(|part| part.plays_on(turns)) {
            if let ([actor], [part]) = (&mut self.actors[..], &mut *parts) {
                part.play(actor, turns, STRETCH_ALONE);
            } else {
                self.actors
                    .par_iter_mut()
                    .zip(&mut *parts)
                    .for_each(|(actor, part)| part.play(actor, turns, STRETCH));
            }
            for actor in &mut self.actors {
                self.sink.ops(actor.number, &actor.ops)?;
                actor.ops.clear();
            }
        }
        Ok(())
    }

    fn turns_of_a_window(&self) -> usize {
        let longest = self
            .plan
            .roles
            .iter()
            .map(|role| role.burst)
            .max()
            .unwrap_or(1);
        (WINDOW / (self.actors.len() as u64 * longest)).clamp(1, 1 << 20) as usize
    }

    /// Tells the order of the turns of a window.
    fn tell_order(&mut self, parts: &[Part], turns: usize) -> Result<(), WorkloadError> {
        let mut permutation: Vec<usize> = (0..self.actors.len()).collect();
        for turn in 0..turns {
            shuffle(&mut permutation, &mut self.order);
            for &index in &permutation {
                let Some(made) = parts[index].turns.get(turn) else {
                    continue;
                };
                let (made, tally) = made;
                self.calls += made.calls;
                self.level.follow(tally);
                if made.ops > 0 {
                    self.sink.order(self.actors[index].number, made.ops)?;
                }
            }
        }
        Ok(())
    }

    /// Threads that hand blocks to one another: turn by turn. Returns the number of shared slots.
    fn together(&mut self) -> Result<u32, WorkloadError> {
        let mut commons = Commons::new(self.plan);
        let mut permutation: Vec<usize> = (0..self.actors.len()).collect();
        let mut asleep: Vec<Option<u64>> = (0..self.actors.len())
            .map(|index| self.starts_at(index))
            .collect();
        let mut told = 0;
        for round in 0..self.plan.rounds {
            for phase in 0..self.plan.phases.len() {
                self.begin_phase(phase)?;
                let begin = self.calls;
                let end = self.plan.end_of(round, phase);
                let passing = self.plan.phases[phase].turn.iter().any(Option::is_some);
                let mut idle = 0;
                while self.calls < end {
                    self.wake(&mut asleep, self.calls)?;
                    shuffle(&mut permutation, &mut self.order);
                    let before = self.calls;
                    for &index in &permutation {
                        if asleep[index].is_some() || self.calls >= end {
                            continue;
                        }
                        let behind = (self.calls - begin, end - begin);
                        let limit = end - self.calls;
                        let level = &mut self.level;
                        let made =
                            self.actors[index].turn(behind, limit, Some(&mut commons), level);
                        self.take(index, &made)?;
                    }
                    let succeeded = self.succeed()?;
                    // Nobody has anything to do (a live factor of 0): the phase is over early. Where turns are passed,
                    // once is no sign of that.
                    idle = if self.calls == before && !succeeded {
                        idle + 1
                    } else {
                        0
                    };
                    if idle > if passing { IDLE_ROUNDS } else { 0 } {
                        break;
                    }
                    if self.calls - told >= WINDOW {
                        told = self.calls;
                        (self.progress)(self.calls, self.plan.calls);
                    }
                }
            }
        }
        // A thread whose time never came starts and ends at once: the script has promised it.
        self.wake(&mut asleep, u64::MAX)?;
        for index in 0..self.actors.len() {
            self.tell(index)?;
        }
        Ok(commons.shared.count())
    }

    fn take(&mut self, index: usize, made: &Turn) -> Result<(), WorkloadError> {
        let actor = &mut self.actors[index];
        self.calls += made.calls;
        if made.ops > 0 {
            self.sink.order(actor.number, made.ops)?;
        }
        if actor.ops.len() >= HELD {
            self.tell(index)?;
        }
        Ok(())
    }

    /// Tells the ops that a thread has made since the last time.
    fn tell(&mut self, index: usize) -> Result<(), WorkloadError> {
        let actor = &mut self.actors[index];
        if !actor.ops.is_empty() {
            self.sink.ops(actor.number, &actor.ops)?;
            actor.ops.clear();
        }
        Ok(())
    }

    /// The call at which a thread of a ramped role starts; `None`: from the beginning.
    fn starts_at(&self, index: usize) -> Option<u64> {
        let role = self.plan.threads[index];
        let ramp = self.plan.roles[role].ramp;
        if ramp == 0.0 || index == 0 {
            return None;
        }
        let members: Vec<usize> = (0..self.actors.len())
            .filter(|&other| self.plan.threads[other] == role)
            .collect();
        let place = members
            .iter()
            .position(|&other| other == index)
            .unwrap_or(0);
        let part = place as f64 / members.len() as f64 * ramp;
        Some((self.plan.calls as f64 * part) as u64)
    }

    /// Starts the threads whose time has come when `calls` have been made.
    fn wake(&mut self, asleep: &mut [Option<u64>], calls: u64) -> Result<(), WorkloadError> {
        for (index, start) in asleep.iter_mut().enumerate() {
            if start.is_some_and(|start| calls >= start) {
                *start = None;
                self.start_thread(0, index as u32)?;
            }
        }
        Ok(())
    }

    fn start_thread(&mut self, by: usize, child: u32) -> Result<(), WorkloadError> {
        let start = Op::new(OpKind::ThreadStart, 0, 0, child, 0, 0);
        self.actors[by].ops.push(start);
        self.sink.order(self.actors[by].number, 1)?;
        self.tell(by)
    }

    /// Between rounds: whole live sets move on. True when any did.
    fn succeed(&mut self) -> Result<bool, WorkloadError> {
        let mut any = false;
        for role in 0..self.plan.roles.len() {
            let plan = &self.plan.roles[role];
            let threads = &self.plan.threads;
            let mut members = (0..threads.len()).filter(|&index| threads[index] == role);
            match plan.succession {
                None => {}
                Some(Succession::Ring { .. }) => {
                    // All at once, when the slowest has done its share.
                    if !members.all(|index| self.actors[index].since_hand_over >= plan.every) {
                        continue;
                    }
                    let members = (0..threads.len()).filter(|&index| threads[index] == role);
                    let members: Vec<usize> = members.collect();
                    for pair in members.windows(2) {
                        let (low, high) = self.actors.split_at_mut(pair[1]);
                        low[pair[0]].swap_sets(&mut high[0]);
                    }
                    for &index in &members {
                        self.actors[index].since_hand_over = 0;
                    }
                    any = true;
                }
                // Nobody has a successor any more.
                Some(Succession::Respawn { .. }) if self.pools.len() >= MAX_THREADS as usize => {}
                Some(Succession::Respawn { inherit, .. }) => {
                    for index in members {
                        if self.actors[index].since_hand_over >= plan.every {
                            any |= self.respawn(index, inherit)?;
                        }
                    }
                }
            }
        }
        Ok(any)
    }

    /// The thread ends and a successor goes on, when it has freed what it has to.
    fn respawn(&mut self, index: usize, inherit: bool) -> Result<bool, WorkloadError> {
        let child = self.pools.len() as u32;
        let actor = &mut self.actors[index];
        if child >= MAX_THREADS || !(inherit || actor.retire()) {
            return Ok(false);
        }
        self.sink.successor()?;
        self.start_thread(index, child)?;
        self.actors[index].reborn(child);
        self.pools.push(index);
        Ok(true)
    }
}

/// What a thread does of a phase when it is played alone.
struct Part {
    all: u64,
    left: u64,
    /// Its turns in this window, and what they did to what is alive.
    turns: Vec<(Turn, Tally)>,
}

impl Part {
    fn new(calls: u64) -> Self {
        Self {
            all: calls,
            left: calls,
            turns: Vec::new(),
        }
    }

    /// Whether there is more to do in a window of so many turns.
    fn plays_on(&self, turns: usize) -> bool {
        self.left > 0 && self.turns.len() < turns
    }

    /// Goes on with a window until about `stretch` ops are to be told.
    fn play(&mut self, actor: &mut Actor<'_>, turns: usize, stretch: usize) {
        while self.plays_on(turns) && actor.ops.len() < stretch {
            let behind = (self.all - self.left, self.all);
            self.turns.push((Turn::default(), Tally::default()));
            let Some((turn, tally)) = self.turns.last_mut() else {
                return;
            };
            *turn = actor.turn(behind, self.left, None, tally);
            let made = *turn;
            if made.calls == 0 {
                // Nothing to do (a live factor of 0): the phase is over early.
                self.left = 0;
            }
            self.left -= made.calls;
        }
    }
}

fn shuffle(order: &mut [usize], random: &mut Pcg64) {
    for last in (1..order.len()).rev() {
        let other = below(random.next_u64(), last as u64 + 1) as usize;
        order.swap(last, other);
    }
}
