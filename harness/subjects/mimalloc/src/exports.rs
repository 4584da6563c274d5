//! The exports of both mimalloc subjects: the malloc family, forwarded call by call to `libmimalloc-sys`. The crate that
//! includes this file names the options that its line of mimalloc has.
//!
//! Nothing but the names below leaves the library, so what mimalloc says of itself goes out through
//! [`heaplab_subject_describe`]. Settings come from the environment (`MIMALLOC_PURGE_DELAY=0`).
#![allow(clippy::missing_safety_doc)] // the contracts are those of the C functions of the same name

use crate::OPTIONS;
use core::ffi::{c_char, c_int, c_void};
use core::fmt::Write;
use libmimalloc_sys as mi;

// SAFETY (all functions of this library): callers keep the contract of the C function of the same name, and
// mimalloc's functions have the same contract, so handing the arguments on unchanged keeps it.
macro_rules! forward {
    ($($name:ident => $target:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: see the head of the macro.
            unsafe { mi::$target($($arg),*) }
        }
    )*};
}

forward! {
    malloc => mi_malloc(size: usize) -> *mut c_void;
    calloc => mi_calloc(count: usize, size: usize) -> *mut c_void;
    realloc => mi_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    reallocarray => mi_reallocn(block: *mut c_void, count: usize, size: usize) -> *mut c_void;
    free => mi_free(block: *mut c_void);
    free_sized => mi_free_size(block: *mut c_void, size: usize);
    posix_memalign => mi_posix_memalign(out: *mut *mut c_void, alignment: usize, size: usize) -> c_int;
    malloc_usable_size => mi_usable_size(block: *const c_void) -> usize;
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(block: *mut c_void, alignment: usize, size: usize) {
    // SAFETY: see the head of the macro.
    unsafe { mi::mi_free_size_aligned(block, size, alignment) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: see the head of the macro.
    unsafe { mi::mi_malloc_aligned(size, alignment) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: see the head of the macro.
    unsafe { mi::mi_malloc_aligned(size, alignment) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn valloc(size: usize) -> *mut c_void {
    // SAFETY: see the head of the macro.
    unsafe { mi::mi_malloc_aligned(size, PAGE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let rounded = size
        .max(1)
        .checked_next_multiple_of(PAGE)
        .unwrap_or(usize::MAX);
    // SAFETY: see the head of the macro; a size that cannot be served gives null.
    unsafe { mi::mi_malloc_aligned(rounded, PAGE) }
}

/// What `valloc` aligns to on x86-64.
const PAGE: usize = 4096;

/// Writes what mimalloc says of itself as lines `key=value` (first `version`) into `buffer` and returns the bytes
/// written; what does not fit is left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_subject_describe(buffer: *mut c_char, capacity: usize) -> usize {
    // SAFETY: the caller gives a writable buffer of `capacity` bytes.
    let bytes = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), capacity) };
    let mut out = Lines { bytes, used: 0 };
    // SAFETY: mi_version and mi_option_get take no pointers; all option numbers are below the bundled version's last.
    let (version, option) = unsafe { (mi::mi_version(), |number| mi::mi_option_get(number)) };
    let done = writeln!(
        out,
        "version={}.{}.{}",
        version / 10_000,
        version / 100 % 100,
        version % 100
    )
    .and_then(|()| {
        OPTIONS
            .iter()
            .try_for_each(|(name, number)| writeln!(out, "{name}={}", option(*number)))
    });
    // A full buffer only shortens the description.
    let _ = done;
    out.used
}

/// `mi_process_info` under a name of ours: what mimalloc has committed, now and at most.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heaplab_subject_process_info(
    elapsed: *mut usize,
    user: *mut usize,
    system: *mut usize,
    current_rss: *mut usize,
    peak_rss: *mut usize,
    current_commit: *mut usize,
    peak_commit: *mut usize,
    faults: *mut usize,
) {
    // SAFETY: see the head of the macro.
    unsafe {
        mi::mi_process_info(
            elapsed,
            user,
            system,
            current_rss,
            peak_rss,
            current_commit,
            peak_commit,
            faults,
        )
    }
}

/// A writer into a fixed buffer.
struct Lines<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.used + text.len();
        self.bytes
            .get_mut(self.used..end)
            .ok_or(core::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}
