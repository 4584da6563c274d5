//! What a thread does with one of its groups.

use super::actor::{Actor, State};
use super::commons::Commons;
use super::desk::Step;
use crate::model::definition::{Call, Deed, Way};
use crate::model::live::Block;
use crate::model::plan::{GroupPlan, GrowPlan, Hand, Rule};
use crate::model::sampler::below;
use heaplab_script::{Op, OpKind};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

impl Actor<'_> {
    /// One call for a group; false when there is nothing to do for it now. The one function that is called for each op:
    /// what it needs is part of it.
    #[inline(never)]
    pub(super) fn step_group(&mut self, index: usize, mut commons: Option<&mut Commons>) -> bool {
        loop {
            match self.try_step(index, commons.as_deref_mut()) {
                Step::Made => return true,
                Step::Nothing => return false,
                Step::HandedOn => {}
            }
        }
    }

    /// One step towards the group's target, which may be a death that is another thread's call; true for a call of this one.
    pub(super) fn settle(&mut self, index: usize, commons: Option<&mut Commons>) -> bool {
        matches!(self.try_step(index, commons), Step::Made)
    }

    /// A call of a phrase; false when it is left out, because its group is too far from its live set already or has nothing to
    /// free.
    #[inline]
    pub(super) fn say(&mut self, call: Call, mut commons: Option<&mut Commons>) -> bool {
        let index = call.group as usize;
        let plan = &self.plan.groups[index];
        let state = &mut self.groups[index];
        let level = state.set.len() as u64;
        let few = state.target / 64;
        match call.deed {
            Deed::Allocate(way) => {
                // What others are to free goes away without a call of this thread.
                if matches!(plan.hand, Hand::Random { .. })
                    && level > state.target
                    && let Some(block) = state.set.take_victim(&mut self.random)
                    && let Step::Made = self.free_somewhere(index, block, commons.as_deref_mut())
                {
                    return true;
                }
                let state = &self.groups[index];
                let made = (state.set.len() as u64) < state.target + plan.swing.0.max(few)
                    && self.allocate(index, call.size, Some(way), commons);
                self.groups[index].absent = !made;
                made
            }
            Deed::Resize if state.absent => false,
            Deed::Resize if plan.grow.is_some() => self.grow(index),
            Deed::Resize => level > 0 && self.resize(index),
            deed => {
                if level == 0 || level + plan.swing.1.max(few) <= state.target {
                    return false;
                }
                let block = state.set.take_named(deed, call.size, &mut self.random);
                block.is_some_and(|block| {
                    matches!(self.free_somewhere(index, block, commons), Step::Made)
                })
            }
        }
    }

    /// Whether a group's live set is further from its target than phrases may lead it.
    #[inline]
    pub(super) fn strays(&self, index: usize) -> bool {
        let state = &self.groups[index];
        let (above, below) = self.plan.groups[index].swing;
        let (level, few) = (state.set.len() as u64, state.target / 64);
        level > state.target + above.max(few) || level + below.max(few) < state.target
    }

    /// The newest block that has not yet its size, or one of the others, grows by a step, by realloc; false when none is found.
    pub(super) fn grow(&mut self, index: usize) -> bool {
        let state = &mut self.groups[index];
        let (Some(grow), Some(block)) = (
            &self.plan.groups[index].grow,
            state.set.peek_growing(&mut self.random),
        ) else {
            return false;
        };
        let old = block.size();
        let op = realloc(block, grow.next(block), self.number);
        let new = block.size();
        state.set.resized(old, new);
        self.call(op, i64::from(new) - i64::from(old), 0);
        true
    }

    #[inline(always)]
    fn try_step(&mut self, index: usize, commons: Option<&mut Commons>) -> Step {
        let plan = &self.plan.groups[index];
        if plan.sizes.is_empty() {
            return Step::Nothing;
        }
        let state = &mut self.groups[index];
        let level = match plan.in_bytes {
            false => state.set.len() as u64,
            true => state.set.bytes(),
        };
        let full = level >= state.target;
        if plan.resize != 0 && self.resizes(index) {
            return Step::of(self.resize(index));
        }
        if let Some(grow) = &plan.grow
            && self.grow_one(index, grow, full)
        {
            return Step::Made;
        }
        let state = &mut self.groups[index];
        let victim = match plan.rule {
            Rule::Surplus => {
                let old = if plan.in_bytes {
                    u64::MAX
                } else {
                    state.target
                };
                state.set.take_surplus(old, &mut self.random)
            }
            Rule::Phase => {
                if full && plan.live > 0 {
                    return Step::Nothing;
                }
                None
            }
            _ => match must_free(plan, state, &mut self.random, level, full) {
                true if state.set.len() == 0 => return Step::Nothing,
                true => state.set.take_victim(&mut self.random),
                false => None,
            },
        };
        match victim {
            Some(block) => self.free_somewhere(index, block, commons),
            None => Step::of(self.allocate(index, 0, None, commons)),
        }
    }

    /// Any block of a group grows by a step, if the group is one whose blocks do so now and one is found.
    #[inline(never)]
    fn grow_one(&mut self, index: usize, grow: &GrowPlan, full: bool) -> bool {
        let rule = self.plan.groups[index].rule;
        let now = full
            || rule == Rule::Recency
            || rule.grows_always() && self.random.next_u64() >> 63 != 0;
        let state = &mut self.groups[index];
        let block = now.then(|| state.set.peek(&mut self.random)).flatten();
        let Some(block) = block.filter(|block| block.size() < block.target()) else {
            return false;
        };
        let next = grow.next(block);
        if !grow.copy || block.shared() {
            let old = block.size();
            let op = realloc(block, next, self.number);
            state.set.resized(old, next);
            self.call(op, i64::from(next) - i64::from(old), 0);
            return true;
        }
        let old = *block;
        let slot = self.private.take();
        block.set_slot(slot);
        block.set_size(next);
        block.set_mark(self.number as u16);
        let align_log2 = block.align_log2();
        let kind = match align_log2 {
            0 => OpKind::Malloc,
            _ => OpKind::AlignedAlloc,
        };
        let op = Op::new(kind, 0, 0, slot, u64::from(next), align_log2);
        state.set.resized(old.size(), next);
        self.call(op, i64::from(next), 1);
        self.dying.push_back(old);
        true
    }

    /// Whether the next call is a resize. Apart, because the compiler would ask about the live set first, which chance decides for small
    /// ones, and then whether the group resizes at all.
    #[inline(never)]
    fn resizes(&mut self, index: usize) -> bool {
        let plan = &self.plan.groups[index];
        let state = &self.groups[index];
        let level = match plan.in_bytes {
            false => state.set.len() as u64,
            true => state.set.bytes(),
        };
        level > 0 && self.random.next_u64() >> 32 < plan.resize
    }

    fn resize(&mut self, index: usize) -> bool {
        let plan = &self.plan.groups[index];
        let state = &mut self.groups[index];
        let size = plan.sizes[state.sampler].draw(&mut self.random);
        let Some(block) = state.set.peek(&mut self.random) else {
            return false;
        };
        let old = block.size();
        block.set_target(size);
        // realloc to 0 would be a free.
        let op = realloc(block, size.max(1), self.number);
        let new = block.size();
        state.set.resized(old, new);
        self.call(op, i64::from(new) - i64::from(old), 0);
        true
    }

    /// Frees a block here, or has another thread of the role do it.
    fn free_somewhere(
        &mut self,
        index: usize,
        block: Block,
        commons: Option<&mut Commons>,
    ) -> Step {
        let plan = &self.plan.groups[index];
        let (_, mut desk) = self.desk();
        let step = desk.free_somewhere(plan, block, commons);
        self.random = desk.left();
        step
    }

    /// Allocates a block of so many bytes (0: drawn) in a way (none: drawn); false when a queue has no room.
    fn allocate(
        &mut self,
        index: usize,
        bytes: u32,
        way: Option<Way>,
        commons: Option<&mut Commons>,
    ) -> bool {
        let plan = &self.plan.groups[index];
        let (groups, mut desk) = self.desk();
        let made = desk.allocate::<false>(plan, &mut groups[index], bytes, way, commons);
        self.random = desk.left();
        made
    }
}

/// Whether the next call is a free, for the lifetimes that know no other answer.
#[inline(always)]
pub fn must_free(
    plan: &GroupPlan,
    state: &mut State,
    random: &mut Pcg64,
    level: u64,
    full: bool,
) -> bool {
    let State {
        target,
        draining,
        deaths,
        ..
    } = state;
    match plan.rule {
        Rule::Exponential => {
            let word = random.next_u64();
            below(word, level + (*target).max(1)) < level
        }
        Rule::Lifo => {
            // The direction lasts eight calls on average; the ends turn it round.
            if random.next_u64() >> 61 == 0 {
                *draining = !*draining;
            }
            *draining = full || *draining && level > 0;
            *draining
        }
        Rule::Recency => {
            if *deaths == 0 {
                // A course may ask for less than a block while the group works: then one lives and dies at a time.
                if level < (*target).max(1) {
                    return false;
                }
                *deaths = match plan.deaths {
                    1 => 1,
                    mean => 1 + below(random.next_u64(), 2 * mean - 1),
                };
            }
            *deaths = if level > 0 { *deaths - 1 } else { 0 };
            level > 0
        }
        Rule::Batch => {
            *draining = full || *draining && level > 0;
            *draining
        }
        _ => full && (level > 0 || plan.live > 0),
    }
}

impl GrowPlan {
    /// The next size of a block that has not yet its own.
    #[inline]
    fn next(&self, block: &Block) -> u32 {
        let next = f64::from(block.size()) * self.factor + f64::from(self.step);
        (next as u32).max(block.size() + 1).min(block.target())
    }
}

/// Gives a block a new size, and the op that does it in `thread`.
fn realloc(block: &mut Block, size: u32, thread: u32) -> Op {
    let flags = super::actor::flags(block, thread);
    let op = Op::new(
        OpKind::Realloc,
        flags,
        block.generation(),
        block.slot(),
        u64::from(size),
        block.align_log2(),
    );
    block.set_size(size);
    if block.shared() {
        block.set_mark(block.mark().wrapping_add(1));
    }
    op
}
