//! The replaying threads: real ones, on stacks in shared memory, started together or by `ThreadStart` ops.

use crate::clock;
use crate::fail;
use crate::shared::SharedArray;
use crate::sleepers::Roll;
use crate::statm;
use crate::world::World;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a thread's stack. Only what is used is taken.
const STACK: usize = 256 << 10;
/// From here on stacks have no guard page: each would cost two mappings of the 65,530 a process may have.
const GUARDED: usize = 8192;

/// What a thread runs.
pub type Entry = extern "C" fn(*mut c_void) -> *mut c_void;

/// What a thread is told.
pub struct Start {
    /// The run.
    pub world: &'static World,
    /// Which of the script's threads it is.
    pub thread: u32,
}

/// Handles and stacks of the script's threads. Thread 0 is the process's main thread.
pub struct Crew {
    stacks: SharedArray<[u8; STACK]>,
    /// pthread_t of each started thread that nobody has joined, else 0.
    handles: SharedArray<AtomicU64>,
    roll: Roll,
    entry: Entry,
    gate: Gate,
}

/// Opens for all waiting threads at once.
struct Gate {
    arrived: AtomicU32,
    open: AtomicU32,
}

impl Crew {
    /// Stacks for `threads` threads that run `entry`, or `None` when the memory cannot be mapped.
    pub fn new(threads: usize, entry: Entry) -> Option<Self> {
        let stacks = SharedArray::<[u8; STACK]>::new(threads)?;
        if threads <= GUARDED {
            for thread in 0..threads {
                // SAFETY: the lowest page of a stack that nobody uses yet.
                unsafe { libc::mprotect(stacks.at(thread).cast(), 4096, libc::PROT_NONE) };
            }
        }
        let gate = Gate {
            arrived: AtomicU32::new(0),
            open: AtomicU32::new(0),
        };
        Some(Self {
            stacks,
            handles: SharedArray::new(threads)?,
            roll: Roll::new(threads)?,
            entry,
            gate,
        })
    }

    fn handle(&self, thread: u32) -> &AtomicU64 {
        // SAFETY: in range, never unmapped, and zero bytes are an atomic 0.
        unsafe { &*self.handles.at(thread as usize) }
    }

    /// Who of the process's threads belongs to the crew.
    pub fn roll(&self) -> Roll {
        self.roll
    }

    /// Starts one of the script's threads.
    pub fn start(&self, world: &'static World, thread: u32) {
        self.roll.starts();
        let start = Box::into_raw(Box::new(Start { world, thread }));
        let handle = spawn(
            self.stacks.at(thread as usize).cast(),
            self.entry,
            start.cast(),
        );
        match handle {
            Ok(handle) => self.handle(thread).store(handle, Ordering::Release),
            Err(error) => fail::with(format!(
                "thread {thread} of the script cannot be started (error {error})"
            )),
        }
    }

    /// For a thread that exists from the beginning: says that it is ready and waits for the others.
    pub fn arrive(&self) {
        self.gate.arrived.fetch_add(1, Ordering::AcqRel);
        while self.gate.open.load(Ordering::Acquire) == 0 {
            futex_wait(&self.gate.open, 0);
        }
    }

    /// Waits until `threads` threads have arrived.
    pub fn await_arrivals(&self, threads: u32) {
        while self.gate.arrived.load(Ordering::Acquire) < threads {
            clock::sleep_ns(20_000);
        }
    }

    /// Lets the waiting threads go.
    pub fn open(&self) {
        self.gate.open.store(1, Ordering::Release);
        futex_wake(&self.gate.open, i32::MAX);
    }

    /// Makes the gate ready for another repetition; no thread may be running.
    pub fn close(&self) {
        self.gate.arrived.store(0, Ordering::Release);
        self.gate.open.store(0, Ordering::Release);
    }

    /// Waits for the end of one thread, if it was started and nobody has waited for it.
    pub fn join(&self, thread: u32) -> bool {
        match self.handle(thread).swap(0, Ordering::AcqRel) {
            0 => false,
            handle => {
                // SAFETY: a joinable thread of this process, taken by nobody else.
                unsafe { libc::pthread_join(handle, std::ptr::null_mut()) };
                self.roll.left(thread);
                true
            }
        }
    }

    /// Waits for the end of all threads, those included that others start meanwhile.
    pub fn join_all(&self) {
        // A thread still to be started is started by one that has not ended, so a round that finds none is the last.
        while (0..self.handles.len())
            .filter(|thread| self.join(*thread as u32))
            .count()
            > 0
        {}
    }
}

/// Starts a thread on a stack of the worker's own.
fn spawn(stack: *mut c_void, entry: Entry, argument: *mut c_void) -> Result<u64, i32> {
    // SAFETY: zero bytes are overwritten by attr_init; the stack is large enough, page-aligned and used by nobody else.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        libc::pthread_attr_init(&raw mut attributes);
        libc::pthread_attr_setstack(&raw mut attributes, stack, STACK);
        let mut handle: libc::pthread_t = 0;
        let error = libc::pthread_create(&raw mut handle, &raw const attributes, entry, argument);
        libc::pthread_attr_destroy(&raw mut attributes);
        if error == 0 { Ok(handle) } else { Err(error) }
    }
}

/// Sleeps while `word` is `value`.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid; a null timeout waits without end.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word,
            operation,
            value,
            std::ptr::null::<libc::timespec>(),
        )
    };
}

/// Wakes up to `count` threads that sleep on `word`.
pub fn futex_wake(word: &AtomicU32, count: i32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is valid.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, count) };
}

/// Anonymous bytes of this process with `threads` threads that do nothing: what a worker costs by itself.
pub fn baseline(threads: usize) -> u64 {
    static READY: AtomicU32 = AtomicU32::new(0);
    extern "C" fn idle(_: *mut c_void) -> *mut c_void {
        READY.fetch_add(1, Ordering::AcqRel);
        loop {
            clock::sleep_ns(1_000_000_000);
        }
    }
    let extra = threads.saturating_sub(1);
    let Some(stacks) = SharedArray::<[u8; STACK]>::new(extra) else {
        return 0;
    };
    for thread in 0..extra {
        if spawn(stacks.at(thread).cast(), idle, std::ptr::null_mut()).is_err() {
            return 0;
        }
    }
    while (READY.load(Ordering::Acquire) as usize) < extra {
        clock::sleep_ns(100_000);
    }
    statm::anonymous_bytes()
}
