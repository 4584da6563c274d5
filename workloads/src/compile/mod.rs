//! The compiler: events with block numbers in one global order become a script with slots and generations.
//!
//! Two passes over the source. The first finds the blocks that cross threads; the second gives out slots. A block
//! that one thread allocates, resizes and frees gets a private slot, dense and recycled last-in-first-out. All others
//! get a shared slot, whose generation orders exactly the ops on that block and nothing else. The global order is a
//! witness that every wait ends: executed in that order, no op ever waits.

mod ownership;
mod slots;

use crate::error::WorkloadError;
use heaplab_script::{Op, OpKind, ScriptInfo, ScriptWriter};
use ownership::Ownership;
use slots::Slots;
pub(crate) use slots::{LINE, SLACK};
use std::path::Path;

/// What happens in one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A block appears. `kind` is one of the allocating kinds.
    Alloc {
        /// Malloc, Calloc or AlignedAlloc.
        kind: OpKind,
        /// Number of the block: free at this moment, used again after its free. Sources keep numbers dense.
        block: u32,
        /// Bytes requested.
        size: u64,
        /// log2 of the alignment, 0 = default.
        align_log2: u8,
    },
    /// A live block changes its size.
    Realloc {
        /// Number of the block.
        block: u32,
        /// Bytes requested.
        size: u64,
    },
    /// A live block is freed.
    Free {
        /// Number of the block.
        block: u32,
    },
    /// The thread sleeps.
    Idle {
        /// For so many nanoseconds.
        ns: u64,
    },
    /// A phase begins.
    Mark {
        /// Index into the source's phases.
        phase: u32,
    },
    /// The thread starts another one, which has had no event yet.
    Start {
        /// The other one.
        thread: u32,
    },
    /// Of the block that this thread's next event allocates or resizes only so much is written.
    Written {
        /// The first of its bytes.
        bytes: u64,
        /// Of these the first are written at once.
        at_once: u64,
        /// The others little by little in so many nanoseconds; 0: at once as well.
        over_ns: u64,
    },
    /// The thread ends; its last event.
    End,
    /// No event of its own: what follows is to be made so many nanoseconds after the beginning. Only of sources that are
    /// [`Source::timed`]; never decreasing.
    At {
        /// Nanoseconds since the beginning.
        ns: u64,
    },
}

/// One event of the global order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who acts; numbers are dense from 0.
    pub thread: u32,
    /// What happens.
    pub action: Action,
}

/// Something that can tell its events, in the same order each time it is asked.
pub trait Source {
    /// Names of phases.
    fn phases(&self) -> Vec<String>;

    /// About how many events one telling has (for progress).
    fn expected_events(&self) -> u64;

    /// Whether the events are told with their times ([`Action::At`]).
    fn timed(&self) -> bool {
        false
    }

    /// Threads that were still there when the program ended. Asked after the last telling.
    fn staying(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Recorded idle time that is left out of the events, nanoseconds. Asked after the last telling.
    fn idle_dropped_ns(&self) -> u64 {
        0
    }

    /// Tells all events in order; stops at the first error of `take`.
    fn tell<F>(&mut self, take: F) -> Result<(), WorkloadError>
    where
        F: FnMut(Event) -> Result<(), WorkloadError>;
}

/// Called now and then with (done, total); `total` may be an estimate.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Events between two calls of the progress function.
const PROGRESS_STEP: u64 = 1 << 18;

/// Compiles a source into a script at `out`, which appears only when it is whole.
pub fn compile<S: Source>(
    source: &mut S,
    out: &Path,
    progress: Progress<'_>,
) -> Result<ScriptInfo, WorkloadError> {
    let expected = source.expected_events();
    let mut done = 0u64;
    let mut ownership = Ownership::default();
    source.tell(|event| {
        if matches!(event.action, Action::At { .. }) {
            return Ok(());
        }
        ownership.take(event, done)?;
        done += 1;
        if done.is_multiple_of(PROGRESS_STEP) {
            progress(done, 2 * expected.max(done));
        }
        Ok(())
    })?;
    let first_pass = done;
    let threads = ownership.threads();
    let mut writer = ScriptWriter::create(out, threads)?;
    for name in source.phases() {
        writer.phase(&name);
    }
    let timed = source.timed();
    if timed {
        writer.timed();
    }
    let mut now = 0;
    let mut slots = Slots::new(&ownership);
    let mut event_number = 0u64;
    source.tell(|event| {
        if let Action::At { ns } = event.action {
            now = ns;
            return Ok(());
        }
        let op = slots.take(event, event_number)?;
        writer.push(event.thread, op)?;
        if timed {
            writer.time(event.thread, now)?;
        }
        writer.order(event.thread, 1)?;
        event_number += 1;
        if event_number.is_multiple_of(PROGRESS_STEP) {
            let done = first_pass + event_number;
            progress(done, (first_pass + expected).max(done));
        }
        Ok(())
    })?;
    for thread in source.staying() {
        writer.stays(thread)?;
    }
    let plan = slots.finish()?;
    let info = ScriptInfo {
        private_slots: plan.private_slots,
        shared_slots: plan.shared_slots,
        peak_live_bytes: plan.peak_live_bytes,
        peak_live_blocks: plan.peak_live_blocks,
        idle_dropped_ns: source.idle_dropped_ns(),
        ..ScriptInfo::default()
    };
    let total = first_pass + event_number;
    let (bases, shared) = (&plan.private_base, plan.private_slots);
    let info = writer.finish_relocated(info, bases, shared, &mut |_, _| progress(total, total))?;
    progress(total, total);
    Ok(info)
}

/// The op of an event that touches no block.
fn plain_op(action: Action) -> Option<Op> {
    Some(match action {
        Action::Idle { ns } => Op::new(OpKind::Idle, 0, 0, 0, ns.min(heaplab_script::MAX_SIZE), 0),
        Action::Mark { phase } => Op::new(OpKind::Mark, 0, 0, 0, u64::from(phase), 0),
        Action::Written {
            bytes,
            at_once,
            over_ns,
        } => Op::written(bytes, at_once, over_ns),
        Action::End => Op::new(OpKind::ThreadEnd, 0, 0, 0, 0, 0),
        Action::Start { thread } => Op::new(OpKind::ThreadStart, 0, 0, thread, 0, 0),
        _ => return None,
    })
}
