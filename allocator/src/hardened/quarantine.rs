//! Freed small blocks wait here, filled with a pattern, before they can be handed out again.

use super::{PATTERN, STATE};
use crate::fault::{Fault, die};
use crate::process::HEAP;
use crate::size_class::size_of_class;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `quarantine_bytes`: what the quarantine may hold.
pub static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(4 << 20);
/// Blocks that it may hold.
const PLACES: usize = 4096;

/// A waiting block and its class.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    block: *mut u8,
    class: usize,
}

/// First in, first out.
#[derive(Debug)]
pub(super) struct Quarantine {
    ring: [Waiting; PLACES],
    first: usize,
    len: usize,
    bytes: usize,
}

// SAFETY: the blocks belong to the quarantine; the lock around it guards it.
unsafe impl Send for Quarantine {}

impl Quarantine {
    pub(super) const fn new() -> Self {
        Self {
            ring: [Waiting {
                block: null_mut(),
                class: 0,
            }; PLACES],
            first: 0,
            len: 0,
            bytes: 0,
        }
    }

    fn holds(&self, block: *mut u8) -> bool {
        (0..self.len).any(|at| self.ring[(self.first + at) % PLACES].block == block)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, waiting: Waiting) {
        self.ring[(self.first + self.len) % PLACES] = waiting;
        self.len += 1;
        self.bytes += size_of_class(waiting.class);
    }

    /// The oldest block, if `more` bytes would be too much beside all.
    fn pop_for(&mut self, more: usize) -> Option<Waiting> {
        let full = self.len == PLACES || self.bytes + more > LIMIT_BYTES.load(Relaxed);
        if !full || self.len == 0 {
            return None;
        }
        let waiting = self.ring[self.first];
        self.first = (self.first + 1) % PLACES;
        self.len -= 1;
        self.bytes -= size_of_class(waiting.class);
        Some(waiting)
    }
}

/// The block holds nothing but the pattern.
///
/// # Safety
/// The block is an object of `class`.
unsafe fn untouched(block: *mut u8, class: usize) -> bool {
    let words = size_of_class(class) / 8;
    // SAFETY: objects are aligned to 8 and their sizes are multiples of 8.
    (0..words)
        .all(|at| unsafe { block.cast::<u64>().add(at).read() == u64::from_ne_bytes([PATTERN; 8]) })
}

/// Ends the process if the block waits here. Looking through all that wait takes microseconds, so it is done only where the
/// block begins as those do, but for one word: programs write there first, and a single write after the free leaves the rest.
///
/// # Safety
/// The block is an object of `class`.
pub(super) unsafe fn expect_absent(block: *mut u8, class: usize) {
    let words = (size_of_class(class) / size_of::<u32>()).min(4);
    // SAFETY: objects of the class have so many words, at multiples of 8.
    let word = |at| unsafe { block.cast::<u32>().add(at).read() };
    let alike = (0..words)
        .filter(|&at| word(at) == u32::from_ne_bytes([PATTERN; 4]))
        .count();
    if alike + 1 >= words && STATE.lock().quarantine.holds(block) {
        die(Fault::DoubleFree, block as usize);
    }
}

/// Takes a freed block in, and lets those go for which it is in the way.
///
/// # Safety
/// The block is a live object of `class` that the caller gives up.
pub(super) unsafe fn admit(block: *mut u8, class: usize) {
    let size = size_of_class(class);
    // SAFETY: the caller's duty.
    unsafe { block.write_bytes(PATTERN, size) };
    loop {
        let mut state = STATE.lock();
        let Some(oldest) = state.quarantine.pop_for(size) else {
            state.quarantine.push(Waiting { block, class });
            return;
        };
        drop(state);
        // SAFETY: the block was the quarantine's and is ours now.
        unsafe { release(oldest) };
    }
}

/// # Safety
/// The block belongs to the caller and came from the quarantine.
unsafe fn release(waiting: Waiting) {
    let Waiting { block, class } = waiting;
    // SAFETY: the caller's duty.
    unsafe {
        if !untouched(block, class) {
            die(Fault::WriteAfterFree, block as usize);
        }
        HEAP.give(class, &[block]);
    }
}
