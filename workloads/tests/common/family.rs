//! Recordings of several processes, made by hand.

use heaplab_workloads::trace::raw::{RawEvent, RawKind, RawWriter};
use heaplab_workloads::trace::{
    FinishInfo, ProcessInfo, ResolveOptions, Start, TraceHeader, resolve_file,
};
use std::path::{Path, PathBuf};

pub fn event(time_ns: u64, kind: RawKind, address: u64, size: u64) -> RawEvent {
    RawEvent {
        time_ns,
        address,
        size,
        kind,
        align_log2: 0,
    }
}

pub struct Recorded {
    pub info: ProcessInfo,
    pub end_ns: Option<u64>,
    pub threads: Vec<Vec<RawEvent>>,
}

pub fn process(
    process: u32,
    pid: u32,
    parent: Option<u32>,
    start: Start,
    start_ns: u64,
) -> ProcessInfo {
    ProcessInfo {
        process,
        pid,
        parent,
        start,
        program: format!("/secret/program-{pid}"),
        argv: vec![format!("secret-{pid}")],
        start_ns,
        ..ProcessInfo::default()
    }
}

/// Threads are numbered from the last process to the first, as a drainer may meet them.
pub fn write(folder: &Path, processes: &[Recorded]) -> PathBuf {
    let (raw, out) = (folder.join("t.raw"), folder.join("t.hltrace"));
    let mut writer = RawWriter::create(&raw, &TraceHeader::default()).unwrap();
    let mut thread = 0;
    for one in processes.iter().rev() {
        for events in &one.threads {
            writer
                .thread_start_in(one.info.process, thread, 100 + thread, one.info.start_ns)
                .unwrap();
            writer.events(thread, events).unwrap();
            thread += 1;
        }
        writer
            .mark_in(Some(one.info.process), one.info.start_ns, &one.info.argv[0])
            .unwrap();
        writer.process_start(&one.info).unwrap();
        if let Some(end_ns) = one.end_ns {
            writer.process_end(one.info.process, end_ns).unwrap();
        }
    }
    writer.finish(FinishInfo::default()).unwrap();
    resolve_file(&raw, &out, &ResolveOptions::default(), &mut |_, _| {}).unwrap();
    out
}
