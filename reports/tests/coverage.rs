//! Intervals keep their promise: simulated with fixed seeds on even and on heavy-tailed noise, each claimed 95 %
//! interval must contain the truth in at least 95 % of the trials, less what chance allows in so many trials.

use heaplab_reports::schema::Sample;
use heaplab_reports::stats;

/// SplitMix64: the same draws on every machine.
struct Draws(u64);

impl Draws {
    /// Uniform in (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON
    }

    /// Normal by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Student's t with 3 degrees of freedom: the tails that timings have.
    fn heavy(&mut self) -> f64 {
        let chi: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (chi / 3.0).sqrt()
    }
}

const TRIALS: u32 = 4000;
/// 95 % less four standard errors of a share of 0.95 in so many trials.
const ENOUGH: f64 = 0.95 - 4.0 * 0.003_446;

fn samples(values: impl Iterator<Item = f64>) -> Vec<Sample> {
    values
        .zip(0..)
        .map(|(value, block)| Sample {
            block,
            order: 0,
            value,
        })
        .collect()
}

fn share(mut covered: impl FnMut(&mut Draws) -> bool) -> f64 {
    let mut draws = Draws(20_261_125);
    f64::from((0..TRIALS).filter(|_| covered(&mut draws)).count() as u32) / f64::from(TRIALS)
}

#[test]
fn the_interval_of_a_median_covers_it() {
    for n in [6, 7, 9, 12, 25] {
        for (noise, draw) in [
            ("normal", Draws::normal as fn(&mut Draws) -> f64),
            ("heavy", Draws::heavy),
        ] {
            let share = share(|d| {
                let found =
                    stats::summarise(&samples((0..n).map(|_| 100.0 + draw(d)))).expect("samples");
                found.low <= 100.0 && 100.0 <= found.high
            });
            assert!(
                share >= ENOUGH,
                "{n} samples, {noise} noise: covered in {share}"
            );
        }
    }
}

#[test]
fn the_interval_of_a_paired_ratio_covers_it_whatever_the_drift() {
    for n in [6, 7, 9, 12, 25] {
        for (noise, draw) in [
            ("normal", Draws::normal as fn(&mut Draws) -> f64),
            ("heavy", Draws::heavy),
        ] {
            let share = share(|d| {
                // Both of a pair share the block's drift, which pairing must remove.
                let drift: Vec<f64> = (0..n)
                    .map(|i| f64::from(i) * 0.05 + 0.2 * d.normal())
                    .collect();
                let base = samples(drift.iter().map(|x| (x + 0.02 * draw(d)).exp()));
                let head = samples(drift.iter().map(|x| 0.9 * (x + 0.02 * draw(d)).exp()));
                let ratio = stats::paired_ratio(&head, &base).expect("pairs");
                ratio.low <= 0.9 && 0.9 <= ratio.high
            });
            assert!(
                share >= ENOUGH,
                "{n} pairs, {noise} noise: covered in {share}"
            );
        }
    }
}
