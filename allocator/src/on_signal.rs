//! What is done on signals: statistics and profiles are written by a bare thread, because the interrupted one may
//! hold any lock. A signal that the program handles already is left alone.

use crate::os::{self, BareThread};
use crate::{dump, profile};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Work for a signal; the thread runs once at a time, and a signal that comes meanwhile is not counted.
struct Task {
    /// The setting: the signal's number, 0 for none.
    signal: &'static AtomicU32,
    thread: BareThread,
    body: extern "C" fn(),
}

static TASKS: [Task; 2] = [
    Task {
        signal: &dump::SIGNAL,
        thread: BareThread::new(),
        body: dump::on_signal,
    },
    Task {
        signal: &profile::SIGNAL,
        thread: BareThread::new(),
        body: profile::on_signal,
    },
];

extern "C" fn handler(signal: i32) {
    for task in &TASKS {
        if task.signal.load(Relaxed) as i32 == signal {
            task.thread.start(task.body);
        }
    }
}

/// Installs what the settings ask for.
pub(crate) fn install() {
    for task in &TASKS {
        let signal = task.signal.load(Relaxed);
        if signal != 0 {
            os::handle_signal(signal as i32, handler);
        }
    }
}

/// Only in a fork child.
pub(crate) fn forget() {
    TASKS.iter().for_each(|task| task.thread.forget());
}
