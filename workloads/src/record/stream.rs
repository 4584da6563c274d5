//! One thread's records on their way out: in the order of its chunks, as raw events.

use super::clock::Span;
use super::stacks::ThreadStacks;
use crate::trace::packed::Packed;
use crate::trace::raw::{RawEvent, RawKind};
use heaplab_ring::record::{CLONED, FIRST_DESCRIPTION, WIDE};
use heaplab_ring::{Kind, RecordView};

/// Events gathered before they are written as one chunk of the raw trace.
pub const FLUSH_EVENTS: usize = 16 * 1024;
/// Sizes that no event has taken yet at most (handlers nest a few deep).
const MOST_WIDE: usize = 8;

/// What the drainer knows about a thread.
#[derive(Debug)]
pub struct Stream {
    /// Number of its process in the session.
    pub process: u32,
    pub os_tid: u32,
    /// The sequence number of the chunk that is read now.
    pub next_sequence: u32,
    /// Records already read of it.
    pub position: usize,
    /// Time of the last event.
    pub last_ns: u64,
    pub name: String,
    /// The thread closed a chunk because it ends; events may still follow.
    pub ending: bool,
    /// The thread does not exist any more: its chunk is read to the end and recycled.
    pub dead: bool,
    /// `thread_end` was written.
    pub ended: bool,
    /// Events read since the thread was last looked for.
    pub lively: bool,
    pub events: Packed,
    pub stacks: ThreadStacks,
    /// Text that the next record which takes some will take.
    text: Vec<u8>,
    /// Sizes whose events have not come yet.
    wide: Vec<u64>,
}

/// The malloc family in the order of the records' kinds.
const FAMILY: [RawKind; 14] = [
    RawKind::Malloc,
    RawKind::Calloc,
    RawKind::AlignedAlloc,
    RawKind::Memalign,
    RawKind::PosixMemalign,
    RawKind::Valloc,
    RawKind::Pvalloc,
    RawKind::ReallocBegin,
    RawKind::ReallocEnd,
    RawKind::Free,
    RawKind::FreeSized,
    RawKind::FreeAlignedSized,
    RawKind::ReallocArrayEnd,
    RawKind::FailedAlloc,
];

/// What a record turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// An event; it is in the buffer.
    Event,
    /// A part of a message, or of what describes events.
    Text,
    /// A message to the drainer.
    Message(Message),
    /// Nothing that exists.
    Nonsense,
}

/// What a thread says besides its events.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Mark {
        time_ns: u64,
        name: String,
    },
    Start {
        time_ns: u64,
        forked_from: u32,
        parent_pid: u32,
        /// Its parent does not say when it forked.
        cloned: bool,
        text: Vec<u8>,
    },
    Exec {
        time_ns: u64,
        pid: u32,
        by_parent: bool,
        file: String,
    },
    Exit {
        time_ns: u64,
    },
}

impl Stream {
    pub fn new(process: u32, os_tid: u32) -> Self {
        Self {
            process,
            os_tid,
            next_sequence: 0,
            position: 0,
            last_ns: 0,
            name: String::new(),
            ending: false,
            dead: false,
            ended: false,
            lively: true,
            events: Packed::default(),
            stacks: ThreadStacks::default(),
            text: Vec::new(),
            wide: Vec::new(),
        }
    }

    /// Appends the record if it is a call of the malloc family that stands alone: what nearly all are.
    #[inline(always)]
    pub fn take_event(&mut self, record: &RecordView, span: Span) -> bool {
        // Kinds of the malloc family count from 1 in records (0 is an empty slot), from 0 in the raw trace.
        let Some(&kind) = FAMILY.get(usize::from(record.kind).wrapping_sub(1)) else {
            return false;
        };
        let size = record.size();
        if size == WIDE {
            return false;
        }
        self.append(record, kind, size, span);
        true
    }

    #[inline(always)]
    fn append(&mut self, record: &RecordView, kind: RawKind, size: u64, span: Span) {
        // A record whose hook was interrupted by a handler comes after the handler's.
        self.last_ns = span.ns(record.ticks()).max(self.last_ns);
        let event = RawEvent {
            time_ns: self.last_ns,
            address: record.address,
            size,
            kind,
            align_log2: record.align_log2().min(47),
        };
        self.stacks.event(&event);
        self.events.push(&event);
        self.lively = true;
    }

    /// Appends a record as an event, or says what else it is.
    pub fn push(&mut self, record: RecordView, span: Span) -> Pushed {
        let kind = match Kind::from_u8(record.kind) {
            Some(Kind::Fork) => RawKind::Fork,
            Some(Kind::Mmap) => RawKind::Mmap,
            Some(Kind::Munmap) => RawKind::Munmap,
            Some(Kind::Mremap) => RawKind::Mremap,
            Some(Kind::Brk) => RawKind::Brk,
            Some(Kind::Written) => RawKind::Written,
            Some(Kind::Wide) => {
                if self.wide.len() >= MOST_WIDE {
                    self.wide.remove(0);
                }
                self.wide.push(record.word);
                return Pushed::Text;
            }
            _ => match FAMILY.get(usize::from(record.kind).wrapping_sub(1)) {
                Some(&kind) => kind,
                None => return self.message(record, span),
            },
        };
        let size = match record.size() {
            WIDE => match self.wide.pop() {
                Some(size) => size,
                None => return Pushed::Nonsense,
            },
            size => size,
        };
        match kind {
            // The child's number stands in place of the address.
            RawKind::Fork => {
                let nowhere = RecordView {
                    address: 0,
                    ..record
                };
                self.append(&nowhere, kind, record.address, span);
            }
            _ => self.append(&record, kind, size, span),
        }
        Pushed::Event
    }

    fn message(&mut self, record: RecordView, span: Span) -> Pushed {
        if record.kind >= FIRST_DESCRIPTION {
            return match self.stacks.take(&record) {
                true => Pushed::Text,
                false => Pushed::Nonsense,
            };
        }
        let kind = Kind::from_u8(record.kind);
        if kind == Some(Kind::Text) {
            let (text, used, first) = record.text();
            if first {
                self.text.clear();
            }
            self.text.extend_from_slice(&text[..used]);
            return Pushed::Text;
        }
        self.last_ns = span.ns(record.ticks()).max(self.last_ns);
        self.lively = true;
        let time_ns = self.last_ns;
        let text = std::mem::take(&mut self.text);
        let name = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        Pushed::Message(match kind {
            Some(Kind::Mark) => Message::Mark {
                time_ns,
                name: name(&text),
            },
            Some(Kind::ProcessStart) => Message::Start {
                time_ns,
                forked_from: record.address as u32,
                parent_pid: record.size() as u32 & (CLONED as u32 - 1),
                cloned: record.size() & CLONED as u64 != 0,
                text,
            },
            Some(Kind::Exec) => Message::Exec {
                time_ns,
                pid: record.address as u32,
                by_parent: record.size() == 1,
                file: name(&text),
            },
            Some(Kind::Exit) => Message::Exit { time_ns },
            _ => return Pushed::Nonsense,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Calibration;
    use super::*;
    use heaplab_ring::clock::Clock;
    use heaplab_ring::record::event_word;

    #[test]
    fn kinds_of_records_are_kinds_of_the_trace() {
        let pairs = [
            (Kind::Malloc, RawKind::Malloc),
            (Kind::Calloc, RawKind::Calloc),
            (Kind::AlignedAlloc, RawKind::AlignedAlloc),
            (Kind::Memalign, RawKind::Memalign),
            (Kind::PosixMemalign, RawKind::PosixMemalign),
            (Kind::Valloc, RawKind::Valloc),
            (Kind::Pvalloc, RawKind::Pvalloc),
            (Kind::ReallocBegin, RawKind::ReallocBegin),
            (Kind::ReallocEnd, RawKind::ReallocEnd),
            (Kind::Free, RawKind::Free),
            (Kind::FreeSized, RawKind::FreeSized),
            (Kind::FreeAlignedSized, RawKind::FreeAlignedSized),
            (Kind::ReallocArrayEnd, RawKind::ReallocArrayEnd),
            (Kind::FailedAlloc, RawKind::FailedAlloc),
            (Kind::Fork, RawKind::Fork),
            (Kind::Mmap, RawKind::Mmap),
            (Kind::Munmap, RawKind::Munmap),
            (Kind::Mremap, RawKind::Mremap),
            (Kind::Brk, RawKind::Brk),
            (Kind::Written, RawKind::Written),
        ];
        let span = Calibration::measure(Clock::Monotonic).span(0);
        let mut stream = Stream::new(1, 1);
        for (kind, expected) in pairs {
            let record = record(kind as u8, event_word(0, 3, 0), 64);
            if !stream.take_event(&record, span) {
                assert_eq!(stream.push(record, span), Pushed::Event);
            }
            let last = stream.events.events().pop().expect("an event");
            assert_eq!(last.kind, expected);
        }
        for kind in [0, 26, 255] {
            let record = record(kind, 0, 0);
            assert!(!stream.take_event(&record, span));
            assert_eq!(stream.push(record, span), Pushed::Nonsense);
        }
    }

    fn record(kind: u8, word: u64, address: u64) -> RecordView {
        RecordView {
            word,
            address,
            kind,
        }
    }

    #[test]
    fn a_large_size_stands_before_its_event_and_a_handlers_before_its_own() {
        let span = Calibration::measure(Clock::Monotonic).span(0);
        let mut stream = Stream::new(1, 1);
        let event = |address| record(Kind::Malloc as u8, event_word(0, WIDE, 0), address);
        for size in [1 << 40, 1 << 30] {
            let wide = record(Kind::Wide as u8, size, 0);
            assert_eq!(stream.push(wide, span), Pushed::Text);
        }
        for address in [16, 32] {
            assert!(!stream.take_event(&event(address), span));
            assert_eq!(stream.push(event(address), span), Pushed::Event);
        }
        let sizes: Vec<u64> = (stream.events.events().iter())
            .map(|event| event.size)
            .collect();
        assert_eq!(sizes, [1 << 30, 1 << 40]);
        assert_eq!(stream.push(event(48), span), Pushed::Nonsense);
    }

    #[test]
    fn a_name_longer_than_a_record_reaches_its_mark() {
        let span = Calibration::measure(Clock::Monotonic).span(0);
        let mut stream = Stream::new(1, 1);
        let name = b"a phase whose name is long";
        for (number, piece) in name.chunks(13).enumerate() {
            let mut bytes = [0u8; 16];
            bytes[..piece.len()].copy_from_slice(piece);
            bytes[13] = piece.len() as u8 | if number == 0 { 0x80 } else { 0 };
            let both = u128::from_le_bytes(bytes);
            let text = record(Kind::Text as u8, both as u64, (both >> 64) as u64);
            assert_eq!(stream.push(text, span), Pushed::Text);
        }
        let expected = Message::Mark {
            time_ns: 0,
            name: String::from_utf8_lossy(name).into_owned(),
        };
        let mark = record(Kind::Mark as u8, 0, 0);
        assert_eq!(stream.push(mark, span), Pushed::Message(expected));
    }
}
