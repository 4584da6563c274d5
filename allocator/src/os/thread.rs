//! A bare kernel thread, without the C library's knowledge.
//!
//! `pthread_create` allocates and takes locks that the caller of `free` may hold already (the C
//! library frees while it holds its own list of stacks), and it switches the process to threaded mode
//! for good. A bare thread does neither. In exchange it shares the creator's thread pointer: what
//! runs on it must not touch thread-local storage, `errno` included.

use super::linux::syscall6;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of the thread's stack, with a page below it that cannot be touched.
const STACK: usize = 32 << 10;
const GUARD: usize = 4096;

/// Where a bare thread lives: its number while it exists, and its stack.
#[derive(Debug)]
pub struct BareThread {
    /// 0: none. The kernel writes the number when it starts the thread and 0 when the thread has left
    /// its stack for good.
    number: AtomicU32,
    stack: core::sync::atomic::AtomicUsize,
}

/// `number` while somebody is about to start the thread.
const STARTING: u32 = u32::MAX;

impl BareThread {
    /// No thread.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            number: AtomicU32::new(0),
            stack: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// The thread exists, or somebody is starting it.
    pub fn exists(&self) -> bool {
        self.number.load(Ordering::Acquire) != 0
    }

    /// Only in a fork child, where the thread does not exist.
    pub fn forget(&self) {
        self.number.store(0, Ordering::Release);
    }

    /// Runs `entry` on the thread, with all signals blocked, unless it exists already. False: it does,
    /// or the system refuses.
    pub fn start(&'static self, entry: extern "C" fn()) -> bool {
        if self
            .number
            .compare_exchange(0, STARTING, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let started = self.start_claimed(entry);
        if !started {
            self.number.store(0, Ordering::Release);
        }
        started
    }

    fn start_claimed(&'static self, entry: extern "C" fn()) -> bool {
        let mut stack = self.stack.load(Ordering::Relaxed);
        if stack == 0 {
            let Some(mapped) = map_stack() else {
                return false;
            };
            stack = mapped;
            self.stack.store(stack, Ordering::Relaxed);
        }
        let all = u64::MAX;
        let mut before = 0_u64;
        // SAFETY: both masks are 8 bytes, as the kernel's are.
        unsafe {
            syscall6(
                libc::SYS_rt_sigprocmask,
                [
                    libc::SIG_SETMASK as usize,
                    &raw const all as usize,
                    &raw mut before as usize,
                    8,
                    0,
                    0,
                ],
            );
        }
        // SAFETY: the stack is ours, mapped and used by nobody: the number was 0.
        let number = unsafe { clone(stack + STACK, &self.number, entry) };
        // SAFETY: as above.
        unsafe {
            syscall6(
                libc::SYS_rt_sigprocmask,
                [
                    libc::SIG_SETMASK as usize,
                    &raw const before as usize,
                    0,
                    8,
                    0,
                    0,
                ],
            );
        }
        number > 0
    }
}

impl Default for BareThread {
    fn default() -> Self {
        Self::new()
    }
}

/// First address of a fresh stack.
fn map_stack() -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping anywhere; its first page is made untouchable.
    unsafe {
        let at = syscall6(
            libc::SYS_mmap,
            [
                0,
                STACK + GUARD,
                protection as usize,
                flags as usize,
                usize::MAX,
                0,
            ],
        );
        let at = usize::try_from(at).ok()?;
        syscall6(libc::SYS_mprotect, [at, GUARD, 0, 0, 0, 0]);
        Some(at + GUARD)
    }
}

/// Starts a thread that calls `entry` and ends. Returns its number, or a negative error.
///
/// # Safety
/// `top` is the end of a stack that nobody uses, 16-byte aligned; `entry` touches no thread-local
/// storage.
unsafe fn clone(top: usize, number: &'static AtomicU32, entry: extern "C" fn()) -> isize {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let word = core::ptr::from_ref(number) as usize;
    let result: isize;
    // SAFETY: the parent goes on behind the jump with nothing changed but the result; the child has
    // registers of its own and a stack of its own and never comes back here.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call r12",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags as usize,
            in("rsi") top,
            in("rdx") word,
            in("r10") word,
            in("r8") 0,
            in("r12") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_thread_runs_once_at_a_time_and_can_be_started_again() {
        static THREAD: BareThread = BareThread::new();
        static GATE: AtomicU32 = AtomicU32::new(0);
        static RUNS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn body() {
            while GATE.load(Ordering::Acquire) == 0 {
                super::super::futex_wait(&GATE, 0);
            }
            RUNS.fetch_add(1, Ordering::Relaxed);
        }
        for round in 1..=20 {
            GATE.store(0, Ordering::Release);
            assert!(THREAD.start(body));
            assert!(!THREAD.start(body), "one at a time");
            assert!(THREAD.exists());
            GATE.store(1, Ordering::Release);
            super::super::futex_wake_one(&GATE);
            while THREAD.exists() {
                std::thread::yield_now();
            }
            assert_eq!(RUNS.load(Ordering::Relaxed), round);
        }
    }
}
