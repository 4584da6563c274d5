//! A heap profile: what each stack of a trace allocated, holds at the peak, never freed, and freed at once.
//!
//! Totals are exact: every event of the program is in the trace. What a stack has is exact in a trace with all stacks, and
//! in a sampled one the estimate of Horvitz and Thompson: an allocation that was sampled with probability `p` counts `1 / p`
//! times, with the variance `(1 - p) / p^2` (times the square of its bytes).

mod costs;

pub use costs::{Costs, Estimate};

use crate::trace::{Effect, EventKind, StackMode, TICK_NS, Trace, TraceError, sample_probability};

/// How to look at a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileOptions {
    /// A block is short-lived (temporary) when it is freed before the thread that allocated it has made this many
    /// further allocations.
    pub temporary: u64,
    /// Only this process (its number in the trace); all when `None`.
    pub process: Option<u32>,
}

impl Default for ProfileOptions {
    fn default() -> Self {
        Self {
            temporary: 10,
            process: None,
        }
    }
}

/// What is known exactly, over all events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Allocations, resizes included.
    pub allocations: u64,
    /// Bytes requested by them, resizes with their whole new size.
    pub bytes: u64,
    /// Largest sum of live bytes.
    pub peak_bytes: u64,
    /// Blocks alive at that instant.
    pub peak_blocks: u64,
    /// When that was, nanoseconds since the recording began.
    pub peak_ns: u64,
    /// Blocks that were alive when their process ended.
    pub leaked_blocks: u64,
    /// Their bytes.
    pub leaked_bytes: u64,
    /// Short-lived blocks.
    pub temporary_blocks: u64,
    /// Their bytes.
    pub temporary_bytes: u64,
    /// From the begin of the recording to the last event, nanoseconds.
    pub duration_ns: u64,
}

/// What a trace says about its stacks.
#[derive(Clone, Debug, Default)]
pub struct HeapProfile {
    /// Which allocations brought their stacks.
    pub mode: StackMode,
    /// Exact sums.
    pub totals: Totals,
    /// By stack, those that have anything; numbers of the trace's table.
    pub stacks: Vec<(u32, Costs)>,
    /// Allocations that brought their stacks.
    pub samples: u64,
}

/// A live block.
#[derive(Clone, Copy, Default)]
struct Block {
    stack: u32,
    thread: u32,
    /// Allocations of its thread up to its own.
    birth: u64,
    size: u64,
    alive: bool,
}

/// What a stack holds now, and held at the peak so far.
#[derive(Clone, Copy, Default)]
struct Live {
    blocks: Estimate,
    bytes: Estimate,
    peak_blocks: Estimate,
    peak_bytes: Estimate,
    /// Number of the event that last changed it.
    changed: u64,
}

struct Pass {
    mode: StackMode,
    options: ProfileOptions,
    totals: Totals,
    blocks: Vec<Block>,
    threads: Vec<u64>,
    costs: Vec<Costs>,
    live: Vec<Live>,
    live_bytes: u64,
    live_blocks: u64,
    /// Number of the event after which the live bytes were largest.
    peak_event: u64,
    event: u64,
    samples: u64,
}

/// Reads the whole trace once. Memory: the live blocks, and what each stack has.
///
/// # Errors
/// As for reading any trace. A trace without stacks gives totals and no stacks.
pub fn profile(
    trace: &Trace,
    options: &ProfileOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<HeapProfile, TraceError> {
    let table = trace.stacks();
    let stacks = table.map_or(0, |table| table.nodes.len()) + 1;
    let mut pass = Pass {
        mode: table.map_or(StackMode::Off, |table| table.mode),
        options: *options,
        totals: Totals::default(),
        blocks: Vec::new(),
        threads: Vec::new(),
        costs: vec![Costs::default(); stacks],
        live: vec![Live::default(); stacks],
        live_bytes: 0,
        live_blocks: 0,
        peak_event: 0,
        event: 0,
        samples: 0,
    };
    let owners: Vec<u32> = trace
        .summary()
        .thread_table
        .iter()
        .map(|thread| thread.process)
        .collect();
    let mut last = 0;
    trace.events_with_stacks(
        |event, _, _, stack| {
            let process = owners.get(event.thread as usize).copied().unwrap_or(0);
            if options.process.is_some_and(|wanted| wanted != process) {
                return;
            }
            last = event.tick.max(last);
            pass.event += 1;
            let (thread, size, block) = (event.thread, event.size, event.block as usize);
            match event.kind.effect() {
                Effect::Alloc => pass.alloc(thread, size, block, stack, event.kind),
                Effect::Resize => {
                    pass.release(block, Release::Resize);
                    pass.alloc(thread, size, block, stack, event.kind);
                }
                Effect::Free if event.kind == EventKind::Gone => pass.release(block, Release::End),
                Effect::Free => pass.release(block, Release::Free),
                Effect::Told | Effect::None => {}
            }
            if pass.live_bytes > pass.totals.peak_bytes {
                pass.totals.peak_bytes = pass.live_bytes;
                pass.totals.peak_blocks = pass.live_blocks;
                pass.totals.peak_ns = event.tick.saturating_mul(TICK_NS);
                pass.peak_event = pass.event;
            }
        },
        progress,
    )?;
    pass.totals.duration_ns = last.saturating_mul(TICK_NS);
    Ok(pass.finish())
}

/// Why a block goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    Free,
    /// It goes on with another size, as another block.
    Resize,
    /// Its process ended.
    End,
}

impl Pass {
    fn alloc(&mut self, thread: u32, size: u64, number: usize, stack: u32, kind: EventKind) {
        if number >= self.blocks.len() {
            self.blocks.resize(number + 1, Block::default());
        }
        let index = thread as usize;
        if index >= self.threads.len() {
            self.threads.resize(index + 1, 0);
        }
        self.live_bytes = self.live_bytes.saturating_add(size);
        self.live_blocks += 1;
        let inherited = kind == EventKind::Inherited;
        if !inherited {
            self.threads[index] += 1;
            self.totals.allocations += 1;
            self.totals.bytes = self.totals.bytes.saturating_add(size);
        }
        self.blocks[number] = Block {
            stack,
            thread,
            birth: self.threads[index],
            size,
            alive: true,
        };
        if stack != 0 && !inherited {
            self.samples += 1;
            let one = Estimate::one(sample_probability(self.mode, size));
            let costs = &mut self.costs[stack as usize];
            costs.samples += 1;
            costs.allocations += one;
            costs.bytes += one.times(size);
            let live = self.touch(stack);
            live.blocks += one;
            live.bytes += one.times(size);
        }
    }

    /// The live state of a stack that is about to change.
    fn touch(&mut self, stack: u32) -> &mut Live {
        let live = &mut self.live[stack as usize];
        if live.changed <= self.peak_event {
            // The peak so far came after its last change: this is what it held then.
            (live.peak_blocks, live.peak_bytes) = (live.blocks, live.bytes);
        }
        live.changed = self.event;
        live
    }

    fn release(&mut self, number: usize, why: Release) {
        let Some(block) = self.blocks.get_mut(number).filter(|block| block.alive) else {
            return;
        };
        block.alive = false;
        let block = *block;
        self.live_bytes = self.live_bytes.saturating_sub(block.size);
        self.live_blocks = self.live_blocks.saturating_sub(1);
        let since = self.threads[block.thread as usize] - block.birth;
        let temporary = why == Release::Free && since < self.options.temporary;
        if temporary {
            self.totals.temporary_blocks += 1;
            self.totals.temporary_bytes += block.size;
        }
        if why == Release::End {
            self.totals.leaked_blocks += 1;
            self.totals.leaked_bytes += block.size;
        }
        if block.stack == 0 {
            return;
        }
        let one = Estimate::one(sample_probability(self.mode, block.size));
        let costs = &mut self.costs[block.stack as usize];
        if temporary {
            costs.temporary_blocks += one;
            costs.temporary_bytes += one.times(block.size);
        }
        if why == Release::End {
            costs.leaked_blocks += one;
            costs.leaked_bytes += one.times(block.size);
        }
        let live = self.touch(block.stack);
        live.blocks -= one;
        live.bytes -= one.times(block.size);
    }

    fn finish(mut self) -> HeapProfile {
        for number in 0..self.blocks.len() {
            // Whatever is alive at the end of the trace was alive at the end of the program.
            if self.blocks[number].alive {
                self.event += 1;
                self.release(number, Release::End);
            }
        }
        for stack in 0..self.live.len() {
            self.event += 1;
            self.touch(stack as u32);
            let live = self.live[stack];
            let costs = &mut self.costs[stack];
            (costs.peak_blocks, costs.peak_bytes) =
                (live.peak_blocks.settled(), live.peak_bytes.settled());
        }
        let stacks = (0u32..)
            .zip(self.costs)
            .filter(|(stack, costs)| *stack != 0 && costs.samples > 0)
            .collect();
        HeapProfile {
            mode: self.mode,
            totals: self.totals,
            stacks,
            samples: self.samples,
        }
    }
}
