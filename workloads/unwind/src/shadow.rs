//! The last stack that was walked, so that the next walk ends where the two meet.
//!
//! A walk is a function of the first registers and of the words that it reads. Where a frame of this walk has the registers
//! that a frame of the last one had, and every word that led outward from there still reads the same, the rest of the
//! walk would be the same: it is not done again. To compare is much faster than to walk, as no load waits for another.

use crate::hash::OuterHash;
use crate::row::{self, Row};
use crate::walk::{Registers, Stack, Walked, step};

/// Frames that are remembered: of a deeper stack the outermost.
pub const REMEMBERED: usize = 48;

/// A word of the stack: address, and what it read.
#[derive(Clone, Copy)]
struct Word {
    at: u64,
    read: u64,
}

#[derive(Clone, Copy)]
struct Frame {
    registers: Registers,
    /// Of this frame's address and those outside.
    hash: OuterHash,
}

/// What is remembered of a thread's stack. All zero is a valid state: nothing.
pub struct Shadow {
    /// The outermost first. Those from `len` on are the scratch of a walk, from the end down.
    frames: [Frame; REMEMBERED],
    /// What led from each frame to the one outside of it: the return address, and the saved frame pointer (or the return
    /// address again where there is none).
    ways: [[Word; 2]; REMEMBERED],
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
            hash: OuterHash::NONE,
        };
        const NOWHERE: [Word; 2] = [Word { at: 0, read: 0 }; 2];
        Self {
            frames: [NONE; REMEMBERED],
            ways: [NOWHERE; REMEMBERED],
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
        let mut known = self.len.min(REMEMBERED);
        let mut compared = false;
        let mut frame = first;
        let mut walked = Walked::default();
        let mut put = Put::NOTHING;
        loop {
            while known > 0 && self.frames[known - 1].registers.sp < frame.sp {
                known -= 1;
            }
            if known > 0 && self.frames[known - 1].registers == frame {
                let holding = match compared {
                    true => known,
                    false => self.holding(stack, known),
                };
                compared = true;
                let depth = walked.frames as usize + known;
                if holding < known {
                    // Frames inside of a word that has changed are not met again.
                    known = holding;
                } else if depth <= limit as usize {
                    walked.hash = walked.hash.and(self.frames[known - 1].hash);
                    walked.frames = depth as u32;
                    if put.is_short && (depth <= REMEMBERED || known < REMEMBERED / 2) {
                        self.begin(stack, first, depth, row_of);
                    } else {
                        self.remember(known, &put);
                    }
                    return walked;
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
            self.put(&mut put, known, (frame, row), next);
            match next {
                Some(_) if walked.frames >= limit => {
                    self.len = 0;
                    walked.cut = true;
                    return walked;
                }
                Some(next) => frame = next,
                None if row.kind() != row::END => {
                    self.len = 0;
                    return walked;
                }
                None if put.is_short => {
                    self.begin(stack, first, walked.frames as usize, row_of);
                    return walked;
                }
                None => {
                    self.remember(0, &put);
                    return walked;
                }
            }
        }
    }

    /// Of the `known` outermost frames those whose ways outward are as they were.
    #[inline(never)]
    fn holding<S: Stack>(&self, stack: &S, known: usize) -> usize {
        let holds = |word: &Word| stack.word(word.at) == Some(word.read);
        let inside = self.ways.get(1..known).unwrap_or(&[]);
        match inside
            .iter()
            .position(|[back, saved]| !holds(back) || !holds(saved))
        {
            Some(at) => at + 1,
            None => known,
        }
    }

    /// Puts a frame of this walk down, from the end of the array, while there is room behind the known ones.
    #[inline(always)]
    fn put(
        &mut self,
        put: &mut Put,
        known: usize,
        (frame, row): (Registers, Row),
        next: Option<Registers>,
    ) {
        let Some(way) = way(frame, row, next) else {
            // Only what lies outside of here can be remembered.
            *put = Put::NOTHING;
            return;
        };
        if put.is_short || put.place <= known || put.place > REMEMBERED {
            put.is_short = true;
            return;
        }
        put.place -= 1;
        self.frames[put.place] = Frame {
            registers: frame,
            hash: OuterHash::NONE,
        };
        self.ways[put.place] = way;
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
        let mut put = Put::NOTHING;
        let mut frame = first;
        for left in (0..frames).rev() {
            let row = row_of(frame.pc);
            let next = step(stack, row, frame);
            if left < REMEMBERED {
                put.is_short = false;
                self.put(&mut put, 0, (frame, row), next);
            }
            match next {
                Some(next) => frame = next,
                // Of a stack that is the same the last step is the end.
                None if left == 0 && row.kind() == row::END => self.remember(0, &put),
                None => return,
            }
        }
    }

    /// The frames of this walk become the inner part of what is remembered, behind `known` outer ones, if there was room.
    #[inline(always)]
    fn remember(&mut self, known: usize, put: &Put) {
        self.len = known;
        debug_assert!(known <= put.place);
        if put.is_short {
            return;
        }
        // They lie with the innermost last: the outermost, at `place`, goes next to the known ones.
        let mut hash = match known {
            0 => OuterHash::NONE,
            _ => self.frames[known - 1].hash,
        };
        for from in put.place..REMEMBERED {
            let Frame { registers, .. } = self.frames[from];
            hash = hash.inward(registers.pc);
            self.frames[self.len] = Frame { registers, hash };
            self.ways[self.len] = self.ways[from];
            self.len += 1;
        }
    }
}

/// The frames that a walk has put down: those from `place` on.
struct Put {
    place: usize,
    /// There was no room for all of them.
    is_short: bool,
}

impl Put {
    const NOTHING: Self = Self {
        place: REMEMBERED,
        is_short: false,
    };
}

/// The words that led from a frame to the next; `None` where there are others than these two kinds, or other numbers came of
/// them than were read.
#[inline(always)]
fn way(frame: Registers, row: Row, next: Option<Registers>) -> Option<[Word; 2]> {
    let Some(next) = next else {
        // The outermost frame leads nowhere.
        return Some([Word { at: 0, read: 0 }; 2]);
    };
    let back = Word {
        at: next.sp.wrapping_sub(8),
        read: next.pc.wrapping_add(1),
    };
    let saved = match row.kind() {
        row::SIGNAL | row::AT_RBP => return None,
        row::CHAIN if next.bp == 0 => return None,
        row::CHAIN => Some(frame.bp),
        _ => (row.saved_rbp()).map(|offset| next.sp.wrapping_add_signed(offset)),
    };
    let saved = saved.map_or(back, |at| Word { at, read: next.bp });
    Some([back, saved])
}
