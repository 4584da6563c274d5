//! A mixture whose parts are curves of quantiles.

use super::alias::Alias;
use super::sampler::Sampler;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// A mixture of evenly spread numbers, tables of quantiles and single numbers: whichever part a draw chooses, the same
/// instructions follow, because chance alone decides and no jump could be foreseen. Draws what the parts would, from the same
/// words.
#[derive(Clone, Debug)]
pub struct Curves {
    pick: Alias,
    parts: Vec<Curve>,
    /// The quantiles of all parts.
    table: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Curve {
    /// Its place in the table.
    begin: u32,
    /// Steps between quantiles; 0: one number, for which no word is drawn.
    steps: u32,
    /// Bits of the place within a step that count.
    mask: u64,
}

impl Curves {
    /// `None` when a part is something else, or reaches the last number of 32 bits.
    pub fn new(pick: &Alias, parts: &[Sampler]) -> Option<Self> {
        let mut table: Vec<u32> = Vec::new();
        let curves = parts.iter().map(|part| {
            let begin = table.len() as u32;
            let (steps, mask) = match part {
                Sampler::Fixed(value) => {
                    table.push(*value);
                    (0, 0)
                }
                Sampler::Uniform { min, count } => {
                    let end = u64::from(*min) + count;
                    table.extend([*min, u32::try_from(end).ok()?]);
                    (1, u64::MAX)
                }
                Sampler::Quantiles(quantiles) => {
                    table.extend(quantiles);
                    (quantiles.len() as u32 - 1, !u64::from(u32::MAX))
                }
                _ => return None,
            };
            Some(Curve { begin, steps, mask })
        });
        let parts = curves.collect::<Option<_>>()?;
        Some(Self {
            pick: pick.clone(),
            parts,
            table,
        })
    }

    /// One number.
    #[inline(always)]
    pub fn draw(&self, random: &mut Pcg64) -> u32 {
        let curve = self.parts[self.pick.draw(random.next_u64())];
        let begin = curve.begin as usize;
        if curve.steps == 0 {
            return self.table[begin];
        }
        // The upper half of the product chooses the step, the lower half the place within it.
        let product = u128::from(random.next_u64()) * u128::from(curve.steps);
        let step = begin + (product >> 64) as usize;
        let (low, high) = (self.table[step], self.table[step + 1]);
        let part = u128::from(product as u64 & curve.mask);
        low + ((u128::from(high - low) * part) >> 64) as u32
    }
}
