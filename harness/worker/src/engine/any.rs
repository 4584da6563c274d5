//! One op of any kind, under any measure: with its hand-over between threads, its checks, its stamps.

use super::{ALIGNED, CALLOC, FREE, MALLOC, Player, REALLOC, refused};
use crate::check::{Block, Meta, Place};
use crate::fail;
use crate::numbers::grouped;
use crate::probe::{Call, Probe};
use crate::touch::{self, touch};
use heaplab_script::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use heaplab_worker::fill::Fill;
use std::ffi::c_void;

impl<P: Probe> Player<P> {
    /// One op of any kind.
    #[inline(never)]
    pub(super) fn any<const TOUCH: u8, const CHECK: bool, const SIZED: bool>(
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
            let slot = slots.shared(op.slot);
            if slot.wait_empty(op.generation, &mut self.waits) {
                self.probe.waited();
            }
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
            self.touch_behind_pattern::<TOUCH>(block);
        }
        meta.size = block.size;
        meta.unwritten = block.size - block.reach;
        meta.usable = self.usable::<CHECK>(place, block);
        self.probe
            .moved(meta.size as i64, meta.usable as i64, meta.unwritten as i64);
    }

    /// The touch policy for a block in which the first 8 bytes and the last 8 within reach hold the pattern already.
    fn touch_behind_pattern<const TOUCH: u8>(&mut self, block: Block) {
        let fill = self.fill.take().filter(|_| TOUCH == touch::RECORDED);
        if block.start.is_null() || block.reach <= 24 {
            return;
        }
        let to = block.reach as usize - 8;
        let at_once = match fill {
            Some((over_ns, share)) => {
                let from = ((block.reach as f64 * share) as usize).clamp(8, to);
                self.probe.fills(Fill {
                    start: block.start,
                    from,
                    to,
                    over_ns,
                });
                from
            }
            None => to,
        };
        // SAFETY: the part between the patterns lies inside the block.
        unsafe { touch::<TOUCH>(block.start.byte_add(8), at_once - 8) };
    }

    /// The block of a shared slot, once it is there.
    #[inline(always)]
    fn handed(&mut self, op: &Op) -> *mut c_void {
        let slot = self.world.slots.shared(op.slot);
        let (start, waited) = slot.wait_full(op.generation, &mut self.waits);
        if waited {
            self.probe.waited();
        }
        start
    }

    #[inline(always)]
    fn free<const CHECK: bool, const SIZED: bool>(&mut self, place: Place, op: &Op) {
        let slots = &self.world.slots;
        let shared = op.flags & FLAG_SHARED != 0;
        let mut remote = op.flags & FLAG_INHERITED != 0;
        let start = if shared {
            let start = self.handed(op);
            remote = slots.shared(op.slot).owner() != self.thread;
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
        self.probe.leaves(start);
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
            self.handed(op)
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
        self.probe.leaves(old);
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
                self.touch_behind_pattern::<TOUCH>(block);
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
}
