//! A trace as a source of the compiler's events.
//!
//! Threads get dense numbers by their first event; the thread that acted just before starts them; one that ended while
//! others went on ends at that moment, with what the allocator does then; one that was there to the end stays. Times are
//! dropped but for gaps of 1 ms and more in which no thread did anything: allocators purge by the clock, so these stay,
//! shortened in proportion to a budget. A timed source tells every event's time instead.

use super::alone::Alone;
use super::event::{Effect, EventKind, TICK_NS};
use super::reach;
use super::reader::Trace;
use super::summary::IDLE_TICKS;
use crate::compile::{Action, Event, Source};
use crate::error::WorkloadError;
use heaplab_script::OpKind;

/// The shortest gap that is kept after shortening, ns: below it a sleep is mostly the scheduler's.
const MIN_IDLE_NS: u64 = 100_000;
const UNSEEN: u32 = u32::MAX;

/// See [`Source`].
pub struct TraceSource<'a> {
    trace: &'a Trace,
    /// Only this process.
    process: Option<u32>,
    events: u64,
    idle_budget_ns: u64,
    timed: bool,
    dropped_ns: u64,
    staying: Vec<u32>,
}

impl<'a> TraceSource<'a> {
    /// The first `scale` (0 to 1) of the trace's events, with at most `idle_budget_ns` of idle time.
    pub fn new(trace: &'a Trace, scale: f64, idle_budget_ns: u64) -> Result<Self, WorkloadError> {
        if !(scale > 0.0 && scale <= 1.0) {
            return Err(WorkloadError::Parameters(format!(
                "scale {scale} is not possible for a recorded trace: give a number above 0, at most 1"
            )));
        }
        let all = trace.summary().events;
        let events = if scale == 1.0 {
            all
        } else {
            ((all as f64 * scale) as u64).max(1)
        };
        Ok(Self {
            trace,
            process: None,
            events,
            idle_budget_ns,
            timed: false,
            dropped_ns: 0,
            staying: Vec::new(),
        })
    }

    /// Only the events of this process, and what its ancestors did before they forked.
    pub fn of_process(mut self, process: Option<u32>) -> Self {
        self.process = process;
        if let Some(about) = process.and_then(|number| self.trace.processes().get(number as usize))
        {
            let share = self.events as f64 / self.trace.summary().events.max(1) as f64;
            if share < 1.0 {
                self.events = ((about.events as f64 * share) as u64).max(1);
            }
        }
        self
    }

    /// Ticks and names of the marks that concern what is told.
    fn marks(&self) -> Vec<&'a (u64, String)> {
        let (trace, process) = (self.trace, self.process);
        let marks = trace.marks().iter().zip(trace.mark_processes());
        marks
            .filter(|(_, of)| process.is_none() || of.is_none() || **of == process)
            .map(|(mark, _)| mark)
            .collect()
    }

    /// Tells every event's time, for a replay at the recorded pace, and no idle events.
    pub fn with_times(self) -> Self {
        Self {
            timed: true,
            ..self
        }
    }

    /// Recorded ends of threads, by time: (tick, number in the trace), the latest first.
    fn ends(&self) -> Vec<(u64, u32)> {
        // Of one process alone threads have other numbers; they end with their last event.
        if self.process.is_some() {
            return Vec::new();
        }
        let table = &self.trace.summary().thread_table;
        let mut ends: Vec<(u64, u32)> = (table.iter().enumerate())
            .filter_map(|(number, info)| Some((info.end_ns? / TICK_NS, number as u32)))
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends
    }
}

impl Source for TraceSource<'_> {
    fn phases(&self) -> Vec<String> {
        let marks = self.marks().into_iter();
        marks.map(|(_, name)| name.clone()).collect()
    }

    fn expected_events(&self) -> u64 {
        self.events
    }

    fn idle_dropped_ns(&self) -> u64 {
        self.dropped_ns
    }

    fn timed(&self) -> bool {
        self.timed
    }

    fn staying(&self) -> Vec<u32> {
        self.staying.clone()
    }

    fn tell<F>(&mut self, mut take: F) -> Result<(), WorkloadError>
    where
        F: FnMut(Event) -> Result<(), WorkloadError>,
    {
        let idle = self.trace.summary().idle_ns;
        let keep = if idle > self.idle_budget_ns {
            self.idle_budget_ns as f64 / idle as f64
        } else {
            1.0
        };
        self.dropped_ns = 0;
        let mut numbers: Vec<u32> = Vec::new();
        let mut threads = 0u32;
        let mut acting = 0u32;
        let mut last_tick = None::<u64>;
        let marks = self.marks();
        let mut mark = 0;
        // A thread whose last event is not told yet cannot end: stamps of ends and events come from different clocks of
        // one thread, and events are merged by what is possible, not by time alone.
        let mut ends = self.ends();
        let mut left: Vec<u64> = (self.trace.summary().thread_table.iter())
            .map(|info| info.events)
            .collect();
        let mut first_tick = None::<u64>;
        let mut latest = 0;
        let mut alone = match self.process {
            Some(process) => Some(Alone::new(self.trace, process)?),
            None => None,
        };
        let mut to_tell = self.events;
        let written = reach::of(self.trace, self.timed)?;
        for (number, event) in (0u64..).zip(self.trace.events()) {
            let mut event = event?;
            if let Some(alone) = &mut alone {
                match alone.take(event) {
                    Some(of_process) => event = of_process,
                    None => continue,
                }
            }
            if to_tell == 0 {
                break;
            }
            to_tell -= 1;
            let index = event.thread as usize;
            if index >= numbers.len() {
                numbers.resize(index + 1, UNSEEN);
            }
            if numbers[index] == UNSEEN {
                numbers[index] = threads;
                if threads > 0 {
                    take(Event {
                        thread: acting,
                        action: Action::Start { thread: threads },
                    })?;
                }
                threads += 1;
            }
            let thread = numbers[index];
            acting = thread;
            if let Some(left) = left.get_mut(index) {
                *left = left.saturating_sub(1);
            }
            while let Some((tick, number)) = ends.last().copied()
                && tick <= event.tick
            {
                ends.pop();
                let number = number as usize;
                let gone = left.get(number).is_some_and(|left| *left == 0) && number != index;
                if let Some(thread) = numbers
                    .get(number)
                    .copied()
                    .filter(|n| *n != UNSEEN && gone)
                    && thread != 0
                {
                    take(Event {
                        thread,
                        action: Action::End,
                    })?;
                }
            }
            if self.timed {
                let first = *first_tick.get_or_insert(event.tick);
                latest = latest.max(event.tick.saturating_sub(first).saturating_mul(TICK_NS));
                take(Event {
                    thread,
                    action: Action::At { ns: latest },
                })?;
            }
            while let Some((tick, _)) = marks.get(mark)
                && *tick <= event.tick
            {
                take(Event {
                    thread,
                    action: Action::Mark { phase: mark as u32 },
                })?;
                mark += 1;
            }
            let last = last_tick.unwrap_or(event.tick);
            let gap = event.tick.saturating_sub(last);
            last_tick = Some(last.max(event.tick));
            if gap >= IDLE_TICKS && !self.timed {
                let whole = gap.saturating_mul(TICK_NS);
                let kept = (whole as f64 * keep) as u64;
                let kept = if kept >= MIN_IDLE_NS {
                    kept.min(whole)
                } else {
                    0
                };
                self.dropped_ns = self.dropped_ns.saturating_add(whole - kept);
                if kept > 0 {
                    take(Event {
                        thread,
                        action: Action::Idle { ns: kept },
                    })?;
                }
            }
            if let Some(reach) = written.get(&number) {
                take(Event {
                    thread,
                    action: Action::Written {
                        bytes: reach.bytes,
                        at_once: reach.at_once,
                        over_ns: reach.over_ns,
                    },
                })?;
            }
            let action = match event.kind.effect() {
                Effect::None | Effect::Told => continue,
                Effect::Free => Action::Free { block: event.block },
                Effect::Resize => Action::Realloc {
                    block: event.block,
                    size: event.size,
                },
                Effect::Alloc => {
                    let (kind, align_log2) = match event.kind {
                        EventKind::Calloc => (OpKind::Calloc, 0),
                        // The page size of the machine it was recorded on.
                        EventKind::Valloc | EventKind::Pvalloc => (OpKind::AlignedAlloc, 12),
                        kind if kind.has_alignment() => (OpKind::AlignedAlloc, event.align_log2),
                        _ => (OpKind::Malloc, 0),
                    };
                    Action::Alloc {
                        kind,
                        block: event.block,
                        size: event.size,
                        align_log2,
                    }
                }
            };
            take(Event { thread, action })?;
        }
        // What ends after the last event ends in that order at the end; what the recording does not see ending stays.
        let mut staying = vec![true; numbers.len()];
        let table = &self.trace.summary().thread_table;
        for (number, stays) in staying.iter_mut().enumerate() {
            let ended = table.get(number).is_some_and(|info| info.end_ns.is_some());
            *stays = self.process.is_none()
                && (!ended || left.get(number).is_some_and(|left| *left > 0));
        }
        while let Some((_, number)) = ends.pop() {
            let number = number as usize;
            if let Some(thread) = numbers
                .get(number)
                .copied()
                .filter(|n| *n != UNSEEN && *n != 0)
                && !staying[number]
            {
                take(Event {
                    thread,
                    action: Action::End,
                })?;
            }
        }
        self.staying = (numbers.iter().enumerate())
            .filter(|(number, thread)| **thread != UNSEEN && **thread != 0 && staying[*number])
            .map(|(_, thread)| *thread)
            .collect();
        Ok(())
    }
}
