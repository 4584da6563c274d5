//! Files by system calls of our own: no allocation, no `errno`, usable on a bare thread.

use super::linux::syscall6;
use core::ffi::CStr;

/// An open file; closed when dropped.
#[derive(Debug)]
pub struct File(usize);

/// A system call's result, or its `errno` value.
fn answer(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| -result as i32)
}

impl File {
    /// Creates or empties a file.
    ///
    /// # Errors
    /// The system's `errno` value.
    pub fn create(path: &CStr) -> Result<Self, i32> {
        Self::open_with(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
    }

    /// Opens a file to read.
    ///
    /// # Errors
    /// The system's `errno` value.
    pub fn open(path: &CStr) -> Result<Self, i32> {
        Self::open_with(path, libc::O_RDONLY)
    }

    fn open_with(path: &CStr, flags: i32) -> Result<Self, i32> {
        let flags = (flags | libc::O_CLOEXEC) as usize;
        // SAFETY: the path is a C string.
        let got = unsafe {
            syscall6(
                libc::SYS_openat,
                [
                    libc::AT_FDCWD as usize,
                    path.as_ptr() as usize,
                    flags,
                    0o666,
                    0,
                    0,
                ],
            )
        };
        answer(got).map(Self)
    }

    /// Writes all of it. Returns 0 or an `errno` value.
    #[must_use]
    pub fn write(&self, mut bytes: &[u8]) -> i32 {
        while !bytes.is_empty() {
            let from = [self.0, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
            // SAFETY: the slice is readable.
            match answer(unsafe { syscall6(libc::SYS_write, from) }) {
                Ok(0) => return libc::EIO,
                Ok(done) => bytes = &bytes[done..],
                Err(libc::EINTR) => {}
                Err(error) => return error,
            }
        }
        0
    }

    /// Reads some bytes; 0 at the end and when the system refuses.
    #[must_use]
    pub fn read(&self, bytes: &mut [u8]) -> usize {
        let to = [self.0, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0];
        // SAFETY: the slice is writable.
        answer(unsafe { syscall6(libc::SYS_read, to) }).unwrap_or(0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the number is ours.
        unsafe { syscall6(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// Gives a file another name, replacing what had it. Returns 0 or an `errno` value.
#[must_use]
pub fn rename(from: &CStr, to: &CStr) -> i32 {
    let names = [from.as_ptr() as usize, to.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: both are C strings.
    answer(unsafe { syscall6(libc::SYS_rename, names) }).map_or_else(|error| error, |_| 0)
}

/// Removes a file, if that is possible.
pub fn remove(path: &CStr) {
    // SAFETY: the path is a C string.
    unsafe { syscall6(libc::SYS_unlink, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

/// The process's number.
#[must_use]
pub fn process_number() -> usize {
    // SAFETY: no preconditions; it cannot fail.
    unsafe { syscall6(libc::SYS_getpid, [0; 6]) as usize }
}

/// Fresh zeros anywhere, or null. `len` is a multiple of the kernel's page.
#[must_use]
pub fn map_fresh(len: usize) -> *mut u8 {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    // SAFETY: a fresh mapping anywhere.
    let got = unsafe { syscall6(libc::SYS_mmap, [0, len, protection, flags, usize::MAX, 0]) };
    answer(got).map_or(
        core::ptr::null_mut(),
        core::ptr::with_exposed_provenance_mut,
    )
}

/// Gives a mapping of [`map_fresh`] back.
pub fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the mapping is the caller's, who has no use for it any more.
    unsafe { syscall6(libc::SYS_munmap, [at as usize, len, 0, 0, 0, 0]) };
}
