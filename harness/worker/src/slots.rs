//! The slot table: where a block is until it is freed, and the only synchronisation between replaying threads.
//!
//! Private slots are plain words, dense. Shared slots have a cache line each, in which a word holds
//! `generation << 48 | address`; a block is handed over by a release store and an acquire load of that word.

use crate::shared::SharedArray;
use crate::waiting::Waits;
use heaplab_script::{FLAG_SHARED, Op};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const ADDRESS: u64 = (1 << 48) - 1;
/// Stands in a full shared slot for a block of size 0 that the subject answered with null.
const NULL_BLOCK: u64 = 1;

/// A slot that crosses threads, alone on its cache line.
#[repr(C, align(64))]
pub struct SharedSlot {
    word: AtomicU64,
    /// Thread that allocated the block; written before the word is published.
    owner: AtomicU32,
}

/// All slots of a run.
#[derive(Clone, Copy)]
pub struct Slots {
    private: SharedArray<u64>,
    shared: SharedArray<SharedSlot>,
}

impl Slots {
    /// A table with all slots empty, or `None` when the memory cannot be mapped.
    pub fn new(private: u32, shared: u32) -> Option<Self> {
        let slots = Self {
            private: SharedArray::new(private as usize)?,
            shared: SharedArray::new(shared as usize)?,
        };
        slots.private.populate();
        slots.shared.populate();
        Some(slots)
    }

    /// Slots of both kinds.
    pub fn len(&self) -> usize {
        self.private.len() + self.shared.len()
    }

    /// Word of a private slot.
    #[inline(always)]
    pub fn private(&self, slot: u32) -> *mut u64 {
        self.private.at(slot as usize)
    }

    /// Word of the first private slot, if there is one.
    pub fn first(&self) -> *mut u64 {
        self.private.start()
    }

    /// A shared slot.
    #[inline(always)]
    pub fn shared(&self, slot: u32) -> &'static SharedSlot {
        // SAFETY: the script's reader has checked the index; the table is never unmapped; the type is all atomics.
        unsafe { &*self.shared.at(slot as usize - self.private.len()) }
    }

    /// Asks for the cache line of the slot that an op ahead will need, if it is a shared one.
    #[inline(always)]
    pub fn prefetch(&self, op: &Op) {
        if op.flags & FLAG_SHARED != 0 {
            let index = (op.slot as usize).wrapping_sub(self.private.len());
            prefetch(self.shared.start().wrapping_add(index));
        }
    }

    /// Takes every block that is still there out of the table (slot, block), for the clean-up between repetitions, and resets the
    /// shared slots to generation 0.
    ///
    /// No thread may be replaying.
    pub fn drain(&self, block: impl FnMut(usize, *mut c_void)) {
        self.each(block);
        for index in 0..self.private.len() {
            // SAFETY: in range, and nobody else uses the table now.
            unsafe { self.private.at(index).write(0) };
        }
        for index in 0..self.shared.len() {
            // SAFETY: in range; all atomics.
            unsafe { (*self.shared.at(index)).word.store(0, Ordering::Release) };
        }
    }

    /// Goes over every block that is still there (slot, block). No thread may be replaying.
    pub fn each(&self, mut block: impl FnMut(usize, *mut c_void)) {
        for index in 0..self.private.len() {
            // SAFETY: in range, and nobody else uses the table now.
            let address = unsafe { self.private.at(index).read() };
            if address != 0 {
                block(index, address as *mut c_void);
            }
        }
        for index in 0..self.shared.len() {
            // SAFETY: in range; all atomics.
            let slot = unsafe { &*self.shared.at(index) };
            let address = slot.word.load(Ordering::Acquire) & ADDRESS;
            if address > NULL_BLOCK {
                block(self.private.len() + index, address as *mut c_void);
            }
        }
    }
}

/// Asks for a cache line.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch may have any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

impl SharedSlot {
    /// Waits until the slot is empty at `generation`; whether that took time.
    #[inline(always)]
    pub fn wait_empty(&self, generation: u16, waits: &mut Waits) -> bool {
        let empty = u64::from(generation) << 48;
        if self.word.load(Ordering::Acquire) == empty {
            waits.was_ready();
            return false;
        }
        waits.until(|| self.word.load(Ordering::Acquire) == empty);
        true
    }

    /// Waits until the slot is full at `generation`; the block, and whether that took time.
    #[inline(always)]
    pub fn wait_full(&self, generation: u16, waits: &mut Waits) -> (*mut c_void, bool) {
        let full = |word: u64| word >> 48 == u64::from(generation) && word & ADDRESS != 0;
        let mut word = self.word.load(Ordering::Acquire);
        let waited = !full(word);
        if waited {
            waits.until(|| {
                word = self.word.load(Ordering::Acquire);
                full(word)
            });
        } else {
            waits.was_ready();
        }
        let address = word & ADDRESS;
        (
            if address == NULL_BLOCK { 0 } else { address } as *mut c_void,
            waited,
        )
    }

    /// Publishes a block at `generation`.
    #[inline(always)]
    pub fn fill(&self, generation: u16, block: *mut c_void, owner: u32) {
        self.owner.store(owner, Ordering::Relaxed);
        let address = if block.is_null() {
            NULL_BLOCK
        } else {
            block as u64
        };
        self.word
            .store(u64::from(generation) << 48 | address, Ordering::Release);
    }

    /// Publishes that the slot is empty at `generation`.
    #[inline(always)]
    pub fn empty(&self, generation: u16) {
        self.word
            .store(u64::from(generation) << 48, Ordering::Release);
    }

    /// Thread that allocated the block, for who has taken it.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Relaxed)
    }
}
