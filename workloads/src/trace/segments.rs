//! Segments become bytes on other threads, while the writer's own takes the next events: packing and compressing is a third of
//! the work of a copy, and nearly all of it at high levels of zstd.
//!
//! Memory: as many segments as there are threads, and two more. Nothing is shared: a segment goes to a thread and comes back with
//! its bytes, and the writer takes them in the order in which it gave them.

use super::columns::Columns;
use super::container::ChunkKind;
use super::encoder::Encoder;
use super::stacks::encode_event_stacks;
use super::varint;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Threads at most: more are not faster than one that reads and orders the events.
const MOST_THREADS: usize = 8;
/// Threads of the program whose empty columns are kept from segment to segment.
const KEPT_COLUMNS: usize = 64;

/// A segment that takes events.
#[derive(Default)]
pub(super) struct Segment {
    /// Number of its first event.
    pub first_event: u64,
    /// Tick of its first event.
    pub first_tick: u64,
    /// Largest tick of the trace up to its end.
    pub last_tick: u64,
    /// Live bytes after its first event.
    pub live_bytes: u64,
    /// Its events.
    pub events: usize,
    /// Thread and count.
    pub runs: Vec<(u32, u32)>,
    /// By thread.
    pub columns: BTreeMap<u32, Columns>,
    /// Number of the event in the segment, stack.
    pub stacks: Vec<(u32, u32)>,
}

impl Segment {
    /// Its chunks, one behind the other. The segment is empty afterwards, and keeps some memory for another one.
    fn encode(&mut self, encoder: &mut Encoder) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut meta = self.first_event.to_le_bytes().to_vec();
        meta.extend_from_slice(&(self.events as u32).to_le_bytes());
        let busy = self.columns.values().filter(|one| !one.is_empty()).count();
        meta.extend_from_slice(&(busy as u32).to_le_bytes());
        let mut body = Vec::new();
        for &(thread, count) in &self.runs {
            varint::put(&mut body, u64::from(thread));
            varint::put(&mut body, u64::from(count));
        }
        encoder.put(ChunkKind::SEGMENT, &meta, &body, &mut bytes)?;
        for (&thread, columns) in &mut self.columns {
            if !columns.is_empty() {
                let (meta, body) = columns.take(thread);
                encoder.put(ChunkKind::EVENTS, &meta, &body, &mut bytes)?;
            }
        }
        if !self.stacks.is_empty() {
            let (meta, body) = encode_event_stacks(self.first_event, &self.stacks);
            encoder.put(ChunkKind::EVENT_STACKS, &meta, &body, &mut bytes)?;
        }
        if self.columns.len() > KEPT_COLUMNS {
            self.columns.clear();
        }
        self.stacks.clear();
        self.runs.clear();
        Ok(bytes)
    }
}

/// A segment with its bytes.
type Encoded = (Segment, io::Result<Vec<u8>>);

struct Worker {
    segments: SyncSender<Segment>,
    encoded: Receiver<Encoded>,
}

impl Worker {
    fn start(level: i32) -> io::Result<Self> {
        let (segments, to_do) = sync_channel::<Segment>(2);
        let (done, encoded) = sync_channel(2);
        let work = move || {
            let mut encoder = Encoder::new(level);
            while let Ok(mut segment) = to_do.recv() {
                let bytes = segment.encode(&mut encoder);
                // The writer has gone: nobody wants it any more.
                if done.send((segment, bytes)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("trace-encoder".into())
            .spawn(work)?;
        Ok(Self { segments, encoded })
    }
}

/// The threads, and what they work on.
pub(super) struct Encoders {
    level: i32,
    most: usize,
    workers: Vec<Worker>,
    /// Worker of each segment that was given and not taken, in order.
    waiting: VecDeque<usize>,
    next: usize,
    own: Encoder,
    /// What was encoded without a thread.
    ready: Option<Encoded>,
}

impl Encoders {
    /// No thread starts before the first segment is pushed.
    pub fn new(level: i32) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            level,
            most: (cpus - 1).min(MOST_THREADS),
            workers: Vec::new(),
            waiting: VecDeque::new(),
            next: 0,
            own: Encoder::new(level),
            ready: None,
        }
    }

    /// As many segments are under way as may be: one must be taken before the next is pushed.
    pub fn is_full(&self) -> bool {
        // A thread has at most two, which its channels hold: nobody ever waits to give.
        self.ready.is_some() || self.waiting.len() > self.workers.len()
    }

    /// Gives a segment away. The last one of a short trace is encoded at once, without a thread.
    pub fn push(&mut self, mut segment: Segment, last: bool) {
        debug_assert!(
            !self.is_full(),
            "segments are taken before there are too many"
        );
        let alone = last && self.waiting.is_empty();
        if self.workers.len() < self.most && !alone {
            // Where no thread can be had, those that there are do the work, or this one.
            self.workers.extend(Worker::start(self.level).ok());
        }
        if alone || self.workers.is_empty() {
            let bytes = segment.encode(&mut self.own);
            self.ready = Some((segment, bytes));
            return;
        }
        let worker = self.next % self.workers.len();
        self.next = worker + 1;
        match self.workers[worker].segments.send(segment) {
            Ok(()) => self.waiting.push_back(worker),
            Err(back) => {
                // The thread is gone, as after a panic in it.
                let mut segment = back.0;
                let bytes = segment.encode(&mut self.own);
                self.ready = Some((segment, bytes));
            }
        }
    }

    /// The segment that was pushed first of those that are under way.
    pub fn take(&mut self) -> Option<Encoded> {
        match self.waiting.pop_front() {
            Some(worker) => Some(self.workers[worker].encoded.recv().unwrap_or_else(|_| {
                let gone = io::Error::other("a thread that packs events has ended");
                (Segment::default(), Err(gone))
            })),
            None => self.ready.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{EventKind, TraceEvent};
    use super::*;

    fn segment(number: u64) -> Segment {
        let mut segment = Segment {
            first_event: number,
            ..Segment::default()
        };
        for index in 0..1 + number * 397 % 5000 {
            let (thread, block) = ((index % 3) as u32, index as u32);
            let size = index.wrapping_mul(number + 1) % 9000;
            let event = TraceEvent::new(thread, index / 7, EventKind::Malloc, block, size);
            segment
                .columns
                .entry(event.thread)
                .or_default()
                .push(&event, false);
            segment.runs.push((event.thread, 1));
            segment.events += 1;
        }
        segment
    }

    fn through(most: usize, count: u64) -> Vec<Vec<u8>> {
        let mut encoders = Encoders::new(3);
        encoders.most = most;
        let mut found = Vec::new();
        let mut taken = |(segment, bytes): Encoded| {
            assert_eq!(segment.first_event, found.len() as u64, "in their order");
            assert!(segment.runs.is_empty() && segment.columns.values().all(Columns::is_empty));
            found.push(bytes.unwrap());
        };
        for number in 0..count {
            while encoders.is_full() {
                taken(encoders.take().unwrap());
            }
            encoders.push(segment(number), number + 1 == count);
            assert!(encoders.waiting.len() <= encoders.workers.len() + 1);
        }
        while let Some(one) = encoders.take() {
            taken(one);
        }
        found
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bytes_in_the_same_order() {
        let alone = through(0, 60);
        assert_eq!(alone.len(), 60);
        for most in [1, 2, 5] {
            assert_eq!(through(most, 60), alone, "{most} threads");
        }
    }

    #[test]
    fn a_writer_that_gives_up_leaves_no_thread_that_waits_for_it() {
        for given in 1..4 {
            let mut encoders = Encoders::new(3);
            encoders.most = 2;
            (0..given).for_each(|number| encoders.push(segment(number), false));
            let senders: Vec<_> = encoders
                .workers
                .iter()
                .map(|one| one.segments.clone())
                .collect();
            drop(encoders);
            for sender in senders {
                // It ends by itself: after that nothing can be sent.
                while sender.send(segment(1)).is_ok() {
                    std::thread::yield_now();
                }
            }
        }
    }
}
