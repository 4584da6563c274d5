//! Writes a trace of any length and reads it again: what an event costs in bytes, and how long opening and statistics take.
//!
//! ```text
//! cargo run --release -p heaplab-workloads --example trace_size -- random 1000000000 /tmp/big.hltrace
//! ```
//!
//! A file that exists is only read. `random`: two threads, sizes uniform from 1 to 1024, each call replaces a random one of 10,000 live blocks, one free in
//! eight by the other thread, times with jitter: nothing repeats. `regular`: one thread that builds and drops batches of a few
//! sizes, as programs do.

use heaplab_workloads::trace::{EventKind, Trace, TraceEvent, TraceHeader, TraceWriter};
use std::path::Path;
use std::time::Instant;

struct Random(u64);

impl Random {
    /// PCG-like: the upper bits of a linear congruential generator.
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, load, events, path] = words.as_slice() else {
        return Err("usage: trace_size random|regular EVENTS FILE".into());
    };
    let (events, path) = (events.parse::<u64>()?, Path::new(path));
    if !path.exists() {
        write(load, events, path)?;
    }
    let started = Instant::now();
    let trace = Trace::open(path)?;
    println!(
        "opened in {:.1} ms: {} segments, {} parts that open alone",
        started.elapsed().as_secs_f64() * 1e3,
        trace.segments().len(),
        trace.parts()
    );
    let started = Instant::now();
    let mut part = trace.events_near(events / 2)?;
    while part.number() < events / 2 {
        part.next().transpose()?;
    }
    println!(
        "event {} in the middle after {:.1} ms",
        part.number(),
        started.elapsed().as_secs_f64() * 1e3
    );
    let started = Instant::now();
    let stats = trace.stats(&mut |_, _| {})?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "statistics in {seconds:.1} s ({:.1} M events/s): {} allocations, peak live {} bytes; resident at most {} MiB",
        events as f64 / seconds / 1e6,
        stats.allocations,
        stats.peak_live_bytes,
        peak_resident_mib()
    );
    Ok(())
}

fn write(load: &str, events: u64, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut writer = TraceWriter::create(path, &TraceHeader::default(), false, 3)?;
    match load {
        "random" => random(&mut writer, events)?,
        "regular" => regular(&mut writer, events)?,
        other => return Err(format!("'{other}' is no load; there are random and regular").into()),
    }
    writer.finish(None, |summary| summary.processes = 1)?;
    let seconds = started.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(path)?.len();
    println!(
        "wrote {events} events of a {load} load in {seconds:.1} s ({:.1} M/s): {bytes} bytes, {:.3} per event",
        events as f64 / seconds / 1e6,
        bytes as f64 / events as f64
    );
    Ok(())
}

fn random(
    writer: &mut TraceWriter,
    events: u64,
) -> Result<(), heaplab_workloads::trace::TraceError> {
    let mut random = Random(1);
    let mut live: Vec<(u32, u32)> = Vec::new();
    let mut tick = 0;
    for _ in 0..events {
        let word = random.next();
        tick += word >> 36 & 1;
        let event = |thread, kind, block, size| TraceEvent::new(thread, tick, kind, block, size);
        if live.len() < 10_000 {
            let thread = (word >> 38 & 1) as u32;
            let block = writer.event(event(thread, EventKind::Malloc, 0, 1 + word % 1024))?;
            live.push((block, thread));
        } else {
            let (block, owner) = live.swap_remove((word >> 10) as usize % live.len());
            let thread = if word & 7 == 0 { 1 - owner } else { owner };
            writer.event(event(thread, EventKind::Free, block, 0))?;
        }
    }
    Ok(())
}

fn regular(
    writer: &mut TraceWriter,
    events: u64,
) -> Result<(), heaplab_workloads::trace::TraceError> {
    const SIZES: [u64; 8] = [24, 48, 32, 24, 120, 24, 32, 56];
    let mut live: Vec<u32> = Vec::new();
    let mut draining = false;
    for index in 0..events {
        draining = if draining {
            !live.is_empty()
        } else {
            live.len() == 5000
        };
        let event = |kind, block, size| TraceEvent::new(0, index / 3, kind, block, size);
        match live.last().copied().filter(|_| draining) {
            Some(block) => {
                live.pop();
                writer.event(event(EventKind::Free, block, 0))?;
            }
            None => {
                let size = SIZES[index as usize % SIZES.len()];
                live.push(writer.event(event(EventKind::Malloc, 0, size))?);
            }
        }
    }
    Ok(())
}

/// Largest resident set of this process so far; 0 where the system does not say.
fn peak_resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
