//! The clock that subjects read where ops are made in a fixed order: it goes on with the ops, not with how fast the replay gets on,
//! so that what a subject does by the clock comes at the same op in every run.

use crate::sleepers::Sleepers;
use crate::steady::{self, STEP_NS};

/// What a call takes on it, nanoseconds: about what it takes with all checks.
pub const CALL_NS: u64 = 250;

/// The clock; by default subjects read the real one.
#[derive(Default)]
pub struct OpClock {
    /// What it shows at op 0; 0: subjects read the real one.
    start_ns: u64,
    /// What it has gone on since by calls, or by recorded times where the script has some.
    passed_ns: u64,
    /// Threads of the subject's own; `None`: they cannot be seen, or one of them never rests.
    sleepers: Option<Sleepers>,
    /// When they look at the clock next.
    next_step: u64,
}

impl OpClock {
    /// Begins: what subjects read now stands at `now_ns` of the monotonic clock, or where it has stood still until now.
    pub fn begin(&mut self, now_ns: u64, sleepers: Option<Sleepers>) {
        self.start_ns = steady::subject_clock(now_ns);
        self.passed_ns = 0;
        self.sleepers = sleepers;
    }

    /// Whether subjects read it.
    #[inline(always)]
    pub fn runs(&self) -> bool {
        self.start_ns != 0
    }

    /// Nanoseconds since op 0.
    #[inline(always)]
    pub fn passed_ns(&self) -> u64 {
        self.passed_ns
    }

    /// So many nanoseconds more have passed.
    #[inline(always)]
    pub fn passes(&mut self, ns: u64) {
        self.passed_ns += ns;
    }

    /// So many nanoseconds have passed since op 0; it never goes back.
    #[inline(always)]
    pub fn reaches(&mut self, ns: u64) {
        self.passed_ns = self.passed_ns.max(ns);
    }

    /// So much has passed that is no part of the recorded times.
    pub fn shift(&mut self, ns: u64) {
        self.start_ns += ns;
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.start_ns + self.passed_ns
    }

    /// Shows subjects how late it is.
    #[inline(always)]
    pub fn show(&self) {
        steady::set_subject_clock(self.now_ns());
    }

    /// Whether the subject's own threads are to look at it ([`OpClock::step`]) before it is shown: they see it in steps.
    #[inline(always)]
    pub fn steps(&self) -> bool {
        self.now_ns() >= self.next_step
    }

    /// Shows them how late it is, and waits until each has looked.
    #[cold]
    pub fn step(&mut self) {
        self.next_step = (self.now_ns() / STEP_NS + 1) * STEP_NS;
        let Some(sleepers) = self.sleepers.take() else {
            return;
        };
        // Who has begun to work, or has just been started, sees the time at which that was.
        let mut all = sleepers.settle(&[]);
        self.show();
        all &= sleepers.settle(&sleepers.wake());
        self.sleepers = all.then_some(sleepers);
    }
}
