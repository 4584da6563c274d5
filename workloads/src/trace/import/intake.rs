//! Events with the names that another tool gives blocks, in one order, to a trace.

use crate::trace::error::TraceError;
use crate::trace::event::{Effect, EventKind, TraceEvent};
use crate::trace::summary::TraceSummary;
use crate::trace::writer::TraceWriter;
use std::collections::HashMap;

/// What happens to a block, as another tool tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub thread: u32,
    pub tick: u64,
    pub kind: EventKind,
    /// Its name: an address, a number.
    pub key: u64,
    /// The name that a resize gives it.
    pub new_key: u64,
    pub size: u64,
    pub align_log2: u8,
    pub address: u64,
}

/// Writes a trace and counts what contradicts itself.
pub(super) struct Intake {
    writer: TraceWriter,
    blocks: HashMap<u64, u32>,
    foreign: u64,
}

impl Intake {
    pub fn new(writer: TraceWriter) -> Self {
        Self {
            writer,
            blocks: HashMap::new(),
            foreign: 0,
        }
    }

    /// A remark about the input.
    pub fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.writer.note(text)
    }

    /// A thread's name.
    pub fn name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.writer.name(thread, name)
    }

    /// Appends an event. A free of an unknown block is dropped and counted; an allocation under the name of a live block
    /// shows that its free is missing, which is then made up.
    pub fn take(&mut self, told: &Told) -> Result<(), TraceError> {
        let mut kind = told.kind;
        let mut block = 0;
        match kind.effect() {
            Effect::None => {}
            Effect::Told => match self.blocks.get(&told.key) {
                Some(&found) => block = found,
                None => return Ok(()),
            },
            Effect::Free => match self.blocks.remove(&told.key) {
                Some(found) => block = found,
                None => {
                    self.foreign += 1;
                    return Ok(());
                }
            },
            Effect::Resize => match self.blocks.remove(&told.key) {
                Some(found) => {
                    block = found;
                    self.lose(told, told.new_key)?;
                    self.blocks.insert(told.new_key, block);
                }
                None => {
                    self.foreign += 1;
                    kind = EventKind::ReallocNew;
                }
            },
            Effect::Alloc => {}
        }
        let event = TraceEvent {
            thread: told.thread,
            tick: told.tick,
            kind,
            block,
            size: told.size,
            align_log2: told.align_log2,
            address: told.address,
        };
        if kind.effect() == Effect::Alloc {
            let key = if told.kind.effect() == Effect::Resize {
                told.new_key
            } else {
                told.key
            };
            self.lose(told, key)?;
            let block = self.writer.event(event)?;
            self.blocks.insert(key, block);
        } else {
            self.writer.event(event)?;
        }
        Ok(())
    }

    /// The block with this name must be gone.
    fn lose(&mut self, told: &Told, key: u64) -> Result<(), TraceError> {
        if let Some(block) = self.blocks.remove(&key) {
            self.writer.event(TraceEvent {
                thread: told.thread,
                tick: told.tick,
                kind: EventKind::LostFree,
                block,
                size: 0,
                align_log2: 0,
                address: 0,
            })?;
        }
        Ok(())
    }

    /// The whole trace.
    pub fn finish(self) -> Result<TraceSummary, TraceError> {
        let foreign = self.foreign;
        self.writer.finish(None, |summary| {
            summary.foreign_frees = foreign;
        })
    }
}
