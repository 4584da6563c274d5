//! The normal approximation of rank distributions, and from how many values on it stands for them.

/// Up to this many values the rank distributions are enumerated; above, the normal approximation with
/// continuity correction is used, whose error there is far below a thousandth of the tail.
pub const EXACT_LIMIT: usize = 400;

/// Upper tail of the standard normal distribution.
pub(super) fn normal_tail(z: f64) -> f64 {
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
