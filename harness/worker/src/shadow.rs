//! Which bytes are alive: one bit for 8 bytes of address space, in tables of shared memory made as they are needed.

use crate::shared;
use crate::shared::SharedArray;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// log2 of the address space that one table covers: 1 GiB.
const TABLE_SHIFT: u32 = 30;
/// Tables for 47 bits of address.
const TABLES: usize = 1 << (47 - TABLE_SHIFT);
/// Bytes of one table.
const TABLE_BYTES: usize = 1 << (TABLE_SHIFT - 6);
/// log2 of the bytes a word covers.
const WORD_SHIFT: u32 = 9;

/// The map of live bytes.
#[derive(Clone, Copy)]
pub struct Shadow {
    tables: SharedArray<AtomicPtr<AtomicU64>>,
}

impl Shadow {
    /// An empty map, or `None` when the memory cannot be mapped.
    pub fn new() -> Option<Self> {
        Some(Self {
            tables: SharedArray::new(TABLES)?,
        })
    }

    /// Marks a block alive; false when a part of it was alive already.
    pub fn mark(&self, start: usize, size: usize) -> bool {
        let mut free = true;
        self.words(start, size, |word, bits| {
            free &= word.fetch_or(bits, Ordering::Relaxed) & bits == 0;
        });
        free
    }

    /// Marks a block dead. Must come before the free, or its next owner could be blamed.
    pub fn clear(&self, start: usize, size: usize) {
        self.words(start, size, |word, bits| {
            word.fetch_and(!bits, Ordering::Relaxed);
        });
    }

    /// Goes over the words of a block with the bits that belong to it. Addresses beyond 47 bits are left out: they are
    /// no user memory.
    fn words(&self, start: usize, size: usize, mut each: impl FnMut(&AtomicU64, u64)) {
        let (mut unit, end) = (start >> 3, (start + size.max(1)).div_ceil(8));
        while unit < end {
            let address = unit << 3;
            let last = end.min(((address >> WORD_SHIFT) + 1) << (WORD_SHIFT - 3));
            let (from, count) = (unit & 63, last - unit);
            let bits = if count == 64 {
                u64::MAX
            } else {
                ((1 << count) - 1) << from
            };
            if address >> TABLE_SHIFT < TABLES {
                let table = self.table(address >> TABLE_SHIFT);
                if !table.is_null() {
                    let index = (address & ((1 << TABLE_SHIFT) - 1)) >> WORD_SHIFT;
                    // SAFETY: the table has a word for each 512 bytes of its GiB and is never unmapped.
                    each(unsafe { &*table.add(index) }, bits);
                }
            }
            unit = last;
        }
    }

    fn table(&self, index: usize) -> *mut AtomicU64 {
        // SAFETY: in range; zero bytes are a null AtomicPtr; never unmapped.
        let entry = unsafe { &*self.tables.at(index) };
        let table = entry.load(Ordering::Acquire);
        if !table.is_null() {
            return table;
        }
        let Some(fresh) = shared::reserve(TABLE_BYTES) else {
            return std::ptr::null_mut();
        };
        match entry.compare_exchange(table, fresh.cast(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => fresh.cast(),
            // Another thread was faster; its table is the one, ours is left untouched and costs no memory.
            Err(winner) => winner,
        }
    }
}
