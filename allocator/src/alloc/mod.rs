//! The allocator of the process: malloc and its relatives over the one global heap. The fast
//! paths are here; each ends in a jump to a cold function that does everything rare.
//!
//! Results follow the C library: null with `errno` = `ENOMEM` when memory is short, `errno`
//! untouched otherwise (free keeps it because nothing here calls libc on that path).

mod free;
mod limit;
mod resize;
mod trim;

pub use free::{free, free_expecting, free_sized};
pub use limit::{OnLimit, set_limits};
pub(crate) use resize::stays;
pub use resize::{reallocate, reallocate_exact, resize_aligned, try_grow, usable_size};
pub use trim::{Trimmed, trim};

use crate::config;
use crate::cpu_cache;
use crate::fault::DETECT;
use crate::front_end;
use crate::hardened;
use crate::lookup::{LOOKUP, Lookup};
use crate::page_heap::Use;
use crate::partition;
use crate::process::HEAP;
use crate::profile;
use crate::size_class::{
    FINE_LIMIT, MAX_SMALL, NUM_CLASSES, class_of, class_of_aligned, fine_class_of,
};
use crate::slow_path::SlowPath;
use crate::thread::{attach, own};
use crate::tls;
use crate::units::{MIN_ALIGN, OS_PAGE, PAGE_SHIFT, pages_for, round_up};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Class of the page that `block` is on, 0 for large blocks and for what is not in the heap.
///
/// Relaxed loads of atomics are not folded into other instructions by the compiler, and a test for
/// the end of the heap would be a branch more; here an address outside, and by the rotation one that is no
/// multiple of 8, reads the entry behind the end, which is 0 (P3).
#[inline(always)]
fn class_at(block: *const u8) -> usize {
    let class: usize;
    macro_rules! look_up {
        ($($position:literal),* ; $($page:literal),*) => {
            core::arch::asm!(
                "sub {at}, qword ptr [rip + {lookup} + {base}]",
                $($position,)*
                "cmp {at}, qword ptr [rip + {lookup} + {words}]",
                "cmovae {at}, qword ptr [rip + {lookup} + {words}]",
                $($page,)*
                "mov {class}, qword ptr [rip + {lookup} + {classes}]",
                "movzx {class:e}, byte ptr [{class} + {at}]",
                at = inout(reg) block => _,
                class = out(reg) class,
                lookup = sym LOOKUP,
                base = const Lookup::BASE_AT,
                words = const Lookup::WORDS_AT,
                classes = const Lookup::CLASSES_AT,
                shift = const PAGE_SHIFT - 3 * DETECT as u32,
                options(pure, readonly, nostack),
            )
        };
    }
    // SAFETY: reads the map's fields, which only grow and are set before a block exists, and one
    // byte of the class map, which is mapped for every page of the heap and the one behind (P3).
    unsafe {
        #[cfg(not(feature = "no-detection"))]
        look_up!("ror {at}, 3"; "shr {at}, {shift}");
        #[cfg(feature = "no-detection")]
        look_up!("shr {at}, {shift}";);
    }
    class
}

/// Up to this a block's size tells its class when it is freed by size: beyond, it may have grown into a span of
/// its own.
const GROWING: usize = 32 << 10;

#[cold]
fn no_memory() -> *mut u8 {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    null_mut()
}

/// The result of a slow path, when no lock is held any more: tells what the limits have to tell, and sets
/// `errno` for null.
pub(crate) fn answer(block: *mut u8) -> *mut u8 {
    if partition::heaps().any(|heap| heap.pages.limits.is_pending()) {
        limit::tell_limits();
    }
    if block.is_null() { no_memory() } else { block }
}

/// A block of at least `size` bytes, aligned to 16 (8 for up to 8 bytes). Null: no memory.
#[inline(always)]
#[must_use]
pub fn allocate(size: usize) -> *mut u8 {
    allocate_or(
        size,
        |size| allocate_middle(size),
        |size| allocate_slow(size),
    )
}

/// The fast path of [`allocate`]; `larger` is called for sizes beyond the fine classes, `missed`
/// when the bin is empty. Both calls are the last thing done, so that they are jumps.
#[inline(always)]
pub fn allocate_or(
    size: usize,
    larger: impl FnOnce(usize) -> *mut u8,
    missed: impl FnOnce(usize) -> *mut u8,
) -> *mut u8 {
    let Some(class) = fine_class_of(size) else {
        return larger(size);
    };
    let block = tls::cache().pop(class);
    if block.is_null() {
        return missed(size);
    }
    block
}

/// As [`allocate`], for a block that will be freed by its address, never by its size: the first few of a class may be
/// longer ones that are at hand.
#[inline(always)]
#[must_use]
pub fn allocate_loosely(size: usize) -> *mut u8 {
    allocate_or(
        size,
        |size| allocate_middle(size),
        |size| allocate_loosely_slow(size),
    )
}

/// [`allocate_loosely`] without a fast path.
#[cold]
#[inline(never)]
pub extern "C" fn allocate_loosely_slow(size: usize) -> *mut u8 {
    if detour() {
        return allocate_detour(size, 1);
    }
    if let Some(class) = fine_class_of(size)
        && HEAP.may_lend(class)
    {
        let block = front_end::current(|front| front.lend(class));
        if !block.is_null() {
            return answer(block);
        }
    }
    allocate_slow(size)
}

/// [`allocate`] for sizes that have a coarse class, out of line to keep the fine ones short.
#[inline(never)]
extern "C" fn allocate_middle(size: usize) -> *mut u8 {
    if let Some(class) = class_of(size) {
        let block = tls::cache().pop(class);
        if !block.is_null() {
            return block;
        }
    }
    allocate_slow(size)
}

/// [`allocate`] without a fast path.
#[cold]
#[inline(never)]
pub extern "C" fn allocate_slow(size: usize) -> *mut u8 {
    // The fast path of the front end per CPU, which has neither detour nor thread caches.
    if let Some(rseq) = cpu_cache::of_thread()
        && let Some(class) = class_of(size)
    {
        let block = cpu_cache::pop(rseq, class);
        if !block.is_null() {
            return block;
        }
    }
    if detour() {
        return allocate_detour(size, 1);
    }
    match class_of(size) {
        Some(class) => allocate_class_slow(class),
        None => answer(allocate_large(size, 1)),
    }
}

/// Slow paths have to look whether blocks are checked or counted for a profile. One test for both.
#[inline]
fn detour() -> bool {
    DETOUR.load(Relaxed) != 0
}

static DETOUR: AtomicU32 = AtomicU32::new(0);

/// To be called whenever [`hardened::checked`] or [`profile::on`] changes.
pub(crate) fn set_detour() {
    DETOUR.store(u32::from(hardened::checked() || profile::on()), Relaxed);
}

/// [`allocate_slow`] and [`allocate_aligned_slow`] with everything special.
#[cold]
#[inline(never)]
fn allocate_detour(size: usize, align: usize) -> *mut u8 {
    if hardened::checked() {
        return answer(hardened::allocate(size, align));
    }
    let class = aligned_class(size, align);
    // A profile needs caches of threads, so most blocks are here.
    if let Some(class) = class
        && let Some(own) = attach()
    {
        let block = own.pop(class);
        if !block.is_null() {
            let block = at_multiple(align, class, block);
            profile::allocated_by(own, block, size);
            return block;
        }
    }
    let block = match class {
        Some(class) => at_multiple(align, class, allocate_class_slow(class)),
        None => answer(allocate_large(size, align)),
    };
    profile::allocated(block, size);
    block
}

/// A block in a span of its own.
fn allocate_large(size: usize, align: usize) -> *mut u8 {
    // The first of the process, perhaps; those of classes come to it where threads get caches.
    config::load_once();
    let _slow_path = SlowPath::with_bins();
    HEAP.allocate_large_after(size, align, Use::Large, || give_idle(size))
        .0
}

/// To be called before a large block of `size` is made of pages that are not resident: what is at rest in the thread's cache, or its
/// CPU's, goes back.
fn give_idle(size: usize) {
    if let Some(cache) = own() {
        cache.give_idle(&HEAP, 0, pages_for(size));
    } else {
        cpu_cache::give_idle_large(size);
    }
}

/// A block of a class whose bin is empty.
fn allocate_class_slow(class: usize) -> *mut u8 {
    let block = front_end::current(|front| front.allocate(class));
    answer(block)
}

/// [`allocate_class_slow`] at a multiple of `align`, which the class has.
#[inline(never)]
extern "C" fn allocate_aligned_class_slow(align: usize, class: usize) -> *mut u8 {
    at_multiple(align, class, allocate_class_slow(class))
}

/// As [`allocate`], with all `size` bytes zero.
#[inline(always)]
#[must_use]
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    allocate_zeroed_or(size, |size| allocate_zeroed_slow(size))
}

/// As [`allocate_zeroed`], for a block that will be freed by its address ([`allocate_loosely`]).
#[inline(always)]
#[must_use]
pub fn allocate_zeroed_loosely(size: usize) -> *mut u8 {
    allocate_zeroed_or(size, |size| allocate_zeroed_loosely_slow(size))
}

#[inline(always)]
fn allocate_zeroed_or(size: usize, missed: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
    let Some(class) = fine_class_of(size) else {
        return missed(size);
    };
    let block = tls::cache().pop(class);
    if block.is_null() {
        return missed(size);
    }
    // SAFETY: the block has at least `size` bytes.
    unsafe { block.write_bytes(0, size) };
    block
}

/// As [`allocate_zeroed`], for what the fine classes' bins do not have.
#[cold]
#[inline(never)]
extern "C" fn allocate_zeroed_slow(size: usize) -> *mut u8 {
    if size < OS_PAGE {
        return filled(allocate_middle(size), size);
    }
    zeroed_pages(size, 1)
}

/// As [`allocate_zeroed_loosely`], for what the fine classes' bins do not have.
#[cold]
#[inline(never)]
extern "C" fn allocate_zeroed_loosely_slow(size: usize) -> *mut u8 {
    if size <= FINE_LIMIT {
        return filled(allocate_loosely_slow(size), size);
    }
    allocate_zeroed_slow(size)
}

/// A block at a multiple of `align`, a power of two, with all `size` bytes zero.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// // Fresh pages are zero already, so this makes none of them resident but the one that is read.
/// let layout = std::alloc::Layout::from_size_align(64 << 20, 1 << 16)?;
/// let block = unsafe { std::alloc::alloc_zeroed(layout) };
/// assert!(block as usize % (1 << 16) == 0 && unsafe { *block.add(1 << 20) } == 0);
/// unsafe { std::alloc::dealloc(block, layout) };
/// # Ok::<(), std::alloc::LayoutError>(())
/// ```
#[inline]
#[must_use]
pub fn allocate_zeroed_aligned(align: usize, size: usize) -> *mut u8 {
    if align <= MIN_ALIGN {
        // Only blocks of 8 bytes have less than the least alignment.
        allocate_zeroed(size.max(align))
    } else {
        zeroed_aligned_slow(align, size)
    }
}

#[inline(never)]
extern "C" fn zeroed_aligned_slow(align: usize, size: usize) -> *mut u8 {
    if size < OS_PAGE {
        return filled(allocate_aligned_slow(align, size), size);
    }
    zeroed_pages(size, align)
}

/// Makes `size` bytes of a block zero, if there is one.
fn filled(block: *mut u8, size: usize) -> *mut u8 {
    if !block.is_null() {
        // SAFETY: the block has at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

/// A zero block of a page or more: from there on it pays to know that memory is zero already.
fn zeroed_pages(size: usize, align: usize) -> *mut u8 {
    config::load_once();
    if hardened::on() {
        return filled(allocate_aligned(align, size), size);
    }
    let class = aligned_class(size, align);
    let cached = class.map_or(null_mut(), |class| {
        let block = front_end::current(|front| front.cached(class));
        at_multiple(align, class, block)
    });
    let (block, zero) = if cached.is_null() {
        let _slow_path = SlowPath::with_bins();
        match class {
            Some(class) => HEAP.take_one(class),
            None => HEAP.allocate_large_after(size, align, Use::Zeros, || give_idle(size)),
        }
    } else {
        (cached, false)
    };
    if block.is_null() {
        return answer(block);
    }
    if profile::on() {
        profile::allocated(block, size);
    }
    if zero {
        ZERO_SKIPPED.fetch_add(size as u64, Relaxed);
        return block;
    }
    filled(block, size)
}

/// Bytes of zeroed blocks that were zero already. (Each costs page faults when it is used, beside which this
/// count is nothing.)
pub(crate) static ZERO_SKIPPED: AtomicU64 = AtomicU64::new(0);

/// A block of at least `size` bytes at a multiple of `align`, a power of two.
#[inline(always)]
#[must_use]
pub fn allocate_aligned(align: usize, size: usize) -> *mut u8 {
    if align <= MIN_ALIGN {
        // Only blocks of 8 bytes have less than the least alignment.
        allocate(size.max(align))
    } else {
        allocate_aligned_slow(align, size)
    }
}

#[inline(never)]
extern "C" fn allocate_aligned_slow(align: usize, size: usize) -> *mut u8 {
    if let Some(class) = aligned_class(size, align) {
        let block = tls::cache().pop(class);
        if !block.is_null() {
            return at_multiple(align, class, block);
        }
        if !detour() {
            return allocate_aligned_class_slow(align, class);
        }
    }
    if detour() {
        return allocate_detour(size, align);
    }
    // A run that could not be cut at the alignment comes back as null.
    answer(allocate_large(size, align))
}

/// [`crate::heap::Heap::at_multiple`] of the main heap.
#[inline(always)]
fn at_multiple(align: usize, class: usize, block: *mut u8) -> *mut u8 {
    // A power of two.
    if block as usize & (align - 1) == 0 {
        return block;
    }
    exchange(align, class, block)
}

#[cold]
#[inline(never)]
extern "C" fn exchange(align: usize, class: usize, block: *mut u8) -> *mut u8 {
    let slow_path = SlowPath::enter();
    let block = HEAP.at_multiple(align, class, block);
    drop(slow_path);
    answer(block)
}

/// The class for `size` bytes at a multiple of `align`, `None`: a span of its own.
#[inline(always)]
pub(crate) fn aligned_class(size: usize, align: usize) -> Option<usize> {
    if size <= FINE_LIMIT && align <= FINE_LIMIT {
        // Among the fine classes the one for a multiple of the alignment is itself a multiple.
        fine_class_of(round_up(size.max(1), align))
    } else {
        class_of_aligned(size, align)
    }
}

const _: () = assert!(MAX_SMALL > GROWING && NUM_CLASSES < 256);
