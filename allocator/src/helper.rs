//! Somebody who gives memory back while the program does nothing.
//!
//! Decay works on the program's own calls; a program that frees much and then waits makes none. When
//! there is much to give back ([`crate::scavenger::HELPER_BYTES`]) a slow path starts a bare thread
//! that looks every `decay_ms`, releases what has been at rest since its last look, and ends when two
//! looks in a row gave nothing back and left little for later, unless somebody has asked meanwhile: an idle process
//! has no extra thread, and a small one never has. It runs with all signals blocked, takes locks in the common order and holds them briefly, touches no
//! thread-local storage, and does not exist in a fork child. `helper=0` turns it off.

use crate::idle::{Idle, Look};
use crate::on_duty::OnDuty;
use crate::os::{self, BareThread, Os};
use crate::partition::heaps;
use crate::process::HEAP;
use crate::scavenger::{DECAY_MS, HELPER_BYTES, HELPER_NS};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The setting `helper`.
pub static ENABLED: AtomicU32 = AtomicU32::new(1);
/// Times that a helper was started, and bytes that helpers gave back.
pub(crate) static STARTS: AtomicU64 = AtomicU64::new(0);
pub(crate) static RELEASED: AtomicU64 = AtomicU64::new(0);

/// The process that helpers belong to. A child of `vfork` is another one in the same memory: a helper that it started
/// would end with it, and nobody would know.
static PROCESS: AtomicUsize = AtomicUsize::new(0);

/// Whether somebody is there, and has been asked to look again.
static DUTY: OnDuty = OnDuty::new();
/// Two, because one may still be on its way out when the next is sent.
static THREADS: [BareThread; 2] = [const { BareThread::new() }; 2];
/// Before this time (ms) no helper is started, because the system refused one.
static NOT_BEFORE: AtomicU64 = AtomicU64::new(0);
/// What the helper sleeps on; nobody here wakes it.
static PILLOW: AtomicU32 = AtomicU32::new(0);

/// Looks in vain after which the helper ends.
const LOOKS: u32 = 2;
/// Windows for which no helper is started after the system refused one.
const PAUSE: u64 = 10;

/// A helper exists at this moment.
pub(crate) fn exists() -> bool {
    THREADS.iter().any(BareThread::exists)
}

/// This is the process that helpers belong to.
pub(crate) fn settle() {
    PROCESS.store(os::process_number(), Relaxed);
}

/// Only in a fork child.
pub(crate) fn forget() {
    settle();
    THREADS.iter().for_each(BareThread::forget);
    DUTY.gone();
}

/// Starts a helper if one is wanted, allowed and not there. To be called on slow paths, without locks.
#[inline]
pub(crate) fn start_if_wanted() {
    if heaps().any(|heap| heap.pages.helper_wanted()) {
        start();
    }
}

#[cold]
#[inline(never)]
fn start() {
    if PROCESS.load(Relaxed) == 0 {
        // No thread has a cache yet: the program has large blocks only.
        crate::thread::install_fork_handlers();
    }
    if PROCESS.load(Relaxed) != os::process_number() {
        return;
    }
    heaps().for_each(|heap| heap.pages.helper_answered());
    if ENABLED.load(Relaxed) == 0
        || DECAY_MS.load(Relaxed) <= 0
        || HEAP.pages.os.now_ms() < NOT_BEFORE.load(Relaxed)
        || !DUTY.ask()
    {
        return;
    }
    if THREADS.iter().any(|thread| thread.start(body)) {
        STARTS.fetch_add(1, Relaxed);
    } else {
        DUTY.gone();
        // Unless both are on their way out: then nothing was refused.
        if !exists() {
            pause();
        }
    }
}

fn pause() {
    let window = DECAY_MS.load(Relaxed).max(1) as u64;
    NOT_BEFORE.store(HEAP.pages.os.now_ms() + PAUSE * window, Relaxed);
}

/// Sleeps until a window is over by the clock by which windows are counted elsewhere: who wakes a thread may do so at any time.
fn sleep_for_a_window() {
    let end = HEAP.pages.os.now_ms() + DECAY_MS.load(Relaxed).max(10) as u64;
    loop {
        let now = HEAP.pages.os.now_ms();
        if now >= end {
            return;
        }
        os::sleep_ms(&PILLOW, end - now);
    }
}

/// What the helper does.
extern "C" fn body() {
    let mut idle = [Idle::new(), Idle::new()];
    let mut fruitless = 0;
    let mut run = 0;
    loop {
        let before = core::mem::replace(&mut run, os::thread_ns());
        HELPER_NS.fetch_add(run - before, Relaxed);
        if fruitless >= LOOKS {
            if DUTY.may_leave() {
                return;
            }
            fruitless = 0;
        }
        sleep_for_a_window();
        let mut look = Look::default();
        crate::cpu_cache::empty_idle();
        for (heap, idle) in heaps().zip(&mut idle) {
            let part = heap.release_idle(idle);
            look.given += part.given;
            look.busy += part.busy;
        }
        RELEASED.fetch_add(look.given as u64, Relaxed);
        // What is busy now may be at rest at the next look, and then nobody else is there.
        let fruitful = look.given > 0 || look.busy >= HELPER_BYTES;
        fruitless = if fruitful { 0 } else { fruitless + 1 };
    }
}
