//! Does a replay predict? Predicted and actual peak heap of a program and its time in allocation under each subject, and
//! whether they order the subjects alike. Pure: figures in, judgement out.

mod face;

use heaplab_reports::schema::Sample;
use heaplab_reports::stats;
use serde::Serialize;

pub use face::{Facts, print};

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

/// One subject's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Label.
    pub subject: String,
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
    /// 95 % interval of the error (Hodges–Lehmann with exact rank-sum limits, of the logarithms); absent below six runs.
    pub error_interval: Option<[f64; 2]>,
    /// The error is no larger than what is aimed at: 2 % for one thread; for more the larger of 3 % and the program's spread.
    pub within_goal: Option<bool>,
    /// Every replay.
    pub predicted_samples: Vec<f64>,
    /// Every run of the program.
    pub actual_samples: Vec<f64>,
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
    /// Why figures are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One run of the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Peak heap, bytes.
    pub peak_bytes: f64,
    /// CPU time in the allocator, seconds; absent where it cannot be sampled.
    pub allocation_s: Option<f64>,
    /// CPU time, seconds.
    pub cpu_s: f64,
}

/// Samples of a side, or why it has none.
pub type Samples<T> = Result<Vec<T>, String>;

impl Row {
    /// From the samples of both sides: peaks of replays, CPU times of replayed calls, runs of the program.
    pub fn new(
        subject: &str,
        threads: u64,
        peaks: Samples<f64>,
        times: Samples<f64>,
        runs: Samples<Run>,
    ) -> Self {
        let mut reason = None;
        let mut note = |why: String| {
            reason.get_or_insert(why);
        };
        let predicted_samples = peaks.unwrap_or_else(|why| {
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
        let actual_samples = of(|run| Some(run.peak_bytes));
        let actual_allocation_samples = of(|run| run.allocation_s);
        let (predicted, actual) = (Side::of(&predicted_samples), Side::of(&actual_samples));
        let spent = Side::of(&actual_allocation_samples);
        let error = match (predicted.median, actual.median) {
            (Some(predicted), Some(actual)) if actual > 0.0 => Some(predicted / actual - 1.0),
            _ => None,
        };
        let error_interval =
            stats::unpaired_ratio(&numbered(&predicted_samples), &numbered(&actual_samples))
                .map(|ratio| [ratio.low - 1.0, ratio.high - 1.0]);
        let goal = match threads {
            0 | 1 => GOAL_ONE,
            _ => GOAL_MORE.max(actual.spread.unwrap_or(0.0)),
        };
        Self {
            subject: subject.to_string(),
            predicted_peak_bytes: predicted.median,
            predicted_spread: predicted.spread,
            actual_peak_bytes: actual.median,
            actual_spread: actual.spread,
            error,
            error_interval,
            within_goal: error.map(|error| error.abs() <= goal),
            predicted_samples,
            actual_samples,
            predicted_allocation_s: stats::median(&predicted_allocation_samples),
            actual_allocation_s: spent.median,
            actual_allocation_spread: spent.spread,
            predicted_allocation_samples,
            actual_allocation_samples,
            actual_cpu_s: stats::median(&of(|run| Some(run.cpu_s))),
            reason,
        }
    }
}

/// Values as the statistics take them.
fn numbered(values: &[f64]) -> Vec<Sample> {
    let sample = |(block, value): (u32, &f64)| Sample {
        block,
        order: 0,
        value: *value,
    };
    (0..).zip(values).map(sample).collect()
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

    fn runs(peaks: &[f64]) -> Samples<Run> {
        let run = |peak: &f64| Run {
            peak_bytes: *peak,
            allocation_s: Some(peak / 10.0),
            cpu_s: 1.0,
        };
        Ok(peaks.iter().map(run).collect())
    }

    #[test]
    fn figures_of_a_row() {
        let row = Row::new(
            "system",
            1,
            Ok(vec![110.0, 110.0]),
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
        let six = Ok(vec![108.0, 109.0, 110.0, 110.0, 111.0, 112.0]);
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
            Ok(vec![110.0]),
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
    fn pairs_that_the_program_does_not_separate_are_not_counted() {
        let row = |name: &str, predicted: f64, actual: [f64; 2]| {
            Row::new(
                name,
                1,
                Ok(vec![predicted]),
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
