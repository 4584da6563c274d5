//! Recording a program from its start to a finished trace: the session, the raw file beside the output, the program with
//! its signals, the resolved trace.
//!
//! The program is run as it is: its own standard channels, its own process group, so that Ctrl-C reaches it as it always
//! does. This process only survives the signal, moves the records and finishes the file.

mod asked;
mod attendant;
pub mod cause;
mod cost;
mod failure;
mod file;
mod library;
mod place;
mod recorded;
mod signals;

pub use asked::{asked, recorded_under};
pub use cost::{calibration, told as told_cost};
pub use place::{default_out, part_of};
pub use recorded::Recorded;

use crate::disturbance::HeldUp;
use crate::error::{Error, reason_of};
use crate::out::Terminal;
use crate::service::{OwnMetric, Service, metric};
use crate::tools;
use attendant::{Attendant, attend};
use failure::{failed, ours, stopped, uncreated, unwritable};
use heaplab_reports::profile::Measured;
use heaplab_workloads::record::{DrainSummary, RecordError, Session, SessionOptions, StackMode};
use heaplab_workloads::trace::raw::RawWriter;
use signals::Signals;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Processes that go on for longer than this after the program are worth a word.
const SHOW_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at what a server has left behind.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What to record and where to.
pub struct Recording<'a> {
    /// Program and arguments.
    pub command: &'a [OsString],
    /// The finished trace.
    pub out: PathBuf,
    /// Store addresses.
    pub keep_addresses: bool,
    /// What the session takes; where it falls back to is chosen here.
    pub session: SessionOptions,
    /// Take the program's standard channels away (`validate`, where it runs many times).
    pub silent: bool,
    /// How it is waited for, loaded and stopped; `None`: it ends by itself.
    pub service: Option<Service>,
    /// Metrics read from what the load prints.
    pub metrics: &'a [OwnMetric],
    /// A library to put in place of the program's allocator while it is recorded; `None`: as it is.
    pub allocator: Option<PathBuf>,
    /// Variables of the program's environment that this allocator is set by.
    pub settings: Vec<(String, String)>,
}

impl Recording<'_> {
    /// Runs the program and writes the trace.
    ///
    /// # Errors
    /// [`Error::Launch`]: 127 and 126 for a program that is not there or not executable, 125 for everything of ours.
    pub fn run(&self, terminal: &Terminal) -> Result<Recorded, Error> {
        let program = tools::find_program(&self.command[0])?;
        self.check_out()?;
        let inspected = cause::inspect(&program);
        if let Some(service) = &self.service {
            service.before_start().map_err(|e| ours(e.reason))?;
        }
        let recorder = library::recorder(self.session.stacks)?;
        let mut session = self.session()?;
        let part = part_of(&self.out);
        let mut raw = RawWriter::create(&part, &self.header(&inspected))
            .map_err(|error| uncreated(error, &self.out))?;
        if self.session.stacks != StackMode::Off {
            raw.stack_mode(self.session.stacks).map_err(unwritable)?;
        }
        let cpu_before = children_cpu_ns();
        let signals = Signals::install();
        if self.session.paused && !self.silent {
            let own = std::process::id();
            terminal.say(&format!(
                "recording is paused; `kill -USR1 {own}` starts it, `kill -USR2 {own}` pauses it again"
            ));
        }
        let mut child = self
            .start(
                &program,
                session.environment_before(&recorder, &self.preloaded()),
            )
            .inspect_err(|_| {
                let _ = std::fs::remove_file(&part);
            })?;
        let mut attendant = self
            .service
            .clone()
            .map(|service| attend(service, child.id()));
        let mut held_up = HeldUp::of(child.id());
        let mut beside = Beside {
            held_up: &mut held_up,
            attendant: &mut attendant,
            signals: &signals,
        };
        let (status, drained) =
            self.drain(&mut session, &mut child, &mut beside, terminal, &mut raw)?;
        signals.program_has_ended();
        if let Some(attendant) = &mut attendant {
            // Those that were not recorded, or not to the end.
            clear_up(attendant, &session, &signals);
            if attendant.left_behind() > 0 && !self.silent {
                terminal.say(&format!(
                    "! when the first process had ended, {} others of the program went on and were stopped; a script that starts a \
                     server should replace itself by it (exec)",
                    attendant.left_behind()
                ));
            }
        }
        let cpu_ns =
            (children_cpu_ns().zip(cpu_before)).map(|(after, before)| after.saturating_sub(before));
        let served = attendant.map(Attendant::end);
        // Without a load nothing was printed to read from, as `MetricArgs::of_load` has seen to.
        let measured: Result<Vec<Measured>, String> = match &served {
            Some(Ok(served)) => (self.metrics.iter())
                .map(|metric| metric.measured(&served.output))
                .collect(),
            _ => Ok(Vec::new()),
        };
        let notes: Vec<String> = measured.iter().flatten().map(metric::note).collect();
        let finished = drained
            .map_err(|error| stopped(error, &part))
            .and_then(|drained| {
                let ended = Ended {
                    status,
                    cpu_ns,
                    drained,
                    signals,
                    notes,
                };
                self.finish(terminal, &inspected, &ended, raw, &part)
            });
        let mut recorded = match finished {
            Ok(recorded) => recorded,
            // The program has run: how it ended is told, too.
            Err(Error::Launch { message, .. }) => Recorded::without_trace(status, message),
            Err(other) => return Err(other),
        };
        recorded.held_up = held_up.share();
        if let (Some(service), Some(served)) = (&self.service, served) {
            let orderly = service.stop.is_orderly(status.code(), status.signal());
            recorded.stopped = served.is_ok() && orderly;
            let measured = measured.map(|measured| recorded.measured = measured);
            recorded.trouble = served.err().or(measured.err());
        }
        Ok(recorded)
    }

    /// Whether the trace can be written, which is to be known before the program runs.
    fn check_out(&self) -> Result<(), Error> {
        if self.out.is_dir() {
            return Err(ours(format!(
                "'{}' is a folder; name the trace to write, such as {}",
                self.out.display(),
                self.out.join("program.hltrace").display()
            )));
        }
        heaplab_workloads::trace::replaceable(&self.out)
            .map_err(|error| ours(Error::io("write", &self.out, &error).to_string()))
    }

    fn session(&self) -> Result<Session, Error> {
        let options = SessionOptions {
            fallback_dir: self.out.parent().map(|folder| match folder {
                empty if empty.as_os_str().is_empty() => PathBuf::from("."),
                folder => folder.to_path_buf(),
            }),
            ..self.session.clone()
        };
        Session::create(&options).map_err(failed)
    }

    /// What is loaded behind the recorder: the allocator in place of the program's, then the user's own LD_PRELOAD.
    fn preloaded(&self) -> OsString {
        let user = std::env::var_os("LD_PRELOAD").filter(|list| !list.is_empty());
        let mut list = OsString::new();
        for part in self
            .allocator
            .iter()
            .map(|path| path.as_os_str())
            .chain(user.as_deref())
        {
            if !list.is_empty() {
                list.push(":");
            }
            list.push(part);
        }
        list
    }

    fn start(
        &self,
        program: &Path,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Child, Error> {
        let mut command = Command::new(program);
        command
            .arg0(&self.command[0])
            .args(&self.command[1..])
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(environment);
        if self.silent {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        }
        command.spawn().map_err(|error| Error::Launch {
            code: 126,
            message: format!(
                "program '{}' cannot be started: {}; name its interpreter, or check its permissions",
                self.command[0].to_string_lossy(),
                reason_of(&error)
            ),
        })
    }

    /// Moves the records until the program and what it started have ended; how the program ended, and what became of the
    /// records.
    fn drain(
        &self,
        session: &mut Session,
        child: &mut Child,
        beside: &mut Beside<'_>,
        terminal: &Terminal,
        raw: &mut RawWriter,
    ) -> Result<(ExitStatus, Result<DrainSummary, RecordError>), Error> {
        let Beside {
            held_up,
            attendant,
            signals,
        } = beside;
        let switch = session.switch();
        let mut status = None;
        let (mut since, mut told) = (None, false);
        let drained = session.drain_tree(
            || {
                signals.turn(&switch);
                if status.is_some() {
                    return false;
                }
                signals.pass_on(child);
                held_up.look();
                match child.try_wait() {
                    Ok(None) => true,
                    Ok(Some(ended)) => {
                        status = Some(ended);
                        false
                    }
                    Err(_) => false,
                }
            },
            |others| {
                // Those that are only a little slower to end are not worth a word.
                let waited = since.get_or_insert_with(Instant::now).elapsed();
                if let Some(attendant) = attendant.as_mut() {
                    attendant.end_what_is_left(others);
                } else if !told && !self.silent && waited >= SHOW_AFTER {
                    told = true;
                    let others = others.len();
                    terminal.say(&format!(
                        "the program has ended and {others} of its processes {} on, which {} recorded to the end; Ctrl-C ends \
                         the recording now",
                        if others == 1 { "goes" } else { "go" },
                        if others == 1 { "is" } else { "are" },
                    ));
                }
                signals.asked_to_end().is_none()
            },
            raw,
        );
        // After an error in writing the program goes on without being recorded; its end is waited for all the same.
        let status = match status {
            Some(status) => status,
            None => signals.wait(child)?,
        };
        Ok((status, drained))
    }
}

/// What goes on beside the moving of records.
struct Beside<'a> {
    held_up: &'a mut HeldUp,
    attendant: &'a mut Option<Attendant>,
    signals: &'a Signals,
}

/// Ends what a server has left behind; a signal to this process ends the wait for it.
fn clear_up(attendant: &mut Attendant, session: &Session, signals: &Signals) {
    while signals.asked_to_end().is_none() {
        let left = session.members();
        if left.is_empty() {
            break;
        }
        attendant.end_what_is_left(&left);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A program that has ended.
struct Ended {
    status: ExitStatus,
    /// CPU time that it and what it waited for have taken.
    cpu_ns: Option<u64>,
    drained: DrainSummary,
    signals: Signals,
    /// Remarks for the trace.
    notes: Vec<String>,
}

/// CPU time of all children that were waited for: fields 16 and 17 of `stat`, in ticks.
fn children_cpu_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}
