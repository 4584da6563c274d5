//! More or less of a recorded load.

use super::weave::{Input, weave};
use super::{LEVEL, copy_text, pass_on_missing};
use crate::trace::error::TraceError;
use crate::trace::header::FinishInfo;
use crate::trace::reader::Trace;
use crate::trace::summary::{ThreadInfo, TraceSummary};
use crate::trace::writer::TraceWriter;
use std::path::Path;

/// How a trace becomes larger or smaller. All of it can be combined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleOptions {
    /// Factor on all times: 2 is half as fast, 0.5 twice as fast.
    pub time: f64,
    /// How often all threads of the recording are there, side by side.
    pub copies: u32,
    /// Nanoseconds by which each copy starts after the one before.
    pub stagger_ns: u64,
    /// How many blocks each block becomes on average, in the same thread at the same moment; below 1, the share of blocks
    /// that stays.
    pub load: f64,
}

impl Default for ScaleOptions {
    fn default() -> Self {
        Self {
            time: 1.0,
            copies: 1,
            stagger_ns: 0,
            load: 1.0,
        }
    }
}

/// What the copy says of addresses that it cannot keep.
const ADDRESSES_DROPPED: &str =
    "addresses are left out: blocks that a factor makes several of would lie at the same ones";
/// Largest factors: beyond them, a file that nobody wants fills the disk.
const MOST: f64 = 1000.0;

/// Writes a scaled copy. Every block keeps its size, its lifetime (times the factor on time) and the threads that touch
/// it, or threads of the same copy. Addresses are kept as long as no block becomes several.
pub fn scale(
    trace: &Trace,
    out: &Path,
    options: &ScaleOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    for (what, value) in [("time", options.time), ("load", options.load)] {
        if !(value > 0.0 && value <= MOST) {
            return Err(TraceError::Usage(format!(
                "{what} {value} is not possible: give a number above 0, at most {MOST}"
            )));
        }
    }
    if options.copies == 0 || f64::from(options.copies) > MOST {
        return Err(TraceError::Usage(format!(
            "{} copies are not possible: give a number from 1 to {MOST}",
            options.copies
        )));
    }
    let inputs: Vec<Input<'_>> = (0..options.copies)
        .map(|copy| Input {
            offset_ns: options.stagger_ns.saturating_mul(u64::from(copy)),
            time: options.time,
            load: options.load,
            ..Input::plain(trace)
        })
        .collect();
    let first = inputs[0];
    // Two blocks cannot lie at one address at the same time.
    let had = trace.has_addresses()?;
    let addresses = had && options.copies == 1 && options.load <= 1.0;
    let mut writer = TraceWriter::create(out, trace.header(), addresses, LEVEL)?;
    if had && !addresses {
        writer.note(ADDRESSES_DROPPED)?;
    }
    copy_text(trace, &mut writer, |tick| Some(first.tick(tick)))?;
    for (copy, input) in inputs.iter().enumerate().skip(1) {
        for (thread, name) in trace.names() {
            writer.name(copy as u32 * input.threads() + thread, name)?;
        }
    }
    writer.note(&format!(
        "scaled: time {}, {} copies, {} ns apart, load {}",
        options.time, options.copies, options.stagger_ns, options.load
    ))?;
    let to = weave(&inputs, writer, false, progress)?;
    let old = trace.summary();
    let finish = old.finish.clone().map(|finish| FinishInfo {
        duration_ns: first.ns(finish.duration_ns),
        cpu_ns: finish.cpu_ns.map(|ns| first.ns(ns)),
        ..finish
    });
    to.finish(finish, |summary| {
        summary.processes = old.processes * options.copies;
        summary.foreign_frees = old.foreign_frees * u64::from(options.copies);
        pass_on_missing([old], summary);
        place_threads(summary, &inputs);
    })
}

/// Start and end of the threads of all inputs.
pub(super) fn place_threads(summary: &mut TraceSummary, inputs: &[Input<'_>]) {
    let mut first = 0usize;
    for input in inputs {
        let table = &input.trace.summary().thread_table;
        let end = first + table.len();
        if summary.thread_table.len() < end {
            summary.thread_table.resize(end, ThreadInfo::default());
        }
        for (new, old) in summary.thread_table[first..end].iter_mut().zip(table) {
            new.start_ns = input.ns(old.start_ns);
            new.end_ns = old.end_ns.map(|ns| input.ns(ns));
        }
        first = end;
    }
}
