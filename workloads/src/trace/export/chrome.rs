//! Counters over time in Chrome's trace event format, which Perfetto, chrome://tracing and speedscope open.
//!
//! Format: "Trace Event Format", counter events (`ph` "C"), metadata ("M") and instant events ("i"); times in microseconds.

use crate::trace::error::TraceError;
use crate::trace::event::{Effect, TICK_NS};
use crate::trace::reader::Trace;
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Threads that have a counter of their own: more are hard to look at, and viewers become slow.
const THREADS: usize = 64;
/// Events between two calls of a progress function.
const PROGRESS: u64 = 1 << 17;

/// What is counted between two points.
#[derive(Clone, Default)]
struct Process {
    live_bytes: i64,
    live_blocks: i64,
    allocated_bytes: u64,
    allocations: u64,
    frees: u64,
    active: bool,
}

struct Out<'a> {
    to: &'a mut dyn Write,
    first: bool,
}

impl Out<'_> {
    fn put(&mut self, value: &serde_json::Value) -> Result<(), TraceError> {
        let comma = if std::mem::take(&mut self.first) {
            "\n"
        } else {
            ",\n"
        };
        write!(self.to, "{comma}{value}").map_err(failed)
    }
}

fn failed(error: std::io::Error) -> TraceError {
    TraceError::io("write", Path::new("the counters"), error)
}

/// Writes at most `points` points of each counter: live bytes and blocks, bytes and calls a second of each process, calls a
/// second of the busiest threads; marks as instants. Memory as for reading.
pub fn export_chrome(
    trace: &Trace,
    out: &mut dyn Write,
    points: u32,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let summary = trace.summary();
    let process_of = |thread: u32| {
        let table = summary.thread_table.get(thread as usize);
        table.map_or(0, |thread| thread.process)
    };
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[").map_err(failed)?;
    let mut out = Out {
        to: out,
        first: true,
    };
    names(trace, &mut out)?;
    let mut busiest: Vec<usize> = (0..summary.thread_table.len())
        .filter(|&thread| summary.thread_table[thread].events > 0)
        .collect();
    busiest.sort_by_key(|&thread| std::cmp::Reverse(summary.thread_table[thread].events));
    busiest.truncate(THREADS);
    let last_tick = trace.segments().last().map_or(0, |last| last.last_tick);
    let width = (last_tick / u64::from(points.max(1))).max(1);
    let mut processes = vec![Process::default(); 1];
    let mut calls = vec![0u64; summary.thread_table.len()];
    let mut events = trace.events();
    let (mut bucket, mut latest, mut count) = (0u64, 0u64, 0u64);
    while let Some(next) = events.next_with_block() {
        let (event, block) = next?;
        latest = latest.max(event.tick);
        if latest / width != bucket {
            let end = (bucket + 1) * width;
            point(&mut out, end, width, &mut processes, &busiest, &mut calls)?;
            bucket = latest / width;
        }
        let effect = event.kind.effect();
        let owner = match effect {
            Effect::Resize | Effect::Free | Effect::Told => block.thread,
            _ => event.thread,
        };
        let process = process_of(owner) as usize;
        if process >= processes.len() {
            processes.resize(process + 1, Process::default());
        }
        let process = &mut processes[process];
        process.active = true;
        match effect {
            Effect::Alloc => {
                process.live_bytes += event.size as i64;
                process.live_blocks += 1;
                process.allocations += 1;
                process.allocated_bytes += event.size;
            }
            Effect::Resize => {
                process.live_bytes += event.size as i64 - block.size as i64;
                process.allocated_bytes += event.size;
            }
            Effect::Free => {
                process.live_bytes -= event.size as i64;
                process.live_blocks -= 1;
                process.frees += 1;
            }
            Effect::Told | Effect::None => {}
        }
        if let Some(calls) = calls.get_mut(event.thread as usize) {
            *calls += 1;
        }
        count += 1;
        if count.is_multiple_of(PROGRESS) {
            progress(count, summary.events);
        }
    }
    let end = (bucket + 1) * width;
    point(&mut out, end, width, &mut processes, &busiest, &mut calls)?;
    writeln!(out.to, "\n]}}").map_err(failed)
}

/// Names of processes and threads, and marks.
fn names(trace: &Trace, out: &mut Out<'_>) -> Result<(), TraceError> {
    let summary = trace.summary();
    let mut named = false;
    for process in &summary.process_table {
        let info = &process.info;
        let name = format!("{} {}", info.name(), info.pid);
        out.put(&json!({"ph": "M", "name": "process_name", "pid": info.process, "args": {"name": name}}))?;
        named = true;
    }
    if !named {
        let name = trace.header().argv.join(" ");
        out.put(&json!({"ph": "M", "name": "process_name", "pid": 0, "args": {"name": name}}))?;
    }
    for (thread, name) in trace.names() {
        let table = summary.thread_table.get(*thread as usize);
        let pid = table.map_or(0, |thread| thread.process);
        out.put(&json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": thread, "args": {"name": name}}))?;
    }
    for (tick, name) in trace.marks() {
        out.put(
            &json!({"ph": "i", "name": name, "s": "g", "ts": micros(*tick), "pid": 0, "tid": 0}),
        )?;
    }
    Ok(())
}

/// One point of each counter that changed.
fn point(
    out: &mut Out<'_>,
    tick: u64,
    width: u64,
    processes: &mut [Process],
    busiest: &[usize],
    calls: &mut [u64],
) -> Result<(), TraceError> {
    let (ts, seconds) = (micros(tick), (width * TICK_NS) as f64 / 1e9);
    let rate = |count: u64| (count as f64 / seconds).round();
    for (pid, process) in processes
        .iter_mut()
        .enumerate()
        .filter(|(_, one)| one.active)
    {
        let mut counter = |name: &str, args: serde_json::Value| {
            out.put(&json!({"ph": "C", "name": name, "ts": ts, "pid": pid, "args": args}))
        };
        counter("live bytes", json!({"bytes": process.live_bytes}))?;
        counter("live blocks", json!({"blocks": process.live_blocks}))?;
        counter(
            "requested bytes per second",
            json!({"bytes": rate(process.allocated_bytes)}),
        )?;
        counter(
            "calls per second",
            json!({"allocations": rate(process.allocations), "frees": rate(process.frees)}),
        )?;
        // What was counted for a while is over; a quiet process gets one more point, at zero.
        process.active = process.allocations + process.frees + process.allocated_bytes > 0;
        (process.allocations, process.frees, process.allocated_bytes) = (0, 0, 0);
    }
    if busiest.len() > 1 {
        for &thread in busiest.iter().filter(|&&thread| calls[thread] > 0) {
            let name = format!("calls per second of thread {thread}");
            out.put(&json!({"ph": "C", "name": name, "ts": ts, "pid": 0, "args": {"calls": rate(calls[thread])}}))?;
        }
    }
    calls.fill(0);
    Ok(())
}

fn micros(tick: u64) -> f64 {
    tick as f64 * TICK_NS as f64 / 1000.0
}
