//! The drainer's loop: looks over the chunks, moves records out in each thread's order, gives
//! empty chunks back, notices threads and programs that are gone.

use super::RecordError;
use super::clock::Calibration;
use super::sink::Sink;
use super::stream::{FLUSH_EVENTS, Stream};
use super::target::Target;
use crate::trace::TraceError;
use heaplab_ring::{Pool, RECORDS_PER_CHUNK, SlotInfo, SlotState};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Sleep after a pass that found nothing; doubles up to the longest.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);
const LONGEST_SLEEP: Duration = Duration::from_millis(5);
/// How often threads that said they end are looked for.
const ENDING_CHECK: Duration = Duration::from_millis(20);
/// How often all silent threads are looked for, and buffers written however small.
const FULL_CHECK: Duration = Duration::from_millis(250);
/// Events held in memory over all threads (32 bytes each) before all are written.
const MOST_BUFFERED: usize = 1 << 20;

/// What a drained recording consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainSummary {
    /// Events written.
    pub events: u64,
    /// Threads that had events.
    pub threads: u32,
    /// Events that were not recorded: dropped in lossy mode, or after recording was stopped.
    pub lost_events: u64,
    /// Slots reserved and never committed (the program died or jumped out in between), and records
    /// that made no sense.
    pub torn_records: u64,
    /// How often a thread had to wait for the drainer.
    pub waits: u64,
    /// Processes seen that were not recorded (forks and what they executed).
    pub children_not_recorded: u64,
    /// Images of the process: 1, more when it replaced itself by exec, 0 when no recorder attached.
    pub images: u32,
    /// Errno of a recorder that found the session and could not record, 0 for none.
    pub attach_errno: u32,
    /// From the session's start to the end, nanoseconds.
    pub duration_ns: u64,
}

impl DrainSummary {
    /// Why nothing at all was recorded, as a sentence for the user; `None` when something was.
    pub fn why_nothing(&self) -> Option<String> {
        if self.events > 0 {
            return None;
        }
        Some(if self.attach_errno != 0 {
            format!(
                "nothing was recorded: the recorder could not map its memory in the program: {}; try a \
                 smaller pool",
                std::io::Error::from_raw_os_error(self.attach_errno as i32)
            )
        } else if self.images == 0 {
            "nothing was recorded: the program did not load the recorder (a static or setuid program, \
             or one that clears LD_PRELOAD)"
                .to_owned()
        } else if self.lost_events > 0 {
            "nothing was recorded: the recording was stopped before the first event".to_owned()
        } else {
            "nothing was recorded: the program allocated nothing".to_owned()
        })
    }
}

/// Slots of a closed chunk that were empty when it was read: a hook interrupted by a handler that
/// went on to another chunk. The chunk stays until they are filled or the thread is gone.
#[derive(Debug)]
struct Pinned {
    index: u32,
    thread: u32,
    holes: Vec<usize>,
}

pub struct Drainer<'a, S: Sink> {
    pool: Pool<'a>,
    clock: Calibration,
    nonce: u64,
    sink: &'a mut S,
    threads: HashMap<u32, Stream>,
    /// The thread that now has this kernel id; an earlier one with the same id is dead.
    by_tid: HashMap<u32, u32>,
    /// Records already read of each chunk.
    positions: Vec<usize>,
    pinned: Vec<Pinned>,
    buffered: usize,
    target: Option<Target>,
    image: u32,
    summary: DrainSummary,
}

impl<'a, S: Sink> Drainer<'a, S> {
    pub fn new(pool: Pool<'a>, clock: Calibration, nonce: u64, sink: &'a mut S) -> Self {
        Self {
            pool,
            clock,
            nonce,
            sink,
            threads: HashMap::new(),
            by_tid: HashMap::new(),
            positions: vec![0; pool.chunk_count() as usize],
            pinned: Vec::new(),
            buffered: 0,
            target: None,
            image: 0,
            summary: DrainSummary::default(),
        }
    }

    pub fn run(
        mut self,
        mut program_alive: impl FnMut() -> bool,
    ) -> Result<DrainSummary, RecordError> {
        let mut sleep = SHORTEST_SLEEP;
        let (mut ending_check, mut full_check) = (Instant::now(), Instant::now());
        loop {
            // Asked before the pass: what a dead program committed is then all to be seen.
            let alive = program_alive();
            self.pool.beat();
            let progress = self.pass(!alive)?;
            if !alive && !progress {
                break;
            }
            if full_check.elapsed() >= FULL_CHECK {
                self.look_for_threads(true)?;
                self.flush_all()?;
                full_check = Instant::now();
            } else if ending_check.elapsed() >= ENDING_CHECK {
                self.look_for_threads(false)?;
                ending_check = Instant::now();
            }
            if progress {
                sleep = SHORTEST_SLEEP;
            } else {
                std::thread::sleep(sleep);
                sleep = (sleep * 2).min(LONGEST_SLEEP);
            }
        }
        self.finish()
    }

    /// Looks at every chunk once. With `ended` the program is gone: all its threads are dead.
    /// `true` when something was read.
    fn pass(&mut self, ended: bool) -> Result<bool, TraceError> {
        self.notice_image()?;
        let (mut progress, mut recycled, mut closed) = (false, false, false);
        for index in 0..self.pool.high_water() {
            let slot = self.pool.slot(index);
            if slot.state == SlotState::Free || self.is_pinned(index) {
                continue;
            }
            self.meet(&slot)?;
            let Some(stream) = self.threads.get_mut(&slot.thread) else {
                continue;
            };
            if slot.sequence != stream.next_sequence {
                // An earlier chunk of this thread comes first, in this pass or the next.
                closed = true;
                continue;
            }
            let dead = ended || stream.dead || slot.image < self.image;
            let over = dead || slot.state != SlotState::Active;
            closed |= over;
            let mut holes = Vec::new();
            let earlier = self
                .pinned
                .iter_mut()
                .filter(|pinned| pinned.thread == slot.thread)
                .collect();
            let read = read_chunk(
                self.pool,
                index,
                &slot,
                &mut self.positions[index as usize],
                over,
                &mut holes,
                earlier,
                stream,
                &self.clock,
                &mut self.summary.torn_records,
            );
            progress |= read > 0 || over;
            self.buffered += read;
            self.summary.events += read as u64;
            if over {
                stream.next_sequence = stream.next_sequence.wrapping_add(1);
                stream.ending |= slot.state == SlotState::ClosedAtEnd;
                if dead || holes.is_empty() {
                    self.summary.torn_records += holes.len() as u64;
                    self.pool.recycle(index);
                    recycled = true;
                } else {
                    self.pinned.push(Pinned {
                        index,
                        thread: slot.thread,
                        holes,
                    });
                }
                self.positions[index as usize] = 0;
            }
            let name = slot.name;
            self.rename(slot.thread, &name_of(&name))?;
            self.flush_if_full(slot.thread)?;
        }
        recycled |= self.fill_holes(ended);
        if recycled {
            self.pool.wake_waiters();
        }
        self.pool
            .set_exhausted(!progress && !closed && !self.pool.has_free());
        Ok(progress || recycled)
    }

    /// Writes that the process replaced itself, once for each time.
    fn notice_image(&mut self) -> Result<(), TraceError> {
        let image = self.pool.image();
        if image != self.image {
            if self.image != 0 {
                self.sink.mark(self.clock.now_ns(), "exec")?;
            }
            self.image = image;
            self.target = Some(Target::new(self.pool.owner_pid(), self.nonce));
        }
        Ok(())
    }

    /// Makes a thread's acquaintance at its first chunk.
    fn meet(&mut self, slot: &SlotInfo) -> Result<(), TraceError> {
        if self.threads.contains_key(&slot.thread) {
            return Ok(());
        }
        let now = self.clock.now_ns();
        self.sink.thread_start(slot.thread, slot.os_tid, now)?;
        self.threads.insert(slot.thread, Stream::new(slot.os_tid));
        self.summary.threads += 1;
        if let Some(earlier) = self.by_tid.insert(slot.os_tid, slot.thread)
            && let Some(earlier) = self.threads.get_mut(&earlier)
        {
            earlier.dead = true;
        }
        Ok(())
    }

    fn is_pinned(&self, index: u32) -> bool {
        self.pinned.iter().any(|pinned| pinned.index == index)
    }

    /// Reads slots that were empty when their chunk was closed; `true` when a chunk came free.
    fn fill_holes(&mut self, ended: bool) -> bool {
        let Self {
            pool,
            threads,
            pinned,
            clock,
            summary,
            buffered,
            ..
        } = self;
        let before = pinned.len();
        pinned.retain_mut(|chunk| {
            let Some(stream) = threads.get_mut(&chunk.thread) else {
                return false;
            };
            let filled = fill(*pool, chunk, stream, clock, &mut summary.torn_records);
            *buffered += filled;
            summary.events += filled as u64;
            let done = chunk.holes.is_empty() || ended || stream.dead;
            if done {
                summary.torn_records += chunk.holes.len() as u64;
                pool.recycle(chunk.index);
            }
            !done
        });
        pinned.len() != before
    }

    /// Looks which threads are gone: those that said they end, or with `all` every silent one.
    fn look_for_threads(&mut self, all: bool) -> Result<(), TraceError> {
        let Some(target) = &self.target else {
            return Ok(());
        };
        let mut gone = Vec::new();
        let mut names = Vec::new();
        for (&thread, stream) in &mut self.threads {
            if stream.ended {
                continue;
            }
            if stream.dead {
                gone.push(thread);
            } else if stream.ending || (all && !stream.lively) {
                stream.dead = target.is_gone(stream.os_tid);
            } else if all && let Some(name) = target.name(stream.os_tid) {
                names.push((thread, name));
            }
            if all {
                stream.lively = false;
            }
        }
        // Found dead by an earlier look: the passes since then have read what was left.
        for thread in gone {
            self.end_thread(thread)?;
        }
        for (thread, name) in names {
            self.rename(thread, &name)?;
        }
        Ok(())
    }

    fn end_thread(&mut self, thread: u32) -> Result<(), TraceError> {
        self.flush(thread)?;
        if let Some(stream) = self.threads.get_mut(&thread)
            && !stream.ended
        {
            stream.ended = true;
            stream.buffer = Vec::new();
            self.sink.thread_end(thread, stream.last_ns)?;
        }
        Ok(())
    }

    fn rename(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        if let Some(stream) = self.threads.get_mut(&thread)
            && !name.is_empty()
            && stream.name != name
        {
            name.clone_into(&mut stream.name);
            self.sink.thread_name(thread, name)?;
        }
        Ok(())
    }

    fn flush_if_full(&mut self, thread: u32) -> Result<(), TraceError> {
        if self.buffered >= MOST_BUFFERED {
            return self.flush_all();
        }
        let full = |stream: &Stream| stream.buffer.len() >= FLUSH_EVENTS;
        if self.threads.get(&thread).is_some_and(full) {
            self.flush(thread)?;
        }
        Ok(())
    }

    fn flush(&mut self, thread: u32) -> Result<(), TraceError> {
        if let Some(stream) = self.threads.get_mut(&thread)
            && !stream.buffer.is_empty()
        {
            self.sink.events(thread, &stream.buffer)?;
            self.buffered -= stream.buffer.len();
            stream.buffer.clear();
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), TraceError> {
        let mut threads: Vec<u32> = self
            .threads
            .iter()
            .filter(|(_, stream)| !stream.buffer.is_empty())
            .map(|(&thread, _)| thread)
            .collect();
        threads.sort_unstable();
        for thread in threads {
            self.flush(thread)?;
            // Many threads with large buffers of their own would be held for nothing.
            if let Some(stream) = self.threads.get_mut(&thread) {
                stream.buffer.shrink_to(FLUSH_EVENTS / 16);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<DrainSummary, RecordError> {
        self.flush_all()?;
        let mut threads: Vec<u32> = self.threads.keys().copied().collect();
        threads.sort_unstable();
        for thread in threads {
            self.end_thread(thread)?;
        }
        let summary = DrainSummary {
            lost_events: self.pool.lost(),
            waits: self.pool.waits(),
            children_not_recorded: self.pool.children(),
            images: self.pool.image(),
            attach_errno: self.pool.attach_errno(),
            duration_ns: self.clock.now_ns(),
            ..self.summary
        };
        for note in notes(&summary) {
            self.sink.note(&note)?;
        }
        Ok(summary)
    }
}

/// Reads what is committed of a chunk from `position` on. A chunk that is `over` is read to its
/// end, past empty slots, which are noted as `holes`; one in use up to the first empty slot.
/// `earlier` are this thread's chunks that wait for slots to be filled.
#[allow(clippy::too_many_arguments)]
fn read_chunk(
    pool: Pool<'_>,
    index: u32,
    slot: &SlotInfo,
    position: &mut usize,
    over: bool,
    holes: &mut Vec<usize>,
    mut earlier: Vec<&mut Pinned>,
    stream: &mut Stream,
    clock: &Calibration,
    torn: &mut u64,
) -> usize {
    let closed = slot.state != SlotState::Active;
    let end = if closed {
        slot.length
    } else {
        RECORDS_PER_CHUNK
    };
    let mut read = 0;
    let mut trailing = 0;
    while *position < end {
        match pool.read(index, *position) {
            Some(record) => {
                trailing = 0;
                // What the thread committed before this record is to be seen now, and comes first:
                // else the free of a block could stand before its allocation.
                for chunk in &mut earlier {
                    read += fill(pool, chunk, stream, clock, torn);
                }
                if stream.push(record, clock) {
                    read += 1;
                } else {
                    *torn += 1;
                }
            }
            None if over => {
                trailing += 1;
                holes.push(*position);
            }
            None => break,
        }
        *position += 1;
    }
    if !closed {
        // The unused end of a dead thread's chunk is no hole.
        holes.truncate(holes.len() - trailing);
    }
    read
}

/// Reads the slots of a pinned chunk that were filled since; the number of events.
fn fill(
    pool: Pool<'_>,
    chunk: &mut Pinned,
    stream: &mut Stream,
    clock: &Calibration,
    torn: &mut u64,
) -> usize {
    let mut filled = 0;
    chunk.holes.retain(|&position| {
        let Some(record) = pool.read(chunk.index, position) else {
            return true;
        };
        if stream.push(record, clock) {
            filled += 1;
        } else {
            *torn += 1;
        }
        false
    });
    filled
}

fn name_of(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// What the reader of the trace must know.
fn notes(summary: &DrainSummary) -> Vec<String> {
    let mut notes: Vec<String> = summary.why_nothing().into_iter().collect();
    if notes.is_empty() && summary.attach_errno != 0 {
        let error = std::io::Error::from_raw_os_error(summary.attach_errno as i32);
        notes.push(format!(
            "a recorder could not map the session: {error}; what its image of the program did is missing"
        ));
    }
    if summary.images > 1 {
        notes.push(format!(
            "the program replaced itself by exec {} times; blocks of an earlier image are never freed \
             in the trace",
            summary.images - 1
        ));
    }
    if summary.lost_events > 0 {
        notes.push(format!("{} events were lost", summary.lost_events));
    }
    if summary.torn_records > 0 {
        notes.push(format!(
            "{} records were begun and never finished",
            summary.torn_records
        ));
    }
    if summary.children_not_recorded > 0 {
        notes.push(format!(
            "{} child processes were not recorded: only the first process is",
            summary.children_not_recorded
        ));
    }
    notes
}
