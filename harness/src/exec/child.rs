//! A child process under watch: its output collected, a time limit and a cancel flag, its whole group killed and reaped.

use super::{Limits, RunFailure, descendants};
use rustix::process::Signal;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Output kept of each stream; a program may say more, which is thrown away from the front.
const KEPT: usize = 4 << 20;
/// How often the cancel flag is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// By itself.
    Exited {
        /// Exit status.
        code: Option<i32>,
        /// Signal that ended it.
        signal: Option<i32>,
    },
    /// Killed at the time limit.
    TimedOut(Duration),
    /// Killed because of the cancel flag.
    Cancelled,
}

/// A child that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub watched: Watched,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ended {
    /// Exit status 0.
    pub fn success(&self) -> bool {
        self.watched
            == Watched::Exited {
                code: Some(0),
                signal: None,
            }
    }
}

/// Starts a command in a process group of its own and waits for its end.
pub(crate) fn run_child(mut command: Command, limits: &Limits) -> Result<Ended, RunFailure> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|error| {
        RunFailure::new(format!(
            "{} cannot be started: {error}",
            command.get_program().display()
        ))
    })?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let watched = watch(&mut child, stdout.as_ref(), limits);
    // Whatever the child has left behind holds the pipes open.
    kill_group(&child);
    let text = |stream: Option<Receiver<Vec<u8>>>| {
        let bytes = stream.and_then(|stream| stream.recv_timeout(Duration::from_secs(5)).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    // The watch has put back what it received.
    Ok(Ended {
        watched: watched.0,
        stdout: watched.1.unwrap_or_else(|| text(stdout)),
        stderr: text(stderr),
    })
}

/// Waits until standard output is closed, then for the end; kills at the limit or when cancelled.
fn watch(
    child: &mut Child,
    stdout: Option<&Receiver<Vec<u8>>>,
    limits: &Limits,
) -> (Watched, Option<String>) {
    let start = Instant::now();
    let mut said = None;
    loop {
        let cancelled = limits
            .cancel
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed));
        if cancelled || start.elapsed() >= limits.timeout {
            // A server may have put itself or its workers into a session of their own.
            let left = descendants::below(child.id());
            kill_group(child);
            descendants::send(&left, Signal::KILL);
            let _ = child.wait();
            let how = if cancelled {
                Watched::Cancelled
            } else {
                Watched::TimedOut(limits.timeout)
            };
            return (how, said);
        }
        // A worker that has closed its output is about to end: then short naps, else sleep on the pipe.
        match stdout.filter(|_| said.is_none()) {
            Some(stdout) => match stdout.recv_timeout(GLANCE) {
                Ok(bytes) => said = Some(String::from_utf8_lossy(&bytes).into_owned()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => said = Some(String::new()),
            },
            None => std::thread::sleep(Duration::from_millis(1)),
        }
        match child.try_wait() {
            Ok(Some(status)) => {
                return (
                    Watched::Exited {
                        code: status.code(),
                        signal: status.signal(),
                    },
                    said,
                );
            }
            Ok(None) => {}
            Err(_) => {
                return (
                    Watched::Exited {
                        code: None,
                        signal: None,
                    },
                    said,
                );
            }
        }
    }
}

/// Reads a stream to its end in a thread of its own, so that the child never waits for us.
pub(crate) fn collect(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut kept, mut part) = (Vec::new(), [0; 16 << 10]);
        while let Ok(count) = stream.read(&mut part)
            && count > 0
        {
            kept.extend_from_slice(&part[..count]);
            if kept.len() > 2 * KEPT {
                kept.drain(..kept.len() - KEPT);
            }
        }
        // The receiver may have given up on us.
        let _ = sender.send(kept);
    });
    receiver
}

/// Kills what is left of a child's process group.
pub(crate) fn kill_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // Fails when nobody is left, which is what we want.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// The last line that says something, cut to a length that fits a row.
pub(crate) fn tail(text: &str) -> String {
    // A progress that is written over itself stands in one line.
    let line = text
        .split(['\n', '\r'])
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    line.chars().take(200).collect()
}

/// A signal as people know it: `SIGSEGV (invalid memory access)`.
pub fn signal_name(signal: i32) -> String {
    let (name, meaning) = match signal {
        1 => ("SIGHUP", "hang-up"),
        2 => ("SIGINT", "interrupt"),
        3 => ("SIGQUIT", "quit"),
        4 => ("SIGILL", "invalid instruction"),
        5 => ("SIGTRAP", "trap"),
        6 => ("SIGABRT", "abort"),
        7 => ("SIGBUS", "invalid memory access"),
        8 => ("SIGFPE", "arithmetic error"),
        9 => ("SIGKILL", "killed, perhaps for using too much memory"),
        11 => ("SIGSEGV", "invalid memory access"),
        13 => ("SIGPIPE", "closed pipe"),
        15 => ("SIGTERM", "termination"),
        24 => ("SIGXCPU", "CPU time limit"),
        31 => ("SIGSYS", "forbidden system call"),
        other => return format!("signal {other}"),
    };
    format!("{name} ({meaning})")
}
