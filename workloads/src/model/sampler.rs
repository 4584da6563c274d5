//! Distributions of sizes as tables of integers: a draw costs one or two random words and no floating point.

use super::definition::Size;
use super::math;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// Steps of a quantile table.
const STEPS: usize = 4096;

/// Draws sizes in bytes.
#[derive(Clone, Debug)]
pub enum Sampler {
    Fixed(u32),
    Uniform { min: u32, count: u64 },
    Choice { pick: Alias, bytes: Vec<u32> },
    Quantiles(Vec<u32>),
    Mixture { pick: Alias, parts: Vec<Sampler> },
}

impl Sampler {
    /// Builds the tables of a checked distribution.
    pub fn new(size: &Size) -> Self {
        match size {
            Size::Fixed { bytes } => Self::Fixed(*bytes),
            Size::Uniform { min, max } => Self::Uniform {
                min: *min,
                count: u64::from(max - min) + 1,
            },
            Size::Table { bytes, weights } => Self::Choice {
                pick: Alias::new(weights),
                bytes: bytes.clone(),
            },
            Size::Zipf { bytes, exponent } => {
                let weights: Vec<f64> = (0..bytes.len())
                    .map(|rank| math::exp(-exponent * math::ln((rank + 1) as f64)))
                    .collect();
                Self::Choice {
                    pick: Alias::new(&weights),
                    bytes: bytes.clone(),
                }
            }
            Size::LogNormal {
                median,
                sigma,
                min,
                max,
            } => quantiles(*min, *max, |p| {
                f64::from(*median) * math::exp(sigma * math::normal_quantile(p))
            }),
            Size::Pareto { alpha, min, max } => quantiles(*min, *max, |p| {
                f64::from(*min) * math::exp(-math::ln(1.0 - p) / alpha)
            }),
            Size::Mixture { parts } => {
                let weights: Vec<f64> = parts.iter().map(|part| part.weight).collect();
                Self::Mixture {
                    pick: Alias::new(&weights),
                    parts: parts.iter().map(|part| Self::new(&part.size)).collect(),
                }
            }
        }
    }

    /// One size.
    #[inline]
    pub fn draw(&self, random: &mut Pcg64) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Uniform { min, count } => min + below(random.next_u64(), *count) as u32,
            Self::Choice { pick, bytes } => bytes[pick.draw(random.next_u64())],
            Self::Quantiles(table) => {
                let word = random.next_u64();
                let step = (word >> 52) as usize;
                let (low, high) = (u64::from(table[step]), u64::from(table[step + 1]));
                let part = word >> 20 & 0xffff_ffff;
                (low + (((high - low) * part) >> 32)) as u32
            }
            Self::Mixture { pick, parts } => parts[pick.draw(random.next_u64())].draw(random),
        }
    }
}

/// A number below `count` from one random word (multiply and shift; the bias is below 2^-32 for what models use).
#[inline]
pub fn below(word: u64, count: u64) -> u64 {
    ((u128::from(word) * u128::from(count)) >> 64) as u64
}

/// A table of quantiles, within bounds and never decreasing.
fn quantiles(min: u32, max: u32, at: impl Fn(f64) -> f64) -> Sampler {
    let mut table = Vec::with_capacity(STEPS + 1);
    for step in 0..=STEPS {
        // The ends stand for the middle of the outermost half step, where the quantile is finite.
        let p = (step as f64).clamp(0.25, STEPS as f64 - 0.25) / STEPS as f64;
        let value = at(p).clamp(f64::from(min), f64::from(max));
        let value = (value + 0.5) as u32;
        table.push(value.max(table.last().copied().unwrap_or(0)));
    }
    Sampler::Quantiles(table)
}

/// Walker's alias table: one word chooses among weighted items.
#[derive(Clone, Debug)]
pub struct Alias {
    columns: Vec<(u32, u32)>,
}

impl Alias {
    /// `weights` are finite, not negative, and not all 0; at most 2^20 of them.
    pub fn new(weights: &[f64]) -> Self {
        const ONE: u64 = 1 << 32;
        let sum: f64 = weights.iter().sum();
        let count = weights.len();
        let mut scaled: Vec<u64> = weights
            .iter()
            .map(|weight| (weight / sum * count as f64 * ONE as f64) as u64)
            .collect();
        let mut columns = vec![(u32::MAX, 0u32); count];
        for (index, column) in columns.iter_mut().enumerate() {
            column.1 = index as u32;
        }
        let mut small: Vec<usize> = (0..count).filter(|&index| scaled[index] < ONE).collect();
        let mut large: Vec<usize> = (0..count).filter(|&index| scaled[index] >= ONE).collect();
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            columns[poor] = (scaled[poor] as u32, rich as u32);
            scaled[rich] -= ONE - scaled[poor];
            if scaled[rich] < ONE {
                large.pop();
                small.push(rich);
            }
        }
        Self { columns }
    }

    /// The item for a random word.
    #[inline]
    pub fn draw(&self, word: u64) -> usize {
        let column = (((word >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (threshold, other) = self.columns[column];
        if word as u32 <= threshold {
            column
        } else {
            other as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(size: &Size, count: usize) -> Vec<u32> {
        let sampler = Sampler::new(size);
        let mut random = Pcg64::new(1, 2);
        (0..count).map(|_| sampler.draw(&mut random)).collect()
    }

    #[test]
    fn weights_are_met() {
        let size = Size::Table {
            bytes: vec![8, 16, 32],
            weights: vec![1.0, 0.0, 3.0],
        };
        let drawn = draws(&size, 40_000);
        assert!(!drawn.contains(&16));
        let small = drawn.iter().filter(|&&bytes| bytes == 8).count();
        assert!((9_400..10_600).contains(&small), "{small}");
    }

    #[test]
    fn zipf_halves_at_the_second_rank() {
        let size = Size::Zipf {
            bytes: vec![100, 200, 300, 400],
            exponent: 1.0,
        };
        let drawn = draws(&size, 50_000);
        let count = |bytes| drawn.iter().filter(|&&drawn| drawn == bytes).count() as f64;
        assert!((count(100) / count(200) - 2.0).abs() < 0.15);
        assert!((count(100) / count(400) - 4.0).abs() < 0.4);
    }

    #[test]
    fn continuous_ones_have_their_quantiles_and_bounds() {
        let size = Size::LogNormal {
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
        let size = Size::Pareto {
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
        let drawn = draws(&Size::Uniform { min: 3, max: 6 }, 1000);
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&3), Some(&6))
        );
    }
}
