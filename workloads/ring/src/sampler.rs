//! Which allocations are sampled: a Poisson process over the bytes that a thread allocates.
//!
//! Sample points lie at exponentially distributed distances with mean `period` along the bytes. An
//! allocation of `size` bytes is sampled when a point falls into it, which happens with probability
//! `p = 1 - exp(-size / period)`, whatever was allocated before. Counting each sampled allocation
//! `1 / p` times (and its bytes as `size / p`) makes every sum over allocations unbiased (Horvitz
//! and Thompson; the same estimator as TCMalloc's and jemalloc's). Sizes count as 1 at least.

/// A thread's sampler. All zero is a valid state: the first call draws the first distance.
#[derive(Debug, Default)]
pub struct Sampler {
    random: u64,
}

impl Sampler {
    /// A sampler with this seed; equal seeds draw equal distances.
    pub fn new(seed: u64) -> Sampler {
        Sampler { random: seed }
    }

    /// What [`Sampler::new`] goes on from.
    pub fn state(&self) -> u64 {
        self.random
    }

    /// Whole bytes before the next sample point: exponential with mean `period`, rounded down. An
    /// allocation that is longer than what is left is sampled.
    pub fn distance(&mut self, period: u32) -> i64 {
        let distance = -ln(self.uniform()) * f64::from(period);
        (distance as i64).clamp(0, i64::MAX / 2)
    }

    /// Uniform in (0, 1), 53 bits: SplitMix64 (Steele, Lea, Flood 2014).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// The natural logarithm of a number in (0, 1], to about 1e-10: the recorder has no libm. With
/// `x = m * 2^e`, m in [sqrt(1/2), sqrt(2)): `ln m = 2 artanh((m - 1) / (m + 1))` as a series.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52 & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > core::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for divisor in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        series = (series + 1.0 / divisor) * square;
    }
    2.0 * s * (series + 1.0) + exponent as f64 * core::f64::consts::LN_2
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn probability(size: u64, period: u32) -> f64 {
        -(-(size.max(1) as f64) / f64::from(period)).exp_m1()
    }

    #[test]
    fn the_logarithm_is_one() {
        for step in 1..=100_000u32 {
            let x = f64::from(step) / 100_000.0;
            assert!((ln(x) - x.ln()).abs() < 1e-9, "ln({x}) = {}", ln(x));
        }
        assert!((ln(1e-16) - 1e-16f64.ln()).abs() < 1e-9);
    }

    /// Runs a mixed load through the sampler as the hook does; sums by the estimator.
    fn estimate(seed: u64, period: u32, sizes: &[u64], rounds: u32) -> Vec<(f64, f64)> {
        let mut sampler = Sampler::new(seed);
        let mut left = sampler.distance(period);
        let mut sums = vec![(0.0, 0.0); sizes.len()];
        for _ in 0..rounds {
            for (sum, &size) in sums.iter_mut().zip(sizes) {
                left -= size.max(1) as i64;
                if left < 0 {
                    left = sampler.distance(period);
                    let weight = 1.0 / probability(size, period);
                    sum.0 += weight;
                    sum.1 += weight * size as f64;
                }
            }
        }
        sums
    }

    /// Counts and bytes of every size class are met within four standard errors of the estimator,
    /// whose variance is `sum (1 - p) / p`; a weight of `max(size, period)`, say, is not.
    #[test]
    fn counts_and_bytes_are_unbiased_for_small_and_large_blocks() {
        let sizes = [0, 1, 16, 100, 1000, 4096, 10_000, 100_000];
        let (rounds, period) = (200_000u32, 4096);
        for seed in 0..4 {
            for (&size, (count, bytes)) in sizes.iter().zip(estimate(seed, period, &sizes, rounds))
            {
                let p = probability(size, period);
                let error = (f64::from(rounds) * (1.0 - p) / p).sqrt();
                let off = (count - f64::from(rounds)).abs();
                assert!(
                    off <= 4.0 * error + 1.0,
                    "{size} bytes: {count} for {rounds}, error {error}"
                );
                let exact = f64::from(rounds) * size as f64;
                assert!((bytes - exact).abs() <= (4.0 * error + 1.0) * size as f64);
            }
        }
    }

    #[test]
    fn distances_have_the_mean_and_the_spread_of_an_exponential() {
        let mut sampler = Sampler::default();
        let draws: Vec<f64> = (0..200_000)
            .map(|_| sampler.distance(1 << 19) as f64)
            .collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        let period = f64::from(1u32 << 19);
        assert!((mean / period - 1.0).abs() < 0.01, "mean {mean}");
        assert!(
            (variance.sqrt() / period - 1.0).abs() < 0.02,
            "deviation {}",
            variance.sqrt()
        );
    }
}
