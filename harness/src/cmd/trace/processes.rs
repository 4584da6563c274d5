//! The table of processes of `heaplab trace info`.

use super::rows::duration;
use crate::out::{self, human_bytes, human_count};
use heaplab_reports::shell;
use heaplab_workloads::trace::{Start, Trace};
use std::collections::BTreeMap;

/// The processes of a trace of several that have events, in the order of their start.
pub fn table(trace: &Trace) -> String {
    let all = trace.processes();
    if all.len() < 2 {
        return String::new();
    }
    let mut images: BTreeMap<u32, u32> = BTreeMap::new();
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter_map(|process| {
            let info = &process.info;
            // Further images of a process id have a number, as `FILE#PID.N` wants it.
            let image = images.entry(info.pid).or_default();
            *image += 1;
            let pid = match *image {
                1 => info.pid.to_string(),
                n => format!("{}.{n}", info.pid),
            };
            if process.events == 0 {
                return None;
            }
            let parent = info.parent.and_then(|parent| all.get(parent as usize));
            let from = parent.map_or(String::new(), |parent| parent.info.pid.to_string());
            let start = match info.start {
                Start::First => "first".to_string(),
                Start::Exec => "exec".to_string(),
                Start::Fork if info.apart => format!("fork of {from}, earlier"),
                Start::Fork => format!("fork of {from}"),
                Start::Spawn if from.is_empty() => "spawn".to_string(),
                Start::Spawn => format!("spawn by {from}"),
            };
            let peak = match process.peak_live_bytes {
                0 => "-".to_string(),
                bytes => human_bytes(bytes),
            };
            Some(vec![
                pid,
                start,
                process.threads.to_string(),
                human_count(process.events),
                peak,
                // Its end was not recorded.
                (info.end_ns).map_or("-".into(), |end| {
                    duration(end.saturating_sub(info.start_ns))
                }),
                shortened(&info.argv, info.name()),
            ])
        })
        .collect();
    let header = [
        "process",
        "start",
        "threads",
        "events",
        "peak live",
        "lived",
        "command",
    ];
    let mut text = out::columns(&header, &rows);
    let more = all.len() - rows.len();
    if more > 0 {
        text.push_str(&format!(
            "and {more} without a call; --format json lists all\n"
        ));
    }
    text + "\n"
}

/// A command that fits beside the figures.
fn shortened(argv: &[String], program: &str) -> String {
    let mut text = match argv {
        [] => program.to_string(),
        [_, rest @ ..] => shell::command(&[&[program.to_string()], rest].concat()),
    };
    if let Some((at, _)) = text.char_indices().nth(60) {
        text.truncate(at);
        text.push('…');
    }
    text.replace(|c: char| c.is_control(), " ")
}
