//! The replay loop, made once for each combination of probe, touch policy, checks and sized frees, so that the loop
//! that is timed has no branch it does not need.

use crate::calls::Calls;
use crate::check::{Block, Meta, Place};
use crate::clock;
use crate::fail;
use crate::numbers::grouped;
use crate::probe::{Call, Probe};
use crate::touch::{self, touch};
use crate::world::World;
use heaplab_script::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use heaplab_worker::protocol::RunSpec;
use std::ffi::c_void;

/// How many ops ahead a slot is asked for.
const AHEAD: usize = 8;

/// One thread's replay.
pub struct Player<P> {
    world: &'static World,
    /// Own copies of what the loop needs all the time.
    calls: Calls,
    thread: u32,
    /// Number of the next op.
    next: u64,
    /// The measure's hooks.
    pub probe: P,
    /// Calls of the malloc family made.
    pub made: u64,
    /// Nanoseconds waited for other threads' blocks.
    pub wait_ns: u64,
    /// Nanoseconds slept for idle ops.
    pub idle_ns: u64,
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
            thread,
            next: 0,
            probe: P::new(world),
            made: 0,
            wait_ns: 0,
            idle_ns: 0,
        }
    }

    fn play<const TOUCH: u8, const CHECK: bool, const SIZED: bool>(&mut self, ops: &[Op]) {
        const MALLOC: u8 = OpKind::Malloc as u8;
        const CALLOC: u8 = OpKind::Calloc as u8;
        const ALIGNED: u8 = OpKind::AlignedAlloc as u8;
        const REALLOC: u8 = OpKind::Realloc as u8;
        const FREE: u8 = OpKind::Free as u8;
        let calls = self.calls;
        let slots = self.world.slots;
        let mut others = 0;
        for (index, op) in ops.iter().enumerate() {
            if let Some(ahead) = ops.get(index + AHEAD) {
                slots.prefetch(ahead);
            }
            let place = Place {
                thread: self.thread,
                op: self.next + index as u64,
            };
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
                    others += 1;
                    self.other(op);
                }
            }
        }
        self.next += ops.len() as u64;
        self.made += ops.len() as u64 - others;
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
            unsafe { touch::<TOUCH>(start, size as usize) };
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
        let block = Block {
            start,
            size: op.size(),
            align_log2: op.align_log2(),
        };
        // SAFETY: in range; the slot's meta belongs to whoever may use the slot now.
        let meta = unsafe { &mut *self.world.metas.at(op.slot as usize) };
        if CHECK {
            self.world
                .checker
                .allocated(place, block, zeroed, TOUCH, meta);
            self.touch_behind_pattern::<TOUCH>(block);
        }
        meta.size = block.size;
        meta.usable = self.usable::<CHECK>(place, block);
        self.probe.moved(meta.size as i64, meta.usable as i64);
    }

    /// The touch policy for a block whose first and last 8 bytes hold the pattern already.
    fn touch_behind_pattern<const TOUCH: u8>(&self, block: Block) {
        if block.size > 24 {
            // SAFETY: the part between the patterns lies inside the block.
            unsafe { touch::<TOUCH>(block.start.byte_add(8), block.size as usize - 16) };
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
            self.probe.moved(-(meta.size as i64), -(meta.usable as i64));
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
            align_log2: 0,
        };
        if !CHECK {
            // SAFETY: the subject gave a block of `size` bytes, or null for 0.
            unsafe { touch::<TOUCH>(start, size as usize) };
        }
        if CHECK || P::TRACKS {
            let mut after = before;
            if CHECK {
                self.world
                    .checker
                    .reallocated(place, block, TOUCH, &mut after);
                self.touch_behind_pattern::<TOUCH>(block);
            }
            after.size = size;
            after.usable = self.usable::<CHECK>(place, block);
            // SAFETY: as above.
            unsafe { self.world.metas.at(op.slot as usize).write(after) };
            self.probe.moved(
                after.size as i64 - before.size as i64,
                after.usable as i64 - before.usable as i64,
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
            }
            Some(OpKind::ThreadStart) => self.world.start_thread(op.slot),
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
