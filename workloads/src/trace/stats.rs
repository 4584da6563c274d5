//! Statistics of a trace: sizes, lifetimes, threads, the live curve. One pass, in parallel over the groups between
//! checkpoints; memory as for reading.

use super::error::TraceError;
use super::event::{Block, Effect, EventKind, TICK_NS, TraceEvent};
use super::reader::Trace;
use super::reader::groups::Group;
use super::summary::ThreadInfo;
use serde::Serialize;
use std::collections::BTreeMap;

/// Points of the live curve at most.
const CURVE_POINTS: u64 = 512;

/// One bucket of a histogram whose bounds are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Largest value that falls into it.
    pub le: u64,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A point of the live curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LivePoint {
    /// Events so far.
    pub events: u64,
    /// Nanoseconds since the recording began.
    pub time_ns: u64,
    /// Requested bytes alive.
    pub live_bytes: u64,
    /// Blocks alive.
    pub live_blocks: u64,
}

/// What `trace stats` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceStats {
    /// Allocations that succeeded.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Reallocs of a block.
    pub reallocs: u64,
    /// Allocations that failed.
    pub failed: u64,
    /// Bytes requested.
    pub bytes_allocated: u64,
    /// Largest sum of requested bytes alive.
    pub peak_live_bytes: u64,
    /// Largest number of blocks alive.
    pub peak_live_blocks: u64,
    /// Bytes never freed: alive when their process ended.
    pub end_live_bytes: u64,
    /// Blocks never freed.
    pub end_live_blocks: u64,
    /// Threads with events.
    pub threads: u32,
    /// Processes.
    pub processes: u32,
    /// Frees by another thread than the allocating one.
    pub remote_frees: u64,
    /// Their share of all frees, 0 to 1.
    pub remote_free_share: f64,
    /// Frees of blocks from before the recording.
    pub foreign_frees: u64,
    /// Frees made up because the recording lacks them.
    pub lost_frees: u64,
    /// Nothing is missing.
    pub complete: bool,
    /// What is missing.
    pub missing: Vec<String>,
    /// From first to last event, ns.
    pub duration_ns: u64,
    /// Idle part of it, ns.
    pub idle_ns: u64,
    /// Calls by function.
    pub calls: BTreeMap<&'static str, u64>,
    /// Sizes of allocations.
    pub sizes: Vec<Bucket>,
    /// Lifetimes in nanoseconds of blocks that were freed; `bytes` are those at the free.
    pub lifetimes_ns: Vec<Bucket>,
    /// Lifetimes counted in allocations of the whole program.
    pub lifetimes_allocations: Vec<Bucket>,
    /// By thread number.
    pub thread_table: Vec<ThreadInfo>,
    /// Live bytes over the recording.
    pub live_curve: Vec<LivePoint>,
}

/// A histogram over powers of two.
struct Histogram([(u64, u64); 65]);

impl Histogram {
    fn new() -> Self {
        Self([(0, 0); 65])
    }

    #[inline]
    fn add(&mut self, value: u64, bytes: u64) {
        // Values up to 2^n belong to bucket n, 0 and 1 to bucket 0.
        let bucket = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.0[bucket].0 += 1;
        self.0[bucket].1 = self.0[bucket].1.saturating_add(bytes);
    }

    fn append(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&more.0) {
            sum.0 += more.0;
            sum.1 = sum.1.saturating_add(more.1);
        }
    }

    fn buckets(&self) -> Vec<Bucket> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, (count, _))| *count > 0)
            .map(|(power, &(count, bytes))| Bucket {
                le: 1u64.checked_shl(power as u32).unwrap_or(u64::MAX),
                count,
                bytes,
            })
            .collect()
    }
}

/// What is counted over a part of a trace.
struct Counts {
    sizes: Histogram,
    lifetimes_ns: Histogram,
    lifetimes_allocations: Histogram,
    by_kind: [u64; 32],
    curve: Vec<LivePoint>,
}

impl Counts {
    fn new() -> Self {
        Self {
            sizes: Histogram::new(),
            lifetimes_ns: Histogram::new(),
            lifetimes_allocations: Histogram::new(),
            by_kind: [0; 32],
            curve: Vec::new(),
        }
    }

    #[inline]
    fn take(&mut self, event: &TraceEvent, block: &Block, allocations: &mut u64) {
        self.by_kind[event.kind as usize] += 1;
        match event.kind.effect() {
            Effect::Alloc => {
                *allocations += 1;
                self.sizes.add(event.size, event.size);
            }
            Effect::Free => {
                let ticks = event.tick.saturating_sub(block.tick);
                self.lifetimes_ns
                    .add(ticks.saturating_mul(TICK_NS), event.size);
                // `birth` counts from 0: the allocation itself is not part of its life.
                let between = allocations.saturating_sub(block.birth + 1);
                self.lifetimes_allocations.add(between, event.size);
            }
            _ => {}
        }
    }

    fn append(&mut self, next: Self) {
        self.sizes.append(&next.sizes);
        self.lifetimes_ns.append(&next.lifetimes_ns);
        self.lifetimes_allocations
            .append(&next.lifetimes_allocations);
        for (count, more) in self.by_kind.iter_mut().zip(next.by_kind) {
            *count += more;
        }
        self.curve.extend(next.curve);
    }
}

impl Trace {
    /// Statistics over all events, read in parallel where the trace has checkpoints.
    pub fn stats(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<TraceStats, TraceError> {
        let summary = self.summary();
        let step = (summary.events / CURVE_POINTS).max(1);
        let mut counts = Counts::new();
        let work = |group: &Group, read: &mut dyn FnMut(u64)| {
            let mut counts = Counts::new();
            let mut walk = self.state_at(group)?;
            let mut allocations = walk.blocks.allocations;
            for index in group.segments.clone() {
                let segment = self.segments()[index];
                let mut number = segment.first_event;
                // The number of the event whose point is the next of the curve.
                let mut point = (number / step + 1) * step;
                self.segment(index, &mut walk, &mut |event, block, live| {
                    counts.take(event, block, &mut allocations);
                    number += 1;
                    if number == point || number == summary.events {
                        point += step;
                        counts.curve.push(LivePoint {
                            events: number,
                            time_ns: event.tick.saturating_mul(TICK_NS),
                            live_bytes: live.0,
                            live_blocks: live.1,
                        });
                    }
                })?;
                read(segment.events);
            }
            Ok(counts)
        };
        let join = |part| {
            counts.append(part);
            Ok(())
        };
        self.fold_groups(work, join, progress)?;
        let mut calls = BTreeMap::new();
        for (number, &count) in counts.by_kind.iter().enumerate() {
            if count > 0
                && let Some(kind) = EventKind::from_number(number as u8)
            {
                calls.insert(kind.name(), count);
            }
        }
        // In a trace of several processes blocks leave with theirs: at its end nothing is alive.
        let (end_live_bytes, end_live_blocks) = match summary.process_table.as_slice() {
            [] | [_] => (summary.end_live_bytes, summary.end_live_blocks),
            several => several
                .iter()
                .fold((0u64, 0u64), |(bytes, blocks), process| {
                    (
                        process.end_live_bytes.saturating_add(bytes),
                        process.end_live_blocks.saturating_add(blocks),
                    )
                }),
        };
        Ok(TraceStats {
            allocations: summary.allocations,
            frees: summary.frees,
            reallocs: summary.reallocs,
            failed: summary.failed,
            bytes_allocated: summary.bytes_allocated,
            peak_live_bytes: summary.peak_live_bytes,
            peak_live_blocks: summary.peak_live_blocks,
            end_live_bytes,
            end_live_blocks,
            threads: summary.threads,
            processes: summary.processes,
            remote_frees: summary.remote_frees,
            remote_free_share: summary.remote_frees as f64 / summary.frees.max(1) as f64,
            foreign_frees: summary.foreign_frees,
            lost_frees: summary.lost_frees,
            complete: summary.complete,
            missing: summary.missing.clone(),
            duration_ns: summary.duration_ns,
            idle_ns: summary.idle_ns,
            calls,
            sizes: counts.sizes.buckets(),
            lifetimes_ns: counts.lifetimes_ns.buckets(),
            lifetimes_allocations: counts.lifetimes_allocations.buckets(),
            thread_table: summary.thread_table.clone(),
            live_curve: counts.curve,
        })
    }
}
