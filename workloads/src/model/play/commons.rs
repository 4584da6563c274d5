//! What threads of a model share: the blocks on their way between them, and the slots of those blocks.

use crate::compile::SLACK;
use crate::model::live::Block;
use crate::model::plan::{Hand, Plan};
use std::collections::VecDeque;

/// Blocks on their way.
#[derive(Debug)]
pub struct Commons {
    /// For each thread: blocks that it is to free.
    pub inboxes: Vec<VecDeque<Block>>,
    /// Threads of each role.
    pub members: Vec<Vec<usize>>,
    /// Tables of exchanges; [`Block::NONE`] where a place is empty.
    pub tables: Vec<Vec<Block>>,
    pub shared: SharedSlots,
}

impl Commons {
    pub fn new(plan: &Plan) -> Self {
        let mut members = vec![Vec::new(); plan.roles.len()];
        for (thread, &role) in plan.threads.iter().enumerate() {
            members[role].push(thread);
        }
        let groups = plan.roles.iter().flat_map(|role| &role.groups);
        Self {
            inboxes: vec![VecDeque::new(); plan.threads.len()],
            members,
            tables: groups
                .filter_map(|group| match group.hand {
                    Hand::Exchange { places, .. } => Some(vec![Block::NONE; places as usize]),
                    _ => None,
                })
                .collect(),
            shared: SharedSlots {
                free: vec![VecDeque::new(); plan.threads.len()],
                taker: Vec::new(),
            },
        }
    }
}

/// Slots of blocks that cross threads. They are recycled first-in-first-out and only when more than [`SLACK`] lie
/// free with the thread that allocated into them: in a replay the threads drift apart, and an allocation that finds
/// its slot not yet emptied would have to wait for no reason of the program's.
#[derive(Debug)]
pub struct SharedSlots {
    /// For each thread: free slots with the generation that comes next.
    free: Vec<VecDeque<(u32, u16)>>,
    /// Thread that last allocated into a slot: one of the 4,096 that a model may begin with.
    taker: Vec<u16>,
}

impl SharedSlots {
    /// A slot for an allocation of `thread`, and its generation.
    #[inline]
    pub fn take(&mut self, thread: usize) -> (u32, u16) {
        let free = &mut self.free[thread];
        if free.len() > SLACK
            && let Some(slot) = free.pop_front()
        {
            return slot;
        }
        self.taker.push(thread as u16);
        (self.taker.len() as u32 - 1, 0)
    }

    /// Takes back the slot of a freed block.
    #[inline]
    pub fn give_back(&mut self, slot: u32, generation: u16) {
        let taker = self.taker[slot as usize];
        self.free[taker as usize].push_back((slot, generation));
    }

    /// Slots in all.
    pub fn count(&self) -> u32 {
        self.taker.len() as u32
    }
}
