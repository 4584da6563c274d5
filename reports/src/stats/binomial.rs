//! The binomial distribution with p = ½ and the sign test.

/// P(X ≤ k) for X ~ Binomial(n, ½).
pub(super) fn half_cdf(n: usize, k: usize) -> f64 {
    if k >= n {
        return 1.0;
    }
    // In logarithms, because 2⁻ⁿ underflows for long series.
    let mut ln_pmf = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = ln_pmf.exp();
    for i in 0..k {
        ln_pmf += ((n - i) as f64 / (i + 1) as f64).ln();
        sum += ln_pmf.exp();
    }
    sum.min(1.0)
}

/// Result of a sign test against zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignTest {
    /// Values below zero.
    pub below: usize,
    /// Values above zero.
    pub above: usize,
    /// One-sided p value for "the median is below zero".
    pub p_less: f64,
    /// One-sided p value for "the median is above zero".
    pub p_greater: f64,
}

/// Exact sign test of the median of `differences` against zero; zeros carry no sign and are left out.
pub fn sign_test(differences: &[f64]) -> SignTest {
    let below = differences.iter().filter(|d| **d < 0.0).count();
    let above = differences.iter().filter(|d| **d > 0.0).count();
    let n = below + above;
    // P(at most `above` positive signs) is small when the median lies below zero.
    SignTest {
        below,
        above,
        p_less: half_cdf(n, above),
        p_greater: half_cdf(n, below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cdf_agrees_with_counting() {
        for n in 1..=16_usize {
            for k in 0..n {
                let hits = (0_u32..1 << n)
                    .filter(|m| m.count_ones() as usize <= k)
                    .count();
                let exact = hits as f64 / f64::from(1_u32 << n);
                assert!((half_cdf(n, k) - exact).abs() < 1e-12, "n {n} k {k}");
            }
        }
        assert!((half_cdf(5000, 2499) - 0.494_358).abs() < 1e-5);
    }

    #[test]
    fn sign_test_is_one_sided_both_ways() {
        let t = sign_test(&[-1.0, -2.0, -3.0, -0.5, -0.1, 0.0]);
        assert_eq!((t.below, t.above), (5, 0));
        assert!((t.p_less - 1.0 / 32.0).abs() < 1e-12);
        assert!((t.p_greater - 1.0).abs() < 1e-12);
        assert_eq!(sign_test(&[]).p_less, 1.0);
    }
}
