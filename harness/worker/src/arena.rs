//! Rust's allocator in the worker: blocks of shared memory, so that nothing of Rust reaches the subject and nothing
//! of it counts as anonymous memory.

use crate::shared;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Address space tried for the arena, largest first; memory is taken page by page as it is touched.
const SIZES: [usize; 5] = [1 << 36, 1 << 32, 1 << 30, 1 << 27, 1 << 22];
/// log2 of the smallest block.
const FIRST_SHIFT: u32 = 4;
/// Number of block sizes, all powers of two.
const CLASSES: usize = 36;

/// The arena: free lists per power of two over a mapping handed out from its start.
pub struct Arena {
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

struct State {
    next: usize,
    end: usize,
    free: [*mut Free; CLASSES],
}

struct Free {
    next: *mut Free,
}

// SAFETY: `state` is only touched by the holder of `busy`.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena that maps its memory at the first use.
    pub const fn new() -> Self {
        let state = State {
            next: 0,
            end: 0,
            free: [ptr::null_mut(); CLASSES],
        };
        Self {
            busy: AtomicBool::new(false),
            state: UnsafeCell::new(state),
        }
    }

    fn locked<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        while self.busy.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: the flag was taken, so nobody else has the reference.
        let result = work(unsafe { &mut *self.state.get() });
        self.busy.store(false, Ordering::Release);
        result
    }
}

fn class_of(layout: Layout) -> usize {
    let bytes = layout.size().max(layout.align()).max(1 << FIRST_SHIFT);
    (bytes.next_power_of_two().trailing_zeros() - FIRST_SHIFT) as usize
}

// SAFETY: blocks are powers of two at least as large as size and alignment, cut from one mapping at multiples of their
// size (up to a page) and never given out twice.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = class_of(layout);
        if class >= CLASSES || layout.align() > 4096 {
            return ptr::null_mut();
        }
        self.locked(|state| {
            let head = state.free[class];
            if !head.is_null() {
                // SAFETY: a free block of this arena with its link in the first word.
                state.free[class] = unsafe { (*head).next };
                return head.cast();
            }
            if state.end == 0 {
                let Some((start, bytes)) = SIZES
                    .iter()
                    .find_map(|&bytes| Some((shared::reserve(bytes)?, bytes)))
                else {
                    return ptr::null_mut();
                };
                (state.next, state.end) = (start as usize, start as usize + bytes);
            }
            let bytes = 1usize << (class as u32 + FIRST_SHIFT);
            let start = state.next.next_multiple_of(bytes.min(4096));
            if start + bytes > state.end {
                return ptr::null_mut();
            }
            state.next = start + bytes;
            start as *mut u8
        })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = class_of(layout);
        self.locked(|state| {
            let node = block.cast::<Free>();
            // SAFETY: the block is free and has at least 16 bytes.
            unsafe { (*node).next = state.free[class] };
            state.free[class] = node;
        });
    }
}
