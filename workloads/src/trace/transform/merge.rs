//! Several traces in one.

use super::scale::place_threads;
use super::weave::{Input, weave};
use super::{LEVEL, pass_on_missing};
use crate::trace::error::TraceError;
use crate::trace::header::TraceHeader;
use crate::trace::reader::Trace;
use crate::trace::summary::TraceSummary;
use crate::trace::writer::TraceWriter;
use std::path::Path;

/// When the merged traces begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergeStart {
    /// All at the same moment.
    #[default]
    Together,
    /// Each when the one before has ended.
    After,
}

/// How traces are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// When each begins.
    pub start: MergeStart,
    /// Count them as threads of one process; else each stays a process of its own.
    pub one_process: bool,
}

/// Writes one trace with the threads of all: those of the first keep their numbers, those of the others follow. Machine
/// and allocator are those of the first. Addresses are kept where all have them and stay processes of their own.
pub fn merge(
    traces: &[Trace],
    out: &Path,
    options: &MergeOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let Some(first) = traces.first() else {
        return Err(TraceError::Usage("there is no trace to merge".into()));
    };
    let mut inputs = Vec::new();
    let mut offset_ns = 0u64;
    for trace in traces {
        inputs.push(Input {
            offset_ns,
            ..Input::plain(trace)
        });
        if options.start == MergeStart::After {
            offset_ns = offset_ns.saturating_add(end_ns(trace));
        }
    }
    let header = TraceHeader {
        tool: format!("heaplab {}", env!("CARGO_PKG_VERSION")),
        argv: Vec::new(),
        ..first.header().clone()
    };
    let having = traces.iter().map(Trace::has_addresses);
    let having: Vec<bool> = having.collect::<Result<_, _>>()?;
    // In one process two blocks cannot lie at one address at the same time.
    let apart = !options.one_process || traces.len() == 1;
    let addresses = apart && having.iter().all(|&has| has);
    let mut writer = TraceWriter::create(out, &header, addresses, LEVEL)?;
    if !addresses && having.contains(&true) {
        writer.note(match apart {
            true => "addresses are left out: not all of the merged traces have them",
            false => "addresses are left out: in one process blocks of several traces would lie at the same ones",
        })?;
    }
    let mut first_thread = 0;
    for input in &inputs {
        let trace = input.trace;
        let command = trace.header().argv.join(" ");
        let last = first_thread + input.threads().saturating_sub(1);
        writer.note(
            format!("threads {first_thread} to {last}: {command}").trim_end_matches([' ', ':']),
        )?;
        for (thread, name) in trace.names() {
            writer.name(first_thread + thread, name)?;
        }
        for note in trace.notes() {
            writer.note(note)?;
        }
        first_thread += input.threads();
    }
    // Replays take marks by time, so they must follow each other.
    let mut marks: Vec<(u64, &str, Option<u32>)> = Vec::new();
    let mut first_process = 0;
    for input in &inputs {
        let of = input.trace.mark_processes().iter();
        marks.extend(
            input
                .trace
                .marks()
                .iter()
                .zip(of)
                .map(|((tick, name), of)| {
                    let process = of.filter(|_| !options.one_process);
                    let process = process.map(|process| first_process + process);
                    (input.tick(*tick), name.as_str(), process)
                }),
        );
        first_process += input.processes();
    }
    marks.sort_by_key(|(tick, _, _)| *tick);
    for (tick, name, process) in marks {
        writer.mark_in(process, tick, name)?;
    }
    let to = weave(&inputs, writer, options.one_process, progress)?;
    to.finish(None, |summary| {
        let all = |of: fn(&TraceSummary) -> u64| {
            traces.iter().map(|trace| of(trace.summary())).sum::<u64>()
        };
        summary.processes = match options.one_process {
            true => 1,
            false => all(|one| u64::from(one.processes)) as u32,
        };
        summary.foreign_frees = all(|one| one.foreign_frees);
        pass_on_missing(traces.iter().map(Trace::summary), summary);
        place_threads(summary, &inputs);
    })
}

/// Nanoseconds from the start of a recording to its end.
pub(super) fn end_ns(trace: &Trace) -> u64 {
    let summary = trace.summary();
    let said = summary
        .finish
        .as_ref()
        .map_or(0, |finish| finish.duration_ns);
    let last = trace.segments().last().map_or(0, |last| last.last_tick);
    said.max(last.saturating_mul(crate::trace::TICK_NS))
        .max(summary.duration_ns)
}
