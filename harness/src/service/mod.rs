//! Programs that are servers: waited for until they answer, put under a load, and stopped. Used wherever a program is run
//! (`run`, `record`, `validate`, `profile`, the gate), so that a server means the same everywhere.
//!
//! The server is known by its process number only: it may be a child of ours or of the launcher. It is held by a pidfd, so
//! that no signal ever reaches another process that got the same number.

mod leftovers;
pub mod metric;
mod ready;
mod signal;
mod watch;

use crate::exec::{RunFailure, collect, descendants, signal_name, tail};
use rustix::process::Signal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

pub(crate) use leftovers::Leftovers;
pub use metric::OwnMetric;
pub use ready::Ready;
pub use signal::StopSignal;
pub use watch::Server;
use watch::{Event, wait};

/// Time that a server has to end after the stop signal, before it is killed and its run is a failure.
const GRACE: Duration = Duration::from_secs(10);
/// What a load has left to say after the server ended under it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a server is waited for, loaded and stopped.
#[derive(Clone, Debug)]
pub struct Service {
    /// When it is ready; at once where this is absent.
    pub ready: Option<Ready>,
    /// Time that it has for that.
    pub ready_within: Duration,
    /// Command for the shell that puts it to work; its output is where own metrics are read from.
    pub load: Option<String>,
    /// Time from ready to the stop signal; a load that still runs then is ended, which is no failure.
    pub duration: Option<Duration>,
    /// Signal that asks it to end.
    pub stop: StopSignal,
}

/// A server's life, as far as it went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// From the start of the wait to ready, nanoseconds; absent without `--until-ready`.
    pub ready_ns: Option<u64>,
    /// Of the load, nanoseconds; absent without a load and for one that was cut off by the duration.
    pub load_ns: Option<u64>,
    /// What the load printed, standard output before standard error.
    pub output: String,
    /// It ended by itself before the stop signal was sent (a load may have asked it to).
    pub ended_early: bool,
}

/// The first process was gone before the server was ready, whether that was noticed at its start or in the wait for it.
pub(crate) fn ended_early() -> RunFailure {
    RunFailure::new("the program ended before it was ready; a server must stay in the foreground")
}

impl Service {
    /// Checks what must hold before the server starts: a port that another process answers already would make a server
    /// look ready that is not even there.
    ///
    /// # Errors
    /// The reason for a failed run.
    pub fn before_start(&self) -> Result<(), RunFailure> {
        match &self.ready {
            Some(ready) => ready.must_be_free(),
            None => Ok(()),
        }
    }

    /// Goes with a server from its start to its end. `before_stop` is called when the load is over, while the server still
    /// runs. On failure the server is killed with all that it has started.
    ///
    /// # Errors
    /// The reason for a failed run: never ready, ended too early, a load that failed, a signal that was ignored.
    pub fn attend(
        &self,
        server: &Server,
        cancelled: &dyn Fn() -> bool,
        before_stop: &mut dyn FnMut(),
    ) -> Result<Served, RunFailure> {
        let served = self.serve(server, cancelled, before_stop);
        if served.is_err() {
            let workers = descendants::below(server.number());
            // Before its workers, which it would start anew.
            server.send(Signal::KILL);
            descendants::send(&workers, Signal::KILL);
        }
        served
    }

    fn serve(
        &self,
        server: &Server,
        cancelled: &dyn Fn() -> bool,
        before_stop: &mut dyn FnMut(),
    ) -> Result<Served, RunFailure> {
        let mut served = Served::default();
        if let Some(ready) = &self.ready {
            served.ready_ns = Some(ready.wait(server, self.ready_within, cancelled)?);
        }
        let deadline = self.duration.map(|duration| Instant::now() + duration);
        match &self.load {
            Some(load) => self.put_load(load, server, deadline, cancelled, &mut served)?,
            None => {
                // Without a duration, to be ready is all that was asked for.
                let until = deadline.unwrap_or_else(Instant::now);
                if wait(&[server], Some(until), cancelled)? == Event::Ended(0) {
                    return Err(RunFailure::new(format!(
                        "the program ended by itself before {}; without --duration a program may take its time",
                        shown(self.duration.unwrap_or_default())
                    )));
                }
            }
        }
        if served.ended_early {
            return Ok(served);
        }
        before_stop();
        if !server.send(self.stop.signal()) {
            served.ended_early = true;
            return Ok(served);
        }
        match wait(&[server], Some(Instant::now() + GRACE), cancelled)? {
            Event::Ended(_) => Ok(served),
            Event::Time => Err(RunFailure::new(format!(
                "the program did not end within {} of {} and was killed; name the signal it ends by with --stop-signal",
                shown(GRACE),
                self.stop
            ))),
        }
    }

    fn put_load(
        &self,
        load: &str,
        server: &Server,
        deadline: Option<Instant>,
        cancelled: &dyn Fn() -> bool,
        served: &mut Served,
    ) -> Result<(), RunFailure> {
        let began = Instant::now();
        let mut running = Load::start(load, server)?;
        let handle = running.handle()?;
        let mut event = wait(&[&handle, server], deadline, cancelled)?;
        if event == Event::Ended(1) {
            // The load may have asked it to end and is about to end itself.
            served.ended_early = true;
            event = wait(&[&handle], Some(Instant::now() + LAST_WORDS), cancelled)?;
            if event == Event::Time {
                return Err(RunFailure::new(
                    "the program ended while the load was running; run both by hand to see what it says",
                ));
            }
        }
        let cut = event == Event::Time;
        if !cut {
            served.load_ns = Some(began.elapsed().as_nanos() as u64);
        }
        let (status, output) = running.end(cut);
        served.output = output;
        if cut || status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let how = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => format!("ended with exit status {code}"),
            Some((None, Some(signal))) => format!("was killed by {}", signal_name(signal)),
            _ => "could not be waited for".into(),
        };
        let why = match tail(&served.output) {
            said if said.is_empty() => String::new(),
            said => format!("; its last words: {said}"),
        };
        let gone = if served.ended_early {
            "the program ended under the load, and "
        } else {
            ""
        };
        Err(RunFailure::new(format!("{gone}the load {how}{why}")))
    }
}

/// The load while it runs, in a process group of its own; killed with all its children when dropped.
struct Load {
    child: Child,
    stdout: Option<Receiver<Vec<u8>>>,
    stderr: Option<Receiver<Vec<u8>>>,
}

impl Load {
    fn start(load: &str, server: &Server) -> Result<Self, RunFailure> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", load])
            .env("HEAPLAB_SERVER_PID", server.number().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| RunFailure::new(format!("the load cannot be started: {error}")))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Ok(Self {
            child,
            stdout,
            stderr,
        })
    }

    fn handle(&self) -> Result<Server, RunFailure> {
        Server::open(self.child.id())
    }

    /// Its status and output; `cut`: it is ended first.
    fn end(&mut self, cut: bool) -> (Option<ExitStatus>, String) {
        if cut {
            crate::exec::kill_group(&self.child);
        }
        let status = self.child.wait().ok();
        // Whatever it has left behind holds the pipes open.
        crate::exec::kill_group(&self.child);
        let mut text = String::new();
        for stream in [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
        {
            let bytes = stream.recv_timeout(LAST_WORDS).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&bytes));
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        (status, text)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            crate::exec::kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// A duration in the words of the options: `10s`, `250ms`.
pub(crate) fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests;
