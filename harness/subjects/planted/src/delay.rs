//! Makes a thread slower by a share of the CPU time that it takes itself, whatever the workload and the machine are.
//!
//! The work of many calls comes at once: spread over them, a part of it would be hidden behind the calls' own waiting.

use core::ffi::c_long;

/// Calls between two delays.
const EVERY: u64 = 4096;

// The thread's calls and its CPU time at the end of its last delay, in the static TLS block: no call to the loader, which may allocate.
core::arch::global_asm!(
    ".section .tbss,\"awT\",@nobits",
    ".p2align 4",
    ".globl heaplab_planted_thread",
    ".hidden heaplab_planted_thread",
    ".type heaplab_planted_thread,@object",
    ".size heaplab_planted_thread,16",
    "heaplab_planted_thread:",
    ".zero 16",
    ".text",
);

struct Thread {
    calls: u64,
    since_ns: u64,
}

#[inline(always)]
fn thread() -> *mut Thread {
    let thread: *mut Thread;
    // SAFETY: the address of the thread's own variable defined above: zero at first, 16 bytes, aligned.
    unsafe {
        core::arch::asm!(
            "mov {thread}, qword ptr [rip + heaplab_planted_thread@GOTTPOFF]",
            "add {thread}, qword ptr fs:[0]",
            thread = out(reg) thread,
            options(nostack, readonly, pure),
        );
    }
    thread
}

/// A call: every [`EVERY`] calls the thread spends `percent` of the CPU time since the last time.
#[inline(always)]
pub fn call(percent: usize) {
    let thread = thread();
    // SAFETY: the thread's own variable; a signal handler that comes between may lose a call, and nothing else.
    unsafe {
        (*thread).calls += 1;
        if (*thread).calls.is_multiple_of(EVERY) {
            (*thread).since_ns = delay((*thread).since_ns, percent as u64);
        }
    }
}

/// Spends `percent` of the time since `since_ns` and gives the time of its end.
#[cold]
fn delay(since_ns: u64, percent: u64) -> u64 {
    let mut now = cpu_ns();
    if since_ns != 0 {
        let end = now + now.saturating_sub(since_ns) * percent / 100;
        while now < end {
            now = cpu_ns();
        }
    }
    now
}

/// CPU time of this thread, by the system call itself: what replays time by `clock_gettime` is a clock of their own.
fn cpu_ns() -> u64 {
    let mut time = [0i64; 2];
    let result: c_long;
    // SAFETY: clock_gettime(CLOCK_THREAD_CPUTIME_ID) writes 16 bytes to `time` and changes no other memory.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_clock_gettime => result,
            in("rdi") libc::CLOCK_THREAD_CPUTIME_ID,
            in("rsi") time.as_mut_ptr(),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if result != 0 {
        return 0;
    }
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}
