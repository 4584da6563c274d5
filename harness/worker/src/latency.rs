//! `latency`: two time stamps around every call, into histograms by op kind, size range and local or remote free;
//! calls of more than 1 µs are told apart by what the kernel did meanwhile.

use crate::clock::{self, Scale, Usage};
use crate::probe::{Call, Probe};
use crate::world::World;
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use heaplab_script::OpKind;
use heaplab_worker::protocol::LatencyHistogram;

/// Upper ends of the size ranges, bytes.
const SIZES: [u64; 5] = [64, 1024, 32 << 10, 1 << 20, u64::MAX];
/// Kinds told apart: the five calls, frees of another thread's block last.
const KINDS: [(&str, bool); 6] = [
    ("malloc", false),
    ("calloc", false),
    ("aligned", false),
    ("realloc", false),
    ("free", false),
    ("free", true),
];
/// Longest time told apart from longer ones, nanoseconds.
const HIGHEST_NS: u64 = 60_000_000_000;
/// A call is slow from here on, nanoseconds.
const SLOW_NS: u64 = 1_000;
/// Time outside calls after which the kernel's counters are read again, so that its faults and preemptions are not
/// booked on the next slow call.
const GAP_NS: u64 = 250;

/// The calls of one kind and size range.
pub struct Series {
    times: Histogram<u64>,
    by_fault: u64,
    by_preemption: u64,
    by_allocator: u64,
}

/// One place for each kind and size range; made when first needed.
pub type Set = [Option<Box<Series>>; KINDS.len() * SIZES.len()];

/// Stamps of one thread.
pub struct Latency {
    scale: Scale,
    gap_ticks: u64,
    slow_ticks: u64,
    /// Stamp after the last call.
    last: u64,
    /// `paced`: the stamp at which the next call should have been made.
    intended: Option<u64>,
    /// The end of the last wait for another thread's block: neither the call behind it nor those behind that could begin before.
    released: Option<u64>,
    /// The kernel's counts when they were last read.
    usage: Usage,
    set: Box<Set>,
}

impl Probe for Latency {
    const TRACKS: bool = false;
    const SLEEPS: bool = false;

    fn new(world: &'static World) -> Self {
        let scale = world.scale;
        Self {
            scale,
            gap_ticks: scale.ticks(GAP_NS),
            slow_ticks: scale.ticks(SLOW_NS),
            last: clock::ticks(),
            intended: None,
            released: None,
            usage: clock::usage(true),
            set: Box::new([const { None }; KINDS.len() * SIZES.len()]),
        }
    }

    #[inline(always)]
    fn around<R>(&mut self, call: impl Fn() -> Call, work: impl FnOnce() -> R) -> R {
        let mut before = clock::ticks();
        if let Some(intended) = self.intended.take() {
            before = self.since(intended);
        } else if before.wrapping_sub(self.last) > self.gap_ticks {
            self.usage = clock::usage(true);
            before = clock::ticks();
        }
        let result = work();
        let after = clock::ticks();
        self.record(call(), after.wrapping_sub(before));
        self.last = clock::ticks();
        result
    }

    fn rests(&mut self) {
        self.usage = clock::usage(true);
    }

    fn intends(&mut self, ns: u64) {
        let late = self.scale.ticks(clock::now_ns().saturating_sub(ns));
        self.intended = Some(clock::ticks().wrapping_sub(late));
    }

    fn waited(&mut self) {
        // Otherwise the call counts from when it is made, and the counters are looked at because of the time that has passed.
        if self.intended.is_some() {
            self.usage = clock::usage(true);
            self.released = Some(clock::ticks());
        }
    }

    fn finish(self, world: &'static World) {
        world.results(|results| merge(&mut results.latency, *self.set));
    }
}

impl Latency {
    /// From when on a call counts that was intended at a stamp. What the thread waited for another one's block made it late, and that
    /// is no allocator's time.
    #[inline(always)]
    fn since(&self, intended: u64) -> u64 {
        match self.released {
            // Stamps wrap: the later of the two.
            Some(released) if (released.wrapping_sub(intended) as i64) > 0 => released,
            _ => intended,
        }
    }

    #[inline(never)]
    fn record(&mut self, call: Call, ticks: u64) {
        let range = SIZES
            .iter()
            .position(|end| call.size <= *end)
            .unwrap_or(SIZES.len() - 1);
        let kind = match call.kind {
            OpKind::Free if call.remote => 5,
            OpKind::Free => 4,
            OpKind::Realloc => 3,
            OpKind::AlignedAlloc => 2,
            OpKind::Calloc => 1,
            _ => 0,
        };
        let series = self.set[kind * SIZES.len() + range].get_or_insert_with(Series::new);
        series.times.saturating_record(self.scale.ns(ticks).max(1));
        if ticks > self.slow_ticks {
            let usage = clock::usage(true);
            if usage.preemptions > self.usage.preemptions {
                series.by_preemption += 1;
            } else if usage.minor_faults + usage.major_faults
                > self.usage.minor_faults + self.usage.major_faults
            {
                series.by_fault += 1;
            } else {
                series.by_allocator += 1;
            }
            self.usage = usage;
        }
    }
}

impl Series {
    fn new() -> Box<Self> {
        match Histogram::new_with_bounds(1, HIGHEST_NS, 2) {
            Ok(times) => Box::new(Self {
                times,
                by_fault: 0,
                by_preemption: 0,
                by_allocator: 0,
            }),
            Err(error) => crate::fail::with(format!("no histogram can be made: {error}")),
        }
    }
}

/// No series yet.
pub fn none() -> Set {
    [const { None }; KINDS.len() * SIZES.len()]
}

fn merge(into: &mut Set, from: Set) {
    for (into, from) in into.iter_mut().zip(from) {
        match (into.as_mut(), from) {
            (Some(sum), Some(part)) => {
                // Same bounds on both sides: adding cannot fail.
                let _ = sum.times.add(&part.times);
                sum.by_fault += part.by_fault;
                sum.by_preemption += part.by_preemption;
                sum.by_allocator += part.by_allocator;
            }
            (None, Some(part)) => *into = Some(part),
            (_, None) => {}
        }
    }
}

/// The histograms as the answer carries them.
pub fn encode(set: &Set) -> Vec<LatencyHistogram> {
    let mut serializer = V2Serializer::new();
    let mut list = Vec::new();
    for (index, series) in set.iter().enumerate() {
        let Some(series) = series else { continue };
        let (op, remote) = KINDS[index / SIZES.len()];
        let mut bytes = Vec::new();
        if let Err(error) = serializer.serialize(&series.times, &mut bytes) {
            crate::fail::with(format!("a histogram cannot be written: {error}"));
        }
        list.push(LatencyHistogram {
            op: op.to_owned(),
            size_le: SIZES[index % SIZES.len()],
            remote,
            hdr_v2_base64: base64::engine::general_purpose::STANDARD.encode(&bytes),
            slow_by_fault: series.by_fault,
            slow_by_preemption: series.by_preemption,
            slow_by_allocator: series.by_allocator,
        });
    }
    list
}
