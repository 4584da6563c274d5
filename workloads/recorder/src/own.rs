//! Doors for allocators that no preloaded library can stand in front of, because they are part of the program: `include/heaplab.h`
//! for C, the crate `heaplab-recorded` for Rust.

use core::ffi::c_void;

use heaplab_hook::thread;
use heaplab_ring::Kind;

use crate::hooks::log2;

/// Records an event of an allocator of the program's own: `kind` is the number of a [`Kind`] of the malloc family, others
/// are ignored. Part of no documented interface: `heaplab-recorded` of the same version calls it.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_record_v1(kind: u32, block: *mut c_void, size: usize, align_log2: u32) {
    let known = u8::try_from(kind).ok().and_then(Kind::from_u8);
    if let Some(kind) = known.filter(|kind| *kind as u8 <= Kind::FailedAlloc as u8) {
        thread::record(kind, block as usize, size, align_log2.min(47) as u8);
    }
}

/// After an allocation of `size` bytes; `block` is null when it failed.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_allocated(block: *mut c_void, size: usize, alignment: usize) {
    let kind = match (block.is_null(), alignment) {
        (true, _) => Kind::FailedAlloc,
        (false, 0) => Kind::Malloc,
        (false, _) => Kind::AlignedAlloc,
    };
    thread::record(kind, block as usize, size, log2(alignment));
}

/// Before a block is freed.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_freeing(block: *mut c_void) {
    if !block.is_null() {
        thread::record(Kind::Free, block as usize, 0, 0);
    }
}

/// Before a block is resized.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_reallocating(block: *mut c_void) {
    thread::record(Kind::ReallocBegin, block as usize, 0, 0);
}

/// After a block was resized; null when that failed, or when the size was 0.
#[unsafe(no_mangle)]
pub extern "C" fn heaplab_reallocated(block: *mut c_void, size: usize) {
    thread::record(Kind::ReallocEnd, block as usize, size, 0);
}
