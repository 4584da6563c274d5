//! From a raw file's addresses to the table of the final form.

use super::super::container::{ChunkKind, ChunkPlace, ChunkReader};
use super::super::error::TraceError;
use super::raw::{self, CodeSpace, RawModule, RawStack};
use super::table::{Frame, Module, StackTable, StackTableBuilder};
use heaplab_ring::stack::StackMode;
use std::collections::{BTreeMap, HashMap};

/// What a raw file says about stacks.
#[derive(Debug, Default)]
pub struct RawStacks {
    /// Which allocations brought theirs.
    pub mode: StackMode,
    modules: HashMap<CodeSpace, Vec<RawModule>>,
    stacks: Vec<RawStack>,
    /// Chunks of references by thread: place and first event.
    refs: BTreeMap<u32, Vec<(ChunkPlace, u64)>>,
}

impl RawStacks {
    /// Takes a chunk of a kind of stacks; others are left alone. The error says what is wrong.
    pub fn take(&mut self, place: &ChunkPlace, meta: &[u8], body: &[u8]) -> Result<(), String> {
        match place.kind {
            ChunkKind::RAW_STACK_MODE => {
                let words = meta.first_chunk::<8>().ok_or("a chunk is too short")?;
                let (mode, period) = words.split_at(4);
                let word = |bytes: &[u8]| {
                    bytes
                        .iter()
                        .rev()
                        .fold(0u32, |word, &byte| word << 8 | u32::from(byte))
                };
                self.mode = StackMode::from_words(word(mode), word(period));
            }
            ChunkKind::RAW_MODULE => {
                let module: RawModule = serde_json::from_slice(body)
                    .map_err(|error| format!("a chunk cannot be read: {error}"))?;
                self.modules.entry(module.space).or_default().push(module);
            }
            ChunkKind::RAW_STACKS => self.stacks.extend(raw::decode_stacks(meta, body)?),
            ChunkKind::RAW_EVENT_STACKS => {
                raw::decode_refs(meta, body)?;
                let (thread, first) = raw::refs_meta(meta).ok_or("a chunk is too short")?;
                self.refs.entry(thread).or_default().push((*place, first));
            }
            _ => {}
        }
        Ok(())
    }

    /// The table, and the number in it of each stack of the raw file.
    pub fn build(&mut self) -> (StackTable, Vec<u32>) {
        let mut builder = StackTableBuilder::default();
        builder.table.mode = self.mode;
        for modules in self.modules.values_mut() {
            // One that was told of later has replaced what was there.
            modules.reverse();
            modules.sort_by_key(|module| module.start);
            modules.dedup_by_key(|module| module.start);
        }
        let mut numbers = Vec::new();
        for stack in &self.stacks {
            let modules = self
                .modules
                .get(&stack.space)
                .map_or(&[][..], Vec::as_slice);
            let frames: Vec<Frame> = stack
                .frames
                .iter()
                .rev()
                .map(|&address| frame(&mut builder, modules, address))
                .collect();
            let number = builder.stack(frames.into_iter());
            let index = stack.id as usize;
            if index >= numbers.len() {
                numbers.resize(index + 1, 0);
            }
            numbers[index] = number;
        }
        // For blocks whose stacks are not known although they should be.
        let unknown = builder.stack(std::iter::once(Frame {
            module: None,
            address: 0,
        }));
        for number in numbers.iter_mut().filter(|number| **number == 0) {
            *number = unknown;
        }
        if numbers.is_empty() {
            numbers.push(unknown);
        }
        numbers[0] = unknown;
        self.stacks = Vec::new();
        (builder.table, numbers)
    }

    /// The references of a thread, in order.
    pub fn refs_of(&self, thread: u32) -> Refs {
        Refs {
            places: self.refs.get(&thread).cloned().unwrap_or_default().into(),
            pairs: Vec::new().into_iter(),
            next: None,
        }
    }
}

fn frame(builder: &mut StackTableBuilder, modules: &[RawModule], address: u64) -> Frame {
    let at = modules.partition_point(|module| module.start <= address);
    let module = at.checked_sub(1).and_then(|at| modules.get(at));
    match module.filter(|module| address < module.end) {
        Some(module) => Frame {
            module: Some(builder.module(&Module {
                path: module.path.clone(),
                build_id: module.build_id.clone(),
            })),
            address: address.wrapping_sub(module.bias),
        },
        None => Frame {
            module: None,
            address,
        },
    }
}

/// Which events of a thread have stacks; one chunk in memory.
#[derive(Debug, Default)]
pub struct Refs {
    places: std::collections::VecDeque<(ChunkPlace, u64)>,
    pairs: std::vec::IntoIter<(u64, u32)>,
    next: Option<(u64, u32)>,
}

impl Refs {
    /// The raw number of the stack of event `number`; `None` when it has none. Numbers must rise.
    pub fn of(&mut self, number: u64, reader: &ChunkReader) -> Result<Option<u32>, TraceError> {
        loop {
            match self.next {
                Some((event, stack)) if event == number => return Ok(Some(stack)),
                Some((event, _)) if event > number => return Ok(None),
                _ => {}
            }
            self.next = self.pairs.next();
            if self.next.is_some() {
                continue;
            }
            let Some((place, _)) = self.places.front().filter(|(_, first)| *first <= number) else {
                return Ok(None);
            };
            let chunk = reader.chunk(place)?;
            let pairs = raw::decode_refs(&chunk.meta, &chunk.body)
                .map_err(|reason| TraceError::damaged(reader.path(), place.offset, reason))?;
            self.pairs = pairs.into_iter();
            self.places.pop_front();
        }
    }
}
