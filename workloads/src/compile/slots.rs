//! Second pass: slots and generations.
//!
//! Private slots come from a pool per thread and are recycled last-in-first-out, as their thread's order allows.
//! Shared slots are recycled first-in-first-out and only when more than [`SLACK`] lie free in the pool: in a replay the
//! threads drift apart, and an allocation that finds its slot not yet emptied would have to wait for no reason of the
//! program's. A thread that has had its last event leaves its shared slots to all others.

use super::ownership::Ownership;
use super::{Action, Event, plain_op};
use crate::error::WorkloadError;
use heaplab_script::{FLAG_SHARED, MAX_SIZE, Op, OpKind};
use std::collections::VecDeque;

/// Free shared slots that a pool keeps back.
pub const SLACK: usize = 1024;
/// Private slots that share a cache line (8 slots of 8 bytes).
pub const LINE: u32 = 8;

#[derive(Clone, Copy)]
struct Live {
    size: u64,
    slot: u32,
    align_log2: u8,
    shared: bool,
    alive: bool,
}

const DEAD: Live = Live {
    size: 0,
    slot: 0,
    align_log2: 0,
    shared: false,
    alive: false,
};

#[derive(Default)]
struct Pool {
    private_free: Vec<u32>,
    private_used: u32,
    shared_free: VecDeque<u32>,
    events_left: u64,
    started: bool,
}

/// Where pools lie in the finished table, and the peaks.
pub struct Plan {
    pub private_base: Vec<u32>,
    pub private_slots: u32,
    pub shared_slots: u32,
    pub peak_live_bytes: u64,
    pub peak_live_blocks: u64,
}

/// Gives out slots event by event.
pub struct Slots<'a> {
    ownership: &'a Ownership,
    live: Vec<Live>,
    pools: Vec<Pool>,
    generations: Vec<u16>,
    /// Thread that last allocated into a shared slot.
    allocator: Vec<u32>,
    reserve: VecDeque<u32>,
    allocations: u64,
    bytes: u64,
    blocks: u64,
    peak_bytes: u64,
    peak_blocks: u64,
}

impl<'a> Slots<'a> {
    pub fn new(ownership: &'a Ownership) -> Self {
        let pools = (0..ownership.threads() as usize)
            .map(|thread| Pool {
                events_left: ownership.events_of(thread),
                ..Pool::default()
            })
            .collect();
        Self {
            ownership,
            live: Vec::new(),
            pools,
            generations: Vec::new(),
            allocator: Vec::new(),
            reserve: VecDeque::new(),
            allocations: 0,
            bytes: 0,
            blocks: 0,
            peak_bytes: 0,
            peak_blocks: 0,
        }
    }

    /// The op of an event. Private slots count from 0 in each thread, shared ones from 0 in all.
    #[inline]
    pub fn take(&mut self, event: Event, number: u64) -> Result<Op, WorkloadError> {
        let thread = event.thread as usize;
        let impossible = |reason: String| WorkloadError::Impossible {
            event: number,
            reason,
        };
        let Some(pool) = self.pools.get_mut(thread) else {
            return Err(impossible(format!("there is no thread {thread}")));
        };
        pool.started = true;
        pool.events_left = pool.events_left.saturating_sub(1);
        let last = pool.events_left == 0;
        let op = match event.action {
            Action::Alloc {
                kind,
                block,
                size,
                align_log2,
            } => self
                .alloc(thread, kind, block as usize, size, align_log2)
                .map_err(impossible)?,
            Action::Realloc { block, size } => {
                let live = find(&mut self.live, block).map_err(impossible)?;
                let size = checked(size).map_err(impossible)?;
                self.bytes = self.bytes - live.size + size;
                self.peak_bytes = self.peak_bytes.max(self.bytes);
                live.size = size;
                let (slot, align, shared) = (live.slot, live.align_log2, live.shared);
                self.op(OpKind::Realloc, shared, slot, size, align, 1)
            }
            Action::Free { block } => {
                let live = find(&mut self.live, block).map_err(impossible)?;
                let Live {
                    size,
                    slot,
                    align_log2,
                    shared,
                    ..
                } = *live;
                live.alive = false;
                self.bytes -= size;
                self.blocks -= 1;
                let op = self.op(OpKind::Free, shared, slot, size, align_log2, 1);
                if shared {
                    self.give_back(slot);
                } else {
                    self.pools[thread].private_free.push(slot);
                }
                op
            }
            other => {
                if let Action::Start { thread: child } = other {
                    self.start(child).map_err(impossible)?;
                }
                plain_op(other).ok_or_else(|| impossible("it does nothing".into()))?
            }
        };
        if last {
            let freed = std::mem::take(&mut self.pools[thread].shared_free);
            self.reserve.extend(freed);
        }
        Ok(op)
    }

    fn start(&mut self, child: u32) -> Result<(), String> {
        match self.pools.get_mut(child as usize) {
            Some(pool) if !pool.started && child != 0 => {
                pool.started = true;
                Ok(())
            }
            _ => Err(format!("thread {child} cannot be started here")),
        }
    }

    #[inline]
    fn op(
        &mut self,
        kind: OpKind,
        shared: bool,
        slot: u32,
        size: u64,
        align_log2: u8,
        step: u16,
    ) -> Op {
        if !shared {
            return Op::new(kind, 0, 0, slot, size, align_log2);
        }
        let generation = &mut self.generations[slot as usize];
        let op = Op::new(kind, FLAG_SHARED, *generation, slot, size, align_log2);
        *generation = generation.wrapping_add(step);
        op
    }

    #[inline]
    fn alloc(
        &mut self,
        thread: usize,
        kind: OpKind,
        block: usize,
        size: u64,
        align_log2: u8,
    ) -> Result<Op, String> {
        if !matches!(kind, OpKind::Malloc | OpKind::Calloc | OpKind::AlignedAlloc) {
            return Err(format!("{kind:?} does not allocate"));
        }
        if align_log2 >= 48 {
            return Err(format!("2^{align_log2} is no alignment"));
        }
        if block >= self.live.len() {
            if block as u64 > self.allocations {
                return Err(format!("block number {block} skips others"));
            }
            self.live.resize((block + 1).next_power_of_two(), DEAD);
        }
        if self.live[block].alive {
            return Err(format!("block {block} is allocated twice"));
        }
        let size = checked(size)?;
        let shared = self.ownership.crosses(self.allocations);
        self.allocations += 1;
        let slot = if shared {
            self.shared_slot(thread)?
        } else {
            self.private_slot(thread)?
        };
        self.live[block] = Live {
            size,
            slot,
            align_log2,
            shared,
            alive: true,
        };
        self.bytes += size;
        self.blocks += 1;
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        self.peak_blocks = self.peak_blocks.max(self.blocks);
        Ok(self.op(kind, shared, slot, size, align_log2, 0))
    }

    #[inline]
    fn private_slot(&mut self, thread: usize) -> Result<u32, String> {
        let pool = &mut self.pools[thread];
        if let Some(slot) = pool.private_free.pop() {
            return Ok(slot);
        }
        let slot = pool.private_used;
        pool.private_used = slot.checked_add(1).ok_or("too many blocks are alive")?;
        Ok(slot)
    }

    fn shared_slot(&mut self, thread: usize) -> Result<u32, String> {
        let own = &mut self.pools[thread].shared_free;
        let queue = if own.len() > SLACK {
            own
        } else {
            &mut self.reserve
        };
        if queue.len() > SLACK
            && let Some(slot) = queue.pop_front()
        {
            self.allocator[slot as usize] = thread as u32;
            return Ok(slot);
        }
        let slot =
            u32::try_from(self.generations.len()).map_err(|_| "too many blocks are alive")?;
        self.generations.push(0);
        self.allocator.push(thread as u32);
        Ok(slot)
    }

    /// A shared slot goes back to the thread that allocated into it: in a pipeline that is the one that needs the next,
    /// and so the table stays as large as the blocks on their way plus the slack.
    fn give_back(&mut self, slot: u32) {
        let owner = &mut self.pools[self.allocator[slot as usize] as usize];
        if owner.events_left == 0 {
            self.reserve.push_back(slot);
        } else {
            owner.shared_free.push_back(slot);
        }
    }

    /// The layout of the whole table.
    pub fn finish(self) -> Result<Plan, WorkloadError> {
        let mut private_base = Vec::with_capacity(self.pools.len());
        let mut next = 0u32;
        let too_many =
            || WorkloadError::Parameters("too many blocks are alive for a script".into());
        for pool in &self.pools {
            private_base.push(next);
            let used = pool
                .private_used
                .checked_next_multiple_of(LINE)
                .ok_or_else(too_many)?;
            next = next.checked_add(used).ok_or_else(too_many)?;
        }
        let shared_slots = self.generations.len() as u32;
        next.checked_add(shared_slots).ok_or_else(too_many)?;
        Ok(Plan {
            private_base,
            private_slots: next,
            shared_slots,
            peak_live_bytes: self.peak_bytes,
            peak_live_blocks: self.peak_blocks,
        })
    }
}

#[inline]
fn find(live: &mut [Live], block: u32) -> Result<&mut Live, String> {
    match live.get_mut(block as usize) {
        Some(live) if live.alive => Ok(live),
        _ => Err(format!("block {block} is not alive")),
    }
}

#[inline]
fn checked(size: u64) -> Result<u64, String> {
    if size <= MAX_SIZE {
        Ok(size)
    } else {
        Err(format!("{size} bytes are too many"))
    }
}
