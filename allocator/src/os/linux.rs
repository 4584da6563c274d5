//! Linux on x86-64: the only file of the allocator with system calls.
//!
//! Calls are made by the `syscall` instruction itself rather than through libc's wrappers, so
//! that nothing here can touch `errno` (free must keep it) or need libc to be initialised.

use super::{Mapped, Moved, Os};
use crate::lookup::{LOOKUP, Lookup};
use crate::units::{OS_PAGE, PAGE_SIZE};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("spanalloc supports Linux on x86-64 only so far");

/// The operating system of production.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux {
    /// For another heap than the process's.
    beside: bool,
}

impl Linux {
    /// For the process's heap.
    pub const PROCESS: Self = Self { beside: false };
    /// For a heap beside it.
    pub const BESIDE: Self = Self { beside: true };
}

/// Above this valgrind does not let programs map, and below the kernel's default mmap area.
const BASE_FIRST: usize = 1 << 40;
const BASE_LAST: usize = 12 << 40;
const BASE_ALIGN: usize = 64 << 20;
const HEAP_REACH: usize = 1 << 40;

/// # Safety
/// The arguments must be valid for system call `number`.
#[inline]
pub(crate) unsafe fn syscall6(number: libc::c_long, args: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rax, rcx and r11 only; memory effects are the caller's duty.
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

impl Os for Linux {
    fn lookup(&self) -> Option<&'static Lookup> {
        (!self.beside).then_some(&LOOKUP)
    }

    fn pick_base(&self, len: usize, attempt: u32) -> Option<usize> {
        if attempt >= 32 {
            return None;
        }
        let mut random = [0_u8; 8];
        // SAFETY: getrandom writes at most 8 bytes into the buffer. 1 = GRND_NONBLOCK.
        let got = unsafe {
            syscall6(
                libc::SYS_getrandom,
                [random.as_mut_ptr() as usize, 8, 1, 0, 0, 0],
            )
        };
        let mut word = usize::from_ne_bytes(random);
        if got != 8 {
            // Early boot: the stack's address and the time stamp are random enough for a base.
            // SAFETY: rdtsc has no preconditions.
            let ticks = unsafe { core::arch::x86_64::_rdtsc() } as usize;
            word = ticks.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (random.as_ptr() as usize);
        }
        let slots = (BASE_LAST - BASE_FIRST - len) / BASE_ALIGN;
        Some(BASE_FIRST + (word >> 7) % slots * BASE_ALIGN)
    }

    fn heap_reach(&self) -> usize {
        HEAP_REACH
    }

    fn map_at(&self, addr: usize, len: usize) -> Mapped {
        // SAFETY: MAP_FIXED_NOREPLACE never replaces a mapping, so no live memory is affected.
        let got = unsafe { map_zeros(addr, len, libc::MAP_FIXED_NOREPLACE) };
        if got == addr as isize {
            return Mapped::Yes;
        }
        if got > 0 {
            // A kernel before 4.17 takes the address as a hint only.
            // SAFETY: the range was mapped just now and nobody knows it.
            unsafe { syscall6(libc::SYS_munmap, [got as usize, len, 0, 0, 0, 0]) };
            return Mapped::Taken;
        }
        if got == -(libc::EEXIST as isize) {
            Mapped::Taken
        } else {
            Mapped::NoMemory
        }
    }

    fn purge(&self, addr: usize, len: usize) -> bool {
        // SAFETY: the page heap passes free runs only, whose contents nobody needs.
        unsafe {
            syscall6(
                libc::SYS_madvise,
                [addr, len, libc::MADV_DONTNEED as usize, 0, 0, 0],
            ) == 0
        }
    }

    fn renew(&self, addr: usize, len: usize) -> bool {
        // SAFETY: the page heap passes free runs only, which are mapped and whose contents nobody needs.
        unsafe { map_zeros(addr, len, libc::MAP_FIXED) == addr as isize }
    }

    fn unmap(&self, addr: usize, len: usize) -> bool {
        // SAFETY: the page heap passes free runs only, and forgets them.
        unsafe { syscall6(libc::SYS_munmap, [addr, len, 0, 0, 0, 0]) == 0 }
    }

    fn hand_over(&self, from: usize, to: usize, len: usize) -> bool {
        if (to..to + len).step_by(OS_PAGE).any(is_mapped) {
            return false;
        }
        let flags = libc::MREMAP_MAYMOVE as usize | libc::MREMAP_FIXED as usize;
        // SAFETY: the page heap passes a free run and forgets it. Nothing is mapped at the target, and the kernel maps nothing there by
        // itself: addresses so low are never its choice.
        let got = unsafe { syscall6(libc::SYS_mremap, [from, len, len, flags, to, 0]) };
        got == to as isize
    }

    fn touch(&self, addr: usize) {
        // SAFETY: the page is mapped, reads as zero, and belongs to the caller.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(0) };
    }

    fn populate(&self, addr: usize, len: usize) -> bool {
        const MADV_POPULATE_WRITE: usize = 23;
        // SAFETY: changes page tables only.
        unsafe { syscall6(libc::SYS_madvise, [addr, len, MADV_POPULATE_WRITE, 0, 0, 0]) == 0 }
    }

    fn collapse(&self, addr: usize, len: usize) -> bool {
        const MADV_COLLAPSE: usize = 25;
        // SAFETY: changes page tables only.
        unsafe { syscall6(libc::SYS_madvise, [addr, len, MADV_COLLAPSE, 0, 0, 0]) == 0 }
    }

    fn is_resident(&self, addr: usize, len: usize) -> bool {
        let mut room = [0_u8; (2 << 20) / OS_PAGE];
        let pages = &mut room[..len / OS_PAGE];
        // SAFETY: the kernel writes a byte for each page of the range, for which there is room.
        let answer = unsafe {
            syscall6(
                libc::SYS_mincore,
                [addr, len, pages.as_mut_ptr() as usize, 0, 0, 0],
            )
        };
        answer == 0 && pages.iter().all(|page| page & 1 != 0)
    }

    fn move_pages(&self, from: usize, to: usize, len: usize) -> Moved {
        const MREMAP_DONTUNMAP: usize = 4;
        let flags = libc::MREMAP_MAYMOVE as usize | libc::MREMAP_FIXED as usize | MREMAP_DONTUNMAP;
        // SAFETY: both ranges lie in spans that the caller owns; the target's contents are not
        // needed, the source stays mapped by DONTUNMAP.
        let got = unsafe { syscall6(libc::SYS_mremap, [from, len, len, flags, to, 0]) };
        if got == to as isize {
            Moved::Yes
        } else if got == -(libc::EINVAL as isize) {
            // Not known: arguments are looked at first.
            Moved::No
        } else {
            after_refused_move(self, from, to, len)
        }
    }

    fn protect(&self, addr: usize, len: usize, usable: bool) -> bool {
        let protection = if usable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_NONE
        };
        // SAFETY: the caller owns the pages and wants them so.
        unsafe {
            syscall6(
                libc::SYS_mprotect,
                [addr, len, protection as usize, 0, 0, 0],
            ) == 0
        }
    }

    fn now_ms(&self) -> u64 {
        let (seconds, nanoseconds) = clock(libc::CLOCK_MONOTONIC_COARSE);
        seconds * 1000 + nanoseconds / 1_000_000
    }

    fn now_ns(&self) -> u64 {
        let (seconds, nanoseconds) = clock(libc::CLOCK_MONOTONIC);
        seconds * 1_000_000_000 + nanoseconds
    }

    fn processors(&self) -> usize {
        match PROCESSORS.load(Relaxed) {
            0 => count_processors(),
            known => known,
        }
    }
}

/// A move was refused. The kernel unmaps the target before it looks whether what is mapped may grow by as much again (a limit that was set
/// below what is mapped, strict accounting), mapping after mapping of the source, if there are several. Where what is missing cannot
/// be mapped again either, the move that leaves nothing at the old place is allowed, as by it nothing grows.
#[cold]
#[inline(never)]
fn after_refused_move(os: &Linux, from: usize, to: usize, len: usize) -> Moved {
    if os.map_at(to, len) == Mapped::Yes {
        return Moved::No;
    }
    let pages = || (0..len).step_by(PAGE_SIZE);
    let Some(missing) = pages().find(|&at| !is_mapped(to + at)) else {
        return Moved::No;
    };
    if missing == 0 {
        let end = pages().find(|&at| is_mapped(to + at)).unwrap_or(len);
        if os.map_at(to, end) == Mapped::Yes {
            return Moved::No;
        }
    }
    // What lies before it has moved.
    move_with_place(from + missing, to + missing, len - missing);
    Moved::WithPlace
}

/// Moves pages without leaving anything at their old place. Ends the process where that is refused, as a part of the caller's block is missing.
fn move_with_place(from: usize, to: usize, len: usize) {
    let flags = libc::MREMAP_MAYMOVE as usize | libc::MREMAP_FIXED as usize;
    // SAFETY: the caller of `move_pages` owns both ranges, and forgets the source.
    let got = unsafe { syscall6(libc::SYS_mremap, [from, len, len, flags, to, 0]) };
    if got == to as isize {
        return;
    }
    if len <= PAGE_SIZE {
        crate::fault::die_out_of_memory("a move by the page tables", len);
    }
    // Before Linux 6.17 one mapping at a time.
    let half = (len / 2).next_multiple_of(PAGE_SIZE);
    move_with_place(from, to, half);
    move_with_place(from + half, to + half, len - half);
}

/// Something is mapped at the page.
fn is_mapped(page: usize) -> bool {
    let mut answer = 0_u8;
    let place = &raw mut answer as usize;
    // SAFETY: the kernel writes one byte, if the page is mapped.
    let code = unsafe { syscall6(libc::SYS_mincore, [page, OS_PAGE, place, 0, 0, 0]) };
    code != -(libc::ENOMEM as isize)
}

/// Seconds and nanoseconds of a monotonic clock. Through libc, because its vDSO path is 10 times cheaper than a system call; it does not
/// fail for these clocks, so errno stays.
fn clock(id: libc::clockid_t) -> (u64, u64) {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    (now.tv_sec as u64, now.tv_nsec as u64)
}

/// Nanoseconds that the calling thread has run. For threads without thread-local storage, too.
pub fn thread_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec. Not through libc, which may set errno.
    unsafe {
        let clock = libc::CLOCK_THREAD_CPUTIME_ID as usize;
        let place = &raw mut now as usize;
        syscall6(libc::SYS_clock_gettime, [clock, place, 0, 0, 0, 0]);
    }
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Maps private zeros at `addr`, `how` firmly; what `mmap` answers.
///
/// # Safety
/// With `MAP_FIXED` nobody needs what is mapped there.
unsafe fn map_zeros(addr: usize, len: usize, how: i32) -> isize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let words = [
        addr,
        len,
        protection as usize,
        flags as usize,
        usize::MAX,
        0,
    ];
    // SAFETY: the caller's duty.
    unsafe { syscall6(libc::SYS_mmap, words) }
}

/// What [`count_processors`] counted, 0 before.
static PROCESSORS: AtomicUsize = AtomicUsize::new(0);

/// Counts and keeps on how many processors the process's first thread may run. To be called before the program binds its threads to
/// one each, which says nothing about the others; the first one is the last that a program binds. 1 if the system does not tell.
pub(crate) fn count_processors() -> usize {
    // For 8,192 processors, as many as the kernel can be built for.
    let mut set = [0_usize; 128];
    // SAFETY: asks for a number; writes no more than the set.
    let len = unsafe {
        let first = syscall6(libc::SYS_getpid, [0; 6]) as usize;
        syscall6(
            libc::SYS_sched_getaffinity,
            [first, size_of_val(&set), set.as_mut_ptr() as usize, 0, 0, 0],
        )
    };
    let words = usize::try_from(len).unwrap_or(0) / size_of::<usize>();
    let count: u32 = set[..words].iter().map(|word| word.count_ones()).sum();
    let count = count.max(1) as usize;
    PROCESSORS.store(count, Relaxed);
    count
}

/// Sleeps while `word` holds `expected`; may return early.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    const FUTEX_WAIT_PRIVATE: usize = 128;
    let address = core::ptr::from_ref(word) as usize;
    // SAFETY: the word outlives the call; a null timeout waits for ever.
    unsafe {
        syscall6(
            libc::SYS_futex,
            [address, FUTEX_WAIT_PRIVATE, expected as usize, 0, 0, 0],
        );
    }
}

/// Sleeps for `ms` milliseconds, or until somebody wakes `word`, which must hold 0.
pub fn sleep_ms(word: &AtomicU32, ms: u64) {
    const FUTEX_WAIT_PRIVATE: usize = 128;
    let address = core::ptr::from_ref(word) as usize;
    let time = libc::timespec {
        tv_sec: (ms / 1000) as libc::time_t,
        tv_nsec: (ms % 1000 * 1_000_000) as libc::c_long,
    };
    // SAFETY: the word and the time outlive the call.
    unsafe {
        syscall6(
            libc::SYS_futex,
            [
                address,
                FUTEX_WAIT_PRIVATE,
                0,
                &raw const time as usize,
                0,
                0,
            ],
        );
    }
}

/// Wakes one sleeper of `word`.
pub fn futex_wake_one(word: &AtomicU32) {
    const FUTEX_WAKE_PRIVATE: usize = 129;
    let address = core::ptr::from_ref(word) as usize;
    // SAFETY: waking has no effect on memory.
    unsafe {
        syscall6(libc::SYS_futex, [address, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0]);
    }
}

/// Blocks all signals of the thread; returns those that were blocked before.
#[must_use]
pub fn block_signals() -> u64 {
    let mut before = 0;
    set_signals(u64::MAX, &mut before);
    before
}

/// Blocks the signals that [`block_signals`] found blocked, and no others.
pub fn restore_signals(before: u64) {
    set_signals(before, &mut 0);
}

fn set_signals(mask: u64, before: &mut u64) {
    const SIG_SETMASK: usize = 2;
    let new = core::ptr::from_ref(&mask) as usize;
    let old = core::ptr::from_mut(before) as usize;
    // SAFETY: both masks are 8 bytes.
    unsafe { syscall6(libc::SYS_rt_sigprocmask, [SIG_SETMASK, new, old, 8, 0, 0]) };
}

/// Writes to standard error; what cannot be written is dropped.
pub fn write_stderr(text: &[u8]) {
    // SAFETY: the slice is readable.
    unsafe {
        syscall6(
            libc::SYS_write,
            [2, text.as_ptr() as usize, text.len(), 0, 0, 0],
        );
    }
}

/// Ends the process by SIGABRT. libc's `abort` neither allocates nor returns.
pub fn abort_process() -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::abort() }
}

/// The kernel's number of the calling thread, never 0.
pub fn thread_number() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}

/// A thread of this number exists, in this process or another one.
pub fn thread_exists(number: u32) -> bool {
    // SAFETY: signal 0 is none, it only asks.
    unsafe {
        syscall6(libc::SYS_tkill, [number as usize, 0, 0, 0, 0, 0]) != -(libc::ESRCH as isize)
    }
}

/// From now on SIGABRT ends the process whatever the program had asked for.
pub fn forget_abort_handler() {
    // SAFETY: a valid signal and disposition.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
}

/// CPUs that this process may run on, at least 1.
pub fn cpu_count() -> usize {
    let mut mask = [0_u64; 128];
    // SAFETY: the kernel writes at most the given bytes of the mask.
    let got = unsafe {
        syscall6(
            libc::SYS_sched_getaffinity,
            [0, size_of_val(&mask), mask.as_mut_ptr() as usize, 0, 0, 0],
        )
    };
    if got <= 0 {
        return 1;
    }
    mask.iter()
        .map(|word| word.count_ones() as usize)
        .sum::<usize>()
        .max(1)
}
