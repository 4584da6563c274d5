//! The heaps of the processes along the merge: which block an event is about, and what a fork and an end do to them.

use super::merge::{FORK, Merge};
use crate::trace::error::TraceError;
use crate::trace::event::{Effect, EventKind, TICK_NS, TraceEvent};
use crate::trace::raw::RawEvent;
use std::collections::HashMap;

impl Merge<'_> {
    pub(super) fn emit(
        &mut self,
        stream: usize,
        raw: &RawEvent,
        kind: EventKind,
        block: u32,
    ) -> Result<u32, TraceError> {
        let process = self.streams[stream].process;
        let before = match kind.effect() {
            Effect::Resize | Effect::Free => {
                let known = self.writer.blocks().get(block);
                known.map_or(0, |block| block.size)
            }
            _ => 0,
        };
        self.spaces[process].count(kind, before, raw.size);
        let stack = match kind {
            EventKind::Inherited | EventKind::LostFree => 0,
            _ => self.stack_of(stream)?,
        };
        let event = TraceEvent {
            thread: self.streams[stream].number,
            tick: raw.time_ns / TICK_NS,
            kind,
            block,
            size: raw.size,
            align_log2: raw.align_log2,
            address: raw.address,
        };
        self.writer.event_on(event, stack)
    }

    /// The stack that a stream's present event brought; 0 for none.
    fn stack_of(&mut self, stream: usize) -> Result<u32, TraceError> {
        let this = &mut self.streams[stream];
        let number = this.before + this.at as u64;
        let Some(raw) = this.refs.of(number, &self.index.reader)? else {
            return Ok(0);
        };
        // Number 0 is a stack of which nothing is known.
        let known = self.stack_numbers.get(raw as usize);
        Ok(known.or(self.stack_numbers.first()).copied().unwrap_or(0))
    }

    /// Takes a block out of the heap of the stream's process; an inherited one gets a number of its own first.
    pub(super) fn take(
        &mut self,
        stream: usize,
        event: &RawEvent,
        address: u64,
    ) -> Result<Option<u32>, TraceError> {
        let space = &mut self.spaces[self.streams[stream].process];
        if let Some(block) = space.blocks.remove(&address) {
            return Ok(Some(block));
        }
        let Some(block) = space.inherited.remove(&address) else {
            return Ok(None);
        };
        space.sources.push(block.from);
        let copied = RawEvent {
            address,
            size: block.size,
            align_log2: block.align_log2,
            ..*event
        };
        self.emit(stream, &copied, EventKind::Inherited, 0)
            .map(Some)
    }

    /// Whether the stream's process has a block at an address, other than what it inherited: that address cannot come from
    /// its allocator, so the block was gone at the fork.
    pub(super) fn occupied(&mut self, stream: usize, address: u64) -> Option<u32> {
        let space = &mut self.spaces[self.streams[stream].process];
        space.inherited.remove(&address);
        space.blocks.get(&address).copied()
    }

    pub(super) fn put(&mut self, stream: usize, address: u64, block: u32) {
        let process = self.streams[stream].process;
        self.spaces[process].blocks.insert(address, block);
    }

    /// The parent forks: the child's heap is a copy of its own.
    pub(super) fn begin_fork(&mut self, child: usize) -> Result<(), TraceError> {
        let parent = self.index.processes.get(child).and_then(|info| info.parent);
        if let Some(parent) = parent {
            let blocks = self.writer.blocks();
            let about = |number| {
                let block = blocks.get(number);
                block.map_or((0, 0), |block| (block.size, block.align_log2))
            };
            self.spaces[child].inherited = self.spaces[parent as usize].fork(about);
        }
        self.spaces[child].begun = true;
        self.wake(child as u32, FORK)
    }

    /// Blocks that are alive at the end of a process leave, once all its events have happened.
    pub(super) fn end_if_over(&mut self, process: usize) -> Result<(), TraceError> {
        let space = &mut self.spaces[process];
        if !space.ending || space.running > 0 {
            return Ok(());
        }
        space.ending = false;
        space.inherited = HashMap::default();
        let mut blocks: Vec<u32> = std::mem::take(&mut space.blocks).into_values().collect();
        // And those that the process did not live to resize.
        let own = (self.streams.iter_mut()).filter(|stream| stream.process == process);
        blocks.extend(
            own.flat_map(|s| s.pending.drain(..))
                .filter_map(|p| p.block),
        );
        blocks.sort_unstable();
        let space = &self.spaces[process];
        let (thread, end_ns) = (space.thread, space.counts.info.end_ns.unwrap_or(0));
        for block in blocks {
            self.spaces[process].count(EventKind::Gone, 0, 0);
            self.writer.event(TraceEvent {
                thread,
                tick: end_ns / TICK_NS,
                kind: EventKind::Gone,
                block,
                size: 0,
                align_log2: 0,
                address: 0,
            })?;
        }
        Ok(())
    }

    /// What can be let go before the file is finished.
    pub(super) fn end_of_all(&mut self) {
        for space in &mut self.spaces {
            space.blocks = HashMap::default();
            space.inherited = HashMap::default();
        }
    }
}
