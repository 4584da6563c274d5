//! What two workloads ask of an allocator, side by side, to find why a fitted model costs another time or memory than its trace:
//! `cargo run --release -p heaplab-workloads --example fit_gap -- git-log my.toml`. With `--fit FOLDER` before names of traces it fits
//! their models anew, writes them there and prints one line for each trace: (trace) model. With `--table FOLDER` it takes the models
//! that are there, and prints the table of FITTED.md.
//!
//! Free places lie on a stack for each thread and class of sizes (four to a power of two), as thread caches have them. In percent of
//! the calls it prints the kinds of calls, how often a cache of 7 or 64 blocks of a class is empty or full, how many calls ago a block
//! that is freed was allocated, and how many calls ago the place of a new block was given back.

use heaplab_script::{FLAG_SHARED, Op, OpKind, Script};
use heaplab_workloads::fit::fit;
use heaplab_workloads::{Params, Workload};
use std::collections::HashMap;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// Kinds of calls, and that of the op that says how much of the next block is written.
const KINDS: [(&str, OpKind); 6] = [
    ("malloc", OpKind::Malloc),
    ("calloc", OpKind::Calloc),
    ("aligned", OpKind::AlignedAlloc),
    ("realloc", OpKind::Realloc),
    ("free", OpKind::Free),
    ("written in part", OpKind::Written),
];
/// Blocks that a cache of a class holds.
const CAPACITIES: [u32; 2] = [7, 64];
/// Classes that are shown.
const LARGEST: usize = 14;
/// Calls that part ages from each other.
const AGES: [u64; 3] = [64, 1000, 16_000];

#[derive(Default)]
struct Class {
    /// Blocks in the cache, by capacity.
    kept: [u32; CAPACITIES.len()],
    /// At which call each free place was given back.
    places: Vec<u64>,
}

#[derive(Default)]
struct Asked {
    calls: u64,
    kinds: [u64; KINDS.len()],
    classes: HashMap<(u32, usize), Class>,
    misses: [u64; CAPACITIES.len()],
    ages: [u64; AGES.len() + 1],
    places: [u64; AGES.len() + 1],
    /// Allocations from a place that was never used.
    fresh: u64,
    /// Bytes alive by class, and the most of each; the most of all.
    alive: HashMap<usize, (u64, u64)>,
    /// Bytes of each class at the peak of all.
    at_peak: HashMap<usize, u64>,
    risen: bool,
    live: u64,
    peak: u64,
    /// Size and call of each block by thread (shared: none) and slot.
    blocks: HashMap<(Option<u32>, u32), (u64, u64)>,
}

fn class_of(size: u64) -> usize {
    let size = size.max(16);
    let power = size.ilog2();
    ((power << 2) as u64 + ((size >> (power - 2)) & 3)) as usize
}

fn age(calls: u64) -> usize {
    AGES.iter().take_while(|bound| calls > **bound).count()
}

impl Asked {
    fn op(&mut self, thread: u32, op: &Op) {
        if let Some(kind) = KINDS.iter().position(|(_, kind)| *kind as u8 == op.kind) {
            self.kinds[kind] += 1;
        }
        if op.kind > OpKind::Free as u8 {
            return;
        }
        self.calls += 1;
        let owner = (op.flags & FLAG_SHARED == 0).then_some(thread);
        let key = (owner, op.slot);
        let before = self.blocks.remove(&key);
        if let Some((size, since)) = before {
            if op.kind != OpKind::Free as u8 && class_of(size) == class_of(op.size()) {
                // It stays where it is.
                self.blocks.insert(key, (size, since));
                return;
            }
            self.leave(thread, size, since);
        }
        if op.kind != OpKind::Free as u8 {
            let size = op.size().max(1);
            self.blocks.insert(key, (size, self.calls));
            self.come(thread, size);
        }
    }

    fn leave(&mut self, thread: u32, size: u64, since: u64) {
        if std::mem::take(&mut self.risen) {
            // What was a peak is one only now that it is over.
            self.at_peak = (self.alive.iter())
                .map(|(&class, &(bytes, _))| (class, bytes))
                .collect();
        }
        self.ages[age(self.calls - since)] += 1;
        self.live -= size;
        self.alive.entry(class_of(size)).or_default().0 -= size;
        let class = self.classes.entry((thread, class_of(size))).or_default();
        class.places.push(self.calls);
        for (index, most) in CAPACITIES.into_iter().enumerate() {
            class.kept[index] += 1;
            if class.kept[index] > most {
                class.kept[index] -= most / 2;
                self.misses[index] += 1;
            }
        }
    }

    fn come(&mut self, thread: u32, size: u64) {
        self.live += size;
        self.risen |= self.live > self.peak;
        self.peak = self.peak.max(self.live);
        let (alive, most) = self.alive.entry(class_of(size)).or_default();
        *alive += size;
        *most = (*most).max(*alive);
        let class = self.classes.entry((thread, class_of(size))).or_default();
        match class.places.pop() {
            Some(then) => self.places[age(self.calls - then)] += 1,
            None => self.fresh += 1,
        }
        for (index, most) in CAPACITIES.into_iter().enumerate() {
            if class.kept[index] == 0 {
                class.kept[index] = most / 2;
                self.misses[index] += 1;
            }
            class.kept[index] -= 1;
        }
    }

    /// What decides about time, in percent of the calls.
    fn figures(&self) -> [f64; 9] {
        let share = |count: u64| 100.0 * count as f64 / self.calls.max(1) as f64;
        let kinds = self.kinds.map(share);
        [
            kinds[1],
            kinds[2],
            kinds[3],
            kinds[4],
            kinds[5],
            share(self.misses[0]),
            share(self.misses[1]),
            share(self.ages[AGES.len()]),
            share(self.places[1..].iter().sum()),
        ]
    }

    /// The largest classes: bytes from which on, and KiB at their own peak and when most bytes are alive in all.
    fn largest(&self) -> Vec<String> {
        let mut classes: Vec<_> = self.alive.iter().collect();
        classes.sort_by_key(|(class, (_, most))| (std::cmp::Reverse(*most), **class));
        let begin = |class: usize| (4 + (class as u64 & 3)) << (class >> 2) >> 2;
        (classes.into_iter().take(LARGEST))
            .map(|(&class, &(_, most))| {
                let then = self.at_peak.get(&class).copied().unwrap_or(0);
                format!("{} {}/{}", begin(class), most >> 10, then >> 10)
            })
            .collect()
    }

    /// The sum of the classes' peaks as a part of the peak.
    fn spread(&self) -> f64 {
        let classes: u64 = self.alive.values().map(|(_, most)| most).sum();
        classes as f64 / self.peak.max(1) as f64
    }

    fn print(&self, name: &str) {
        let share = |count: u64| 100.0 * count as f64 / self.calls.max(1) as f64;
        let list = |counts: &[u64]| {
            let shares = counts.iter().map(|&count| format!("{:.1}", share(count)));
            shares.collect::<Vec<_>>().join(" / ")
        };
        println!("{name}: {} calls", self.calls);
        for ((kind, _), &count) in KINDS.iter().zip(&self.kinds) {
            print!("  {kind} {:.1}", share(count));
        }
        println!(
            "\n  misses of a cache of 7 {:.2}, of 64 {:.2}\n  age at free up to 64, 1,000, 16,000 calls, more: {}\n  place \
             unused for the same: {}, never used {:.2}\n  peak {} KiB, sum of the classes' peaks {:.3} of it",
            share(self.misses[0]),
            share(self.misses[1]),
            list(&self.ages),
            list(&self.places),
            share(self.fresh),
            self.peak >> 10,
            self.spread()
        );
        println!(
            "  by bytes, KiB at the class's peak/at that of all: {}",
            self.largest().join(", ")
        );
    }
}

fn hear(name: &str, folder: &Path) -> Result<Asked, Failure> {
    let compiled = Workload::resolve(name)?.compile(&Params::default(), folder, &mut |_, _| {})?;
    let script = Script::open(&compiled.path)?;
    let mut next = vec![0; script.thread_count()];
    let mut asked = Asked::default();
    for run in script.order() {
        let thread = run.thread as usize;
        let ops = &script.thread(thread)[next[thread]..][..run.count as usize];
        next[thread] += ops.len();
        ops.iter().for_each(|op| asked.op(run.thread, op));
    }
    Ok(asked)
}

/// Fits a model to each trace, writes it to the folder, and prints the figures of both in one line.
fn fit_all(names: &[String], out: &Path, folder: &Path) -> Result<(), Failure> {
    println!(
        "{:17} {:>5} {:>13} {:>13} {:>11} {:>11} {:>11} {:>11} {:>13} {:>13} {:>11} {:>11} {:>11} {:>6} {:>6}",
        "trace / model",
        "lines",
        "kinds unfor.",
        "with sizes",
        "calloc",
        "aligned",
        "resize",
        "free",
        "partly",
        "miss 7",
        "miss 64",
        "old > 16k",
        "place > 64",
        "peak",
        "spread"
    );
    for name in names {
        let Workload::Trace(trace) = Workload::resolve(name)? else {
            return Err(format!("{name} is not a trace").into());
        };
        let path = out.join(format!("{name}-fitted.toml"));
        let fitted = fit(
            &mut trace.source()?,
            &format!("{name}-fitted"),
            &mut |_, _| {},
        )?;
        std::fs::write(&path, &fitted.text)?;
        let both = [hear(name, folder)?, hear(&path.to_string_lossy(), folder)?];
        let shares = both.each_ref().map(Asked::figures);
        let ((kinds, sizes), (model_kinds, model_sizes)) = fitted.surprise;
        print!("{name:17} {:5}", fitted.text.lines().count());
        for (trace, model) in [(kinds, model_kinds), (sizes, model_sizes)] {
            print!(
                " {:>13}",
                format!("{:.1} / {:.1}", 100.0 * trace, 100.0 * model)
            );
        }
        for (trace, model) in shares[0].iter().zip(&shares[1]) {
            print!(" {:>11}", format!("{trace:.1} / {model:.1}"));
        }
        let ratio = |of: fn(&Asked) -> f64| of(&both[1]) / of(&both[0]);
        println!(
            " {:6.3} {:6.3}",
            ratio(|asked| asked.peak as f64),
            ratio(Asked::spread)
        );
    }
    Ok(())
}

/// The figures of traces and of their models in a folder, as Markdown.
fn table(names: &[String], models: &Path, folder: &Path) -> Result<(), Failure> {
    println!(
        "| trace | calloc | aligned | realloc | free | written in part | a cache of 7 missed | a cache of 64 missed | frees of \
         blocks older than 16,000 calls | places used again after more than 64 calls | the classes' own peaks, of the peak |\n|{}",
        "---|".repeat(11)
    );
    for name in names {
        let path = models.join(format!("{name}-fitted.toml"));
        let both = [hear(name, folder)?, hear(&path.to_string_lossy(), folder)?];
        let [trace, model] = both.each_ref().map(Asked::figures);
        print!("| {name} ");
        for (trace, model) in trace.iter().zip(model) {
            match trace.max(model) < 0.05 {
                true => print!("| 0 "),
                false => print!("| {trace:.1} / {model:.1} "),
            }
        }
        println!("| {:.2} / {:.2} |", both[0].spread(), both[1].spread());
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        return Err("usage: fit_gap WORKLOAD..., or fit_gap --fit|--table FOLDER TRACE...".into());
    }
    let folder = tempfile::tempdir()?;
    if names.len() > 2 && names[0].starts_with("--") {
        let (what, models) = (names[0] == "--table", Path::new(&names[1]));
        return match what {
            true => table(&names[2..], models, folder.path()),
            false => fit_all(&names[2..], models, folder.path()),
        };
    }
    for name in names {
        hear(&name, folder.path())?.print(&name);
    }
    Ok(())
}
