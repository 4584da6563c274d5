//! The live large blocks, in buckets by address.
//!
//! A look-up first asks one counter, which is 0 for most buckets. A bucket that is full forgets blocks: nothing is told of
//! them then, and a replay writes all of them.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const BUCKETS: usize = 4096;
const WAYS: usize = 8;
/// An entry that somebody is filling; no block has this address.
const TAKEN: usize = 1;

/// A block in the table: its owner alone changes the entry, as nobody else may free or resize the block.
struct Entry {
    /// 0: empty.
    address: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes it had when it was last told of; 0: never.
    told: AtomicUsize,
}

static COUNTS: [AtomicU8; BUCKETS] = [const { AtomicU8::new(0) }; BUCKETS];
static TABLE: [[Entry; WAYS]; BUCKETS] = [const {
    [const {
        Entry {
            address: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
        }
    }; WAYS]
}; BUCKETS];

#[inline(always)]
fn bucket(address: usize) -> usize {
    // Fibonacci hashing: large blocks differ in the bits above the page.
    (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - BUCKETS.trailing_zeros())
}

/// Whether a block may be in the table: `false` for most that are not.
#[inline(always)]
pub fn may_hold(address: usize) -> bool {
    COUNTS[bucket(address)].load(Ordering::Relaxed) != 0
}

/// Calls `visit` with address and bytes of every block.
pub fn each(mut visit: impl FnMut(usize, usize)) {
    for (count, entries) in COUNTS.iter().zip(&TABLE) {
        if count.load(Ordering::Relaxed) == 0 {
            continue;
        }
        for entry in entries {
            let address = entry.address.load(Ordering::Acquire);
            if address > TAKEN {
                visit(address, entry.bytes.load(Ordering::Relaxed));
            }
        }
    }
}

/// Empties the table: in a forked child the blocks are its parent's.
#[cold]
pub fn forget() {
    for (count, entries) in COUNTS.iter().zip(&TABLE) {
        if count.load(Ordering::Relaxed) != 0 {
            for entry in entries {
                entry.address.store(0, Ordering::Relaxed);
            }
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// Puts a block in, of which `told` bytes were told last (0: it never was).
pub fn insert(address: usize, bytes: usize, told: usize) {
    let index = bucket(address);
    for entry in &TABLE[index] {
        let free = entry.address.load(Ordering::Relaxed) == 0
            && entry
                .address
                .compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if free {
            entry.bytes.store(bytes, Ordering::Relaxed);
            entry.told.store(told, Ordering::Relaxed);
            COUNTS[index].fetch_add(1, Ordering::Relaxed);
            // Release: whoever sees the address sees the size. The block's later owner sees both, because it got the
            // block from this thread.
            entry.address.store(address, Ordering::Release);
            return;
        }
    }
}

/// Says how many bytes of a block were told last.
pub fn set_told(address: usize, told: usize) {
    if let Some(entry) = find(address) {
        entry.told.store(told, Ordering::Relaxed);
    }
}

fn find(address: usize) -> Option<&'static Entry> {
    let entries = &TABLE[bucket(address)];
    entries
        .iter()
        .find(|entry| entry.address.load(Ordering::Acquire) == address)
}

/// Takes a block out of the table: its bytes, and those when it was last told of.
pub fn remove(address: usize) -> Option<(usize, usize)> {
    let entry = find(address)?;
    let found = (
        entry.bytes.load(Ordering::Relaxed),
        entry.told.load(Ordering::Relaxed),
    );
    // A program that frees a block twice at once must not make us count down twice.
    entry
        .address
        .compare_exchange(address, 0, Ordering::Release, Ordering::Relaxed)
        .ok()?;
    COUNTS[bucket(address)].fetch_sub(1, Ordering::Relaxed);
    Some(found)
}
