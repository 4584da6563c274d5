//! Sampled guard pages: a few allocations lie at the end of a page of their own between untouchable
//! pages, so that running over them, and using them after they were freed, is a fault at that
//! instruction. A freed slot stays untouchable until it is its turn to be used again.

use super::STATE;
use crate::fault::{Fault, Line, die};
use crate::os::{self, Os};
use crate::page_heap::Use;
use crate::process::HEAP;
use crate::span::Span;
use crate::units::{MIN_ALIGN, PAGE_SIZE, round_up};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// See [`super::RATE`].
pub static RATE: AtomicU32 = AtomicU32::new(1000);
/// Guarded allocations at a time.
const SLOTS: usize = 64;
/// Larger requests are not sampled.
const LARGEST: usize = PAGE_SIZE;

const EMPTY: u32 = 0;
const LIVE: u32 = 1;
const FREED: u32 = 2;

/// One guarded place. Changed under the lock; atomics, because the fault handler reads without.
#[derive(Debug)]
struct Slot {
    /// First address of the three pages, of which the middle one is the block's.
    start: AtomicUsize,
    block: AtomicUsize,
    size: AtomicUsize,
    state: AtomicU32,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        block: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        state: AtomicU32::new(EMPTY),
    }
}; SLOTS];

/// Which allocation is next, and where it goes.
#[derive(Debug)]
pub(super) struct Guards {
    countdown: u32,
    next: usize,
    /// 0 until it is needed: all of the state starts as zeros, so that its 64 KiB are no part of the library's
    /// file, whose pages the kernel maps around each one that is touched.
    random: u32,
}

impl Guards {
    pub(super) const fn new() -> Self {
        Self {
            countdown: 0,
            next: 0,
            random: 0,
        }
    }

    /// Whether this allocation is a sampled one: every `rate`-th on average, not predictably.
    fn hit(&mut self, rate: u32) -> bool {
        if self.countdown == 0 {
            if self.random == 0 {
                self.random = 0x9E37_79B9;
            }
            // Xorshift, which never comes to 0; the distance is uniform with the rate as its mean.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            self.countdown = self.random % (2 * rate - 1) + 1;
        }
        self.countdown -= 1;
        self.countdown == 0
    }
}

/// The slot whose three pages contain `address`.
fn slot_of(address: usize) -> Option<&'static Slot> {
    TABLE.iter().find(|slot| {
        let start = slot.start.load(Relaxed);
        start != 0 && address.wrapping_sub(start) < 3 * PAGE_SIZE
    })
}

/// Bytes of a guarded block, `None` if it is not guarded.
pub(super) fn size_of(block: *mut u8) -> Option<usize> {
    slot_of(block as usize).map(|slot| slot.size.load(Relaxed))
}

/// A guarded block, or null: not this one's turn, or not possible.
pub(super) fn allocate(size: usize, align: usize) -> *mut u8 {
    let rate = RATE.load(Relaxed);
    if rate == 0 || size > LARGEST || align > PAGE_SIZE {
        return null_mut();
    }
    let slot = {
        let mut state = STATE.lock();
        if !state.guards.hit(rate) {
            return null_mut();
        }
        let next = state.guards.next;
        let Some(at) = (0..SLOTS)
            .map(|step| (next + step) % SLOTS)
            .find(|&at| TABLE[at].state.load(Relaxed) != LIVE)
        else {
            return null_mut();
        };
        state.guards.next = (at + 1) % SLOTS;
        // Nobody else may take it while its pages change.
        TABLE[at].state.store(LIVE, Relaxed);
        &TABLE[at]
    };
    let start = slot.start.load(Relaxed);
    let start = if start != 0 {
        start
    } else {
        let span = HEAP.pages.allocate(3, 1, Use::Large);
        if span.is_null() {
            slot.state.store(EMPTY, Relaxed);
            return null_mut();
        }
        // SAFETY: the span is ours for good; only slots are in it.
        let start = HEAP.pages.map.address(unsafe { (*span).start }) as usize;
        let guards = [start, start + 2 * PAGE_SIZE];
        if !guards
            .map(|page| HEAP.pages.os.protect(page, PAGE_SIZE, false))
            .iter()
            .all(|&done| done)
        {
            undo(start, span);
            slot.state.store(EMPTY, Relaxed);
            return null_mut();
        }
        start
    };
    let page = start + PAGE_SIZE;
    if !HEAP.pages.os.protect(page, PAGE_SIZE, true) {
        slot.state.store(FREED, Relaxed);
        return null_mut();
    }
    let block = (page + PAGE_SIZE - round_up(size.max(1), MIN_ALIGN)) & !(align - 1);
    slot.block.store(block, Relaxed);
    slot.size.store(size.max(1), Relaxed);
    slot.start.store(start, Relaxed);
    core::ptr::with_exposed_provenance_mut(block)
}

/// Makes the pages of a span usable again and gives it back.
fn undo(start: usize, span: *mut Span) {
    if HEAP.pages.os.protect(start, 3 * PAGE_SIZE, true) {
        // SAFETY: the span was allocated just now and nothing is in it.
        unsafe { HEAP.pages.free(span) };
    }
}

/// Takes a guarded block back; false: it is none.
pub(super) fn free(block: *mut u8) -> bool {
    let Some(slot) = slot_of(block as usize) else {
        return false;
    };
    let state = STATE.lock();
    if slot.state.load(Relaxed) != LIVE {
        die(Fault::DoubleFree, block as usize);
    }
    if slot.block.load(Relaxed) != block as usize {
        die(Fault::InteriorPointer, block as usize);
    }
    slot.state.store(FREED, Relaxed);
    let page = slot.start.load(Relaxed) + PAGE_SIZE;
    // The contents go first: pages that cannot be touched should not occupy memory.
    HEAP.pages.os.purge(page, PAGE_SIZE);
    HEAP.pages.os.protect(page, PAGE_SIZE, false);
    drop(state);
    true
}

/// Has faults at guarded pages explained by a line before the program dies of them as usual, unless
/// the program handles such faults itself.
pub(crate) fn explain_faults() {
    os::explain_faults(explain);
}

/// The line for a fault at `address`; false: none of ours.
fn explain(address: usize) -> bool {
    let Some(slot) = slot_of(address) else {
        return false;
    };
    let block = slot.block.load(Relaxed);
    let mut line = Line::new();
    line.text(b"spanalloc: access at ").hex(address);
    line.text(match slot.state.load(Relaxed) {
        FREED => b" to a block after its free: ",
        _ if address < block => b" before the block ",
        _ => b" behind the block ",
    });
    line.hex(block)
        .text(b" of ")
        .decimal(slot.size.load(Relaxed))
        .text(b" bytes");
    line.print();
    true
}
