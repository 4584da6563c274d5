//! Distances between samples: exponential, so that every byte is as likely to be sampled as any other
//! whatever the program does, and nobody can tell when the next sample is due.

/// Random numbers and distances.
#[derive(Debug)]
pub(super) struct Gaps {
    /// 0: not begun, so that a new table is all zeros and no part of the file.
    state: u64,
}

/// Where the sequence begins if nobody makes it another one.
const FIRST: u64 = 0x9E37_79B9_7F4A_7C15;

impl Gaps {
    pub(super) const fn new() -> Self {
        Self { state: 0 }
    }

    /// Makes the sequence another one.
    pub(super) fn stir(&mut self, with: u64) {
        self.state = (self.state ^ FIRST ^ with).max(1);
    }

    /// Xorshift with a multiplication (Vigna 2016).
    fn uniform(&mut self) -> u32 {
        if self.state == 0 {
            self.state = FIRST;
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// Bytes to the next sample, exponential with `mean`, at least 1.
    ///
    /// Von Neumann's method (1951): runs of falling uniform numbers whose length is odd have a first
    /// number that is exponential on [0, 1); each run of even length adds 1. Only comparisons, so it
    /// needs no logarithm and is exact to 2⁻³².
    pub(super) fn next(&mut self, mean: usize) -> i64 {
        let mut whole = 0_u64;
        loop {
            let first = self.uniform();
            let (mut last, mut odd) = (first, true);
            loop {
                let next = self.uniform();
                if next >= last {
                    break;
                }
                (last, odd) = (next, !odd);
            }
            if odd {
                let fixed = u128::from(whole << 32 | u64::from(first));
                let bytes = (fixed * mean as u128) >> 32;
                return i64::try_from(bytes).unwrap_or(i64::MAX - 1) + 1;
            }
            whole += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential() {
        const MEAN: usize = 1_000_000;
        const DRAWS: usize = 400_000;
        let mut gaps = Gaps::new();
        let drawn: Vec<f64> = (0..DRAWS).map(|_| gaps.next(MEAN) as f64).collect();
        let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
        assert!((mean / MEAN as f64 - 1.0).abs() < 0.01, "mean {mean}");
        // The share above x is exp(-x / mean), everywhere: a wrong tail would show here.
        for tenths in [1, 5, 10, 20, 40, 70] {
            let x = f64::from(tenths) / 10.0;
            let share = drawn.iter().filter(|&&gap| gap > x * MEAN as f64).count();
            let (share, expected) = (share as f64 / DRAWS as f64, (-x).exp());
            let sigma = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
            assert!(
                (share - expected).abs() < 5.0 * sigma,
                "above {x}: {share}, not {expected}"
            );
        }
        assert_eq!(gaps.next(0), 1);
    }
}
