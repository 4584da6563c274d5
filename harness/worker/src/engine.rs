//! The replay loop, made once for each combination of probe, touch policy, checks and sized frees, so that the loop
//! that is timed has no branch it does not need.

mod any;
mod plain;

use crate::callgrind;
use crate::calls::Calls;
use crate::check::Place;
use crate::fail;
use crate::numbers::grouped;
use crate::op_clock::CALL_NS;
use crate::pace::Pace;
use crate::probe::Probe;
use crate::steady;
use crate::touch;
use crate::waiting::Waits;
use crate::world::World;
use heaplab_script::{Cursor, Op, OpKind, Part};
use heaplab_worker::protocol::RunSpec;
use plain::{GROUP, PRIVATE_FREE, PRIVATE_MALLOC, word};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Ops between two times that the subjects' clock shows while instructions are counted.
const TICK_OPS: usize = 1024;
/// How many ops ahead a slot is asked for.
const AHEAD: usize = 8;
const MALLOC: u8 = OpKind::Malloc as u8;
const CALLOC: u8 = OpKind::Calloc as u8;
const ALIGNED: u8 = OpKind::AlignedAlloc as u8;
const REALLOC: u8 = OpKind::Realloc as u8;
const FREE: u8 = OpKind::Free as u8;

/// One thread's replay.
pub struct Player<P> {
    world: &'static World,
    /// Own copies of what the loop needs all the time.
    calls: Calls,
    /// The first private slot.
    private: *mut u64,
    thread: u32,
    /// Number of the next op.
    next: u64,
    /// The measure's hooks.
    pub probe: P,
    /// Calls of the malloc family made; wraps below 0 within a stretch.
    pub made: u64,
    /// For other threads' blocks.
    pub waits: Waits,
    /// Nanoseconds slept for idle ops.
    pub idle_ns: u64,
    /// Touch `recorded`: how much of the next block is written; [`usize::MAX`]: all.
    reach: usize,
    /// Of that the share that is written at once, and the nanoseconds in which the rest is.
    fill: Option<(u64, f64)>,
    /// Blocks of which it was told how much is written.
    pub told: u64,
    /// `paced`: when ops are made.
    pub pace: Option<Pace>,
}

/// A loop for one combination: plays the given ops, which follow those played before.
pub type Play<P> = fn(&mut Player<P>, &[Op]);

/// Picks the loop for a run.
pub fn pick<P: Probe>(spec: &RunSpec, sized: bool) -> Play<P> {
    macro_rules! by_touch {
        ($check:literal, $sized:literal) => {
            match touch::number(spec.touch) {
                touch::NONE => Player::<P>::play::<{ touch::NONE }, $check, $sized>,
                touch::FIRST => Player::<P>::play::<{ touch::FIRST }, $check, $sized>,
                touch::PAGE => Player::<P>::play::<{ touch::PAGE }, $check, $sized>,
                touch::RECORDED => Player::<P>::play::<{ touch::RECORDED }, $check, $sized>,
                _ => Player::<P>::play::<{ touch::ALL }, $check, $sized>,
            }
        };
    }
    match (spec.integrity, sized) {
        (false, false) => by_touch!(false, false),
        (false, true) => by_touch!(false, true),
        (true, false) => by_touch!(true, false),
        (true, true) => by_touch!(true, true),
    }
}

impl<P: Probe> Player<P> {
    /// A player for one thread of the script, before its first op.
    pub fn new(world: &'static World, thread: u32) -> Self {
        Self {
            world,
            calls: world.calls,
            private: world.slots.first(),
            thread,
            next: 0,
            probe: P::new(world),
            made: 0,
            waits: Waits::default(),
            idle_ns: 0,
            reach: usize::MAX,
            fill: None,
            told: 0,
            pace: None,
        }
    }

    /// Plays the next `count` ops of a thread's stream, or what is left of it.
    pub fn plays(&mut self, play: Play<P>, cursor: &mut Cursor<'_>, count: u64) {
        let mut left = count.min(cursor.left());
        while left > 0 {
            match cursor.next(left) {
                Ok(part) => {
                    left -= part.ops.len() as u64;
                    match self.pace.take() {
                        None if self.follows_clock() && !part.times.is_empty() => {
                            self.clocked(play, part);
                        }
                        None if self.world.counts_in_order() => self.ticking(play, part),
                        None => play(self, part.ops),
                        Some(pace) => self.pace = Some(self.paced(play, part, pace)),
                    }
                }
                Err(error) => fail::with(error.to_string()),
            }
        }
    }

    /// Plays ops one by one, each at its time.
    fn paced(&mut self, play: Play<P>, part: Part<'_>, mut pace: Pace) -> Pace {
        for (op, time) in part.ops.iter().zip(part.times) {
            if pace.is_early(*time) {
                self.probe.rests();
            }
            let intended = pace.wait(*time);
            self.probe.intends(intended);
            play(self, std::slice::from_ref(op));
        }
        pace
    }

    /// Whether the subjects' clock goes by the script's times, where it has some.
    fn follows_clock(&self) -> bool {
        P::TRACKS || self.world.spec.recorded_clock.is_some()
    }

    /// Plays ops while the subjects' clock shows the recorded times.
    fn clocked(&mut self, play: Play<P>, part: Part<'_>) {
        let base = self.world.clock_base.load(Ordering::Relaxed);
        for (op, time) in part.ops.iter().zip(part.times) {
            if !P::TRACKS {
                steady::advance_subject_clock(base + time);
            }
            self.probe.at(*time, self.thread);
            play(self, std::slice::from_ref(op));
            self.probe.done();
        }
    }

    /// Plays ops while the subjects' clock goes on between stretches of them, so that nothing is added to any.
    fn ticking(&mut self, play: Play<P>, part: Part<'_>) {
        // SAFETY: it is this thread's turn, or it is the only one.
        let op_clock = unsafe { &mut *self.world.op_clock() };
        let mut played = 0;
        for ops in part.ops.chunks(TICK_OPS) {
            play(self, ops);
            played += ops.len();
            match part.times.get(played - 1) {
                Some(time) => op_clock.reaches(*time),
                None => op_clock.passes(ops.len() as u64 * CALL_NS),
            }
            if op_clock.steps() {
                callgrind::apart(|| op_clock.step());
            }
            op_clock.show();
        }
    }

    fn play<const TOUCH: u8, const CHECK: bool, const SIZED: bool>(&mut self, ops: &[Op]) {
        // The last ops have none so far ahead of them.
        let (far, near) = ops.split_at(ops.len().saturating_sub(AHEAD));
        self.stretch::<TOUCH, CHECK, SIZED, true>(far);
        self.stretch::<TOUCH, CHECK, SIZED, false>(near);
    }

    /// Plays consecutive ops; with `LOOK` at least [`AHEAD`] more lie behind them.
    #[inline(always)]
    fn stretch<const TOUCH: u8, const CHECK: bool, const SIZED: bool, const LOOK: bool>(
        &mut self,
        ops: &[Op],
    ) {
        // Most ops are a malloc or free of a private slot, and in a run without checks and stamps they need nothing else
        // than the call: everything more is paid by every op of every subject.
        let plain = P::BARE && !CHECK;
        let Range { start, end } = ops.as_ptr_range();
        let mut at = start;
        while at != end {
            let mut singly = 1;
            if plain && LOOK && end.addr() - at.addr() >= size_of::<[Op; GROUP]>() {
                // SAFETY: the caller says that AHEAD ops lie behind the end.
                at = unsafe { self.groups::<TOUCH, SIZED>(start, at, end) };
                singly = GROUP.min((end.addr() - at.addr()) / size_of::<Op>());
            }
            for _ in 0..singly {
                // SAFETY: between the ends of the slice.
                let op = unsafe { &*at };
                match word(op) {
                    PRIVATE_MALLOC if plain => self.plain_malloc::<TOUCH>(self.private, start, op),
                    PRIVATE_FREE if plain => self.plain_free::<SIZED>(self.private, op),
                    _ => {
                        if LOOK {
                            // SAFETY: the caller says that there are so many ops more.
                            self.world.slots.prefetch(unsafe { &*at.add(AHEAD) });
                        }
                        self.any::<TOUCH, CHECK, SIZED>(start, op);
                    }
                }
                at = at.wrapping_add(1);
            }
        }
        self.next += ops.len() as u64;
        self.made = self.made.wrapping_add(ops.len() as u64);
    }

    /// Where an op stands in the script; `start` is the first of the stretch that is played.
    #[inline(always)]
    fn place(&self, start: *const Op, op: *const Op) -> Place {
        let index = (op.addr() - start.addr()) / size_of::<Op>();
        Place {
            thread: self.thread,
            op: self.next + index as u64,
        }
    }

    /// The subject gave no block.
    #[cold]
    #[inline(never)]
    fn null(&self, start: *const Op, op: &Op) {
        if op.size() > 0 {
            refused(self.place(start, op), OpKind::Malloc, op.size());
        }
    }

    /// How much of a fresh block of `size` bytes is written.
    #[inline(always)]
    fn reached<const TOUCH: u8>(&mut self, size: usize) -> usize {
        if TOUCH == touch::RECORDED {
            std::mem::replace(&mut self.reach, usize::MAX).min(size)
        } else {
            size
        }
    }

    #[cold]
    fn other(&mut self, op: &Op) {
        match op.kind() {
            Some(OpKind::Idle) if P::SLEEPS => {
                self.probe.sleep(op.size());
                self.idle_ns += op.size();
            }
            Some(OpKind::Written) => {
                self.reach = op.size() as usize;
                if P::TRACKS {
                    self.fill = op.filled_in();
                }
                self.told += 1;
            }
            Some(OpKind::ThreadStart) => self.world.start_thread(op.slot),
            // The stream of a thread that ends has no further op.
            _ => {}
        }
    }
}

#[cold]
fn refused(place: Place, kind: OpKind, size: u64) -> ! {
    let name = match kind {
        OpKind::Calloc => "calloc",
        OpKind::AlignedAlloc => "aligned_alloc",
        OpKind::Realloc => "realloc",
        _ => "malloc",
    };
    fail::with(format!(
        "{name} of {} bytes returned null at op {} of thread {}",
        grouped(size),
        grouped(place.op),
        place.thread
    ))
}
