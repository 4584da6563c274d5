//! A file of each process, shared with whoever looks from outside.

use crate::calls;
use core::ffi::{CStr, c_char};
use core::ptr;

const PATH_BYTES: usize = 4096;

/// Makes the file of this process in a folder, named by `prefix` and the process's number, and maps it; it has so many bytes, all 0.
/// The mapping stays as long as the process.
pub fn create(folder: &CStr, prefix: &CStr, bytes: usize) -> Option<*mut u8> {
    let mut path = [0u8; PATH_BYTES];
    // SAFETY: snprintf stays inside the buffer and reads zero-terminated strings; the descriptor is closed; the mapping is as long as the
    // file.
    unsafe {
        let used = libc::snprintf(
            path.as_mut_ptr().cast::<c_char>(),
            path.len(),
            c"%s/%s%d".as_ptr(),
            folder.as_ptr(),
            prefix.as_ptr(),
            libc::getpid(),
        );
        if used <= 0 || used as usize >= path.len() {
            return None;
        }
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        let file = libc::open(path.as_ptr().cast(), flags, 0o600);
        if file < 0 {
            return None;
        }
        let page = match libc::ftruncate(file, bytes as i64) {
            0 => {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                calls::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, file, 0)
            }
            _ => libc::MAP_FAILED,
        };
        libc::close(file);
        (page != libc::MAP_FAILED).then_some(page.cast())
    }
}
