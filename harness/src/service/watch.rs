//! Waits for the end of processes, for a time, or for a cancel flag, whichever comes first.

use crate::exec::RunFailure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::time::{Duration, Instant};

/// How often the cancel flag is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// A process that is held by a pidfd: its number may be given to another one, the handle never means another.
#[derive(Debug)]
pub struct Server {
    number: u32,
    handle: OwnedFd,
}

impl Server {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// When it is gone already, or the kernel has no pidfd (Linux before 5.3).
    pub fn open(number: u32) -> Result<Self, RunFailure> {
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let handle = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match handle {
            Some(Ok(handle)) => Ok(Self { number, handle }),
            Some(Err(rustix::io::Errno::SRCH)) | None => Err(super::ended_early()),
            Some(Err(error)) => Err(RunFailure::new(format!(
                "the program cannot be watched: {error}"
            ))),
        }
    }

    /// Its process number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Sends a signal; false when it has ended already.
    pub fn send(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.handle, signal).is_ok()
    }
}

/// What a wait ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process at this place ended.
    Ended(usize),
    /// The time is over.
    Time,
}

/// Waits until one of `processes` has ended, until `until`, or for ever.
pub(super) fn wait(
    processes: &[&Server],
    until: Option<Instant>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Event, RunFailure> {
    loop {
        if cancelled() {
            return Err(RunFailure {
                reason: "the run was interrupted".into(),
                cancelled: true,
            });
        }
        let left = until.map_or(GLANCE, |until| {
            until.saturating_duration_since(Instant::now()).min(GLANCE)
        });
        let mut polled: Vec<PollFd<'_>> = processes
            .iter()
            .map(|process| PollFd::new(&process.handle, PollFlags::IN))
            .collect();
        let time = Timespec::try_from(left).ok();
        match poll(&mut polled, time.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                let first = polled.iter().position(|one| !one.revents().is_empty());
                if let Some(at) = first {
                    return Ok(Event::Ended(at));
                }
            }
            Err(error) => {
                return Err(RunFailure::new(format!(
                    "the program cannot be waited for: {error}"
                )));
            }
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Event::Time);
        }
    }
}
