//! The C library's calls for mappings.

use crate::{begin, table};
use core::arch::naked_asm;
use core::ffi::{c_int, c_long, c_void};
use heaplab_mappings::Range;
use heaplab_preloaded::calls;

/// What an end that is no multiple of it counts up to.
const PAGE: u64 = 4096;
/// The part of the flags that says what kind of mapping it is.
const KIND: c_int = 0x0f;
/// Advice after which pages may be gone.
const GIVES_BACK: [c_int; 5] = [
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_REMOVE,
    libc::MADV_PAGEOUT,
    MADV_DONTNEED_LOCKED,
];
const MADV_DONTNEED_LOCKED: c_int = 24;

/// Whole pages from `address` on.
fn pages(address: usize, bytes: usize) -> Range {
    let start = address as u64;
    Range {
        start,
        end: start.saturating_add(bytes as u64).next_multiple_of(PAGE),
    }
}

/// C `mmap`: as [`from`], with the address that it returns to behind its arguments.
///
/// # Safety
/// As `mmap(2)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap() {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        // Six arguments are in registers; the seventh is on the stack, which is aligned with it.
        "push qword ptr [rsp]",
        ".cfi_adjust_cfa_offset 8",
        "call {from}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "ret",
        ".cfi_endproc",
        from = sym from,
    )
}

/// `mmap` under the name that programs with large files use.
///
/// # Safety
/// As `mmap(2)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64() {
    naked_asm!("endbr64", "jmp {mmap}", mmap = sym mmap)
}

/// Maps and notes whose it is: `caller` is the address that the call returns to.
///
/// # Safety
/// As `mmap(2)`.
unsafe extern "C" fn from(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: c_long,
    caller: usize,
) -> *mut c_void {
    begin::once();
    let anonymous = flags & libc::MAP_ANONYMOUS != 0 && flags & KIND == libc::MAP_PRIVATE;
    // Large pages of a pool are not counted among a process's resident ones.
    let counted = anonymous && flags & libc::MAP_HUGETLB == 0;
    let own = counted && !begin::is_subject(caller);
    let at_once = own && flags & (libc::MAP_POPULATE | libc::MAP_LOCKED) != 0;
    let _unsettled = (at_once || flags & libc::MAP_FIXED != 0).then(table::unsettled);
    // SAFETY: the caller's promises are passed on.
    let mapped = unsafe { calls::mmap(address, bytes, protection, flags, fd, offset) };
    if mapped != libc::MAP_FAILED
        && let Some(mut held) = table::hold()
    {
        match own {
            true => held.mapped(pages(mapped as usize, bytes)),
            // Something of the program's may have been there, mapped over at a fixed address.
            false => held.gone(pages(mapped as usize, bytes)),
        }
    }
    mapped
}

/// C `munmap`.
///
/// # Safety
/// As `munmap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    begin::once();
    let range = pages(address as usize, bytes);
    // Held until it is noted: as soon as they are unmapped, another thread may be given these addresses, and notes it then.
    let held = table::hold().and_then(|mut held| held.meets(range).then_some(held));
    let _unsettled = held.is_some().then(table::unsettled);
    // SAFETY: the caller's promises are passed on.
    let status = unsafe { calls::munmap(address, bytes) };
    if let (Some(mut held), 0) = (held, status) {
        held.gone(range);
    }
    status
}

/// `mremap`; the fifth argument is variadic in C, which on this machine is passed alike.
///
/// # Safety
/// As `mremap(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    address: *mut c_void,
    old_bytes: usize,
    bytes: usize,
    flags: c_int,
    wish: *mut c_void,
) -> *mut c_void {
    begin::once();
    let old = pages(address as usize, old_bytes);
    // As in `munmap`.
    let own = table::hold().and_then(|mut held| (old_bytes > 0 && held.holds(old)).then_some(held));
    let _unsettled = own.is_some().then(table::unsettled);
    // SAFETY: the caller's promises are passed on.
    let mapped = unsafe { calls::mremap(address, old_bytes, bytes, flags, wish) };
    if mapped == libc::MAP_FAILED {
        return mapped;
    }
    let new = pages(mapped as usize, bytes);
    match own {
        Some(mut held) if mapped == address => {
            let behind = |inner: Range, outer: Range| Range {
                start: inner.end,
                end: outer.end,
            };
            match new.end < old.end {
                true => held.gone(behind(new, old)),
                false if new.end > old.end => held.mapped(behind(old, new)),
                false => {}
            }
        }
        Some(mut held) => {
            match flags & libc::MREMAP_DONTUNMAP {
                0 => held.gone(old),
                _ => held.renewed(old),
            }
            held.mapped(new);
        }
        // Something of the program's may have been there.
        None => {
            if let Some(mut held) = table::hold() {
                held.gone(new);
            }
        }
    }
    mapped
}

/// C `madvise`: some of its advice gives pages back.
///
/// # Safety
/// As `madvise(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    begin::once();
    let range = pages(address as usize, bytes);
    let held = match GIVES_BACK.contains(&advice) {
        true => table::hold().and_then(|mut held| held.meets(range).then_some(held)),
        false => None,
    };
    let _unsettled = held.is_some().then(table::unsettled);
    // SAFETY: the caller's promises are passed on.
    let status =
        unsafe { libc::syscall(libc::SYS_madvise, address, bytes, c_long::from(advice)) } as c_int;
    // One that is refused may have given back the first of them.
    if let Some(mut held) = held {
        held.renewed(range);
    }
    status
}
