//! Finding the session, deciding whether this process records, and following forks.
//!
//! Attaching happens at the first event, which may come from the dynamic loader before libc has
//! set up its environment: so the session's name is read from /proc/self/environ with plain
//! system calls, and nothing here needs libc to be initialised.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};

use heaplab_ring::clock::Clock;
use heaplab_ring::{Mapping, Pool, SESSION_VARIABLE, sys};

use crate::{thread, tls};

/// Nothing decided yet.
pub const UNKNOWN: u32 = 0;
/// Another thread is deciding.
const ATTACHING: u32 = 1;
/// This process records.
pub const RECORDING: u32 = 2;
/// This process does not record: no session, not the first process, or a fork of it.
pub const OFF: u32 = 3;
/// The drainer is gone or has stopped: events are counted as lost.
pub const STOPPED: u32 = 4;

static MODE: AtomicU32 = AtomicU32::new(UNKNOWN);
/// Which image of the recording process this is.
static IMAGE: AtomicU32 = AtomicU32::new(0);
static OWNER: AtomicU32 = AtomicU32::new(0);
static KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// Values of the byte behind [`fast_path`].
pub const FAST_OFF: u8 = 0;
pub const FAST_TSC: u8 = 1;
pub const FAST_CLOCK: u8 = 2;

static NOT_ATTACHED: AtomicU8 = AtomicU8::new(FAST_OFF);
static FAST: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::from_ref(&NOT_ATTACHED).cast_mut());

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

/// What the hot path may do: a byte on a page that the kernel zeroes in a forked child, so that
/// the child notices before it writes into its parent's chunk.
#[inline(always)]
pub fn fast_path() -> u8 {
    // SAFETY: points to a static or to a page that is never unmapped.
    unsafe { (*FAST.load(Ordering::Relaxed)).load(Ordering::Relaxed) }
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

/// This process's image number.
pub fn image() -> u32 {
    IMAGE.load(Ordering::Relaxed)
}

/// Stops recording in this process; later events are counted as lost.
pub fn stop() {
    if MODE
        .compare_exchange(RECORDING, STOPPED, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
    {
        set_fast(FAST_OFF);
    }
}

/// Decides once whether this process records, and maps the session if so.
pub fn attach() {
    if mode() != UNKNOWN {
        return;
    }
    // A handler that allocates must not find its own thread attaching.
    let mask = sys::block_signals();
    match MODE.compare_exchange(UNKNOWN, ATTACHING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => MODE.store(
            if try_attach() { RECORDING } else { OFF },
            Ordering::Release,
        ),
        Err(_) => {
            while mode() == ATTACHING {
                core::hint::spin_loop();
            }
        }
    }
    sys::restore_signals(mask);
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
    let Some(image) = mapping.pool().claim(pid) else {
        mapping.pool().count_child(pid);
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
    IMAGE.store(image, Ordering::Relaxed);
    OWNER.store(pid, Ordering::Relaxed);
    let fast = match mapping.pool().clock() {
        Clock::Tsc => FAST_TSC,
        Clock::Monotonic => FAST_CLOCK,
    };
    // SAFETY: this thread alone attaches (MODE is ATTACHING) and nobody reads it yet.
    unsafe { *ATTACHED.0.get() = Some(mapping) };
    FAST.store(page.cast::<AtomicU8>(), Ordering::Release);
    set_fast(fast);
    true
}

fn set_fast(value: u8) {
    // SAFETY: as in `fast_path`.
    unsafe { (*FAST.load(Ordering::Acquire)).store(value, Ordering::Relaxed) };
}

/// Asks for [`thread::end_from_key`] at the end of the calling thread.
pub fn arm_thread_end() {
    let key = KEY.load(Ordering::Relaxed);
    if key != u32::MAX {
        // SAFETY: the key exists; the value only has to be non-null.
        unsafe { libc::pthread_setspecific(key, ptr::dangling::<c_void>()) };
    }
}

/// Whether the calling process is a fork of the one that records; if so recording is off in it
/// from now on, and it is counted.
pub fn left_by_fork() -> bool {
    let pid = sys::getpid();
    if pid == OWNER.load(Ordering::Relaxed) {
        return false;
    }
    if let Some(pool) = pool() {
        pool.count_child(pid);
    }
    MODE.store(OFF, Ordering::Release);
    set_fast(FAST_OFF);
    tls::state().cursor.store(0, Ordering::Relaxed);
    true
}

extern "C" fn after_fork_in_child() {
    if mode() == RECORDING || mode() == STOPPED {
        left_by_fork();
    }
}

/// Lets a forked child stop at once rather than at its first event.
pub fn register_fork_handler() {
    // SAFETY: the handler is a C function that only uses system calls and atomics.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork_in_child)) };
}

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
