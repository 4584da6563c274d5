//! The way out: one line of JSON on standard output, and no return after a failure.

use heaplab_worker::protocol::Answer;
use std::sync::atomic::{AtomicBool, Ordering};

static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Ends the process with a failed answer. Any thread may call it; only the first answer is printed.
#[cold]
pub fn with(reason: String) -> ! {
    answer(&Answer::Failed { reason });
    // SAFETY: ends the process at once; exit handlers of a broken subject must not run.
    unsafe { libc::_exit(1) }
}

/// Prints the answer, once.
pub fn answer(answer: &Answer) {
    if ANSWERED.swap(true, Ordering::AcqRel) {
        loop {
            // SAFETY: waits for the thread that answered first to end the process.
            unsafe { libc::pause() };
        }
    }
    match serde_json::to_string(answer) {
        Ok(line) => print(&format!("{line}\n")),
        Err(error) => print(&format!(
            "{{\"status\":\"failed\",\"reason\":\"no answer: {error}\"}}\n"
        )),
    }
}

/// Writes text to standard output without a buffer.
pub fn print(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the buffer is valid for its length.
        let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        if written <= 0 {
            return;
        }
        rest = &rest[written as usize..];
    }
}
