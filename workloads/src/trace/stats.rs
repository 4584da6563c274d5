//! Statistics of a trace: sizes, lifetimes, threads, the live curve. One pass, memory as for reading.

use super::error::TraceError;
use super::event::{Effect, TICK_NS};
use super::reader::{Trace, Walk};
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
    /// Bytes never freed.
    pub end_live_bytes: u64,
    /// Blocks never freed.
    pub end_live_blocks: u64,
    /// Threads with events.
    pub threads: u32,
    /// Processes.
    pub processes: u32,
    /// Frees by another thread than the allocating one.
    pub remote_frees: u64,
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

impl Trace {
    /// Statistics over all events.
    pub fn stats(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<TraceStats, TraceError> {
        let mut sizes = Histogram::new();
        let mut lifetimes_ns = Histogram::new();
        let mut lifetimes_allocations = Histogram::new();
        let mut calls = BTreeMap::new();
        let mut births: Vec<(u64, u64)> = Vec::new();
        let mut curve = Vec::new();
        let mut walk = Walk::default();
        let mut buffer = Vec::new();
        let summary = self.summary();
        let step = (summary.events / CURVE_POINTS).max(1);
        let (mut count, mut allocations) = (0u64, 0u64);
        let mut by_kind = [0u64; 32];
        for (index, segment) in self.segments().iter().enumerate() {
            self.segment(index, &mut walk, &mut buffer, |event, _, live| {
                count += 1;
                by_kind[event.kind as usize] += 1;
                match event.kind.effect() {
                    Effect::Alloc => {
                        allocations += 1;
                        sizes.add(event.size, event.size);
                        let number = event.block as usize;
                        if number >= births.len() {
                            births.resize(number + 1, (0, 0));
                        }
                        births[number] = (event.tick, allocations);
                    }
                    Effect::Free => {
                        let (tick, birth) = births[event.block as usize];
                        let ticks = event.tick.saturating_sub(tick);
                        lifetimes_ns.add(ticks.saturating_mul(TICK_NS), event.size);
                        lifetimes_allocations.add(allocations - birth, event.size);
                    }
                    _ => {}
                }
                if count.is_multiple_of(step) || count == summary.events {
                    curve.push(LivePoint {
                        events: count,
                        time_ns: event.tick.saturating_mul(TICK_NS),
                        live_bytes: live.0,
                        live_blocks: live.1,
                    });
                }
            })?;
            progress(segment.first_event + segment.events, summary.events);
        }
        for (number, &count) in by_kind.iter().enumerate().filter(|(_, count)| **count > 0) {
            if let Some(kind) = super::EventKind::from_number(number as u8) {
                calls.insert(kind.name(), count);
            }
        }
        Ok(TraceStats {
            allocations: summary.allocations,
            frees: summary.frees,
            reallocs: summary.reallocs,
            failed: summary.failed,
            bytes_allocated: summary.bytes_allocated,
            peak_live_bytes: summary.peak_live_bytes,
            peak_live_blocks: summary.peak_live_blocks,
            end_live_bytes: summary.end_live_bytes,
            end_live_blocks: summary.end_live_blocks,
            threads: summary.threads,
            processes: summary.processes,
            remote_frees: summary.remote_frees,
            foreign_frees: summary.foreign_frees,
            lost_frees: summary.lost_frees,
            complete: summary.complete,
            missing: summary.missing.clone(),
            duration_ns: summary.duration_ns,
            idle_ns: summary.idle_ns,
            calls,
            sizes: sizes.buckets(),
            lifetimes_ns: lifetimes_ns.buckets(),
            lifetimes_allocations: lifetimes_allocations.buckets(),
            thread_table: summary.thread_table.clone(),
            live_curve: curve,
        })
    }
}
