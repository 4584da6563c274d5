//! How much of each large block the program writes.
//!
//! Programs reserve buffers and tables of which they write a part. A replay that writes all of them needs more memory than
//! the program did, so at the end of a large block's life (free, resize, exit of the process) the kernel is asked which of
//! its pages occupy memory. So that pages do not count which an earlier block has left resident there, a fresh block's whole
//! pages are given back first: its contents mean nothing yet, or are zeros.
//!
//! Live large blocks stand in a table ([`table`]); only where it may hold the block more is done at a free. So do the first
//! smaller ones of a process ([`early`]).
//!
//! A program may allocate and free large blocks all the time. What is done here is timed, and once it has taken more than one
//! part in [`SHARE`] of the time since the first large block, fresh blocks are let pass unseen until it is less. The many
//! blocks below [`MANY_BYTES`] have a quarter of that time for themselves and cannot take the others'.

use core::sync::atomic::{AtomicU64, Ordering};

use heaplab_ring::{Kind, clock, sys};

use crate::thread;

mod early;
pub(crate) mod table;

pub use early::seen_from;
pub use heaplab_ring::LARGE_BYTES;
pub use table::may_hold;

const PAGE_BYTES: usize = 4096;
/// Pages that are asked for at once; on the stack.
const PAGES_AT_ONCE: usize = 512;
/// Blocks below are so common that they have a budget of their own.
const MANY_BYTES: usize = 64 * 1024;
/// One part in so many of the time may be spent here.
const SHARE: u64 = 50;
/// Ticks that may be spent besides, whatever the time: some 10 ms.
const ALLOWANCE: u64 = 30_000_000;
/// Of both, blocks below [`MANY_BYTES`] have one part in so many, on top.
const PART_OF_MANY: u64 = 4;
/// Ticks that one call, and each page in it, take at most, several times what was measured: beyond that somebody else had
/// the CPU. Without this bound a busy machine would make blocks go unseen that a quiet one shows.
const CALL_TICKS: u64 = 60_000;
const PAGE_TICKS: u64 = 1_500;
/// Pages that were given back come in again by a fault each, which costs the program about twice what giving them back did.
const REFAULT: u64 = 2;

/// When the first large block was seen, in ticks; 0: none yet.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// Ticks spent here since, for blocks of at least [`MANY_BYTES`] and for those below.
static SPENT: AtomicU64 = AtomicU64::new(0);
static SPENT_FOR_MANY: AtomicU64 = AtomicU64::new(0);

fn spent(bytes: usize) -> &'static AtomicU64 {
    if bytes < MANY_BYTES {
        &SPENT_FOR_MANY
    } else {
        &SPENT
    }
}

/// Whether there is time left for another block of `bytes`.
fn affordable(now: u64, bytes: usize) -> bool {
    let began = match BEGAN.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => now,
        Err(began) => began,
    };
    let most = ALLOWANCE + now.saturating_sub(began) / SHARE;
    let most = if bytes < MANY_BYTES {
        most / PART_OF_MANY
    } else {
        most
    };
    spent(bytes).load(Ordering::Relaxed) <= most
}

/// Books the time that `part` bytes of a block of `bytes` took since `start`, `times` over.
fn spend(start: u64, part: usize, bytes: usize, times: u64) {
    // Ticks of two CPUs may differ by a little.
    let ticks = clock::tsc().saturating_sub(start);
    let most = CALL_TICKS + (part / PAGE_BYTES) as u64 * PAGE_TICKS;
    spent(bytes).fetch_add(ticks.min(most).saturating_mul(times), Ordering::Relaxed);
}

/// After a block of at least [`seen_from`] bytes came from the allocator. Of its contents the first `kept` bytes are the
/// program's; `None`: not known how many.
///
/// # Safety
/// The block is alive, private to the caller yet, and its bytes from `kept` on mean nothing or are zeros.
#[cold]
#[inline(never)]
pub unsafe fn appeared(address: usize, bytes: usize, kept: Option<usize>) {
    if !thread::is_open() {
        return;
    }
    if bytes < LARGE_BYTES {
        if kept == Some(0) && early::takes_part() {
            table::insert(address, bytes, 0);
        }
        return;
    }
    let now = clock::tsc();
    // Of a block whose contents stay nothing is done here, but when it ends; the few really large ones are always seen.
    if (kept.is_some() || bytes < MANY_BYTES) && !affordable(now, bytes) {
        return;
    }
    if let Some(kept) = kept {
        let (first, end) = whole_pages(address + kept.min(bytes), address + bytes);
        if end > first {
            debug_assert!(first >= address && end <= address + bytes);
            // SAFETY: the caller's promise; only whole pages inside the block.
            unsafe { sys::discard(first, end - first) };
        }
        spend(now, end - first, bytes, 1 + REFAULT);
    }
    table::insert(address, bytes, 0);
}

/// Before a block is freed.
#[inline(always)]
pub fn leaves(address: usize) {
    if may_hold(address) {
        leaves_slowly(address);
    }
}

#[cold]
#[inline(never)]
fn leaves_slowly(address: usize) {
    if let Some((bytes, _)) = table::remove(address)
        && bytes >= LARGE_BYTES
    {
        tell(address, bytes);
    }
}

/// A block that is being resized, as it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// Bytes; 0 where it was not large, or is not known.
    pub bytes: usize,
    told: usize,
}

/// Before a block is resized to `size` bytes. A block that grows little by little is looked at once for each eighth of it: to
/// look at every step would take time that grows with the square of its size.
#[inline(always)]
pub fn resizes(address: usize, size: usize) -> Before {
    if !may_hold(address) {
        return Before::default();
    }
    resizes_slowly(address, size)
}

#[cold]
#[inline(never)]
fn resizes_slowly(address: usize, size: usize) -> Before {
    let Some((bytes, told)) = table::remove(address).filter(|(bytes, _)| *bytes >= LARGE_BYTES)
    else {
        return Before::default();
    };
    let step = told / 8;
    if size < LARGE_BYTES || bytes.abs_diff(told) > step {
        tell(address, bytes);
        return Before { bytes, told: bytes };
    }
    Before { bytes, told }
}

impl Before {
    /// The resize failed.
    pub fn stays(self, address: usize) {
        if self.bytes != 0 {
            table::insert(address, self.bytes, self.told);
        }
    }

    /// The block is now this one, of at least [`LARGE_BYTES`].
    ///
    /// # Safety
    /// As for [`appeared`].
    pub unsafe fn becomes(self, address: usize, bytes: usize, kept: Option<usize>) {
        // SAFETY: the caller's promise is passed on.
        unsafe { appeared(address, bytes, kept) };
        if self.told != 0 {
            table::set_told(address, self.told);
        }
    }
}

/// Tells of all blocks in the table: the process ends.
#[cold]
pub fn tell_all() {
    // Another thread may free a block meanwhile: what is not mapped any more is not told of.
    table::each(|address, bytes| {
        if bytes >= LARGE_BYTES {
            tell(address, bytes);
        } else if early::is_zero(address, bytes) {
            thread::record(Kind::Written, address, 0, 0);
        }
    });
}

fn tell(address: usize, bytes: usize) {
    if let Some(written) = written(address, bytes) {
        thread::record(Kind::Written, address, written, 0);
    }
}

/// Bytes of a block in pages that occupy memory. `None`: it is gone.
///
/// Its last page it may share with the block behind, whose header alone makes that page occupy memory: what lies there counts
/// only if the page before it does as well. (Clients of redis-server have buffers of 16 KiB of which they write the begin; each
/// was told a page too large.) Its first page it shares, too, but that page is written with the block's first byte.
fn written(address: usize, bytes: usize) -> Option<usize> {
    let start = clock::tsc();
    let end = address + bytes;
    let mut pages = [0u8; PAGES_AT_ONCE];
    let mut written = 0;
    let mut before = true;
    let mut at = address & !(PAGE_BYTES - 1);
    while at < end {
        let count = (end - at).div_ceil(PAGE_BYTES).min(PAGES_AT_ONCE);
        let pages = &mut pages[..count];
        sys::resident(at, pages).ok()?;
        for page in pages {
            let next = at + PAGE_BYTES;
            let occupied = *page & 1 != 0;
            if occupied && (next <= end || before) {
                written += next.min(end) - at.max(address);
            }
            (at, before) = (next, occupied);
        }
    }
    spend(start, bytes, bytes, 1);
    Some(written)
}

/// The whole pages between two addresses: first and end, which may lie before the first.
fn whole_pages(from: usize, to: usize) -> (usize, usize) {
    let first = from.next_multiple_of(PAGE_BYTES);
    (first, (to & !(PAGE_BYTES - 1)).max(first))
}
