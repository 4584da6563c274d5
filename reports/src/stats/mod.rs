//! Statistics for run, diff and gate: exact intervals of a median, exact rank tests, paired ratios.
//!
//! One module, so that a verdict, a table and a chart can never disagree. Everything here is exact
//! (enumerated distributions, no bootstrap, no normal approximation up to [`EXACT_LIMIT`] values) and
//! conservative: an interval covers *at least* its stated level. Below [`MIN_BLOCKS`] values no such
//! interval exists, and the smallest and largest value are given and called a range.

mod binomial;
mod order;
mod rank_sum;
mod ratio;
mod signed_rank;

pub use binomial::{SignTest, sign_test};
pub use order::{Interval, median, median_interval, quartiles, summarise, summarise_values};
pub use rank_sum::{ratio_of_values, unpaired_ratio};
pub use ratio::{
    block_values, detectable, geometric_mean, geometric_mean_of_pairs, log_pairs, paired_ratio,
    ratio_from_logs, ratio_kind, shown_different,
};
pub use signed_rank::{HodgesLehmann, SignedRank, hodges_lehmann, signed_rank};

/// Fewest values for which an exact two-sided 95 % interval of a median exists (2 · 2⁻⁶ ≤ 0.05).
pub const MIN_BLOCKS: usize = 6;

/// Up to this many values the rank distributions are enumerated; above, the normal approximation with
/// continuity correction is used, whose error there is far below a thousandth of the tail.
pub const EXACT_LIMIT: usize = 400;

/// Upper tail of the standard normal distribution.
fn normal_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_tail(-z);
    }
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z < 3.0 {
        // Area from 0 to z as a power series: density · (z + z³/3 + z⁵/15 + …).
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > sum * 1e-17 {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    // Laplace's continued fraction converges fast in the tail.
    let fraction = (1..=60).rev().fold(z, |below, i| z + f64::from(i) / below);
    density / fraction
}

#[cfg(test)]
mod tests {
    use super::normal_tail;

    #[test]
    fn normal_tail_meets_known_quantiles() {
        for (z, p) in [
            (0.0, 0.5),
            (1.644_854, 0.05),
            (1.959_964, 0.025),
            (2.999_977, 0.001_35),
            (3.090_232, 0.001),
        ] {
            assert!(
                (normal_tail(z) - p).abs() < 1e-7,
                "z {z}: {}",
                normal_tail(z)
            );
            assert!((normal_tail(-z) - (1.0 - p)).abs() < 1e-7);
        }
    }
}
