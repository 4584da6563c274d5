//! The last stack that was walked, so that the next walk ends where the two meet.
//!
//! A walk is a function of the first registers and of the words that it reads. Where a frame of this walk has the registers
//! that a frame of the last one had, and every word that led outward from there still reads the same, the rest of the
//! walk would be the same: it is not done again. To compare is much faster than to walk, as no load waits for another.

use crate::hash::OuterHash;
use crate::row::{self, Row};
use crate::walk::{Registers, Stack, Walked, step};

/// Frames that are remembered: of a deeper stack the outermost.
pub const REMEMBERED: usize = 64;

#[derive(Clone, Copy)]
struct Frame {
    registers: Registers,
    row: Row,
    /// Of this frame's address and those outside.
    hash: OuterHash,
}

/// What is remembered of a thread's stack. All zero is a valid state: nothing.
pub struct Shadow {
    /// The outermost first. Those from `len` on are the scratch of a walk, from the end down.
    frames: [Frame; REMEMBERED],
    len: usize,
    /// What the rows depend on besides addresses: the caller's number for the state of the program's code.
    code: u64,
}

impl Default for Shadow {
    fn default() -> Self {
        Self::new()
    }
}

impl Shadow {
    /// Nothing is remembered.
    pub const fn new() -> Self {
        const NONE: Frame = Frame {
            registers: Registers {
                pc: 0,
                sp: 0,
                bp: 0,
            },
            row: Row(0),
            hash: OuterHash::NONE,
        };
        Self {
            frames: [NONE; REMEMBERED],
            len: 0,
            code: 0,
        }
    }

    /// As [`crate::walk`], from what is remembered where that still holds. `code` is another number whenever rows may have
    /// changed.
    #[inline]
    pub fn walk<S: Stack>(
        &mut self,
        stack: &S,
        first: Registers,
        limit: u32,
        code: u64,
        mut row_of: impl FnMut(u64) -> Row,
    ) -> Walked {
        if self.code != code {
            self.code = code;
            self.len = 0;
        }
        let mut known = self.len;
        let mut frame = first;
        let mut walked = Walked::default();
        // The frames of this walk are put down from the end of the array, while there is room behind the known ones.
        let mut place = REMEMBERED;
        // All are put down, and what leads outward from each are words that `leads` can look at again.
        let (mut whole, mut plain) = (true, true);
        loop {
            while known > 0 && self.frames[known - 1].registers.sp < frame.sp {
                known -= 1;
            }
            if known > 0 && self.frames[known - 1].registers == frame {
                let depth = walked.frames as usize + known;
                match self.broken(stack, known - 1) {
                    None if depth <= limit as usize => {
                        walked.hash = walked.hash.and(self.frames[known - 1].hash);
                        walked.frames = depth as u32;
                        if !whole && plain && known < REMEMBERED / 2 {
                            self.begin(stack, first, depth, row_of);
                        } else {
                            self.remember(known, place, whole);
                        }
                        return walked;
                    }
                    None => {}
                    // Frames inside of a word that has changed are not met again.
                    Some(at) => known = at,
                }
            }
            let row = row_of(frame.pc);
            if row.kind() == row::CHAIN && frame.bp == 0 && walked.frames > 0 {
                // The walk ended by words that are not remembered.
                self.len = 0;
                return walked;
            }
            walked.hash = walked.hash.outward(frame.pc);
            walked.frames += 1;
            let next = step(stack, row, frame);
            plain &= is_plain(row, next);
            whole &= plain && place > known;
            if whole {
                place -= 1;
                self.frames[place] = Frame {
                    registers: frame,
                    row,
                    hash: OuterHash::NONE,
                };
            }
            match next {
                Some(_) if walked.frames >= limit => {
                    self.len = 0;
                    walked.cut = true;
                    return walked;
                }
                Some(next) => frame = next,
                None if row.kind() == row::END => {
                    match whole {
                        true => self.remember(0, place, true),
                        false if plain => self.begin(stack, first, walked.frames as usize, row_of),
                        false => self.len = 0,
                    }
                    return walked;
                }
                None => {
                    self.len = 0;
                    return walked;
                }
            }
        }
    }

    /// The first frame, from `at` outward, whose way outward has changed.
    #[inline(always)]
    fn broken<S: Stack>(&self, stack: &S, at: usize) -> Option<usize> {
        for inner in (1..=at).rev() {
            let (frame, outer) = (&self.frames[inner], &self.frames[inner - 1].registers);
            if !leads(stack, frame, outer) {
                return Some(inner);
            }
        }
        None
    }

    /// Walks a stack of so many frames again and remembers the outermost: there was no room for all of them.
    #[cold]
    #[inline(never)]
    fn begin<S: Stack>(
        &mut self,
        stack: &S,
        first: Registers,
        frames: usize,
        mut row_of: impl FnMut(u64) -> Row,
    ) {
        self.len = 0;
        let (mut frame, mut place) = (first, REMEMBERED);
        for left in (0..frames).rev() {
            let row = row_of(frame.pc);
            if left < REMEMBERED && place > 0 {
                place -= 1;
                self.frames[place] = Frame {
                    registers: frame,
                    row,
                    hash: OuterHash::NONE,
                };
            }
            match step(stack, row, frame) {
                Some(next) => frame = next,
                // Of a stack that is the same the last step is the end.
                None if left == 0 && row.kind() == row::END => self.remember(0, place, true),
                None => return,
            }
        }
    }

    /// The frames of this walk become the inner part of what is remembered, behind `known` outer ones; only if they are all
    /// there and fit.
    #[inline(always)]
    fn remember(&mut self, known: usize, place: usize, whole: bool) {
        self.len = known;
        debug_assert!(known <= place);
        if !whole {
            return;
        }
        // They lie with the innermost last: the outermost, at `place`, goes next to the known ones.
        let mut hash = match known {
            0 => OuterHash::NONE,
            _ => self.frames[known - 1].hash,
        };
        for from in place..REMEMBERED {
            let mut frame = self.frames[from];
            hash = hash.inward(frame.registers.pc);
            frame.hash = hash;
            self.frames[self.len] = frame;
            self.len += 1;
        }
    }
}

/// Whether what leads from a frame with this row to the next are words that [`leads`] can look at again.
#[inline(always)]
fn is_plain(row: Row, next: Option<Registers>) -> bool {
    match row.kind() {
        row::SIGNAL => false,
        // Another number than the word that was read.
        row::CHAIN => next.is_none_or(|next| next.bp != 0),
        _ => true,
    }
}

/// Whether the words that led from a frame to the next read as they did.
#[inline(always)]
fn leads<S: Stack>(stack: &S, frame: &Frame, outer: &Registers) -> bool {
    let reads = |address: u64, wanted: u64| stack.word(address) == Some(wanted);
    let Registers { sp: _, bp, pc: _ } = frame.registers;
    let back = reads(outer.sp.wrapping_sub(8), outer.pc.wrapping_add(1));
    let saved = match frame.row.kind() {
        row::CHAIN => reads(bp, outer.bp),
        kind => {
            let place = match frame.row.saved_rbp() {
                Some(offset) => reads(outer.sp.wrapping_add_signed(offset), outer.bp),
                None => true,
            };
            place
                && (kind != row::AT_RBP
                    || reads(bp.wrapping_add_signed(frame.row.cfa_offset()), outer.sp))
        }
    };
    back & saved
}
