//! Arguments of `heaplab trace …`.

use super::options::{Format, SubjectArgs};
use super::{ListFormat, value};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// `heaplab trace …`
#[derive(Subcommand, Debug, Clone)]
pub enum TraceCommand {
    /// Header, threads and what is known about the recording
    #[command(after_help = "Example:
  heaplab trace info prog.hltrace")]
    Info(TraceFile),
    /// Check every invariant of a trace; exit status 1 if one is broken or something is missing
    #[command(after_help = "Example:
  heaplab trace verify prog.hltrace")]
    Verify(TraceFile),
    /// Sizes, lifetimes, live bytes over time, threads, hand-over between threads
    #[command(after_help = "Examples:
  heaplab trace stats prog.hltrace
  heaplab trace stats prog.hltrace --format json | jq .peak_live_bytes")]
    Stats(TraceFile),
    /// Write a part of a trace that can be replayed
    #[command(
        after_help = "The part is cut along the global order, so nothing is freed that was not allocated. Blocks \
that are alive where it begins are allocated first, by their threads. With --thread, the part holds the blocks that these \
threads allocate; where another thread resized or freed one, its owner does. FILE#PID is one process of several (see `trace info`), as if it had been \
recorded alone: what it inherited by fork is allocated by its ancestors. Addresses stay (--keep-addresses of record).

Examples:
  heaplab trace cut prog.hltrace -o start.hltrace --to 2s
  heaplab trace cut prog.hltrace -o million.hltrace --from-event 1000000 --to-event 2000000
  heaplab trace cut prog.hltrace -o main.hltrace --thread 0
  heaplab trace cut 'build.hltrace#4711' -o compiler.hltrace"
    )]
    Cut(TraceCut),
    /// Write a copy with more or less load, threads or time
    #[command(after_help = "What the options do, in any combination:
  --time F      all times are multiplied by F: 2 makes the program half as fast, 0.5 twice.
                Matters for replays that keep the pace and for idle gaps; sizes and order stay
  --copies N    all threads are there N times side by side: N times the threads, blocks and
                live bytes. --stagger D starts each copy D later, so that their phases do not
                coincide
  --load F      each block becomes F blocks in the same thread at the same moment (2.5: two or
                three): the same threads with more live bytes. Below 1, this share of the
                blocks stays, with all that happens to them
Kept addresses stay as long as no block becomes several; else they are left out, and `trace info` says so.

Examples:
  heaplab trace scale prog.hltrace -o four.hltrace --copies 4 --stagger 50ms
  heaplab trace scale prog.hltrace -o tenth.hltrace --load 0.1")]
    Scale(TraceScale),
    /// Write one trace that holds several
    #[command(
        after_help = "The first trace keeps its thread numbers, those of the others follow. Events are ordered by \
time; --start together (default) lets all begin at once, --start after one when the one before has ended. Each trace stays a \
process of its own unless --one-process makes all their threads those of one program. Kept addresses stay where all traces \
have them and stay processes of their own; else they are left out, and `trace info` says so.

Example:
  heaplab trace merge worker.hltrace frontend.hltrace -o node.hltrace"
    )]
    Merge(TraceMerge),
    /// Store the names of functions, files and lines with a trace, so that it can be read on another machine
    #[command(
        after_help = "Names are resolved from the files that the program ran from, where their build ids are still \
those of the recording. `trace anonymise` drops names and stacks again.

Examples:
  heaplab trace symbolise job.hltrace
  heaplab trace symbolise job.hltrace -o job-named.hltrace"
    )]
    Symbolise(TraceSymbolise),
    /// Write a copy that holds sizes, times and threads, and nothing else of the program
    #[command(
        after_help = "Dropped are the command line, names of programs and threads, marks, remarks, addresses, dates, \
and of the machine all but its number of CPUs, page sizes and memory limit.

Example:
  heaplab trace anonymise prog.hltrace -o to-send.hltrace"
    )]
    Anonymise(TraceAnonymise),
    /// Write the same trace again, as small as it gets
    #[command(
        after_help = "For traces that are kept or committed, for recordings that were cut off (the copy is a whole \
file with an index; what is missing stays said), and for files of older versions.

Example:
  heaplab trace repack prog.hltrace -o small.hltrace"
    )]
    Repack(TraceRepack),
    /// Fit a model to a trace: a small text that behaves like it and holds nothing of the program
    #[command(
        after_help = "The trace is cut into phases; in each, blocks are sorted by role of thread and class of size into \
groups with their sizes, ages, hand-over and share of the calls (workloads/docs/MODELS.md has the language). The model is then replayed \
beside the trace under each allocator, and the table says how near it comes (of times the least of the replays, and beside them \
how far the same model under another name is from itself). --no-check leaves the replays out.

Examples:
  heaplab trace model prog.hltrace -o prog.toml
  heaplab run prog.toml --scale 4 -t 8",
        override_usage = "heaplab trace model [OPTIONS] --out <FILE> <FILE>"
    )]
    Model(TraceModel),
    /// Make a trace of another tool's recording: heaptrack, glibc's mtrace, a CSV table
    #[command(
        after_help = "Formats (told apart by their first bytes; compressed by zstd or gzip or not):
  heaptrack   heaptrack.PROG.PID.zst or .gz, raw or not. It has no threads; a realloc is a free
              and an allocation
  mtrace      the file named by MALLOC_TRACE. It has no threads and no times
  csv         a line of names, then a line a call. Needed columns: call (malloc, calloc, realloc,
              free, … as `trace export` writes them, or new and delete), block (any number that
              names the block: an address will do), size. Known ones: time_ns, thread (from 0),
              alignment, address, new_block (after a realloc that moved)

Examples:
  heaplab trace import heaptrack.prog.1234.zst -o prog.hltrace
  MALLOC_TRACE=prog.log LD_PRELOAD=libc_malloc_debug.so ./prog    (it calls mtrace())
  heaplab trace import prog.log -o prog.hltrace
  heaplab trace export a.hltrace | grep -v ,calloc, | heaplab trace import /dev/stdin -o b.hltrace"
    )]
    Import(TraceImport),
    /// Write the events as a table, or counters over time for Perfetto and chrome://tracing
    #[command(after_help = "Formats:
  csv       a line an event: event, time_ns, thread, call, block, size, alignment (and address,
            where kept)
  chrome    JSON with live bytes, live blocks, requested bytes and calls a second of each process,
            calls a second of the busiest threads, and marks: open it at ui.perfetto.dev
  parquet   the columns of csv; in builds with the feature `parquet`

Examples:
  heaplab trace export prog.hltrace | head
  heaplab trace export prog.hltrace --as chrome -o prog.json")]
    Export(TraceExport),
}

/// A trace to look at.
#[derive(Args, Debug, Clone)]
pub struct TraceFile {
    /// The trace
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

/// `heaplab trace cut`
#[derive(Args, Debug, Clone)]
pub struct TraceCut {
    /// The trace, or a process of it
    #[arg(value_name = "FILE[#PID]")]
    pub file: PathBuf,
    /// The trace to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where the part begins, since the start of the recording
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub from: Option<Duration>,
    /// Where it ends
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub to: Option<Duration>,
    /// First event, counted from 0
    #[arg(long, value_name = "N")]
    pub from_event: Option<u64>,
    /// First event that is left out again
    #[arg(long, value_name = "N")]
    pub to_event: Option<u64>,
    /// Only the blocks of these threads, by number (see `trace info`)
    #[arg(long = "thread", value_name = "N[,N…]", value_delimiter = ',')]
    pub threads: Vec<u32>,
}

/// `heaplab trace scale`
#[derive(Args, Debug, Clone)]
pub struct TraceScale {
    /// The trace
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The trace to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Factor on all times
    #[arg(long, value_name = "F", value_parser = value::scale, default_value = "1")]
    pub time: f64,
    /// How often all threads are there, side by side
    #[arg(long, value_name = "N", value_parser = value::positive, default_value = "1")]
    pub copies: u32,
    /// Time between the starts of the copies
    #[arg(long, value_name = "DURATION", value_parser = value::duration, requires = "copies")]
    pub stagger: Option<Duration>,
    /// Blocks that each block becomes; below 1, the share that stays
    #[arg(long, value_name = "F", value_parser = value::scale, default_value = "1")]
    pub load: f64,
}

/// When merged traces begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StartArg {
    /// All at the same moment
    #[default]
    Together,
    /// Each when the one before has ended
    After,
}

/// `heaplab trace merge`
#[derive(Args, Debug, Clone)]
pub struct TraceMerge {
    /// The traces
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    pub files: Vec<PathBuf>,
    /// The trace to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// When each of them begins
    #[arg(long, value_enum, default_value_t = StartArg::Together)]
    pub start: StartArg,
    /// All threads are those of one process
    #[arg(long)]
    pub one_process: bool,
}

/// `heaplab trace anonymise`
#[derive(Args, Debug, Clone)]
pub struct TraceAnonymise {
    /// The trace
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The trace to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `heaplab trace model`
#[derive(Args, Debug, Clone)]
pub struct TraceModel {
    /// The trace, or the name of a built-in one
    #[arg(value_name = "FILE")]
    pub file: String,
    /// The model to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Allocators that both are replayed under.
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// Replays of each
    #[arg(long, value_name = "N", value_parser = value::positive, default_value = "6")]
    pub blocks: u32,
    /// Only write the model
    #[arg(long)]
    pub no_check: bool,
    /// What is printed on standard output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// `heaplab trace repack`
#[derive(Args, Debug, Clone)]
pub struct TraceRepack {
    /// The trace
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The trace to write; replaced where it exists
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Add a remark; one that begins with 'purpose: ' is what lists show of the trace
    #[arg(long = "note", value_name = "TEXT")]
    pub notes: Vec<String>,
    /// Level of zstd: 1 is fast, 19 small
    #[arg(long, value_name = "N", default_value = "19", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
}

/// What a recording was written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FromArg {
    /// heaptrack
    Heaptrack,
    /// glibc's mtrace
    Mtrace,
    /// Comma-separated values
    Csv,
}

/// `heaplab trace import`
#[derive(Args, Debug, Clone)]
pub struct TraceImport {
    /// The other tool's file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The trace to write; replaced where it exists [default: FILE with the extension hltrace]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Its format [default: what its first bytes say]
    #[arg(long, value_enum)]
    pub from: Option<FromArg>,
    /// Keep addresses in the trace, where the file has them
    #[arg(long)]
    pub keep_addresses: bool,
}

/// What a trace is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AsArg {
    /// Comma-separated values
    #[default]
    Csv,
    /// Counters over time, for Perfetto and chrome://tracing
    #[value(alias = "perfetto")]
    Chrome,
    /// A Parquet file
    Parquet,
}

/// `heaplab trace export`
#[derive(Args, Debug, Clone)]
pub struct TraceExport {
    /// The trace
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Its format
    #[arg(long = "as", value_enum, default_value_t = AsArg::Csv)]
    pub format: AsArg,
    /// Points of each counter at most, with --as chrome [default: 4000]
    #[arg(long, value_name = "N", value_parser = value::positive)]
    pub points: Option<u32>,
}

/// `heaplab trace symbolise`
#[derive(Args, Debug, Clone)]
pub struct TraceSymbolise {
    /// A trace that was recorded with stacks
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// The trace to write [default: the same file]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
