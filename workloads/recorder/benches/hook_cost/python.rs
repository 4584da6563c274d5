//! A program that allocates all the time, as people run it: Python loading JSON, bare and recorded in turns.
//!
//! A machine that others use as well makes single runs differ by more than what recording costs. So a round counts only
//! where neither run of it waited for a CPU, and each round gives one ratio of the two.

use super::{Bench, Result, name, numbers, recorded_and_dropped, thread_cpu_ns, to_file};
use crate::common::median;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Part of a run's time that it may have waited for a CPU.
const MOST_WAITED: f64 = 0.02;
const GOAL: &str = "goal: 5 % wall";

/// Seconds of the loads.
struct Loads {
    wall: f64,
    cpu: f64,
    waited: f64,
    /// Of the quickest load.
    least_cpu: f64,
}

impl Loads {
    fn read(output: &[u8]) -> Result<Self> {
        let [wall, cpu, waited, least_cpu] = numbers(output)?;
        Ok(Self {
            wall,
            cpu,
            waited,
            least_cpu,
        })
    }

    fn undisturbed(&self) -> bool {
        self.waited <= MOST_WAITED * self.wall
    }
}

/// A way to run the program beside the bare one: ratios of the rounds.
#[derive(Default)]
struct Ratios {
    wall: Vec<f64>,
    cpu: Vec<f64>,
    disturbed: usize,
    /// All rounds: what disturbs makes it larger only.
    least_cpu: Option<f64>,
}

impl Ratios {
    fn add(&mut self, with: &Loads, bare: &Loads) {
        self.least_cpu = Some(
            self.least_cpu
                .map_or(with.least_cpu, |least| least.min(with.least_cpu)),
        );
        if with.undisturbed() && bare.undisturbed() {
            self.wall.push(with.wall / bare.wall);
            self.cpu.push(with.cpu / bare.cpu);
        } else {
            self.disturbed += 1;
        }
    }

    fn print(&self, what: &str, least_bare: f64) {
        let Some(least) = self.least_cpu else {
            return;
        };
        let least = (least / least_bare - 1.0) * 100.0;
        if self.wall.is_empty() {
            println!("  {what:<44} no round without others on its CPU; quickest {least:+.1} %");
            return;
        }
        let percent = |values: &[f64]| {
            let mut values: Vec<f64> = values.iter().map(|ratio| (ratio - 1.0) * 100.0).collect();
            values.sort_unstable_by(f64::total_cmp);
            let quarter = values.len() / 4;
            format!(
                "{:+.1} % ({:+.1} to {:+.1})",
                values[values.len() / 2],
                values[quarter],
                values[values.len() - 1 - quarter]
            )
        };
        println!(
            "  {what:<44} wall {:<26} CPU {:<26} quickest {least:+.1} % {} rounds{}",
            percent(&self.wall),
            percent(&self.cpu),
            self.wall.len(),
            match self.disturbed {
                0 => String::new(),
                more => format!(", {more} disturbed ones left out"),
            }
        );
    }
}

impl Bench {
    pub fn python(&self, rounds: u64) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hook_cost/load_json.py");
        let raw = self.dir.path().join("raw");
        let python = || {
            let mut command = Command::new("/usr/bin/python3");
            command.env("PYTHONMALLOC", "malloc").arg(&script);
            command
        };
        // Whoever compares libraries wants to know of them only.
        let alone = self.recorders.len() == 1;
        let [mut dropped, mut beside, mut heaptrack] = std::array::from_fn(|_| Ratios::default());
        let mut recorded: Vec<Ratios> = self.recorders.iter().map(|_| Ratios::default()).collect();
        let (mut bare_runs, mut drained_s, mut events) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            let bare = Loads::read(&python().output()?.stdout)?;
            for turn in 0..self.recorders.len() {
                let at = (turn + round as usize) % self.recorders.len();
                let begun = thread_cpu_ns();
                let (output, count) = to_file(&self.recorders[at], &mut python(), &raw)?;
                drained_s.push((thread_cpu_ns() - begun) / 1e9);
                events = events.max(count);
                recorded[at].add(&Loads::read(&output.stdout)?, &bare);
            }
            if alone {
                let output = recorded_and_dropped(&self.recorders[0], &mut python(), 1)?;
                dropped.add(&Loads::read(&output.stdout)?, &bare);
                beside.add(&Loads::read(&beside_busy(&mut python())?.stdout)?, &bare);
            }
            if alone && round < rounds.div_ceil(3) {
                let mut command = Command::new("heaptrack");
                command.arg("-o").arg(self.dir.path().join("heaptrack"));
                command.env("PYTHONMALLOC", "malloc");
                if let Ok(output) = command.arg("/usr/bin/python3").arg(&script).output() {
                    heaptrack.add(&Loads::read(&output.stdout)?, &bare);
                }
            }
            bare_runs.push(bare);
        }
        let of = |values| median(values).unwrap_or(f64::NAN);
        println!(
            "python3 loading JSON, PYTHONMALLOC=malloc, over bare ({:.3} s): median (quartiles) of the rounds, and CPU time of the \
             quickest load over bare's; {GOAL}",
            of(bare_runs.iter().map(|run| run.wall).collect())
        );
        let least_bare = least_cpu(&bare_runs);
        for (library, ratios) in self.recorders.iter().zip(&recorded) {
            match alone {
                true => ratios.print("recorded to a file", least_bare),
                false => ratios.print(&name(library), least_bare),
            }
        }
        if alone {
            dropped.print("recorded, events dropped by the drainer", least_bare);
            beside.print("not recorded, beside a thread that counts", least_bare);
            heaptrack.print("heaptrack", least_bare);
        }
        println!(
            "  {:.1} M events in the whole run, {:.2} s CPU of the drainer",
            events as f64 / 1e6,
            of(drained_s)
        );
        Ok(())
    }
}

fn least_cpu(runs: &[Loads]) -> f64 {
    runs.iter()
        .map(|run| run.least_cpu)
        .fold(f64::INFINITY, f64::min)
}

/// Runs a command while a thread of this process counts: what two busy CPUs take from each other, recorded or not.
fn beside_busy(command: &mut Command) -> Result<std::process::Output> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 1u64;
            while !over.load(Ordering::Relaxed) {
                for _ in 0..1000 {
                    state = std::hint::black_box(
                        state.wrapping_mul(6_364_136_223_846_793_005) ^ state >> 7,
                    );
                }
            }
        });
        let output = command.output();
        over.store(true, Ordering::Relaxed);
        Ok(output?)
    })
}
