//! Nanoseconds an event of pairs of malloc and free: bare, recorded by each library, under heaptrack, in turns.
//!
//! What runs first in a round, and what runs after what, changes from round to round; differences are taken within a
//! round, so that a change of the machine's pace meets both sides of them.

use super::{Bench, Figures, Result, name, recorded_and_dropped};
use crate::common::middle_and_least;
use std::path::Path;
use std::process::Command;

/// Title, mode, threads, and the most that recording may add to an event, where there is such a goal.
const LOADS: [(&str, &str, u32, Option<u32>); 4] = [
    ("random 16 B to 2 KiB, 1 thread", "random", 1, None),
    ("random 16 B to 2 KiB, 2 threads", "random", 2, None),
    ("tight pair of 64 B, 1 thread", "pair", 1, Some(10)),
    ("tight pair of 64 B, 2 threads", "pair", 2, Some(12)),
];

/// How the program is run.
#[derive(Clone, Copy)]
enum Variant<'a> {
    Bare,
    Recorded(&'a Path),
    Heaptrack,
}

impl Variant<'_> {
    fn name(self) -> String {
        match self {
            Variant::Bare => "bare".to_owned(),
            Variant::Recorded(library) => name(library),
            Variant::Heaptrack => "heaptrack".to_owned(),
        }
    }
}

impl Bench {
    pub fn times(&self, rounds: u64, pairs: u64) -> Result<()> {
        println!(
            "nanoseconds an event; median (least) of {rounds} rounds, in turns; over bare: the same of the differences within a round"
        );
        let recorded = self.recorders.iter().map(|one| Variant::Recorded(one));
        let variants: Vec<Variant> = [Variant::Bare]
            .into_iter()
            .chain(recorded)
            // Whoever compares libraries wants to know of them only.
            .chain((self.recorders.len() == 1).then_some(Variant::Heaptrack))
            .collect();
        for (title, mode, threads, goal) in LOADS {
            // Of each variant, a place a round.
            let mut results: Vec<Vec<Figures>> = variants.iter().map(|_| Vec::new()).collect();
            for round in 0..rounds as usize {
                for turn in 0..variants.len() {
                    let at = (round + turn) % variants.len();
                    results[at].extend(self.time(variants[at], mode, threads, pairs)?);
                }
            }
            let goal = goal.map_or(String::new(), |ns| {
                format!("; goal: CPU time {ns} over bare")
            });
            println!("{title}{goal}");
            println!(
                "  {:<26}{:>18}{:>18}{:>18}{:>18}",
                "", "CPU time", "over bare", "wall time", "over bare"
            );
            for (variant, figures) in variants.iter().zip(&results) {
                let cell = |of: &dyn Fn(usize, &Figures) -> f64| {
                    let values = figures.iter().enumerate().map(|(at, one)| of(at, one));
                    let text = middle_and_least(values.collect())
                        .map_or("-".to_owned(), |(middle, least)| {
                            format!("{middle:.1} ({least:.1})")
                        });
                    format!("{text:>18}")
                };
                let bare = &results[0];
                println!(
                    "  {:<26}{}{}{}{}",
                    variant.name(),
                    cell(&|_, one| one.cpu),
                    cell(&|at, one| one.cpu - bare[at].cpu),
                    cell(&|_, one| one.wall),
                    cell(&|at, one| one.wall - bare[at].wall),
                );
            }
        }
        println!(
            "CPU time is that of the program's threads. They and the drainer share {} CPUs: where there are not more of these \
             than threads, wall time over bare is the hook and the drainer's work on the same CPU.",
            std::thread::available_parallelism()?
        );
        Ok(())
    }

    /// One run; `None` where heaptrack is not installed.
    fn time(
        &self,
        variant: Variant,
        mode: &str,
        threads: u32,
        pairs: u64,
    ) -> Result<Option<Figures>> {
        let mut command = Command::new(&self.program);
        let arguments = |pairs: u64| [mode.to_owned(), threads.to_string(), pairs.to_string()];
        let output = match variant {
            Variant::Bare => command.args(arguments(pairs)).output()?,
            Variant::Recorded(library) => {
                let events = pairs * 2 * u64::from(threads);
                recorded_and_dropped(library, command.args(arguments(pairs)), events)?
            }
            // Some ten times slower: fewer pairs, or it would take all the time.
            Variant::Heaptrack => match self.heaptrack(&arguments(pairs / 10)) {
                Some(output) => output,
                None => return Ok(None),
            },
        };
        Figures::read(&output.stdout).map(Some)
    }
}
