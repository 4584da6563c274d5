//! One thread of a model: its random numbers, its blocks, its ops.

use super::commons::Commons;
use super::desk::{Desk, Step, free_op, recycle};
use super::recall::Memory;
use super::run::{Run, call};
use super::tally::Tally;
use crate::model::alias::Alias;
use crate::model::definition::{Call, Deed};
use crate::model::live::{Block, LiveSet};
use crate::model::plan::{GroupPlan, PhasePlan, Plan, RolePlan};
use crate::model::sampler::{below, threshold};
use heaplab_script::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::collections::VecDeque;

/// Calls for a group that are made at once when a part of a course begins, at most.
const MOST_OWED: u64 = 64;

/// Calls of phrases that are left out one after the other, at most.
const MOST_LEFT_OUT: u32 = 256;

/// One thread of a model. When it is respawned, its successor goes on as the same actor under another number.
#[derive(Debug)]
pub struct Actor<'p> {
    pub(super) plan: &'p RolePlan,
    /// Its place among the threads that exist from the beginning.
    pub index: usize,
    /// Index of its role.
    pub role: usize,
    /// Its number in the script.
    pub number: u32,
    pub(super) random: Pcg64,
    pub(super) groups: Vec<State>,
    /// Blocks that are freed before anything else is done.
    pub(super) dying: VecDeque<Block>,
    pub(super) private: PrivateSlots,
    /// Group that it is busy with, and for how many calls yet.
    pub(super) current: usize,
    pub(super) run_left: u32,
    /// Phrase that it is in, and its next call.
    phrase: (usize, usize),
    /// What it said before.
    memory: Option<Memory>,
    /// Group that was looked at last for whether it has strayed, and whether the next one is to be looked at.
    tended: usize,
    tending: bool,
    /// Groups that have a call each to make at once.
    owed: Vec<usize>,
    /// Live factors of this phase move.
    ramps: bool,
    /// What the phase means for the role.
    here: Here<'p>,
    /// In this phase its turns are calls of one group and nothing else.
    brief: bool,
    /// Calls since the last hand-over and the last pause.
    pub since_hand_over: u64,
    since_pause: u64,
    /// It frees what it has and does nothing else, because it is about to end.
    retiring: bool,
    /// Ops that nobody has taken yet.
    pub ops: Vec<Op>,
    /// What this turn has done to what is alive.
    tally: Tally,
}

/// A group of a thread.
#[derive(Debug)]
pub struct State {
    pub set: LiveSet,
    /// Blocks that wait until a queue's batch is whole.
    pub outbox: Vec<Block>,
    /// Blocks or bytes that are to be alive.
    pub target: u64,
    /// Live factors at the beginning and at the end of the phase.
    factors: (f64, f64),
    pub sampler: usize,
    /// The batch is being freed; the stack is being unwound.
    pub draining: bool,
    /// Deaths that follow without a break.
    pub deaths: u64,
    /// The allocation of a phrase that came last was left out: what would resize its block is left out as well.
    pub absent: bool,
    /// How much of a block that is written in part is due, as a fraction of 2^32.
    unwritten: u64,
}

impl State {
    /// Whether the next block that no phrase names is written in part, of `share` (2^32: all) of them: evenly spaced and not by chance,
    /// because a few large blocks decide about what is resident.
    #[inline]
    pub fn partly(&mut self, share: u64) -> bool {
        self.unwritten += share;
        let due = self.unwritten >> 32;
        self.unwritten &= (1 << 32) - 1;
        due > 0
    }
}

/// Private slots of a thread, recycled last-in-first-out.
#[derive(Debug, Default)]
pub struct PrivateSlots {
    free: Vec<u32>,
    pub used: u32,
}

impl PrivateSlots {
    #[inline]
    pub fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        })
    }

    #[inline(always)]
    pub fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }
}

/// What a phase means for the role of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct Here<'p> {
    /// Which group comes next; `None`: the role rests.
    pick: Option<&'p Alias>,
    phrases: Option<&'p (Alias, Vec<bool>)>,
    /// See [`PhasePlan::turn`].
    turn: Option<f64>,
}

/// One turn of a thread: its share of the global order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Ops, calls or not.
    pub ops: u32,
    /// Calls of the malloc family.
    pub calls: u64,
}

impl<'p> Actor<'p> {
    pub fn new(plan: &'p Plan, index: usize) -> Self {
        let role = plan.threads[index];
        let groups = &plan.roles[role].groups;
        Self {
            plan: &plan.roles[role],
            index,
            role,
            number: index as u32,
            random: stream(plan.seed, index as u64 + 1),
            groups: groups
                .iter()
                .map(|group| State {
                    set: LiveSet::new(&group.lifetime, group.live, plan.scale),
                    outbox: Vec::new(),
                    target: group.live,
                    factors: (0.0, 0.0),
                    sampler: 0,
                    draining: false,
                    deaths: 0,
                    absent: false,
                    unwritten: 1 << 31,
                })
                .collect(),
            dying: VecDeque::new(),
            private: PrivateSlots::default(),
            current: 0,
            run_left: 0,
            phrase: (0, usize::MAX),
            memory: plan.roles[role].recall.as_ref().map(Memory::new),
            tended: 0,
            tending: false,
            owed: Vec::new(),
            ramps: false,
            here: Here::default(),
            brief: false,
            since_hand_over: 0,
            since_pause: 0,
            retiring: false,
            ops: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Private slots that it has used.
    pub fn private_slots(&self) -> u32 {
        self.private.used
    }

    /// A phase begins: sizes and factors change, and some blocks are to be freed first.
    pub fn begin_phase(&mut self, phase: &'p PhasePlan) {
        self.here = Here {
            pick: phase.pick[self.role].as_ref(),
            phrases: phase.phrase[self.role].as_ref(),
            turn: phase.turn[self.role],
        };
        self.owed.clear();
        if let Some(memory) = &mut self.memory {
            memory.clear();
        }
        let changes = phase.groups[self.role].iter().zip(&self.plan.groups);
        for (index, (state, (change, plan))) in self.groups.iter_mut().zip(changes).enumerate() {
            let before = if change.ramp {
                state.factors.1
            } else {
                change.factor
            };
            state.factors = (before, change.factor);
            if change.rare {
                state.factors.0 = change.factor;
                let target = plan.target(state.factors, 0.0);
                let level = match plan.in_bytes {
                    false => state.set.len() as u64,
                    true => state.set.bytes(),
                };
                // In bytes it is one block: nobody knows how many there will be.
                let steps = match plan.in_bytes {
                    false => target.abs_diff(level),
                    true => u64::from(target != level),
                };
                let steps = steps.min(MOST_OWED);
                self.owed.extend((0..steps).map(|_| index));
            }
            state.target = plan.target(state.factors, 0.0);
            state.sampler = change.sampler;
            if change.drop > 0.0 {
                let gone = state
                    .set
                    .extract(change.drop, change.order, &mut self.random);
                self.dying.extend(gone);
            }
        }
        self.ramps = (self.groups.iter()).any(|state| state.factors.0 != state.factors.1);
        let plain = self.here.pick.is_some()
            && self.here.phrases.is_none()
            && self.here.turn.is_none()
            && self.plan.pause.is_none();
        self.brief = plain && self.plan.lone && !self.ramps;
        self.run_left = 0;
    }

    /// Begins to free all blocks, if it has not begun; true when all are gone.
    pub fn retire(&mut self) -> bool {
        if !self.retiring {
            self.retiring = true;
            for state in &mut self.groups {
                state.set.empty_into(&mut self.dying);
            }
        }
        self.dying.is_empty()
    }

    /// Goes on as its own successor.
    pub fn reborn(&mut self, number: u32) {
        self.number = number;
        self.since_hand_over = 0;
        self.retiring = false;
    }

    /// Takes the live sets of another thread of the role and gives it its own.
    pub fn swap_sets(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.groups, &mut other.groups);
    }

    /// Makes up to `limit` calls in a row; of the phase `behind.0` of `behind.1` calls lie behind. `level` follows what they do to
    /// what is alive.
    #[inline]
    pub fn turn(
        &mut self,
        behind: (u64, u64),
        limit: u64,
        commons: Option<&mut Commons>,
        level: &mut Tally,
    ) -> Turn {
        if self.brief && self.dying.is_empty() && !self.retiring {
            match commons {
                None => return self.turn_apart(limit, level),
                Some(commons) if commons.inboxes[self.index].len() <= self.plan.hold => {
                    return match self.plan.crosses {
                        true => self.turn_crossing(limit, commons, level),
                        false => self.turn_apart(limit, level),
                    };
                }
                commons => return self.turn_any(behind, limit, commons, level),
            }
        }
        self.turn_any(behind, limit, commons, level)
    }

    #[inline(never)]
    fn turn_apart(&mut self, limit: u64, level: &mut Tally) -> Turn {
        self.turn_brief(limit, None, level)
    }

    #[inline(never)]
    fn turn_crossing(&mut self, limit: u64, commons: &mut Commons, level: &mut Tally) -> Turn {
        self.turn_brief(limit, Some(commons), level)
    }

    /// As [`Actor::turn_any`], but with nothing to do than the calls of one group: threads that take turns after two of them would
    /// spend as much on all questions before and after as on the calls.
    #[inline(always)]
    fn turn_brief(
        &mut self,
        limit: u64,
        mut commons: Option<&mut Commons>,
        level: &mut Tally,
    ) -> Turn {
        let before = self.ops.len();
        let burst = self.plan.burst;
        let plan = &self.plan.groups[0];
        let state = &mut self.groups[0];
        let mut desk = Desk {
            random: self.random.clone(),
            tally: level,
            ops: &mut self.ops,
            private: &mut self.private,
            number: self.number,
            index: self.index,
            role: self.role,
        };
        let length = length(burst, limit, &mut desk.random);
        let mut calls = 0;
        while calls < length {
            match call::<false>(plan, state, &mut desk, commons.as_deref_mut()) {
                Step::Made => calls += 1,
                Step::HandedOn => {}
                Step::Nothing => break,
            }
        }
        self.random = desk.left();
        self.since_hand_over += calls;
        Turn {
            ops: (self.ops.len() - before) as u32,
            calls,
        }
    }

    /// A turn that may be anything.
    #[inline(never)]
    fn turn_any(
        &mut self,
        behind: (u64, u64),
        limit: u64,
        mut commons: Option<&mut Commons>,
        level: &mut Tally,
    ) -> Turn {
        if self.ramps {
            self.follow_ramps(behind);
        }
        let before = self.ops.len();
        self.tally = Tally::default();
        let here = self.here;
        let (mut calls, length) = match here.turn {
            None => (0, length(self.plan.burst, limit, &mut self.random)),
            Some(mean) => self.begin_turn(mean, limit, &mut commons),
        };
        while calls < length {
            let run = self.step(here, length - calls, commons.as_deref_mut());
            calls += run.made;
            if run.idle {
                break;
            }
        }
        self.since_hand_over += calls;
        if let Some((every, ns)) = self.plan.pause {
            self.since_pause += calls;
            if self.since_pause >= every {
                self.since_pause = 0;
                self.ops.push(Op::new(OpKind::Idle, 0, 0, 0, ns, 0));
            }
        }
        level.follow(&self.tally);
        Turn {
            ops: (self.ops.len() - before) as u32,
            calls,
        }
    }

    /// Targets of groups whose live factors move.
    #[inline(never)]
    fn follow_ramps(&mut self, behind: (u64, u64)) {
        for (state, plan) in self.groups.iter_mut().zip(&self.plan.groups) {
            state.target = plan.target(state.factors, behind.0 as f64 / behind.1 as f64);
        }
    }

    /// The calls that come first in a turn of `mean` own calls, and how long the turn is with them.
    #[inline(never)]
    fn begin_turn(
        &mut self,
        mean: f64,
        limit: u64,
        commons: &mut Option<&mut Commons>,
    ) -> (u64, u64) {
        let mut calls = 0;
        // What others left to this thread comes on top of its own calls.
        while calls < limit && self.receive(commons) {
            calls += 1;
        }
        while calls < limit
            && let Some(index) = self.owed.pop()
        {
            calls += u64::from(self.settle(index, commons.as_deref_mut()));
            // A block of a few that grow has its size at once: nothing else would bring it there.
            while calls < limit && self.grow(index) {
                calls += 1;
            }
        }
        let word = self.random.next_u64();
        let length = mean * (0.5 + (word >> 32) as f64 / (1u64 << 32) as f64);
        let more = (word & 0xffff_ffff) < threshold(length.fract());
        let length = calls + length as u64 + u64::from(more);
        // Together, a role with few calls passes some of its turns.
        let least = u64::from(commons.is_none());
        (calls, length.clamp(least, limit.max(1)))
    }

    /// Frees a block that another thread left to this one, if there is any.
    #[inline(always)]
    fn receive(&mut self, commons: &mut Option<&mut Commons>) -> bool {
        if let Some(commons) = commons
            && commons.inboxes[self.index].len() > self.plan.hold
        {
            return self.receive_from(commons);
        }
        false
    }

    #[inline(never)]
    fn receive_from(&mut self, commons: &mut Commons) -> bool {
        let block = commons.inboxes[self.index].pop_front();
        if let Some(block) = block {
            self.free(block, Some(commons));
        }
        block.is_some()
    }

    /// Up to `most` calls (at least 1), until there may be something else to do first.
    #[inline(always)]
    fn step(&mut self, here: Here<'_>, mut most: u64, mut commons: Option<&mut Commons>) -> Run {
        if let Some(block) = self.dying.pop_front() {
            self.free(block, commons);
            return Run::of(true);
        }
        if self.receive(&mut commons) {
            return Run::of(true);
        }
        let Some(pick) = here.pick.filter(|_| !self.retiring) else {
            return Run::of(false);
        };
        if let Some(phrases) = here.phrases {
            if self.speak(phrases, &mut commons) {
                return Run::of(true);
            }
            most = 1;
        }
        self.run(pick, most, commons)
    }

    /// The next call of a phrase that a group has room for; false when there was none in many.
    #[inline]
    fn speak(
        &mut self,
        (phrases, said): &(Alias, Vec<bool>),
        commons: &mut Option<&mut Commons>,
    ) -> bool {
        for _ in 0..MOST_LEFT_OUT {
            if std::mem::take(&mut self.tending) {
                // Phrases need not have all that a group does: one group after the other is led back to its live set.
                self.tended = (self.tended + 1) % self.groups.len();
                if self.strays(self.tended) && self.settle(self.tended, commons.as_deref_mut()) {
                    return true;
                }
            }
            let memory = self.memory.as_mut();
            let again = memory.and_then(|memory| memory.again(&mut self.random));
            let (call, ends) = match again {
                Some(said) => (said.call, said.ends),
                None => {
                    let (phrase, place) = self.phrase;
                    let about = &self.plan.phrases[phrase];
                    let Some(&call) = about.calls.get(place) else {
                        self.next_phrase(phrases, said);
                        continue;
                    };
                    self.phrase.1 += 1;
                    (call, (self.phrase.1 == about.calls.len()).then_some(phrase))
                }
            };
            if again.is_some()
                && let Some(phrase) = ends
            {
                self.phrase = (phrase, usize::MAX);
                self.tending = true;
            }
            let made = self.say(call, commons.as_deref_mut());
            if let Some(memory) = &mut self.memory {
                if made {
                    let kept = as_made(call, self.ops.last(), &self.plan.groups);
                    let drawn = again.is_some_and(|again| again.drawn);
                    memory.keep(kept, drawn || kept.size != call.size);
                }
                if let Some(phrase) = ends {
                    memory.end(phrase);
                }
            }
            if made {
                return true;
            }
        }
        false
    }

    /// Draws what is said next: something that was said before, or another phrase.
    #[inline]
    fn next_phrase(&mut self, phrases: &Alias, said: &[bool]) {
        let (phrase, _) = self.phrase;
        if let Some(memory) = &mut self.memory
            && memory.begin(phrase, &mut self.random)
        {
            return;
        }
        let word = self.random.next_u64() >> 32;
        let then = &self.plan.phrases[phrase].then;
        let next = match then.iter().find(|(bound, _)| word < *bound) {
            Some((_, next)) if said[*next] => *next,
            _ => phrases.draw(self.random.next_u64()),
        };
        self.phrase = (next, 0);
        self.tending = true;
    }

    /// The groups and the desk for their calls; what the desk has [`Desk::left`] is to be put back.
    #[inline(always)]
    pub(super) fn desk(&mut self) -> (&mut [State], Desk<'_>) {
        let desk = Desk {
            random: self.random.clone(),
            tally: &mut self.tally,
            ops: &mut self.ops,
            private: &mut self.private,
            number: self.number,
            index: self.index,
            role: self.role,
        };
        (&mut self.groups, desk)
    }

    /// Frees a block in this thread.
    #[inline(always)]
    pub(super) fn free(&mut self, block: Block, commons: Option<&mut Commons>) {
        recycle(&block, &mut self.private, commons);
        self.ops.push(free_op(&block, self.number));
        self.tally.down(block.size());
    }

    /// Makes a call.
    #[inline(always)]
    pub(super) fn call(&mut self, op: Op, bytes: i64, blocks: i64) {
        self.ops.push(op);
        self.tally.add(bytes, blocks);
    }
}

/// Calls of a turn, as many as a burst has on average, at least 1 and at most `limit`.
#[inline(always)]
fn length(burst: u64, limit: u64, random: &mut Pcg64) -> u64 {
    let length = burst / 2 + below(random.next_u64(), burst + 1);
    length.clamp(1, limit.max(1))
}

/// A call of a phrase with the size that was drawn for it.
#[inline]
fn as_made(call: Call, op: Option<&Op>, groups: &[GroupPlan]) -> Call {
    let drawn = matches!(call.deed, Deed::Allocate(_)) && call.size == 0;
    match op {
        Some(op)
            if drawn
                && op.kind != OpKind::Free as u8
                && groups[call.group as usize].grow.is_none() =>
        {
            Call {
                size: u32::try_from(op.size()).unwrap_or(0),
                ..call
            }
        }
        _ => call,
    }
}

/// Flags of an op on a block in `thread`.
#[inline]
pub(super) fn flags(block: &Block, thread: u32) -> u8 {
    if block.shared() {
        FLAG_SHARED
    } else if u32::from(block.mark()) != thread {
        FLAG_INHERITED
    } else {
        0
    }
}

/// Independent random numbers for each thread (1, 2 …) and for the order (0).
pub fn stream(seed: u64, number: u64) -> Pcg64 {
    // Odd constants spread small seeds and numbers over the state and over the stream.
    let spread = |value: u64, by: u128| u128::from(value).wrapping_mul(by);
    Pcg64::new(
        spread(seed, 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        spread(number, 0xd1b5_4a32_d192_ed03_8cb9_2ba7_2f3d_8dd7)
            ^ 0xa02b_dbf7_bb3c_0a7a_c28f_a16a_64ab_f96d,
    )
}
