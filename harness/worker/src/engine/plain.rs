//! Plain ops, mallocs and frees of private slots in a run without checks and stamps, four at a time.
//!
//! Whether the next op allocates or frees is anybody's guess, and a wrong guess costs the CPU more than a whole call; here it
//! guesses once for four.

use super::{AHEAD, FREE, MALLOC, Player};
use crate::probe::Probe;
use crate::slots::prefetch;
use crate::touch::touch;
use heaplab_script::{FLAG_INHERITED, Op};
use std::ffi::c_void;

/// Ops that are looked at together.
pub(super) const GROUP: usize = 4;
/// How many ops ahead the script itself is asked for. The CPU reads ahead by itself, but not beyond a page, and a page has 256.
const SCRIPT_AHEAD: usize = 64;
/// The [`word`] of a malloc and of a free of a private slot.
pub(super) const PRIVATE_MALLOC: u16 = MALLOC as u16;
pub(super) const PRIVATE_FREE: u16 = FREE as u16;
const _: () = assert!(
    MALLOC == 0
        && FREE.is_power_of_two()
        && size_of::<Op>() == 16
        && GROUP == 4
        && AHEAD >= 2 * GROUP
);

impl<P: Probe> Player<P> {
    /// Plays groups from `at` on while they are plain and lie before `end`; where the first op lies that is not played.
    ///
    /// # Safety
    /// [`super::AHEAD`] ops lie behind `end`.
    #[inline(always)]
    pub(super) unsafe fn groups<const TOUCH: u8, const SIZED: bool>(
        &mut self,
        start: *const Op,
        mut at: *const Op,
        end: *const Op,
    ) -> *const Op {
        // SAFETY: two groups lie behind any op up to `end`, and the caller says that they do.
        let group = |at: *const Op| unsafe { &*at.cast::<[Op; GROUP]>() };
        // Its own copy: a slot that is written might be `self.private` for all that the compiler knows.
        let private = self.private;
        // Known a group before it is needed: where the CPU has guessed wrong it learns so the sooner.
        let mut next = known(pattern(group(at)));
        while end.addr() - at.addr() >= size_of::<[Op; GROUP]>() {
            let here = next;
            next = known(pattern(group(at.wrapping_add(GROUP))));
            prefetch(at.wrapping_add(SCRIPT_AHEAD));
            for op in group(at.wrapping_add(AHEAD)) {
                prefetch(private.wrapping_add(op.slot as usize));
            }
            macro_rules! unrolled {
                ($($number:literal)*) => {
                    match here {
                        $($number => self.four::<TOUCH, SIZED, $number>(private, start, group(at)),)*
                        _ => break,
                    }
                };
            }
            unrolled!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            at = at.wrapping_add(GROUP);
        }
        at
    }

    /// Written out: where its body is large (sized frees, touch `all`) the compiler leaves a loop a loop, which would ask the pattern for
    /// each op again.
    #[inline(always)]
    fn four<const TOUCH: u8, const SIZED: bool, const PATTERN: u32>(
        &mut self,
        private: *mut u64,
        start: *const Op,
        [a, b, c, d]: &[Op; GROUP],
    ) {
        self.one::<TOUCH, SIZED>(private, start, a, PATTERN & 1);
        self.one::<TOUCH, SIZED>(private, start, b, PATTERN & 2);
        self.one::<TOUCH, SIZED>(private, start, c, PATTERN & 4);
        self.one::<TOUCH, SIZED>(private, start, d, PATTERN & 8);
    }

    #[inline(always)]
    fn one<const TOUCH: u8, const SIZED: bool>(
        &mut self,
        private: *mut u64,
        start: *const Op,
        op: &Op,
        frees: u32,
    ) {
        if frees == 0 {
            self.plain_malloc::<TOUCH>(private, start, op);
        } else {
            self.plain_free::<SIZED>(private, op);
        }
    }

    #[inline(always)]
    pub(super) fn plain_malloc<const TOUCH: u8>(
        &mut self,
        private: *mut u64,
        start: *const Op,
        op: &Op,
    ) {
        let size = op.size() as usize;
        // SAFETY: any size may be asked for; the reader has checked the slot, and private slots are used by one thread at
        // a time; the subject gave a block of `size` bytes.
        unsafe {
            let block = (self.calls.malloc)(size);
            private.wrapping_add(op.slot as usize).write(block as u64);
            if block.is_null() {
                self.null(start, op);
            } else {
                touch::<TOUCH>(block, self.reached::<TOUCH>(size));
            }
        }
    }

    #[inline(always)]
    pub(super) fn plain_free<const SIZED: bool>(&mut self, private: *mut u64, op: &Op) {
        // SAFETY: as above; the slot held a live block of the subject, or null.
        unsafe {
            let slot = private.wrapping_add(op.slot as usize);
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

/// Has a number in a register from here on. Else the compiler works it out where it is used, behind the calls: where the CPU has guessed
/// wrong it would learn so 25 cycles later, and that was 1.3 ns a call.
#[inline(always)]
fn known(mut number: u32) -> u32 {
    // SAFETY: there is no instruction.
    unsafe {
        std::arch::asm!("/* {0:e} */", inout(reg) number, options(nomem, nostack, preserves_flags));
    }
    number
}

/// A bit for each op of a group, set for a free; beyond all such patterns where one is not a malloc or free of a private slot.
#[inline(always)]
fn pattern(group: &[Op; GROUP]) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_andnot_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128,
        _mm_movemask_ps, _mm_set1_epi32, _mm_setzero_si128, _mm_slli_epi32, _mm_unpacklo_epi32,
        _mm_unpacklo_epi64,
    };
    /// What the first four bytes of such an op may have set: kind, flags and generation lie there.
    const PLAIN: i32 = FREE as i32 | (FLAG_INHERITED as i32) << 8;
    let ops = group.as_ptr().cast::<__m128i>();
    // SAFETY: an op is as large as a vector, and every x86-64 has these instructions.
    unsafe {
        let op = |at| _mm_loadu_si128(ops.wrapping_add(at));
        let halves = (
            _mm_unpacklo_epi32(op(0), op(1)),
            _mm_unpacklo_epi32(op(2), op(3)),
        );
        let heads = _mm_unpacklo_epi64(halves.0, halves.1);
        let other = _mm_andnot_si128(_mm_set1_epi32(PLAIN), heads);
        let plain = _mm_cmpeq_epi32(other, _mm_setzero_si128());
        // A malloc is 0 and a free is 4: that bit becomes the sign.
        let frees = _mm_slli_epi32::<{ 31 - FREE.trailing_zeros() as i32 }>(heads);
        let bits = |mask| _mm_movemask_ps(_mm_castsi128_ps(mask)) as u32;
        (bits(plain) ^ ((1 << GROUP) - 1)) << GROUP | bits(frees)
    }
}
