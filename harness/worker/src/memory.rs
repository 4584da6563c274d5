//! `memory`: requested, usable and resident bytes over the ops, in lockstep, so that the first two are exact at every
//! sample and the same in every run.

use crate::clock;
use crate::op_clock::{CALL_NS, OpClock};
use crate::own_time::OwnTime;
use crate::probe::Probe;
use crate::sleepers::{Roll, Sleepers};
use crate::statm;
use crate::steady::STEP_NS;
use crate::world::World;
use heaplab_worker::fill::{Fill, Fills};
use heaplab_worker::peak::{Instant, Peak};
use heaplab_worker::protocol::MemoryCurve;
use std::ffi::c_void;

/// Samples between two points of the curve, for the peak and the averages.
const DENSE: u64 = 8;
/// Below this many live bytes that are written the footprint says nothing.
const LIVE_FLOOR: u64 = 64 << 10;
/// Samples during the idle tail, and as many during the trickle.
const TAIL_SAMPLES: u64 = 20;
/// With recorded times: a time without ops is slept from this length on, so that a thread of the subject's own gets it too, and
/// all of them together no longer than this; beyond, only the clock goes on.
const REST_NS: u64 = 1_000_000;
const RESTS_NS: u64 = 10_000_000_000;
/// A walk of all page tables may take this share of the time that has passed: one part in so many.
const WALK_SHARE: u64 = 20;

/// A time in steps of the clock that the subject's own threads see, and what is left.
fn slices(ns: u64) -> impl Iterator<Item = u64> {
    (0..ns.div_ceil(STEP_NS)).map(move |step| STEP_NS.min(ns - step * STEP_NS))
}

/// The probe: all state is in the world's [`Recorder`], which the thread whose turn it is may use.
pub struct Memory {
    world: &'static World,
}

impl Probe for Memory {
    const TRACKS: bool = true;
    const SLEEPS: bool = true;

    fn new(world: &'static World) -> Self {
        Self { world }
    }

    #[inline(always)]
    fn at(&mut self, ns: u64, thread: u32) {
        // SAFETY: as below.
        unsafe { (*self.world.recorder()).at(ns, thread) };
    }

    #[inline(always)]
    fn done(&mut self) {
        // SAFETY: as below.
        unsafe { (*self.world.recorder()).done() };
    }

    fn fills(&mut self, fill: Fill) {
        // SAFETY: as below; the block has just been allocated, and the engine says when it leaves.
        unsafe { (*self.world.recorder()).fills(fill) };
    }

    #[inline(always)]
    fn leaves(&mut self, start: *const c_void) {
        // SAFETY: as below.
        unsafe { (*self.world.recorder()).leaves(start) };
    }

    fn sleep(&mut self, ns: u64) {
        // SAFETY: as below.
        unsafe { (*self.world.recorder()).sleep(ns) };
    }

    #[inline(always)]
    fn moved(&mut self, live: i64, usable: i64, unwritten: i64) {
        // SAFETY: memory is measured in lockstep only, and the thread whose turn it is is the only one here.
        unsafe { (*self.world.recorder()).moved(live, usable, unwritten) };
    }
}

/// Everything counted during the run.
#[derive(Default)]
pub struct Recorder {
    calls: u64,
    live: u64,
    usable: u64,
    /// Of the live bytes those that are never written.
    unwritten: u64,
    start_ns: u64,
    /// The clock that subjects read.
    clock: OpClock,
    /// It goes by recorded times.
    timed: bool,
    /// How it differs from the recorded times; `None`: not at all.
    own_time: Option<OwnTime>,
    /// Of recorded times without ops those that were slept.
    rested_ns: u64,
    /// Call number of the next sample, of the next point of the curve, and their distances.
    next_sample: u64,
    next_point: u64,
    sample_step: u64,
    point_step: u64,
    /// Largest live bytes at a sample, and the level at which a new maximum is sampled at once.
    sampled_live: u64,
    live_alarm: u64,
    last_sample: u64,
    baseline: u64,
    /// Sums for the averages, each × calls: resident, resident without the bare worker's, live and written.
    resident_sum: u128,
    own_sum: u128,
    written_sum: u128,
    /// Time spent walking page tables, the lazily freed bytes it found last, and whether it found some of the subject that are
    /// not anonymous.
    walked_ns: u64,
    lazyfree: u64,
    elsewhere: bool,
    /// Blocks that are being filled, and what was written of them since the last sample.
    fills: Fills,
    filled: u64,
    peak: Peak,
    curve: MemoryCurve,
}

impl Recorder {
    /// A recorder for a run of `calls` calls with about `points` points.
    pub fn new(calls: u64, points: u32, baseline: u64, own_time: Option<OwnTime>) -> Self {
        let points = u64::from(points.max(2));
        let room = points as usize * 2 + 2 * TAIL_SAMPLES as usize + 64;
        let column = || Vec::with_capacity(room);
        Self {
            point_step: (calls / points).max(1),
            sample_step: (calls / (points * DENSE)).max(1),
            baseline,
            own_time,
            fills: Fills::new(),
            curve: MemoryCurve {
                ops: column(),
                time_ns: column(),
                live_bytes: column(),
                usable_bytes: column(),
                resident_bytes: column(),
                lazyfree_bytes: column(),
                ..MemoryCurve::default()
            },
            ..Self::default()
        }
    }

    /// The first point, before the first op.
    pub fn start(&mut self, clock_of_ops: bool, own: Roll) {
        self.start_ns = clock::now_ns();
        if clock_of_ops {
            self.clock.begin(self.start_ns, Sleepers::new(own, false));
            self.show();
        }
        self.sample();
    }

    /// Shows the subject how late it is; its own threads see that in steps.
    #[inline(always)]
    fn show(&mut self) {
        if self.clock.steps() {
            self.apart(|recorder| recorder.clock.step());
        }
        self.clock.show();
    }

    /// What the harness does by itself between two ops is no time of the subject's.
    fn apart(&mut self, work: impl FnOnce(&mut Self)) {
        let Some(apart) = self.own_time.as_ref().map(OwnTime::apart) else {
            return work(self);
        };
        let began = clock::thread_cpu_ns();
        work(self);
        if let Some(own_time) = &mut self.own_time {
            own_time.set_apart(apart + clock::thread_cpu_ns() - began);
        }
    }

    #[inline(always)]
    fn moved(&mut self, live: i64, usable: i64, unwritten: i64) {
        self.calls += 1;
        if self.clock.runs() && !self.timed {
            self.clock.passes(CALL_NS);
            self.show();
        }
        self.live = self.live.wrapping_add_signed(live);
        self.usable = self.usable.wrapping_add_signed(usable);
        self.unwritten = self.unwritten.wrapping_add_signed(unwritten);
        if self.live > self.curve.peak_live_bytes {
            self.curve.peak_live_bytes = self.live;
            self.curve.usable_at_peak_live_bytes = self.usable;
            self.curve.unwritten_at_peak_live_bytes = self.unwritten;
        }
        if self.calls >= self.next_sample || self.live > self.live_alarm {
            self.sample();
        }
    }

    /// Reads the resident bytes and books them for the calls since the last sample.
    #[inline(never)]
    fn sample(&mut self) {
        self.apart(Self::looks);
    }

    fn looks(&mut self) {
        let at_point = self.calls >= self.next_point;
        if at_point {
            self.walk_if_cheap();
        }
        let resident = self.resident();
        let weight = self.calls - self.last_sample;
        self.last_sample = self.calls;
        self.filled = 0;
        self.resident_sum += u128::from(resident) * u128::from(weight);
        let own = resident.saturating_sub(self.baseline);
        self.own_sum += u128::from(own) * u128::from(weight);
        self.written_sum += u128::from(self.live - self.unwritten) * u128::from(weight);
        self.peak.look(Instant {
            resident,
            live: self.live,
            usable: self.usable,
            unwritten: self.unwritten,
        });
        if self.live >= self.sampled_live {
            self.sampled_live = self.live;
            self.live_alarm = self.live + (self.live / 100).max(LIVE_FLOOR);
            self.curve.resident_at_peak_live_bytes = resident;
        }
        self.next_sample = self.calls + self.sample_step;
        if at_point {
            self.point(resident);
            self.next_point = self.calls + self.point_step;
        }
    }

    /// Resident bytes: anonymous ones, and where a walk has found others of the subject's, those too.
    fn resident(&mut self) -> u64 {
        let mut bytes = statm::anonymous_bytes();
        if self.elsewhere {
            let elsewhere = statm::hugetlb_bytes() + statm::subjects_shared_bytes();
            self.curve.elsewhere_bytes = self.curve.elsewhere_bytes.max(elsewhere);
            bytes += elsewhere;
        }
        bytes
    }

    /// A point of the tail.
    fn tail_point(&mut self) {
        self.walk_if_cheap();
        let resident = self.resident();
        self.point(resident);
    }

    fn walk_if_cheap(&mut self) {
        let elapsed = clock::now_ns() - self.start_ns;
        if self.walked_ns <= elapsed / WALK_SHARE {
            self.walk();
        }
    }

    fn point(&mut self, resident: u64) {
        let elapsed = clock::now_ns() - self.start_ns;
        self.curve.lazyfree_bytes.push(self.lazyfree);
        self.curve.ops.push(self.calls);
        self.curve.time_ns.push(elapsed);
        self.curve.live_bytes.push(self.live);
        self.curve.usable_bytes.push(self.usable);
        self.curve.resident_bytes.push(resident);
    }

    /// Reads the exact `smaps_rollup`: compares `statm` with it, notes the lazily freed bytes, and looks for memory that is not anonymous.
    fn walk(&mut self) {
        let start = clock::now_ns();
        let quick = statm::anonymous_bytes();
        if let Some(exact) = statm::rollup() {
            let difference = quick.abs_diff(exact.anonymous);
            self.curve.sampling_error_bytes = self.curve.sampling_error_bytes.max(difference);
            self.lazyfree = exact.lazyfree;
            self.curve.huge_bytes = self.curve.huge_bytes.max(exact.huge);
            self.elsewhere |= exact.hugetlb > 0;
        }
        self.elsewhere |= statm::subjects_shared_bytes() > 0;
        self.walked_ns += clock::now_ns() - start;
    }

    /// Time that is slept passes on the subjects' clock as well.
    fn sleep(&mut self, ns: u64) {
        for slice in slices(ns) {
            clock::sleep_ns(slice);
            self.passes(slice);
        }
    }

    fn passes(&mut self, ns: u64) {
        if self.clock.runs() {
            self.clock.shift(ns);
            self.show();
        }
    }

    /// The next op was made at this time of the recording.
    #[inline(always)]
    fn at(&mut self, ns: u64, thread: u32) {
        if !self.clock.runs() {
            return;
        }
        self.timed = true;
        let ns = match &mut self.own_time {
            Some(own_time) => own_time.shown(ns, thread),
            None => ns,
        };
        let gap = ns.saturating_sub(self.clock.passed_ns());
        if gap >= REST_NS {
            self.rest(gap);
        }
        self.clock.reaches(ns);
        self.show();
        if let Some(own_time) = &mut self.own_time {
            own_time.begin();
        }
        if !self.fills.is_empty() {
            let bytes = self.fills.advance(self.clock.passed_ns());
            self.wrote(bytes);
        }
    }

    #[inline(always)]
    fn done(&mut self) {
        if let (Some(own_time), true) = (&mut self.own_time, self.timed) {
            own_time.end();
        }
    }

    /// # Safety
    /// As for [`Fills::begin`].
    unsafe fn fills(&mut self, fill: Fill) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.fills.begin(self.clock.passed_ns(), fill) };
        self.wrote(bytes);
    }

    #[inline(always)]
    fn leaves(&mut self, start: *const c_void) {
        if !self.fills.is_empty() {
            let bytes = self.fills.leaves(start);
            self.wrote(bytes);
        }
    }

    /// What is written of a block that is being filled raises the resident bytes without a call.
    fn wrote(&mut self, bytes: usize) {
        self.filled += bytes as u64;
        if self.filled > (self.live / 100).max(LIVE_FLOOR) {
            self.sample();
        }
    }

    #[cold]
    fn rest(&mut self, ns: u64) {
        let rest = ns.min(RESTS_NS - self.rested_ns);
        self.rested_ns += rest;
        self.apart(|recorder| {
            for slice in slices(rest) {
                clock::sleep_ns(slice);
                recorder.clock.passes(slice);
                recorder.show();
            }
        });
    }

    /// The last point, and the idle tail: this thread sleeps, as all others do.
    pub fn end(&mut self, idle_tail_ms: u64) {
        self.next_point = self.calls;
        self.walked_ns = 0;
        self.sample();
        if idle_tail_ms > 0 {
            for _ in 0..TAIL_SAMPLES {
                let step = idle_tail_ms * 1_000_000 / TAIL_SAMPLES;
                self.sleep(step);
                self.tail_point();
            }
            self.walk();
            self.curve.after_idle_bytes = Some(self.resident());
            self.curve.lazyfree_after_idle_bytes = self.lazyfree;
        }
    }

    /// The trickle: a round of calls each millisecond, which do not count.
    pub fn trickle(&mut self, trickle_ms: u64, round: impl Fn()) {
        if trickle_ms == 0 {
            return;
        }
        let start = clock::now_ns();
        for step in 1..=trickle_ms {
            round();
            clock::sleep_until_ns(start + step * 1_000_000);
            self.passes(1_000_000);
            if step.is_multiple_of((trickle_ms / TAIL_SAMPLES).max(1)) {
                self.tail_point();
            }
        }
        self.curve.after_trickle_bytes = Some(self.resident());
    }

    /// The finished curve.
    pub fn curve(&self) -> MemoryCurve {
        let mut curve = self.curve.clone();
        let at_peak = self.peak.instant;
        curve.peak_resident_bytes = self.peak.resident;
        curve.resident_at_peak_resident_bytes = at_peak.resident;
        curve.live_at_peak_resident_bytes = at_peak.live;
        curve.usable_at_peak_resident_bytes = at_peak.usable;
        curve.unwritten_at_peak_resident_bytes = at_peak.unwritten;
        curve.mean_resident_bytes = match self.calls {
            0 => curve.peak_resident_bytes,
            calls => (self.resident_sum / u128::from(calls)) as u64,
        };
        // A ratio of averages: in an average of ratios the calls after everything was freed count most.
        let floor = u128::from(LIVE_FLOOR) * u128::from(self.calls.max(1));
        curve.footprint_mean =
            (self.written_sum >= floor).then(|| self.own_sum as f64 / self.written_sum as f64);
        curve
    }
}
