//! The process as a member of the session: joining, following forks, and what it says of itself.

use core::sync::atomic::Ordering;

use heaplab_ring::record::CLONED;
use heaplab_ring::{Kind, sys};

use crate::large::table;
use crate::{chunks, session, tls};

/// Bytes of text in which a process says who it is, and what of them its file may take.
const ABOUT_BYTES: usize = 1024;
const PROGRAM_BYTES: usize = 220;

/// Decides once whether this process records, and says who it is if so.
pub fn attach() {
    if session::attach(chunks::end_from_key) {
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
    record_with_text(
        &text[..used],
        Kind::ProcessStart,
        0,
        sys::getppid() as usize,
    );
}

/// Records what is said about the process rather than its heap: also while events are left out.
#[cold]
pub fn record_always(kind: Kind, address: usize, size: usize) {
    record_with_text(&[], kind, address, size);
}

/// As [`record_always`], with text before it.
#[cold]
pub fn record_with_text(text: &[u8], kind: Kind, address: usize, size: usize) {
    if session::mode() == session::UNKNOWN {
        attach();
    }
    if session::mode() != session::RECORDING {
        return;
    }
    let Some(pool) = session::pool() else { return };
    if session::gate().is_none() && !is_recording() {
        return;
    }
    chunks::write_with_text(&pool, text, (kind, address, size, 0));
}

/// Where the door is closed: a forked child that joins now records, one that must not, or a stopped session, does not.
pub fn is_recording() -> bool {
    if session::mode() == session::RECORDING {
        left_by_fork();
    }
    session::gate().is_some()
}

/// Whether the calling process is a fork of the one that joined; if so it has joined itself from now on, unless only the
/// first process records.
fn left_by_fork() -> bool {
    let pid = sys::getpid();
    let Some(pool) = session::pool() else {
        return false;
    };
    let parent_pid = session::pid();
    if pid == parent_pid {
        return false;
    }
    // A handler that allocates must find all of it done.
    let mask = sys::block_signals();
    let state = tls::state();
    let parent = session::process();
    let (number, cloned) = match state.child.load(Ordering::Relaxed) {
        // A bare clone: nobody took a number for it.
        0 => (pool.next_process(), CLONED),
        number => (number, 0),
    };
    state.forget();
    let joins = !pool.is_first_only();
    if joins {
        table::forget();
        session::continue_as(number, pid);
    } else {
        pool.count_refused();
        session::leave(pid);
    }
    sys::restore_signals(mask);
    if joins {
        let parent_pid = parent_pid as usize | cloned;
        record_always(Kind::ProcessStart, parent as usize, parent_pid);
    }
    true
}

extern "C" fn before_fork() {
    if session::mode() == session::RECORDING
        && let Some(pool) = session::pool()
        && !pool.is_first_only()
    {
        let number = pool.next_process();
        tls::state().child.store(number, Ordering::Relaxed);
        record_always(Kind::Fork, number as usize, 0);
    }
}

extern "C" fn after_fork_in_parent() {
    tls::state().child.store(0, Ordering::Relaxed);
}

extern "C" fn after_fork_in_child() {
    if matches!(session::mode(), session::RECORDING | session::STOPPED) {
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
