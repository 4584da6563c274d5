//! The plan: which comparisons are run, in what order, and what counts as the same run again.
//!
//! A *comparison* is a workload with its API and threads; every subject runs it. A *stream* is one measure of one
//! comparison; it grows by blocks, and a block is one run of every subject in an order drawn from the seed. Streams
//! are interleaved, so that a machine that slows down for a minute hits all of them and all subjects alike.
//! Everything here is pure: the same seed gives the same plan.

use crate::cli::value::Shard;
use heaplab_reports::schema::{Recorded, RunLine};
use heaplab_worker::protocol::{Api, Machine, Measure, Mode, Touch};
use std::path::PathBuf;

/// One measure of the plan; programs are measured as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Wall and CPU time.
    Speed,
    /// Memory.
    Memory,
    /// Memory again, with an idle tail: once, after everything else of its round, all runs at a time.
    Idle,
    /// Histograms.
    Latency,
    /// Instructions and faults.
    Counts,
    /// A whole program.
    Program,
}

impl Kind {
    /// The word in `runs.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Speed => "speed",
            Kind::Memory => "memory",
            Kind::Idle => "idle",
            Kind::Latency => "latency",
            Kind::Counts => "counts",
            Kind::Program => "program",
        }
    }

    /// The worker's word; `None` for programs, which have no worker.
    pub fn measure(self) -> Option<Measure> {
        match self {
            Kind::Speed => Some(Measure::Speed),
            Kind::Memory | Kind::Idle => Some(Measure::Memory),
            Kind::Latency => Some(Measure::Latency),
            Kind::Counts => Some(Measure::Counts),
            Kind::Program => None,
        }
    }

    /// How the replay goes where the user did not say: the figures of a measure mean something only so.
    pub fn default_mode(self) -> Mode {
        match self {
            Kind::Memory | Kind::Idle | Kind::Counts => Mode::Lockstep,
            Kind::Speed | Kind::Latency | Kind::Program => Mode::Fast,
        }
    }

    /// What the replay writes where the user did not say.
    pub fn default_touch(self) -> Touch {
        match self {
            Kind::Memory | Kind::Idle => Touch::Recorded,
            _ => Touch::First,
        }
    }
}

/// A workload with its API and threads: what all subjects run.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Name of the workload, or the program's command line.
    pub workload: String,
    /// Hash of what is run, hexadecimal.
    pub hash: String,
    /// Entry points.
    pub api: Api,
    /// A whole program instead of a replay.
    pub program: bool,
    /// Threads as the user chooses them: of a model those that run at a time. It names the cell, so it must not depend on
    /// the seed.
    pub threads: u32,
    /// Threads that the replay starts in all: with those that take the place of threads that end.
    pub started_threads: u32,
    /// The script; empty for programs.
    pub script: PathBuf,
    /// Calls of one pass over the script.
    pub calls: u64,
    /// Times that the script's order changes the thread: what lockstep pays for.
    pub switches: u64,
    /// What is measured, in order of the names.
    pub kinds: Vec<Kind>,
    /// The machine as the subjects see it.
    pub machine: Machine,
    /// Factor on recorded times, where the replay is paced.
    pub pace: f64,
    /// Where it was recorded.
    pub recorded: Option<Recorded>,
    /// What a reader must know of it: parts of a trace that are missing.
    pub note: Option<String>,
}

impl Comparison {
    /// `malloc`, `sized` or `program`: the word of cells and run lines.
    pub fn api_name(&self) -> &'static str {
        match (self.program, self.api) {
            (true, _) => "program",
            (false, Api::Malloc) => "malloc",
            (false, Api::Sized) => "sized",
        }
    }

    /// How it is called in progress and messages: `larson t4`, `larson t4 sized`.
    pub fn title(&self) -> String {
        match self.api_name() {
            "program" => self.workload.clone(),
            "malloc" => format!("{} t{}", self.workload, self.threads),
            api => format!("{} t{} {api}", self.workload, self.threads),
        }
    }

    /// Whether a line of `runs.jsonl` belongs to this comparison.
    pub fn owns(&self, line: &RunLine) -> bool {
        line.workload == self.workload
            && line.api == self.api_name()
            && line.threads == self.threads
            && line.workload_hash == self.hash
    }
}

/// One run to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Index of the comparison.
    pub comparison: usize,
    /// Index of the subject.
    pub subject: usize,
    /// Measure.
    pub kind: Kind,
    /// Block, from 0.
    pub block: u32,
    /// Position within the block, from 0.
    pub order: u32,
}

/// The runs of one block of a stream, in their random order.
pub fn block(
    seed: u64,
    at: usize,
    comparison: &Comparison,
    kind: Kind,
    block: u32,
    subjects: usize,
) -> Vec<Item> {
    let stream =
        mix(hash_text(&comparison.workload) ^ hash_text(comparison.api_name()).rotate_left(17))
            ^ (u64::from(comparison.threads) << 8)
            ^ kind as u64;
    let mut order: Vec<usize> = (0..subjects).collect();
    Rng::new(seed, stream ^ (u64::from(block) << 32)).shuffle(&mut order);
    order
        .into_iter()
        .enumerate()
        .map(|(order, subject)| Item {
            comparison: at,
            subject,
            kind,
            block,
            order: order as u32,
        })
        .collect()
}

/// Brings the streams of a round into a random order.
pub fn shuffle_round<T>(seed: u64, round: u32, streams: &mut [T]) {
    Rng::new(seed, 0x726f_756e_6400 ^ u64::from(round)).shuffle(streams);
}

/// Keeps the I-th of N parts. Comparisons stay whole, because subjects are compared within a machine.
pub fn keep_shard(comparisons: Vec<Comparison>, shard: Option<Shard>) -> Vec<Comparison> {
    match shard {
        None => comparisons,
        Some(s) => comparisons
            .into_iter()
            .enumerate()
            .filter(|(i, _)| s.takes(*i))
            .map(|(_, c)| c)
            .collect(),
    }
}

/// Draws a seed that a person can type again.
pub fn draw_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds every hasher from the system's randomness; no other source is needed.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
        % 1_000_000
}

fn hash_text(text: &str) -> u64 {
    // FNV-1a, 64 bits.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn mix(mut z: u64) -> u64 {
    // Finaliser of splitmix64 (Steele, Lea, Flood 2014).
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// splitmix64: small, and written here so that an order drawn today is drawn by every later version.
struct Rng(u64);

impl Rng {
    fn new(seed: u64, stream: u64) -> Self {
        Rng(mix(seed).wrapping_add(mix(stream ^ 0x9e37_79b9_7f4a_7c15)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Fisher-Yates; the index by multiplication, whose bias (below 2⁻³² here) orders nothing.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = ((u128::from(self.next()) * (i as u128 + 1)) >> 64) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn comparison(name: &str, kinds: &[Kind]) -> Comparison {
        Comparison {
            workload: name.into(),
            hash: "00ff".into(),
            api: Api::Malloc,
            program: false,
            threads: 1,
            started_threads: 1,
            script: PathBuf::new(),
            calls: 1000,
            switches: 1,
            kinds: kinds.to_vec(),
            machine: Machine::default(),
            pace: 1.0,
            recorded: None,
            note: None,
        }
    }

    #[test]
    fn a_block_has_every_subject_once_and_repeats_with_its_seed() {
        let c = comparison("churn", &[Kind::Speed]);
        for b in 0..50 {
            let items = block(7, 0, &c, Kind::Speed, b, 4);
            let mut subjects: Vec<usize> = items.iter().map(|i| i.subject).collect();
            assert_eq!(
                items.iter().map(|i| i.order).collect::<Vec<_>>(),
                [0, 1, 2, 3]
            );
            subjects.sort_unstable();
            assert_eq!(subjects, [0, 1, 2, 3]);
            assert_eq!(items, block(7, 0, &c, Kind::Speed, b, 4));
        }
    }

    #[test]
    fn orders_are_spread_evenly() {
        let c = comparison("churn", &[Kind::Speed]);
        let mut first = [0_u32; 4];
        for b in 0..4000 {
            first[block(1, 0, &c, Kind::Speed, b, 4)[0].subject] += 1;
        }
        // Four sigma of a binomial(4000, 1/4) are 110.
        assert!(first.iter().all(|n| n.abs_diff(1000) < 110), "{first:?}");
    }

    #[test]
    fn shards_cover_the_plan_once() {
        let names = ["a", "b", "c", "d", "e"];
        let all: Vec<Comparison> = names.iter().map(|n| comparison(n, &[])).collect();
        let mut seen: Vec<String> = (1..=2)
            .flat_map(|index| keep_shard(all.clone(), Some(Shard { index, of: 2 })))
            .map(|c| c.workload)
            .collect();
        seen.sort();
        assert_eq!(seen, names);
    }
}
