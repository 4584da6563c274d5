//! Distributions as tables of integers: a draw costs one or two random words and no floating point.

use super::alias::Alias;
use super::curves::Curves;
use super::definition::Distribution;
use super::math;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;
use std::sync::OnceLock;

/// Steps of a quantile table.
const STEPS: usize = 4096;

/// Normal quantiles at these steps: made once, every log-normal needs them.
static NORMAL: OnceLock<Vec<f64>> = OnceLock::new();

/// Draws numbers of a distribution.
#[derive(Clone, Debug)]
#[repr(u8)]
pub enum Sampler {
    Fixed(u32),
    Uniform { min: u32, count: u64 },
    Choice { pick: Alias, values: Vec<u32> },
    Bins { pick: Alias, edges: Vec<u32> },
    Quantiles(Vec<u32>),
    Mixture { pick: Alias, parts: Vec<Sampler> },
    Curves(Curves),
}

impl Sampler {
    /// Builds the tables of a checked distribution.
    pub fn new(of: &Distribution) -> Self {
        match of {
            Distribution::Fixed { values } => Self::Fixed(*values),
            Distribution::Uniform { min, max } => Self::Uniform {
                min: *min,
                count: u64::from(max - min) + 1,
            },
            Distribution::Table { values, weights } => Self::Choice {
                pick: Alias::new(weights),
                values: values.clone(),
            },
            Distribution::Histogram { edges, weights } => Self::Bins {
                pick: Alias::new(weights),
                edges: edges.clone(),
            },
            Distribution::Zipf { values, exponent } => Self::Choice {
                pick: Alias::new(&zipf(values.len(), *exponent)),
                values: values.clone(),
            },
            Distribution::LogNormal {
                median,
                sigma,
                min,
                max,
            } => {
                let normal = NORMAL.get_or_init(|| math::normal_quantiles(STEPS));
                quantiles(*min, *max, |step| {
                    f64::from(*median) * math::exp(sigma * normal[step])
                })
            }
            Distribution::Pareto { alpha, min, max } => quantiles(*min, *max, |step| {
                let p = math::inner(step, STEPS);
                f64::from(*min) * math::exp(-math::ln(1.0 - p) / alpha)
            }),
            Distribution::Empirical { quantiles } => Self::Quantiles(quantiles.clone()),
            Distribution::Mixture { parts } => {
                let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
                let pick = Alias::new(&weights);
                let parts: Vec<Self> = parts.iter().map(|part| Self::new(&part.size)).collect();
                match Curves::new(&pick, &parts) {
                    Some(curves) => Self::Curves(curves),
                    None => Self::Mixture { pick, parts },
                }
            }
        }
    }

    /// One number.
    #[inline(always)]
    pub fn draw(&self, random: &mut Pcg64) -> u32 {
        match self {
            Self::Mixture { pick, parts } => parts[pick.draw(random.next_u64())].draw_part(random),
            Self::Curves(curves) => curves.draw(random),
            other => other.draw_part(random),
        }
    }

    /// One number of what is no mixture: apart, so that no draw is a call of itself.
    #[inline(always)]
    fn draw_part(&self, random: &mut Pcg64) -> u32 {
        match self {
            Self::Fixed(value) => *value,
            Self::Uniform { min, count } => min + below(random.next_u64(), *count) as u32,
            Self::Choice { pick, values } => values[pick.draw(random.next_u64())],
            Self::Bins { pick, edges } => {
                let bin = pick.draw(random.next_u64());
                let width = u64::from(edges[bin + 1] - edges[bin]);
                edges[bin] + below(random.next_u64(), width) as u32
            }
            Self::Quantiles(table) => {
                // The upper half of the product chooses the step, the lower half the place within it.
                let steps = table.len() as u128 - 1;
                let product = u128::from(random.next_u64()) * steps;
                let step = (product >> 64) as usize;
                let (low, high) = (u64::from(table[step]), u64::from(table[step + 1]));
                let part = product as u64 >> 32;
                (low + (((high - low) * part) >> 32)) as u32
            }
            // A mixture has no mixtures: reading refuses them.
            Self::Mixture { .. } | Self::Curves(_) => 0,
        }
    }
}

/// Weights of ranks, n^-exponent.
pub fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    (0..count)
        .map(|rank| math::exp(-exponent * math::ln((rank + 1) as f64)))
        .collect()
}

/// A share as a bound for the upper 32 bits of a random word.
pub fn threshold(share: f64) -> u64 {
    (share * (1u64 << 32) as f64) as u64
}

/// A number below `count` from one random word (multiply and shift; the bias is below 2^-32 for what models use).
#[inline]
pub fn below(word: u64, count: u64) -> u64 {
    ((u128::from(word) * u128::from(count)) >> 64) as u64
}

/// A table of quantiles, within bounds and never decreasing.
fn quantiles(min: u32, max: u32, at: impl Fn(usize) -> f64) -> Sampler {
    let mut table = Vec::with_capacity(STEPS + 1);
    for step in 0..=STEPS {
        let value = at(step).clamp(f64::from(min), f64::from(max));
        let value = (value + 0.5) as u32;
        table.push(value.max(table.last().copied().unwrap_or(0)));
    }
    Sampler::Quantiles(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::definition::Part;

    fn draws(size: &Distribution, count: usize) -> Vec<u32> {
        let sampler = Sampler::new(size);
        let mut random = Pcg64::new(1, 2);
        (0..count).map(|_| sampler.draw(&mut random)).collect()
    }

    #[test]
    fn weights_are_met() {
        let size = Distribution::Table {
            values: vec![8, 16, 32],
            weights: vec![1.0, 0.0, 3.0],
        };
        let drawn = draws(&size, 40_000);
        assert!(!drawn.contains(&16));
        let small = drawn.iter().filter(|&&value| value == 8).count();
        assert!((9_400..10_600).contains(&small), "{small}");
    }

    #[test]
    fn zipf_halves_at_the_second_rank() {
        let size = Distribution::Zipf {
            values: vec![100, 200, 300, 400],
            exponent: 1.0,
        };
        let drawn = draws(&size, 50_000);
        let count = |value| drawn.iter().filter(|&&drawn| drawn == value).count() as f64;
        assert!((count(100) / count(200) - 2.0).abs() < 0.15);
        assert!((count(100) / count(400) - 4.0).abs() < 0.4);
    }

    #[test]
    fn continuous_ones_have_their_quantiles_and_bounds() {
        let size = Distribution::LogNormal {
            median: 100,
            sigma: 1.0,
            min: 16,
            max: 4096,
        };
        let mut drawn = draws(&size, 40_001);
        drawn.sort_unstable();
        assert!(drawn[0] >= 16 && drawn[40_000] <= 4096);
        assert!((95..=105).contains(&drawn[20_000]), "{}", drawn[20_000]);
        // One sigma up: e times the median.
        assert!((255..=290).contains(&drawn[33_654]), "{}", drawn[33_654]);
        let size = Distribution::Pareto {
            alpha: 1.0,
            min: 10,
            max: 100_000,
        };
        let mut drawn = draws(&size, 40_001);
        drawn.sort_unstable();
        assert!((19..=21).contains(&drawn[20_000]), "{}", drawn[20_000]);
        assert!((95..=105).contains(&drawn[36_000]), "{}", drawn[36_000]);
        assert!(drawn[40_000] > 5_000);
    }

    #[test]
    fn uniform_reaches_both_ends() {
        let drawn = draws(&Distribution::Uniform { min: 3, max: 6 }, 1000);
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&3), Some(&6))
        );
    }

    /// A mixture drawn by curves gives the numbers that its parts would, one by one.
    #[test]
    fn a_mixture_of_curves_is_the_mixture() {
        let parts = [
            Distribution::Uniform {
                min: 1,
                max: u32::MAX - 1,
            },
            Distribution::Pareto {
                alpha: 0.9,
                min: 101,
                max: 300_000,
            },
            Distribution::Fixed { values: 7 },
            Distribution::Uniform { min: 3, max: 6 },
        ];
        let weights = [3.0, 2.0, 1.0, 4.0];
        let parted = parts.iter().zip(weights);
        let mixture = Distribution::Mixture {
            parts: parted
                .map(|(size, weight)| Part {
                    weight,
                    size: size.clone(),
                })
                .collect(),
        };
        assert!(matches!(Sampler::new(&mixture), Sampler::Curves(_)));
        let plain = Sampler::Mixture {
            pick: Alias::new(&weights),
            parts: parts.iter().map(Sampler::new).collect(),
        };
        let mut random = Pcg64::new(1, 2);
        let wanted: Vec<u32> = (0..100_000).map(|_| plain.draw(&mut random)).collect();
        assert!(draws(&mixture, 100_000) == wanted);
    }

    #[test]
    fn bins_and_measured_quantiles() {
        let drawn = draws(
            &Distribution::Histogram {
                edges: vec![8, 16, 1024],
                weights: vec![1.0, 3.0],
            },
            40_000,
        );
        let small = drawn.iter().filter(|&&value| value < 16).count();
        assert!((9_400..10_600).contains(&small), "{small}");
        assert!(drawn.iter().all(|value| (8..1024).contains(value)));
        let mut drawn = draws(
            &Distribution::Empirical {
                quantiles: vec![10, 10, 20, 1000],
            },
            30_000,
        );
        drawn.sort_unstable();
        assert_eq!((drawn[0], drawn[9_000]), (10, 10));
        assert!((14..=16).contains(&drawn[15_000]), "{}", drawn[15_000]);
        assert!(drawn[29_999] > 950 && drawn[29_999] < 1000);
    }
}
