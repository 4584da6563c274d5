//! What a recording costs that is written to a file: an endless loop of allocations, the drainer's pace, memory.

use super::{Bench, Figures, Result, thread_cpu_ns, to_file};
use crate::common::median;
use std::process::Command;

impl Bench {
    pub fn whole(&self, rounds: u64, pairs: u64) -> Result<()> {
        let (mut bare, mut recorded, mut drained) = (Vec::new(), Vec::new(), Vec::new());
        let (mut anonymous, mut bytes) = (Vec::new(), 0.0);
        let raw = self.dir.path().join("raw");
        let mut beside_us = Vec::new();
        let arguments = |pairs: u64| ["pair".to_owned(), "1".to_owned(), pairs.to_string()];
        for _ in 0..rounds {
            // Some ten times slower: fewer pairs.
            if let Some(output) = self.heaptrack(&arguments(pairs / 20)) {
                beside_us.push(Figures::read(&output.stdout)?.wall);
            }
            let mut command = Command::new(&self.program);
            let output = command.args(arguments(pairs)).output()?;
            let alone = Figures::read(&output.stdout)?;
            let mut command = Command::new(&self.program);
            let begun = thread_cpu_ns();
            let (output, events) =
                to_file(&self.recorders[0], command.args(arguments(pairs)), &raw)?;
            drained.push(events as f64 / (thread_cpu_ns() - begun) * 1e3);
            bytes = std::fs::metadata(&raw)?.len() as f64 / events as f64;
            let with = Figures::read(&output.stdout)?;
            anonymous.push(with.anonymous_kib - alone.anonymous_kib);
            bare.push(alone.wall);
            recorded.push(with.wall);
        }
        let of = |values| median(values).unwrap_or(f64::NAN);
        let (bare, recorded) = (of(bare), of(recorded));
        println!("endless pairs of 64 B, one thread, recorded to a file, lossless:");
        println!(
            "  {:.1} M events/s, goal 12 ({recorded:.1} ns an event, bare {bare:.1}: {:.1} times slower)",
            1e3 / recorded,
            recorded / bare
        );
        println!("  raw file {bytes:.2} bytes an event");
        if let Some(heaptrack) = median(beside_us) {
            println!(
                "  heaptrack {heaptrack:.1} ns an event: {:.1} times slower",
                heaptrack / bare
            );
        }
        println!(
            "drainer: {:.1} M events a second of its CPU time (goal: 14)",
            of(drained)
        );
        println!(
            "anonymous memory added to the program: {:.0} KiB (goal: at most 1024)",
            of(anonymous)
        );
        Ok(())
    }
}
