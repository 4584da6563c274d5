//! What a subject gets from the system that would be another thing in every run: the time and random numbers.
//!
//! As in [`crate::shape`], the functions below stand in the executable, which comes first in the loader's search order. They change
//! nothing unless the harness wants it (`HEAPLAB_CLOCK=still`, `HEAPLAB_RANDOM=fixed`: memory in lockstep) or the run has set the
//! clock. Not reached: a library that makes the system calls itself, /dev/urandom, and `AT_RANDOM`.

use crate::clock::{real_clock, thread_cpu_ns};
use crate::shape::Wish;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// The time that subjects are told, monotonic nanoseconds; 0 = the real one.
static SUBJECT_CLOCK: AtomicU64 = AtomicU64::new(0);
/// The step of the clock that a subject's own threads look at ([`crate::sleepers`]): the coarse clock's of a kernel with 250 ticks a second.
pub const STEP_NS: u64 = 4_000_000;
/// The subject's clock stands still until the first op. What passes between a subject's constructors and the first op would
/// else be another time in every run, and with it when the subject gives memory back.
static STILL: Wish = Wish::new(c"HEAPLAB_CLOCK");
/// What it begins at a multiple of, nanoseconds: allocators that count in milliseconds or in the kernel's ticks must cross from one
/// to the next at the same calls in every run.
const STILL_STEP: u64 = 100_000_000;
/// Random numbers are the same in every run: mimalloc draws the addresses of its arenas.
static FIXED: Wish = Wish::new(c"HEAPLAB_RANDOM");

/// The thread's CPU time when the call began that is being made, nanoseconds, where its time runs on the subject's clock; 0: it
/// stands still in calls. Not the counter: what other programs take meanwhile would be on the clock, and off it again at the next op.
static CALL_BEGAN: AtomicU64 = AtomicU64::new(0);
/// The latest time that was told in a call, where its time runs: what it took may be on the clock for less at the next op, and none of
/// these clocks goes back.
static TOLD_IN_CALL: AtomicU64 = AtomicU64::new(0);

/// Sets the time that subjects are told from now on.
#[inline(always)]
pub fn set_subject_clock(ns: u64) {
    SUBJECT_CLOCK.store(ns, Ordering::Relaxed);
}

/// As [`set_subject_clock`] where threads play at the same time: it does not run backwards.
#[inline(always)]
pub fn advance_subject_clock(ns: u64) {
    if SUBJECT_CLOCK.load(Ordering::Relaxed) < ns {
        SUBJECT_CLOCK.fetch_max(ns, Ordering::Relaxed);
    }
}

/// What the subject's clock shows; 0: the real time.
pub fn shown() -> u64 {
    SUBJECT_CLOCK.load(Ordering::Relaxed)
}

/// The subject's clock goes on from what it shows, by the CPU time that the thread has taken since `at`.
#[inline(always)]
pub fn call_began(at: u64) {
    CALL_BEGAN.store(at, Ordering::Relaxed);
}

/// The subject's clock stands still again.
#[inline(always)]
pub fn call_ended() {
    CALL_BEGAN.store(0, Ordering::Relaxed);
}

/// What the subject's clock shows at the first op, monotonic nanoseconds: where it stands still what it has shown until now.
pub fn subject_clock(now_ns: u64) -> u64 {
    if !STILL.is_set() {
        return now_ns;
    }
    let still = (now_ns - now_ns % STILL_STEP).max(1);
    match SUBJECT_CLOCK.compare_exchange(0, still, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => still,
        Err(shown) => shown,
    }
}

/// libc's `clock_gettime`.
///
/// # Safety
/// `time` is null or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let mut told = SUBJECT_CLOCK.load(Ordering::Relaxed);
    // Not CLOCK_MONOTONIC_RAW: a library that measures the time stamp counter's frequency by it divides by what has passed (Google's
    // TCMalloc, in a constructor), and allocators give back by the others.
    let of_time = matches!(
        clock,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME
    );
    // SAFETY: null or a place for the result, by contract.
    let Some(time) = (unsafe { time.as_mut() }) else {
        return -1;
    };
    if told == 0 && of_time && STILL.is_set() {
        let status = real_clock(libc::CLOCK_MONOTONIC, time);
        if status != 0 {
            return status;
        }
        told = subject_clock(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
    }
    if told == 0 || !of_time {
        return real_clock(clock, time);
    }
    let began = CALL_BEGAN.load(Ordering::Relaxed);
    if began != 0 {
        // In a thread of the subject's own it is less, and nothing is added.
        told += thread_cpu_ns().saturating_sub(began);
        told = told.max(TOLD_IN_CALL.fetch_max(told, Ordering::Relaxed));
    } else {
        told = told.max(TOLD_IN_CALL.load(Ordering::Relaxed));
    }
    if clock == libc::CLOCK_MONOTONIC_COARSE {
        // As the kernel's. A thread of the subject's own that wakes by the real clock between two steps sees the last one's time.
        told -= told % STEP_NS;
    }
    time.tv_sec = (told / 1_000_000_000) as i64;
    time.tv_nsec = (told % 1_000_000_000) as i64;
    0
}

/// Bytes that look random and are the same in every run, each draw another one.
///
/// # Safety
/// `bytes` is writable for `count` bytes.
unsafe fn draw(bytes: *mut u8, count: usize) {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    for at in 0..count {
        // The finaliser of splitmix64 over a counter.
        let mut mixed =
            (DRAWN.fetch_add(1, Ordering::Relaxed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // SAFETY: below `count`.
        unsafe { bytes.add(at).write((mixed >> 56) as u8) };
    }
}

/// libc's `getrandom`.
///
/// # Safety
/// `bytes` is writable for `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(bytes: *mut c_void, count: usize, flags: c_uint) -> isize {
    // SAFETY: the contract is the caller's.
    unsafe {
        syscall(
            libc::SYS_getrandom,
            bytes as c_long,
            count as c_long,
            c_long::from(flags),
            0,
            0,
            0,
        ) as isize
    }
}

/// libc's `syscall`, through which mimalloc draws its random numbers. C declares it with a variable number of arguments; those that
/// a caller leaves out are whatever lies in their registers, and the kernel does not look at them.
///
/// # Safety
/// As the system call's; not for calls that return on another stack or twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    first: c_long,
    second: c_long,
    third: c_long,
    fourth: c_long,
    fifth: c_long,
    sixth: c_long,
) -> c_long {
    if number == libc::SYS_getrandom && FIXED.is_set() {
        // SAFETY: writable by the system call's contract.
        unsafe { draw(first as *mut u8, second as usize) };
        return second;
    }
    let result: c_long;
    // SAFETY: the kernel's convention: it keeps every register but rax, rcx and r11; the call itself is the caller's.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // The kernel's errors are the last 4,095 numbers.
    if (-4095..0).contains(&result) {
        // SAFETY: the thread's own errno.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result
}
