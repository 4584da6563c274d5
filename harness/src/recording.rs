//! Recording a program from its start to a finished trace: the session, the raw file beside the output, the program with
//! its signals, the resolved trace.
//!
//! The program is run as it is: its own standard channels, its own process group, so that Ctrl-C reaches it as it always
//! does. This process only survives the signal, moves the records and finishes the file.

pub mod cause;

use crate::clock::Utc;
use crate::embed::{self, Embedded};
use crate::error::{Error, lower_first, reason_of};
use crate::exec::{Limits, RunFailure};
use crate::out::Terminal;
use crate::progress::Progress;
use crate::service::{Server, Service};
use crate::{fingerprint, tools, workload};
use cause::Inspected;
use heaplab_workloads::record::{
    self, DrainSummary, RecordError, Session, SessionOptions, StackMode, Switch,
};
use heaplab_workloads::trace::raw::RawWriter;
use heaplab_workloads::trace::{
    FinishInfo, MachineShape, ResolveOptions, TraceError, TraceHeader, TraceSummary, resolve_file,
};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Work that takes longer shows how far it is.
const SHOW_AFTER: Duration = Duration::from_secs(2);

/// Status of failures of heaplab itself, as shells and wrappers such as `env` have it.
const OURS: u8 = 125;

/// First argument of the process in which the recorder's cost is measured; no command of a user's.
const CALIBRATION: &str = "--recorder-calibration";

/// What this process prints if it was started to measure the recorder's cost.
pub fn calibration(mut arguments: impl Iterator<Item = String>) -> Option<String> {
    if arguments.nth(1)? != CALIBRATION {
        return None;
    }
    let pairs = arguments.next()?.parse().ok()?;
    Some(record::calibration_loop(pairs).to_string())
}

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
}

/// What became of it.
#[derive(Debug)]
pub struct Recorded {
    /// How the program ended.
    pub status: ExitStatus,
    /// A server that was stopped as it was asked to be; its status is no failure.
    pub stopped: bool,
    /// A server that was not served as it should: why.
    pub trouble: Option<String>,
    /// The trace's totals; `None` when nothing could be recorded and no trace was written.
    pub trace: Option<TraceSummary>,
    /// Remarks for the person at the terminal: what is missing and why.
    pub remarks: Vec<String>,
}

impl Recorded {
    /// The status that a shell would show for the program.
    pub fn code(&self) -> u8 {
        if self.stopped {
            return 0;
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        }
    }
}

/// CPU time of all children that were waited for: fields 16 and 17 of `stat`, in ticks.
fn children_cpu_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Failure of heaplab itself.
fn ours(message: impl Into<String>) -> Error {
    Error::Launch {
        code: OURS,
        message: message.into(),
    }
}

/// The file that is written while the program runs: readable by every `trace` command, should this process be killed.
pub fn part_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// `<program>.hltrace` in the working directory, with a number where a trace of that name exists.
pub fn default_out(program: &std::ffi::OsStr) -> PathBuf {
    let stem = Path::new(program)
        .file_name()
        .unwrap_or(program)
        .to_string_lossy()
        .into_owned();
    let mut out = PathBuf::from(format!("{stem}.hltrace"));
    for number in 2.. {
        if !out.exists() {
            break;
        }
        out = PathBuf::from(format!("{stem}-{number}.hltrace"));
    }
    out
}

impl Recording<'_> {
    /// Runs the program and writes the trace.
    ///
    /// # Errors
    /// [`Error::Launch`]: 127 and 126 for a program that is not there or not executable, 125 for everything of ours.
    pub fn run(&self, terminal: &Terminal) -> Result<Recorded, Error> {
        let program = tools::find_program(&self.command[0])?;
        if self.out.is_dir() {
            return Err(ours(format!(
                "'{}' is a folder; name the trace to write, such as {}",
                self.out.display(),
                self.out.join("program.hltrace").display()
            )));
        }
        let inspected = cause::inspect(&program);
        if let Some(service) = &self.service {
            service.before_start().map_err(|e| ours(e.reason))?;
        }
        // Before the program runs, not when its trace is to be put in place.
        heaplab_workloads::trace::replaceable(&self.out)
            .map_err(|error| Error::io("write", &self.out, &error))?;
        let recorder = recorder(self.session.stacks)?;
        let options = SessionOptions {
            fallback_dir: self.out.parent().map(|folder| match folder {
                empty if empty.as_os_str().is_empty() => PathBuf::from("."),
                folder => folder.to_path_buf(),
            }),
            ..self.session.clone()
        };
        let mut session = Session::create(&options).map_err(failed)?;
        let part = part_of(&self.out);
        let mut raw = RawWriter::create(&part, &self.header(&inspected)).map_err(unwritable)?;
        if self.session.stacks != StackMode::Off {
            raw.stack_mode(self.session.stacks).map_err(unwritable)?;
        }
        let mut command = Command::new(&program);
        command
            .arg0(&self.command[0])
            .args(&self.command[1..])
            .envs(session.environment(&recorder));
        if self.silent {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        }
        let cpu_before = children_cpu_ns();
        let signals = Signals::install();
        let switch = session.switch();
        if options.paused && !self.silent {
            let own = std::process::id();
            terminal.say(&format!(
                "recording is paused; `kill -USR1 {own}` starts it, `kill -USR2 {own}` pauses it again"
            ));
        }
        let mut child = command.spawn().map_err(|error| {
            let _ = std::fs::remove_file(&part);
            Error::Launch {
                code: 126,
                message: format!(
                    "program '{}' cannot be started: {}; name its interpreter, or check its permissions",
                    self.command[0].to_string_lossy(),
                    reason_of(&error)
                ),
            }
        })?;
        let attendant = self
            .service
            .clone()
            .map(|service| attend(service, child.id()));
        let mut status = None;
        let (mut since, mut told) = (None, false);
        let drained = session.drain_tree(
            || {
                signals.turn(&switch);
                if status.is_some() {
                    return false;
                }
                signals.pass_on(&child);
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
                if !told && !self.silent && waited >= SHOW_AFTER {
                    told = true;
                    terminal.say(&format!(
                        "the program has ended and {others} of its processes {} on, which {} recorded to the end; Ctrl-C ends \
                         the recording now",
                        if others == 1 { "goes" } else { "go" },
                        if others == 1 { "is" } else { "are" },
                    ));
                }
                !signals.ask_to_end()
            },
            &mut raw,
        );
        // After an error in writing the program goes on without being recorded; its end is waited for all the same.
        let status = match status {
            Some(status) => status,
            None => signals.wait(&mut child)?,
        };
        signals.over();
        let cpu_ns =
            (children_cpu_ns().zip(cpu_before)).map(|(after, before)| after.saturating_sub(before));
        let served = attendant.map(Attendant::end);
        let drained = drained.map_err(|error| stopped(error, &part))?;
        let mut recorded =
            self.finish(terminal, &inspected, (status, cpu_ns), &drained, raw, &part)?;
        if let (Some(service), Some(served)) = (&self.service, served) {
            let orderly = service.stop.is_orderly(status.code(), status.signal());
            recorded.stopped = served.is_ok() && orderly;
            recorded.trouble = served.err();
        }
        Ok(recorded)
    }

    fn header(&self, inspected: &Inspected) -> TraceHeader {
        let machine = fingerprint::read();
        let preloaded = std::env::var("LD_PRELOAD")
            .ok()
            .filter(|list| !list.is_empty());
        TraceHeader {
            created: Utc::now().rfc3339(),
            tool: format!("heaplab {}", env!("CARGO_PKG_VERSION")),
            machine: MachineShape {
                cpus: fingerprint::usable_cpus(),
                page_size: machine.page_size as u32,
                thp: machine.thp,
                kernel: machine.kernel,
                libc: machine.libc,
                cpu_model: machine.cpu,
                memory_limit: machine
                    .details
                    .get("memory_limit")
                    .and_then(|bytes| bytes.parse().ok()),
            },
            allocator: preloaded
                .or_else(|| inspected.carried.map(str::to_string))
                .or_else(|| crate::program::brought_allocator(self.command, &Limits::seconds(10)))
                .unwrap_or_else(|| "system".into()),
            argv: self
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        }
    }

    fn finish(
        &self,
        terminal: &Terminal,
        inspected: &Inspected,
        (status, cpu_ns): (ExitStatus, Option<u64>),
        drained: &DrainSummary,
        mut raw: RawWriter,
        part: &Path,
    ) -> Result<Recorded, Error> {
        let name = self.command[0].to_string_lossy();
        if let Some(why) = inspected.nothing(&name, drained) {
            let _ = std::fs::remove_file(part);
            return Ok(Recorded {
                status,
                stopped: false,
                trouble: None,
                trace: None,
                remarks: vec![why],
            });
        }
        let mut remarks = remarks(drained);
        let not_recorded = not_recorded(drained);
        remarks.extend(not_recorded.iter().cloned());
        for line in &not_recorded {
            raw.note(line).map_err(|e| stopped(e.into(), part))?;
        }
        remarks.extend(inspected.warning(&name));
        let cost = match cost() {
            Ok(cost) => Some(cost),
            Err(error) => {
                remarks.push(error.to_string());
                None
            }
        };
        if let Some(warning) = inspected.warning(&name) {
            raw.note(&warning).map_err(|e| stopped(e.into(), part))?;
        }
        raw.finish(FinishInfo {
            lost_events: drained.lost_events,
            recorder_ns_per_event: cost,
            exit_status: status.code(),
            signal: status.signal(),
            duration_ns: drained.duration_ns,
            cpu_ns,
        })
        .map_err(|e| stopped(e.into(), part))?;
        terminal.detail("the program has ended; its events are being brought into order");
        let options = ResolveOptions {
            keep_addresses: self.keep_addresses,
            ..ResolveOptions::default()
        };
        let begun = Instant::now();
        let mut progress = None;
        let trace = resolve_file(part, &self.out, &options, &mut |done, all| {
            if begun.elapsed() >= SHOW_AFTER {
                progress
                    .get_or_insert_with(|| Progress::new(terminal, all))
                    .at(done, "bringing the events into order");
            }
        })
        .map_err(|e| stopped(e.into(), part))?;
        drop(progress);
        let _ = std::fs::remove_file(part);
        Ok(Recorded {
            status,
            stopped: false,
            trouble: None,
            trace: Some(trace),
            remarks,
        })
    }
}

/// Goes with a server in a thread of its own, while the recording's thread moves the records.
struct Attendant(std::thread::JoinHandle<Result<(), RunFailure>>);

fn attend(service: Service, pid: u32) -> Attendant {
    Attendant(std::thread::spawn(move || {
        let server = Server::open(pid)?;
        service.attend(&server, &|| false, &mut || {}).map(drop)
    }))
}

impl Attendant {
    /// Waits for it, which is short after the program's end; why the server was not served as it should.
    fn end(self) -> Result<(), String> {
        match self.0.join() {
            Ok(served) => served.map_err(|failure| failure.reason),
            Err(_) => Err("the watch over the program broke off".into()),
        }
    }
}

/// The preload library, at a path that the dynamic loader can read: it takes spaces and colons for separators.
fn recorder(stacks: StackMode) -> Result<PathBuf, Error> {
    let which = match stacks {
        StackMode::Off => Embedded::Recorder,
        _ => Embedded::RecorderStacks,
    };
    let readable = |path: &Path| !path.to_string_lossy().contains([' ', ':']);
    let path = embed::path(which).map_err(|e| ours(e.to_string()))?;
    if readable(&path) {
        return Ok(path);
    }
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("heaplab-recorder-{user}"));
    let other = embed::path_in(&folder, which).ok().filter(|p| readable(p));
    other.ok_or_else(|| {
        ours(format!(
            "'{}' has a space or a colon, which LD_PRELOAD cannot carry; set XDG_CACHE_HOME to a folder without",
            path.display()
        ))
    })
}

/// What was started and did not come to be recorded, a sentence for each file.
fn not_recorded(drained: &DrainSummary) -> Vec<String> {
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for program in &drained.not_recorded {
        *times.entry(&program.file).or_default() += 1;
    }
    times
        .into_iter()
        .filter_map(|(file, count)| {
            // What is not there was one of the places where a shell looks for a program.
            let path = tools::find_program(file.as_ref()).ok()?;
            let reason = cause::inspect(&path).not_loaded();
            let count = match count {
                1 => String::new(),
                n => format!(" ({n} times)"),
            };
            Some(format!("not recorded: '{file}'{count}, because {reason}"))
        })
        .collect()
}

/// What of the program is not in the trace.
fn remarks(drained: &DrainSummary) -> Vec<String> {
    let mut remarks = Vec::new();
    if drained.execs > 0 {
        let times = match drained.execs {
            1 => "once".to_string(),
            more => format!("{more} times"),
        };
        remarks.push(format!(
            "a program replaced itself {times} (exec), as wrappers do; each image is a process of its own in the trace"
        ));
    }
    if drained.lost_events > 0 {
        remarks.push(format!("{} events were lost", drained.lost_events));
    }
    remarks
}

/// Nanoseconds that the recorder adds to an event on this machine: measured once for a boot and a build, then remembered.
fn cost() -> Result<f64, Error> {
    let recorder = recorder(StackMode::Off)?;
    let remembered = recorder.parent().map(|folder| {
        let host = fingerprint::read().host_id;
        folder.join(format!("recorder-cost-{host}"))
    });
    let known = remembered
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<f64>().ok())
        .filter(|cost| cost.is_finite());
    if let Some(cost) = known {
        return Ok(cost);
    }
    let program = std::env::current_exe().map_err(|e| ours(reason_of(&e)))?;
    let cost = record::measure_cost(&recorder, || {
        let mut command = Command::new(&program);
        command.arg(CALIBRATION);
        command
    })
    .map_err(failed)?;
    if let Some(path) = remembered {
        // Only a memory: where it cannot be kept it is measured again.
        let _ = std::fs::write(path, format!("{cost}\n"));
    }
    Ok(cost)
}

fn failed(error: RecordError) -> Error {
    ours(lower_first(&error.to_string()))
}

/// The raw file could not even be begun.
fn unwritable(error: TraceError) -> Error {
    ours(workload::trace_error(error).to_string())
}

/// Recording was stopped on the way; the raw file is readable up to there.
fn stopped(error: RecordError, part: &Path) -> Error {
    let why = match error {
        RecordError::Trace(error) => workload::trace_error(error).to_string(),
        other => lower_first(&other.to_string()),
    };
    ours(format!(
        "{why}; what was recorded until then is in '{}', which `heaplab trace stats` can read, and `heaplab run` under a name that ends in .hltrace",
        part.display()
    ))
}

/// Signals while the program runs: they end the program, not the recording.
struct Signals {
    seen: Vec<(Signal, Arc<AtomicBool>)>,
    /// The program has ended: from now on Ctrl-C ends this process.
    over: Arc<AtomicBool>,
    /// SIGUSR1 and SIGUSR2: record, pause.
    resume: Arc<AtomicBool>,
    pause: Arc<AtomicBool>,
}

impl Signals {
    fn install() -> Self {
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
    fn turn(&self, switch: &Switch) {
        if self.pause.swap(false, Ordering::Relaxed) {
            switch.set_paused(true);
        }
        if self.resume.swap(false, Ordering::Relaxed) {
            switch.set_paused(false);
        }
    }

    /// Whether this process was asked to end, after the program has.
    fn ask_to_end(&self) -> bool {
        let asked = |flag: &Arc<AtomicBool>| flag.swap(false, Ordering::Relaxed);
        self.seen.iter().any(|(_, flag)| asked(flag))
    }

    /// Sends the program what only this process got. What the terminal's keys send reaches the program by itself, as both
    /// are in the terminal's foreground; a second copy would be one interruption too many.
    fn pass_on(&self, child: &Child) {
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

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, Error> {
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

    fn over(&self) {
        self.over.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let of = |status| {
            Recorded {
                status: ExitStatus::from_raw(status),
                stopped: false,
                trouble: None,
                trace: None,
                remarks: Vec::new(),
            }
            .code()
        };
        assert_eq!(of(0), 0);
        assert_eq!(of(3 << 8), 3);
        assert_eq!(of(9), 137);
    }

    #[test]
    fn the_part_lies_beside_the_trace() {
        assert_eq!(
            part_of(Path::new("a/b.hltrace")),
            Path::new("a/b.hltrace.part")
        );
        assert_eq!(
            default_out("/usr/bin/no-such-9".as_ref()),
            Path::new("no-such-9.hltrace")
        );
    }
}
