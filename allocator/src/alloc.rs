//! The allocator of the process: malloc and its relatives over the one global heap. The fast
//! paths are here; each ends in a jump to a cold function that does everything rare.
//!
//! Results follow the C library: null with `errno` = `ENOMEM` when memory is short, `errno`
//! untouched otherwise (free keeps it because nothing here calls libc on that path).

use crate::cpu_cache::{self, Undisturbed};
use crate::front_end;
use crate::hardened;
use crate::heap::{Block, Heap};
use crate::limits;
use crate::os::Linux;
use crate::page_heap::growth::headroom;
use crate::page_map::PageMap;
use crate::profile;
use crate::size_class::{
    FINE_LIMIT, MAX_SMALL, NUM_CLASSES, class_of, class_of_aligned, fine_class_of, size_of_class,
};
use crate::tls;
use crate::units::{MIN_ALIGN, OS_PAGE, PAGE_SHIFT, pages_for, round_up};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

/// The heap of the process.
pub(crate) static HEAP: Heap<Linux> = Heap::new(Linux);

/// Class of the page that `block` is on, 0 for large blocks and for what is not in the heap.
///
/// Relaxed loads of atomics are not folded into other instructions by the compiler, and a test for
/// the end of the heap would be a branch more; here an address outside, and by the rotation one that is no
/// multiple of 8, reads the entry behind the end, which is 0 (P3).
#[inline(always)]
fn class_at(block: *const u8) -> usize {
    const MAP: usize = core::mem::offset_of!(Heap<Linux>, pages)
        + core::mem::offset_of!(crate::page_heap::PageHeap<Linux>, map);
    let class: usize;
    // SAFETY: reads the map's fields, which only grow and are set before a block exists, and one
    // byte of the class map, which is mapped for every page of the heap and the one behind (P3).
    unsafe {
        core::arch::asm!(
            "sub {at}, qword ptr [rip + {heap} + {base}]",
            "ror {at}, 3",
            "cmp {at}, qword ptr [rip + {heap} + {words}]",
            "cmovae {at}, qword ptr [rip + {heap} + {words}]",
            "shr {at}, {shift}",
            "mov {class}, qword ptr [rip + {heap} + {classes}]",
            "movzx {class:e}, byte ptr [{class} + {at}]",
            at = inout(reg) block => _,
            class = out(reg) class,
            heap = sym HEAP,
            base = const MAP + PageMap::BASE_AT,
            words = const MAP + PageMap::WORDS_AT,
            classes = const MAP + PageMap::CLASSES_AT,
            shift = const PAGE_SHIFT - 3,
            options(pure, readonly, nostack),
        );
    }
    class
}

/// Up to this a block's size tells its class when it is freed by size: beyond, it may have grown into a span of
/// its own.
const GROWING: usize = 32 << 10;
/// Blocks of this size and more get a span of their own with room behind it when they grow by realloc.
const ROOMY_OLD: usize = 4 << 10;
/// Blocks of this size and more are moved by the page tables when they have to move …
const REMAP: usize = 512 << 10;
/// … but each move splits kernel mappings, of which a process may have 65,530.
const MAX_REMAPS: u64 = 2_000;

#[cold]
fn no_memory() -> *mut u8 {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    null_mut()
}

/// The result of a slow path, when no lock is held any more: tells what the limits have to tell, and sets
/// `errno` for null.
fn answer(block: *mut u8) -> *mut u8 {
    if HEAP.pages.limits.is_pending() {
        tell_limits();
    }
    if block.is_null() { no_memory() } else { block }
}

/// What is called when a limit is reached: [`limits::SOFT`] or [`limits::HARD`], and the bytes in use.
pub type OnLimit = extern "C" fn(which: u32, in_use_bytes: usize);

static ON_LIMIT: AtomicPtr<()> = AtomicPtr::new(null_mut());

/// Limits what the program may have in use, in bytes of spans (see [`limits`]); 0: no limit. Beyond
/// `hard` requests get null. `callback` is called when the use grows beyond `soft` and when `hard` has
/// refused a request, by the thread whose request it was and with no lock held, so that it may free
/// and trim. Without a callback, crossing `soft` gives all free memory back.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// static TOLD: AtomicU32 = AtomicU32::new(0);
/// extern "C" fn told(which: u32, _in_use_bytes: usize) {
///     TOLD.fetch_or(which, Relaxed);
/// }
/// spanalloc::set_limits(16 << 20, 64 << 20, Some(told));
/// let large: Vec<u8> = Vec::with_capacity(20 << 20);
/// assert_eq!(TOLD.load(Relaxed), spanalloc::limits::SOFT);
/// let mut too_large: Vec<u8> = Vec::new();
/// assert!(too_large.try_reserve(100 << 20).is_err());
/// assert!(TOLD.load(Relaxed) & spanalloc::limits::HARD != 0);
/// # drop(large);
/// ```
pub fn set_limits(soft: usize, hard: usize, callback: Option<OnLimit>) {
    ON_LIMIT.store(
        callback.map_or(null_mut(), |callback| callback as *mut ()),
        Relaxed,
    );
    HEAP.pages.limits.set_soft(soft);
    HEAP.pages.limits.set_hard(hard);
}

#[cold]
#[inline(never)]
fn tell_limits() {
    let told = HEAP.pages.limits.take();
    let callback = ON_LIMIT.load(Relaxed);
    for which in [limits::SOFT, limits::HARD] {
        if told & which == 0 {
            continue;
        }
        if callback.is_null() {
            HEAP.pages.release_free(0);
            continue;
        }
        // SAFETY: only functions of this type are stored.
        let callback = unsafe { core::mem::transmute::<*mut (), OnLimit>(callback) };
        callback(which, HEAP.pages.in_use_bytes());
    }
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
    if detour() {
        return allocate_detour(size, 1);
    }
    match class_of(size) {
        Some(class) => allocate_class_slow(class),
        None => answer(allocate_large(size, 1)),
    }
}

/// Slow paths have to look whether blocks are hardened or counted for a profile. One test for both.
#[inline]
fn detour() -> bool {
    DETOUR.load(Relaxed) != 0
}

static DETOUR: AtomicU32 = AtomicU32::new(0);

/// To be called whenever [`hardened::on`] or [`profile::on`] changes.
pub(crate) fn set_detour() {
    DETOUR.store(u32::from(hardened::on() || profile::on()), Relaxed);
}

/// [`allocate_slow`] and [`allocate_aligned_slow`] with everything special.
#[cold]
#[inline(never)]
fn allocate_detour(size: usize, align: usize) -> *mut u8 {
    if hardened::on() {
        return answer(hardened::allocate(size, align));
    }
    let block = match aligned_class(size, align) {
        Some(class) => allocate_class_slow(class),
        None => answer(allocate_large(size, align)),
    };
    profile::allocated(block, size);
    block
}

/// A block in a span of its own.
fn allocate_large(size: usize, align: usize) -> *mut u8 {
    let _undisturbed = Undisturbed::new();
    HEAP.allocate_large(size, align).0
}

/// A block of a class whose bin is empty.
fn allocate_class_slow(class: usize) -> *mut u8 {
    let block = front_end::current(|front| front.allocate(class));
    answer(block)
}

/// As [`allocate`], with all `size` bytes zero.
#[inline(always)]
#[must_use]
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    let Some(class) = fine_class_of(size) else {
        return allocate_zeroed_slow(size);
    };
    let block = tls::cache().pop(class);
    if block.is_null() {
        return allocate_zeroed_slow(size);
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
        let block = allocate_middle(size);
        if !block.is_null() {
            // SAFETY: the block has at least `size` bytes.
            unsafe { block.write_bytes(0, size) };
        }
        return block;
    }
    if hardened::on() {
        let block = allocate_slow(size);
        if !block.is_null() {
            // SAFETY: the block has at least `size` bytes.
            unsafe { block.write_bytes(0, size) };
        }
        return block;
    }
    // From a page upwards it pays to know that memory is zero already.
    let undisturbed = Undisturbed::new();
    let (block, zero) = match class_of(size) {
        Some(class) => {
            let cached = front_end::current(|front| front.cached(class));
            if cached.is_null() {
                HEAP.take_one(class)
            } else {
                (cached, false)
            }
        }
        None => HEAP.allocate_large(size, 1),
    };
    drop(undisturbed);
    if block.is_null() {
        return answer(block);
    }
    if profile::on() {
        profile::allocated(block, size);
    }
    if !zero {
        // SAFETY: the block has at least `size` bytes.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

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
            return block;
        }
        if !detour() {
            return allocate_class_slow(class);
        }
    }
    if detour() {
        return allocate_detour(size, align);
    }
    // A run that could not be cut at the alignment comes back as null.
    answer(allocate_large(size, align))
}

/// The class for `size` bytes at a multiple of `align`, `None`: a span of its own.
#[inline(always)]
fn aligned_class(size: usize, align: usize) -> Option<usize> {
    if size <= FINE_LIMIT && align <= FINE_LIMIT {
        // Among the fine classes the one for a multiple of the alignment is itself a multiple.
        fine_class_of(round_up(size.max(1), align))
    } else {
        class_of_aligned(size, align)
    }
}

/// Frees a block; null is ignored. Anything that is not a live block ends the process, at once or
/// when the thread cache flushes it.
///
/// # Safety
/// `block` is null or was returned by this allocator and not freed since.
#[inline(always)]
pub unsafe fn free(block: *mut u8) {
    // SAFETY: the caller's duty; class 0 has no room, so it takes the slow path.
    unsafe {
        if !tls::cache().push(class_at(block), block) {
            free_slow(block);
        }
    }
}

/// As [`free`]; in checked mode the process ends unless the block may have been asked for with `size`
/// bytes. (Not [`free_sized`]: the block may have been shrunk in place since.)
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn free_expecting(block: *mut u8, size: usize) {
    // SAFETY: the caller's duty. In checked mode there is no room.
    unsafe {
        if !tls::cache().push(class_at(block), block) {
            free_expecting_slow(block, size);
        }
    }
}

/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_expecting_slow(block: *mut u8, size: usize) {
    if hardened::checked() && !block.is_null() {
        hardened::expect_size(block, size);
    }
    // SAFETY: the caller's duty.
    unsafe { free_slow(block) }
}

/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(block: *mut u8) {
    if block.is_null() {
        return;
    }
    if detour() {
        if hardened::on() {
            // SAFETY: the caller's duty.
            return unsafe { hardened::free(block) };
        }
        profile::freed(block);
    }
    match HEAP.block_of(block) {
        // SAFETY: the caller's duty.
        Block::Small(class) => unsafe { free_class_slow(block, class) },
        // SAFETY: the span is the block's.
        Block::Large(span) => unsafe {
            let _undisturbed = Undisturbed::new();
            HEAP.pages.free(span);
        },
    }
    crate::helper::start_if_wanted();
}

/// # Safety
/// `block` is an object of `class` that is not in use any more.
#[cold]
#[inline(never)]
unsafe extern "C" fn free_class_slow(block: *mut u8, class: usize) {
    if detour() {
        if hardened::on() {
            // SAFETY: the caller's duty.
            return unsafe { hardened::free_class(block, class) };
        }
        // SAFETY: the caller's duty.
        if unsafe { profile::free_class(block, class) } {
            return;
        }
    }
    // SAFETY: the caller's duty.
    front_end::current(|front| unsafe { front.free(class, block) });
}

/// Frees a block whose size and alignment at allocation are known: no page map is read.
///
/// # Safety
/// `block` is not null, came from [`allocate`], [`allocate_zeroed`] or [`allocate_aligned`] with
/// exactly these (or from [`reallocate_exact`] to this size) and was not freed since.
#[inline(always)]
pub unsafe fn free_sized(block: *mut u8, size: usize, align: usize) {
    if align > MIN_ALIGN {
        // SAFETY: the caller's duty.
        return unsafe { free(block) };
    }
    // SAFETY: the caller's duty: the block has the class that its size asks for.
    unsafe {
        match fine_class_of(size.max(align)) {
            Some(class) if tls::cache().push(class, block) => {}
            Some(class) => free_class_slow(block, class),
            None => free_sized_middle(block, size),
        }
    }
}

/// [`free_sized`] for sizes that have a coarse class.
///
/// # Safety
/// As [`free_sized`].
#[inline(never)]
unsafe extern "C" fn free_sized_middle(block: *mut u8, size: usize) {
    // SAFETY: the caller's duty: the block has the class that its size asks for, but blocks that
    // grew beyond `GROWING` may be spans of their own.
    unsafe {
        match class_of(size) {
            Some(class) if size <= GROWING => {
                if !tls::cache().push(class, block) {
                    free_class_slow(block, class);
                }
            }
            _ => free(block),
        }
    }
}

/// Bytes of the block that the program may use; 0 for null.
///
/// # Safety
/// As [`free`].
#[must_use]
pub unsafe fn usable_size(block: *mut u8) -> usize {
    if block.is_null() {
        0
    } else if hardened::on() {
        hardened::usable_size(block)
    } else {
        HEAP.usable_size(block)
    }
}

/// Gives a block another size, in place if it fits and would not waste half of it, else by
/// moving. Null: no memory, and the block stays as it was.
///
/// # Safety
/// As [`free`], and `block` is not null.
#[inline(always)]
#[must_use]
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // Class 0 has no bytes, so it takes the slow path.
    if size > 0 && stays(size, size_of_class(class_at(block))) {
        return block;
    }
    // SAFETY: the caller's duty.
    unsafe { reallocate_slow(block, size) }
}

/// Whether a block of `old` bytes is good for `size` where it is.
#[inline(always)]
const fn stays(size: usize, old: usize) -> bool {
    size <= old && (size > old / 2 || old <= 64)
}

/// # Safety
/// As [`reallocate`].
#[inline(never)]
unsafe extern "C" fn reallocate_slow(block: *mut u8, size: usize) -> *mut u8 {
    if hardened::on() {
        // SAFETY: the caller's duty.
        let moved = unsafe { hardened::reallocate(block, size) };
        return answer(moved);
    }
    match HEAP.block_of(block) {
        // SAFETY: the caller's duty.
        Block::Small(class) => unsafe { move_to(block, size_of_class(class), size) },
        // SAFETY: the caller's duty.
        Block::Large(span) => unsafe {
            let old = (*span).bytes();
            // Shrinking to where classes are finer than pages is a move.
            if size > ROOMY_OLD && size <= crate::units::MAX_REQUEST {
                let (has, pages) = ((*span).pages as usize, pages_for(size));
                // Only the block's owner changes its span, so this needs no lock.
                let fits = pages <= has && has <= pages + headroom(pages);
                if fits || (size > GROWING || pages > has) && resize(span, pages) {
                    if profile::on() {
                        profile::resized(block, size);
                    }
                    return block;
                }
            }
            move_to(block, old, size)
        },
    }
}

/// [`crate::page_heap::PageHeap::resize_in_place`] with what has to be done around it.
///
/// # Safety
/// The span is a large block's, in use by the caller.
unsafe fn resize(span: *mut crate::span::Span, pages: usize) -> bool {
    let _undisturbed = Undisturbed::new();
    // SAFETY: the caller's duty.
    unsafe { HEAP.pages.resize_in_place(span, pages) }
}

/// As [`reallocate`], but blocks up to 32 KiB always end up in the class that their size asks
/// for, so that [`free_sized`] may be used on them.
///
/// # Safety
/// As [`reallocate`]; `old` is the block's present size and its alignment was at most 16.
#[must_use]
pub unsafe fn reallocate_exact(block: *mut u8, old: usize, size: usize) -> *mut u8 {
    if size > GROWING || hardened::on() {
        // SAFETY: the caller's duty.
        return unsafe { reallocate(block, size) };
    }
    if class_of(old) == class_of(size) {
        return block;
    }
    let moved = allocate(size);
    if !moved.is_null() {
        // SAFETY: both blocks have the bytes that are copied, and they differ.
        unsafe {
            moved.copy_from_nonoverlapping(block, old.min(size));
            free(block);
        }
    }
    moved
}

/// Moves a block of `old` usable bytes to a new one of `size`.
///
/// # Safety
/// As [`reallocate`].
unsafe fn move_to(block: *mut u8, old: usize, size: usize) -> *mut u8 {
    let grows = size > old;
    // A block that has grown to this will grow again, and room behind makes that free.
    let moved = if grows && old >= ROOMY_OLD && size > ROOMY_OLD {
        let undisturbed = Undisturbed::new();
        let (moved, _) = HEAP.allocate_growing(size);
        drop(undisturbed);
        if profile::on() {
            profile::allocated(moved, size);
        }
        answer(moved)
    } else {
        allocate(size)
    };
    if moved.is_null() {
        return moved;
    }
    let bytes = old.min(size);
    // SAFETY: the caller's duty; both blocks have `bytes` bytes, and they differ.
    unsafe {
        if grows && bytes >= REMAP && remap(block, moved, bytes) {
            return moved;
        }
        moved.copy_from_nonoverlapping(block, bytes);
        free(block);
    }
    moved
}

/// Moves all pages of one large block to another and frees the first; false: not possible, nothing
/// has changed.
///
/// # Safety
/// Both blocks are live, the first is `bytes` long, the second at least as long.
unsafe fn remap(from: *mut u8, to: *mut u8, bytes: usize) -> bool {
    use crate::os::Os;
    let (Block::Large(old), Block::Large(span)) = (HEAP.block_of(from), HEAP.block_of(to)) else {
        return false;
    };
    if HEAP.pages.inner.lock().counters.moved_by_remap >= MAX_REMAPS {
        return false;
    }
    // SAFETY: the span is live and ours.
    unsafe { (*span).needzero = true };
    if !HEAP.pages.os.move_pages(from as usize, to as usize, bytes) {
        return false;
    }
    if profile::on() {
        profile::freed(from);
    }
    HEAP.pages.inner.lock().counters.moved_by_remap += 1;
    // SAFETY: the block is the caller's, and all its pages have gone.
    unsafe { HEAP.pages.free_moved(old) };
    true
}

/// What a trim could do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes given back to the system.
    pub released_bytes: usize,
    /// Bytes in other threads' caches, which each of them empties at its next operation.
    pub unreachable_bytes: usize,
}

/// Gives back to the system what is free: the caller's cache, the middle tier with the free pages
/// inside its spans, and all free runs but `keep_bytes`. Every other thread is called to empty its
/// cache, which it does before its next operation; what was not here at the end of this call is in
/// the result.
pub fn trim(keep_bytes: usize) -> Trimmed {
    let _undisturbed = Undisturbed::new();
    let of_cpus = cpu_cache::empty_all();
    HEAP.raise_epoch();
    crate::thread::call_all();
    let released_bytes = HEAP.trim(keep_bytes);
    Trimmed {
        released_bytes,
        unreachable_bytes: crate::thread::unreached_bytes() + of_cpus,
    }
}

const _: () = assert!(MAX_SMALL > GROWING && NUM_CLASSES < 256);
