//! Program mode: runs a whole program under a subject and measures it from outside.
//!
//! Heap memory (`heap_peak_bytes`) is the peak over time of the anonymous bytes in mappings that are neither backed by a
//! file nor the stack: resident less shared of `/proc/PID/statm`, read every 2 ms, minus what `smaps` shows as anonymous in
//! file mappings (written data segments) and stacks, read again when it has grown. A program's own anonymous mappings
//! cannot be told apart and are in it. Only the first process is sampled, not its children.
//!
//! Memory of all processes together (`peak_pss_bytes`): see [`tree`].

mod counters;
mod missed;
mod own;
mod proof;
mod sample;
mod share;
mod statistics;
mod tree;
mod witness;

use crate::embed::{self, Embedded};
use crate::error::Error;
use crate::exec::{Limit, Limits, RunFailure, run_child, signal_name, tail};
use crate::service::{self, OwnMetric, Served, Server, Service};
use crate::subject::Subject;
use heaplab_reports::{shell, units};
use heaplab_worker::protocol::{Launched, Machine, Sampled};
use statistics::Asked;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};

pub use own::Apart;
pub use statistics::Statistics;

/// How the heap of a program is looked at while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapLook {
    /// Not at all.
    None,
    /// All its anonymous bytes every half millisecond, and the highest since, by counters that the kernel keeps, and nothing else of it: neither its
    /// mappings nor its time, as both hold it up. An allocator that gives memory back by the clock keeps more or less of it
    /// then.
    Size,
    /// Its mappings as well when it has grown, so that what is no heap is known.
    Mappings,
    /// Its mappings at every new maximum, so that what lies outside `brk` belongs to the same instant.
    EveryMaximum,
}

/// How to run a program.
#[derive(Clone, Debug)]
pub struct ProgramOptions {
    /// Bounds.
    pub limits: Limits,
    /// How its heap is looked at.
    pub heap: HeapLook,
    /// A status other than 0 is accepted.
    pub any_status: bool,
    /// CPU time from one sample of where it goes to the next, nanoseconds.
    pub sample_period_ns: u64,
    /// How it is waited for, loaded and stopped; `None`: it ends by itself.
    pub service: Option<Service>,
    /// Metrics read from the load's output, without a load from its own.
    pub metrics: Vec<OwnMetric>,
    /// The machine that it sees: huge pages and memory.
    pub machine: Machine,
    /// Tell what the program maps by itself from what its allocator maps. Wants a heap that is looked at.
    pub follow_mappings: bool,
    /// Ask the allocator for its own statistics. The run is good for nothing else: the agent's thread is in the program.
    pub ask: bool,
}

impl ProgramOptions {
    /// A program that ends by itself, with status 0.
    pub fn plain(limits: Limits) -> Self {
        Self {
            limits,
            heap: HeapLook::None,
            any_status: false,
            sample_period_ns: SAMPLE_PERIOD_NS,
            service: None,
            metrics: Vec::new(),
            machine: Machine::default(),
            follow_mappings: false,
            ask: false,
        }
    }

    /// The bounds of a run: the time that a server is to be up is no part of that after which it hangs.
    fn with_duration(&self) -> Limits {
        let up = self.service.as_ref().and_then(|service| service.duration);
        Limits {
            timeout: self.limits.timeout + up.unwrap_or_default(),
            ..self.limits.clone()
        }
    }
}

/// What one run of a program took.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ProgramReport {
    /// From start to end.
    pub wall_ns: u64,
    /// CPU time in user mode, of all its processes.
    pub user_ns: u64,
    /// CPU time in the kernel, of all its processes.
    pub sys_ns: u64,
    /// Largest resident set of one of its processes, and the most pages of the hugetlb pool that one was seen to have.
    pub peak_rss_bytes: u64,
    /// Peak of the memory of all its processes together, shared pages counted once; absent for a program that was over
    /// before the first look.
    #[serde(default)]
    pub peak_pss_bytes: Option<u64>,
    /// By how much that may be off, as [`tree`] says.
    #[serde(default)]
    pub peak_pss_uncertain_bytes: u64,
    /// Most of its processes at a time, as far as they were seen.
    #[serde(default)]
    pub processes: u32,
    /// Processes of it that still ran when the first one had ended, and were killed.
    #[serde(default)]
    pub left_behind: u32,
    /// From the start to ready (`--until-ready`).
    #[serde(default)]
    pub ready_ns: Option<u64>,
    /// Of the load, where it ended by itself.
    #[serde(default)]
    pub load_ns: Option<u64>,
    /// Where its CPU time went; absent where the kernel does not permit to look.
    #[serde(default)]
    pub sampled: Option<Sampled>,
    /// Why not.
    #[serde(default)]
    pub not_sampled: Option<String>,
    /// The allocator's own statistics, where they were asked for and it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<Statistics>,
    /// The user's own metrics.
    #[serde(default)]
    pub own: BTreeMap<String, f64>,
    /// Peak of heap memory as the module defines it; absent unless its mappings were looked at.
    pub heap_peak_bytes: Option<u64>,
    /// Peak of all anonymous memory; absent unless it was looked at.
    pub anonymous_peak_bytes: Option<u64>,
    /// Most bytes seen in shared memory and in pages of the hugetlb pool, where an allocator may have a heap as well.
    #[serde(default)]
    pub elsewhere_peak_bytes: u64,
    /// The same with files that lie in memory.
    #[serde(default)]
    pub shared_peak_bytes: u64,
    /// Peak of all anonymous memory and these together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_elsewhere_peak_bytes: Option<u64>,
    /// What of the anonymous memory is no heap, when the mappings were last looked at before the peak.
    pub beside_heap_bytes: Option<u64>,
    /// Part of it outside the classic heap (`brk`): mappings of the allocator, of the program itself, stacks of threads.
    pub outside_brk_bytes: Option<u64>,
    /// Part of these that the program has mapped by itself; absent unless that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_outside_brk_bytes: Option<u64>,
    /// Peak of anonymous memory without what the program has mapped by itself; absent unless that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Apart>,
    /// Why it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_followed: Option<String>,
    /// Faults served without I/O.
    pub minor_faults: u64,
    /// Faults that needed I/O.
    pub major_faults: u64,
    /// Voluntary and involuntary switches.
    pub context_switches: u64,
    /// How long the first process's threads were ready to run and did not, as a share of its time; absent where the kernel
    /// does not note it.
    #[serde(default)]
    pub held_up: Option<f64>,
    /// Exit status.
    pub exit_code: i32,
    /// Object that the program's malloc is bound to.
    pub malloc_object: String,
    /// Libraries of the user's own LD_PRELOAD, loaded behind the subject.
    pub chained: Option<String>,
    /// What enforced a memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_by: Option<String>,
}

/// CPU time from one sample to the next: a sample costs some 2 µs, so that this is 0.2 % of the program's time, the same for
/// every subject.
const SAMPLE_PERIOD_NS: u64 = 1_000_000;
/// Samples below which a share says nothing.
const FEWEST_SAMPLES: u64 = 20;

/// What a reader is told where the program's CPU time could not be looked at.
pub fn not_sampled(why: &str) -> String {
    format!(
        "the allocator's share of the program's time was not sampled: {why}; `sysctl kernel.perf_event_paranoid=2` permits it"
    )
}

impl ProgramReport {
    /// Share of the CPU time that the allocator has, as `share` defines it.
    pub fn allocator_share(&self) -> Option<f64> {
        let sampled = self.sampled.as_ref()?;
        let counted = sampled.counted_user + sampled.counted_kernel;
        (sampled.samples >= FEWEST_SAMPLES).then(|| counted as f64 / sampled.samples as f64)
    }

    /// CPU time that the allocator has, seconds. Where the kernel's part could not be seen, of the time in user mode.
    pub fn allocator_s(&self) -> Option<f64> {
        let all = match self.sampled?.with_kernel {
            true => self.user_ns + self.sys_ns,
            false => self.user_ns,
        };
        Some(self.allocator_share()? * all as f64 / 1e9)
    }
}

/// Runs `argv` under a subject.
///
/// # Errors
/// The reason for a failed row: not found, a signal, a bad status, hung, the subject not in force, a server that was never
/// ready or could not be stopped, a load that failed.
pub fn run_program(
    subject: &Subject,
    argv: &[OsString],
    options: &ProgramOptions,
) -> Result<ProgramReport, RunFailure> {
    let limit = Limit::new(&options.machine);
    run_within(&limit, subject, argv, options).map_err(|failure| match limit.has_killed() {
        true => RunFailure::new(format!(
            "ended by the kernel at the memory limit of {}",
            units::bytes(options.machine.memory_limit as f64)
        )),
        false => failure,
    })
}

fn run_within(
    limit: &Limit,
    subject: &Subject,
    argv: &[OsString],
    options: &ProgramOptions,
) -> Result<ProgramReport, RunFailure> {
    let chained = chained();
    let mut environment = environment(subject, chained.as_deref());
    let malloc_object = if subject.is_variant() {
        proof::carried_by(subject, argv, &environment, &options.limits)?
    } else {
        proof::bound_to(subject, argv, &environment, &options.limits)?
    };
    if let Some(service) = &options.service {
        service.before_start()?;
    }
    let failed = |what: String| RunFailure::new(what);
    let folder =
        tempfile::tempdir().map_err(|error| failed(format!("no temporary folder: {error}")))?;
    let report = folder.path().join("launched.json");
    let worker = embed::path(Embedded::Worker).map_err(|error| failed(error.to_string()))?;
    let mut asked = None;
    if options.ask {
        let agent =
            embed::path(Embedded::StatisticsAgent).map_err(|error| failed(error.to_string()))?;
        statistics::add_agent(&mut environment, &agent, folder.path(), &malloc_object);
        asked = Some(Asked::new(folder.path()));
    }
    let mut command = Command::new(&worker);
    // The launcher itself must run on the system's allocator: the subject is for the program only.
    command.env_remove("LD_PRELOAD");
    let enter = limit.enter(&options.machine);
    if !enter.is_empty() {
        command.arg("--enter").args(enter).arg("--").arg(&worker);
    }
    command.arg("--launch").arg(&report);
    let counted = match subject.library {
        None if !subject.is_variant() => behind_wrapper().get(argv).cloned(),
        _ => None,
    };
    let counted = counted.unwrap_or_else(|| malloc_object.clone());
    let mut parts = match options.ask || options.heap == HeapLook::Size {
        true => Vec::new(),
        false => share::parts(&counted),
    };
    if options.follow_mappings {
        let agent = embed::preloadable(Embedded::MappingsAgent)
            .map_err(|error| failed(error.to_string()))?;
        let library = subject.library.as_deref();
        own::add_agent(&mut environment, &agent, folder.path(), library);
        // It stands before calls that count.
        if !parts.is_empty() {
            parts.push((agent, 0, u64::MAX));
        }
    }
    if !parts.is_empty() {
        command.args(["--sample", &options.sample_period_ns.to_string()]);
    }
    for (path, from, to) in parts {
        command
            .arg("--count")
            .arg(path)
            .args([from.to_string(), to.to_string()]);
    }
    command.args(&environment).arg("--").args(argv);
    let pid_file = PathBuf::from(format!("{}.pid", report.display()));
    let stop = AtomicBool::new(false);
    let library = subject.library.as_deref();
    let (ended, seen, served) = std::thread::scope(|scope| {
        let asked = asked.as_mut();
        let agents = folder.path();
        let watcher =
            scope.spawn(|| sample::watch(&pid_file, library, options, agents, asked, &stop));
        let attendant = options
            .service
            .as_ref()
            .map(|service| scope.spawn(|| attend(service, &pid_file, options, &stop)));
        let ended = run_child(command, &options.with_duration());
        stop.store(true, Ordering::Relaxed);
        let served = attendant.and_then(|attendant| attendant.join().ok());
        (ended, watcher.join().unwrap_or_default(), served)
    });
    let ended = ended?;
    let launched: Launched = std::fs::read(&report)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .ok_or_else(|| unfinished(&ended, options))?;
    let served = judge_end(argv, options, &launched, &ended, served)?;
    if !subject.is_variant()
        && let Some(why) = seen
            .witnesses
            .objection(&subject.label, subject.library.as_deref())
    {
        return Err(failed(why));
    }
    let output = match &options.service {
        Some(service) if service.load.is_some() => served.output.clone(),
        _ => format!("{}\n{}", ended.stdout, ended.stderr),
    };
    let mut own = BTreeMap::new();
    for metric in &options.metrics {
        own.insert(metric.name.clone(), metric.read(&output).map_err(failed)?);
    }
    // A shell or `env` does not tell what the program that it starts allocates with.
    let brought = (subject.library.is_none() && !subject.is_variant())
        .then(|| seen.witnesses.brought())
        .flatten()
        .map(|path| path.display().to_string())
        .filter(|brought| *brought != counted);
    let mut launched = launched;
    let mut malloc_object = malloc_object;
    if let Some(brought) = brought {
        // The samples were counted by another library's code. From the next run on they are not.
        launched.sampled = None;
        behind_wrapper().insert(argv.to_vec(), brought.clone());
        malloc_object = brought;
    } else if counted != malloc_object {
        malloc_object = counted;
    }
    let walked = seen.heap.and_then(|peak| peak.walked);
    let (apart, not_followed) = match seen.apart {
        Some(Ok(apart)) => (Some(apart), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let together = seen.tree.peak(launched.peak_rss_bytes);
    Ok(ProgramReport {
        wall_ns: launched.wall_ns,
        user_ns: launched.user_ns,
        sys_ns: launched.sys_ns,
        // The kernel counts pages of the pool in no resident size.
        peak_rss_bytes: launched.peak_rss_bytes + seen.tree.pool(),
        peak_pss_bytes: together.map(|peak| peak.bytes),
        peak_pss_uncertain_bytes: together.map_or(0, |peak| peak.uncertain),
        processes: seen.tree.most().max(1),
        left_behind: launched.left_behind,
        ready_ns: served.ready_ns,
        load_ns: served.load_ns,
        sampled: launched.sampled,
        not_sampled: launched.not_sampled,
        statistics: asked.and_then(Asked::end),
        own,
        heap_peak_bytes: seen.heap.and_then(|peak| peak.heap()),
        anonymous_peak_bytes: seen.heap.map(|peak| peak.anonymous),
        elsewhere_peak_bytes: seen.heap.map_or(0, |peak| peak.elsewhere),
        shared_peak_bytes: seen.heap.map_or(0, |peak| peak.shared),
        with_elsewhere_peak_bytes: seen.heap.map(|peak| peak.with_elsewhere),
        beside_heap_bytes: walked.map(|walked| walked.others),
        outside_brk_bytes: walked.map(|walked| walked.outside_brk),
        own_outside_brk_bytes: walked
            .filter(|_| apart.is_some())
            .and_then(|walked| walked.own),
        apart,
        not_followed,
        minor_faults: launched.minor_faults,
        major_faults: launched.major_faults,
        context_switches: launched.context_switches,
        held_up: seen.held_up,
        exit_code: launched.exit_code.unwrap_or_default(),
        malloc_object,
        chained,
        memory_limit_by: limit.name().map(str::to_owned),
    })
}

/// Of commands that start a program with an allocator of its own: that allocator's library, as it was found in the program.
fn behind_wrapper() -> MutexGuard<'static, HashMap<Vec<OsString>, String>> {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<OsString>, String>>> = LazyLock::new(Mutex::default);
    KNOWN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Why a program left no report; of a server whose load never ended that is said.
fn unfinished(ended: &crate::exec::Ended, options: &ProgramOptions) -> RunFailure {
    let mut failure = crate::exec::failure_of(ended);
    let service = options.service.as_ref();
    if !failure.cancelled && service.is_some_and(|service| service.load.is_some()) {
        failure.reason.push_str("; the load had not ended");
        if service.is_some_and(|service| service.ready.is_none()) {
            failure.reason.push_str(
                ", which was started at once: --until-ready waits until the program answers",
            );
        }
    }
    failure
}

/// Goes with the server from its start to its end.
fn attend(
    service: &Service,
    pid_file: &Path,
    options: &ProgramOptions,
    stop: &AtomicBool,
) -> Result<Served, RunFailure> {
    let pid = sample::number(pid_file, stop).ok_or_else(service::ended_early)?;
    let server = Server::open(pid)?;
    let cancelled = || {
        options
            .limits
            .cancel
            .as_ref()
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    };
    service.attend(&server, &cancelled, &mut || {
        if let (true, Some(folder)) = (options.ask, pid_file.parent()) {
            statistics::ask_before_stop(folder, pid);
        }
    })
}

/// Whether the program ended as it should: by itself with status 0, a server as it was asked to.
fn judge_end(
    argv: &[OsString],
    options: &ProgramOptions,
    launched: &Launched,
    ended: &crate::exec::Ended,
    served: Option<Result<Served, RunFailure>>,
) -> Result<Served, RunFailure> {
    let failed = |what: String| RunFailure::new(what);
    let program = argv
        .first()
        .map(|word| word.to_string_lossy().into_owned())
        .unwrap_or_default();
    // Servers tend to say on standard output what went wrong.
    let said = match tail(&ended.stderr) {
        said if said.is_empty() && served.is_some() => tail(&ended.stdout),
        said => said,
    };
    let said = match said.is_empty() {
        true => said,
        false => format!("; its last words: {said}"),
    };
    if let Some(number) = launched.start_error {
        let why = std::io::Error::from_raw_os_error(number);
        return Err(failed(format!("'{program}' cannot be started: {why}")));
    }
    let (exit_code, signal) = (launched.exit_code, launched.signal);
    let served = match served {
        Some(Err(failure)) if failure.reason.starts_with("the program") => {
            return Err(failed(format!("{}{said}", failure.reason)));
        }
        Some(Err(failure)) => return Err(failure),
        Some(Ok(served)) => Some(served),
        None => None,
    };
    if let (Some(service), Some(served)) = (&options.service, &served)
        && service.stop.is_orderly(exit_code, signal)
        && !(served.ended_early && signal.is_some())
    {
        return Ok(served.clone());
    }
    if let Some(signal) = signal {
        return Err(failed(format!(
            "'{program}' was killed by {}{said}",
            signal_name(signal)
        )));
    }
    let code = exit_code.unwrap_or_default();
    if code != 0 && !options.any_status {
        return Err(failed(format!(
            "'{program}' ended with exit status {code}{said}"
        )));
    }
    Ok(served.unwrap_or_default())
}

/// The library, other than the C library, that the program's malloc is bound to as it is today.
pub fn brought_allocator(argv: &[OsString], limits: &Limits) -> Option<String> {
    let today = Subject {
        label: "system".into(),
        name: "system".into(),
        ..Subject::variant("system")
    };
    let object = proof::bound_to(&today, argv, &environment(&today, None), limits).ok()?;
    (!share::is_libc(Path::new(&object))).then_some(object)
}

/// The C library of this machine.
pub fn c_library() -> Option<PathBuf> {
    share::own_libc()
}

/// Puts a library in front of all others that an environment, given as `NAME=VALUE` words, has the loader load.
fn preload_first(environment: &mut Vec<String>, library: &Path) {
    const PRELOAD: &str = "LD_PRELOAD=";
    let library = library.display();
    match environment
        .iter_mut()
        .find(|word| word.starts_with(PRELOAD))
    {
        Some(word) => *word = format!("{PRELOAD}{library}:{}", &word[PRELOAD.len()..]),
        None => environment.push(format!("{PRELOAD}{library}")),
    }
}

/// The user's own LD_PRELOAD.
fn chained() -> Option<String> {
    std::env::var("LD_PRELOAD")
        .ok()
        .filter(|text| !text.is_empty())
}

/// The command that [`run_program`] starts, for a shell (`--print-command`): a debugger or perf may stand before it.
///
/// # Errors
/// When the worker that changes the machine cannot be written to the cache.
pub fn program_command(
    subject: &Subject,
    argv: &[OsString],
    machine: &Machine,
) -> Result<String, Error> {
    let mut words = Vec::new();
    let enter = Limit::to_type(machine).enter(machine);
    if !enter.is_empty() {
        words.push(embed::path(Embedded::Worker)?.display().to_string());
        words.push("--enter".to_owned());
        words.extend(enter);
        words.push("--".to_owned());
    }
    let environment = environment(subject, chained().as_deref());
    if !environment.is_empty() {
        words.push("env".to_owned());
        words.extend(environment);
    }
    words.extend(argv.iter().map(|word| word.to_string_lossy().into_owned()));
    Ok(shell::command(&words))
}

/// `NAME=VALUE` words that put the subject into force, a user's own preloaded libraries behind it.
fn environment(subject: &Subject, chained: Option<&str>) -> Vec<String> {
    let libraries: Vec<_> = subject
        .library
        .iter()
        .map(|path| path.display().to_string())
        .chain(chained.map(str::to_owned))
        .collect();
    let preload = (!libraries.is_empty()).then(|| format!("LD_PRELOAD={}", libraries.join(":")));
    let settings = subject
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    preload.into_iter().chain(settings).collect()
}
