//! A file mapped for reading, and slices of plain records in it. With `buffer` and `newcomer`, the only modules of this crate with `unsafe`.

#![allow(unsafe_code)]

use crate::file::Run;
use crate::op::Op;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
)))]
compile_error!(
    "scripts are mapped as they lie in the file: heaplab needs 64-bit little-endian Linux"
);

/// Mappings begin at multiples of this.
const PAGE: u64 = 4096;

/// A read-only shared mapping of a file or of a part of it.
///
/// The file must not be shortened while it is mapped (reading past its end would be a SIGBUS). Scripts lie in a private
/// cache and are replaced by renaming, never rewritten in place.
pub struct Mapping {
    address: *const u8,
    length: usize,
    /// Bytes mapped in front of `address`, because mappings begin at pages.
    lead: usize,
}

// SAFETY: the mapping is read-only and stays where it is until the only owner drops it.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared reading needs no synchronisation.
unsafe impl Sync for Mapping {}

/// Records that may be read from any bytes: `repr(C)`, no padding, every bit pattern valid.
///
/// # Safety
/// The implementor has these three properties.
pub unsafe trait Plain: Copy {}

// SAFETY: repr(C), u8 + u8 + u16 + u32 + u64 = 16 bytes without padding, integers only.
unsafe impl Plain for Op {}
// SAFETY: repr(C), two u32, integers only.
unsafe impl Plain for Run {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

impl Mapping {
    /// Maps the file. An empty file gives an empty mapping.
    pub fn new(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Self::part(file, 0, length)
    }

    /// Maps `length` bytes from `offset` on, which must lie in the file.
    pub fn part(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self {
                address: std::ptr::null(),
                length,
                lead: 0,
            });
        }
        let lead = (offset % PAGE) as usize;
        // SAFETY: a fresh mapping at an address the kernel chooses overlaps nothing of ours; the descriptor is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length + lead,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                (offset - lead as u64) as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: start.cast::<u8>().wrapping_add(lead),
            length,
            lead,
        })
    }

    /// Brings the pages in at once instead of one by one as they are read. Best effort: an old kernel ignores it.
    pub fn populate(&self) {
        if self.length != 0 {
            let start = self.address.wrapping_sub(self.lead).cast_mut().cast();
            // SAFETY: exactly the mapped range; reading pages in changes no contents.
            unsafe { libc::madvise(start, self.length + self.lead, libc::MADV_POPULATE_READ) };
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `address` is the start of a readable mapping of `length` bytes that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }

    /// `count` records from `offset` on; `None` when they do not lie in the file or are not aligned.
    pub fn records<T: Plain>(&self, offset: u64, count: u64) -> Option<&[T]> {
        let bytes = count.checked_mul(size_of::<T>() as u64)?;
        let end = offset.checked_add(bytes)?;
        if end > self.length as u64 {
            return None;
        }
        if count == 0 {
            return Some(&[]);
        }
        let start = self.address.wrapping_add(offset as usize);
        if !start.addr().is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: the range lies in the mapping (checked above), is aligned (checked above), lives as long as `self`,
        // and `T: Plain` may be read from any bytes.
        Some(unsafe { std::slice::from_raw_parts(start.cast::<T>(), count as usize) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length != 0 {
            let start = self.address.wrapping_sub(self.lead).cast_mut().cast();
            // SAFETY: exactly the range that `part` mapped; borrows of it cannot outlive `self`.
            unsafe { libc::munmap(start, self.length + self.lead) };
        }
    }
}

/// The bytes of records as they lie in a file.
pub fn bytes_of<T: Plain>(records: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so all bytes are initialised; the length is that of the slice.
    unsafe { std::slice::from_raw_parts(records.as_ptr().cast(), size_of_val(records)) }
}
