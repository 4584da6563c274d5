//! From frame to frame.

use crate::hash::StackHash;
use crate::row::{self, Row};

/// Words of the stack that is walked.
pub trait Stack {
    /// The word at `address`; `None` outside of the stack's limits. Must be safe for any address.
    fn word(&self, address: u64) -> Option<u64>;
}

/// What a step needs of a frame's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// An address inside the instruction that is being executed: for a call its return address
    /// minus 1, so that the last call of a function does not count to the next function.
    pub pc: u64,
    /// Stack pointer in that frame, after the call has returned.
    pub sp: u64,
    /// Frame pointer register in that frame, whatever it is used for.
    pub bp: u64,
}

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Of all addresses in their order.
    pub hash: StackHash,
    /// Frames seen.
    pub frames: u32,
    /// The limit of frames was reached before the end.
    pub cut: bool,
}

/// The kernel's `struct rt_sigframe` for a handler that returns through `rt_sigreturn`: offsets of
/// the interrupted registers from the stack pointer in the restorer (`ucontext`, then `sigcontext`).
const UC_RBP: u64 = 120;
const UC_RSP: u64 = 160;
const UC_RIP: u64 = 168;

/// The caller's registers; `None` at the end, or where the words read make no sense.
#[inline(always)]
pub fn step<S: Stack>(stack: &S, row: Row, frame: Registers) -> Option<Registers> {
    let cfa = match row.kind() {
        row::FROM_RSP => frame.sp.wrapping_add_signed(row.cfa_offset()),
        row::FROM_RBP => frame.bp.wrapping_add_signed(row.cfa_offset()),
        row::AT_RBP => stack.word(frame.bp.wrapping_add_signed(row.cfa_offset()))?,
        row::SIGNAL => return signal(stack, frame),
        row::CHAIN => return chain(stack, frame),
        _ => return None,
    };
    // Frames lie above each other: whatever the registers hold, a walk makes progress.
    if cfa <= frame.sp {
        return None;
    }
    let bp = match row.saved_rbp() {
        Some(offset) => stack.word(cfa.wrapping_add_signed(offset))?,
        None => frame.bp,
    };
    let back = stack.word(cfa.wrapping_sub(8))?;
    let pc = back.checked_sub(1)?;
    Some(Registers { pc, sp: cfa, bp })
}

fn signal<S: Stack>(stack: &S, frame: Registers) -> Option<Registers> {
    let interrupted = Registers {
        pc: stack.word(frame.sp.wrapping_add(UC_RIP))?,
        sp: stack.word(frame.sp.wrapping_add(UC_RSP))?,
        bp: stack.word(frame.sp.wrapping_add(UC_RBP))?,
    };
    (interrupted.sp > frame.sp && interrupted.pc != 0).then_some(interrupted)
}

/// `push rbp; mov rbp, rsp`: the saved rbp at rbp, the return address above it.
fn chain<S: Stack>(stack: &S, frame: Registers) -> Option<Registers> {
    if frame.bp < frame.sp || !frame.bp.is_multiple_of(8) {
        return None;
    }
    let bp = stack.word(frame.bp)?;
    let back = stack.word(frame.bp.wrapping_add(8))?;
    // A register that is no frame pointer rarely finds a word that looks like a return address.
    if !(0x1000..1 << 47).contains(&back) {
        return None;
    }
    // The caller may use the register for anything: then only tables can say where its frame is.
    let bp = if bp > frame.bp { bp } else { 0 };
    Some(Registers {
        pc: back - 1,
        sp: frame.bp.wrapping_add(16),
        bp,
    })
}

/// Walks from `first` outward over at most `limit` frames. `row` gives the row of an address,
/// `seen` gets every frame's address, the innermost first.
#[inline(always)]
pub fn walk<S: Stack>(
    stack: &S,
    first: Registers,
    limit: u32,
    mut row: impl FnMut(u64) -> Row,
    mut seen: impl FnMut(u64),
) -> Walked {
    let mut frame = first;
    let mut walked = Walked::default();
    loop {
        let row = row(frame.pc);
        if row.kind() == row::CHAIN && frame.bp == 0 && walked.frames > 0 {
            return walked;
        }
        seen(frame.pc);
        walked.hash = walked.hash.outward(frame.pc);
        walked.frames += 1;
        let next = step(stack, row, frame);
        match next {
            Some(_) if walked.frames >= limit => {
                walked.cut = true;
                return walked;
            }
            Some(next) => frame = next,
            None => return walked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words(u64, [u64; 8]);
    impl Stack for Words {
        fn word(&self, address: u64) -> Option<u64> {
            let at = address.checked_sub(self.0)?;
            if !at.is_multiple_of(8) {
                return None;
            }
            self.1.get((at / 8) as usize).copied()
        }
    }

    #[test]
    fn a_chain_of_frame_pointers_is_walked_to_its_end() {
        let stack = Words(
            0x1000,
            [0, 0x1020, 0x40_0101, 0, 0x1030, 0x40_0201, 0, 0x40_0301],
        );
        let first = Registers {
            pc: 0x40_0000,
            sp: 0x1000,
            bp: 0x1008,
        };
        let mut seen = Vec::new();
        let walked = walk(&stack, first, 64, |_| Row::CHAIN, |pc| seen.push(pc));
        // The last saved rbp is 0, below its own frame: the end.
        assert_eq!(seen, [0x40_0000, 0x40_0100, 0x40_0200]);
        assert!(!walked.cut);
        assert_eq!(walked.hash.value(3), StackHash::of(&seen, 3));
    }

    #[test]
    fn a_frame_pointer_that_points_anywhere_ends_the_walk() {
        let stack = Words(0x1000, [0x1008, 0x40_0101, 0x1000, 0x40_0201, 0, 0, 0, 0]);
        for bp in [
            0,
            1,
            0xfff,
            0x1004,
            0x1040,
            0x7fff_ffff_f000,
            u64::MAX,
            u64::MAX - 7,
        ] {
            for row in [
                Row::CHAIN,
                Row::from_rbp(16, Some(-16)).unwrap(),
                Row::at_rbp(-8, Some(0)).unwrap(),
                Row::SIGNAL,
            ] {
                let first = Registers {
                    pc: 1,
                    sp: 0x1000,
                    bp,
                };
                let walked = walk(&stack, first, 64, |_| row, |_| {});
                assert!(walked.frames <= 4, "{bp:x} {row:?}: {walked:?}");
            }
        }
        // A chain that goes down, or in a circle, ends too.
        let first = Registers {
            pc: 1,
            sp: 0x1000,
            bp: 0x1000,
        };
        assert_eq!(walk(&stack, first, 64, |_| Row::CHAIN, |_| {}).frames, 2);
    }

    #[test]
    fn the_limit_cuts() {
        let stack = Words(0x1000, [0x40_0101; 8]);
        let first = Registers {
            pc: 1,
            sp: 0x1000,
            bp: 0,
        };
        let row = Row::from_rsp(8, None).unwrap();
        assert_eq!(walk(&stack, first, 3, |_| row, |_| {}).frames, 3);
        assert!(walk(&stack, first, 3, |_| row, |_| {}).cut);
        assert_eq!(walk(&stack, first, 64, |_| row, |_| {}).frames, 9);
    }
}
