//! What one event changes, kind by kind.

use super::merge::{FORK, Merge, Outcome, Pending};
use crate::trace::error::TraceError;
use crate::trace::event::EventKind;
use crate::trace::raw::{RawEvent, RawKind};

impl Merge<'_> {
    pub(super) fn apply(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let address = event.address;
        let process = self.streams[stream].process;
        if !self.spaces[process].begun {
            if !self.spaces[process].counts.info.cloned {
                return Ok(Outcome::Waits(FORK));
            }
            self.begin_fork(process)?;
        }
        let kind = match event.kind {
            RawKind::Free => EventKind::Free,
            RawKind::FreeSized => EventKind::FreeSized,
            RawKind::FreeAlignedSized => EventKind::FreeAlignedSized,
            RawKind::FailedAlloc => {
                self.emit(stream, &event, EventKind::Failed, 0)?;
                return Ok(Outcome::Done(None));
            }
            RawKind::Mark => {
                self.emit(stream, &event, EventKind::Mark, 0)?;
                return Ok(Outcome::Done(None));
            }
            RawKind::Fork => {
                let child = u32::try_from(event.size).ok();
                let child = child.and_then(|number| self.index.numbers.get(&number).copied());
                // A fork that failed has no child.
                if let Some(child) = child.filter(|child| *child as usize > process) {
                    let size = u64::from(child);
                    self.emit(stream, &RawEvent { size, ..event }, EventKind::Fork, 0)?;
                    self.begin_fork(child as usize)?;
                }
                return Ok(Outcome::Done(None));
            }
            RawKind::Mmap => return self.mapping(stream, event, EventKind::Mmap),
            RawKind::Munmap => return self.mapping(stream, event, EventKind::Munmap),
            RawKind::Mremap => return self.mapping(stream, event, EventKind::Mremap),
            RawKind::Brk => {
                let first = *self.spaces[process].first_break.get_or_insert(address);
                let size = address.saturating_sub(first);
                return self.mapping(stream, RawEvent { size, ..event }, EventKind::Brk);
            }
            RawKind::Written => return self.written(stream, event, force),
            RawKind::ReallocBegin => return self.realloc_begin(stream, event, force),
            RawKind::ReallocEnd | RawKind::ReallocArrayEnd => {
                return self.realloc_end(stream, event, force);
            }
            other => {
                let kind = EventKind::of_allocation(other).unwrap_or(EventKind::Malloc);
                return self.allocation(stream, event, kind, force);
            }
        };
        if address == 0 {
            return Ok(Outcome::Done(None));
        }
        match self.take(stream, &event, address)? {
            Some(block) => {
                self.emit(stream, &event, kind, block)?;
                Ok(Outcome::Done(Some(address)))
            }
            None if force => {
                self.foreign += 1;
                Ok(Outcome::Done(None))
            }
            None => Ok(Outcome::Waits(address)),
        }
    }

    /// A call that changes mappings, not blocks.
    fn mapping(
        &mut self,
        stream: usize,
        event: RawEvent,
        kind: EventKind,
    ) -> Result<Outcome, TraceError> {
        self.emit(stream, &event, kind, 0)?;
        Ok(Outcome::Done(None))
    }

    /// What was seen of a block. Of one that is older than the recording, or inherited, nothing is told.
    fn written(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let space = &self.spaces[self.streams[stream].process];
        match space.blocks.get(&event.address).copied() {
            Some(block) => {
                self.emit(stream, &event, EventKind::Written, block)?;
                Ok(Outcome::Done(None))
            }
            None if force || space.inherited.contains_key(&event.address) => {
                Ok(Outcome::Done(None))
            }
            None => Ok(Outcome::Waits(event.address)),
        }
    }

    fn allocation(
        &mut self,
        stream: usize,
        event: RawEvent,
        kind: EventKind,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        if event.address == 0 {
            self.emit(stream, &event, EventKind::Failed, 0)?;
            return Ok(Outcome::Done(None));
        }
        if let Some(old) = self.occupied(stream, event.address) {
            if !force {
                return Ok(Outcome::Waits(event.address));
            }
            self.emit(stream, &event, EventKind::LostFree, old)?;
        }
        let block = self.emit(stream, &event, kind, 0)?;
        self.put(stream, event.address, block);
        Ok(Outcome::Done(Some(event.address)))
    }

    /// The old address is free to be given to others from now on; the block lives on until the end is seen.
    fn realloc_begin(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let address = event.address;
        let block = match address {
            0 => None,
            _ => self.take(stream, &event, address)?,
        };
        if block.is_none() && address != 0 {
            if !force {
                return Ok(Outcome::Waits(address));
            }
            self.foreign += 1;
        }
        self.streams[stream]
            .pending
            .push(Pending { block, address });
        Ok(Outcome::Done(block.map(|_| address)))
    }

    fn realloc_end(
        &mut self,
        stream: usize,
        event: RawEvent,
        force: bool,
    ) -> Result<Outcome, TraceError> {
        let pending = self.streams[stream].pending.last().copied();
        // An end without its beginning (lost) is an allocation, or resizes the block at its address.
        let pending = pending.unwrap_or(Pending {
            block: None,
            address: 0,
        });
        let Some(block) = pending.block else {
            if event.address == 0 && event.size == 0 {
                self.streams[stream].pending.pop();
                return Ok(Outcome::Done(None));
            }
            let outcome = self.allocation(stream, event, EventKind::ReallocNew, force)?;
            if matches!(outcome, Outcome::Done(_)) {
                self.streams[stream].pending.pop();
            }
            return Ok(outcome);
        };
        if event.address == 0 {
            self.streams[stream].pending.pop();
            if event.size == 0 {
                self.emit(stream, &event, EventKind::ReallocFree, block)?;
                return Ok(Outcome::Done(None));
            }
            // It failed: the block stays what and where it was.
            self.put(stream, pending.address, block);
            self.emit(stream, &event, EventKind::Failed, 0)?;
            return Ok(Outcome::Done(Some(pending.address)));
        }
        if let Some(other) = self.occupied(stream, event.address) {
            if !force {
                return Ok(Outcome::Waits(event.address));
            }
            self.emit(stream, &event, EventKind::LostFree, other)?;
        }
        let kind = if event.kind == RawKind::ReallocArrayEnd {
            EventKind::ReallocArray
        } else {
            EventKind::Realloc
        };
        self.emit(stream, &event, kind, block)?;
        self.put(stream, event.address, block);
        self.streams[stream].pending.pop();
        Ok(Outcome::Done(Some(event.address)))
    }
}
