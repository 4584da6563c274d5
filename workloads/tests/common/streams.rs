//! Streams of raw events, and the trace that they become.
#![allow(dead_code)] // No test needs all of it.

use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{
    FinishInfo, MachineShape, ResolveOptions, Trace, TraceEvent, TraceHeader, TraceSummary,
    resolve_file,
};
use std::path::Path;

pub fn header() -> TraceHeader {
    TraceHeader {
        created: "2026-01-01T00:00:00Z".into(),
        tool: "test".into(),
        machine: MachineShape {
            cpus: 2,
            page_size: 4096,
            ..MachineShape::default()
        },
        allocator: "/opt/secret-allocator.so".into(),
        argv: vec!["/opt/secret-program".into(), "--secret-flag".into()],
    }
}

pub fn event(time_ns: u64, kind: RawKind, address: u64, size: u64) -> RawEvent {
    RawEvent {
        time_ns,
        address,
        size,
        kind,
        align_log2: 0,
    }
}

/// Writes a raw file from streams of threads, each in pieces of `piece` events, and resolves it.
pub fn record(folder: &Path, streams: &[Vec<RawEvent>], piece: usize) -> (Trace, TraceSummary) {
    let raw = folder.join("t.raw");
    let out = folder.join("t.hltrace");
    let mut writer = RawWriter::create(&raw, &header()).unwrap();
    for (thread, events) in streams.iter().enumerate() {
        let thread = thread as u32;
        let start = events.first().map_or(0, |event| event.time_ns);
        writer.thread_start(thread, 1000 + thread, start).unwrap();
        writer.thread_name(thread, "secret-thread").unwrap();
        for part in events.chunks(piece) {
            writer.events(thread, part).unwrap();
        }
        writer.thread_end(thread, u64::MAX / 4).unwrap();
    }
    writer.mark(0, "secret-mark").unwrap();
    writer.note("secret-note").unwrap();
    writer
        .finish(FinishInfo {
            exit_status: Some(0),
            ..FinishInfo::default()
        })
        .unwrap();
    let summary = resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    (Trace::open(&out).unwrap(), summary)
}

pub fn all(trace: &Trace) -> Vec<TraceEvent> {
    trace.events().collect::<Result<_, _>>().unwrap()
}

/// A longer load over several segments and threads.
pub fn long_streams(events: usize) -> Vec<Vec<RawEvent>> {
    let mut streams = vec![Vec::new(); 3];
    let mut state = 1u64;
    let mut next = 0x7000_0000u64;
    let mut live: Vec<u64> = Vec::new();
    for index in 0..events {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let thread = (state >> 40) as usize % 3;
        let time = index as u64 * 120 + if index > events / 2 { 50_000_000 } else { 0 };
        if live.len() < 1000 || state >> 63 == 0 {
            next += 16 * (1 + (state >> 50) % 8);
            live.push(next);
            streams[thread].push(event(time, RawKind::Malloc, next, (state >> 30) % 500));
        } else {
            let address = live.swap_remove((state >> 20) as usize % live.len());
            streams[thread].push(event(time, RawKind::Free, address, 0));
        }
    }
    streams
}
