//! Sampled guard pages: a few allocations lie at the end of a page of their own between untouchable
//! pages, so that running over them, and using them after they were freed, is a fault at that
//! instruction. A freed slot stays untouchable until it is its turn to be used again. What alignment leaves between the
//! block and the untouchable pages holds a pattern, which is looked at when the block is freed.

use super::{PATTERN, STATE};
use crate::fault::{Fault, Line, die, die_of};
use crate::os::{self, Os};
use crate::page_heap::Use;
use crate::process::HEAP;
use crate::span::Span;
use crate::units::{MIN_ALIGN, OS_PAGE, PAGE_SIZE, round_up};
use core::ops::Range;
use core::ptr::{null_mut, with_exposed_provenance, with_exposed_provenance_mut};
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

/// Bytes of the guarded places that are no live block's page.
pub(super) fn unused_bytes() -> usize {
    let made = TABLE.iter().filter(|slot| slot.start.load(Relaxed) != 0);
    made.map(|slot| match slot.state.load(Relaxed) {
        LIVE => 2 * PAGE_SIZE,
        _ => 3 * PAGE_SIZE,
    })
    .sum()
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
    for beside in slot.beside() {
        // SAFETY: the bytes are the slot's, and usable.
        unsafe {
            with_exposed_provenance_mut::<u8>(beside.start).write_bytes(PATTERN, beside.len());
        }
    }
    with_exposed_provenance_mut(block)
}

/// Makes the pages of a span usable again and gives it back.
fn undo(start: usize, span: *mut Span) {
    if HEAP.pages.os.protect(start, 3 * PAGE_SIZE, true) {
        // SAFETY: the span was allocated just now and nothing is in it.
        unsafe { HEAP.pages.free(span) };
    }
}

/// Ends the process if the address is a slot's and no live block; false: it is no slot's.
pub(super) fn expect_live(block: *mut u8) -> bool {
    slot_of(block as usize)
        .map(|slot| slot.expect(block))
        .is_some()
}

impl Slot {
    /// Ends the process unless the slot's block is this one and live.
    fn expect(&self, block: *mut u8) {
        if self.state.load(Relaxed) != LIVE {
            die(Fault::DoubleFree, block as usize);
        }
        if self.block.load(Relaxed) != block as usize {
            die(Fault::InteriorPointer, block as usize);
        }
    }

    /// What the block leaves of its page behind it, and before it of the kernel's page on which the bytes just before it are.
    fn beside(&self) -> [Range<usize>; 2] {
        let block = self.block.load(Relaxed);
        let page = self.start.load(Relaxed) + PAGE_SIZE;
        let before = (block - MIN_ALIGN).max(page) & !(OS_PAGE - 1);
        [
            before..block,
            block + self.size.load(Relaxed)..page + PAGE_SIZE,
        ]
    }

    /// Ends the process if something has been written beside the block.
    fn expect_untouched(&self) {
        for at in self.beside().into_iter().flatten() {
            // SAFETY: the byte is the slot's, and usable while the block is live.
            if unsafe { with_exposed_provenance::<u8>(at).read() } != PATTERN {
                let mut line = Line::new();
                line.text(b"spanalloc: write at ").hex(at);
                die_of(
                    self.describe(&mut line, at)
                        .text(b", found when it was freed"),
                );
            }
        }
    }

    /// Where an address is, seen from the block.
    fn describe<'a>(&self, line: &'a mut Line, address: usize) -> &'a mut Line {
        let block = self.block.load(Relaxed);
        line.text(match self.state.load(Relaxed) {
            FREED => b" to a block after its free: ",
            _ if address < block => b" before the block ",
            _ => b" behind the block ",
        });
        line.hex(block)
            .text(b" of ")
            .decimal(self.size.load(Relaxed))
            .text(b" bytes")
    }
}

/// Takes a guarded block back; false: it is none.
pub(super) fn free(block: *mut u8) -> bool {
    let Some(slot) = slot_of(block as usize) else {
        return false;
    };
    let state = STATE.lock();
    slot.expect(block);
    slot.expect_untouched();
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
    let mut line = Line::new();
    line.text(b"spanalloc: access at ").hex(address);
    slot.describe(&mut line, address).print();
    true
}
