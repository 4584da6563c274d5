//! What the allocators still do with many threads: operations per second by number of threads, and their share of a
//! linear rise.
//!
//! `none` is no allocator: every malloc returns the thread's one block. Its rows say what the machine gives by
//! itself, as processors that share a core or a budget of power rise less than linearly with any work. With `--apart` the
//! same threads also run as processes of one thread each, which cannot share a line, a page or a lock: what is lost there is lost
//! by the machine, what is lost only in one process by the allocator.

mod apart;
mod work;

use apart::Alone;
use clap::Parser;
use spanalloc_benches::choice::Choice;
use spanalloc_benches::{ALLOCATORS, Allocator};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::time::Duration;
use work::{CASES, Case, Round};

/// Operations per second by number of threads, beside jemalloc, mimalloc and the system's allocator.
///
/// Examples:
///   scaling                            all cases on 1, 2, 4 ... as many threads as there are processors
///   scaling --threads 1,8,16 local     one case
///   scaling --apart local              beside as many processes of one thread
///   scaling --library spanalloc-cpu=target/embedded/libspanalloc_preload.so   with SPANALLOC_CONF=front_end=cpu
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Only cases whose name contains one of these.
    filters: Vec<String>,
    /// Numbers of threads. [default: powers of two up to the processors]
    #[arg(long, value_delimiter = ',', value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Rounds; in each, every allocator runs once with every number of threads.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Milliseconds of each run.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,
    /// Also print how often spanalloc's threads left their caches.
    #[arg(long)]
    statistics: bool,
    /// Also run as many processes of one thread, where threads keep to themselves.
    #[arg(long)]
    apart: bool,
    /// This process is one of several apart.
    #[arg(long, hide = true, value_name = "CPU,CASE,ALLOCATOR")]
    alone: Option<Alone>,
    #[command(flatten)]
    choice: Choice,
}

/// The block that `none` hands out.
#[repr(align(128))]
struct Same(UnsafeCell<[u8; 1024]>);

thread_local! {
    static SAME: Same = const { Same(UnsafeCell::new([0; 1024])) };
}

unsafe extern "C" fn same(_: usize) -> *mut c_void {
    SAME.with(|same| same.0.get().cast())
}

unsafe extern "C" fn nothing(_: *mut c_void) {}

unsafe extern "C" fn same_zeroed(_: usize, _: usize) -> *mut c_void {
    SAME.with(|same| same.0.get().cast())
}

unsafe extern "C" fn same_again(block: *mut c_void, _: usize) -> *mut c_void {
    block
}

/// No allocator.
const NONE: Allocator = Allocator {
    name: "none",
    malloc: same,
    free: nothing,
    calloc: same_zeroed,
    realloc: same_again,
};

fn main() {
    let mut arguments = Arguments::parse();
    let mut allocators = arguments.choice.allocators().unwrap_or_else(|error| {
        eprintln!("scaling: {error}");
        std::process::exit(2);
    });
    allocators.push(NONE);
    if let Some(alone) = arguments.alone {
        let time = Duration::from_millis(arguments.milliseconds);
        return alone.run(&CASES, &allocators, time);
    }
    if arguments.threads.is_empty() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as u16;
        arguments.threads = std::iter::successors(Some(1), |&threads: &u16| threads.checked_mul(2))
            .take_while(|&threads| threads <= processors)
            .collect();
    }
    let wanted = |case: &&Case| {
        arguments.filters.is_empty()
            || arguments
                .filters
                .iter()
                .any(|filter| case.name.contains(filter.as_str()))
    };
    let cases: Vec<_> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        eprintln!("scaling: no case matches; there are {}", names.join(", "));
        std::process::exit(2);
    }
    println!(
        "million operations per second, all threads together; in parentheses the share of a linear rise"
    );
    for case in cases {
        print(case, &allocators, &arguments);
    }
}

/// Measures a case and prints its table.
fn print(case: &Case, allocators: &[Allocator], arguments: &Arguments) {
    let threads: Vec<_> = arguments
        .threads
        .iter()
        .map(|&threads| usize::from(threads))
        .filter(|threads| threads.is_multiple_of(case.unit))
        .collect();
    println!("\n{}: {}", case.name, case.operation);
    print!("{:>7}", "threads");
    for allocator in allocators {
        print!("{:>16}", allocator.name);
    }
    println!();
    let (rates, apart) = measure(case, allocators, &threads, arguments);
    let print_row = |head: &str, row: &[f64], number: usize| {
        print!("{head:>7}");
        for (first, rate) in rates[0].iter().zip(row) {
            let linear = first * number as f64 / threads[0] as f64;
            print!("{:>9.1} ({:.2})", rate / 1e6, rate / linear);
        }
        println!();
    };
    for (row, &number) in threads.iter().enumerate() {
        print_row(&number.to_string(), &rates[row], number);
        if let Some(apart) = apart.get(row) {
            print_row("apart", apart, number);
        }
    }
    if arguments.statistics {
        println!(
            "{}",
            statistics(case, threads[threads.len() - 1], arguments)
        );
    }
}

/// What the linked spanalloc did in a run of its own, for a thousand operations.
fn statistics(case: &Case, threads: usize, arguments: &Arguments) -> String {
    let time = Duration::from_millis(arguments.milliseconds);
    let spanalloc = ALLOCATORS[0];
    let before = spanalloc::stats();
    let thousands = Round::run(case, spanalloc, 0..threads, time) * time.as_secs_f64() / 1e3;
    let after = spanalloc::stats();
    let each = |of: fn(&spanalloc::Stats) -> u64| (of(&after) - of(&before)) as f64 / thousands;
    format!(
        "spanalloc, {threads} threads, per 1,000 operations: {:.2} bins filled and {:.2} emptied, {:.2} and {:.2} of them by the transfer \
         cache, {:.3} waits for a lock; {} transfer caches added",
        each(|stats| stats.refills),
        each(|stats| stats.flushes),
        each(|stats| stats.transfer_hits),
        each(|stats| stats.transfer_stores),
        each(|stats| stats.lock_waits),
        after.transfer_shards_added
    )
}

/// A row for each number of threads, a column for each allocator.
type Rates = Vec<Vec<f64>>;

/// Median operations per second of all threads, and of as many processes apart (no rows where that is not wanted).
fn measure(
    case: &Case,
    allocators: &[Allocator],
    threads: &[usize],
    arguments: &Arguments,
) -> (Rates, Rates) {
    let time = Duration::from_millis(arguments.milliseconds);
    let apart_rows = match arguments.apart && case.alone {
        true => threads.len(),
        false => 0,
    };
    let mut together = vec![vec![Vec::new(); allocators.len()]; threads.len()];
    let mut apart = vec![vec![Vec::new(); allocators.len()]; apart_rows];
    for round in 0..usize::from(arguments.rounds) {
        for (row, &number) in threads.iter().enumerate() {
            for turn in 0..allocators.len() {
                let column = (round + turn) % allocators.len();
                let allocator = allocators[column];
                together[row][column].push(Round::run(case, allocator, 0..number, time));
                if let Some(apart) = apart.get_mut(row) {
                    let rate = apart::run(case, allocator, number).unwrap_or_else(|error| {
                        eprintln!("scaling: {number} processes: {error}");
                        std::process::exit(1);
                    });
                    apart[column].push(rate);
                }
            }
        }
    }
    (medians(together), medians(apart))
}

fn medians(rates: Vec<Vec<Vec<f64>>>) -> Rates {
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    rates
        .into_iter()
        .map(|row| row.into_iter().map(median).collect())
        .collect()
}
