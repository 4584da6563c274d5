//! The few system calls that both sides need, made directly: no errno is touched, nothing is
//! allocated, no lock of libc is taken. All return the kernel's value, negative errno included.

use core::sync::atomic::AtomicU32;

const READ: usize = 0;
const CLOSE: usize = 3;
const FSTAT: usize = 5;
const MMAP: usize = 9;
const MUNMAP: usize = 11;
const RT_SIGPROCMASK: usize = 14;
const MINCORE: usize = 27;
const MADVISE: usize = 28;
const GETPID: usize = 39;
const READLINK: usize = 89;
const GETPPID: usize = 110;
const KILL: usize = 62;
const PRCTL: usize = 157;
const GETTID: usize = 186;
const FUTEX: usize = 202;
const OPENAT: usize = 257;
const PROCESS_VM_READV: usize = 310;

/// Largest errno; a result above `-4096` as unsigned is an error.
const MAX_ERRNO: isize = 4095;

/// # Safety
/// The arguments must satisfy the system call's own contract, memory they point to included.
unsafe fn syscall6(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller answers for the call; the instruction clobbers rcx and r11 only.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The calling process's id.
pub fn getpid() -> u32 {
    // SAFETY: takes no argument.
    unsafe { syscall6(GETPID, [0; 6]) as u32 }
}

/// The id of the calling process's parent.
pub fn getppid() -> u32 {
    // SAFETY: takes no argument.
    unsafe { syscall6(GETPPID, [0; 6]) as u32 }
}

/// Where a symbolic link (`path` ends in a zero byte) points to; the number of bytes, at most `buffer`'s.
pub fn readlink(path: &[u8], buffer: &mut [u8]) -> Result<usize, u32> {
    if path.last() != Some(&0) {
        return Err(22);
    }
    let args = [
        path.as_ptr() as usize,
        buffer.as_mut_ptr() as usize,
        buffer.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the path is zero-terminated, the kernel writes at most `buffer.len()` bytes.
    check(unsafe { syscall6(READLINK, args) })
}

/// The calling thread's id.
pub fn gettid() -> u32 {
    // SAFETY: takes no argument.
    unsafe { syscall6(GETTID, [0; 6]) as u32 }
}

/// The calling thread's name, zero-padded.
pub fn thread_name() -> [u8; 16] {
    const PR_GET_NAME: usize = 16;
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to the buffer.
    unsafe { syscall6(PRCTL, [PR_GET_NAME, name.as_mut_ptr() as usize, 0, 0, 0, 0]) };
    name
}

/// Opens a file, `path` ending in a zero byte. The descriptor is closed on exec.
pub fn open(path: &[u8], write: bool) -> Result<i32, u32> {
    const AT_FDCWD: isize = -100;
    const O_RDWR: usize = 2;
    const O_CLOEXEC: usize = 0o2_000_000;
    if path.last() != Some(&0) {
        return Err(22);
    }
    let flags = O_CLOEXEC | if write { O_RDWR } else { 0 };
    // SAFETY: the path is zero-terminated, as just checked.
    let fd = unsafe {
        syscall6(
            OPENAT,
            [AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0],
        )
    };
    check(fd).map(|fd| fd as i32)
}

/// Reads into `buffer`; the number of bytes read.
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize, u32> {
    let args = [
        fd as usize,
        buffer.as_mut_ptr() as usize,
        buffer.len(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer.
    check(unsafe { syscall6(READ, args) })
}

/// Closes a descriptor that this crate's caller opened.
pub fn close(fd: i32) {
    // SAFETY: closing touches no memory of ours; the caller owns the descriptor.
    unsafe { syscall6(CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// Bytes of the file behind a descriptor.
pub fn file_size(fd: i32) -> Result<u64, u32> {
    // `struct stat` of x86-64 has 144 bytes, st_size at offset 48.
    let mut stat = [0u64; 18];
    // SAFETY: fstat writes the 144 bytes of the buffer.
    check(unsafe { syscall6(FSTAT, [fd as usize, stat.as_mut_ptr() as usize, 0, 0, 0, 0]) })?;
    Ok(stat[6])
}

/// Whether a process with this id exists (a zombie does).
pub fn process_exists(pid: u32) -> bool {
    const ESRCH: isize = 3;
    // SAFETY: signal 0 is only a test.
    unsafe { syscall6(KILL, [pid as usize, 0, 0, 0, 0, 0]) != -ESRCH }
}

fn check(result: isize) -> Result<usize, u32> {
    if (-MAX_ERRNO..0).contains(&result) {
        Err(-result as u32)
    } else {
        Ok(result as usize)
    }
}

/// Blocks every signal of the calling thread; the mask that was in force.
pub fn block_signals() -> u64 {
    const SIG_SETMASK: usize = 2;
    let all = u64::MAX;
    let mut old = 0u64;
    let args = [
        SIG_SETMASK,
        &raw const all as usize,
        &raw mut old as usize,
        8,
        0,
        0,
    ];
    // SAFETY: both masks are 8 bytes, as the last argument says.
    unsafe { syscall6(RT_SIGPROCMASK, args) };
    old
}

/// Puts back what [`block_signals`] returned.
pub fn restore_signals(mask: u64) {
    const SIG_SETMASK: usize = 2;
    let args = [SIG_SETMASK, &raw const mask as usize, 0, 8, 0, 0];
    // SAFETY: the mask is 8 bytes, as the last argument says; the old one is not asked for.
    unsafe { syscall6(RT_SIGPROCMASK, args) };
}

/// Waits while `word` is `expected`, at most `timeout_ms`; may return early.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_ms: u32) {
    const FUTEX_WAIT: usize = 0;
    let timeout = [
        i64::from(timeout_ms / 1000),
        i64::from(timeout_ms % 1000) * 1_000_000,
    ];
    let word = word.as_ptr() as usize;
    let args = [
        word,
        FUTEX_WAIT,
        expected as usize,
        timeout.as_ptr() as usize,
        0,
        0,
    ];
    // SAFETY: the word is alive and aligned; the timeout is a `struct timespec`.
    unsafe { syscall6(FUTEX, args) };
}

/// Wakes all that wait on `word`, in any process.
pub fn futex_wake_all(word: &AtomicU32) {
    const FUTEX_WAKE: usize = 1;
    // SAFETY: the word is alive and aligned; waking reads nothing.
    unsafe {
        syscall6(
            FUTEX,
            [
                word.as_ptr() as usize,
                FUTEX_WAKE,
                i32::MAX as usize,
                0,
                0,
                0,
            ],
        )
    };
}

const PROT_READ_WRITE: usize = 3;
const MAP_SHARED: usize = 1;
const MAP_PRIVATE: usize = 2;
const MAP_FIXED: usize = 0x10;
const MAP_ANONYMOUS: usize = 0x20;
const MAP_NORESERVE: usize = 0x4000;

/// Reserves `bytes` of inaccessible address space.
pub(crate) fn reserve(bytes: usize) -> Result<usize, u32> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    check(unsafe { syscall6(MMAP, [0, bytes, 0, flags, usize::MAX, 0]) })
}

/// Maps `bytes` of `fd` shared and writable over address space from [`reserve`].
///
/// # Safety
/// `[address, address + bytes)` must lie in a reservation that the caller owns and nobody uses.
pub(crate) unsafe fn map_shared_over(address: usize, bytes: usize, fd: i32) -> Result<(), u32> {
    let flags = MAP_SHARED | MAP_FIXED;
    // SAFETY: the caller owns the range that is replaced.
    check(unsafe {
        syscall6(
            MMAP,
            [address, bytes, PROT_READ_WRITE, flags, fd as usize, 0],
        )
    })
    .map(drop)
}

/// Unmaps address space.
///
/// # Safety
/// Nothing may use the range afterwards.
pub(crate) unsafe fn unmap(address: usize, bytes: usize) {
    // SAFETY: handed to the caller.
    unsafe { syscall6(MUNMAP, [address, bytes, 0, 0, 0, 0]) };
}

/// Looks which pages from `address` (a page's) on occupy memory: one byte a page, bit 0. An error where something in the
/// range is not mapped.
pub fn resident(address: usize, pages: &mut [u8]) -> Result<(), u32> {
    let args = [
        address,
        pages.len() * 4096,
        pages.as_mut_ptr() as usize,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads no memory of the range and writes one byte for each of its pages.
    check(unsafe { syscall6(MINCORE, args) }).map(drop)
}

/// Copies memory of this process that may not be mapped any more: `false` where all of it could not be read.
pub fn peek(address: usize, into: &mut [u8]) -> bool {
    // An `iovec`: begin and length.
    let there = [address, into.len()];
    let here = [into.as_mut_ptr() as usize, into.len()];
    let args = [
        getpid() as usize,
        here.as_ptr() as usize,
        1,
        there.as_ptr() as usize,
        1,
        0,
    ];
    // SAFETY: the kernel writes into `into` and checks what it reads itself.
    let copied = unsafe { syscall6(PROCESS_VM_READV, args) };
    usize::try_from(copied) == Ok(into.len())
}

/// Gives the memory of whole pages back: they read as zeros when they are next looked at. Where the kernel refuses (locked
/// pages), nothing happens.
///
/// # Safety
/// Nobody may rely on what the range holds, unless it is zeros.
///
/// `false`: the kernel would not (pages that are locked), and they are as they were.
pub unsafe fn discard(address: usize, bytes: usize) -> bool {
    const MADV_DONTNEED: usize = 4;
    // SAFETY: handed to the caller.
    check(unsafe { syscall6(MADVISE, [address, bytes, MADV_DONTNEED, 0, 0, 0]) }).is_ok()
}

/// A private page of zeros that a forked child finds zeroed again, if the kernel can do that;
/// its address. It is never unmapped.
pub fn page_wiped_on_fork() -> Result<*mut u8, u32> {
    const MADV_WIPEONFORK: usize = 18;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let page = check(unsafe { syscall6(MMAP, [0, 4096, PROT_READ_WRITE, flags, usize::MAX, 0]) })?;
    // SAFETY: advice on the page just mapped. Where it is unknown the fork handler remains.
    unsafe { syscall6(MADVISE, [page, 4096, MADV_WIPEONFORK, 0, 0, 0]) };
    Ok(page as *mut u8)
}
