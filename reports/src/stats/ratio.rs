//! Ratios of two subjects, paired by block, in the logarithm.

use super::order::{MIN_BLOCKS, median};
use super::signed_rank::{HodgesLehmann, hodges_lehmann};
use crate::schema::{IntervalKind, Ratio, Sample};
use std::collections::BTreeMap;

/// One positive value a block (the median where a block has several samples).
pub fn block_values(samples: &[Sample]) -> BTreeMap<u32, f64> {
    let mut by_block: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for s in samples
        .iter()
        .filter(|s| s.value.is_finite() && s.value > 0.0)
    {
        by_block.entry(s.block).or_default().push(s.value);
    }
    by_block
        .into_iter()
        .filter_map(|(b, v)| Some((b, median(&v)?)))
        .collect()
}

/// `ln(a / b)` of every block in which both have a positive value, in order of blocks.
pub fn log_pairs(a: &[Sample], b: &[Sample]) -> BTreeMap<u32, f64> {
    let b = block_values(b);
    block_values(a)
        .into_iter()
        .filter_map(|(block, x)| Some((block, (x / b.get(&block)?).ln())))
        .collect()
}

/// `a / b` paired by block: Hodges–Lehmann estimate of the log ratio and the exact 95 % signed-rank
/// interval; below [`MIN_BLOCKS`] pairs the median and range of the ratios. `None` without a pair.
pub fn paired_ratio(a: &[Sample], b: &[Sample]) -> Option<Ratio> {
    ratio_from_logs(&log_pairs(a, b).into_values().collect::<Vec<_>>())
}

/// The [`Ratio`] of a series of log ratios, one a block.
pub fn ratio_from_logs(logs: &[f64]) -> Option<Ratio> {
    let pairs = logs.iter().filter(|v| v.is_finite()).count() as u32;
    let HodgesLehmann {
        centre,
        low,
        high,
        coverage,
    } = hodges_lehmann(logs, 0.95)?;
    let centre = if coverage.is_some() {
        centre
    } else {
        median(logs)?
    };
    Some(Ratio {
        median: centre.exp(),
        low: low.exp(),
        high: high.exp(),
        pairs,
    })
}

/// What the ends of a paired ratio are: follows from the number of pairs.
pub fn ratio_kind(ratio: &Ratio) -> IntervalKind {
    if (ratio.pairs as usize) < MIN_BLOCKS {
        IntervalKind::Range
    } else {
        IntervalKind::Ci95
    }
}

/// Whether the interval (not a range) excludes 1.
pub fn shown_different(ratio: &Ratio) -> bool {
    ratio_kind(ratio) == IntervalKind::Ci95 && (ratio.low > 1.0 || ratio.high < 1.0)
}

/// Smallest relative difference that these pairs could have shown: half the width of the interval of the
/// log ratio, as a fraction (0.028 = 2.8 %). `None` for a range.
pub fn detectable(ratio: &Ratio) -> Option<f64> {
    (ratio_kind(ratio) == IntervalKind::Ci95)
        .then(|| ((ratio.high.ln() - ratio.low.ln()) / 2.0).exp_m1())
}

/// Geometric mean of positive values; `None` if there are none or one is not positive.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite() || *v <= 0.0) {
        return None;
    }
    Some((values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// Geometric mean over workloads of a ratio, with an interval: each element holds the log ratios of one
/// workload by block (see [`log_pairs`]); the mean is taken within each block that all workloads have, and
/// the blocks are the sample. `None` if there is no common block.
pub fn geometric_mean_of_pairs(workloads: &[BTreeMap<u32, f64>]) -> Option<Ratio> {
    let (first, rest) = workloads.split_first()?;
    let logs: Vec<f64> = first
        .iter()
        .filter_map(|(block, value)| {
            let mut sum = *value;
            for other in rest {
                sum += other.get(block)?;
            }
            Some(sum / workloads.len() as f64)
        })
        .collect();
    ratio_from_logs(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Vec<Sample> {
        values
            .iter()
            .enumerate()
            .map(|(i, v)| Sample {
                block: i as u32,
                order: 0,
                value: *v,
            })
            .collect()
    }

    #[test]
    fn pairs_only_by_block() {
        let a = [
            Sample {
                block: 3,
                order: 0,
                value: 20.0,
            },
            Sample {
                block: 1,
                order: 1,
                value: 30.0,
            },
            Sample {
                block: 9,
                order: 1,
                value: 30.0,
            },
        ];
        let b = [
            Sample {
                block: 1,
                order: 0,
                value: 10.0,
            },
            Sample {
                block: 3,
                order: 1,
                value: 10.0,
            },
            Sample {
                block: 4,
                order: 1,
                value: 0.0,
            },
        ];
        let r = paired_ratio(&a, &b).unwrap();
        assert_eq!(r.pairs, 2);
        assert!((r.low - 2.0).abs() < 1e-12 && (r.high - 3.0).abs() < 1e-12);
        assert_eq!(ratio_kind(&r), IntervalKind::Range);
        assert!(!shown_different(&r) && detectable(&r).is_none());
        assert!(paired_ratio(&a[2..], &b).is_none());
    }

    #[test]
    fn a_common_drift_cancels() {
        let drift: Vec<f64> = (0..10).map(|i| 100.0 * (1.0 + f64::from(i))).collect();
        let faster: Vec<f64> = drift.iter().map(|v| v * 0.9).collect();
        let r = paired_ratio(&samples(&faster), &samples(&drift)).unwrap();
        assert!((r.median - 0.9).abs() < 1e-9 && (r.high - r.low).abs() < 1e-9);
        assert!(shown_different(&r));
        assert!(detectable(&r).unwrap().abs() < 1e-9);
    }

    #[test]
    fn geometric_means() {
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
        assert_eq!(geometric_mean(&[]), None);
        let one: BTreeMap<u32, f64> = (0..8).map(|b| (b, 0.5_f64.ln())).collect();
        let two: BTreeMap<u32, f64> = (2..10).map(|b| (b, 2.0_f64.ln())).collect();
        let r = geometric_mean_of_pairs(&[one, two]).unwrap();
        assert_eq!(r.pairs, 6);
        assert!((r.median - 1.0).abs() < 1e-12);
        assert!(geometric_mean_of_pairs(&[]).is_none());
    }
}
