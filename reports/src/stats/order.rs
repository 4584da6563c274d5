//! Median and its exact order-statistic interval.

use super::binomial::half_cdf;
use crate::schema::{IntervalKind, Sample};

/// Fewest values for which an exact two-sided 95 % interval of a median exists (2 · 2⁻⁶ ≤ 0.05).
pub const MIN_BLOCKS: usize = 6;

/// A median with its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Sample median (mean of the middle two for an even count).
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Exact 95 % interval, or the range of all values below [`MIN_BLOCKS`].
    pub kind: IntervalKind,
}

/// Median of finite `values`; `None` without any.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted_finite(values.iter().copied());
    middle(&sorted)
}

/// Lower quartile, median, upper quartile of finite `values`, between values where the rank is (definition 7 of Hyndman and Fan,
/// 1996, as R and NumPy have it); `None` without any.
pub fn quartiles(values: &[f64]) -> Option<[f64; 3]> {
    let sorted = sorted_finite(values.iter().copied());
    let last = sorted.len().checked_sub(1)?;
    Some([0.25, 0.5, 0.75].map(|share| {
        let rank = share * last as f64;
        let (below, part) = (rank.floor(), rank.fract());
        let (low, high) = (sorted[below as usize], sorted[rank.ceil() as usize]);
        low + part * (high - low)
    }))
}

/// Median and interval of the values of `samples`, whatever their blocks; values that are not finite are
/// left out. `None` without any value.
pub fn summarise(samples: &[Sample]) -> Option<Interval> {
    summarise_sorted(&sorted_finite(samples.iter().map(|s| s.value)))
}

/// As [`summarise`], for bare values.
pub fn summarise_values(values: &[f64]) -> Option<Interval> {
    summarise_sorted(&sorted_finite(values.iter().copied()))
}

/// The exact interval of the median at `confidence` (for example 0.95): 1-based rank `k` of its lower end
/// (the upper end has rank `n + 1 - k`) and the coverage really reached. `None` if `n` is too small.
///
/// The interval from the k-th smallest to the k-th largest value misses the true median only if fewer than
/// k values lie on one side of it: twice P(Binomial(n, ½) ≤ k − 1), for every continuous distribution.
pub fn median_interval(n: usize, confidence: f64) -> Option<(usize, f64)> {
    let mut best = None;
    for k in 1..=n / 2 {
        let coverage = 1.0 - 2.0 * half_cdf(n, k - 1);
        if coverage < confidence {
            break;
        }
        best = Some((k, coverage));
    }
    best
}

fn summarise_sorted(sorted: &[f64]) -> Option<Interval> {
    let median = middle(sorted)?;
    let n = sorted.len();
    let rank = if n < MIN_BLOCKS {
        None
    } else {
        median_interval(n, 0.95)
    };
    Some(match rank {
        Some((k, _)) => Interval {
            median,
            low: sorted[k - 1],
            high: sorted[n - k],
            kind: IntervalKind::Ci95,
        },
        None => Interval {
            median,
            low: sorted[0],
            high: sorted[n - 1],
            kind: IntervalKind::Range,
        },
    })
}

pub(super) fn sorted_finite(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

pub(super) fn middle(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.percentile([25, 50, 75])` gives them.
    #[test]
    fn quartiles_lie_between_values() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), Some([1.75, 2.5, 3.25]));
        assert_eq!(quartiles(&[7.0]), Some([7.0, 7.0, 7.0]));
        assert_eq!(
            quartiles(&[1.0, f64::NAN, 2.0, 10.0]),
            Some([1.5, 2.0, 6.0])
        );
        assert_eq!(quartiles(&[]), None);
    }

    /// Ranks for two-sided 95 % as tabulated for the sign test (critical value + 1).
    #[test]
    fn ranks_agree_with_the_sign_test_table() {
        for (n, k) in [
            (6, 1),
            (7, 1),
            (8, 1),
            (9, 2),
            (10, 2),
            (11, 2),
            (12, 3),
            (15, 4),
            (20, 6),
            (25, 8),
            (30, 10),
            (40, 14),
            (50, 18),
            (100, 40),
        ] {
            assert_eq!(median_interval(n, 0.95).unwrap().0, k, "n {n}");
        }
        assert_eq!(median_interval(5, 0.95), None);
        assert!((median_interval(7, 0.95).unwrap().1 - 0.984_375).abs() < 1e-12);
    }

    #[test]
    fn few_values_give_a_range() {
        let i = summarise_values(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (i.low, i.median, i.high, i.kind),
            (1.0, 2.0, 3.0, IntervalKind::Range)
        );
        let i = summarise_values(&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).unwrap();
        assert_eq!(
            (i.low, i.median, i.high, i.kind),
            (1.0, 3.5, 6.0, IntervalKind::Ci95)
        );
        assert_eq!(summarise_values(&[f64::NAN]), None);
        assert_eq!(summarise(&[]), None);
    }
}
