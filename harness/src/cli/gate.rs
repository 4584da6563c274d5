//! `heaplab gate`: its commands and their options.

use super::options::{
    Format, MetricArgs, OUTPUT, OutputArgs, REPETITIONS, RepeatArgs, ServiceArgs, SubjectArgs,
    WorkloadArgs,
};
use super::{ListFormat, value};
use clap::{Arg, Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `heaplab gate …`
#[derive(Subcommand, Debug, Clone)]
pub enum GateCommand {
    /// Compare two allocators or two builds of a program in this job and judge the difference
    #[command(
        mut_arg("idle", |arg| arg.hide(true)),
        mut_arg("measure", |arg| arg.help("What to measure [default: speed,memory,counts]")),
        mut_arg("budget", |arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(help.replace("[default: 90s;", "[default: 5m;"))
        }),
        after_help = "Examples:
  heaplab gate run --base system --head ./libnew.so
  heaplab gate run --base old=./old.so --head new=./new.so --suite gate --format markdown
  heaplab gate run --base-cmd './old --bench' --head-cmd './new --bench'

Which commit made it worse? The base is a library of the good commit, built before:
  git bisect start BAD GOOD
  git bisect run sh -c 'cargo build --release || exit 125
      heaplab gate run --bisect --measure counts churn \\
          --base ./good.so --head target/release/libmine.so'

Exit status: 0 pass, 1 regression, 4 a cell failed or is missing, 5 not decided (only with --strict), \
6 the machine cannot judge. With --bisect: 0 pass, 1 regression, 125 (git bisect skips the commit) for everything else, wrong \
usage and figures that are not decided included."
    )]
    Run(Box<GateRunArgs>),
    /// Judge stored results or counts: exact counts and memory
    #[command(after_help = "Examples:
  heaplab gate compare before/ heaplab-results/20261125T020305Z-gate
  heaplab gate compare heaplab-baseline.txt heaplab-results/20261125T020305Z-gate")]
    Compare(GateCompareArgs),
    /// Try the gate on this machine: nothing changed, and changes planted for it
    #[command(after_help = "Examples:
  heaplab gate self-test
  heaplab gate self-test json-dom --scale 0.3 --policy gate.toml --strict

Base and heads are one library around the C library's malloc; its settings plant what the heads are worse by.

Exit status: 0 as it should be, 1 a planted change that repeats was not found, 4 a figure is missing, 5 a planted change \
in time could not be decided (only with --strict), 6 a false alarm: this machine cannot judge.")]
    SelfTest(GateSelfTestArgs),
    /// Stored counts: a text file for the repository, whose diff is the review of a change
    #[command(
        subcommand,
        after_help = "Examples:
  heaplab gate baseline update -a spanalloc
  heaplab gate baseline check -a spanalloc"
    )]
    Baseline(BaselineCommand),
}

/// `heaplab gate baseline …`
#[derive(Subcommand, Debug, Clone)]
pub enum BaselineCommand {
    /// Measure memory and counts and rewrite the file
    #[command(
        mut_args(of_baselines),
        after_help = "Examples:
  heaplab gate baseline update -a ./libnew.so churn json-dom
  heaplab gate baseline update --from heaplab-results/20261125T020305Z-gate --file counts.txt

Each figure is measured twice and must repeat. The seed is that of the file that is there, else drawn; both sides of a \
comparison need the same."
    )]
    Update(Box<BaselineUpdateArgs>),
    /// Measure the same again and judge it by the file
    #[command(
        mut_args(of_baselines),
        after_help = "Example:
  heaplab gate baseline check -a ./libnew.so churn json-dom

Exit status: 0 pass, 1 regression, 3 there is no file, 4 a cell failed or is missing."
    )]
    Check(Box<BaselineCheckArgs>),
}

/// Options that other commands have, too, as baselines have them.
fn of_baselines(arg: Arg) -> Arg {
    match arg.get_id().as_str() {
        "idle" => arg.hide(true),
        "measure" => arg.help("What to measure, memory and counts at most [default: both]"),
        _ => arg,
    }
}

/// What `heaplab gate baseline update` and `check` measure.
#[derive(Args, Debug, Clone)]
pub struct BaselineArgs {
    /// Workloads [default: the suite `gate`]
    #[arg(value_name = "WORKLOAD")]
    pub workloads: Vec<String>,
    /// A named set of workloads [default: gate]
    #[arg(long, value_name = "NAME", conflicts_with = "workloads")]
    pub suite: Option<String>,
    /// Subjects.
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// The file with the stored counts
    #[arg(long, value_name = "FILE", default_value = "heaplab-baseline.txt")]
    pub file: PathBuf,
    /// Limits per metric (TOML): which figures are stored, and how they are judged
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Workload parameters.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Folder of the result set; never overwritten [default: heaplab-results/<UTC time>-gate-baseline]
    #[arg(short, long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,
    /// Time after which a run counts as hanging
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "10m", help_heading = REPETITIONS)]
    pub timeout: Duration,
}

/// `heaplab gate baseline update`
#[derive(Args, Debug, Clone)]
pub struct BaselineUpdateArgs {
    /// Take the figures of this result set instead of measuring
    #[arg(long, value_name = "RESULT", conflicts_with_all = ["workloads", "suite", "subjects", "out"])]
    pub from: Option<PathBuf>,
    /// What is measured and stored.
    #[command(flatten)]
    pub shared: BaselineArgs,
}

/// `heaplab gate baseline check`
#[derive(Args, Debug, Clone)]
pub struct BaselineCheckArgs {
    /// Exit with 5 where something could not be decided
    #[arg(long)]
    pub strict: bool,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table, help_heading = OUTPUT)]
    pub format: Format,
    /// What is measured and compared.
    #[command(flatten)]
    pub shared: BaselineArgs,
}

/// `heaplab gate self-test`
#[derive(Args, Debug, Clone)]
pub struct GateSelfTestArgs {
    /// Workload [default: churn]
    #[arg(value_name = "WORKLOAD")]
    pub workload: Option<String>,
    /// Limits per metric (TOML); what is planted exceeds them
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Exit with 5 where a planted change in time could not be decided
    #[arg(long)]
    pub strict: bool,
    /// Blocks of times [default: 24, at least what the policy needs for a verdict]
    #[arg(long, alias = "runs", value_name = "N", value_parser = value::positive, help_heading = REPETITIONS)]
    pub blocks: Option<u32>,
    /// Seed of models and of the order of runs [default: drawn and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Factor on the operations and live sets of models; of a trace the part from its start, at most 1
    #[arg(long, value_name = "F", default_value = "1", value_parser = value::scale)]
    pub scale: f64,
    /// Folder of the result sets; never overwritten [default: heaplab-results/<UTC time>-gate-self-test]
    #[arg(short, long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = ListFormat::Table, help_heading = OUTPUT)]
    pub format: ListFormat,
    /// Time after which a run counts as hanging
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "10m", help_heading = REPETITIONS)]
    pub timeout: Duration,
}

/// `heaplab gate run`
#[derive(Args, Debug, Clone)]
pub struct GateRunArgs {
    /// Subject before the change: NAME, PATH.so or NAME:key=value
    #[arg(
        long,
        value_name = "SPEC",
        requires = "head",
        required_unless_present = "base_cmd"
    )]
    pub base: Option<String>,
    /// Subject after the change
    #[arg(long, value_name = "SPEC", requires = "base")]
    pub head: Option<String>,
    /// Program before the change, with arguments, as one word for the shell
    #[arg(long, value_name = "CMD", requires = "head_cmd", conflicts_with_all = ["base", "head", "workloads", "suite", "only"])]
    pub base_cmd: Option<String>,
    /// Program after the change
    #[arg(long, value_name = "CMD", requires = "base_cmd")]
    pub head_cmd: Option<String>,
    /// Workloads [default: the suite `gate`]
    #[arg(value_name = "WORKLOAD")]
    pub workloads: Vec<String>,
    /// A named set of workloads [default: gate]
    #[arg(long, value_name = "NAME", conflicts_with = "workloads")]
    pub suite: Option<String>,
    /// Limits per metric (TOML)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Exit with 5 where something could not be decided
    #[arg(long)]
    pub strict: bool,
    /// For `git bisect run`: exit with 125, which skips the commit, wherever the answer is neither pass nor regression
    #[arg(long)]
    pub bisect: bool,
    /// Workload parameters.
    #[command(flatten)]
    pub workload: WorkloadArgs,
    /// Repetitions.
    #[command(flatten)]
    pub repeat: RepeatArgs,
    /// Only one cell: WORKLOAD
    #[arg(long, value_name = "CELL")]
    pub only: Option<String>,
    /// Print the exact commands of both sides instead of running them
    #[arg(long)]
    pub print_command: bool,
    /// Servers.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Own metrics.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Time after which a run counts as hanging; of a server beyond its --duration
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "10m", help_heading = REPETITIONS)]
    pub timeout: Duration,
}

impl GateRunArgs {
    /// Whether what could not be decided is no pass.
    pub fn strict(&self) -> bool {
        self.strict || self.bisect
    }
}

/// `heaplab gate compare`
#[derive(Args, Debug, Clone)]
pub struct GateCompareArgs {
    /// Result folder, result.json or stored counts before
    pub old: PathBuf,
    /// Result folder or result.json after
    pub new: PathBuf,
    /// Limits per metric (TOML)
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Exit with 5 where something could not be decided
    #[arg(long)]
    pub strict: bool,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}
