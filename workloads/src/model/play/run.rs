//! Calls in a row of groups that do nothing but allocate and free: most of what models do.
//!
//! Nothing can come between such calls but another group's turn, so the thread sits down at its [`Desk`] once for all of them,
//! and what other calls would have to ask each time is asked once. There is a version of it all for roles whose blocks draw their
//! ages (`DRAWN`, see `RolePlan::drawn`): the rest of what a call may be does not come up in it, which saves a fifth of the instructions.

use super::actor::{Actor, State};
use super::commons::Commons;
use super::desk::{Desk, Step};
use super::group::must_free;
use crate::model::alias::Alias;
use crate::model::plan::{GroupPlan, Rule};
use rand_pcg::rand_core::Rng;

/// Calls of a thread in a row.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Calls made.
    pub made: u64,
    /// There was nothing to do for one more.
    pub idle: bool,
}

impl Run {
    /// One call, or nothing to do.
    pub fn of(made: bool) -> Self {
        Self {
            made: u64::from(made),
            idle: !made,
        }
    }
}

impl Actor<'_> {
    /// Up to `most` calls (at least 1) of the groups that `pick` chooses, until there may be something else to do first.
    #[inline(always)]
    pub(super) fn run(&mut self, pick: &Alias, most: u64, commons: Option<&mut Commons>) -> Run {
        match (commons, self.plan.drawn) {
            (Some(commons), true) if self.plan.crosses => {
                self.run_crossing::<true>(pick, most, commons)
            }
            (Some(commons), false) if self.plan.crosses => {
                self.run_crossing::<false>(pick, most, commons)
            }
            (_, true) => self.run_apart::<true>(pick, most),
            (_, false) => self.run_apart::<false>(pick, most),
        }
    }

    /// No block of the role is ever touched by another thread.
    #[inline(never)]
    fn run_apart<const DRAWN: bool>(&mut self, pick: &Alias, most: u64) -> Run {
        self.run_any::<DRAWN>(pick, most, None)
    }

    #[inline(never)]
    fn run_crossing<const DRAWN: bool>(
        &mut self,
        pick: &Alias,
        most: u64,
        commons: &mut Commons,
    ) -> Run {
        self.run_any::<DRAWN>(pick, most, Some(commons))
    }

    #[inline(always)]
    fn run_any<const DRAWN: bool>(
        &mut self,
        pick: &Alias,
        most: u64,
        mut commons: Option<&mut Commons>,
    ) -> Run {
        let plans = &self.plan.groups[..];
        let alone = plans.len() == 1;
        let (mut current, mut run_left) = (self.current, self.run_left);
        let (groups, mut desk) = self.desk();
        let mut made = 0;
        let end = 'calls: loop {
            // A batch that is being freed is freed as a whole.
            let drains = !DRAWN && plans[current].rule == Rule::Batch && groups[current].drains();
            let bound = alone || drains;
            if !bound && run_left == 0 {
                current = pick.draw(desk.random.next_u64());
                run_left = plans[current].run;
            }
            let (plan, state) = (&plans[current], &mut groups[current]);
            if !DRAWN && !plan.straight {
                run_left -= u32::from(!bound);
                break End::Other { bound };
            }
            loop {
                run_left -= u32::from(!bound);
                let step = loop {
                    match call::<DRAWN>(plan, state, &mut desk, commons.as_deref_mut()) {
                        Step::HandedOn => {}
                        step => break step,
                    }
                };
                if let Step::Nothing = step {
                    break 'calls End::Nothing { bound };
                }
                made += 1;
                if made == most {
                    break 'calls End::Whole;
                }
                let turned = !DRAWN && plan.rule == Rule::Batch && state.drains() != drains;
                if turned || !bound && run_left == 0 {
                    break;
                }
            }
        };
        self.random = desk.left();
        (self.current, self.run_left) = (current, run_left);
        let more = match end {
            End::Whole => return Run { made, idle: false },
            End::Other { bound } => {
                self.step_group(current, commons.as_deref_mut())
                    || !bound && self.step_other(commons)
            }
            End::Nothing { bound } => !bound && self.step_other(commons),
        };
        Run {
            made: made + u64::from(more),
            idle: !more,
        }
    }

    /// A call of any other group than the current one, which has nothing to do; false when none has.
    #[inline(never)]
    pub(super) fn step_other(&mut self, mut commons: Option<&mut Commons>) -> bool {
        self.run_left = 0;
        (1..self.groups.len()).any(|step| {
            let other = (self.current + step) % self.groups.len();
            self.step_group(other, commons.as_deref_mut())
        })
    }
}

/// Why a thread gets up from its desk.
enum End {
    /// All calls that it should make are made.
    Whole,
    /// The group whose turn it is may do something else than allocate and free. `bound`: no other group may take its turn.
    Other { bound: bool },
    /// That group has nothing to do.
    Nothing { bound: bool },
}

/// One step of a group that is [`GroupPlan::straight`].
#[inline(always)]
pub(super) fn call<const DRAWN: bool>(
    plan: &GroupPlan,
    state: &mut State,
    desk: &mut Desk<'_>,
    commons: Option<&mut Commons>,
) -> Step {
    let level = state.set.len() as u64;
    let full = level >= state.target;
    let victim = match plan.rule {
        _ if DRAWN => state.set.take_drawn(),
        Rule::Surplus => state.set.take_surplus(state.target, &mut desk.random),
        Rule::Phase if full && plan.live > 0 => return Step::Nothing,
        Rule::Phase => None,
        _ => match must_free(plan, state, &mut desk.random, level, full) {
            true if level == 0 => return Step::Nothing,
            true => state.set.take_victim(&mut desk.random),
            false => None,
        },
    };
    match victim {
        Some(block) => desk.free_somewhere(plan, block, commons),
        None => Step::of(desk.allocate::<DRAWN>(plan, state, 0, None, commons)),
    }
}

impl State {
    /// Whether a batch is being freed and there is more of it.
    #[inline(always)]
    pub fn drains(&self) -> bool {
        self.draining && self.set.len() > 0
    }
}
