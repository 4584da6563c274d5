//! Blocks that get another size: in place, by the page tables, or by a copy.

use super::{
    GROWING, aligned_class, allocate, allocate_loosely, answer, class_at, free, give_idle,
};
use crate::heap::Block;
use crate::page_heap::growth::headroom;
use crate::process::HEAP;
use crate::size_class::{class_of, size_of_class};
use crate::slow_path::SlowPath;
use crate::span::Span;
use crate::units::pages_for;
use crate::{hardened, partition, profile};

/// Blocks of this size and more get a span of their own with room behind it when they grow by realloc.
const ROOMY_OLD: usize = 4 << 10;
/// Blocks of this size and more are moved by the page tables when they have to move.
const REMAP: usize = 512 << 10;

/// Bytes of the block that the program may use; 0 for null.
///
/// # Safety
/// As [`free`].
#[inline]
#[must_use]
pub unsafe fn usable_size(block: *mut u8) -> usize {
    match class_at(block) {
        0 => usable_size_slow(block),
        class => size_of_class(class),
    }
}

/// [`usable_size`] of what is no small block of the main heap.
#[cold]
#[inline(never)]
extern "C" fn usable_size_slow(block: *mut u8) -> usize {
    if block.is_null() {
        0
    } else if hardened::on() {
        hardened::usable_size(block)
    } else {
        partition::owner(block).unwrap_or(&HEAP).usable_size(block)
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
pub(crate) const fn stays(size: usize, old: usize) -> bool {
    size <= old && (size > old / 2 || old <= 64)
}

/// # Safety
/// As [`reallocate`].
#[inline(never)]
unsafe extern "C" fn reallocate_slow(block: *mut u8, size: usize) -> *mut u8 {
    if hardened::checked() {
        // SAFETY: the caller's duty.
        return unsafe { reallocate_checked(block, size) };
    }
    // SAFETY: the caller's duty.
    unsafe { reallocate_unchecked(block, size) }
}

/// [`reallocate`] in checked mode.
///
/// # Safety
/// As [`reallocate`].
#[cold]
#[inline(never)]
unsafe fn reallocate_checked(block: *mut u8, size: usize) -> *mut u8 {
    if hardened::on() {
        hardened::expect_live(block);
        // SAFETY: the caller's duty.
        let moved = unsafe { hardened::reallocate(block, size) };
        return answer(moved);
    }
    if partition::owner(block).is_none() {
        hardened::expect_live(block);
        if let Block::Small(class) = HEAP.block_of(block)
            && size > 0
            && stays(size, size_of_class(class))
        {
            return block;
        }
    }
    // SAFETY: the caller's duty.
    unsafe { reallocate_unchecked(block, size) }
}

/// # Safety
/// As [`reallocate`].
#[inline(always)]
unsafe fn reallocate_unchecked(block: *mut u8, size: usize) -> *mut u8 {
    if let Some(heap) = partition::owner(block) {
        // SAFETY: the caller's duty.
        return unsafe { partition::reallocate(heap, block, size) };
    }
    match HEAP.block_of(block) {
        // Of joined objects, of which the page map shows no class.
        Block::Small(class) if size > 0 && stays(size, size_of_class(class)) => block,
        // SAFETY: the caller's duty.
        Block::Small(class) => unsafe { move_to(block, size_of_class(class), size) },
        // SAFETY: the caller's duty.
        Block::Large(span) => unsafe { reallocate_large(block, span, size) },
    }
}

/// [`reallocate`] of a block in a span of its own. Out of line, as most programs that grow blocks have only small ones.
///
/// # Safety
/// As [`reallocate`]; the span is the block's.
#[inline(never)]
unsafe fn reallocate_large(block: *mut u8, span: *mut Span, size: usize) -> *mut u8 {
    // SAFETY: the caller's duty.
    unsafe {
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
    }
}

/// [`crate::page_heap::PageHeap::resize_in_place`] with what has to be done around it.
///
/// # Safety
/// The span is a large block's, in use by the caller.
unsafe fn resize(span: *mut Span, pages: usize) -> bool {
    let _slow_path = SlowPath::enter();
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

/// Whether a block of `old` bytes at a multiple of `align`, more than 16, serves for `size` bytes where it is: as one of the same class, or
/// of its own pages, which grow if those behind are free.
///
/// # Safety
/// As [`reallocate`]; the block came from [`super::allocate_aligned`] with this size and alignment.
#[must_use]
pub unsafe fn resize_aligned(block: *mut u8, old: usize, size: usize, align: usize) -> bool {
    if hardened::checked() {
        return false;
    }
    match [old, size].map(|size| aligned_class(size, align)) {
        [Some(old), Some(new)] => old == new,
        // SAFETY: the caller's duty.
        [None, None] => unsafe { size > old / 2 && try_grow(block, size).is_some() },
        _ => false,
    }
}

/// Moves a block of `old` usable bytes to a new one of `size`.
///
/// # Safety
/// As [`reallocate`].
unsafe fn move_to(block: *mut u8, old: usize, size: usize) -> *mut u8 {
    let grows = size > old;
    // A block that has grown to this will grow again, and room behind makes that free.
    let moved = if grows && old >= ROOMY_OLD && size > ROOMY_OLD {
        allocate_growing(size)
    } else {
        allocate_loosely(size)
    };
    if moved.is_null() {
        return moved;
    }
    let bytes = old.min(size);
    // SAFETY: the caller's duty; both blocks have `bytes` bytes, and they differ.
    unsafe {
        if grows && bytes >= REMAP && remap(block, moved) {
            return moved;
        }
        moved.copy_from_nonoverlapping(block, bytes);
        free(block);
    }
    moved
}

/// A block with room behind it. Null: no memory.
#[inline(never)]
fn allocate_growing(size: usize) -> *mut u8 {
    let slow_path = SlowPath::with_bins();
    let (moved, _) = HEAP.allocate_growing(size, || give_idle(size));
    drop(slow_path);
    if profile::on() {
        profile::allocated(moved, size);
    }
    answer(moved)
}

/// Moves all pages of one large block to another and frees the first; false: not possible, nothing
/// has changed.
///
/// # Safety
/// Both blocks are the caller's.
unsafe fn remap(from: *mut u8, to: *mut u8) -> bool {
    let (Block::Large(old), Block::Large(new)) = (HEAP.block_of(from), HEAP.block_of(to)) else {
        return false;
    };
    let slow_path = SlowPath::enter();
    // SAFETY: the spans are the blocks'.
    let Some(state) = (unsafe { HEAP.pages.move_pages(old, new) }) else {
        return false;
    };
    drop(slow_path);
    if profile::on() {
        profile::freed(from);
    }
    let _slow_path = SlowPath::enter();
    // SAFETY: the block is the caller's, and its contents have gone.
    unsafe { HEAP.pages.free_moved(old, state) };
    true
}

/// Makes a block usable for at least `size` bytes without moving it. Returns the bytes that it has now, all of
/// which may be used, or `None`: it cannot grow where it is, and nothing has changed.
///
/// Small blocks have the rest of their class; large ones grow into the pages behind them while these are
/// free. A block that Rust code frees by its layout has to be freed with its old or its new size.
///
/// # Safety
/// As [`free`], and `block` is not null.
///
/// ```
/// # #[global_allocator]
/// # static ALLOCATOR: spanalloc::SpanAlloc = spanalloc::SpanAlloc;
/// use spanalloc::alloc::{allocate, free, try_grow};
/// let block = allocate(1 << 20);
/// unsafe {
///     match try_grow(block, 2 << 20) {
///         Some(bytes) => assert!(bytes >= 2 << 20),
///         None => println!("the pages behind it are in use"),
///     }
///     let small = allocate(100);
///     assert_eq!(try_grow(small, 112), Some(112));
///     assert_eq!(try_grow(small, 113), None);
///     free(small);
///     free(block);
/// }
/// ```
#[must_use]
pub unsafe fn try_grow(block: *mut u8, size: usize) -> Option<usize> {
    // SAFETY: the caller's duty.
    let has = unsafe { usable_size(block) };
    if size <= has {
        return Some(has);
    }
    if hardened::on() || size > crate::units::MAX_REQUEST {
        return None;
    }
    if let Some(heap) = partition::owner(block) {
        // SAFETY: the caller's duty.
        return unsafe { partition::try_grow(heap, block, size) };
    }
    let Block::Large(span) = HEAP.block_of(block) else {
        return None;
    };
    // SAFETY: the caller's duty.
    unsafe {
        if !resize(span, pages_for(size)) {
            return None;
        }
        if profile::on() {
            profile::resized(block, size);
        }
        Some((*span).bytes())
    }
}
