//! What an allocator counts itself, through the entry that each has. The figures are the allocator's own and mean what its
//! documentation says. Nothing here allocates: the worker and the agent in a program read while the allocator is under test.
#![no_std]

mod page;
mod readers;
mod text;

pub use page::{ASKED_AT, END_AT, LAST, NOW_AT, PAGE_BYTES, SERVED_AT, TEXT_BYTES};

use core::ffi::{CStr, c_void};
use text::Text;

/// Address of the function of a name in the allocator asked about; null where it has none. A function of that name in another
/// object must not be given: a program may be linked to an allocator and run on another one.
pub type Find<'a> = &'a dyn Fn(&CStr) -> *mut c_void;

/// Writes the statistics as the text of a JSON object and gives its length; `None` where the allocator has none that are known
/// here, or they have no room.
///
/// # Safety
/// What `find` gives for the entries of [`readers`] are those functions, callable in this state of the process: their locks
/// are not held by the calling thread.
pub unsafe fn write(find: Find<'_>, into: &mut [u8]) -> Option<usize> {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        readers::spanalloc(find, into)
            .or_else(|| readers::jemalloc(find, &mut Text::new(into)))
            .or_else(|| readers::mimalloc(find, &mut Text::new(into)))
            .or_else(|| readers::tcmalloc(find, &mut Text::new(into)))
            .or_else(|| readers::glibc(find, &mut Text::new(into)))
    }
}
