//! Threads of the subject's own while the harness shows it a clock: they sleep by the real one.
//!
//! In lockstep the time that a subject reads goes on with the ops, and what it gives back on its threads' calls is the same in every
//! run. A thread of its own that sleeps for a second (spanalloc's helper, jemalloc's background threads) wakes at another op in
//! each. So the clock that such threads look at goes on in steps ([`crate::steady::STEP_NS`]), and between two of them no op is made until
//! each of these threads has had its look: who waits for a time is woken, sees whether it has come, does its work or sleeps on. That
//! asks of a thread what a futex asks of everybody: to look at what it has waited for when it wakes.
//!
//! Who they are is asked of the kernel: the threads of the process that the replay did not start. Not reached: one
//! that sleeps by other means than a futex with a time, and one that never rests.

use crate::clock;
use crate::shared::SharedArray;
use heaplab_worker::doing::Doing;
use std::ffi::CStr;
use std::fs;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// A thread that has not come to rest after so long is not waited for any more.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Looks at a thread before the CPU is given up for longer than the scheduler likes.
const YIELDS: u32 = 100;
const PAUSE_NS: u64 = 50_000;

/// The replay's own threads.
#[derive(Clone, Copy)]
pub struct Roll {
    /// Of each thread of the script that exists the kernel's number, else 0.
    numbers: SharedArray<AtomicU32>,
    /// Threads that exist beside the first.
    started: SharedArray<AtomicU32>,
}

impl Roll {
    /// For a script of so many threads, or `None` when the memory cannot be mapped.
    pub fn new(threads: usize) -> Option<Self> {
        Some(Self {
            numbers: SharedArray::new(threads)?,
            started: SharedArray::new(1)?,
        })
    }

    fn number(&self, thread: u32) -> &AtomicU32 {
        // SAFETY: in range, never unmapped, and zero bytes are an atomic 0.
        unsafe { &*self.numbers.at(thread as usize) }
    }

    fn started(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &*self.started.at(0) }
    }

    /// A thread is about to be started.
    pub fn starts(&self) {
        self.started().fetch_add(1, Ordering::Relaxed);
    }

    /// Said by the thread itself, first of all.
    pub fn enters(&self, thread: u32) {
        // SAFETY: a number, no more.
        let number = unsafe { libc::gettid() } as u32;
        self.number(thread).store(number, Ordering::Release);
    }

    /// A thread has been waited for.
    pub fn left(&self, thread: u32) {
        self.number(thread).store(0, Ordering::Release);
        self.started().fetch_sub(1, Ordering::Relaxed);
    }

    fn has(&self, number: u32) -> bool {
        (0..self.numbers.len() as u32)
            .any(|thread| self.number(thread).load(Ordering::Acquire) == number)
    }
}

/// A thread that was woken.
pub struct Woken {
    number: u32,
    /// How often it had waited by then.
    waits: u64,
}

/// The others.
pub struct Sleepers {
    own: Roll,
    /// /proc/self/task.
    folder: RawFd,
    /// Threads may run one after the other by valgrind's leave.
    emulated: bool,
}

impl Sleepers {
    /// `None` where the kernel does not show a process its threads. `emulated`: this may be a run under valgrind.
    pub fn new(own: Roll, emulated: bool) -> Option<Self> {
        let path: &CStr = c"/proc/self/task";
        // SAFETY: a valid C string.
        let folder = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        (folder >= 0).then_some(Self {
            own,
            folder,
            emulated,
        })
    }

    /// Waits until all of them are at rest, those of `woken` after they have run; false: one does not come to rest.
    pub fn settle(&self, woken: &[Woken]) -> bool {
        let mut since = 0;
        for round in 0u32.. {
            let mut busy = false;
            self.each(|number, doing| {
                let waits = |woken: &Woken| woken.number == number && waits(number) == woken.waits;
                busy |= doing == Doing::Work || woken.iter().any(waits);
            });
            if !busy {
                return true;
            }
            if round < YIELDS {
                // SAFETY: no arguments.
                unsafe { libc::sched_yield() };
                continue;
            }
            if since == 0 {
                since = clock::now_ns();
            }
            if clock::now_ns() - since > PATIENCE_NS {
                return false;
            }
            clock::sleep_ns(PAUSE_NS);
        }
        true
    }

    /// Lets each that waits for a time look at the clock. A thread that is woken on another CPU is still said to wait until that
    /// CPU has been told: whoever wants to know that it has looked must see that it has waited once more ([`Sleepers::settle`]).
    pub fn wake(&self) -> Vec<Woken> {
        let mut woken = Vec::new();
        let mut words = Vec::new();
        self.each(|number, doing| {
            if let Doing::Sleep { word, private } = doing {
                let waits = waits(number);
                woken.push(Woken { number, waits });
                words.push((word, private));
            }
        });
        for (word, private) in words {
            let operation = libc::FUTEX_WAKE | private;
            // SAFETY: a wake reads nothing; who waits on the word is made to look, which futexes permit at any time.
            unsafe { libc::syscall(libc::SYS_futex, word, operation, i32::MAX) };
        }
        woken
    }

    /// Whether the process has no more threads than the replay: a single question, as it is asked at every step.
    fn nobody(&self) -> bool {
        // SAFETY: zero bytes are a valid stat.
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the result.
        let known = unsafe { libc::fstat(self.folder, &raw mut found) } == 0;
        // A folder for each thread, and its own two entries.
        let own = 2 + 1 + u64::from(self.own.started().load(Ordering::Relaxed));
        known && found.st_nlink <= own
    }

    fn doing(&self, number: u32) -> Doing {
        let path = format!("/proc/self/task/{number}/syscall");
        match fs::read_to_string(path).map(|line| Doing::parse(&line)) {
            // Who has work to do under valgrind waits for the others by reading from a pipe.
            Ok(Doing::Read) if self.emulated => Doing::Work,
            Ok(doing) => doing,
            Err(_) => Doing::Gone,
        }
    }

    fn each(&self, mut see: impl FnMut(u32, Doing)) {
        if self.nobody() {
            return;
        }
        let mut buffer = [0u8; 4096];
        // SAFETY: back to the first entry of a folder of ours.
        unsafe { libc::lseek(self.folder, 0, libc::SEEK_SET) };
        loop {
            // Not opendir: it allocates, and that would reach the subject.
            // SAFETY: the buffer is writable for its length.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_getdents64,
                    self.folder,
                    buffer.as_mut_ptr(),
                    buffer.len(),
                )
            };
            if got <= 0 {
                return;
            }
            names(&buffer[..got as usize], |number| {
                if !self.own.has(number) {
                    see(number, self.doing(number));
                }
            });
        }
    }
}

/// The numbers among the names of what getdents64 gave.
fn names(mut entries: &[u8], mut see: impl FnMut(u32)) {
    /// Bytes before an entry's name, and the place of its length in them.
    const HEAD: usize = 19;
    const LENGTH: usize = 16;
    while entries.len() > HEAD {
        let length = usize::from(u16::from_le_bytes([entries[LENGTH], entries[LENGTH + 1]]));
        if length <= HEAD || length > entries.len() {
            return;
        }
        let name = &entries[HEAD..length];
        let name = &name[..name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len())];
        if let Some(number) = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok()) {
            see(number);
        }
        entries = &entries[length..];
    }
}

/// How often a thread has gone to wait since it began; 0: it is gone.
fn waits(number: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{number}/status"));
    let status = status.unwrap_or_default();
    let count = |line: &str| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse()
            .ok()
    };
    status.lines().find_map(count).unwrap_or(0)
}
