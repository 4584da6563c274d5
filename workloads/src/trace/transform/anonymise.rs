//! A copy without anything of the program.

use super::copier::{Copier, Numbers, owners};
use super::{LEVEL, PROGRESS, finish_like};
use crate::trace::error::TraceError;
use crate::trace::event::TraceEvent;
use crate::trace::header::{MachineShape, TraceHeader};
use crate::trace::process::ProcessInfo;
use crate::trace::reader::Trace;
use crate::trace::summary::TraceSummary;
use crate::trace::writer::TraceWriter;
use std::collections::HashMap;
use std::path::Path;

/// Writes a copy that holds nothing of the program but sizes, times, threads and their order: no arguments, names,
/// marks, notes, addresses, date, allocator path or machine name.
pub fn anonymise(
    trace: &Trace,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let machine = &trace.header().machine;
    let header = TraceHeader {
        tool: format!("heaplab {}", env!("CARGO_PKG_VERSION")),
        machine: MachineShape {
            cpus: machine.cpus,
            page_size: machine.page_size,
            thp: known(&machine.thp, &["always", "madvise", "never"]),
            memory_limit: machine.memory_limit,
            ..MachineShape::default()
        },
        allocator: known(
            &trace.header().allocator,
            &["system", "jemalloc", "mimalloc", "tcmalloc", "spanalloc"],
        ),
        ..TraceHeader::default()
    };
    let summary = trace.summary();
    let writer = TraceWriter::create(out, &header, false, LEVEL)?;
    let mut to = Copier::new(writer, owners(summary), strangers(summary));
    // The same order gives the same block numbers, and so the same lists of forks.
    for (number, process) in (0u32..).zip(&summary.process_table) {
        for from in trace.inheritance_of(process)? {
            to.inherits(number, from);
        }
    }
    let mut numbers = Numbers::default();
    let mut count = 0u64;
    for event in trace.events() {
        let event = TraceEvent {
            address: 0,
            ..event?
        };
        numbers.copy(&mut to, &event, 0)?;
        count += 1;
        if count.is_multiple_of(PROGRESS) {
            progress(count, summary.events);
        }
    }
    finish_like(trace, to)
}

/// The processes without what they were; ids count from 1, equal where they were equal.
fn strangers(summary: &TraceSummary) -> Vec<ProcessInfo> {
    let mut known = HashMap::new();
    let processes = summary.process_table.iter();
    processes
        .map(|process| {
            let next = known.len() as u32 + 1;
            ProcessInfo {
                pid: *known.entry(process.info.pid).or_insert(next),
                program: String::new(),
                argv: Vec::new(),
                ..process.info.clone()
            }
        })
        .collect()
}

/// `value` if it is one of a few public words, else nothing.
fn known(value: &str, words: &[&str]) -> String {
    if words.contains(&value) {
        value.to_owned()
    } else {
        String::new()
    }
}
