//! What the records say about stacks, put together: modules, stacks by number, and which event has which.

use super::sink::Sink;
use crate::trace::TraceError;
use crate::trace::raw::{RawEvent, RawKind};
use crate::trace::stacks::raw::{CodeSpace, MOST_STACKS, RawModule, RawStack};
use heaplab_ring::stack::{
    BYTES_PER_RECORD, FRAMES_PER_RECORD, MODULE_HEADER, StackNote, block_tag, unpack_bytes,
};
use heaplab_ring::{Kind, RecordView};
use heaplab_unwind::StackHash;
use std::collections::HashMap;

/// Addresses or bytes of definitions that were begun and not ended at most: what is older belongs to
/// a handler that jumped out.
const MOST_BEGUN: usize = 1 << 16;
/// Stacks whose allocation has not come yet at most (handlers nest a few deep).
const MOST_PENDING: usize = 8;

/// A stack within a process: its epoch and hash.
type Name = (u16, u64);

/// A thread's part.
#[derive(Debug, Default)]
pub struct ThreadStacks {
    frames: Vec<u64>,
    bytes: Vec<u8>,
    /// Tags of blocks whose allocation follows, with their stacks.
    pending: Vec<(u32, Name)>,
    /// Events of this thread so far.
    events: u64,
    /// Not yet written: stacks of events (by their number in the thread), definitions, modules.
    refs: Vec<(u64, Name)>,
    defined: Vec<(Name, Vec<u64>)>,
    modules: Vec<RawModule>,
}

impl ThreadStacks {
    /// Counts an event, and gives it the stack that was announced for its block.
    #[inline]
    pub fn event(&mut self, event: &RawEvent) {
        if !self.pending.is_empty() && allocates(event.kind) {
            let tag = block_tag(event.address);
            let of_block = |(block, _): &(u32, Name)| *block == tag;
            if let Some(at) = self.pending.iter().rposition(of_block) {
                let (_, stack) = self.pending.remove(at);
                self.refs.push((self.events, stack));
            }
        }
        self.events += 1;
    }

    /// Takes a record that describes; `false`: it makes no sense.
    pub fn take(&mut self, record: &RecordView) -> bool {
        match Kind::from_u8(record.kind) {
            Some(Kind::StackFrames) => {
                if self.frames.len() > MOST_BEGUN {
                    self.frames.clear();
                }
                self.frames.extend([record.word, record.address]);
                true
            }
            Some(Kind::Bytes) => {
                if self.bytes.len() > MOST_BEGUN {
                    self.bytes.clear();
                }
                let bytes = unpack_bytes(record.word, record.address);
                self.bytes.extend_from_slice(&bytes);
                true
            }
            Some(Kind::Stack) => self.stack(record),
            Some(Kind::Module) => self.module(record).is_some(),
            _ => false,
        }
    }

    fn stack(&mut self, record: &RecordView) -> bool {
        let note = StackNote::from_address(record.address);
        let name = (note.epoch, record.word);
        if self.pending.len() >= MOST_PENDING {
            self.pending.remove(0);
        }
        self.pending.push((note.tag, name));
        let count = usize::from(note.defined);
        if count == 0 {
            return true;
        }
        let Some(at) = self
            .frames
            .len()
            .checked_sub(count.next_multiple_of(FRAMES_PER_RECORD))
        else {
            return false;
        };
        let mut frames = self.frames.split_off(at);
        frames.truncate(count);
        if StackHash::of(&frames, u64::from(note.epoch)) != record.word {
            return false;
        }
        self.defined.push((name, frames));
        true
    }

    fn module(&mut self, record: &RecordView) -> Option<()> {
        let total = (record.word >> 16) as usize & 0xffff;
        let whole = total.next_multiple_of(BYTES_PER_RECORD);
        let at = self.bytes.len().checked_sub(whole)?;
        let bytes = self.bytes.split_off(at);
        let (header, rest) = bytes.split_at_checked(MODULE_HEADER)?;
        let build_id = rest.get(..usize::from(header[0]))?;
        let path = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let path = rest.get(build_id.len()..build_id.len() + path)?;
        let word = |at: usize| Some(u64::from_le_bytes(*header.get(at..)?.first_chunk::<8>()?));
        self.modules.push(RawModule {
            space: CodeSpace {
                process: 0,
                epoch: record.word as u16,
            },
            start: word(12)?,
            end: word(20)?,
            bias: word(4)?,
            build_id: crate::hex(build_id),
            path: String::from_utf8_lossy(path).into_owned(),
        });
        Some(())
    }
}

fn allocates(kind: RawKind) -> bool {
    !matches!(
        kind,
        RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized | RawKind::ReallocBegin
    )
}

/// Numbers the stacks of a recording.
#[derive(Debug, Default)]
pub struct StackNumbers(HashMap<(CodeSpace, u64), u32>);

impl StackNumbers {
    /// Writes what a thread of `process` has gathered: before its events, or after its last ones.
    pub fn write(
        &mut self,
        sink: &mut impl Sink,
        process: u32,
        thread: u32,
        stacks: &mut ThreadStacks,
    ) -> Result<(), TraceError> {
        let space = |epoch| CodeSpace { process, epoch };
        for mut module in stacks.modules.drain(..) {
            module.space.process = process;
            sink.module(&module)?;
        }
        let defined: Vec<RawStack> = stacks
            .defined
            .drain(..)
            .map(|((epoch, hash), frames)| RawStack {
                id: self.number(space(epoch), hash),
                space: space(epoch),
                frames,
            })
            .collect();
        if !defined.is_empty() {
            sink.stacks(&defined)?;
        }
        let refs: Vec<(u64, u32)> = stacks
            .refs
            .drain(..)
            .map(|(event, (epoch, hash))| (event, self.number(space(epoch), hash)))
            .collect();
        if !refs.is_empty() {
            sink.event_stacks(thread, &refs)?;
        }
        Ok(())
    }

    /// From 1; 0 when there are too many.
    fn number(&mut self, space: CodeSpace, hash: u64) -> u32 {
        let next = self.0.len() as u32 + 1;
        if next >= MOST_STACKS {
            return self.0.get(&(space, hash)).copied().unwrap_or(0);
        }
        *self.0.entry((space, hash)).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_ring::stack::pack_bytes;

    fn record(kind: Kind, word: u64, address: u64) -> RecordView {
        RecordView {
            word,
            address,
            kind: kind as u8,
        }
    }

    fn event(kind: RawKind, address: u64) -> RawEvent {
        RawEvent {
            time_ns: 0,
            address,
            size: 8,
            kind,
            align_log2: 0,
        }
    }

    fn definition(frames: &[u64], block: u64) -> Vec<RecordView> {
        let mut records: Vec<RecordView> = frames
            .chunks(FRAMES_PER_RECORD)
            .map(|part| {
                let at = |index| part.get(index).copied().unwrap_or(0);
                record(Kind::StackFrames, at(0), at(1))
            })
            .collect();
        let hash = StackHash::of(frames, 0);
        let note = StackNote {
            epoch: 0,
            defined: frames.len() as u8,
            cut: false,
            tag: block_tag(block),
        };
        records.push(record(Kind::Stack, hash, note.to_address()));
        records
    }

    #[test]
    fn a_handler_inside_a_definition_gets_its_own_stack() {
        let mut thread = ThreadStacks::default();
        let outer = definition(&[10, 20, 30, 40], 0x1000);
        let inner = definition(&[7, 8], 0x2000);
        assert!(thread.take(&outer[0]));
        assert!(inner.iter().all(|record| thread.take(record)));
        thread.event(&event(RawKind::Malloc, 0x2000));
        assert!(outer[1..].iter().all(|record| thread.take(record)));
        thread.event(&event(RawKind::Free, 0x1000));
        thread.event(&event(RawKind::Malloc, 0x1000));
        let frames: Vec<&[u64]> = thread.defined.iter().map(|(_, frames)| &**frames).collect();
        assert_eq!(frames, [&[7, 8][..], &[10, 20, 30, 40]]);
        let of = |at: usize| thread.defined[at].0;
        assert_eq!(thread.refs, [(0, of(0)), (2, of(1))]);
    }

    #[test]
    fn what_was_torn_names_nothing() {
        let mut thread = ThreadStacks::default();
        let mut records = definition(&[1, 2, 3, 4, 5], 0x1000);
        records.remove(0);
        assert!(!records.iter().all(|record| thread.take(record)));
        assert!(thread.defined.is_empty());
        assert!(!thread.take(&record(Kind::Module, 40 << 16, 0)));
        assert!(thread.modules.is_empty());
    }

    #[test]
    fn a_module_is_described() {
        let mut thread = ThreadStacks::default();
        let mut bytes = vec![2, 0, 11, 0];
        for word in [0x5000u64, 0x6000, 0x9000] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(b"\xab\x01/lib/x.so.6");
        let total = bytes.len() as u64;
        for piece in bytes.chunks(BYTES_PER_RECORD) {
            let whole: [u8; BYTES_PER_RECORD] =
                std::array::from_fn(|at| piece.get(at).copied().unwrap_or(0));
            let (word, address) = pack_bytes(&whole);
            assert!(thread.take(&record(Kind::Bytes, word, address)));
        }
        assert!(thread.take(&record(Kind::Module, 3 | total << 16, 0)));
        let module = RawModule {
            space: CodeSpace {
                process: 0,
                epoch: 3,
            },
            start: 0x6000,
            end: 0x9000,
            bias: 0x5000,
            build_id: "ab01".into(),
            path: "/lib/x.so.6".into(),
        };
        assert_eq!(thread.modules, [module]);
    }
}
