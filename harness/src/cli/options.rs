//! Groups of options that several commands share, so that they are spelled and explained the same everywhere.

use super::value;
use crate::error::Error;
use crate::service::{OwnMetric, Ready, Service, StopSignal};
use clap::{ArgAction, Args, ValueEnum};
use heaplab_workloads::record::{SessionOptions, StackMode, default_pool_bytes};
use std::path::PathBuf;
use std::time::Duration;

/// Heading of what says how often and how long.
pub const REPETITIONS: &str = "Repetitions";
/// Heading of what is written and printed.
pub const OUTPUT: &str = "Output";
/// Heading of what is for programs, servers among them.
pub const PROGRAMS: &str = "Programs and servers";
/// Heading of the global options; the last in every help.
pub const EVERYWHERE: &str = "Options of every command";
const REPLAY: &str = "Replay";
const RECORDING: &str = "Recording";
const MACHINE: &str = "Machine that subjects see";

/// Subjects used when none are named.
pub const DEFAULT_SUBJECTS: &str = "system,jemalloc,mimalloc,spanalloc";

/// Which allocators.
#[derive(Args, Clone, Debug, Default)]
pub struct SubjectArgs {
    /// Allocator under test: NAME, PATH.so or NAME:key=value,… with an optional LABEL= before it; may be repeated,
    /// plain names may be given as a comma list [default: system,jemalloc,mimalloc,spanalloc]
    #[arg(
        short = 'a',
        long = "subject",
        alias = "allocator",
        value_name = "SPEC"
    )]
    pub subjects: Vec<String>,
}

impl SubjectArgs {
    /// The specifications to parse, the default ones where none were given.
    pub fn specs(&self) -> Vec<String> {
        if self.subjects.is_empty() {
            vec![DEFAULT_SUBJECTS.to_string()]
        } else {
            self.subjects.clone()
        }
    }
}

/// What one run measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum MeasureArg {
    /// Wall and CPU time per op
    Speed,
    /// A clock around every call, into histograms
    Latency,
    /// Live, usable and resident bytes over progress
    Memory,
    /// Instructions by callgrind and page faults
    Counts,
}

/// Entry points that the replay calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum ApiArg {
    /// malloc and free
    Malloc,
    /// Size and alignment known at free, through the subject's own entry
    Sized,
}

/// How replaying threads advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum ModeArg {
    /// As fast as causality allows
    Fast,
    /// At the recorded times × the factor of --pace (recorded traces)
    Paced,
    /// The script's global order, one thread at a time: deterministic
    Lockstep,
}

/// Which bytes of a fresh block the replay writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum TouchArg {
    /// Nothing
    None,
    /// The first cache line
    First,
    /// One byte a page
    Page,
    /// Like page, but of large blocks as many pages as the recording saw written
    Recorded,
    /// Every byte
    All,
}

/// Transparent huge pages, as the subject sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum ThpArg {
    /// As the machine is set
    #[default]
    Default,
    /// None
    Never,
    /// On every mapping of 2 MiB and more
    Always,
}

/// How workloads are made and replayed.
#[derive(Args, Clone, Debug, Default)]
pub struct WorkloadArgs {
    /// What to measure [default: speed,latency,memory]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub measure: Vec<MeasureArg>,
    /// Entry points to call; may be a list [default: malloc]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", help_heading = REPLAY)]
    pub api: Vec<ApiArg>,
    /// How threads advance [default: fast for speed and latency, lockstep for memory and counts]
    #[arg(long, value_enum, help_heading = REPLAY)]
    pub mode: Option<ModeArg>,
    /// Bytes that the replay writes to a fresh block [default: first, for memory recorded]
    #[arg(long, value_enum, help_heading = REPLAY)]
    pub touch: Option<TouchArg>,
    /// Threads of models, a list makes one row each [default: the model's own]
    #[arg(short = 't', long, value_delimiter = ',', value_name = "N[,N...]", value_parser = value::threads, help_heading = REPLAY)]
    pub threads: Vec<u32>,
    /// Seed of models and of the order of runs; the same seed gives the same scripts [default: drawn and printed]
    #[arg(long, value_name = "N", help_heading = REPLAY)]
    pub seed: Option<u64>,
    /// Factor on the operations and live sets of models; of a trace the part from its start, at most 1
    #[arg(long, value_name = "F", default_value = "1", value_parser = value::scale, help_heading = REPLAY)]
    pub scale: f64,
    /// Factor on the recorded times of --mode paced: 2 is half as fast
    #[arg(long, value_name = "F", default_value = "1", value_parser = value::scale, help_heading = REPLAY)]
    pub pace: f64,
    /// CPUs that subjects are told of: a number, or as many as the recorded machine had [default: those there are]
    #[arg(long, value_name = "recorded|N", value_parser = value::cpus, help_heading = MACHINE)]
    pub cpus: Option<value::Cpus>,
    /// Transparent huge pages
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ThpArg::Default, help_heading = MACHINE)]
    pub thp: ThpArg,
    /// Memory that a run may use, such as 512MiB: by a control group where one can be made, else by RLIMIT_DATA
    #[arg(long, value_name = "SIZE", value_parser = value::size, help_heading = MACHINE)]
    pub memory_limit: Option<u64>,
    /// Time that each memory row idles after its last op, and again with a trickle of calls; all rows idle together
    /// [default: 10s with the suites standard, full and fragmentation, else none]
    #[arg(long, value_name = "DURATION", value_parser = value::duration, help_heading = REPLAY)]
    pub idle: Option<Duration>,
}

/// What a recording takes and how.
#[derive(Args, Clone, Debug, Default)]
pub struct SessionArgs {
    /// Record the first process only, not those that it starts
    #[arg(long, help_heading = RECORDING)]
    pub first_only: bool,
    /// Begin without recording; SIGUSR1 to heaplab starts it, SIGUSR2 pauses it, as do the program's own calls of
    /// heaplab_resume() and heaplab_pause()
    #[arg(long, help_heading = RECORDING)]
    pub paused: bool,
    /// Record the program's own mmap, munmap, mremap and brk, too
    #[arg(long, help_heading = RECORDING)]
    pub mappings: bool,
    /// Drop and count events when the shared memory is full, instead of letting the program wait
    #[arg(long, help_heading = RECORDING)]
    pub lossy: bool,
    /// Shared memory between the program and heaplab, 256KiB to 4GiB: how far the program may run ahead before it waits
    /// [default: 64MiB, in a container at most a sixteenth of its memory]
    #[arg(long, value_name = "SIZE", value_parser = value::pool, help_heading = RECORDING)]
    pub pool: Option<u64>,
}

impl SessionArgs {
    /// What the session takes, where allocations bring their stacks as `stacks` says.
    pub fn options(&self, stacks: StackMode) -> SessionOptions {
        SessionOptions {
            pool_bytes: self.pool.unwrap_or_else(default_pool_bytes),
            lossy: self.lossy,
            first_only: self.first_only,
            mappings: self.mappings,
            paused: self.paused,
            stacks,
            ..SessionOptions::default()
        }
    }
}

/// How often.
#[derive(Args, Clone, Debug, Default)]
pub struct RepeatArgs {
    /// Exactly N blocks (a block is one run of every subject); below 6 a range is shown instead of an interval
    #[arg(long, alias = "runs", value_name = "N", value_parser = value::positive, help_heading = REPETITIONS)]
    pub blocks: Option<u32>,
    /// Add blocks until the intervals are narrow or the time is used up (90s, 10m) [default: 90s; up to twice that where six blocks take longer]
    #[arg(long, value_name = "DURATION", value_parser = value::duration, conflicts_with = "blocks", help_heading = REPETITIONS)]
    pub budget: Option<Duration>,
}

/// Time that a server has to become ready where the user did not say.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Programs that do not end by themselves, and what they or their load print.
#[derive(Args, Clone, Debug, Default)]
pub struct ServiceArgs {
    /// The program is ready when this port answers (tcp:PORT, tcp:HOST:PORT) or this command succeeds
    #[arg(long, value_name = "CMD|tcp:PORT", value_parser = Ready::parse, help_heading = PROGRAMS)]
    pub until_ready: Option<Ready>,
    /// Time that it has for that [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration, requires = "until_ready", help_heading = PROGRAMS)]
    pub ready_within: Option<Duration>,
    /// Command for the shell that puts the ready program to work; when it ends, the program is stopped
    #[arg(long, value_name = "CMD", help_heading = PROGRAMS)]
    pub load: Option<String>,
    /// Stop the program this long after it is ready, and a load with it
    #[arg(long, value_name = "DURATION", value_parser = value::duration, help_heading = PROGRAMS)]
    pub duration: Option<Duration>,
    /// Signal that asks the program to end [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = StopSignal::parse, help_heading = PROGRAMS)]
    pub stop_signal: Option<StopSignal>,
}

impl ServiceArgs {
    /// Refuses them where there is no program to work on; `programs` says where one is named.
    ///
    /// # Errors
    /// Usage.
    pub fn unused(&self, programs: &str) -> Result<(), Error> {
        match self.waits() || self.stop_signal.is_some() {
            true => Err(Error::usage(format!(
                "--until-ready, --load, --duration and --stop-signal are for programs; {programs}"
            ))),
            false => Ok(()),
        }
    }

    fn waits(&self) -> bool {
        self.until_ready.is_some() || self.load.is_some() || self.duration.is_some()
    }

    /// The server's life; `None` for a program that ends by itself.
    ///
    /// # Errors
    /// Usage when options are given that have nothing to wait for.
    pub fn service(&self) -> Result<Option<Service>, Error> {
        if !self.waits() {
            return match self.stop_signal {
                None => Ok(None),
                Some(_) => Err(Error::usage(
                    "--stop-signal says how the program is stopped, but not when; add --load CMD, --duration or \
                     --until-ready",
                )),
            };
        }
        Ok(Some(Service {
            ready: self.until_ready.clone(),
            ready_within: self.ready_within.unwrap_or(READY_WITHIN),
            load: self.load.clone(),
            duration: self.duration,
            stop: self.stop_signal.unwrap_or_default(),
        }))
    }
}

/// Builds of a program.
#[derive(Args, Clone, Debug, Default)]
pub struct VariantArgs {
    /// A build of the program with its allocator linked in, as a further subject: NAME=CMD, with CMD in words as for a
    /// shell; may be repeated
    #[arg(long = "variant", value_name = "NAME=CMD", value_parser = value::variant, requires = "command", help_heading = PROGRAMS)]
    pub variants: Vec<value::Variant>,
}

/// Metrics of the user's own.
#[derive(Args, Clone, Debug, Default)]
pub struct MetricArgs {
    /// A metric of your own, read from what the load prints (without a load, and where it is not recorded: the program); of the
    /// last match the first group is the value. NAME=UNIT:lower|higher:REGEX, may be repeated
    #[arg(long = "metric", value_name = "SPEC", value_parser = OwnMetric::parse, help_heading = PROGRAMS)]
    pub metrics: Vec<OwnMetric>,
}

impl MetricArgs {
    /// The metrics of a recording: they are read from what a load prints, as the program's own output stays its own there.
    ///
    /// # Errors
    /// Usage where there is no load.
    pub fn of_load(&self, service: Option<&Service>) -> Result<&[OwnMetric], Error> {
        let load = service.is_some_and(|service| service.load.is_some());
        match load || self.metrics.is_empty() {
            true => Ok(&self.metrics),
            false => Err(Error::usage(
                "--metric reads what a load prints, as the output of a recorded program stays its own; add --load CMD",
            )),
        }
    }

    /// Refuses them where no program prints anything; `programs` says where one is named.
    ///
    /// # Errors
    /// Usage.
    pub fn unused(&self, programs: &str) -> Result<(), Error> {
        match self.metrics.is_empty() {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "--metric reads what a program or its load prints; {programs}"
            ))),
        }
    }
}

/// What standard output carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    #[default]
    Table,
    /// For a pull request or a wiki
    Markdown,
    /// The whole result as JSON
    Json,
    /// One line a cell and metric
    Csv,
}

/// Where results go and how they are printed.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// Folder of the result set; never overwritten [default: heaplab-results/<UTC time>-<name>]
    #[arg(short, long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table, help_heading = OUTPUT)]
    pub format: Format,
    /// Do not write report.html, charts and summary.md
    #[arg(long, help_heading = OUTPUT)]
    pub no_report: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Options of every command; the parser's own are among them, so that they stand with them.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// No progress and no remarks on standard error
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// Say more; a line for each run
    #[arg(long, short, global = true, conflicts_with = "quiet", help_heading = EVERYWHERE)]
    pub verbose: bool,
    /// Colour of tables: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(long, value_enum, global = true, default_value_t = ColorArg::Auto, value_name = "WHEN", hide_possible_values = true, help_heading = EVERYWHERE)]
    pub color: ColorArg,
    /// Print help; -h prints a short one
    #[arg(long, short, global = true, action = ArgAction::Help, help_heading = EVERYWHERE)]
    pub help: Option<bool>,
    /// Print version
    #[arg(long, short = 'V', global = true, action = ArgAction::Version, help_heading = EVERYWHERE)]
    pub version: Option<bool>,
}
