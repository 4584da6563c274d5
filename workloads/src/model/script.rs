//! From the ops of a played model to a script on disk.

use super::plan::Plan;
use super::play::{self, Played, Sink};
use crate::compile::{LINE, Progress};
use crate::error::WorkloadError;
use heaplab_script::{Op, ScriptInfo, ScriptWriter};
use std::path::Path;

impl Sink for ScriptWriter {
    fn successor(&mut self) -> Result<(), WorkloadError> {
        self.add_thread()?;
        Ok(())
    }

    fn ops(&mut self, thread: u32, ops: &[Op]) -> Result<(), WorkloadError> {
        Ok(self.append(thread, ops)?)
    }

    fn order(&mut self, thread: u32, count: u32) -> Result<(), WorkloadError> {
        Ok(ScriptWriter::order(self, thread, count)?)
    }
}

/// Plays a plan into a script at `out`, which appears only when it is whole.
pub fn write(plan: &Plan, out: &Path, progress: Progress<'_>) -> Result<ScriptInfo, WorkloadError> {
    let mut writer = ScriptWriter::create(out, plan.threads.len() as u32)?;
    if plan.separate {
        writer.settle();
    }
    for phase in plan.phases.iter().filter_map(|phase| phase.name.as_deref()) {
        writer.phase(phase);
    }
    // Drawing takes about two thirds of the time.
    let mut drawn = |done, total| progress(2 * done, 3 * total);
    let played = play::play(plan, &mut writer, &mut drawn)?;
    let too_many = || WorkloadError::Parameters("too many blocks are alive for a script".into());
    let mut bases = Vec::with_capacity(plan.threads.len());
    let mut next = 0u32;
    for used in &played.private_slots {
        bases.push(next);
        let used = used.checked_next_multiple_of(LINE).ok_or_else(too_many)?;
        next = next.checked_add(used).ok_or_else(too_many)?;
    }
    next.checked_add(played.shared_slots).ok_or_else(too_many)?;
    let info = ScriptInfo {
        private_slots: next,
        shared_slots: played.shared_slots,
        peak_live_bytes: played.peak_bytes,
        peak_live_blocks: played.peak_blocks,
        ..ScriptInfo::default()
    };
    let bases: Vec<u32> = played.pools.iter().map(|&pool| bases[pool]).collect();
    let calls = played.calls;
    let mut written = |done: u64, total: u64| {
        let part = calls as f64 * done as f64 / total as f64;
        progress(2 * calls + part as u64, 3 * calls);
    };
    Ok(writer.finish_relocated(info, &bases, next, &mut written)?)
}

struct Nothing;

impl Sink for Nothing {
    fn successor(&mut self) -> Result<(), WorkloadError> {
        Ok(())
    }

    fn ops(&mut self, _: u32, _: &[Op]) -> Result<(), WorkloadError> {
        Ok(())
    }

    fn order(&mut self, _: u32, _: u32) -> Result<(), WorkloadError> {
        Ok(())
    }
}

/// Tells ops by thread.
struct Listener<'a>(&'a mut dyn FnMut(u32, &Op));

impl Sink for Listener<'_> {
    fn successor(&mut self) -> Result<(), WorkloadError> {
        Ok(())
    }

    fn ops(&mut self, thread: u32, ops: &[Op]) -> Result<(), WorkloadError> {
        ops.iter().for_each(|op| (self.0)(thread, op));
        Ok(())
    }

    fn order(&mut self, _: u32, _: u32) -> Result<(), WorkloadError> {
        Ok(())
    }
}

/// Plays a plan for its figures and its ops, those of each thread in their order.
pub fn listen(plan: &Plan, take: &mut dyn FnMut(u32, &Op)) -> Result<Played, WorkloadError> {
    play::play(plan, &mut Listener(take), &mut |_, _| {})
}

/// Plays a plan for its figures alone.
pub fn dry(plan: &Plan) -> Result<Played, WorkloadError> {
    play::play(plan, &mut Nothing, &mut |_, _| {})
}
