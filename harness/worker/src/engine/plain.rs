//! Plain ops, mallocs and frees of private slots in a run without checks and stamps, four at a time.
//!
//! Whether the next op allocates or frees is anybody's guess, and a wrong guess costs the CPU more than a whole call; here it
//! guesses once for four.

use super::{FREE, MALLOC, Player};
use crate::probe::Probe;
use crate::slots::prefetch;
use crate::touch::touch;
use heaplab_script::{FLAG_INHERITED, Op};
use std::ffi::c_void;

/// Ops that are looked at together.
pub(super) const GROUP: usize = 4;
/// The [`word`] of a malloc and of a free of a private slot.
pub(super) const PRIVATE_MALLOC: u16 = MALLOC as u16;
pub(super) const PRIVATE_FREE: u16 = FREE as u16;
const _: () = assert!(MALLOC == 0 && FREE.is_power_of_two());

impl<P: Probe> Player<P> {
    /// Plays four plain ops, whose kinds `pattern` tells; `ahead` are those whose slots are asked for.
    #[inline(always)]
    pub(super) fn group<const TOUCH: u8, const SIZED: bool>(
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
    pub(super) fn plain_malloc<const TOUCH: u8>(&mut self, start: *const Op, op: &Op) {
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
    pub(super) fn plain_free<const SIZED: bool>(&mut self, op: &Op) {
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
}

/// Kind and flags in one word; an inherited block is a private one to a measure that does not ask whose it was.
#[inline(always)]
pub(super) fn word(op: &Op) -> u16 {
    u16::from_le_bytes([op.kind, op.flags & !FLAG_INHERITED])
}

/// A bit for each op of a group, set for a free, if all are mallocs and frees of private slots.
#[inline(always)]
pub(super) fn pattern(group: &[Op; GROUP]) -> Option<u32> {
    let (mut bits, mut seen) = (0, 0);
    for (index, op) in group.iter().enumerate() {
        let what = u32::from(word(op));
        seen |= what;
        // A malloc is 0 and a free is 4: one bit tells them apart.
        bits |= what << index >> FREE.trailing_zeros();
    }
    (seen & !u32::from(FREE) == 0).then_some(bits)
}
