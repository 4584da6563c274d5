//! Traces made from traces: a slice, a copy without anything of the program, a table of text.

use super::error::TraceError;
use super::event::{Effect, EventKind, TICK_NS, TraceEvent};
use super::header::{MachineShape, TraceHeader};
use super::reader::{Trace, Walk};
use super::summary::TraceSummary;
use super::writer::TraceWriter;
use std::io::Write;
use std::path::Path;

/// Which part of a trace; every bound is optional, `from` is included, `to` is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutOptions {
    /// First event, counted in the global order.
    pub from_event: Option<u64>,
    /// First event that is left out again.
    pub to_event: Option<u64>,
    /// Nanoseconds since the recording began.
    pub from_ns: Option<u64>,
    /// Nanoseconds since the recording began.
    pub to_ns: Option<u64>,
}

/// zstd's level of transformed traces.
const LEVEL: i32 = 6;

/// Writes a part of a trace. It is cut along the global order, so what was freed in the part was allocated before; blocks
/// that are alive where it begins are allocated first, by their threads, with the sizes they have there.
pub fn cut(
    trace: &Trace,
    out: &Path,
    options: &CutOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let total = trace.summary().events;
    let from_tick = options.from_ns.map_or(0, |ns| ns / TICK_NS);
    let to_tick = options.to_ns.map_or(u64::MAX, |ns| ns / TICK_NS);
    let (from_event, to_event) = (
        options.from_event.unwrap_or(0),
        options.to_event.unwrap_or(u64::MAX),
    );
    if from_tick >= to_tick || from_event >= to_event {
        return Err(TraceError::Usage(
            "the part is empty: its end is not after its begin".into(),
        ));
    }
    // Time is not quite monotone along the order: the part begins with the first event that is late enough, and ends
    // before the first one after that which is too late.
    let mut writer = TraceWriter::create(out, trace.header(), false, LEVEL)?;
    for (thread, name) in trace.names() {
        writer.name(*thread, name)?;
    }
    for (tick, name) in trace
        .marks()
        .iter()
        .filter(|(tick, _)| (from_tick..to_tick).contains(tick))
    {
        writer.mark(*tick, name)?;
    }
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    let mut numbers: Vec<u32> = Vec::new();
    let mut mirror = super::event::Blocks::default();
    let mut begun = false;
    let mut number = 0u64;
    'segments: for index in 0..trace.segments().len() {
        trace.segment(index, &mut walk, &mut buffer, |_, _, _| {})?;
        for event in &buffer {
            if !begun && number >= from_event && event.tick >= from_tick {
                begun = true;
                for (block, state) in mirror.live() {
                    let kind = match state.align_log2 {
                        0 => EventKind::Malloc,
                        _ => EventKind::AlignedAlloc,
                    };
                    let new = writer.event(TraceEvent {
                        thread: state.thread,
                        tick: event.tick,
                        kind,
                        block: 0,
                        size: state.size,
                        align_log2: state.align_log2,
                        address: 0,
                    })?;
                    map_block(&mut numbers, block, new);
                }
            }
            if begun && (number >= to_event || event.tick >= to_tick) {
                break 'segments;
            }
            number += 1;
            if begun {
                copy_event(&mut writer, &mut numbers, event)?;
            } else {
                let wrong = |reason| {
                    TraceError::damaged(trace.path(), trace.segments()[index].offset, reason)
                };
                match event.kind.effect() {
                    Effect::Alloc => {
                        mirror
                            .alloc(event.thread, event.tick, event.size, event.align_log2)
                            .map_err(wrong)?;
                    }
                    Effect::Resize => {
                        mirror.resize(event.block, event.size).map_err(wrong)?;
                    }
                    Effect::Free => {
                        mirror.free(event.block).map_err(wrong)?;
                    }
                    Effect::None => {}
                }
            }
        }
        progress(number, total);
    }
    if !begun {
        return Err(TraceError::Usage(format!(
            "the part is empty: the trace has {total} events and lasts {} ms",
            trace.summary().duration_ns / 1_000_000
        )));
    }
    finish_like(trace, writer)
}

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
    let mut writer = TraceWriter::create(out, &header, false, LEVEL)?;
    let mut numbers = Vec::new();
    for (count, event) in trace.events().enumerate() {
        copy_event(&mut writer, &mut numbers, &event?)?;
        if count.is_multiple_of(1 << 18) {
            progress(count as u64, trace.summary().events);
        }
    }
    finish_like(trace, writer)
}

/// `value` if it is one of a few public words, else nothing.
fn known(value: &str, words: &[&str]) -> String {
    if words.contains(&value) {
        value.to_owned()
    } else {
        String::new()
    }
}

fn finish_like(trace: &Trace, writer: TraceWriter) -> Result<TraceSummary, TraceError> {
    let old = trace.summary();
    writer.finish(old.finish.clone(), |summary| {
        summary.processes = old.processes;
        summary.foreign_frees = old.foreign_frees;
        if !old.missing.is_empty() {
            // The old sentences can name files: only the fact is passed on.
            summary
                .missing
                .push("parts of the trace that this one was made from".into());
        }
        for (new, old) in summary.thread_table.iter_mut().zip(&old.thread_table) {
            (new.start_ns, new.end_ns) = (old.start_ns, old.end_ns);
        }
    })
}

fn map_block(numbers: &mut Vec<u32>, old: u32, new: u32) {
    let index = old as usize;
    if index >= numbers.len() {
        numbers.resize(index + 1, 0);
    }
    numbers[index] = new;
}

/// Appends an event of another trace, whose block numbers may differ.
fn copy_event(
    writer: &mut TraceWriter,
    numbers: &mut Vec<u32>,
    event: &TraceEvent,
) -> Result<(), TraceError> {
    let block = match event.kind.effect() {
        Effect::Resize | Effect::Free => numbers.get(event.block as usize).copied().unwrap_or(0),
        _ => 0,
    };
    let new = writer.event(TraceEvent { block, ..*event })?;
    if event.kind.effect() == Effect::Alloc {
        map_block(numbers, event.block, new);
    }
    Ok(())
}

/// Writes the events as CSV: `event,time_ns,thread,call,block,size,alignment`. Blocks are numbered by their allocation,
/// from 1; kinds without a block have 0.
pub fn export_csv(
    trace: &Trace,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let failed = |error| TraceError::io("write", Path::new("the table"), error);
    writeln!(out, "event,time_ns,thread,call,block,size,alignment").map_err(failed)?;
    let mut names: Vec<u64> = Vec::new();
    let mut allocations = 0u64;
    for (count, event) in trace.events().enumerate() {
        let event = event?;
        let index = event.block as usize;
        let name = match event.kind.effect() {
            Effect::None => 0,
            Effect::Alloc => {
                allocations += 1;
                if index >= names.len() {
                    names.resize(index + 1, 0);
                }
                names[index] = allocations;
                allocations
            }
            _ => names[index],
        };
        let alignment = if event.align_log2 == 0 {
            0
        } else {
            1u64 << event.align_log2
        };
        writeln!(
            out,
            "{count},{},{},{},{name},{},{alignment}",
            event.tick.saturating_mul(TICK_NS),
            event.thread,
            event.kind.name(),
            event.size
        )
        .map_err(failed)?;
        if count.is_multiple_of(1 << 18) {
            progress(count as u64, trace.summary().events);
        }
    }
    Ok(())
}
