//! Arguments of `heaplab profile`, and of stacks wherever they are recorded.

use super::options::{MetricArgs, OUTPUT, ServiceArgs, SessionArgs};
use super::value;
use clap::{Args, ValueEnum};
use heaplab_workloads::trace::StackMode;
use std::ffi::OsString;
use std::path::PathBuf;

/// What stands below the help.
pub const EXAMPLES: &str = "What is shown, by the program's own calls (function, file and line):
  live at the peak   what the largest sum of live bytes consisted of
  allocated          all bytes and allocations, a resize with its whole new size
  short-lived        blocks freed before the thread that allocated them made N more allocations
                     (--short-lived)
  never freed        blocks alive when their process ended, reachable or not

Sampled stacks cost next to nothing and give estimates with their error; the sums over the program are exact. Names need \
debug information: compile with -g; for a system's libraries install its -dbgsym packages.

Examples:
  heaplab profile -- ./server --once
  heaplab profile --stacks full -o profile -- python3 job.py
  heaplab profile job.hltrace                       a trace recorded with --stacks
  heaplab profile --format json job.hltrace | jq '.sites[0]'

Exit status with a program: its own, 128 + n if signal n ended it; 125 heaplab itself failed or nothing could be \
recorded, 126 the program is not executable, 127 it was not found.";

const STACKS: &str = "Stacks";

/// Which allocations bring their stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stacks {
    /// None
    Off,
    /// One of so many bytes on average: next to no cost
    Sampled,
    /// Each of them
    Full,
}

impl Stacks {
    fn mode(self, period: u32) -> StackMode {
        match self {
            Stacks::Off => StackMode::Off,
            Stacks::Sampled => StackMode::Sampled { period },
            Stacks::Full => StackMode::Full,
        }
    }
}

/// Stacks of `heaplab record`.
#[derive(Args, Clone, Debug)]
pub struct StackArgs {
    /// Which allocations bring their stacks, for `heaplab profile`
    #[arg(long, value_enum, default_value_t = Stacks::Off, help_heading = STACKS)]
    pub stacks: Stacks,
    /// Bytes allocated for each stack, on average
    #[arg(long, value_name = "SIZE", value_parser = value::stack_period, default_value = "512KiB", help_heading = STACKS)]
    pub stack_period: u32,
    /// Store names with the trace, so that it can be read on another machine
    #[arg(long, help_heading = STACKS)]
    pub embed_symbols: bool,
}

impl StackArgs {
    /// What the recorder is told.
    pub fn mode(&self) -> StackMode {
        self.stacks.mode(self.stack_period)
    }
}

/// `heaplab profile`
#[derive(Args, Debug, Clone)]
pub struct ProfileArgs {
    /// A trace that was recorded with stacks
    #[arg(
        value_name = "TRACE",
        conflicts_with = "command",
        required_unless_present = "command"
    )]
    pub trace: Option<PathBuf>,
    /// Folder for the profile [default: heaplab-results/<UTC time>-profile-<name>]
    #[arg(short, long, value_name = "DIR", help_heading = OUTPUT)]
    pub out: Option<PathBuf>,
    /// Which allocations of the program bring their stacks [default: sampled]
    #[arg(long, value_enum, conflicts_with = "trace", help_heading = STACKS)]
    pub stacks: Option<Stacks>,
    /// Bytes allocated for each stack, on average, where they are sampled
    #[arg(long, value_name = "SIZE", value_parser = value::stack_period, default_value = "64KiB", help_heading = STACKS)]
    pub stack_period: u32,
    /// A block is short-lived when it is freed before its thread makes this many more allocations
    #[arg(long, value_name = "N", default_value = "10", value_parser = value::positive)]
    pub short_lived: u32,
    /// Only this process of the trace, as `heaplab trace info` lists it (TRACE#PID says the same)
    #[arg(long, value_name = "PID", requires = "trace")]
    pub process: Option<String>,
    /// Rows of each table
    #[arg(long, value_name = "N", default_value = "10", value_parser = value::positive, help_heading = OUTPUT)]
    pub top: u32,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = ProfileFormat::Table, help_heading = OUTPUT)]
    pub format: ProfileFormat,
    /// The recording.
    #[command(flatten)]
    pub session: SessionArgs,
    /// Servers.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Own metrics.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// The program and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

impl ProfileArgs {
    /// What the recorder is told.
    pub fn mode(&self) -> StackMode {
        self.stacks
            .unwrap_or(Stacks::Sampled)
            .mode(self.stack_period)
    }
}

/// What `heaplab profile` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileFormat {
    /// Tables for people; with a program on standard error, which leaves standard output to the program
    Table,
    /// profile.json
    Json,
}
