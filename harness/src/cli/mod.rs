//! The command line as types: what can be asked, with help and examples. No work is done here.

pub mod gate;
pub mod help;
pub mod options;
pub mod profile;
pub mod trace;
pub mod usage;
pub mod value;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use gate::{
    BaselineArgs, BaselineCheckArgs, BaselineCommand, BaselineUpdateArgs, GateCommand,
    GateCompareArgs, GateRunArgs, GateSelfTestArgs,
};
use options::{
    Format, GlobalArgs, MetricArgs, OUTPUT, OutputArgs, REPETITIONS, RepeatArgs, ServiceArgs,
    SessionArgs, SubjectArgs, VariantArgs, WorkloadArgs,
};
use profile::{ProfileArgs, StackArgs};
use std::ffi::OsString;
use std::path::PathBuf;
use trace::TraceCommand;

/// Which allocator, with which settings, for my program?
#[derive(Parser, Debug)]
#[command(name = "heaplab", version, propagate_version = true, disable_help_flag = true, disable_version_flag = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  heaplab run                                  compare the default allocators on the quick suite
  heaplab record -o svc.hltrace -- ./server    record every allocation of a program
  heaplab run svc.hltrace                      which allocator is best for that program?
  heaplab profile -- ./server                  where do its bytes come from?
  heaplab run -- python3 job.py                run a program under each of them
  heaplab gate run --base ./old.so --head ./new.so";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compare allocators on workloads, or run a program under each of them
    #[command(after_help = "Examples:
  heaplab run                                   the suite `quick`, about 90 s
  heaplab run larson prog.hltrace -a system,spanalloc --blocks 8
  heaplab run my-model.toml -t 1,2,4 --seed 7 --format markdown
  heaplab run -a system -a new=./libfoo.so -- python3 job.py
  heaplab run --variant 'mine=./app-jemalloc --input data' -- ./app --input data
  heaplab run --until-ready tcp:7001 --load 'redis-benchmark -p 7001 -q -n 200000 -t set' \\
      --metric 'rps=1/s:higher:SET: ([0-9.]+) requests per second' -- redis-server --port 7001")]
    Run(Box<RunArgs>),
    /// Run a program unmodified and record every allocation
    #[command(after_help = "Examples:
  heaplab record -- python3 job.py              writes python3.hltrace
  heaplab record -o job.hltrace -- ./job
  heaplab record -o build.hltrace -- make -j2   every process of the tree, in one file
  heaplab record --paused -- ./server           begins by kill -USR1 PID-OF-HEAPLAB
  heaplab record --stacks full --embed-symbols -o job.hltrace -- ./job
  heaplab record --until-ready tcp:8080 --load 'curl -s localhost:8080/big' -- ./server --port 8080

Exit status: the program's own, 128 + n if signal n ended it, 0 for a server that was stopped as asked; 125 heaplab itself \
failed or nothing could be recorded, 126 the program is not executable, 127 it was not found.")]
    Record(RecordArgs),
    /// Heap profile: where bytes come from, what holds the peak, what is never freed
    #[command(after_help = profile::EXAMPLES)]
    Profile(Box<ProfileArgs>),
    /// Look at and transform traces
    #[command(
        subcommand,
        after_help = "Examples:
  heaplab trace info prog.hltrace
  heaplab trace stats prog.hltrace --format json
  heaplab trace anonymise prog.hltrace -o to-send.hltrace
  heaplab trace import heaptrack.prog.1234.zst -o prog.hltrace"
    )]
    Trace(TraceCommand),
    /// Check the prediction: replay a recorded program and compare with the program itself
    #[command(after_help = "Examples:
  heaplab validate -- python3 job.py
  heaplab validate -a system,jemalloc --runs 5 --format json -- ./job
  heaplab validate --variant 'mine=./job-jemalloc --input data' -- ./job --input data
  heaplab validate --until-ready tcp:7001 --load 'redis-benchmark -p 7001 -q -n 100000' \\
      -- redis-server --port 7001 --save ''")]
    Validate(Box<ValidateArgs>),
    /// Write HTML, charts and a summary from stored results
    #[command(after_help = "Examples:
  heaplab report heaplab-results/20261125T020305Z-quick
  heaplab report shard1 shard2 -o joined-report")]
    Report(ReportArgs),
    /// Show the difference of two results, cell by cell
    #[command(after_help = "Examples:
  heaplab diff old/result.json new/result.json
  heaplab diff old new --format markdown")]
    Diff(DiffArgs),
    /// Judge a change: pass, regression, or not decided
    #[command(
        subcommand,
        after_help = "Examples:
  heaplab gate run --base system --head ./libnew.so
  heaplab gate baseline check -a spanalloc
  heaplab gate self-test"
    )]
    Gate(GateCommand),
    /// Join the result sets of shards
    #[command(after_help = "Example:
  heaplab merge shard1 shard2 -o joined")]
    Merge(MergeArgs),
    /// List what there is
    #[command(after_help = "Examples:
  heaplab list workloads
  heaplab list subjects --format json")]
    List(ListArgs),
    /// What this machine can measure, what disturbs it, and what to install
    #[command(after_help = "Examples:
  heaplab doctor
  heaplab doctor --cost --format json")]
    Doctor(DoctorArgs),
    /// Print shell completions
    #[command(after_help = "Example:
  heaplab completions bash > ~/.local/share/bash-completion/completions/heaplab")]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = "Example:
  heaplab man > heaplab.1 && man ./heaplab.1")]
    Man,
    /// Print the licences of everything that travels inside the binary
    #[command(after_help = "Example:
  heaplab licenses")]
    Licenses,
}

/// `heaplab run`
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Built-in workloads, model files (.toml) or traces (.hltrace); none: the suite `quick`
    #[arg(value_name = "WORKLOAD")]
    pub workloads: Vec<String>,
    /// A named set of workloads [default: quick, where no workload is named]
    #[arg(long, value_name = "NAME", conflicts_with = "workloads")]
    pub suite: Option<String>,
    /// Allocators.
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// Workload parameters.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Repetitions.
    #[command(flatten)]
    pub repeat: RepeatArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Continue an interrupted session in its folder, with the options it was started with
    #[arg(long, value_name = "DIR", conflicts_with_all = ["workloads", "suite", "out", "command", "shard", "only"])]
    pub resume: Option<PathBuf>,
    /// Only the I-th of N parts of the plan (1-based); join them with `heaplab merge`
    #[arg(long, value_name = "I/N", value_parser = value::shard)]
    pub shard: Option<value::Shard>,
    /// Only one cell: WORKLOAD or WORKLOAD/SUBJECT
    #[arg(long, value_name = "CELL")]
    pub only: Option<String>,
    /// Measure the first subject twice, as if it were two: what differs is this machine's noise
    #[arg(long, conflicts_with = "command")]
    pub aa: bool,
    /// Print the exact worker commands instead of running them
    #[arg(long)]
    pub print_command: bool,
    /// Time after which a run counts as hanging; of a server beyond its --duration
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "120s", help_heading = REPETITIONS)]
    pub timeout: std::time::Duration,
    /// Builds.
    #[command(flatten)]
    pub variants: VariantArgs,
    /// Servers.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Own metrics.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// A program to run under each allocator
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["workloads", "suite"])]
    pub command: Vec<OsString>,
}

/// `heaplab record`
#[derive(Args, Debug, Clone)]
pub struct RecordArgs {
    /// The trace to write [default: <program>.hltrace]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Stacks.
    #[command(flatten)]
    pub stacks: StackArgs,
    /// Keep addresses in the trace (they tell about the program's address space)
    #[arg(long)]
    pub keep_addresses: bool,
    /// What is recorded and how.
    #[command(flatten)]
    pub session: SessionArgs,
    /// Servers.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Own metrics.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `heaplab validate`
#[derive(Args, Debug, Clone)]
pub struct ValidateArgs {
    /// Allocators.
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// How often the program itself is run and replayed under each allocator; four are the fewest with an interval [default: 4]
    #[arg(long, alias = "blocks", value_name = "N", value_parser = value::positive, help_heading = REPETITIONS)]
    pub runs: Option<u32>,
    /// How often at most: where the runs under an allocator do not suffice for a verdict, it alone is run and replayed twice
    /// as often, and so on [default: 16; with --runs: as many as that]
    #[arg(long, value_name = "N", value_parser = value::positive, help_heading = REPETITIONS)]
    pub most_runs: Option<u32>,
    /// How often it is recorded; replays take the recordings in turn [default: as often as it is run]
    #[arg(long, value_name = "N", value_parser = value::positive, help_heading = REPETITIONS)]
    pub recordings: Option<u32>,
    /// Keep the (first) recorded trace here
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub keep_trace: Option<PathBuf>,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table, help_heading = OUTPUT)]
    pub format: Format,
    /// Time after which a run counts as hanging; of a server beyond its --duration
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "10m", help_heading = REPETITIONS)]
    pub timeout: std::time::Duration,
    /// Builds.
    #[command(flatten)]
    pub variants: VariantArgs,
    /// Servers.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Own metrics.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl ValidateArgs {
    /// Runs under each allocator at first.
    pub fn first_runs(&self) -> u32 {
        self.runs.unwrap_or(4)
    }

    /// Runs under one allocator at most.
    pub fn most_runs(&self) -> u32 {
        self.most_runs.or(self.runs).unwrap_or(16)
    }
}

/// `heaplab report`
#[derive(Args, Debug, Clone)]
pub struct ReportArgs {
    /// Result folders or result.json files
    #[arg(required = true, value_name = "RESULT")]
    pub results: Vec<PathBuf>,
    /// Folder to write to [default: the folder of the first result]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `heaplab diff`
#[derive(Args, Debug, Clone)]
pub struct DiffArgs {
    /// Result folder or result.json before
    pub old: PathBuf,
    /// Result folder or result.json after
    pub new: PathBuf,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// `heaplab merge`
#[derive(Args, Debug, Clone)]
pub struct MergeArgs {
    /// Result folders or result.json files
    #[arg(required = true, value_name = "RESULT")]
    pub results: Vec<PathBuf>,
    /// Folder of the joined result; never overwritten
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Do not write report.html, charts and summary.md
    #[arg(long)]
    pub no_report: bool,
}

/// What `heaplab list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    /// Allocators, with version and whether they can be used here
    Subjects,
    /// Built-in models and traces
    Workloads,
    /// Named sets of workloads
    Suites,
    /// What is measured, with units
    Metrics,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For a terminal
    #[default]
    Table,
    /// For programs
    Json,
}

/// `heaplab list`
#[derive(Args, Debug, Clone)]
pub struct ListArgs {
    /// What to list
    #[arg(value_enum)]
    pub what: Listed,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

/// `heaplab doctor`
#[derive(Args, Debug, Clone)]
pub struct DoctorArgs {
    /// Also measure what the harness itself costs here: a replayed call, a hand-over, a time stamp (a few seconds)
    #[arg(long)]
    pub cost: bool,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

/// `heaplab completions`
#[derive(Args, Debug, Clone)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
