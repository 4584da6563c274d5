//! Whether something else had the machine while a run was timed: CPU time that the host took away, CPU time of other
//! processes, a CPU that changed its speed. A disturbed run is made once more; what is disturbed again is marked.

mod held_up;

pub use held_up::HeldUp;

use heaplab_worker::protocol::Report;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Shares above which a run counts as disturbed: of one CPU's time.
const STEAL: f64 = 0.02;
const OTHERS: f64 = 0.10;
/// Relative change of a CPU's frequency.
const FREQUENCY: f64 = 0.05;
/// Clock ticks a second of /proc; fixed on Linux for x86-64.
const TICKS: f64 = 100.0;
/// Ticks beyond rounding that something must have had: what is left of a short run is chance.
const LEAST_TICKS: f64 = 1.5;
/// Below this many seconds ticks say nothing.
const LEAST_SECONDS: f64 = 0.03;

/// What else went on, as shares of one CPU's time during the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// Taken away by the host.
    pub steal: f64,
    /// Used by other processes.
    pub others: f64,
    /// How long the program was ready to run and did not, where it was looked at. Threads that outnumber the CPUs hold each
    /// other up as well: only the smaller of this and of what others used is their doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up: Option<f64>,
    /// Relative change of a CPU's frequency, 0 where it cannot be seen: of the one that replayed, from its first call to its last; where a
    /// program ran, of the fastest one, from before to after.
    pub frequency: f64,
    /// The run was made a second time because the first was disturbed.
    pub repeated: bool,
    /// How long the run took with its start, seconds: what the shares are of.
    #[serde(default)]
    pub seconds: f64,
}

impl Disturbance {
    /// Whether the run's times should be looked at with care.
    pub fn matters(&self) -> bool {
        let least = LEAST_TICKS / TICKS / self.seconds.max(LEAST_SECONDS);
        self.steal > STEAL.max(least)
            || self.taken() > OTHERS.max(least)
            || self.frequency > FREQUENCY
    }

    /// What other processes took of the run: all that they used, unless it is known how long it was held up.
    pub fn taken(&self) -> f64 {
        self.held_up
            .map_or(self.others, |held| held.min(self.others))
    }

    /// In words, for a line of progress.
    pub fn told(&self) -> String {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let held = (self.held_up).map(|held| format!(", held up for {}", percent(held)));
        format!(
            "{}others {}, host {}{}",
            if self.matters() { "DISTURBED: " } else { "" },
            percent(self.others),
            percent(self.steal),
            held.unwrap_or_default()
        )
    }

    /// The same with how long the program was held up, as a share of its time.
    pub fn with_held_up(self, held_up: Option<f64>) -> Self {
        Self { held_up, ..self }
    }

    /// The same with the frequencies, kHz, that the run's own CPU had at its begin and its end, where they can be seen. What another one
    /// does is none of its business, and one that waits for a run to begin is slower than the same in the middle of it.
    pub fn with_own_cpu(self, khz: Option<[u64; 2]>) -> Self {
        Self {
            frequency: khz.map_or(0.0, |[begin, end]| change(begin as f64, end as f64)),
            ..self
        }
    }
}

/// The machine's counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    busy: f64,
    steal: f64,
    own: f64,
    frequency: f64,
}

/// A look at the machine before a run.
pub struct Watch {
    began: Instant,
    before: Option<Counters>,
}

impl Watch {
    /// Begins to watch.
    pub fn new() -> Self {
        Self {
            before: read(),
            began: Instant::now(),
        }
    }

    /// What went on since, where it can be told.
    pub fn end(self) -> Option<Disturbance> {
        let seconds = self.began.elapsed().as_secs_f64();
        let (before, after) = (self.before?, read()?);
        judge(&before, &after, seconds)
    }

    /// Makes a run, once more if the first was disturbed; `None` where the machine cannot be watched.
    ///
    /// # Errors
    /// The run's own.
    pub fn over<T>(
        run: impl FnMut() -> Result<T, String>,
    ) -> Result<(T, Option<Disturbance>), String> {
        Self::over_program(run, |_| None)
    }

    /// The same for a program of which is known for what share of its time it was held up.
    ///
    /// # Errors
    /// The run's own.
    pub fn over_program<T, E>(
        run: impl FnMut() -> Result<T, E>,
        held_up: impl Fn(&T) -> Option<f64>,
    ) -> Result<(T, Option<Disturbance>), E> {
        Self::over_known(run, |done, found| found.with_held_up(held_up(done)))
    }

    /// The same for a replay.
    ///
    /// # Errors
    /// The run's own.
    pub fn over_replay<E>(
        run: impl FnMut() -> Result<Report, E>,
    ) -> Result<(Report, Option<Disturbance>), E> {
        Self::over_known(run, |report, found| found.with_own_cpu(report.own_cpu_khz))
    }

    /// A run whose answer says more of what went on.
    fn over_known<T, E>(
        mut run: impl FnMut() -> Result<T, E>,
        known: impl Fn(&T, Disturbance) -> Disturbance,
    ) -> Result<(T, Option<Disturbance>), E> {
        twice(|| {
            let watch = Self::new();
            let done = run()?;
            let found = watch.end().map(|found| known(&done, found));
            Ok((done, found))
        })
    }
}

/// A run, and another one instead where it was disturbed.
fn twice<T, E>(
    mut once: impl FnMut() -> Result<(T, Option<Disturbance>), E>,
) -> Result<(T, Option<Disturbance>), E> {
    let (first, found) = once()?;
    if !found.is_some_and(|found| found.matters()) {
        return Ok((first, found));
    }
    let (second, again) = once()?;
    let again = again.map(|found| Disturbance {
        repeated: true,
        ..found
    });
    Ok((second, again))
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

fn judge(before: &Counters, after: &Counters, seconds: f64) -> Option<Disturbance> {
    if seconds < LEAST_SECONDS {
        return None;
    }
    let share = |ticks: f64| (ticks / TICKS / seconds).max(0.0);
    // A tick on either side is rounding.
    let own = after.own - before.own;
    let others = after.busy - before.busy - own - 2.0;
    Some(Disturbance {
        steal: share(after.steal - before.steal - 1.0),
        others: share(others),
        held_up: None,
        frequency: change(before.frequency, after.frequency),
        repeated: false,
        seconds,
    })
}

/// Relative change; 0 where a value is not known.
fn change(before: f64, after: f64) -> f64 {
    match before.min(after) {
        0.0 => 0.0,
        _ => (after - before).abs() / before.max(after),
    }
}

fn read() -> Option<Counters> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    let (busy, steal) = machine_ticks(&stat)?;
    Some(Counters {
        busy,
        steal,
        own: own_ticks(&own)?,
        frequency: fastest(Path::new("/sys/devices/system/cpu")),
    })
}

/// Busy and stolen ticks of all CPUs since boot.
fn machine_ticks(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<f64> = (line.split_whitespace().skip(1))
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let busy = ticks.first()? + ticks.get(1)? + ticks.get(2)? + ticks.get(5)? + ticks.get(6)?;
    Some((busy, ticks.get(7).copied().unwrap_or(0.0)))
}

/// Ticks of this process and of its children that have ended.
fn own_ticks(stat: &str) -> Option<f64> {
    // The name in parentheses may contain anything; user time is the 12th field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<f64>().ok())
        .sum()
}

/// Frequency of the fastest CPU, kHz; 0 where it cannot be seen.
fn fastest(cpus: &Path) -> f64 {
    (0..1024)
        .map_while(|cpu| {
            let file = cpus.join(format!("cpu{cpu}/cpufreq/scaling_cur_freq"));
            fs::read_to_string(file).ok()?.trim().parse::<f64>().ok()
        })
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn others_and_the_host_are_told_from_ourselves() {
        let stat = "cpu  100 5 20 1000 3 1 2 40 0 0\ncpu0 1 1 1\n";
        assert_eq!(machine_ticks(stat), Some((128.0, 40.0)));
        let own = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 11 4 30 5 20 0 1 0";
        assert_eq!(own_ticks(own), Some(50.0));
        let before = Counters::default();
        let quiet = Counters {
            busy: 101.0,
            own: 100.0,
            ..before
        };
        assert!(!judge(&before, &quiet, 1.0).unwrap().matters());
        let busy = Counters {
            busy: 160.0,
            own: 100.0,
            ..before
        };
        let found = judge(&before, &busy, 1.0).unwrap();
        assert!(
            found.matters() && (found.others - 0.58).abs() < 1e-9,
            "{found:?}"
        );
        let stolen = Counters {
            steal: 10.0,
            ..before
        };
        assert!(judge(&before, &stolen, 1.0).unwrap().matters());
        assert!(judge(&before, &stolen, 0.01).is_none(), "too short to tell");
        // A program that has a CPU to itself beside them is not, and one that waits for its own threads only is not either.
        assert!(!found.with_held_up(Some(0.02)).matters());
        assert!(found.with_held_up(Some(0.2)).matters());
        let alone = judge(&before, &quiet, 1.0).unwrap();
        assert!(!alone.with_held_up(Some(0.9)).matters());
        // In a twentieth of a second a program beside has five ticks, and rounding two.
        let beside = |busy| {
            let after = Counters {
                busy,
                own: 5.0,
                ..before
            };
            judge(&before, &after, 0.05).unwrap().matters()
        };
        assert!(beside(10.0) && !beside(8.0));
    }

    #[test]
    fn a_cpu_that_changes_its_speed_disturbs_and_only_the_runs_own_where_it_is_known() {
        let cpus = tempfile::tempdir().unwrap();
        let set = |cpu: usize, khz: &str| {
            let folder = cpus.path().join(format!("cpu{cpu}/cpufreq"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("scaling_cur_freq"), khz).unwrap();
        };
        assert_eq!(fastest(cpus.path()), 0.0);
        set(0, "1200000\n");
        set(1, "3000000\n");
        assert_eq!(fastest(cpus.path()), 3e6);
        let at = |frequency| Counters {
            frequency,
            ..Counters::default()
        };
        let found = |before, after| judge(&at(before), &at(after), 1.0).unwrap();
        assert!((found(3e6, 2.4e6).frequency - 0.2).abs() < 1e-9);
        assert!(found(3e6, 2.8e6).matters() && found(2.8e6, 3e6).matters());
        assert!(!found(3e6, 2.9e6).matters() && !found(3e6, 3e6).matters());
        // Where it cannot be seen, or not any more, nothing is said of it.
        assert!(!found(0.0, 0.0).matters() && !found(3e6, 0.0).matters());
        // One that was asleep when the run began, and the run's own at full speed all the time.
        let woken = found(1.2e6, 3e6);
        assert!(!woken.with_own_cpu(Some([3_000_000, 2_990_000])).matters());
        let slowed = found(3e6, 3e6).with_own_cpu(Some([3_000_000, 2_100_000]));
        assert!(slowed.matters() && (slowed.frequency - 0.3).abs() < 1e-9);
        assert!(!woken.with_own_cpu(None).matters());
        let run = || {
            std::thread::sleep(std::time::Duration::from_millis(40));
            Ok::<_, String>(Report {
                own_cpu_khz: Some([3_000_000, 1_500_000]),
                ..Report::default()
            })
        };
        let (_, found) = Watch::over_replay(run).unwrap();
        assert_eq!(found.map(|found| found.frequency), Some(0.5));
    }

    #[test]
    fn a_disturbed_run_is_made_once_more_and_no_more_often() {
        let made = |steals: &[f64]| {
            let runs = Cell::new(0);
            let (number, found) = twice(|| {
                let at = runs.replace(runs.get() + 1);
                let found = Disturbance {
                    steal: steals[at],
                    seconds: 1.0,
                    ..Disturbance::default()
                };
                Ok::<_, String>((at, Some(found)))
            })
            .unwrap();
            let found = found.unwrap();
            (number, found.repeated, found.matters())
        };
        assert_eq!(made(&[0.0]), (0, false, false));
        assert_eq!(made(&[0.5, 0.0]), (1, true, false));
        assert_eq!(made(&[0.5, 0.5]), (1, true, true));
    }

    #[test]
    fn a_run_is_watched() {
        let spins = || {
            let until = Instant::now() + std::time::Duration::from_millis(150);
            while Instant::now() < until {}
            Ok(())
        };
        let ((), found) = Watch::over(spins).unwrap();
        let found = found.unwrap();
        // What ran beside it is the machine's affair; our own work is none of others'.
        assert!(
            found.seconds >= 0.15 && found.held_up.is_none(),
            "{found:?}"
        );
    }
}
