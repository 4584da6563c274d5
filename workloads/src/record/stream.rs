//! One thread's records on their way out: in the order of its chunks, as raw events.

use super::clock::Calibration;
use crate::trace::raw::{RawEvent, RawKind};
use heaplab_ring::RecordView;

/// Events gathered before they are written as one chunk of the raw trace.
pub const FLUSH_EVENTS: usize = 64 * 1024;

/// What the drainer knows about a thread.
#[derive(Debug)]
pub struct Stream {
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
}

impl Stream {
    pub fn new(os_tid: u32) -> Self {
        Self {
            os_tid,
            next_sequence: 0,
            last_ns: 0,
            name: String::new(),
            ending: false,
            dead: false,
            ended: false,
            lively: true,
            buffer: Vec::new(),
        }
    }

    /// Appends a record as an event; `false` when it holds no kind that exists.
    pub fn push(&mut self, record: RecordView, clock: &Calibration) -> bool {
        // Kinds in records count from 1 (0 is an empty slot), in the raw trace from 0; marks are
        // not records.
        let Some(kind) = record
            .kind
            .checked_sub(1)
            .and_then(RawKind::from_number)
            .filter(|kind| *kind != RawKind::Mark)
        else {
            return false;
        };
        // A record whose hook was interrupted by a handler comes after the handler's.
        self.last_ns = clock.ns(record.time).max(self.last_ns);
        let sized = !matches!(
            kind,
            RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized | RawKind::ReallocBegin
        );
        self.buffer.push(RawEvent {
            time_ns: self.last_ns,
            address: record.address,
            size: if sized { record.size } else { 0 },
            kind,
            align_log2: record.align_log2.min(47),
        });
        self.lively = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heaplab_ring::Kind;
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
        ];
        let clock = Calibration::measure(Clock::Monotonic);
        let mut stream = Stream::new(1);
        for (kind, expected) in pairs {
            let record = RecordView {
                time: 0,
                address: 64,
                size: 3,
                kind: kind as u8,
                align_log2: 0,
            };
            assert!(stream.push(record, &clock));
            assert_eq!(stream.buffer.last().map(|event| event.kind), Some(expected));
        }
        for kind in [0, 15, 255] {
            let record = RecordView {
                time: 0,
                address: 0,
                size: 0,
                kind,
                align_log2: 0,
            };
            assert!(!stream.push(record, &clock));
        }
    }
}
