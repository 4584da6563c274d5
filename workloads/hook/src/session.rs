//! Finding the session, deciding whether this process records, and following forks.
//!
//! Attaching happens at the first event, which may come from the dynamic loader before libc has
//! set up its environment: so the session's name is read from /proc/self/environ with plain
//! system calls, and nothing here needs libc to be initialised.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use heaplab_ring::record::CLONED;
use heaplab_ring::{Kind, Mapping, Pool, SESSION_VARIABLE, sys};

use crate::{large, thread, tls};

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

/// Decides once whether this process records, and maps the session if so.
pub fn attach() {
    if mode() != UNKNOWN {
        return;
    }
    // A handler that allocates must not find its own thread attaching.
    let mask = sys::block_signals();
    let mut joined = false;
    match MODE.compare_exchange(UNKNOWN, ATTACHING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            joined = try_attach();
            MODE.store(if joined { RECORDING } else { OFF }, Ordering::Release);
        }
        Err(_) => {
            while mode() == ATTACHING {
                core::hint::spin_loop();
            }
        }
    }
    sys::restore_signals(mask);
    if joined {
        announce();
    }
}

/// Writes who this process is: file and arguments.
fn announce() {
    let mut text = [0u8; ABOUT_BYTES];
    let mut used = sys::readlink(b"/proc/self/exe\0", &mut text[..PROGRAM_BYTES]).unwrap_or(0);
    used += 1;
    if let Ok(fd) = sys::open(b"/proc/self/cmdline\0", false) {
        while let Ok(bytes @ 1..) = sys::read(fd, &mut text[used..]) {
            used += bytes;
        }
        sys::close(fd);
    }
    thread::record_with_text(
        &text[..used],
        Kind::ProcessStart,
        0,
        sys::getppid() as usize,
    );
}

fn try_attach() -> bool {
    let mut buffer = [0u8; NAME_BYTES];
    let Some(name) = session_name(&mut buffer) else {
        return false;
    };
    let Some(mapping) = open(name) else {
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
    if unsafe { libc::pthread_key_create(&mut key, Some(thread::end_from_key)) } == 0 {
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

/// Asks for [`thread::end_from_key`] at the end of the calling thread.
pub fn arm_thread_end() {
    let key = KEY.load(Ordering::Relaxed);
    if key != u32::MAX {
        // SAFETY: the key exists; the value only has to be non-null.
        unsafe { libc::pthread_setspecific(key, ptr::dangling::<c_void>()) };
    }
}

/// Whether the calling process is a fork of the one that joined; if so it has joined itself from now on, unless only the
/// first process records.
pub fn left_by_fork() -> bool {
    let pid = sys::getpid();
    let Some(pool) = pool() else { return false };
    if pid == self::pid() {
        return false;
    }
    // A handler that allocates must find all of it done.
    let mask = sys::block_signals();
    let state = tls::state();
    let (parent, parent_pid) = (process(), self::pid());
    let (number, cloned) = match state.child.load(Ordering::Relaxed) {
        // A bare clone: nobody took a number for it.
        0 => (pool.next_process(), CLONED),
        number => (number, 0),
    };
    state.forget();
    PID.store(pid, Ordering::Relaxed);
    if pool.is_first_only() {
        pool.count_refused();
        MODE.store(OFF, Ordering::Release);
        sys::restore_signals(mask);
        return true;
    }
    PROCESS.store(number, Ordering::Relaxed);
    large::forget();
    if mode() == RECORDING {
        open_door();
    }
    sys::restore_signals(mask);
    let parent_pid = parent_pid as usize | cloned;
    thread::record_always(Kind::ProcessStart, parent as usize, parent_pid);
    true
}

extern "C" fn before_fork() {
    if mode() == RECORDING
        && let Some(pool) = pool()
        && !pool.is_first_only()
    {
        let number = pool.next_process();
        tls::state().child.store(number, Ordering::Relaxed);
        thread::record_always(Kind::Fork, number as usize, 0);
    }
}

extern "C" fn after_fork_in_parent() {
    tls::state().child.store(0, Ordering::Relaxed);
}

extern "C" fn after_fork_in_child() {
    if mode() == RECORDING || mode() == STOPPED {
        left_by_fork();
    }
}

/// What is to be called before a fork, after it in the parent, and after it in the child, which then joins at once rather
/// than at its first event.
pub const FORK_HANDLERS: [extern "C" fn(); 3] =
    [before_fork, after_fork_in_parent, after_fork_in_child];

/// Follows forks. For programs that this is linked into: glibc has `pthread_atfork` in no shared library.
pub fn register_fork_handler() {
    let [before, in_parent, in_child] = FORK_HANDLERS;
    // SAFETY: the handlers are C functions that only use system calls and atomics.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}

/// Bytes of text in which a process says who it is, and what of them its file may take.
const ABOUT_BYTES: usize = 1024;
const PROGRAM_BYTES: usize = 220;
/// Longest session name: descriptor, nonce and path.
const NAME_BYTES: usize = 600;

/// The value of the session variable in this process's initial environment.
fn session_name(buffer: &mut [u8; NAME_BYTES]) -> Option<&[u8]> {
    let wanted = SESSION_VARIABLE.as_bytes();
    let fd = sys::open(b"/proc/self/environ\0", false).ok()?;
    let mut block = [0u8; 4096];
    let mut filled = 0;
    let mut found = false;
    'read: while let Ok(bytes @ 1..) = sys::read(fd, &mut block) {
        for &byte in block.get(..bytes).unwrap_or(&[]) {
            if byte == 0 {
                let entry = &buffer[..filled.min(NAME_BYTES)];
                if entry.starts_with(wanted) && entry.get(wanted.len()) == Some(&b'=') {
                    found = filled <= NAME_BYTES;
                    break 'read;
                }
                filled = 0;
            } else {
                if let Some(place) = buffer.get_mut(filled) {
                    *place = byte;
                }
                filled += 1;
            }
        }
    }
    sys::close(fd);
    if found {
        buffer.get(wanted.len() + 1..filled)
    } else {
        None
    }
}

/// Maps the session named `<fd>:<nonce in hex>:<path>`.
fn open(name: &[u8]) -> Option<Mapping> {
    let mut parts = name.splitn(3, |&byte| byte == b':');
    let fd = number(parts.next()?, 10)?;
    let nonce = number(parts.next()?, 16)?;
    let path = parts.next().unwrap_or(&[]);
    let map = |fd| {
        Mapping::open(fd, nonce)
            .inspect_err(|&errno| Mapping::report_failure(fd, nonce, errno))
            .ok()
    };
    if let Ok(fd) = i32::try_from(fd)
        && let Some(mapping) = map(fd)
    {
        return Some(mapping);
    }
    // The descriptor was closed on the way: the drainer's own, or the file, is the second door.
    let mut zero_terminated = [0u8; NAME_BYTES + 1];
    if path.is_empty() {
        return None;
    }
    zero_terminated.get_mut(..path.len())?.copy_from_slice(path);
    let fd = sys::open(zero_terminated.get(..path.len() + 1)?, true).ok()?;
    let mapping = map(fd);
    sys::close(fd);
    mapping
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, base).ok()
}
