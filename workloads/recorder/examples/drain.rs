//! The smallest recording: runs a program under the recorder and writes the raw trace.
//!
//! `drain RECORDER RAW PROGRAM [ARGUMENT...]`: the program finds the session in its environment
//! and the preload list in `SUBJECT`; it is preloaded itself unless it is `sh`, which may pass
//! the list on to what it starts (`LD_PRELOAD=$SUBJECT program`). RAW `-`: events are counted and dropped.

use heaplab_workloads::record::{Discard, Session, SessionOptions};
use heaplab_workloads::trace::raw::RawWriter;
use heaplab_workloads::trace::{FinishInfo, TraceHeader};
use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [recorder, raw, program, rest @ ..] = arguments.as_slice() else {
        return Err("usage: drain RECORDER RAW PROGRAM [ARGUMENT...]".into());
    };
    let mut session = Session::create(&SessionOptions::default())?;
    let mut command = Command::new(program);
    for (name, value) in session.environment_before(Path::new(recorder), "".as_ref()) {
        if name == "LD_PRELOAD" {
            command.env("SUBJECT", &value);
            if program == "sh" {
                continue;
            }
        }
        command.env(name, value);
    }
    let mut child = command.args(rest).spawn()?;
    let mut status = None;
    let alive = || {
        status = child.try_wait().unwrap_or_default();
        status.is_none()
    };
    if raw == "-" {
        let summary = session.drain(alive, &mut Discard)?;
        println!("{} events of {} threads", summary.events, summary.threads);
        return Ok(());
    }
    let mut writer = RawWriter::create(Path::new(raw), &TraceHeader::default())?;
    let summary = session.drain(alive, &mut writer)?;
    writer.finish(FinishInfo {
        lost_events: summary.lost_events,
        exit_status: status.and_then(|status| status.code()),
        duration_ns: summary.duration_ns,
        cpu_ns: None,
        ..FinishInfo::default()
    })?;
    println!("{} events of {} threads", summary.events, summary.threads);
    Ok(())
}
