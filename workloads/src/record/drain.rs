//! The drainer's loop: looks over the chunks, moves records out in each thread's order, gives
//! empty chunks back, notices threads and programs that are gone.
//!
//! `threads` and `tree` know who takes part, `buffers` what was read and is not yet written.

mod buffers;
mod threads;
mod tree;

use super::RecordError;
use super::chunks::{self, Got, Pinned, Reading};
use super::clock::Calibration;
use super::guard::Guard;
use super::processes::{Processes, Said};
use super::sink::Sink;
use super::stacks::StackNumbers;
use super::stream::{Message, Stream};
use super::summary::DrainSummary;
use crate::trace::TraceError;
use heaplab_ring::{Pool, SlotState};

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Sleep between passes while there is room: every waking takes time from a program on the same core, and what a program
/// writes in this time stays in a core's second cache.
const SLEEP: Duration = Duration::from_millis(1);
/// A pass that found more than one chunk in so many to give back does not sleep: the program is about to run out of them.
const BUSY_SHARE: u32 = 8;
/// Threads that wait for a chunk are woken in the middle of a pass when so many have come free: fewer cost a switch of
/// threads each, more and they would stand still while the drainer works.
const WAKE_CHUNKS: u32 = 16;
/// How often threads that said they end are looked for, and all where no chunk is free.
const ENDING_CHECK: Duration = Duration::from_millis(20);
/// How often all silent threads are looked for, and buffers written however small.
const FULL_CHECK: Duration = Duration::from_millis(250);
/// How often the system is searched for processes of the session that nobody met, after the first one ended.
const SEARCH: Duration = Duration::from_millis(100);

pub struct Drainer<'a, S: Sink> {
    pool: Pool<'a>,
    clock: Calibration,
    nonce: u64,
    sink: Guard<'a, S>,
    threads: HashMap<u32, Stream>,
    /// The thread of a process that now has this kernel id; an earlier one with the same id is dead.
    by_tid: HashMap<(u32, u32), u32>,
    pinned: Vec<Pinned>,
    buffered: usize,
    /// Chunks given back in the last pass, and those of them after which threads were woken.
    recycled: u32,
    woken: u32,
    /// Chunks of a pass: (thread, distance to the one that is next of it, index).
    order: Vec<(u32, i32, u32)>,
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
            sink: Guard::new(sink),
            threads: HashMap::new(),
            by_tid: HashMap::new(),
            pinned: Vec::new(),
            buffered: 0,
            recycled: 0,
            woken: 0,
            order: Vec::new(),
            stacks: StackNumbers::default(),
            processes: Processes::new(nonce),
            switches: (0, 0),
            got: Got::default(),
            summary: DrainSummary::default(),
        }
    }

    /// Until `first_alive` says that the program has ended, and `others`, told which processes of the session go on
    /// without it, that they are not waited for, or there are none. A sink that fails ends the recording, not the loop: what
    /// it does not take is counted to the end.
    pub fn run(
        mut self,
        mut first_alive: impl FnMut() -> bool,
        mut others: impl FnMut(&[u32]) -> bool,
    ) -> Result<DrainSummary, RecordError> {
        let (mut ending_check, mut full_check) = (Instant::now(), Instant::now());
        let mut search = None::<Instant>;
        // Those that go on are not waited for. `others` says so once, and the pass after it may still find records.
        let mut left_behind = false;
        loop {
            // Asked before the pass: what a dead program committed is then all to be seen.
            let mut alive = first_alive();
            if !alive && !left_behind && !self.pool.is_first_only() {
                alive = match search {
                    Some(last) if last.elapsed() < SEARCH => true,
                    _ => {
                        search = Some(Instant::now());
                        let left = self.left();
                        // Nothing more is recorded of them once the file takes no more.
                        let wait = !left.is_empty() && !self.sink.has_failed() && others(&left);
                        if !wait {
                            self.summary.left_running = left.len() as u32;
                            left_behind = !left.is_empty();
                        }
                        wait
                    }
                };
            }
            self.pool.beat();
            self.mark_switches()?;
            let full = full_check.elapsed() >= FULL_CHECK;
            let progress = self.pass(!alive, full)?;
            if self.sink.has_failed() && !self.pool.is_stopped() {
                // The program goes on without being recorded; what its threads still write until they notice is counted.
                self.pool.stop();
            }
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

    /// Looks at every chunk once. With `ended` the program is gone: all its threads are dead. Chunks in use are read only
    /// with `in_use`: reading them takes their cache lines away from the thread that writes.
    /// `true` when something was read.
    fn pass(&mut self, ended: bool, in_use: bool) -> Result<bool, TraceError> {
        let mut progress = false;
        // Chunks that waiting does not bring: in use, or waiting themselves.
        let mut held = self.pinned.len() as u32;
        (self.recycled, self.woken) = (0, 0);
        let mut order = std::mem::take(&mut self.order);
        self.sort_chunks(&mut order);
        for &(_, _, index) in &order {
            // Read again: the thread may have gone on, or have given back a chunk that it could not copy to.
            let slot = self.pool.slot(index);
            if slot.state == SlotState::Free {
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
                continue;
            }
            let over = dead || slot.state != SlotState::Active;
            held += u32::from(!over);
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
            self.rename(slot.thread, &threads::name_of(&name))?;
            self.take_got()?;
            self.flush_if_full(slot.thread)?;
            if self.recycled - self.woken >= WAKE_CHUNKS.min(self.pool.chunk_count() / 4) {
                self.woken = self.recycled;
                self.pool.wake_waiters();
            }
        }
        self.order = order;
        let recycled = self.fill_holes(ended) || self.recycled > 0;
        self.take_got()?;
        if recycled {
            self.pool.wake_waiters();
        }
        // One that was free when the chunks were looked over may since have been filled, and be the next to come back.
        let all_held = held == self.pool.chunk_count() && !self.pool.has_free();
        self.pool.set_exhausted(!progress && all_held);
        Ok(progress || recycled)
    }

    /// The chunks that a pass has to look at. Those of a thread in the order in which it filled them: free ones are taken in
    /// the opposite order of that in which they were given back, so that in the order of their places a pass would find
    /// one that is next, and all others too early.
    fn sort_chunks(&self, order: &mut Vec<(u32, i32, u32)>) {
        order.clear();
        for index in 0..self.pool.high_water() {
            let slot = self.pool.slot(index);
            if slot.state != SlotState::Free && !self.is_pinned(index) {
                let stream = self.threads.get(&slot.thread);
                let next = stream.map_or(0, |stream| stream.next_sequence);
                // Not the number itself, which may wrap.
                let distance = slot.sequence.wrapping_sub(next) as i32;
                order.push((slot.thread, distance, index));
            }
        }
        order.sort_unstable();
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
        match self.sink.failure() {
            None => Ok(summary),
            Some((source, stored, missed)) => Err(RecordError::Cut {
                source,
                stored,
                lost: missed + summary.lost_events,
            }),
        }
    }
}
