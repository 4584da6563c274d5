//! Walking the stack of one allocation and writing down what is new of it.

use core::sync::atomic::{AtomicU64, Ordering};

use heaplab_hook::thread;
use heaplab_ring::Kind;
use heaplab_ring::stack::{FRAMES_PER_RECORD, MAX_FRAMES, StackNote, block_tag};
use heaplab_unwind::{Registers, Stack, Walked, walk};

use super::state::{Entry, StackState};
use super::{bounds, modules, rows};

/// Hashes of stacks that were defined in this process, by their upper bits.
const SEEN_BITS: u32 = 15;
static SEEN: [AtomicU64; 1 << SEEN_BITS] = [const { AtomicU64::new(0) }; 1 << SEEN_BITS];

/// The part of a stack that may be read: from a stack pointer to the end.
struct Limits {
    low: u64,
    high: u64,
}

impl Stack for Limits {
    #[inline(always)]
    fn word(&self, address: u64) -> Option<u64> {
        if address < self.low || address > self.high - 8 {
            return None;
        }
        // SAFETY: every byte of `[low, high)` is mapped (see `bounds`), the frames of callers lie there
        // and nobody else changes them while this thread is in a hook. Any alignment is allowed.
        Some(unsafe { core::ptr::read_unaligned(address as usize as *const u64) })
    }
}

/// Writes the stack of the allocation that returned `block`; the event itself must follow.
pub fn capture(state: &'static StackState, block: usize) {
    let epoch = modules::epoch();
    let entry = state.entry.load(Ordering::Relaxed);
    if entry == 0 {
        // The recorder itself asked for the block, for a C++ operator: who did is not known.
        let note = StackNote {
            epoch,
            defined: 0,
            cut: false,
            tag: block_tag(block as u64),
        };
        thread::describe(Kind::Stack, 0, note.to_address());
        return;
    }
    // SAFETY: left on this thread's stack by the exported function that is still running.
    let entry_words = unsafe { *(entry as *const Entry) };
    let sp = entry + size_of::<Entry>();
    let first = Registers {
        pc: (entry_words.back as u64).wrapping_sub(1),
        sp: sp as u64,
        bp: entry_words.bp as u64,
    };
    let high = bounds::end_of_stack(state, sp).filter(|high| high - sp >= 8);
    let limits = Limits {
        low: sp as u64,
        high: high.unwrap_or(sp) as u64,
    };
    let limit = if high.is_some() { MAX_FRAMES } else { 1 };
    let row = |pc| rows::row(pc, epoch);
    let walked = state
        .with_shadow(|shadow| shadow.walk(&limits, first, limit, u64::from(epoch), row))
        .unwrap_or_else(|| walk(&limits, first, limit, row, |_| {}));
    let hash = walked.hash.value(u64::from(epoch));
    let seen = &SEEN[(hash >> (64 - SEEN_BITS)) as usize];
    let note = StackNote {
        epoch,
        defined: 0,
        cut: walked.cut,
        tag: block_tag(block as u64),
    };
    if seen.load(Ordering::Relaxed) == hash {
        thread::describe(Kind::Stack, hash, note.to_address());
        return;
    }
    define(&limits, first, limit, walked, note, seen);
}

/// The first time: with the addresses. A handler that defines a stack in between does so as a whole,
/// so the drainer finds the addresses of each as the last ones before its hash.
#[cold]
#[inline(never)]
fn define(
    limits: &Limits,
    first: Registers,
    limit: u32,
    walked: Walked,
    note: StackNote,
    seen: &AtomicU64,
) {
    let mut pending = [0u64; FRAMES_PER_RECORD];
    let mut count = 0;
    let mut whole = true;
    let mut emit = |frames: &mut [u64; FRAMES_PER_RECORD]| {
        let [word, address] = *frames;
        whole &= thread::describe(Kind::StackFrames, word, address);
        *frames = [0; FRAMES_PER_RECORD];
    };
    let row = |pc| rows::row(pc, note.epoch);
    let again = walk(limits, first, limit, row, |pc| {
        pending[count % FRAMES_PER_RECORD] = pc;
        count += 1;
        if count % FRAMES_PER_RECORD == 0 {
            emit(&mut pending);
        }
    });
    if count % FRAMES_PER_RECORD != 0 {
        emit(&mut pending);
    }
    let note = StackNote {
        defined: count as u8,
        ..note
    };
    let hash = again.hash.value(u64::from(note.epoch));
    whole &= thread::describe(Kind::Stack, hash, note.to_address());
    debug_assert!(
        (again.frames, hash) == (walked.frames, walked.hash.value(u64::from(note.epoch))),
        "a shortened walk saw another stack"
    );
    if whole {
        seen.store(hash, Ordering::Relaxed);
    }
}
