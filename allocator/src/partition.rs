//! The data partition: blocks without pointers in a heap of their own (Go's noscan span classes).
//!
//! Go keeps pointer-free objects apart so that its collector can skip them. Here nothing is collected; what is
//! gained is that an overflow or a stale pointer of a buffer, which an attacker fills, never lies beside or at the
//! address of an object with pointers (google/tcmalloc's and kalloc_type's reason), and that buffers, which live
//! otherwise than objects, fragment only each other. The program says which blocks are data ([`DataAlloc`],
//! `spanalloc_malloc_data`); without a hint nothing changes and nothing is paid.
//!
//! The partition is a second [`Heap`], made at the first hint, with its own address range, central lists, transfer
//! caches and page heap, and a second cache in each thread that uses it. To the main heap its addresses are
//! foreign, so the main fast paths need not know it: `free` and `realloc` find it on their slow paths, frees by
//! [`DataAlloc`] on a fast path of their own. Threads without caches (`front_end=cpu`, `check`, past their end) use
//! its central lists; `hardened` ignores the hint. Invariants: D1 no address belongs to both heaps; D2 a cache in the
//! data slot holds only blocks of the data heap; D3 both heaps have the same epoch.

use crate::alloc::ZERO_SKIPPED;
use crate::fault::{Fault, die};
use crate::heap::{Block, Heap};
use crate::os::Linux;
use crate::process::{HEAP, REGISTRY};
use crate::published::Published;
use crate::size_class::{class_of, class_of_aligned, fine_class_of, size_of_class};
use crate::slow_path::SlowPath;
use crate::thread::attach_data;
use crate::units::{MAX_REQUEST, MIN_ALIGN, pages_for};
use crate::{alloc, hardened, profile, tls};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

static DATA: Published<Heap<Linux>> = Published::new();

/// The data heap if there is one.
#[inline]
pub(crate) fn data() -> Option<&'static Heap<Linux>> {
    DATA.get()
}

/// The data heap, a new one if there is none. `None`: no memory.
pub(crate) fn make_data() -> Option<&'static Heap<Linux>> {
    if let Some(heap) = data() {
        return Some(heap);
    }
    crate::config::load_once();
    let _slow_path = SlowPath::enter();
    // SAFETY: D1: what is made is a heap that is never unmapped; the registry's lock excludes others.
    unsafe { DATA.get_or_make(|| REGISTRY.lock(), new_data) }
}

/// A data heap with the main one's epoch and limits. Null: no memory. With the registry's lock.
fn new_data() -> *mut Heap<Linux> {
    let place = HEAP
        .pages
        .take_record(size_of::<Heap<Linux>>(), align_of::<Heap<Linux>>())
        .cast::<Heap<Linux>>();
    if place.is_null() {
        return place;
    }
    // SAFETY: the record is large enough, aligned and nobody else's.
    let heap: &'static Heap<Linux> = unsafe {
        Heap::place(place, Linux::BESIDE);
        &*place
    };
    heap.set_epoch(HEAP.epoch());
    let (soft, hard) = HEAP.pages.limits.bytes();
    heap.pages.limits.set_soft(soft);
    heap.pages.limits.set_hard(hard);
    heap.pages.count_beside(&HEAP.pages);
    HEAP.pages.count_beside(&heap.pages);
    place
}

/// Both heaps, the main one first.
pub(crate) fn heaps() -> impl Iterator<Item = &'static Heap<Linux>> {
    core::iter::once(&HEAP).chain(data())
}

/// The data heap if `block` lies in it.
#[inline]
pub(crate) fn owner(block: *mut u8) -> Option<&'static Heap<Linux>> {
    data().filter(|heap| heap.pages.map.contains(block as usize))
}

/// A data block of at least `size` bytes at a multiple of `align`. Null: no memory, `errno` says so.
#[inline]
fn allocate(size: usize, align: usize) -> *mut u8 {
    if align <= MIN_ALIGN
        && let Some(class) = fine_class_of(size.max(align))
    {
        let block = tls::data_cache().pop(class);
        if !block.is_null() {
            return block;
        }
    }
    allocate_slow(size, align).0
}

/// [`allocate`] without a fast path; true: the block is known to be zero.
#[cold]
#[inline(never)]
fn allocate_slow(size: usize, align: usize) -> (*mut u8, bool) {
    if hardened::on() {
        return (alloc::allocate_aligned(align, size), false);
    }
    let Some(heap) = make_data() else {
        return (alloc::answer(null_mut()), false);
    };
    let size = size.max(align.min(MIN_ALIGN));
    let found = match class_of_aligned(size, align) {
        Some(class) => {
            // First, as this may allocate.
            let cache = attach_data(heap);
            let _slow_path = SlowPath::with_bins();
            match cache {
                Some(cache) => {
                    let block = cache.pop(class);
                    let block = if block.is_null() {
                        cache.refill(heap, class)
                    } else {
                        block
                    };
                    (heap.at_multiple(align, class, block), false)
                }
                None => heap.take_one(class),
            }
        }
        None => {
            let _slow_path = SlowPath::enter();
            heap.allocate_large(size, align)
        }
    };
    if profile::on() {
        profile::allocated(found.0, size);
    }
    (alloc::answer(found.0), found.1)
}

/// Frees a block of the data heap that came by its address alone. A pointer that is none ends the process.
///
/// # Safety
/// Nobody uses the block any more.
#[cold]
#[inline(never)]
pub(crate) unsafe fn free(heap: &'static Heap<Linux>, block: *mut u8) {
    if profile::on() {
        profile::freed(block);
    }
    match heap.block_of(block) {
        // SAFETY: the caller's duty.
        Block::Small(class) => unsafe {
            // One that was freed last is freed twice.
            let parted = heap.rest.is_long()
                && attach_data(heap).is_none_or(|cache| cache.first(class) != block)
                && heap.part(class, block, SlowPath::enter);
            if !parted {
                free_class(heap, block, class);
            }
        },
        // SAFETY: the span is the block's.
        Block::Large(span) => unsafe {
            let _slow_path = SlowPath::enter();
            heap.pages.free(span);
        },
    }
    crate::helper::start_if_wanted();
}

/// # Safety
/// As [`free`]; the block is of the class.
unsafe fn free_class(heap: &'static Heap<Linux>, block: *mut u8, class: usize) {
    // First, as this may allocate.
    let cache = attach_data(heap);
    // SAFETY: a live block keeps its span; if it is none, this is where the process ends. The rest is the
    // caller's duty.
    unsafe {
        let Some(cache) = cache else {
            let _slow_path = SlowPath::enter();
            return heap.give(class, &[block]);
        };
        if cache.push(class, block) {
            return;
        }
        // Before the mark, as in the main heap.
        if cache.first(class) == block {
            die(Fault::DoubleFree, block as usize);
        }
        crate::central::locate(&heap.pages, class, block as usize);
        let _slow_path = SlowPath::with_bins();
        cache.overflow(heap, class, block);
    }
}

/// # Safety
/// As [`free`]; the block was asked for with this layout.
#[cold]
#[inline(never)]
unsafe fn free_sized_slow(block: *mut u8, class: usize) {
    let Some(heap) = owner(block) else {
        // Hardened, or no data block at all.
        // SAFETY: the caller's duty.
        return unsafe { alloc::free(block) };
    };
    if profile::on() {
        profile::freed(block);
    }
    // SAFETY: the caller's duty.
    unsafe { free_class(heap, block, class) };
    crate::helper::start_if_wanted();
}

/// Gives a data block another size; it stays data. Null: no memory, and the block is as it was.
///
/// # Safety
/// The block is live, in `heap`, and the caller's.
pub(crate) unsafe fn reallocate(
    heap: &'static Heap<Linux>,
    block: *mut u8,
    size: usize,
) -> *mut u8 {
    // SAFETY: the caller's duty.
    unsafe {
        let usable = heap.usable_size(block);
        if size <= usable && (size > usable / 2 || usable <= 64) {
            return block;
        }
        if let Block::Large(span) = heap.block_of(block)
            && size > usable / 2
            && size <= MAX_REQUEST
        {
            let _slow_path = SlowPath::enter();
            if heap.pages.resize_in_place(span, pages_for(size)) {
                return block;
            }
        }
        move_to(block, usable, size, 1)
    }
}

/// Moves a data block of `old` bytes to a new one.
///
/// # Safety
/// As [`reallocate`].
unsafe fn move_to(block: *mut u8, old: usize, size: usize, align: usize) -> *mut u8 {
    let moved = allocate(size, align);
    if !moved.is_null() {
        // SAFETY: both blocks have the bytes that are copied, and they differ; the rest is the caller's duty.
        unsafe {
            moved.copy_from_nonoverlapping(block, old.min(size));
            alloc::free(block);
        }
    }
    moved
}

/// Makes a large data block at least `size` bytes long where it is; its bytes then.
///
/// # Safety
/// The block is live, in `heap`, and the caller's.
pub(crate) unsafe fn try_grow(
    heap: &'static Heap<Linux>,
    block: *mut u8,
    size: usize,
) -> Option<usize> {
    let Block::Large(span) = heap.block_of(block) else {
        return None;
    };
    let _slow_path = SlowPath::enter();
    // SAFETY: the caller's duty.
    unsafe {
        let done = heap.pages.resize_in_place(span, pages_for(size));
        done.then(|| (*span).bytes())
    }
}

/// An allocator for blocks that hold no pointers: buffers, text, numbers. It has the interface of `GlobalAlloc`, to be
/// called or wrapped by containers; what it gives out is freed by it, or, in C, by `free`.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// use spanalloc::DataAlloc;
/// use std::alloc::{GlobalAlloc, Layout};
/// let layout = Layout::array::<u8>(4000)?;
/// unsafe {
///     let buffer = DataAlloc.alloc(layout);
///     buffer.write_bytes(1, 4000);
///     assert!(spanalloc::stats().data_in_use_bytes >= 4000);
///     DataAlloc.dealloc(buffer, layout);
/// }
/// # Ok::<(), std::alloc::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DataAlloc;

// SAFETY: blocks are at least as large and as aligned as the layout asks, stay in place until freed, and nothing
// here unwinds.
unsafe impl GlobalAlloc for DataAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocate(layout.size(), layout.align())
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.align() <= MIN_ALIGN
            && let Some(class) = fine_class_of(layout.size().max(layout.align()))
        {
            // SAFETY: the caller promises that the block came from here with this layout, which says the class.
            unsafe {
                if !tls::data_cache().push(class, block) {
                    free_sized_slow(block, class);
                }
            }
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { alloc::free(block) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (block, zero) = if layout.size() < crate::units::OS_PAGE {
            (allocate(layout.size(), layout.align()), false)
        } else {
            allocate_slow(layout.size(), layout.align())
        };
        if zero {
            ZERO_SKIPPED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        } else if !block.is_null() {
            // SAFETY: the block has the layout's size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Up to the fine classes' end `dealloc` takes the class from the size.
        let class = |size: usize| class_of(size.max(layout.align()));
        if layout.align() <= MIN_ALIGN && class(layout.size()) == class(new_size) {
            let stays = class(new_size).is_some_and(|class| new_size <= size_of_class(class));
            if stays {
                return block;
            }
        }
        // SAFETY: the caller promises that the block came from here with this layout.
        unsafe {
            match owner(block) {
                Some(heap)
                    if layout.align() <= MIN_ALIGN
                        && fine_class_of(layout.size().min(new_size)).is_none() =>
                {
                    reallocate(heap, block, new_size)
                }
                _ => move_to(block, layout.size(), new_size, layout.align()),
            }
        }
    }
}
