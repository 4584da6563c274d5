//! Does a replay predict? Predicted and actual peak heap of a program and its time in allocation under each subject, and
//! whether they order the subjects alike. Pure: figures in, judgement out.

mod asked;
mod face;
mod measured;

use heaplab_reports::schema::Metric;
use heaplab_reports::stats;
use serde::Serialize;
use std::collections::BTreeMap;

pub use asked::Asked;
pub use face::{Facts, print};
pub use measured::measured;

/// Medians that differ by no more are not ordered, whatever the runs say.
const DIFFER: f64 = 0.05;
/// Error of the peak that is aimed at: one thread, and more.
const GOAL_ONE: f64 = 0.02;
const GOAL_MORE: f64 = 0.03;

/// One side of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
struct Side {
    median: Option<f64>,
    /// Distance between smallest and largest, as a share of the median.
    spread: Option<f64>,
}

impl Side {
    fn of(samples: &[f64]) -> Self {
        let median = stats::median(samples);
        let ends = samples
            .iter()
            .copied()
            .reduce(f64::min)
            .zip(samples.iter().copied().reduce(f64::max));
        let spread = median
            .filter(|middle| *middle > 0.0)
            .zip(ends)
            .map(|(middle, (low, high))| (high - low) / middle);
        Self { median, spread }
    }
}

/// Figures from which an interval exists.
const LEAST_FOR_INTERVAL: usize = 4;
/// Figures from which a miss is believed where those of one side lie further apart than the goal. A program that takes one of two
/// courses by chance has four runs on the one and four replays on the other once in 128 times, and its interval then excludes the goal; eight
/// of each once in 32,768.
const LEAST_FOR_MISS: usize = 8;

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// It.
    pub value: f64,
    /// Something else had the machine while it was taken, although it was taken twice; of a replay, while the program was
    /// recorded.
    pub disturbed: bool,
}

/// What a verdict is made of.
struct Kept {
    values: Vec<f64>,
    /// None of them was disturbed.
    quiet: bool,
}

impl Kept {
    /// The undisturbed figures; all of them where those are too few for an interval and others were disturbed.
    fn of(samples: &[Seen]) -> Self {
        let undisturbed: Vec<f64> = (samples.iter().filter(|seen| !seen.disturbed))
            .map(|seen| seen.value)
            .collect();
        let quiet = undisturbed.len() >= LEAST_FOR_INTERVAL.min(samples.len());
        Self {
            values: match quiet {
                true => undisturbed,
                false => values(samples),
            },
            quiet,
        }
    }
}

fn values(samples: &[Seen]) -> Vec<f64> {
    samples.iter().map(|seen| seen.value).collect()
}

/// How many were disturbed.
pub fn disturbed(samples: &[Seen]) -> usize {
    samples.iter().filter(|seen| seen.disturbed).count()
}

/// One subject's figures. Those of peaks are of its undisturbed replays and runs, where they are enough ([`Kept`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Label.
    pub subject: String,
    /// A build of the program with an allocator linked in: it is run and not replayed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub variant: bool,
    /// Median peak of the replays' resident bytes, the worker's own left out.
    pub predicted_peak_bytes: Option<f64>,
    /// Distance between the smallest and the largest of the replays' peaks, as a share of the median.
    pub predicted_spread: Option<f64>,
    /// Median peak of the program's heap.
    pub actual_peak_bytes: Option<f64>,
    /// Distance between the program's smallest and largest peak, as a share of the median: what no prediction can beat.
    pub actual_spread: Option<f64>,
    /// Predicted against actual: 0.02 is 2 % too high.
    pub error: Option<f64>,
    /// 95 % interval of the error (Hodges–Lehmann with exact rank-sum limits, of the logarithms); absent below four runs.
    pub error_interval: Option<[f64; 2]>,
    /// The error is no larger than what is aimed at: 2 % for one thread; for more the larger of 3 % and the program's spread.
    pub within_goal: Option<bool>,
    /// The interval lies within what is aimed at, or the error beyond it, and nothing disturbed what it was made of: further
    /// runs would not change the verdict.
    pub decided: Option<bool>,
    /// Quartiles of the replays' peaks.
    pub predicted_quartiles: Option<[f64; 3]>,
    /// Quartiles of the program's peaks.
    pub actual_quartiles: Option<[f64; 3]>,
    /// Every replay.
    pub predicted_samples: Vec<f64>,
    /// How many of them are of a recording that was disturbed.
    pub predicted_disturbed: usize,
    /// Every run of the program.
    pub actual_samples: Vec<f64>,
    /// How many of them were disturbed.
    pub actual_disturbed: usize,
    /// How many of the runs in which its time was sampled were.
    pub actual_allocation_disturbed: usize,
    /// Median of what does not come from malloc at the peak of its runs, which is not in the peak: mapped by the program itself, the
    /// loader's, stacks of threads.
    pub own_mappings_bytes: Option<f64>,
    /// Median CPU time of the replayed calls, the harness's own cost included, seconds.
    pub predicted_allocation_s: Option<f64>,
    /// Median CPU time that the program itself spends in the allocator, sampled, seconds.
    pub actual_allocation_s: Option<f64>,
    /// Its spread, as a share of the median.
    pub actual_allocation_spread: Option<f64>,
    /// Every replay.
    pub predicted_allocation_samples: Vec<f64>,
    /// Every run of the program.
    pub actual_allocation_samples: Vec<f64>,
    /// Median CPU time of the program, seconds.
    pub actual_cpu_s: Option<f64>,
    /// Metrics of the user's own in the runs in which nothing but the size of the heap is looked at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// What the program asks for under the subject; looked at where the prediction is off or has no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// Why figures are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One run of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Peak heap, bytes.
    pub peak_bytes: f64,
    /// What does not come from malloc and is not in it.
    pub own_bytes: f64,
    /// Something else had the machine, in both of two runs.
    pub disturbed: bool,
    /// The same of the run in which its time was sampled.
    pub time_disturbed: bool,
    /// What of its anonymous bytes was no heap, as it was looked at in a second run; absent where there was none.
    pub beside_bytes: Option<f64>,
    /// CPU time in the allocator, seconds; absent where it was not, or cannot be, sampled.
    pub allocation_s: Option<f64>,
    /// CPU time, seconds; absent where it was not asked for.
    pub cpu_s: Option<f64>,
    /// Metrics of the user's own.
    pub metrics: BTreeMap<String, f64>,
}

impl Run {
    /// Its peak.
    pub fn peak(&self) -> Seen {
        Seen {
            value: self.peak_bytes,
            disturbed: self.disturbed,
        }
    }
}

/// The share that a prediction may err by, whatever the program's own spread is.
pub fn least_goal(threads: u64) -> f64 {
    match threads {
        0 | 1 => GOAL_ONE,
        _ => GOAL_MORE,
    }
}

/// What is aimed at: the larger of a share and, with threads, the program's own spread.
fn goal(threads: u64, actual: &Side) -> f64 {
    match threads {
        0 | 1 => least_goal(threads),
        _ => least_goal(threads).max(actual.spread.unwrap_or(0.0)),
    }
}

/// Median of replays against median of runs: 0.02 is 2 % too high.
fn error(predicted: &Side, actual: &Side) -> Option<f64> {
    match (predicted.median, actual.median) {
        (Some(predicted), Some(actual)) if actual > 0.0 => Some(predicted / actual - 1.0),
        _ => None,
    }
}

fn interval(predicted: &[f64], actual: &[f64]) -> Option<[f64; 2]> {
    let ratio = stats::ratio_of_values(predicted, actual)?;
    Some([ratio.low - 1.0, ratio.high - 1.0])
}

/// Whether peaks of replays and runs suffice for a verdict: the interval of the error lies within what is aimed at, or on one side
/// beyond it (of a program whose own peaks lie further apart than that, with enough of them), and is of undisturbed ones. Too few
/// for an interval do not; more of them would tell.
pub fn decided(threads: u64, predicted: &[Seen], actual: &[Seen]) -> bool {
    verdict(threads, &Kept::of(predicted), &Kept::of(actual)).unwrap_or(false)
}

/// `None` without an interval.
fn verdict(threads: u64, predicted: &Kept, actual: &Kept) -> Option<bool> {
    let goal = goal(threads, &Side::of(&actual.values));
    let [low, high] = interval(&predicted.values, &actual.values)?;
    let steady = |kept: &Kept| {
        kept.values.len() >= LEAST_FOR_MISS
            || Side::of(&kept.values).spread.is_some_and(|own| own <= goal)
    };
    let within = low >= -goal && high <= goal;
    let missed = (low > goal || high < -goal) && steady(predicted) && steady(actual);
    Some((within || missed) && predicted.quiet && actual.quiet)
}

/// Samples of a side, or why it has none.
pub type Samples<T> = Result<Vec<T>, String>;

impl Row {
    /// From the samples of both sides: peaks of replays, CPU times of replayed calls, runs of the program.
    pub fn new(
        subject: &str,
        threads: u64,
        peaks: Samples<Seen>,
        times: Samples<f64>,
        runs: Samples<Run>,
    ) -> Self {
        let mut reason = None;
        let mut note = |why: String| {
            reason.get_or_insert(why);
        };
        let peaks = peaks.unwrap_or_else(|why| {
            note(format!("replay: {why}"));
            Vec::new()
        });
        let predicted_allocation_samples = times.unwrap_or_else(|why| {
            note(format!("replay: {why}"));
            Vec::new()
        });
        let runs = runs.unwrap_or_else(|why| {
            note(format!("program: {why}"));
            Vec::new()
        });
        let of = |figure: fn(&Run) -> Option<f64>| -> Vec<f64> {
            runs.iter().filter_map(figure).collect()
        };
        let actual_peaks: Vec<Seen> = runs.iter().map(Run::peak).collect();
        let actual_allocation_samples = of(|run| run.allocation_s);
        let (kept, kept_actual) = (Kept::of(&peaks), Kept::of(&actual_peaks));
        let (predicted, actual) = (Side::of(&kept.values), Side::of(&kept_actual.values));
        let spent = Side::of(&actual_allocation_samples);
        let error = error(&predicted, &actual);
        let goal = goal(threads, &actual);
        Self {
            subject: subject.to_string(),
            variant: false,
            predicted_peak_bytes: predicted.median,
            predicted_spread: predicted.spread,
            actual_peak_bytes: actual.median,
            actual_spread: actual.spread,
            error,
            error_interval: interval(&kept.values, &kept_actual.values),
            within_goal: error.map(|error| error.abs() <= goal),
            decided: verdict(threads, &kept, &kept_actual),
            predicted_quartiles: stats::quartiles(&kept.values),
            actual_quartiles: stats::quartiles(&kept_actual.values),
            predicted_samples: values(&peaks),
            predicted_disturbed: disturbed(&peaks),
            actual_samples: values(&actual_peaks),
            actual_disturbed: disturbed(&actual_peaks),
            actual_allocation_disturbed: runs.iter().filter(|run| run.time_disturbed).count(),
            own_mappings_bytes: stats::median(&of(|run| Some(run.own_bytes))),
            predicted_allocation_s: stats::median(&predicted_allocation_samples),
            actual_allocation_s: spent.median,
            actual_allocation_spread: spent.spread,
            predicted_allocation_samples,
            actual_allocation_samples,
            actual_cpu_s: stats::median(&of(|run| run.cpu_s)),
            metrics: BTreeMap::new(),
            asked: None,
            reason,
        }
    }

    /// It has all figures that such a row can have.
    pub fn is_whole(&self) -> bool {
        match self.variant {
            true => self.actual_peak_bytes.is_some(),
            false => self.error.is_some(),
        }
    }
}

/// How the two orders of the subjects agree, pair by pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ranking {
    /// Pairs with the same order in both.
    pub agree: u32,
    /// Pairs with opposite order.
    pub disagree: u32,
    /// Pairs that the program itself does not separate: their runs overlap, or their medians differ by 5 % or less.
    pub undecided: u32,
}

/// Compares every pair of subjects that has both figures by their peaks.
pub fn by_peak(rows: &[Row]) -> Ranking {
    ranking(rows, |row| {
        Some((row.predicted_peak_bytes?, &row.actual_samples))
    })
}

/// The same by their time in allocation.
pub fn by_time(rows: &[Row]) -> Ranking {
    ranking(rows, |row| {
        Some((row.predicted_allocation_s?, &row.actual_allocation_samples))
    })
}

fn ranking(rows: &[Row], figures: impl Fn(&Row) -> Option<(f64, &Vec<f64>)>) -> Ranking {
    let mut found = Ranking::default();
    let ends = |samples: &[f64]| {
        let low = samples.iter().copied().reduce(f64::min)?;
        Some((
            low,
            samples.iter().copied().reduce(f64::max)?,
            stats::median(samples)?,
        ))
    };
    for (at, first) in rows.iter().enumerate() {
        for second in &rows[at + 1..] {
            let (Some((one, own)), Some((two, other))) = (figures(first), figures(second)) else {
                continue;
            };
            let (Some((low1, high1, mid1)), Some((low2, high2, mid2))) = (ends(own), ends(other))
            else {
                continue;
            };
            let close = (mid1 - mid2).abs() <= DIFFER * mid1.max(mid2);
            if close || (low1 <= high2 && low2 <= high1) {
                found.undecided += 1;
            } else if (high1 < low2) == (one < two) && one != two {
                found.agree += 1;
            } else {
                found.disagree += 1;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[f64]) -> Vec<Seen> {
        let quiet = |value: &f64| Seen {
            value: *value,
            disturbed: false,
        };
        values.iter().map(quiet).collect()
    }

    fn runs(peaks: &[f64]) -> Samples<Run> {
        let run = |peak: &f64| Run {
            peak_bytes: *peak,
            beside_bytes: Some(0.0),
            allocation_s: Some(peak / 10.0),
            cpu_s: Some(1.0),
            ..Run::default()
        };
        Ok(peaks.iter().map(run).collect())
    }

    #[test]
    fn figures_of_a_row() {
        let row = Row::new(
            "system",
            1,
            Ok(seen(&[110.0, 110.0])),
            Ok(vec![3.0]),
            runs(&[90.0, 100.0, 120.0]),
        );
        assert_eq!(row.actual_peak_bytes, Some(100.0));
        assert_eq!(row.actual_spread, Some(0.3));
        assert!((row.error.unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(
            (row.within_goal, row.actual_allocation_s),
            (Some(false), Some(10.0))
        );
        assert_eq!(
            (row.predicted_spread, row.error_interval),
            (Some(0.0), None)
        );
        // Enough runs: between the smallest and the largest of all ratios, and around the error.
        let six = Ok(seen(&[108.0, 109.0, 110.0, 110.0, 111.0, 112.0]));
        let actual = runs(&[99.0, 99.5, 100.0, 100.0, 100.5, 101.0]);
        let [low, high] = Row::new("system", 1, six, Ok(vec![]), actual)
            .error_interval
            .unwrap();
        assert!(
            0.07 < low && low < 0.1 && 0.1 < high && high < 0.13,
            "{low} {high}"
        );
        // With threads the program's own spread of 30 % is what no prediction can beat.
        let more = Row::new(
            "system",
            2,
            Ok(seen(&[110.0])),
            Ok(vec![]),
            runs(&[90.0, 100.0, 120.0]),
        );
        assert_eq!(
            (more.within_goal, more.predicted_allocation_s),
            (Some(true), None)
        );
        let bad = Row::new("x", 1, Err("hung".into()), Ok(vec![1.0]), runs(&[1.0]));
        assert_eq!(bad.reason.as_deref(), Some("replay: hung"));
        assert_eq!((bad.error, bad.predicted_peak_bytes), (None, None));
    }

    #[test]
    fn a_verdict_takes_an_interval_on_one_side_of_the_goal() {
        let steady = [100.0, 100.2, 100.4, 100.6];
        let by = |factor: f64| steady.map(|v| v * factor);
        let decided = |threads, predicted: &[f64], actual: &[f64]| {
            super::decided(threads, &seen(predicted), &seen(actual))
        };
        assert!(decided(1, &by(1.01), &steady));
        assert!(!decided(1, &by(1.02), &steady), "from +1.4 to +2.6 %");
        assert!(decided(1, &by(1.05), &steady), "beyond the goal altogether");
        assert!(decided(1, &by(0.95), &steady));
        assert!(!decided(1, &steady[..3], &steady), "no interval");
        // Two courses: of one thread no verdict; of several the program's own spread is the goal, and is reached over.
        let two = [80.0, 81.0, 120.0, 121.0];
        assert!(!decided(1, &two, &two) && !decided(2, &two, &two));
        // All replays on the one, all runs on the other: chance, if they are few.
        let sides = |n: usize| {
            let of = |at: [f64; 2]| at.iter().copied().cycle().take(n).collect::<Vec<_>>();
            decided(1, &of([80.0, 84.0]), &of([120.0, 121.0]))
        };
        assert!(!sides(4) && !sides(6) && sides(8));
        // Between them lies nothing that a median of few could be.
        let row = |n: usize| {
            let many: Vec<f64> = two.iter().copied().cycle().take(n).collect();
            Row::new("a", 1, Ok(seen(&many)), Ok(vec![]), runs(&many))
        };
        assert_eq!(row(4).decided, Some(false));
        assert_eq!(row(4).actual_quartiles, Some([80.75, 100.5, 120.25]));
        assert_eq!(row(2).decided, None);
    }

    #[test]
    fn disturbed_runs_are_left_out_of_a_verdict_and_without_enough_others_there_is_none() {
        let steady = [100.0, 100.2, 100.4, 100.6];
        // A program that was held up gave back in the middle of its peak.
        let with = |disturbed: usize, quiet: usize| -> Samples<Run> {
            let mut all = runs(&[70.0].repeat(disturbed)).unwrap();
            all.iter_mut().for_each(|run| run.disturbed = true);
            all.extend(runs(&steady[..quiet]).unwrap());
            Ok(all)
        };
        let row = |disturbed, quiet| {
            let predicted = Ok(seen(&steady));
            Row::new("a", 1, predicted, Ok(vec![]), with(disturbed, quiet))
        };
        let good = row(5, 4);
        assert_eq!((good.decided, good.within_goal), (Some(true), Some(true)));
        assert_eq!(
            (good.actual_disturbed, good.actual_samples.len()),
            (5, 9),
            "they are told all the same"
        );
        let spoilt = row(4, 2);
        assert_eq!(
            spoilt.decided,
            Some(false),
            "four disturbed runs decide nothing"
        );
        assert_eq!(spoilt.within_goal, Some(false));
        // The same for replays of recordings that were disturbed.
        let mut held_up = seen(&steady.map(|v| 1.5 * v));
        held_up.iter_mut().for_each(|seen| seen.disturbed = true);
        let row = Row::new("a", 1, Ok(held_up), Ok(vec![]), runs(&steady));
        assert_eq!((row.decided, row.predicted_disturbed), (Some(false), 4));
    }

    #[test]
    fn pairs_that_the_program_does_not_separate_are_not_counted() {
        let row = |name: &str, predicted: f64, actual: [f64; 2]| {
            Row::new(
                name,
                1,
                Ok(seen(&[predicted])),
                Ok(vec![-predicted]),
                runs(&actual),
            )
        };
        let rows = [
            row("a", 10.0, [10.0, 11.0]),
            row("b", 20.0, [18.0, 22.0]),
            row("c", 19.0, [21.0, 30.0]),
            row("d", 5.0, [40.0, 41.0]),
            Row::new("e", 1, Err("hung".into()), Err("hung".into()), runs(&[7.0])),
        ];
        // a<b and a<c hold in both, b and c overlap, d is predicted smallest and is largest.
        let expected = Ranking {
            agree: 2,
            disagree: 3,
            undecided: 1,
        };
        assert_eq!(by_peak(&rows), expected);
        // Predicted times are in the opposite order.
        let expected = Ranking {
            agree: 3,
            disagree: 2,
            undecided: 1,
        };
        assert_eq!(by_time(&rows), expected);
        // Medians within 5 % are no order, even if the runs do not overlap.
        let near = [row("f", 2.0, [100.0, 100.0]), row("g", 1.0, [104.0, 104.0])];
        assert_eq!(by_peak(&near).undecided, 1);
    }
}
