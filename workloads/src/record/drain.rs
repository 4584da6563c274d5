//! The drainer's loop: looks over the chunks, moves records out in each thread's order, gives
//! empty chunks back, notices threads and programs that are gone.

use super::RecordError;
use super::chunks::{self, Got, Pinned, Reading};
use super::clock::Calibration;
use super::processes::{Processes, Said};
use super::sink::Sink;
use super::stacks::StackNumbers;
use super::stream::{FLUSH_EVENTS, Message, Stream};
use super::summary::DrainSummary;
use super::target;
use crate::trace::packed::Packed;
use crate::trace::{Start, TraceError};
use heaplab_ring::{Pool, SlotInfo, SlotState};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Sleep between passes while there is room: every waking takes time from a program on the same core, and what a program
/// writes in this time stays in a core's second cache.
const SLEEP: Duration = Duration::from_millis(1);
/// A pass that found more than one chunk in so many to give back does not sleep: the program is about to run out of them.
const BUSY_SHARE: u32 = 8;
/// How often threads that said they end are looked for, and all where no chunk is free.
const ENDING_CHECK: Duration = Duration::from_millis(20);
/// How often all silent threads are looked for, and buffers written however small.
const FULL_CHECK: Duration = Duration::from_millis(250);
/// How often the system is searched for processes of the session that nobody met, after the first one ended.
const SEARCH: Duration = Duration::from_millis(100);
/// Events held in memory over all threads (some 6 bytes each) before all are written.
const MOST_BUFFERED: usize = 1 << 20;

pub struct Drainer<'a, S: Sink> {
    pool: Pool<'a>,
    clock: Calibration,
    nonce: u64,
    sink: &'a mut S,
    threads: HashMap<u32, Stream>,
    /// The thread of a process that now has this kernel id; an earlier one with the same id is dead.
    by_tid: HashMap<(u32, u32), u32>,
    pinned: Vec<Pinned>,
    buffered: usize,
    /// Chunks given back in the last pass.
    recycled: u32,
    stacks: StackNumbers,
    processes: Processes,
    /// Pauses and resumptions from outside the program that have been marked.
    switches: (u32, u32),
    got: Got,
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
            pinned: Vec::new(),
            buffered: 0,
            recycled: 0,
            stacks: StackNumbers::default(),
            processes: Processes::new(nonce),
            switches: (0, 0),
            got: Got::default(),
            summary: DrainSummary::default(),
        }
    }

    /// Until `first_alive` says that the program has ended, and `others`, told how many processes of the session go on
    /// without it, that they are not waited for, or there are none.
    pub fn run(
        mut self,
        mut first_alive: impl FnMut() -> bool,
        mut others: impl FnMut(usize) -> bool,
    ) -> Result<DrainSummary, RecordError> {
        let (mut ending_check, mut full_check) = (Instant::now(), Instant::now());
        let mut search = None::<Instant>;
        loop {
            // Asked before the pass: what a dead program committed is then all to be seen.
            let mut alive = first_alive();
            if !alive && !self.pool.is_first_only() {
                alive = match search {
                    Some(last) if last.elapsed() < SEARCH => true,
                    _ => {
                        search = Some(Instant::now());
                        let left = self.left();
                        let wait = left > 0 && others(left);
                        if !wait {
                            self.summary.left_running = left as u32;
                        }
                        wait
                    }
                };
            }
            self.pool.beat();
            self.mark_switches()?;
            let full = full_check.elapsed() >= FULL_CHECK;
            let progress = self.pass(!alive, full)?;
            if !alive && !progress {
                break;
            }
            if full {
                self.look_for_threads(true)?;
                self.tell_processes(false)?;
                self.flush_all()?;
                full_check = Instant::now();
            } else if ending_check.elapsed() >= ENDING_CHECK {
                // Without a free chunk the dead must be found now: one of theirs may be what a thread waits for.
                self.look_for_threads(!self.pool.has_free())?;
                ending_check = Instant::now();
            }
            if self.recycled * BUSY_SHARE <= self.pool.chunk_count() {
                std::thread::sleep(SLEEP);
            }
        }
        self.finish()
    }

    /// Marks where whoever runs the recording had events left out, and where no more.
    fn mark_switches(&mut self) -> Result<(), TraceError> {
        let (pauses, resumes) = self.pool.switches();
        while self.switches != (pauses, resumes) {
            let what = if self.switches.0 != pauses {
                self.switches.0 = self.switches.0.wrapping_add(1);
                "recording paused"
            } else {
                self.switches.1 = self.switches.1.wrapping_add(1);
                "recording resumed"
            };
            self.sink.mark(None, self.clock.now_ns(), what)?;
        }
        Ok(())
    }

    /// Processes of the session that live, met or not.
    fn left(&mut self) -> usize {
        let members = target::members(self.nonce).len();
        if members == 0 && self.processes.any_alive() {
            // Its environment has been overwritten.
            return 1;
        }
        members
    }

    /// Looks at every chunk once. With `ended` the program is gone: all its threads are dead. Chunks in use are read only
    /// with `in_use`: reading them takes their cache lines away from the thread that writes.
    /// `true` when something was read.
    fn pass(&mut self, ended: bool, in_use: bool) -> Result<bool, TraceError> {
        let (mut progress, mut closed) = (false, false);
        self.recycled = 0;
        for index in 0..self.pool.high_water() {
            let slot = self.pool.slot(index);
            if slot.state == SlotState::Free || self.is_pinned(index) {
                continue;
            }
            self.meet(&slot)?;
            let Some(stream) = self.threads.get_mut(&slot.thread) else {
                continue;
            };
            let process_dead = self.processes.get(slot.process).is_none_or(|p| p.dead);
            let dead = ended || stream.dead || process_dead;
            let behind = slot.sequence.wrapping_sub(stream.next_sequence) as i32;
            if slot.state == SlotState::Filling || behind < 0 {
                // Of a copy and its original one is dropped, which a living thread does itself.
                if dead {
                    self.pool.recycle(index);
                    self.recycled += 1;
                }
                continue;
            }
            if behind > 0 {
                // An earlier chunk of this thread comes first, in this pass or the next.
                closed = true;
                continue;
            }
            let over = dead || slot.state != SlotState::Active;
            closed |= over;
            if !over && !in_use {
                continue;
            }
            let before = (self.got.events, self.got.others);
            let of = Reading {
                pool: self.pool,
                index,
                slot: &slot,
                over,
                clock: &self.clock,
            };
            let holes = chunks::read_chunk(of, &mut self.pinned, stream, &mut self.got);
            progress |= before != (self.got.events, self.got.others) || over;
            if over {
                stream.next_sequence = stream.next_sequence.wrapping_add(1);
                stream.position = 0;
                stream.ending |= slot.state == SlotState::ClosedAtEnd;
                if dead || holes.is_empty() {
                    self.summary.torn_records += holes.len() as u64;
                    self.pool.recycle(index);
                    self.recycled += 1;
                } else {
                    self.pinned.push(Pinned {
                        index,
                        thread: slot.thread,
                        span: self.clock.span(slot.base),
                        holes,
                    });
                }
            }
            let name = slot.name;
            self.rename(slot.thread, &name_of(&name))?;
            self.take_got()?;
            self.flush_if_full(slot.thread)?;
        }
        let recycled = self.fill_holes(ended) || self.recycled > 0;
        self.take_got()?;
        if recycled {
            self.pool.wake_waiters();
        }
        self.pool
            .set_exhausted(!progress && !closed && !self.pool.has_free());
        Ok(progress || recycled)
    }

    /// Counts what was read, and does what messages say.
    fn take_got(&mut self) -> Result<(), TraceError> {
        let got = std::mem::take(&mut self.got);
        self.buffered += got.events;
        self.summary.events += got.events as u64;
        self.summary.torn_records += got.torn;
        for (process, message) in got.messages {
            match message {
                Message::Mark { time_ns, name } => {
                    self.sink.mark(Some(process), time_ns, &name)?;
                }
                Message::Start {
                    time_ns,
                    forked_from,
                    parent_pid,
                    cloned,
                    text,
                } => self.processes.start(
                    process,
                    Said {
                        time_ns,
                        forked_from,
                        parent_pid,
                        cloned,
                        text,
                    },
                ),
                Message::Exec {
                    time_ns,
                    pid,
                    by_parent,
                    file,
                } => self.processes.executes(pid, time_ns, file, by_parent),
                Message::Exit { time_ns } => {
                    if let Some(process) = self.processes.get_mut(process) {
                        process.exit_ns = Some(time_ns);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes who the processes are, as soon as it is known; with `all` also those that never said it. Then the ends of
    /// those that are dead.
    fn tell_processes(&mut self, all: bool) -> Result<(), TraceError> {
        let untold: Vec<u32> = self
            .processes
            .iter_mut()
            .filter(|(_, process)| !process.told)
            .map(|(number, _)| number)
            .collect();
        for number in untold {
            let info = match all {
                true => self.processes.info_at_end(number),
                false => self.processes.info(number),
            };
            let Some(info) = info else { continue };
            if info.start == Start::Exec {
                self.summary.execs += 1;
            }
            self.sink.process_start(&info)?;
            if let Some(process) = self.processes.get_mut(number) {
                process.told = true;
            }
        }
        for (number, process) in self.processes.iter_mut() {
            if process.dead && process.told && !process.ended {
                process.ended = true;
                let end_ns = process.exit_ns.unwrap_or(0).max(process.last_ns);
                self.sink.process_end(number, end_ns)?;
            }
        }
        Ok(())
    }

    /// Makes a thread's acquaintance at its first chunk.
    fn meet(&mut self, slot: &SlotInfo) -> Result<(), TraceError> {
        if self.threads.contains_key(&slot.thread) {
            return Ok(());
        }
        self.processes.meet(slot.process, slot.pid);
        let now = self.clock.now_ns();
        self.sink
            .thread_start(slot.process, slot.thread, slot.os_tid, now)?;
        self.threads
            .insert(slot.thread, Stream::new(slot.process, slot.os_tid));
        self.summary.threads += 1;
        // A later thread with the same id may have been met first; numbers rise with time.
        let id = (slot.process, slot.os_tid);
        let present = self.by_tid.entry(id).or_insert(slot.thread);
        let earlier = slot.thread.min(*present);
        *present = slot.thread.max(*present);
        if earlier != *present
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
            processes,
            summary,
            got,
            ..
        } = self;
        let before = pinned.len();
        pinned.retain_mut(|chunk| {
            let Some(stream) = threads.get_mut(&chunk.thread) else {
                return false;
            };
            chunks::fill(*pool, chunk, stream, got);
            let dead = stream.dead || processes.get(stream.process).is_none_or(|p| p.dead);
            let done = chunk.holes.is_empty() || ended || dead;
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
        let mut gone = Vec::new();
        let mut names = Vec::new();
        if all {
            for (_, process) in self.processes.iter_mut() {
                if !process.dead {
                    process.dead = process.target.is_over();
                }
            }
        }
        for (&thread, stream) in &mut self.threads {
            if stream.ended {
                continue;
            }
            let Some(process) = self.processes.get_mut(stream.process) else {
                continue;
            };
            if stream.dead {
                gone.push(thread);
            } else if process.dead {
                stream.dead = true;
            } else if stream.ending || (all && !stream.lively) {
                stream.dead = process.target.is_gone(stream.os_tid);
            } else if all && let Some(name) = process.target.name(stream.os_tid) {
                names.push((thread, name));
            }
            if all {
                stream.lively = false;
            }
        }
        // Found dead by an earlier look: it is over once the passes since then have read what was left.
        if !gone.is_empty() {
            let held: HashSet<u32> = (0..self.pool.high_water())
                .map(|index| self.pool.slot(index))
                .filter(|slot| slot.state != SlotState::Free)
                .map(|slot| slot.thread)
                .collect();
            for thread in gone.into_iter().filter(|thread| !held.contains(thread)) {
                self.end_thread(thread)?;
            }
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
            stream.events = Packed::default();
            let (process, last_ns) = (stream.process, stream.last_ns);
            self.sink.thread_end(thread, last_ns)?;
            if let Some(process) = self.processes.get_mut(process) {
                process.last_ns = process.last_ns.max(last_ns);
            }
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
        let full = |stream: &Stream| stream.events.len() >= FLUSH_EVENTS;
        if self.threads.get(&thread).is_some_and(full) {
            self.flush(thread)?;
        }
        Ok(())
    }

    fn flush(&mut self, thread: u32) -> Result<(), TraceError> {
        if let Some(stream) = self.threads.get_mut(&thread)
            && !stream.events.is_empty()
        {
            let (process, stacks) = (stream.process, &mut stream.stacks);
            self.stacks.write(self.sink, process, thread, stacks)?;
            self.sink.events(thread, &stream.events)?;
            self.buffered -= stream.events.len();
            stream.events.clear();
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), TraceError> {
        let mut threads: Vec<u32> = self
            .threads
            .iter()
            .filter(|(_, stream)| !stream.events.is_empty())
            .map(|(&thread, _)| thread)
            .collect();
        threads.sort_unstable();
        for thread in threads {
            self.flush(thread)?;
            // Many threads with large buffers of their own would be held for nothing.
            if let Some(stream) = self.threads.get_mut(&thread) {
                stream.events.shrink_to(FLUSH_EVENTS / 16);
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
        for (_, process) in self.processes.iter_mut() {
            process.dead = true;
        }
        self.tell_processes(true)?;
        let summary = DrainSummary {
            lost_events: self.pool.lost(),
            waits: self.pool.waits(),
            left_out: self.pool.refused(),
            processes: self.processes.count() as u32,
            not_recorded: self.processes.not_recorded(),
            attach_errno: self.pool.attach_errno(),
            duration_ns: self.clock.now_ns(),
            ..self.summary
        };
        for note in summary.notes() {
            self.sink.note(&note)?;
        }
        Ok(summary)
    }
}

fn name_of(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
