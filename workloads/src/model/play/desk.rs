//! Where a thread writes its ops, while it does nothing else.

use super::actor::{PrivateSlots, State, flags};
use super::commons::Commons;
use super::tally::Tally;
use crate::model::definition::{By, Way};
use crate::model::live::{Block, Parts};
use crate::model::plan::{GroupPlan, Hand};
use crate::model::sampler::below;
use heaplab_script::{Op, OpKind};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// [`GroupPlan::written`] of all bytes.
const ALL: u64 = 1 << 32;

/// Blocks that wait for a remote free in one thread before others free their own instead.
const INBOX: usize = 4096;

/// What a thread needs for its calls. Random numbers lie here by value: as long as no pointer to the desk is given away, which
/// functions that are inlined do not, they stay in registers over a run of calls.
pub struct Desk<'a> {
    pub random: Pcg64,
    /// Where it lies: four words that were just written one by one would be copied two by two, for which a processor waits until
    /// all stores before are done.
    pub tally: &'a mut Tally,
    pub ops: &'a mut Vec<Op>,
    pub private: &'a mut PrivateSlots,
    /// The thread's number in the script, its place among those from the beginning, and its role.
    pub number: u32,
    pub index: usize,
    pub role: usize,
}

/// What became of a step.
pub enum Step {
    /// A call was made.
    Made,
    /// There is nothing to do.
    Nothing,
    /// A block was left to another thread to free, without a call of this one.
    HandedOn,
}

impl Step {
    pub fn of(made: bool) -> Self {
        if made { Self::Made } else { Self::Nothing }
    }
}

impl Desk<'_> {
    /// What has to be put back when the thread leaves the desk.
    #[inline(always)]
    pub fn left(self) -> Pcg64 {
        self.random
    }

    /// Frees a block in this thread.
    #[inline(always)]
    pub fn free(&mut self, block: Block, commons: Option<&mut Commons>) {
        recycle(&block, self.private, commons);
        self.ops.push(free_op(&block, self.number));
        self.tally.down(block.size());
    }

    /// Frees a block here, or has another thread of the role do it.
    #[inline(always)]
    pub fn free_somewhere(
        &mut self,
        plan: &GroupPlan,
        block: Block,
        commons: Option<&mut Commons>,
    ) -> Step {
        match commons {
            Some(commons)
                if block.shared()
                    && let Hand::Random { role, .. } = plan.hand =>
            {
                let others = &commons.members[role.unwrap_or(self.role)];
                let myself = u64::from(role.is_none());
                let count = others.len() as u64 - myself;
                let mut place = below(self.random.next_u64(), count) as usize;
                place += usize::from(role.is_none() && others[place] >= self.index);
                let inbox = &mut commons.inboxes[others[place]];
                if inbox.len() < INBOX {
                    inbox.push_back(block);
                    // The call is the other thread's; this one goes on.
                    return Step::HandedOn;
                }
                self.free(block, Some(commons));
            }
            commons => self.free(block, commons),
        }
        Step::Made
    }

    /// Allocates a block of so many bytes (0: drawn) in a way (none: drawn) and puts it where it belongs; false when a queue has no room.
    /// `DRAWN`: the group is [`GroupPlan::drawn`].
    #[inline(always)]
    pub fn allocate<const DRAWN: bool>(
        &mut self,
        plan: &GroupPlan,
        state: &mut State,
        bytes: u32,
        way: Option<Way>,
        mut commons: Option<&mut Commons>,
    ) -> bool {
        let random = &mut self.random;
        let mut crosses = plan.ring;
        let hand = match plan.hand {
            Hand::Random { share, role } => Hand::Random { share, role },
            _ if DRAWN => Hand::Keep,
            hand => hand,
        };
        if let Some(commons) = &mut commons {
            match hand {
                Hand::Queue { share, batch, .. } => {
                    crosses |= random.next_u64() >> 32 < share;
                    if crosses && state.outbox.len() >= batch && !send(plan, state, random, commons)
                    {
                        return false;
                    }
                }
                Hand::Random { share, role } => {
                    crosses |= (role.is_some() || commons.members[self.role].len() > 1)
                        && random.next_u64() >> 32 < share;
                }
                Hand::Exchange { share, .. } => crosses |= random.next_u64() >> 32 < share,
                Hand::Keep => {}
            }
        }
        let drawn = match bytes {
            0 => plan.sizes[state.sampler].draw(random),
            bytes => bytes,
        };
        let (kind, align_log2) = match way {
            _ if DRAWN => (OpKind::Malloc, 0),
            None => kind_of(plan, random),
            Some(way) => kind_by(way.by, plan, random),
        };
        let (slot, mark) = match &mut commons {
            Some(commons) if crosses => commons.shared.take(self.index),
            _ => (self.private.take(), self.number as u16),
        };
        let size = match &plan.grow {
            Some(grow) if !DRAWN => grow.start.min(drawn.max(1)),
            _ => drawn,
        };
        let block = Block::new(Parts {
            slot,
            size,
            target: drawn,
            mark,
            align_log2,
            shared: crosses,
        });
        match (hand, commons) {
            _ if DRAWN => state.set.put_drawn(block, random),
            (Hand::Queue { batch, .. }, Some(commons)) if crosses => {
                state.outbox.push(block);
                if state.outbox.len() >= batch {
                    send(plan, state, random, commons);
                }
            }
            (Hand::Exchange { table, .. }, Some(commons)) if crosses => {
                let table = &mut commons.tables[table];
                let place = below(random.next_u64(), table.len() as u64) as usize;
                let other = std::mem::replace(&mut table[place], block);
                if !other.is_none() {
                    state.set.put(other, random);
                }
            }
            _ => state.set.put(block, random),
        }
        let bytes = u64::from(size);
        if !DRAWN
            && plan.written < ALL
            && way.map_or_else(|| state.partly(plan.partly), |way| way.partly)
        {
            // What it grows to later is written whole.
            let reach = (bytes * plan.written) >> 32;
            self.ops.push(Op::new(OpKind::Written, 0, 0, 0, reach, 0));
        }
        let flags = u8::from(crosses);
        self.ops.push(Op::new(
            kind,
            flags,
            block.generation(),
            slot,
            bytes,
            align_log2,
        ));
        self.tally.up(size);
        true
    }
}

/// Gives back the slot of a block that is freed.
#[inline(always)]
pub fn recycle(block: &Block, private: &mut PrivateSlots, commons: Option<&mut Commons>) {
    match commons {
        Some(commons) if block.shared() => {
            let next = block.mark().wrapping_add(1);
            commons.shared.give_back(block.slot(), next);
        }
        _ => private.give_back(block.slot()),
    }
}

/// The free of a block in `thread`.
#[inline(always)]
pub fn free_op(block: &Block, thread: u32) -> Op {
    Op::new(
        OpKind::Free,
        flags(block, thread),
        block.generation(),
        block.slot(),
        u64::from(block.size()),
        block.align_log2(),
    )
}

/// How a block is allocated, and log2 of its alignment.
#[inline(always)]
fn kind_of(plan: &GroupPlan, random: &mut Pcg64) -> (OpKind, u8) {
    if plan.calloc | plan.aligned == 0 {
        return (OpKind::Malloc, 0);
    }
    let word = random.next_u64();
    let choice = word >> 32;
    if choice < plan.calloc {
        (OpKind::Calloc, 0)
    } else if choice - plan.calloc < plan.aligned {
        (OpKind::AlignedAlloc, alignment(plan, word))
    } else {
        (OpKind::Malloc, 0)
    }
}

/// The function that a phrase names.
#[inline]
fn kind_by(by: By, plan: &GroupPlan, random: &mut Pcg64) -> (OpKind, u8) {
    match by {
        By::Malloc => (OpKind::Malloc, 0),
        By::Calloc => (OpKind::Calloc, 0),
        By::Aligned => (OpKind::AlignedAlloc, alignment(plan, random.next_u64())),
    }
}

/// One of the group's alignments by the lower 32 bits of a random word.
#[inline(always)]
fn alignment(plan: &GroupPlan, word: u64) -> u8 {
    let choice = ((word & 0xffff_ffff) * plan.align_log2.len() as u64) >> 32;
    plan.align_log2[choice as usize]
}

/// Sends the blocks that wait to a thread of the queue's role; false when it has no room.
#[inline(always)]
fn send(plan: &GroupPlan, state: &mut State, random: &mut Pcg64, commons: &mut Commons) -> bool {
    let Hand::Queue { role, depth, .. } = plan.hand else {
        return true;
    };
    let members = &commons.members[role];
    let other = members[below(random.next_u64(), members.len() as u64) as usize];
    let inbox = &mut commons.inboxes[other];
    if inbox.len() >= depth {
        return false;
    }
    inbox.extend(state.outbox.drain(..));
    true
}
