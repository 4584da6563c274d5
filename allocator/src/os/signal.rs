//! Explaining a memory fault before the process dies of it.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Prints a line about a fault at an address if it knows one; true: it did.
pub type Explain = fn(usize) -> bool;

static EXPLAIN: AtomicUsize = AtomicUsize::new(0);

/// Has `explain` called on faults, unless the program has a handler of its own. The process dies of the
/// fault afterwards, as it would without.
#[cold]
#[inline(never)]
pub fn explain_faults(explain: Explain) {
    EXPLAIN.store(explain as usize, Relaxed);
    // SAFETY: an all-zero sigaction is the default action.
    unsafe {
        let mut old: libc::sigaction = core::mem::zeroed();
        if libc::sigaction(libc::SIGSEGV, core::ptr::null(), &raw mut old) != 0
            || old.sa_sigaction != libc::SIG_DFL
        {
            return;
        }
        let mut new: libc::sigaction = core::mem::zeroed();
        new.sa_sigaction = handler as *const () as usize;
        // Once: the instruction runs again afterwards and faults by the default action.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGSEGV, &raw const new, core::ptr::null_mut());
    }
}

extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let explain = EXPLAIN.load(Relaxed);
    if explain != 0 {
        // SAFETY: only functions of this type are stored; the kernel passes valid information.
        unsafe {
            let explain = core::mem::transmute::<usize, Explain>(explain);
            explain((*info).si_addr() as usize);
        }
    }
}

/// Has `handler` called on a signal, unless the program has a handler of its own.
#[cold]
#[inline(never)]
pub fn handle_signal(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: an all-zero sigaction is the default action; a number that is no signal is refused.
    unsafe {
        let mut old: libc::sigaction = core::mem::zeroed();
        if libc::sigaction(signal, core::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_DFL
        {
            let mut new: libc::sigaction = core::mem::zeroed();
            new.sa_sigaction = handler as *const () as usize;
            new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(signal, &raw const new, core::ptr::null_mut());
        }
    }
}
