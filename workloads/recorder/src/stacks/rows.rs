//! Rows of the unwind tables, cached by address for the whole process.
//!
//! Two words an entry, written and read without a lock: the check word is `key ^ row`, so a pair
//! that two threads wrote half each fits no key (Hyatt and Mann's lockless transposition table).

use core::sync::atomic::{AtomicU64, Ordering};

use heaplab_unwind::Row;

use super::modules;

struct Entry {
    check: AtomicU64,
    row: AtomicU64,
}

const BITS: u32 = 14;
static ROWS: [Entry; 1 << BITS] = [const {
    Entry {
        check: AtomicU64::new(0),
        row: AtomicU64::new(0),
    }
}; 1 << BITS];

/// The row of `pc`, in this epoch of the program's code.
#[inline(always)]
pub fn row(pc: u64, epoch: u16) -> Row {
    let key = pc | u64::from(epoch) << 48;
    let index = (pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as usize;
    let entry = &ROWS[index];
    let word = entry.row.load(Ordering::Relaxed);
    // An empty entry: 0 is no row's word, and no key.
    if entry.check.load(Ordering::Relaxed) ^ word == key {
        return Row::from_cache(word);
    }
    find(pc, epoch, key, entry)
}

#[cold]
#[inline(never)]
fn find(pc: u64, epoch: u16, key: u64, entry: &Entry) -> Row {
    let Some(row) = modules::row(pc, epoch) else {
        return Row::CHAIN;
    };
    entry.row.store(row.to_word(), Ordering::Relaxed);
    entry.check.store(key ^ row.to_word(), Ordering::Relaxed);
    row
}
