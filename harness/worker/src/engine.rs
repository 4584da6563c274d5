//! The replay loop, made once for each combination of probe, touch policy, checks and sized frees, so that the loop
//! that is timed has no branch it does not need.

use crate::calls::Calls;
use crate::check::{Block, Meta, Place};
use crate::clock;
use crate::fail;
use crate::numbers::grouped;
use crate::pace::Pace;
use crate::probe::{Call, Probe};
use crate::slots::prefetch;
use crate::touch::{self, touch};
use crate::world::World;
use heaplab_script::{Cursor, FLAG_INHERITED, FLAG_SHARED, Op, OpKind, Part};
use heaplab_worker::protocol::RunSpec;
use std::ffi::c_void;
use std::ops::Range;

/// How many ops ahead a slot is asked for.
const AHEAD: usize = 8;
const MALLOC: u8 = OpKind::Malloc as u8;
const CALLOC: u8 = OpKind::Calloc as u8;
const ALIGNED: u8 = OpKind::AlignedAlloc as u8;
const REALLOC: u8 = OpKind::Realloc as u8;
const FREE: u8 = OpKind::Free as u8;
/// Ops that are looked at together.
const GROUP: usize = 4;
const _: () = assert!(MALLOC == 0 && FREE.is_power_of_two() && AHEAD >= GROUP);
const PRIVATE_MALLOC: u16 = MALLOC as u16;
const PRIVATE_FREE: u16 = FREE as u16;

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
    /// Nanoseconds waited for other threads' blocks.
    pub wait_ns: u64,
    /// Nanoseconds slept for idle ops.
    pub idle_ns: u64,
    /// Touch `recorded`: how much of the next block is written; [`usize::MAX`]: all.
    reach: usize,
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
            wait_ns: 0,
            idle_ns: 0,
            reach: usize::MAX,
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
            self.probe.rests();
            let intended = pace.wait(*time);
            self.probe.intends(intended);
            play(self, std::slice::from_ref(op));
        }
        pace
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
            if plain && LOOK && end.addr() - at.addr() >= size_of::<[Op; GROUP]>() {
                // SAFETY: as many ops lie before the end, and AHEAD more behind it.
                let (group, ahead) =
                    unsafe { (&*at.cast::<[Op; GROUP]>(), &*at.add(AHEAD).cast()) };
                if let Some(pattern) = pattern(group) {
                    self.group::<TOUCH, SIZED>(start, group, ahead, pattern);
                    at = at.wrapping_add(GROUP);
                    continue;
                }
            }
            // SAFETY: between the ends of the slice.
            let op = unsafe { &*at };
            match word(op) {
                PRIVATE_MALLOC if plain => self.plain_malloc::<TOUCH>(start, op),
                PRIVATE_FREE if plain => self.plain_free::<SIZED>(op),
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
        self.next += ops.len() as u64;
        self.made = self.made.wrapping_add(ops.len() as u64);
    }

    /// Plays four plain ops. Whether the next op allocates or frees is anybody's guess, and a wrong guess costs the CPU
    /// more than a whole call; here it guesses once for four.
    #[inline(always)]
    fn group<const TOUCH: u8, const SIZED: bool>(
        &mut self,
        start: *const Op,
        group: &[Op; GROUP],
        ahead: &[Op; GROUP],
        pattern: u32,
    ) {
        for op in ahead {
            prefetch(self.private.wrapping_add(op.slot as usize));
        }
        macro_rules! unrolled {
            ($($number:literal)*) => {
                match pattern {
                    $($number => self.four::<TOUCH, SIZED, $number>(start, group),)*
                    // SAFETY: a pattern has four bits.
                    _ => unsafe { std::hint::unreachable_unchecked() },
                }
            };
        }
        unrolled!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }

    #[inline(always)]
    fn four<const TOUCH: u8, const SIZED: bool, const PATTERN: u32>(
        &mut self,
        start: *const Op,
        group: &[Op; GROUP],
    ) {
        for (index, op) in group.iter().enumerate() {
            if PATTERN >> index & 1 == 0 {
                self.plain_malloc::<TOUCH>(start, op);
            } else {
                self.plain_free::<SIZED>(op);
            }
        }
    }

    #[inline(always)]
    fn plain_malloc<const TOUCH: u8>(&mut self, start: *const Op, op: &Op) {
        let size = op.size() as usize;
        // SAFETY: any size may be asked for; the reader has checked the slot, and private slots are used by one thread at
        // a time; the subject gave a block of `size` bytes.
        unsafe {
            let block = (self.calls.malloc)(size);
            (self.private.wrapping_add(op.slot as usize)).write(block as u64);
            if block.is_null() {
                self.null(start, op);
            } else {
                touch::<TOUCH>(block, self.reached::<TOUCH>(size));
            }
        }
    }

    #[inline(always)]
    fn plain_free<const SIZED: bool>(&mut self, op: &Op) {
        // SAFETY: as above; the slot held a live block of the subject, or null.
        unsafe {
            let slot = self.private.wrapping_add(op.slot as usize);
            let block = slot.replace(0) as *mut c_void;
            if SIZED {
                self.calls
                    .free_sized(block, op.size() as usize, op.align_log2());
            } else {
                (self.calls.free)(block);
            }
        }
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
    fn null(&self, start: *const Op, op: &Op) {
        if op.size() > 0 {
            refused(self.place(start, op), OpKind::Malloc, op.size());
        }
    }

    /// One op of any kind.
    #[inline(never)]
    fn any<const TOUCH: u8, const CHECK: bool, const SIZED: bool>(
        &mut self,
        start: *const Op,
        op: &Op,
    ) {
        let calls = self.calls;
        let place = self.place(start, op);
        let size = op.size() as usize;
        match op.kind {
            FREE => self.free::<CHECK, SIZED>(place, op),
            MALLOC => self.allocate::<TOUCH, CHECK>(place, op, OpKind::Malloc, || {
                // SAFETY: any size may be asked for.
                unsafe { (calls.malloc)(size) }
            }),
            REALLOC => self.reallocate::<TOUCH, CHECK>(place, op),
            CALLOC => self.allocate::<TOUCH, CHECK>(place, op, OpKind::Calloc, || {
                // SAFETY: any size may be asked for.
                unsafe { (calls.calloc)(1, size) }
            }),
            ALIGNED => self.allocate::<TOUCH, CHECK>(place, op, OpKind::AlignedAlloc, || {
                // SAFETY: the alignment is a power of two.
                unsafe { (calls.aligned_alloc)(1 << op.align_log2().max(4), size) }
            }),
            _ => {
                self.other(op);
                // Every op of a stretch counts as a call but these.
                self.made = self.made.wrapping_sub(1);
            }
        }
    }

    #[inline(always)]
    fn allocate<const TOUCH: u8, const CHECK: bool>(
        &mut self,
        place: Place,
        op: &Op,
        kind: OpKind,
        call: impl FnOnce() -> *mut c_void,
    ) {
        let slots = &self.world.slots;
        let shared = op.flags & FLAG_SHARED != 0;
        if shared {
            self.wait_ns += slots.shared(op.slot).wait_empty(op.generation);
        }
        let size = op.size();
        let start = self.probe.around(
            || Call {
                kind,
                size,
                remote: false,
            },
            call,
        );
        if start.is_null() && size > 0 {
            refused(place, kind, size);
        }
        if !CHECK {
            // SAFETY: the subject gave a block of `size` bytes, or null for 0.
            unsafe { touch::<TOUCH>(start, self.reached::<TOUCH>(size as usize)) };
        }
        if CHECK || P::TRACKS {
            self.arrived::<TOUCH, CHECK>(place, op, kind, start);
        }
        if shared {
            slots
                .shared(op.slot)
                .fill(op.generation, start, self.thread);
        } else {
            // SAFETY: the script's reader has checked the slot; private slots are used by one thread at a time.
            unsafe { slots.private(op.slot).write(start as u64) };
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

    /// Accounts for and checks a fresh block, which nothing has written to yet when it is checked.
    #[inline(never)]
    fn arrived<const TOUCH: u8, const CHECK: bool>(
        &mut self,
        place: Place,
        op: &Op,
        kind: OpKind,
        start: *mut c_void,
    ) {
        let zeroed = kind == OpKind::Calloc;
        let size = op.size();
        let block = Block {
            start,
            size,
            reach: self.reached::<TOUCH>(size as usize) as u64,
            align_log2: op.align_log2(),
        };
        // SAFETY: in range; the slot's meta belongs to whoever may use the slot now.
        let meta = unsafe { &mut *self.world.metas.at(op.slot as usize) };
        if CHECK {
            self.world
                .checker
                .allocated(place, block, zeroed, TOUCH, meta);
            Self::touch_behind_pattern::<TOUCH>(block);
        }
        meta.size = block.size;
        meta.unwritten = block.size - block.reach;
        meta.usable = self.usable::<CHECK>(place, block);
        self.probe
            .moved(meta.size as i64, meta.usable as i64, meta.unwritten as i64);
    }

    /// The touch policy for a block in which the first 8 bytes and the last 8 within reach hold the pattern already.
    fn touch_behind_pattern<const TOUCH: u8>(block: Block) {
        if block.reach > 24 {
            // SAFETY: the part between the patterns lies inside the block.
            unsafe { touch::<TOUCH>(block.start.byte_add(8), block.reach as usize - 16) };
        }
    }

    #[inline(always)]
    fn free<const CHECK: bool, const SIZED: bool>(&mut self, place: Place, op: &Op) {
        let slots = &self.world.slots;
        let shared = op.flags & FLAG_SHARED != 0;
        let mut remote = op.flags & FLAG_INHERITED != 0;
        let start = if shared {
            let slot = slots.shared(op.slot);
            let (start, waited) = slot.wait_full(op.generation);
            self.wait_ns += waited;
            remote = slot.owner() != self.thread;
            start
        } else {
            // SAFETY: as in `allocate`.
            unsafe { slots.private(op.slot).replace(0) as *mut c_void }
        };
        if CHECK {
            // SAFETY: in range; the slot's meta belongs to whoever may use the slot now.
            self.world.checker.leaving(place, start, unsafe {
                &*self.world.metas.at(op.slot as usize)
            });
        }
        let calls = self.calls;
        let size = op.size();
        self.probe.around(
            || Call {
                kind: OpKind::Free,
                size,
                remote,
            },
            || {
                // SAFETY: the slot held a live block of the subject, or null; the op repeats its size and alignment.
                unsafe {
                    if SIZED {
                        calls.free_sized(start, size as usize, op.align_log2());
                    } else {
                        (calls.free)(start);
                    }
                }
            },
        );
        if P::TRACKS {
            // SAFETY: as above.
            let meta = unsafe { self.world.metas.at(op.slot as usize).read() };
            self.probe.moved(
                -(meta.size as i64),
                -(meta.usable as i64),
                -(meta.unwritten as i64),
            );
        }
        if shared {
            slots.shared(op.slot).empty(op.generation.wrapping_add(1));
        }
    }

    #[inline(always)]
    fn reallocate<const TOUCH: u8, const CHECK: bool>(&mut self, place: Place, op: &Op) {
        let slots = &self.world.slots;
        let shared = op.flags & FLAG_SHARED != 0;
        let old = if shared {
            let (start, waited) = slots.shared(op.slot).wait_full(op.generation);
            self.wait_ns += waited;
            start
        } else {
            // SAFETY: as in `allocate`.
            unsafe { slots.private(op.slot).read() as *mut c_void }
        };
        let mut before = Meta::default();
        if CHECK || P::TRACKS {
            // SAFETY: in range; the slot's meta belongs to whoever may use the slot now.
            before = unsafe { self.world.metas.at(op.slot as usize).read() };
        }
        if CHECK {
            self.world.checker.leaving(place, old, &before);
        }
        let (calls, size) = (self.calls, op.size());
        let start = self.probe.around(
            || Call {
                kind: OpKind::Realloc,
                size,
                remote: false,
            },
            // SAFETY: the slot held a live block of the subject, or null.
            || unsafe { (calls.realloc)(old, size as usize) },
        );
        if start.is_null() && size > 0 {
            refused(place, OpKind::Realloc, size);
        }
        let block = Block {
            start,
            size,
            reach: self.reached::<TOUCH>(size as usize) as u64,
            align_log2: 0,
        };
        if !CHECK {
            // SAFETY: the subject gave a block of `size` bytes, or null for 0.
            unsafe { touch::<TOUCH>(start, block.reach as usize) };
        }
        if CHECK || P::TRACKS {
            let mut after = before;
            if CHECK {
                self.world
                    .checker
                    .reallocated(place, block, TOUCH, &mut after);
                Self::touch_behind_pattern::<TOUCH>(block);
            }
            after.size = size;
            after.unwritten = size - block.reach;
            after.usable = self.usable::<CHECK>(place, block);
            // SAFETY: as above.
            unsafe { self.world.metas.at(op.slot as usize).write(after) };
            self.probe.moved(
                after.size as i64 - before.size as i64,
                after.usable as i64 - before.usable as i64,
                after.unwritten as i64 - before.unwritten as i64,
            );
        }
        if shared {
            slots
                .shared(op.slot)
                .fill(op.generation.wrapping_add(1), start, self.thread);
        } else {
            // SAFETY: as in `allocate`.
            unsafe { slots.private(op.slot).write(start as u64) };
        }
    }

    fn usable<const CHECK: bool>(&self, place: Place, block: Block) -> u64 {
        let Some(usable_size) = self.calls.usable_size else {
            return block.size;
        };
        if block.start.is_null() {
            return 0;
        }
        // SAFETY: a live block of the subject.
        let usable = unsafe { usable_size(block.start) } as u64;
        if CHECK && usable < block.size {
            fail::with(format!(
                "malloc_usable_size gives {} for a block of {} bytes at op {} of thread {}",
                grouped(usable),
                grouped(block.size),
                grouped(place.op),
                place.thread
            ));
        }
        usable
    }

    #[cold]
    fn other(&mut self, op: &Op) {
        match op.kind() {
            Some(OpKind::Idle) if P::SLEEPS => {
                clock::sleep_ns(op.size());
                self.idle_ns += op.size();
                self.probe.slept(op.size());
            }
            Some(OpKind::Written) => {
                self.reach = op.size() as usize;
                self.told += 1;
            }
            Some(OpKind::ThreadStart) => self.world.start_thread(op.slot),
            // The stream of a thread that ends has no further op.
            _ => {}
        }
    }
}

/// Kind and flags in one word; an inherited block is a private one to a measure that does not ask whose it was.
#[inline(always)]
fn word(op: &Op) -> u16 {
    u16::from_le_bytes([op.kind, op.flags & !FLAG_INHERITED])
}

/// A bit for each op of a group, set for a free, if all are mallocs and frees of private slots.
#[inline(always)]
fn pattern(group: &[Op; GROUP]) -> Option<u32> {
    let (mut bits, mut seen) = (0, 0);
    for (index, op) in group.iter().enumerate() {
        let what = u32::from(word(op));
        seen |= what;
        // A malloc is 0 and a free is 4: one bit tells them apart.
        bits |= what << index >> FREE.trailing_zeros();
    }
    (seen & !u32::from(FREE) == 0).then_some(bits)
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
