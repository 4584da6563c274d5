//! The exact Wilcoxon signed-rank test and the Hodges–Lehmann estimate with the interval that belongs to it.
//!
//! The interval is the set of shifts that the test does not reject, so table, verdict and interval agree.
//! It assumes that the differences scatter symmetrically around their median, which pairs in random order
//! give under no change.

use super::normal::{EXACT_LIMIT, normal_tail};
use super::order::{middle, sorted_finite};

/// Result of a signed-rank test against zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedRank {
    /// Sum of the ranks of the positive differences (ties have mean ranks).
    pub w_plus: f64,
    /// Differences that are not zero.
    pub n: usize,
    /// One-sided p value for "the differences lie below zero".
    pub p_less: f64,
    /// One-sided p value for "the differences lie above zero".
    pub p_greater: f64,
}

/// Estimate and interval of the centre of differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HodgesLehmann {
    /// Median of all pairwise means.
    pub centre: f64,
    /// Lower end of the interval, or the smallest difference.
    pub low: f64,
    /// Upper end of the interval, or the largest difference.
    pub high: f64,
    /// Coverage really reached; `None` if there are too few differences and the ends are a range.
    pub coverage: Option<f64>,
}

/// Exact Wilcoxon signed-rank test of `differences` against zero. Zeros are ranked and then left out
/// (Pratt), ties get mean ranks, and the distribution is enumerated given the ties. Values that are not
/// finite are left out.
pub fn signed_rank(differences: &[f64]) -> SignedRank {
    let mut d: Vec<f64> = differences
        .iter()
        .copied()
        .filter(|v| v.is_finite())
        .collect();
    d.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Doubled mean ranks are whole numbers.
    let mut ranks: Vec<usize> = Vec::with_capacity(d.len());
    let mut w_plus = 0_usize;
    let mut start = 0;
    while start < d.len() {
        let mut end = start + 1;
        while end < d.len() && d[end].abs() == d[start].abs() {
            end += 1;
        }
        let doubled = start + 1 + end;
        for value in &d[start..end] {
            if *value != 0.0 {
                ranks.push(doubled);
            }
            if *value > 0.0 {
                w_plus += doubled;
            }
        }
        start = end;
    }
    let n = ranks.len();
    let total: usize = ranks.iter().sum();
    let (p_less, p_greater) = if n == 0 {
        (1.0, 1.0)
    } else if n <= EXACT_LIMIT {
        let p = distribution(&ranks);
        // The distribution is symmetric, so the upper tail is the lower tail of the mirrored value.
        let lower = |w: usize| p[..=w].iter().sum::<f64>().min(1.0);
        (lower(w_plus), lower(total - w_plus))
    } else {
        let mean = total as f64 / 2.0;
        let sd = (ranks.iter().map(|r| (r * r) as f64).sum::<f64>() / 4.0).sqrt();
        let w = w_plus as f64;
        (
            normal_tail((mean - w - 1.0) / sd),
            normal_tail((w - mean - 1.0) / sd),
        )
    };
    SignedRank {
        w_plus: w_plus as f64 / 2.0,
        n,
        p_less,
        p_greater,
    }
}

/// Probability of every sum of a random subset of `ranks`, indexed by the sum.
fn distribution(ranks: &[usize]) -> Vec<f64> {
    let total: usize = ranks.iter().sum();
    let mut p = vec![0.0; total + 1];
    p[0] = 1.0;
    let mut top = 0;
    for &r in ranks {
        top += r;
        for s in (0..=top).rev() {
            let with = if s >= r { p[s - r] } else { 0.0 };
            p[s] = 0.5 * (p[s] + with);
        }
    }
    p
}

/// Largest c with P(W⁺ ≤ c − 1) ≤ (1 − confidence)/2 for `n` differences without ties, and the coverage:
/// the interval runs from the c-th smallest to the c-th largest pairwise mean. `None` if c would be 0.
pub(super) fn walsh_rank(n: usize, confidence: f64) -> Option<(usize, f64)> {
    let tail = (1.0 - confidence) / 2.0;
    if n <= EXACT_LIMIT {
        let p = distribution(&(1..=n).collect::<Vec<_>>());
        let mut sum = 0.0;
        let mut best = None;
        for (w, q) in p.iter().enumerate() {
            sum += q;
            // A hair of slack for sums like 0.5 · 2⁻ⁿ⁺¹ that are met exactly.
            if sum > tail * (1.0 + 1e-12) {
                break;
            }
            best = Some((w + 1, 1.0 - 2.0 * sum));
        }
        return best;
    }
    let (n, mut low, mut high) = (n as f64, 1.0, n as f64 * (n as f64 + 1.0) / 4.0);
    let (mean, sd) = (high, (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt());
    let below = |c: f64| normal_tail((mean - c + 0.5) / sd);
    while high - low > 1.0 {
        let c = ((low + high) / 2.0_f64).floor();
        if below(c) <= tail { low = c } else { high = c }
    }
    Some((low as usize, 1.0 - 2.0 * below(low)))
}

/// Hodges–Lehmann estimate of the centre of `differences` with the exact signed-rank interval at
/// `confidence`; `None` without any finite value.
pub fn hodges_lehmann(differences: &[f64], confidence: f64) -> Option<HodgesLehmann> {
    let d = sorted_finite(differences.iter().copied());
    let (first, last) = (*d.first()?, *d.last()?);
    let n = d.len();
    let mut walsh = Vec::with_capacity(n * (n + 1) / 2);
    for (i, a) in d.iter().enumerate() {
        walsh.extend(d[i..].iter().map(|b| (a + b) / 2.0));
    }
    walsh.sort_by(f64::total_cmp);
    let centre = middle(&walsh)?;
    Some(match walsh_rank(n, confidence) {
        Some((c, coverage)) => HodgesLehmann {
            centre,
            low: walsh[c - 1],
            high: walsh[walsh.len() - c],
            coverage: Some(coverage),
        },
        None => HodgesLehmann {
            centre,
            low: first,
            high: last,
            coverage: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brute(d: &[f64]) -> (f64, f64) {
        let mut order: Vec<usize> = (0..d.len()).collect();
        order.sort_by(|a, b| d[*a].abs().total_cmp(&d[*b].abs()));
        let rank = |i: usize| {
            let below = d.iter().filter(|v| v.abs() < d[i].abs()).count();
            let same = d.iter().filter(|v| v.abs() == d[i].abs()).count();
            below as f64 + (same as f64 + 1.0) / 2.0
        };
        let ranks: Vec<f64> = (0..d.len()).filter(|i| d[*i] != 0.0).map(rank).collect();
        let seen: f64 = (0..d.len()).filter(|i| d[*i] > 0.0).map(rank).sum();
        let (mut less, mut greater) = (0_u32, 0_u32);
        for mask in 0_u32..1 << ranks.len() {
            let w: f64 = ranks
                .iter()
                .enumerate()
                .filter(|(i, _)| mask >> i & 1 == 1)
                .map(|(_, r)| r)
                .sum();
            less += u32::from(w <= seen);
            greater += u32::from(w >= seen);
        }
        let all = f64::from(1_u32 << ranks.len());
        (f64::from(less) / all, f64::from(greater) / all)
    }

    #[test]
    fn agrees_with_brute_force_with_ties_and_zeros() {
        let mut state = 7_u64;
        for n in 1..=12_usize {
            for _ in 0..20 {
                let d: Vec<f64> = (0..n)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        // Few distinct values, so that ties and zeros are common.
                        ((state >> 33) % 9) as f64 - 3.0
                    })
                    .collect();
                let (less, greater) = brute(&d);
                let t = signed_rank(&d);
                assert!((t.p_less - less).abs() < 1e-12, "{d:?}");
                assert!((t.p_greater - greater).abs() < 1e-12, "{d:?}");
            }
        }
    }

    /// Critical values of the two-sided 5 % signed-rank test as tabulated: W ≤ T rejects.
    #[test]
    fn critical_values_agree_with_the_table() {
        for (n, t) in [
            (6, 0),
            (7, 2),
            (8, 3),
            (9, 5),
            (10, 8),
            (11, 10),
            (12, 13),
            (13, 17),
            (14, 21),
            (15, 25),
            (16, 29),
            (17, 34),
            (18, 40),
            (19, 46),
            (20, 52),
            (25, 89),
            (30, 137),
            (40, 264),
            (50, 434),
        ] {
            // The interval starts at the (T + 1)-th smallest mean.
            assert_eq!(walsh_rank(n, 0.95).unwrap().0, t + 1, "n {n}");
        }
        assert_eq!(walsh_rank(5, 0.95), None);
    }

    #[test]
    fn long_series_join_the_exact_ones_smoothly() {
        let exact = walsh_rank(EXACT_LIMIT, 0.95).unwrap();
        let approximate = walsh_rank(EXACT_LIMIT + 1, 0.95).unwrap();
        let step = approximate.0 as f64 - exact.0 as f64;
        assert!((100.0..350.0).contains(&step), "{exact:?} {approximate:?}");
        assert!((approximate.1 - 0.95).abs() < 1e-3);
        let d: Vec<f64> = (1..=500)
            .map(|i| f64::from(i) * if i % 3 == 0 { -1.0 } else { 1.0 })
            .collect();
        let t = signed_rank(&d);
        assert!(t.p_greater < 1e-6 && t.p_less > 0.999);
    }

    #[test]
    fn centre_and_ends() {
        let h = hodges_lehmann(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.95).unwrap();
        assert_eq!((h.centre, h.low, h.high), (3.5, 1.0, 6.0));
        assert!((h.coverage.unwrap() - 0.96875).abs() < 1e-12);
        assert_eq!(hodges_lehmann(&[1.0, 2.0], 0.95).unwrap().coverage, None);
        assert_eq!(hodges_lehmann(&[], 0.95), None);
    }
}
