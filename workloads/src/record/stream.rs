//! One thread's records on their way out: in the order of its chunks, as raw events.

use super::clock::Calibration;
use super::stacks::ThreadStacks;
use crate::trace::raw::{RawEvent, RawKind};
use heaplab_ring::record::{CLONED, FIRST_DESCRIPTION};
use heaplab_ring::{Kind, RecordView};

/// Events gathered before they are written as one chunk of the raw trace.
pub const FLUSH_EVENTS: usize = 64 * 1024;

/// What the drainer knows about a thread.
#[derive(Debug)]
pub struct Stream {
    /// Number of its process in the session.
    pub process: u32,
    pub os_tid: u32,
    /// The sequence number of the chunk that is read now.
    pub next_sequence: u32,
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
    pub buffer: Vec<RawEvent>,
    pub stacks: ThreadStacks,
    /// Text that the next record which takes some will take.
    text: Vec<u8>,
}

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
            last_ns: 0,
            name: String::new(),
            ending: false,
            dead: false,
            ended: false,
            lively: true,
            buffer: Vec::new(),
            stacks: ThreadStacks::default(),
            text: Vec::new(),
        }
    }

    /// Appends a record as an event, or says what else it is.
    #[inline]
    pub fn push(&mut self, record: RecordView, clock: &Calibration) -> Pushed {
        // Kinds of the malloc family count from 1 in records (0 is an empty slot), from 0 in the raw trace.
        let kind = match record.kind {
            1..=14 => RawKind::from_number(record.kind - 1),
            _ => match Kind::from_u8(record.kind) {
                Some(Kind::Fork) => Some(RawKind::Fork),
                Some(Kind::Mmap) => Some(RawKind::Mmap),
                Some(Kind::Munmap) => Some(RawKind::Munmap),
                Some(Kind::Mremap) => Some(RawKind::Mremap),
                Some(Kind::Brk) => Some(RawKind::Brk),
                _ => return self.message(record, clock),
            },
        };
        let Some(kind) = kind else {
            return Pushed::Nonsense;
        };
        // A record whose hook was interrupted by a handler comes after the handler's.
        self.last_ns = clock.ns(record.time).max(self.last_ns);
        let sized = !matches!(
            kind,
            RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized | RawKind::ReallocBegin
        );
        let (address, size) = match kind {
            // The child's number stands in place of the address.
            RawKind::Fork => (0, record.address),
            _ if sized => (record.address, record.size),
            _ => (record.address, 0),
        };
        let event = RawEvent {
            time_ns: self.last_ns,
            address,
            size,
            kind,
            align_log2: record.align_log2.min(47),
        };
        self.stacks.event(&event);
        self.buffer.push(event);
        self.lively = true;
        Pushed::Event
    }

    fn message(&mut self, record: RecordView, clock: &Calibration) -> Pushed {
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
        self.last_ns = clock.ns(record.time).max(self.last_ns);
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
                parent_pid: record.size as u32,
                cloned: record.size & CLONED as u64 != 0,
                text,
            },
            Some(Kind::Exec) => Message::Exec {
                time_ns,
                pid: record.address as u32,
                by_parent: record.size == 1,
                file: name(&text),
            },
            Some(Kind::Exit) => Message::Exit { time_ns },
            _ => return Pushed::Nonsense,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_ring::clock::Clock;

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
        ];
        let clock = Calibration::measure(Clock::Monotonic);
        let mut stream = Stream::new(1, 1);
        for (kind, expected) in pairs {
            let record = RecordView {
                time: 0,
                address: 64,
                size: 3,
                kind: kind as u8,
                align_log2: 0,
            };
            assert_eq!(stream.push(record, &clock), Pushed::Event);
            assert_eq!(stream.buffer.last().map(|event| event.kind), Some(expected));
        }
        for kind in [0, 25, 255] {
            let record = RecordView {
                time: 0,
                address: 0,
                size: 0,
                kind,
                align_log2: 0,
            };
            assert_eq!(stream.push(record, &clock), Pushed::Nonsense);
        }
    }

    #[test]
    fn a_name_longer_than_a_record_reaches_its_mark() {
        let clock = Calibration::measure(Clock::Monotonic);
        let mut stream = Stream::new(1, 1);
        let text = |piece: &[u8]| {
            let mut bytes = [0u8; 24];
            for (at, byte) in piece.iter().enumerate() {
                bytes[if at < 14 { at } else { at + 2 }] = *byte;
            }
            let word =
                |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
            RecordView {
                time: word(0),
                address: word(8),
                size: word(16),
                kind: Kind::Text as u8,
                align_log2: piece.len() as u8,
            }
        };
        let name = b"a phase whose name is long";
        for piece in name.chunks(20) {
            assert_eq!(stream.push(text(piece), &clock), Pushed::Text);
        }
        let mark = RecordView {
            time: 0,
            address: 0,
            size: 0,
            kind: Kind::Mark as u8,
            align_log2: 0,
        };
        let expected = Message::Mark {
            time_ns: 0,
            name: String::from_utf8_lossy(name).into_owned(),
        };
        assert_eq!(stream.push(mark, &clock), Pushed::Message(expected));
    }
}
