//! Ctrl-C: the first one asks for an orderly end, the second one kills.
//!
//! The flag is polled between runs. The worker that runs at that moment is in the same process group and is ended by
//! the terminal's signal itself; its run is then not counted as a failure of the subject.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the handlers for SIGINT and SIGTERM, before the first long work; later calls do nothing. A second signal ends the
/// process at once with status 130 (the conditional shutdown is registered first, so it sees the flag of the signal before; one
/// that was registered again would see the flag of the first).
pub fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Registration fails only for signals that cannot be caught; these two can.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag));
        let _ = signal_hook::flag::register(signal, Arc::clone(flag));
    }
}

/// A file that may not grow (`ulimit -f`) is an error of writing, not the end of this process. The signal is caught rather
/// than ignored: a program that is started would inherit that.
pub fn survive_file_limits() {
    // Registration fails only for signals that cannot be caught; this one can.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

/// Whether an orderly end was asked for.
pub fn requested() -> bool {
    FLAG.get().is_some_and(|f| f.load(Ordering::Relaxed))
}

/// The flag itself, for parts that poll it on their own (recording, long waits).
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(FLAG.get_or_init(|| Arc::new(AtomicBool::new(false))))
}
