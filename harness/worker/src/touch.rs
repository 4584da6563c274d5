//! Touch policies: which bytes of a fresh block the replay writes, as the recorded program would have.

use heaplab_worker::protocol::Touch;
use std::ffi::c_void;

/// The policies as numbers, for const generics.
pub const NONE: u8 = 0;
/// First cache line.
pub const FIRST: u8 = 1;
/// One byte a page and the first cache line.
pub const PAGE: u8 = 2;
/// As [`PAGE`], but only of the bytes that the recording saw written.
pub const RECORDED: u8 = 3;
/// All bytes.
pub const ALL: u8 = 4;

/// The policy's number.
pub const fn number(touch: Touch) -> u8 {
    match touch {
        Touch::None => NONE,
        Touch::First => FIRST,
        Touch::Page => PAGE,
        Touch::Recorded => RECORDED,
        Touch::All => ALL,
    }
}

/// Writes what the policy wants of a block of `size` bytes.
///
/// # Safety
/// `block` is a live block of at least `size` bytes, or null with `size` 0.
#[inline(always)]
pub unsafe fn touch<const POLICY: u8>(block: *mut c_void, size: usize) {
    let bytes = block.cast::<u8>();
    if POLICY == NONE || size == 0 {
        return;
    }
    // SAFETY: all writes lie inside the block.
    unsafe {
        if POLICY == ALL {
            bytes.write_bytes(0xa5, size);
            return;
        }
        bytes.write_volatile(0xa5);
        if POLICY == PAGE || POLICY == RECORDED {
            // Every page that the block reaches into, at its first byte inside the block.
            let mut offset = 4096 - (bytes as usize & 4095);
            while offset < size {
                bytes.add(offset).write_volatile(0xa5);
                offset += 4096;
            }
        }
    }
}
