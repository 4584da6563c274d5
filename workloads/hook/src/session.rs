//! The session as this process sees it: whether it records, as whom, and where the pool of chunks is.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use heaplab_ring::{Mapping, Pool, sys};

use crate::environment;

/// Nothing decided yet.
pub const UNKNOWN: u32 = 0;
/// Another thread is deciding.
const ATTACHING: u32 = 1;
/// This process records.
pub const RECORDING: u32 = 2;
/// This process does not record: no session, or one for the first process only.
pub const OFF: u32 = 3;
/// The drainer is gone or has stopped: events are counted as lost.
pub const STOPPED: u32 = 4;

static MODE: AtomicU32 = AtomicU32::new(UNKNOWN);
/// This process's number in the session.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// The system's id of this process, as it was when it joined: differs in a forked child that nobody told.
static PID: AtomicU32 = AtomicU32::new(0);
static KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// Address of the session's gate word; 0 when this process does not record. Lies on a page that the kernel zeroes in a
/// forked child, so that the child notices before it writes into its parent's chunk.
type Door = AtomicUsize;
static NOT_ATTACHED: Door = Door::new(0);
static DOOR: AtomicPtr<Door> = AtomicPtr::new(ptr::from_ref(&NOT_ATTACHED).cast_mut());

struct Attached(UnsafeCell<Option<Mapping>>);
// SAFETY: written once, by the thread that attaches, before MODE becomes RECORDING with release;
// read only afterwards.
unsafe impl Sync for Attached {}
static ATTACHED: Attached = Attached(UnsafeCell::new(None));

/// One of the modes above.
#[inline]
pub fn mode() -> u32 {
    MODE.load(Ordering::Acquire)
}

/// The session's gate ([`Pool::gate`]): `None` in a process that does not record (yet, or any more).
#[inline(always)]
pub fn gate() -> Option<u32> {
    // SAFETY: points to a static or to a page that is never unmapped. What stands there is 0 or the address of a word of
    // the session's mapping, which stays as long as the process.
    unsafe {
        let gate = (*DOOR.load(Ordering::Relaxed)).load(Ordering::Relaxed);
        if gate == 0 {
            return None;
        }
        Some((*(gate as *const AtomicU32)).load(Ordering::Relaxed))
    }
}

/// The session's pool, once attached.
pub fn pool() -> Option<Pool<'static>> {
    match mode() {
        // SAFETY: written before the mode and never again.
        RECORDING | STOPPED | OFF => unsafe {
            (*ATTACHED.0.get()).as_ref().map(|mapping| mapping.pool())
        },
        _ => None,
    }
}

/// This process's number in the session.
pub fn process() -> u32 {
    PROCESS.load(Ordering::Relaxed)
}

/// The system's id of this process.
pub fn pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Stops recording in this process; later events are counted as lost.
pub fn stop() {
    if MODE
        .compare_exchange(RECORDING, STOPPED, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
    {
        set_door(0);
    }
}

/// What libc calls at the end of a thread that asked for it ([`arm_thread_end`]).
pub type ThreadEnd = extern "C" fn(*mut c_void);

/// Decides once whether this process records, and maps the session if so. `true`: it has joined by this call.
pub fn attach(end: ThreadEnd) -> bool {
    if mode() != UNKNOWN {
        return false;
    }
    // A handler that allocates must not find its own thread attaching.
    let mask = sys::block_signals();
    let mut joined = false;
    match MODE.compare_exchange(UNKNOWN, ATTACHING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            joined = try_attach(end);
            MODE.store(if joined { RECORDING } else { OFF }, Ordering::Release);
        }
        Err(_) => {
            while mode() == ATTACHING {
                core::hint::spin_loop();
            }
        }
    }
    sys::restore_signals(mask);
    joined
}

fn try_attach(end: ThreadEnd) -> bool {
    let Some(mapping) = environment::session() else {
        return false;
    };
    let pid = sys::getpid();
    let Some(number) = mapping.pool().join(pid) else {
        return false;
    };
    let page = match sys::page_wiped_on_fork() {
        Ok(page) => page,
        Err(errno) => {
            mapping.pool().set_attach_errno(errno);
            return false;
        }
    };
    let mut key = 0;
    // SAFETY: writes the key; the destructor is a C function that accepts any value.
    if unsafe { libc::pthread_key_create(&mut key, Some(end)) } == 0 {
        KEY.store(key, Ordering::Relaxed);
    }
    PROCESS.store(number, Ordering::Relaxed);
    PID.store(pid, Ordering::Relaxed);
    // SAFETY: this thread alone attaches (MODE is ATTACHING) and nobody reads it yet.
    unsafe { *ATTACHED.0.get() = Some(mapping) };
    DOOR.store(page.cast::<Door>(), Ordering::Release);
    open_door();
    true
}

fn set_door(gate: usize) {
    // SAFETY: as in `gate`; while it still is the static, only 0 is stored.
    unsafe { (*DOOR.load(Ordering::Acquire)).store(gate, Ordering::Release) };
}

fn open_door() {
    // SAFETY: written by `try_attach` before it first calls this.
    if let Some(mapping) = unsafe { (*ATTACHED.0.get()).as_ref() } {
        set_door(ptr::from_ref(mapping.pool().gate()) as usize);
    }
}

/// Asks for the function that [`attach`] was given at the end of the calling thread.
pub fn arm_thread_end() {
    let key = KEY.load(Ordering::Relaxed);
    if key != u32::MAX {
        // SAFETY: the key exists; the value only has to be non-null.
        unsafe { libc::pthread_setspecific(key, ptr::dangling::<c_void>()) };
    }
}

/// The calling process is a fork of the one that joined, and goes on as the session's process `number`.
pub fn continue_as(number: u32, pid: u32) {
    PROCESS.store(number, Ordering::Relaxed);
    PID.store(pid, Ordering::Relaxed);
    if mode() == RECORDING {
        open_door();
    }
}

/// The calling process is a fork of the one that joined, and does not record.
pub fn leave(pid: u32) {
    PID.store(pid, Ordering::Relaxed);
    MODE.store(OFF, Ordering::Release);
}
