//! Everything the threads of one run share. It lies in the worker's arena and lives to the process's end.

use crate::calls::Calls;
use crate::check::{Checker, Metas};
use crate::clock::Scale;
use crate::latency;
use crate::lockstep::Baton;
use crate::memory::Recorder;
use crate::op_clock::OpClock;
use crate::pace;
use crate::slots::Slots;
use crate::threads::Crew;
use hdrhistogram::Histogram;
use heaplab_script::Cursor;
use heaplab_script::file::Script;
use heaplab_worker::protocol::{Measure, Mode, RunSpec};
use std::cell::UnsafeCell;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// What the threads leave behind when they end.
pub struct Results {
    /// Calls made.
    pub calls: u64,
    /// Nanoseconds waited.
    pub wait_ns: u64,
    /// Nanoseconds paused after waits.
    pub slip_ns: u64,
    /// Nanoseconds slept.
    pub idle_ns: u64,
    /// Blocks of which it was told how much is written.
    pub told: u64,
    /// Histograms (`latency`).
    pub latency: latency::Set,
    /// How late ops were made (`paced`).
    pub late: Histogram<u64>,
}

/// One run.
pub struct World {
    /// What the harness asked for.
    pub spec: RunSpec,
    /// The ops.
    pub script: Script,
    /// Bytes of ops that a thread maps at a time, where the script is not mapped whole.
    pub window_bytes: usize,
    /// The subject's functions.
    pub calls: Calls,
    /// The slot table.
    pub slots: Slots,
    /// What is known of each slot's block (`memory` and integrity).
    pub metas: Metas,
    /// Integrity checks.
    pub checker: Checker,
    /// Ticks to nanoseconds.
    pub scale: Scale,
    /// The threads.
    pub crew: Crew,
    /// Whose turn it is, in lockstep.
    pub baton: Option<Baton>,
    /// When the ops began, monotonic nanoseconds; set before the gate opens.
    pub began_ns: AtomicU64,
    /// What the subjects' clock shows at the first op, where it follows recorded times without lockstep; set before the gate opens.
    pub clock_base: AtomicU64,
    op_clock: UnsafeCell<OpClock>,
    recorder: UnsafeCell<Recorder>,
    results: Mutex<Results>,
}

// SAFETY: `recorder` and `op_clock` are used only by the thread whose turn it is (lockstep), everything else is atomic, locked, constant,
// or handed over by a slot.
unsafe impl Sync for World {}

/// The parts a world is made of.
pub struct Parts {
    /// What the harness asked for.
    pub spec: RunSpec,
    /// The ops.
    pub script: Script,
    /// Bytes of ops that a thread maps at a time, where the script is not mapped whole.
    pub window_bytes: usize,
    /// The subject's functions.
    pub calls: Calls,
    /// The slot table.
    pub slots: Slots,
    /// One entry a slot where it is needed, else one.
    pub metas: Metas,
    /// Integrity checks.
    pub checker: Checker,
    /// Ticks to nanoseconds.
    pub scale: Scale,
    /// The threads.
    pub crew: Crew,
    /// Lockstep with several threads.
    pub baton: Option<Baton>,
    /// Memory's sums.
    pub recorder: Recorder,
}

impl World {
    /// Puts a world where it stays.
    pub fn settle(parts: Parts) -> &'static Self {
        let results = Results {
            calls: 0,
            wait_ns: 0,
            slip_ns: 0,
            idle_ns: 0,
            told: 0,
            latency: latency::none(),
            late: pace::none(),
        };
        Box::leak(Box::new(Self {
            spec: parts.spec,
            script: parts.script,
            window_bytes: parts.window_bytes,
            calls: parts.calls,
            slots: parts.slots,
            metas: parts.metas,
            checker: parts.checker,
            scale: parts.scale,
            crew: parts.crew,
            baton: parts.baton,
            began_ns: AtomicU64::new(0),
            clock_base: AtomicU64::new(0),
            op_clock: UnsafeCell::default(),
            recorder: UnsafeCell::new(parts.recorder),
            results: Mutex::new(results),
        }))
    }

    /// Memory's sums; only for the thread whose turn it is.
    #[inline(always)]
    pub fn recorder(&self) -> *mut Recorder {
        self.recorder.get()
    }

    /// The clock that subjects read while instructions are counted; only for the thread whose turn it is.
    pub fn op_clock(&self) -> *mut OpClock {
        self.op_clock.get()
    }

    /// Whether subjects read that clock: counts in lockstep.
    pub fn counts_in_order(&self) -> bool {
        self.spec.measure == Measure::Counts && self.spec.mode == Mode::Lockstep
    }

    /// Adds to what the threads leave behind.
    pub fn results<R>(&self, work: impl FnOnce(&mut Results) -> R) -> R {
        work(
            &mut self
                .results
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// A thread's ops from the beginning.
    pub fn cursor(&'static self, thread: u32) -> Cursor<'static> {
        self.script.cursor(thread as usize, self.window_bytes)
    }

    /// Whether a thread is there until everything is over, instead of ending with its stream.
    pub fn stays(&self, thread: u32) -> bool {
        let thread = thread as usize;
        self.script.exists_from_start(thread) || self.script.stays(thread)
    }

    /// A `ThreadStart` op.
    pub fn start_thread(&'static self, thread: u32) {
        self.crew.start(self, thread);
    }
}
