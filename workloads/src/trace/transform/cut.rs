//! A part of a trace, by time, events or threads, that can be replayed.

use super::copier::{ABSENT, Copier, Numbers};
use super::forks::{Forks, Lineage, Origin};
use super::stacks::{StackCarrier, StackCursor};
use super::{LEVEL, PROGRESS, copy_text, finish_like};
use crate::trace::alone::Inheritance;
use crate::trace::error::TraceError;
use crate::trace::event::{Block, Effect, EventKind, TICK_NS, TraceEvent};
use crate::trace::reader::Trace;
use crate::trace::summary::TraceSummary;
use crate::trace::writer::TraceWriter;
use std::path::Path;

/// Which part of a trace; every bound is optional, `from` is included, `to` is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOptions {
    /// First event, counted in the global order.
    pub from_event: Option<u64>,
    /// First event that is left out again.
    pub to_event: Option<u64>,
    /// Nanoseconds since the recording began.
    pub from_ns: Option<u64>,
    /// Nanoseconds since the recording began.
    pub to_ns: Option<u64>,
    /// Only the blocks that these threads allocate; empty: all.
    pub threads: Vec<u32>,
}

/// Writes a part of a trace. It is cut along the global order, so what was freed in the part was allocated before; blocks
/// that are alive where it begins are allocated first, by their threads, with the sizes they have there. With `threads`, the
/// part holds the blocks that these threads allocate and all that happens to them: where another thread resized or freed
/// one, its owner does so at the same place in the order. A process that was forked before the part stands for itself: what
/// it inherits and touches in the part is allocated there. Addresses that the trace has are kept.
pub fn cut(
    trace: &Trace,
    out: &Path,
    options: &CutOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let total = trace.summary().events;
    let part = Part::of(trace, options)?;
    let addresses = trace.has_addresses()?;
    let mut writer = TraceWriter::create(out, trace.header(), addresses, LEVEL)?;
    copy_text(trace, &mut writer, |tick| {
        (part.from_tick..part.to_tick)
            .contains(&tick)
            .then_some(tick)
    })?;
    let mut to = Copier::like(trace.summary(), writer);
    // Checkpoints say neither which stacks live blocks have nor where they lie: that takes all events before the part.
    let near = match trace.stacks() {
        None if !addresses => part.first_possible(trace),
        _ => 0,
    };
    let mut events = trace.events_near(near)?;
    let mut mirror = Mirror::default();
    for (number, block) in events.blocks().live() {
        mirror.set(
            number,
            Some(Live {
                block,
                stack: 0,
                address: 0,
            }),
        );
    }
    let mut stacks = StackCursor::new(trace);
    let mut carrier = StackCarrier::new([trace]);
    let mut numbers = [Numbers::default()];
    let mut forks = Forks::new(Lineage::of(trace)?, 1);
    let mut first_tick = None;
    while let Some(next) = events.next_with_block() {
        let (event, block) = next?;
        let number = events.number() - 1;
        let stack = stacks.of(number)?;
        if number.is_multiple_of(PROGRESS) {
            progress(number, total.min(part.to_event));
        }
        // Time is not quite monotone along the order: the part begins with the first event that is late enough, and ends
        // before the first one after that which is too late.
        if first_tick.is_none() {
            if number < part.from_event || event.tick < part.from_tick {
                mirror.follow(&event, &block, stack);
                forks.skip(&event);
                continue;
            }
            first_tick = Some(event.tick);
            prelude(
                &mut to,
                &mut numbers[0],
                &mirror,
                &part,
                event.tick,
                &mut carrier,
            )?;
        }
        if number >= part.to_event || event.tick >= part.to_tick {
            break;
        }
        if near > 0
            && let Some(process) = forks.first_of(&event)
            && trace.processes()[process].info.start_ns / TICK_NS <= first_tick.unwrap_or(0)
        {
            // Its first events may be among those that were not read.
            forks.begins_outside(process);
        }
        let mut event = event;
        match event.kind.effect() {
            Effect::None | Effect::Alloc if !part.has(event.thread) => {
                if event.kind.effect() == Effect::Alloc {
                    numbers[0].set(event.block, ABSENT);
                }
                forks.skip(&event);
                continue;
            }
            Effect::Resize | Effect::Free | Effect::Told if !part.has(event.thread) => {
                event.thread = block.thread
            }
            _ => {}
        }
        forks.follow(&event, &numbers);
        if event.kind == EventKind::Inherited {
            let (process, place) = forks.touched(&event);
            let from = match forks.origin(0, (process, place)) {
                Origin::Block(from) => from,
                Origin::LeftOut | Origin::Unknown => Inheritance::NOWHERE,
            };
            to.inherits(process as u32, from);
        }
        let stack = carrier.carry(0, stack, event.size, number);
        numbers[0].copy(&mut to, &event, stack)?;
    }
    forks.tell(&mut to);
    if first_tick.is_some() && to.writer.is_empty() && !part.threads.is_empty() {
        let names: Vec<String> = part.threads.iter().map(u32::to_string).collect();
        return Err(TraceError::Usage(format!(
            "the part is empty: within its bounds thread {} allocates nothing; `heaplab trace stats` lists the threads",
            names.join(" or ")
        )));
    }
    if first_tick.is_none() || to.writer.is_empty() {
        return Err(TraceError::Usage(format!(
            "the part is empty: the trace has {total} events and lasts {} ms; name a part inside of that",
            trace.summary().duration_ns as f64 / 1e6
        )));
    }
    to.writer.stacks(&carrier.table())?;
    finish_like(trace, to)
}

struct Part<'a> {
    from_event: u64,
    to_event: u64,
    from_tick: u64,
    to_tick: u64,
    threads: &'a [u32],
}

impl<'a> Part<'a> {
    fn of(trace: &Trace, options: &'a CutOptions) -> Result<Self, TraceError> {
        let this = Self {
            from_event: options.from_event.unwrap_or(0),
            to_event: options.to_event.unwrap_or(u64::MAX),
            from_tick: options.from_ns.map_or(0, |ns| ns / TICK_NS),
            to_tick: options.to_ns.map_or(u64::MAX, |ns| ns / TICK_NS),
            threads: &options.threads,
        };
        let ms = |tick: u64| tick as f64 * TICK_NS as f64 / 1e6;
        if this.from_tick >= this.to_tick {
            return Err(TraceError::Usage(format!(
                "the part is empty: its end ({} ms) is not after its begin ({} ms)",
                ms(this.to_tick),
                ms(this.from_tick)
            )));
        }
        if this.from_event >= this.to_event {
            return Err(TraceError::Usage(format!(
                "the part is empty: its end (event {}) is not after its begin (event {})",
                this.to_event, this.from_event
            )));
        }
        let table = &trace.summary().thread_table;
        let unknown = |&&thread: &&u32| {
            table
                .get(thread as usize)
                .is_none_or(|thread| thread.events == 0)
        };
        if let Some(thread) = options.threads.iter().find(unknown) {
            return Err(TraceError::Usage(format!(
                "the trace has no thread {thread}; 'heaplab trace info' lists them"
            )));
        }
        Ok(this)
    }

    fn has(&self, thread: u32) -> bool {
        self.threads.is_empty() || self.threads.contains(&thread)
    }

    /// An event that is not behind the part's begin.
    fn first_possible(&self, trace: &Trace) -> u64 {
        // A segment's last tick is the largest so far: behind the first segment that reaches the time lies its begin.
        let by_time = match self.from_tick {
            0 => 0,
            from => trace
                .segments()
                .iter()
                .find(|segment| segment.last_tick == 0 || segment.last_tick >= from)
                .map_or(u64::MAX, |segment| segment.first_event),
        };
        by_time.max(self.from_event)
    }
}

/// A block that is alive where the part begins.
#[derive(Clone, Copy)]
struct Live {
    block: Block,
    /// That made it what it is.
    stack: u32,
    /// 0 where addresses were not kept.
    address: u64,
}

/// The live blocks before the part, by number.
#[derive(Default)]
struct Mirror(Vec<Option<Live>>);

impl Mirror {
    fn set(&mut self, number: u32, block: Option<Live>) {
        let index = number as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        self.0[index] = block;
    }

    fn follow(&mut self, event: &TraceEvent, block: &Block, stack: u32) {
        let live = |block| {
            Some(Live {
                block,
                stack,
                address: event.address,
            })
        };
        match event.kind.effect() {
            Effect::Alloc => self.set(event.block, live(*block)),
            Effect::Resize => {
                let block = Block {
                    size: event.size,
                    ..*block
                };
                self.set(event.block, live(block));
            }
            Effect::Free => self.set(event.block, None),
            Effect::Told | Effect::None => {}
        }
    }
}

/// Allocates what is alive where the part begins, in the order in which it was allocated.
fn prelude(
    to: &mut Copier,
    numbers: &mut Numbers,
    mirror: &Mirror,
    part: &Part<'_>,
    tick: u64,
    carrier: &mut StackCarrier<'_>,
) -> Result<(), TraceError> {
    let mut live: Vec<(u32, Live)> = (mirror.0.iter().enumerate())
        .filter_map(|(number, block)| Some((number as u32, (*block)?)))
        .filter(|(_, live)| part.has(live.block.thread))
        .collect();
    live.sort_unstable_by_key(|(_, live)| live.block.birth);
    for (number, of) in live {
        let Live {
            block,
            stack,
            address,
        } = of;
        let stack = carrier.carry(0, stack, block.size, 0);
        let event = TraceEvent {
            thread: block.thread,
            tick,
            kind: match block.align_log2 {
                0 => EventKind::Malloc,
                _ => EventKind::AlignedAlloc,
            },
            block: 0,
            size: block.size,
            align_log2: block.align_log2,
            address,
        };
        let new = to.event(event, stack)?;
        numbers.set(number, new);
    }
    Ok(())
}
