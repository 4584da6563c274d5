//! Signals while the program runs: they end the program, not the recording.

use super::failure::ours;
use crate::error::{Error, reason_of};
use heaplab_workloads::record::Switch;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(super) struct Signals {
    seen: Vec<(Signal, Arc<AtomicBool>)>,
    /// The next signal ends this process.
    over: Arc<AtomicBool>,
    /// SIGUSR1 and SIGUSR2: record, pause.
    resume: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn install() -> Self {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        let over = Arc::new(AtomicBool::new(false));
        let pairs = [
            (SIGINT, Signal::INT),
            (SIGQUIT, Signal::QUIT),
            (SIGTERM, Signal::TERM),
            (SIGHUP, Signal::HUP),
        ];
        let seen = pairs
            .into_iter()
            .map(|(number, signal)| {
                let flag = Arc::new(AtomicBool::new(false));
                // Registration fails only for signals that cannot be caught; these can.
                let _ = signal_hook::flag::register_conditional_shutdown(
                    number,
                    128 + number,
                    Arc::clone(&over),
                );
                let _ = signal_hook::flag::register(number, Arc::clone(&flag));
                (signal, flag)
            })
            .collect();
        let on = |number| {
            let flag = Arc::new(AtomicBool::new(false));
            // As above.
            let _ = signal_hook::flag::register(number, Arc::clone(&flag));
            flag
        };
        Self {
            seen,
            over,
            resume: on(signal_hook::consts::SIGUSR1),
            pause: on(signal_hook::consts::SIGUSR2),
        }
    }

    /// Turns the recording on or off as asked.
    pub(super) fn turn(&self, switch: &Switch) {
        if self.pause.swap(false, Ordering::Relaxed) {
            switch.set_paused(true);
        }
        if self.resume.swap(false, Ordering::Relaxed) {
            switch.set_paused(false);
        }
    }

    /// The signal that asked this process to end, after the program has.
    pub(super) fn asked_to_end(&self) -> Option<Signal> {
        self.seen
            .iter()
            .find(|(_, flag)| flag.swap(false, Ordering::Relaxed))
            .map(|(signal, _)| *signal)
    }

    /// Sends the program what only this process got. What the terminal's keys send reaches the program by itself, as both
    /// are in the terminal's foreground; a second copy would be one interruption too many.
    pub(super) fn pass_on(&self, child: &Child) {
        for (signal, flag) in &self.seen {
            if !flag.swap(false, Ordering::Relaxed) {
                continue;
            }
            let from_keys = [Signal::INT, Signal::QUIT].contains(signal) && in_foreground();
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let (false, Some(pid)) = (from_keys, pid) {
                // The program may be gone already.
                let _ = kill_process(pid, *signal);
            }
        }
    }

    pub(super) fn wait(&self, child: &mut Child) -> Result<ExitStatus, Error> {
        loop {
            self.pass_on(child);
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    return Err(ours(format!(
                        "the program cannot be waited for: {}",
                        reason_of(&error)
                    )));
                }
            }
        }
    }

    /// What was sent until now was for the program. From now on the first signal asks this process to end, and the second one
    /// ends it.
    pub(super) fn program_has_ended(&self) {
        for (signal, flag) in &self.seen {
            flag.store(false, Ordering::Relaxed);
            // Runs behind the shutdown on `over`, which therefore sees what the signal before has left. As above.
            let _ = signal_hook::flag::register(signal.as_raw(), Arc::clone(&self.over));
        }
    }
}

/// Whether this process is in the foreground group of a terminal: fields 5 and 8 of its `stat`.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let (group, foreground) = (fields.nth(2), fields.nth(2));
    group.is_some() && group == foreground
}
