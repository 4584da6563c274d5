//! First pass: which allocations cross threads, and how many events each thread has.

use super::{Action, Event};
use crate::error::WorkloadError;

/// Bound on thread numbers, against damaged sources.
const MAX_THREADS: u32 = 1 << 20;

#[derive(Clone, Copy)]
struct Owner {
    /// Number of the allocation + 1; 0: no block is alive under this number.
    allocation: u64,
    thread: u32,
}

/// One bit an allocation, in the order of the events: does any other thread touch the block?
#[derive(Default)]
pub struct Ownership {
    owners: Vec<Owner>,
    crossing: Vec<u64>,
    allocations: u64,
    /// Events of each thread.
    events: Vec<u64>,
}

impl Ownership {
    /// Number of threads that appear, ≥ 1.
    pub fn threads(&self) -> u32 {
        self.events.len().max(1) as u32
    }

    /// Events of a thread.
    pub fn events_of(&self, thread: usize) -> u64 {
        self.events.get(thread).copied().unwrap_or(0)
    }

    /// Whether the allocation with this number crosses.
    #[inline]
    pub fn crosses(&self, allocation: u64) -> bool {
        self.crossing[(allocation / 64) as usize] >> (allocation % 64) & 1 != 0
    }

    /// Looks at one event.
    #[inline]
    pub fn take(&mut self, event: Event, number: u64) -> Result<(), WorkloadError> {
        let thread = event.thread;
        self.count(thread, 1, number)?;
        match event.action {
            Action::Alloc { block, .. } => {
                let block = block as usize;
                if block >= self.owners.len() {
                    self.grow(block, number)?;
                }
                if self.allocations.is_multiple_of(64) {
                    self.crossing.push(0);
                }
                self.allocations += 1;
                self.owners[block] = Owner {
                    allocation: self.allocations,
                    thread,
                };
            }
            Action::Realloc { block, .. } => {
                self.touch(block, thread);
            }
            Action::Free { block } => {
                self.touch(block, thread);
                if let Some(owner) = self.owners.get_mut(block as usize) {
                    owner.allocation = 0;
                }
            }
            Action::Start { thread } => self.count(thread, 0, number)?,
            Action::Idle { .. }
            | Action::Mark { .. }
            | Action::Written { .. }
            | Action::End
            | Action::At { .. } => {}
        }
        Ok(())
    }

    #[inline]
    fn touch(&mut self, block: u32, thread: u32) {
        // Impossible events are the second pass's to refuse, with the same number.
        if let Some(owner) = self.owners.get(block as usize)
            && owner.thread != thread
            && owner.allocation != 0
        {
            let bit = owner.allocation - 1;
            self.crossing[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    #[cold]
    fn grow(&mut self, block: usize, number: u64) -> Result<(), WorkloadError> {
        // Numbers are dense: at most one new one for each event so far.
        if block as u64 > number + 1 {
            return Err(WorkloadError::Impossible {
                event: number,
                reason: format!("block number {block} skips others"),
            });
        }
        self.owners.resize(
            (block + 1).next_power_of_two(),
            Owner {
                allocation: 0,
                thread: 0,
            },
        );
        Ok(())
    }

    #[inline]
    fn count(&mut self, thread: u32, by: u64, number: u64) -> Result<(), WorkloadError> {
        if thread as usize >= self.events.len() {
            if thread >= MAX_THREADS {
                return Err(WorkloadError::Impossible {
                    event: number,
                    reason: format!("there is no thread {thread}"),
                });
            }
            self.events.resize(thread as usize + 1, 0);
        }
        self.events[thread as usize] += by;
        Ok(())
    }
}
