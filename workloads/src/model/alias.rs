//! Weighted choice from one random word.

use std::hint::select_unpredictable;

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
        // Chance alone decides: a jump would be foreseen wrongly every other time.
        select_unpredictable(word as u32 <= threshold, column, other as usize)
    }
}
