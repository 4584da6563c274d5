//! Ratio of two unpaired series with the exact rank-sum (Mann–Whitney) interval: for result sets of two
//! sessions, where block n of one has nothing to do with block n of the other.

use super::normal::{EXACT_LIMIT, normal_tail};
use super::order::{MIN_BLOCKS, middle, sorted_finite};
use crate::schema::{Ratio, Sample};

/// `new / old` of two independent series, in the logarithm: median of all cross differences and the exact
/// 95 % rank-sum interval. `None` if either has fewer than [`MIN_BLOCKS`] positive values.
/// `pairs` is the smaller number of values.
pub fn unpaired_ratio(new: &[Sample], old: &[Sample]) -> Option<Ratio> {
    let values = |s: &[Sample]| s.iter().map(|s| s.value).collect::<Vec<f64>>();
    ratio_of_values(&values(new), &values(old)).filter(|ratio| ratio.pairs as usize >= MIN_BLOCKS)
}

/// The same from the fewest values that such an interval exists for: four on either side.
pub fn ratio_of_values(new: &[f64], old: &[f64]) -> Option<Ratio> {
    let logs = |s: &[f64]| sorted_finite(s.iter().filter(|v| **v > 0.0).map(|v| v.ln()));
    let (a, b) = (logs(new), logs(old));
    let mut cross: Vec<f64> = a
        .iter()
        .flat_map(|x| b.iter().map(move |y| x - y))
        .collect();
    cross.sort_by(f64::total_cmp);
    let c = cross_rank(a.len(), b.len(), 0.025)?;
    Some(Ratio {
        median: middle(&cross)?.exp(),
        low: cross[c - 1].exp(),
        high: cross[cross.len() - c].exp(),
        pairs: a.len().min(b.len()) as u32,
    })
}

/// Largest c with P(U ≤ c − 1) ≤ `tail` for series of `n` and `m` values.
fn cross_rank(n: usize, m: usize, tail: f64) -> Option<usize> {
    if n + m > EXACT_LIMIT / 2 {
        let (n, m) = (n as f64, m as f64);
        let (mean, sd) = (n * m / 2.0, (n * m * (n + m + 1.0) / 12.0).sqrt());
        let mut c = mean.floor();
        let (mut low, mut step) = (0.0, c);
        while step >= 1.0 {
            c = low + step;
            if c <= mean && normal_tail((mean - c + 0.5) / sd) <= tail {
                low = c;
            }
            step = (step / 2.0).floor();
        }
        return (low >= 1.0).then_some(low as usize);
    }
    // Number of ways to choose n of n + m ranks by the excess of their sum: counts of partitions into at
    // most n parts of at most m each. ways[j][u]: j values placed, U = u; kept as probabilities.
    let top = n * m;
    let mut ways = vec![vec![0.0_f64; top + 1]; n + 1];
    ways[0][0] = 1.0;
    for value in 1..=n + m {
        for j in (1..=n.min(value)).rev() {
            // The j-th smallest chosen rank is `value`: it exceeds value − j values of the other series.
            let excess = value - j;
            if excess > m {
                continue;
            }
            for u in excess..=top {
                let add = ways[j - 1][u - excess];
                ways[j][u] += add;
            }
        }
    }
    let all: f64 = ways[n].iter().sum();
    let mut sum = 0.0;
    let mut best = None;
    for (u, w) in ways[n].iter().enumerate() {
        sum += w / all;
        if sum > tail * (1.0 + 1e-12) {
            break;
        }
        best = Some(u + 1);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Critical values of the two-sided 5 % rank-sum test as tabulated: U ≤ T rejects.
    #[test]
    fn critical_values_agree_with_the_table() {
        for (n, m, t) in [
            (6, 6, 5),
            (6, 7, 6),
            (6, 8, 8),
            (7, 7, 8),
            (8, 8, 13),
            (9, 9, 17),
            (10, 10, 23),
            (10, 15, 39),
            (15, 15, 64),
            (20, 20, 127),
            (12, 20, 69),
        ] {
            assert_eq!(cross_rank(n, m, 0.025), Some(t + 1), "{n} {m}");
            assert_eq!(cross_rank(m, n, 0.025), Some(t + 1), "{m} {n}");
        }
    }

    #[test]
    fn approximation_is_close_to_the_exact_rank() {
        let exact = cross_rank(100, 100, 0.025).unwrap() as f64;
        let approximate = cross_rank(101, 101, 0.025).unwrap() as f64;
        assert!(
            (70.0..110.0).contains(&(approximate - exact)),
            "{exact} {approximate}"
        );
    }

    #[test]
    fn a_shifted_series_is_seen() {
        let s = |f: f64| -> Vec<Sample> {
            (0..8)
                .map(|i| Sample {
                    block: i,
                    order: 0,
                    value: f * (100.0 + f64::from(i)),
                })
                .collect()
        };
        let r = unpaired_ratio(&s(1.2), &s(1.0)).unwrap();
        assert!(
            (r.median - 1.2).abs() < 0.01 && r.low > 1.1 && r.high < 1.3,
            "{r:?}"
        );
        assert!(unpaired_ratio(&s(1.2)[..5], &s(1.0)).is_none());
        // Four of each: 1 of 70 orders has all of one side first, and the interval is from end to end. Three: 1 of 20.
        let four = ratio_of_values(&[8.0, 9.0, 10.0, 12.0], &[8.0, 10.0, 10.0, 16.0]).unwrap();
        assert!(
            (four.low - 0.5).abs() < 1e-12 && (four.high - 1.5).abs() < 1e-12,
            "{four:?}"
        );
        assert!(ratio_of_values(&[8.0, 9.0, 10.0], &[8.0, 10.0, 10.0]).is_none());
        assert!(ratio_of_values(&[], &[1.0]).is_none());
    }
}
