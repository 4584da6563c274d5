//! Does a replay predict? Predicted and actual peak heap of a program under each subject, and whether they order the
//! subjects alike. Pure: figures in, judgement out.

use heaplab_reports::stats;
use serde::Serialize;

/// One subject's figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Label.
    pub subject: String,
    /// Median peak of the replays' resident bytes, the worker's own left out.
    pub predicted_peak_bytes: Option<f64>,
    /// Median peak of the program's heap.
    pub actual_peak_bytes: Option<f64>,
    /// Distance between the program's smallest and largest peak, as a share of the median: what no prediction can beat.
    pub actual_spread: Option<f64>,
    /// Predicted against actual: 0.02 is 2 % too high.
    pub error: Option<f64>,
    /// Every replay.
    pub predicted_samples: Vec<u64>,
    /// Every run of the program.
    pub actual_samples: Vec<u64>,
    /// Why figures are absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Row {
    /// From the samples of both sides, or why one side has none.
    pub fn new(
        subject: &str,
        predicted: Result<Vec<u64>, String>,
        actual: Result<Vec<u64>, String>,
    ) -> Self {
        let mut reason = None;
        let mut side = |samples: Result<Vec<u64>, String>, name: &str| {
            samples.unwrap_or_else(|why| {
                reason.get_or_insert(format!("{name}: {why}"));
                Vec::new()
            })
        };
        let predicted_samples = side(predicted, "replay");
        let actual_samples = side(actual, "program");
        let predicted_peak_bytes = median(&predicted_samples);
        let actual_peak_bytes = median(&actual_samples);
        let spread = actual_peak_bytes
            .filter(|middle| *middle > 0.0)
            .and_then(|middle| {
                let (low, high) = (actual_samples.iter().min()?, actual_samples.iter().max()?);
                Some((high - low) as f64 / middle)
            });
        let error = match (predicted_peak_bytes, actual_peak_bytes) {
            (Some(predicted), Some(actual)) if actual > 0.0 => Some(predicted / actual - 1.0),
            _ => None,
        };
        Self {
            subject: subject.to_string(),
            predicted_peak_bytes,
            actual_peak_bytes,
            actual_spread: spread,
            error,
            predicted_samples,
            actual_samples,
            reason,
        }
    }
}

fn median(samples: &[u64]) -> Option<f64> {
    let samples: Vec<f64> = samples.iter().map(|n| *n as f64).collect();
    stats::median(&samples)
}

/// How the two orders of the subjects agree, pair by pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ranking {
    /// Pairs with the same order in both.
    pub agree: u32,
    /// Pairs with opposite order.
    pub disagree: u32,
    /// Pairs that the program itself does not separate: their runs overlap.
    pub undecided: u32,
}

/// Compares every pair of subjects that has both figures.
pub fn ranking(rows: &[Row]) -> Ranking {
    let mut found = Ranking::default();
    for (at, first) in rows.iter().enumerate() {
        for second in &rows[at + 1..] {
            let ends = |row: &Row| {
                let (low, high) = (
                    row.actual_samples.iter().min(),
                    row.actual_samples.iter().max(),
                );
                low.copied()
                    .zip(high.copied())
                    .zip(row.predicted_peak_bytes)
            };
            let (Some(((low1, high1), one)), Some(((low2, high2), two))) =
                (ends(first), ends(second))
            else {
                continue;
            };
            if low1 <= high2 && low2 <= high1 {
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

    #[test]
    fn figures_of_a_row() {
        let row = Row::new("system", Ok(vec![110, 110]), Ok(vec![90, 100, 120]));
        assert_eq!(row.actual_peak_bytes, Some(100.0));
        assert_eq!(row.actual_spread, Some(0.3));
        assert!((row.error.unwrap() - 0.1).abs() < 1e-12);
        let bad = Row::new("x", Err("hung".into()), Ok(vec![1]));
        assert_eq!(bad.reason.as_deref(), Some("replay: hung"));
        assert_eq!((bad.error, bad.predicted_peak_bytes), (None, None));
    }

    #[test]
    fn pairs_that_the_program_does_not_separate_are_not_counted() {
        let row = |name: &str, predicted, actual: [u64; 2]| {
            Row::new(name, Ok(vec![predicted]), Ok(actual.to_vec()))
        };
        let rows = [
            row("a", 10, [10, 11]),
            row("b", 20, [18, 22]),
            row("c", 19, [21, 30]),
            row("d", 5, [40, 41]),
            Row::new("e", Err("hung".into()), Ok(vec![7])),
        ];
        // a<b and a<c hold in both, b and c overlap, d is predicted smallest and is largest.
        let expected = Ranking {
            agree: 2,
            disagree: 3,
            undecided: 1,
        };
        assert_eq!(ranking(&rows), expected);
    }
}
