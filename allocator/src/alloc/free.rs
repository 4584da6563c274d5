//! Frees: by address alone, or by the size that was asked for.

use super::{GROWING, class_at, detour};
use crate::cpu_cache;
use crate::heap::Block;
use crate::process::HEAP;
use crate::size_class::{class_of, fine_class_of};
use crate::slow_path::SlowPath;
use crate::units::MIN_ALIGN;
use crate::{front_end, hardened, partition, profile, tls};

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
/// bytes at a multiple of `align`. (Not [`free_sized`]: the block may have been shrunk in place since.)
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub unsafe fn free_expecting(block: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller's duty. In checked mode there is no room.
    unsafe {
        if !tls::cache().push(class_at(block), block) {
            free_expecting_slow(block, size, align);
        }
    }
}

/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_expecting_slow(block: *mut u8, size: usize, align: usize) {
    if hardened::checked() && !block.is_null() && partition::owner(block).is_none() {
        hardened::expect_size(block, size, align);
    }
    // SAFETY: the caller's duty.
    unsafe { free_slow(block) }
}

/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
unsafe extern "C" fn free_slow(block: *mut u8) {
    // The fast path of the front end per CPU.
    if let Some(rseq) = cpu_cache::of_thread() {
        let class = class_at(block);
        // SAFETY: the caller's duty.
        if class != 0 && unsafe { cpu_cache::push(rseq, class, block) } {
            return;
        }
    }
    if block.is_null() {
        return;
    }
    if detour() {
        if hardened::on() || (hardened::checked() && partition::owner(block).is_none()) {
            // SAFETY: the caller's duty.
            unsafe { hardened::free(block) };
            return crate::helper::start_if_wanted();
        }
        profile::freed(block);
    }
    if let Some(heap) = partition::owner(block) {
        // SAFETY: the caller's duty.
        return unsafe { partition::free(heap, block) };
    }
    match HEAP.block_of(block) {
        // The bin has room if the page map did not show the class.
        // SAFETY: the caller's duty.
        Block::Small(class) => unsafe {
            // One that was freed last is freed twice.
            let parted = HEAP.rest.is_long()
                && tls::cache().first(class) != block
                && HEAP.part(class, block, SlowPath::enter);
            if !parted {
                if tls::cache().push(class, block) {
                    return;
                }
                free_object(block, class);
            }
        },
        // SAFETY: the span is the block's.
        Block::Large(span) => unsafe {
            let _slow_path = SlowPath::enter();
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
        if hardened::checked() {
            // SAFETY: the caller's duty.
            unsafe { hardened::free_class(block, class) };
            return crate::helper::start_if_wanted();
        }
        profile::freed(block);
    }
    // SAFETY: the caller's duty.
    unsafe { free_object(block, class) }
}

/// [`free_class_slow`] of a block that is not checked here, and that the profile knows to be free.
///
/// # Safety
/// As [`free_class_slow`].
#[inline]
unsafe fn free_object(block: *mut u8, class: usize) {
    // SAFETY: the caller's duty.
    unsafe {
        if detour() && profile::keep(block, class) {
            return;
        }
        front_end::current(|front| front.free(class, block));
    }
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
        return unsafe { free_expecting(block, size, align) };
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
            _ => free_expecting(block, size, 1),
        }
    }
}
