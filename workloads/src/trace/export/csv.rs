//! Events as comma-separated values.

use crate::trace::error::TraceError;
use crate::trace::event::{Effect, TICK_NS, TraceEvent};
use crate::trace::reader::Trace;
use std::io::Write;
use std::path::Path;

/// Events between two calls of a progress function.
const PROGRESS: u64 = 1 << 17;

/// Gives blocks names that are never used again: the number of their allocation, from 1. Kinds without a block have 0.
#[derive(Default)]
pub(super) struct BlockNames {
    names: Vec<u64>,
    allocations: u64,
}

impl BlockNames {
    pub fn of(&mut self, event: &TraceEvent) -> u64 {
        let index = event.block as usize;
        match event.kind.effect() {
            Effect::None => 0,
            Effect::Alloc => {
                self.allocations += 1;
                if index >= self.names.len() {
                    self.names.resize(index + 1, 0);
                }
                self.names[index] = self.allocations;
                self.allocations
            }
            _ => self.names[index],
        }
    }
}

/// Writes the events as CSV: `event,time_ns,thread,call,block,size,alignment`, and `address` where addresses were kept.
/// Blocks are numbered by their allocation, from 1; kinds without a block have 0. `heaplab trace import` reads it back.
pub fn export_csv(
    trace: &Trace,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), TraceError> {
    let failed = |error| TraceError::io("write", Path::new("the table"), error);
    let kept = trace.has_addresses()?;
    let more = if kept { ",address" } else { "" };
    writeln!(out, "event,time_ns,thread,call,block,size,alignment{more}").map_err(failed)?;
    let mut names = BlockNames::default();
    for (count, event) in (0u64..).zip(trace.events()) {
        let event = event?;
        let name = names.of(&event);
        let alignment = match event.align_log2 {
            0 => 0,
            log2 => 1u64 << log2,
        };
        write!(
            out,
            "{count},{},{},{},{name},{},{alignment}",
            event.tick.saturating_mul(TICK_NS),
            event.thread,
            event.kind.name(),
            event.size
        )
        .and_then(|()| match kept {
            true => writeln!(out, ",{}", event.address),
            false => writeln!(out),
        })
        .map_err(failed)?;
        if count.is_multiple_of(PROGRESS) {
            progress(count, trace.summary().events);
        }
    }
    Ok(())
}
