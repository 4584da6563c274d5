//! Plays a model's threads in one global order: rounds of a random permutation of threads, about 64 calls each.
//!
//! A generator tells the same events each time it is asked, because everything starts again from the seed.

use super::ModelParams;
use super::definition::{BatchOrder, Definition, HandOver, Lifetime, Role};
use super::live::{Block, LiveSet};
use super::sampler::{Sampler, below};
use crate::compile::{Action, Event, Source};
use crate::error::WorkloadError;
use heaplab_script::OpKind;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::collections::VecDeque;

/// Changes when the same definition and seed would give other events; part of every hash.
pub const VERSION: u32 = 1;

/// Threads of a script at most, all generations of respawned ones together.
const MAX_THREADS: usize = 1 << 16;
/// Blocks that wait for a remote free in one thread before others free their own instead.
const INBOX: usize = 4096;

/// A role with its tables.
struct Plan<'a> {
    role: &'a Role,
    live: u64,
    sizes: Vec<Sampler>,
    calloc: u64,
    aligned: u64,
    align_log2: Vec<u8>,
    queue: Option<(usize, usize, u64)>,
    remote: u64,
    every: u64,
}

struct Phase {
    calls: u64,
    drop: f64,
    live_factor: f64,
    sampler: usize,
    name: Option<String>,
}

/// Draws a model; see [`Source`].
pub struct Generator<'a> {
    plans: Vec<Plan<'a>>,
    /// Role of each thread that exists from the beginning.
    roles: Vec<usize>,
    phases: Vec<Phase>,
    calls: u64,
    seed: u64,
}

impl<'a> Generator<'a> {
    /// Checks the parameters and builds the tables.
    pub fn new(definition: &'a Definition, params: &ModelParams) -> Result<Self, WorkloadError> {
        let scale = params.scale;
        if !(scale > 0.0 && scale <= 1e6) {
            return Err(WorkloadError::Parameters(format!(
                "scale {scale} is not possible: give a number above 0, at most 1000000"
            )));
        }
        let scaled = |value: u64| ((value as f64 * scale) as u64).max(1);
        let calls = scaled(definition.ops);
        let phases = phases(definition, calls);
        let position = |name: &str| definition.role.iter().position(|role| role.name == name);
        let mut plans = Vec::new();
        for role in &definition.role {
            let own = role.size.iter().map(Sampler::new);
            let later = definition
                .phase
                .iter()
                .filter_map(|phase| phase.size.as_ref());
            let sizes = match role.size {
                Some(_) => own.chain(later.map(Sampler::new)).collect(),
                None => Vec::new(),
            };
            let aligned = role.aligned.as_ref();
            plans.push(Plan {
                role,
                live: if role.live == 0 { 0 } else { scaled(role.live) },
                sizes,
                calloc: threshold(role.calloc),
                aligned: threshold(aligned.map_or(0.0, |aligned| aligned.share)),
                align_log2: aligned
                    .map(|aligned| aligned.to.iter().map(|to| to.ilog2() as u8).collect())
                    .unwrap_or_default(),
                queue: match &role.hand_over {
                    Some(HandOver::Queue { to, depth, share }) => {
                        position(to).map(|role| (role, *depth as usize, threshold(*share)))
                    }
                    _ => None,
                },
                remote: match role.hand_over {
                    Some(HandOver::Random { share }) => threshold(share),
                    _ => 0,
                },
                every: match role.hand_over {
                    Some(HandOver::Ring { every } | HandOver::Respawn { every }) => {
                        scaled(every).max(64)
                    }
                    _ => u64::MAX,
                },
            });
        }
        let roles = assign(definition, params.threads)?;
        Ok(Self {
            plans,
            roles,
            phases,
            calls,
            seed: params.seed,
        })
    }
}

/// Splits the calls over the phases by their shares.
fn phases(definition: &Definition, calls: u64) -> Vec<Phase> {
    if definition.phase.is_empty() {
        return vec![Phase {
            calls,
            drop: 0.0,
            live_factor: 1.0,
            sampler: 0,
            name: None,
        }];
    }
    let sum: f64 = definition.phase.iter().map(|phase| phase.share).sum();
    let mut with_size = 0;
    definition
        .phase
        .iter()
        .map(|phase| {
            with_size += usize::from(phase.size.is_some());
            Phase {
                calls: (calls as f64 * (phase.share / sum)) as u64,
                drop: phase.drop,
                live_factor: phase.live_factor,
                sampler: if phase.size.is_some() { with_size } else { 0 },
                name: Some(phase.name.clone()),
            }
        })
        .collect()
}

/// Roles of `threads` threads in proportion to the definition, at least one each, interleaved so that neighbours differ.
fn assign(definition: &Definition, threads: Option<u32>) -> Result<Vec<usize>, WorkloadError> {
    let shares: Vec<u64> = definition
        .role
        .iter()
        .map(|role| u64::from(role.threads))
        .collect();
    let sum: u64 = shares.iter().sum();
    let wanted = threads.map_or(sum, u64::from);
    if wanted < shares.len() as u64 || wanted > 4096 {
        return Err(WorkloadError::Parameters(format!(
            "model '{}' cannot run with {wanted} threads: it needs {} to 4096",
            definition.name,
            shares.len()
        )));
    }
    let mut counts: Vec<u64> = shares
        .iter()
        .map(|share| (share * wanted / sum).max(1))
        .collect();
    // The role that is furthest below its share gets the next thread; above its share, loses one.
    loop {
        let have: u64 = counts.iter().sum();
        let lack =
            |index: usize| shares[index] as i64 * wanted as i64 - (counts[index] * sum) as i64;
        if have < wanted {
            let poorest = (0..counts.len())
                .rev()
                .max_by_key(|&index| lack(index))
                .unwrap_or(0);
            counts[poorest] += 1;
        } else if have > wanted {
            let richest = (0..counts.len())
                .filter(|&index| counts[index] > 1)
                .min_by_key(|&index| lack(index))
                .unwrap_or(0);
            counts[richest] -= 1;
        } else {
            break;
        }
    }
    let mut roles = Vec::new();
    while roles.len() < wanted as usize {
        for (role, count) in counts.iter_mut().enumerate() {
            if *count > 0 {
                *count -= 1;
                roles.push(role);
            }
        }
    }
    Ok(roles)
}

/// A share as a bound for the upper 32 bits of a random word.
fn threshold(share: f64) -> u64 {
    (share * (1u64 << 32) as f64) as u64
}

struct Thread {
    /// Its number in the script; changes when it is respawned.
    number: u32,
    role: usize,
    live: LiveSet,
    inbox: VecDeque<Block>,
    /// Blocks still to be freed because a phase began.
    to_drop: u64,
    /// The batch is being freed; the stack is being unwound.
    draining: bool,
    calls: u64,
    since_hand_over: u64,
    since_pause: u64,
}

/// The state of one telling.
struct Play<'g, 'a, F> {
    generator: &'g Generator<'a>,
    threads: Vec<Thread>,
    members: Vec<Vec<usize>>,
    random: Pcg64,
    free_numbers: Vec<u32>,
    next_number: u32,
    next_thread: u32,
    phase: usize,
    calls: u64,
    take: F,
}

impl Source for Generator<'_> {
    fn phases(&self) -> Vec<String> {
        self.phases
            .iter()
            .filter_map(|phase| phase.name.clone())
            .collect()
    }

    fn expected_events(&self) -> u64 {
        self.calls
    }

    fn threads_if_separate(&self) -> Option<u32> {
        let separate = self.plans.iter().all(|plan| plan.role.hand_over.is_none());
        separate.then_some(self.roles.len() as u32)
    }

    fn tell<F>(&mut self, take: F) -> Result<(), WorkloadError>
    where
        F: FnMut(Event) -> Result<(), WorkloadError>,
    {
        let mut members = vec![Vec::new(); self.plans.len()];
        let mut threads = Vec::new();
        for (number, &role) in self.roles.iter().enumerate() {
            members[role].push(number);
            threads.push(Thread {
                number: number as u32,
                role,
                live: LiveSet::new(self.plans[role].role.lifetime),
                inbox: VecDeque::new(),
                to_drop: 0,
                draining: false,
                calls: 0,
                since_hand_over: 0,
                since_pause: 0,
            });
        }
        let mut play = Play {
            generator: self,
            next_thread: threads.len() as u32,
            threads,
            members,
            // Two odd constants spread small seeds; the stream number is fixed.
            random: Pcg64::new(
                u128::from(self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
                0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d,
            ),
            free_numbers: Vec::new(),
            next_number: 0,
            phase: 0,
            calls: 0,
            take,
        };
        play.run()
    }
}

impl<F: FnMut(Event) -> Result<(), WorkloadError>> Play<'_, '_, F> {
    fn run(&mut self) -> Result<(), WorkloadError> {
        let mut turn: Vec<usize> = (0..self.threads.len()).collect();
        for phase in 0..self.generator.phases.len() {
            self.begin_phase(phase)?;
            let end = self.calls + self.generator.phases[phase].calls;
            while self.calls < end {
                for last in (1..turn.len()).rev() {
                    let other = below(self.random.next_u64(), last as u64 + 1) as usize;
                    turn.swap(last, other);
                }
                let before = self.calls;
                for &thread in &turn {
                    let quantum = 32 + below(self.random.next_u64(), 65);
                    for _ in 0..quantum {
                        if self.calls >= end || !self.step(thread)? {
                            break;
                        }
                    }
                    self.pause(thread)?;
                }
                self.hand_over()?;
                if self.calls == before {
                    // Nobody has anything to do (live-factor 0): the phase is over early.
                    break;
                }
            }
        }
        Ok(())
    }

    fn begin_phase(&mut self, phase: usize) -> Result<(), WorkloadError> {
        self.phase = phase;
        let about = &self.generator.phases[phase];
        if about.name.is_some() {
            (self.take)(Event {
                thread: 0,
                action: Action::Mark {
                    phase: phase as u32,
                },
            })?;
        }
        for thread in &mut self.threads {
            thread.to_drop = (thread.live.len() as f64 * about.drop) as u64;
        }
        Ok(())
    }

    fn emit(&mut self, thread: usize, action: Action) -> Result<(), WorkloadError> {
        let state = &mut self.threads[thread];
        state.calls += 1;
        state.since_hand_over += 1;
        state.since_pause += 1;
        self.calls += 1;
        (self.take)(Event {
            thread: state.number,
            action,
        })
    }

    /// One call of a thread; false when it has nothing to do now.
    #[inline]
    fn step(&mut self, thread: usize) -> Result<bool, WorkloadError> {
        let state = &mut self.threads[thread];
        let plan = &self.generator.plans[state.role];
        if let Some(block) = state.inbox.pop_front() {
            return self.free(thread, block);
        }
        if state.to_drop > 0 {
            state.to_drop -= 1;
            let word = self.random.next_u64();
            return match state.live.take_random(word) {
                Some(block) => self.free(thread, block),
                None => Ok(false),
            };
        }
        if plan.sizes.is_empty() {
            return Ok(false);
        }
        if plan.live == 0 {
            return self.alloc(thread);
        }
        let factor = self.generator.phases[self.phase].live_factor;
        let target = if factor == 1.0 {
            plan.live
        } else {
            (plan.live as f64 * factor) as u64
        };
        let full = state.live.len() as u64 >= target;
        if let Some(grow) = &plan.role.grow
            && full
            && let Some(block) = state.live.peek_random(self.random.next_u64())
            && block.size < block.target
        {
            let next = f64::from(block.size) * grow.factor + f64::from(grow.step);
            let next = (next as u32).max(block.size + 1).min(block.target);
            block.size = next;
            let number = block.number;
            self.emit(
                thread,
                Action::Realloc {
                    block: number,
                    size: u64::from(next),
                },
            )?;
            return Ok(true);
        }
        let frees = match plan.role.lifetime {
            Lifetime::Random | Lifetime::Fifo | Lifetime::Bimodal { .. } => full,
            Lifetime::Exponential => {
                let live = state.live.len() as u64;
                below(self.random.next_u64(), live + target.max(1)) < live
            }
            Lifetime::Lifo => {
                // The direction lasts eight calls on average; the ends turn it round.
                if self.random.next_u64() >> 61 == 0 {
                    state.draining = !state.draining;
                }
                if full {
                    state.draining = true;
                } else if state.live.len() == 0 {
                    state.draining = false;
                }
                state.draining
            }
            Lifetime::Batch { .. } => {
                if full {
                    state.draining = true;
                } else if state.live.len() == 0 {
                    state.draining = false;
                }
                state.draining
            }
        };
        if !frees {
            return self.alloc(thread);
        }
        if target == 0 && state.live.len() == 0 {
            return Ok(false);
        }
        let word = self.random.next_u64();
        let block = match plan.role.lifetime {
            Lifetime::Batch {
                order: BatchOrder::Fifo,
            } => state.live.take_oldest(),
            Lifetime::Batch {
                order: BatchOrder::Lifo,
            } => state.live.take_youngest(),
            _ => state.live.take_victim(word),
        };
        match block {
            Some(block) => self.free_somewhere(thread, block),
            None => Ok(false),
        }
    }

    fn free(&mut self, thread: usize, block: Block) -> Result<bool, WorkloadError> {
        self.free_numbers.push(block.number);
        self.emit(
            thread,
            Action::Free {
                block: block.number,
            },
        )?;
        Ok(true)
    }

    /// Frees a block here, or has another thread of the role do it.
    #[inline]
    fn free_somewhere(&mut self, thread: usize, block: Block) -> Result<bool, WorkloadError> {
        let role = self.threads[thread].role;
        let remote = self.generator.plans[role].remote;
        if remote != 0 && self.random.next_u64() >> 32 < remote {
            let others = &self.members[role];
            let other = others[below(self.random.next_u64(), others.len() as u64) as usize];
            if other != thread && self.threads[other].inbox.len() < INBOX {
                self.threads[other].inbox.push_back(block);
                // The call is the other thread's; this one goes on with an allocation.
                return self.alloc(thread);
            }
        }
        self.free(thread, block)
    }

    #[inline]
    fn alloc(&mut self, thread: usize) -> Result<bool, WorkloadError> {
        let plan = &self.generator.plans[self.threads[thread].role];
        let mut receiver = None;
        if let Some((role, depth, share)) = plan.queue
            && self.random.next_u64() >> 32 < share
        {
            let members = &self.members[role];
            let other = members[below(self.random.next_u64(), members.len() as u64) as usize];
            if self.threads[other].inbox.len() >= depth {
                return Ok(false);
            }
            receiver = Some(other);
        }
        let sampler = self.generator.phases[self.phase].sampler;
        let drawn = plan.sizes[sampler].draw(&mut self.random);
        let size = match &plan.role.grow {
            Some(grow) => grow.start.min(drawn.max(1)),
            None => drawn,
        };
        let (mut kind, mut align_log2) = (OpKind::Malloc, 0);
        if plan.calloc | plan.aligned != 0 {
            let word = self.random.next_u64();
            let choice = word >> 32;
            if choice < plan.calloc {
                kind = OpKind::Calloc;
            } else if choice - plan.calloc < plan.aligned {
                kind = OpKind::AlignedAlloc;
                let index = ((word & 0xffff_ffff) * plan.align_log2.len() as u64) >> 32;
                align_log2 = plan.align_log2[index as usize];
            }
        }
        let number = self.free_numbers.pop().unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number - 1
        });
        let block = Block {
            number,
            size,
            target: drawn,
        };
        match receiver {
            Some(other) => self.threads[other].inbox.push_back(block),
            None => self.threads[thread].live.put(block, &mut self.random),
        }
        let size = u64::from(size);
        self.emit(
            thread,
            Action::Alloc {
                kind,
                block: number,
                size,
                align_log2,
            },
        )?;
        Ok(true)
    }

    fn pause(&mut self, thread: usize) -> Result<(), WorkloadError> {
        let state = &mut self.threads[thread];
        let Some(pause) = self.generator.plans[state.role].role.pause else {
            return Ok(());
        };
        if state.since_pause < pause.every {
            return Ok(());
        }
        state.since_pause = 0;
        let ns = u64::from(pause.ms) * 1_000_000;
        (self.take)(Event {
            thread: state.number,
            action: Action::Idle { ns },
        })
    }

    /// Between rounds: whole live sets move on.
    fn hand_over(&mut self) -> Result<(), WorkloadError> {
        for role in 0..self.members.len() {
            let plan = &self.generator.plans[role];
            if plan.every == u64::MAX {
                continue;
            }
            let members = &self.members[role];
            if matches!(plan.role.hand_over, Some(HandOver::Ring { .. })) {
                // All at once, when the slowest has done its share.
                let due = |&thread: &usize| self.threads[thread].since_hand_over >= plan.every;
                if !members.iter().all(due) {
                    continue;
                }
                for pair in members.windows(2) {
                    let (low, high) = self.threads.split_at_mut(pair[1]);
                    std::mem::swap(&mut low[pair[0]].live, &mut high[0].live);
                }
                for &thread in members {
                    self.threads[thread].since_hand_over = 0;
                }
                continue;
            }
            for &thread in members {
                let state = &mut self.threads[thread];
                if state.since_hand_over < plan.every || self.next_thread as usize >= MAX_THREADS {
                    continue;
                }
                let child = self.next_thread;
                self.next_thread += 1;
                let parent = std::mem::replace(&mut state.number, child);
                state.since_hand_over = 0;
                (self.take)(Event {
                    thread: parent,
                    action: Action::Start { thread: child },
                })?;
            }
        }
        Ok(())
    }
}
