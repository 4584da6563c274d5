//! What a process that does nothing has in memory because of its allocator: this program again, with a
//! library in `LD_PRELOAD`, after one malloc, less the same without.
//!
//! `resident` counts every page that is mapped into the process, those of the C library included that the library
//! has made it touch; pages of files are in memory once for all processes. `anonymous` is the process's alone.
//!
//! ```sh
//! cargo build --profile embedded -p spanalloc-preload
//! cargo run --release --manifest-path allocator/benches/Cargo.toml --bin started -- target/embedded/libspanalloc_preload.so
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where distributions put the peers.
const PEERS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
    "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
];
/// Processes of which the mean counts: where the kernel puts a library decides what it maps around each page that is touched,
/// which is up to 150 KiB more or less in one of them.
const PROCESSES: usize = 400;
/// Fields of `smaps_rollup`; the last column is made of `smaps`.
const FIELDS: [&str; 3] = ["Rss", "Pss", "Anonymous"];

/// KiB of the fields, and the resident KiB of what is neither the program nor the system's: the library's
/// mappings and its heap.
fn figures() -> Option<[i64; 4]> {
    // SAFETY: the block is written to within its size and freed once. Nothing is allocated between here and
    // the reading but what std does in every run alike.
    unsafe {
        let block: *mut u8 = libc::malloc(100).cast();
        std::hint::black_box(block).write_volatile(1);
        libc::free(block.cast());
    }
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let preloaded = std::env::var("LD_PRELOAD").unwrap_or_default();
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let kib = |line: &str| line.split_whitespace().nth(1)?.parse::<i64>().ok();
    let mut figures = [0; 4];
    for (figure, field) in figures.iter_mut().zip(FIELDS) {
        let line = rollup
            .lines()
            .find(|line| line.split(':').next() == Some(field))?;
        *figure = kib(line)?;
    }
    let mut of_library = false;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            of_library = !preloaded.is_empty() && line.ends_with(&preloaded);
        } else if first == "Rss:" && of_library {
            figures[3] += kib(line)?;
        }
    }
    Some(figures)
}

/// The figures of one process with `library`.
fn measure(library: Option<&Path>) -> Result<[i64; 4], String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(&program);
    command.arg("--child").env_remove("LD_PRELOAD");
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<i64> = text
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    <[i64; 4]>::try_from(figures).map_err(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let name = library.map_or("no library".into(), |library| library.to_string_lossy());
        format!("{name}: the measured process failed: {}", errors.trim())
    })
}

/// Sums of a subject's figures, and of the squares of the first one.
#[derive(Clone, Default)]
struct Sums {
    figures: [i64; 4],
    squares: i64,
}

impl Sums {
    fn add(&mut self, figures: [i64; 4]) {
        for (sum, figure) in self.figures.iter_mut().zip(figures) {
            *sum += figure;
        }
        self.squares += figures[0] * figures[0];
    }

    fn mean(&self, column: usize) -> f64 {
        self.figures[column] as f64 / PROCESSES as f64
    }

    /// Of the mean of the first figure: its square.
    fn variance(&self) -> f64 {
        let mean = self.mean(0);
        (self.squares as f64 / PROCESSES as f64 - mean * mean) / PROCESSES as f64
    }
}

/// All subjects in turns, so that what changes in the system while they run changes for all of them.
fn table(libraries: &[PathBuf]) -> Result<(), String> {
    let mut without = Sums::default();
    let mut with = vec![Sums::default(); libraries.len()];
    for _ in 0..PROCESSES {
        without.add(measure(None)?);
        for (library, sums) in libraries.iter().zip(&mut with) {
            sums.add(measure(Some(library))?);
        }
    }
    println!(
        "{:<36}{:>10}{:>10}{:>14}{:>11}{:>16}",
        "KiB over no preload",
        "resident",
        "std error",
        "proportional",
        "anonymous",
        "library's pages"
    );
    for (library, sums) in libraries.iter().zip(&with) {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let more: [f64; 4] = std::array::from_fn(|column| sums.mean(column) - without.mean(column));
        let error = (sums.variance() + without.variance()).sqrt();
        println!(
            "{name:<36}{:>10.0}{error:>10.1}{:>14.0}{:>11.0}{:>16.0}",
            more[0], more[1], more[2], more[3]
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--child") {
        let Some(figures) = figures() else {
            eprintln!("/proc/self/smaps_rollup cannot be read");
            return ExitCode::FAILURE;
        };
        println!("{}", figures.map(|figure| figure.to_string()).join(" "));
        return ExitCode::SUCCESS;
    }
    if arguments.is_empty() || arguments.iter().any(|argument| argument.starts_with('-')) {
        eprintln!("usage: started LIBRARY.so ...   (peers that are installed are measured, too)");
        return ExitCode::from(2);
    }
    let mut libraries = Vec::new();
    for argument in &arguments {
        match std::fs::canonicalize(argument) {
            Ok(path) => libraries.push(path),
            Err(error) => {
                eprintln!("{argument}: {error}; build it first");
                return ExitCode::FAILURE;
            }
        }
    }
    libraries.extend(
        PEERS
            .into_iter()
            .map(PathBuf::from)
            .filter(|path| path.exists()),
    );
    if let Err(error) = table(&libraries) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
