//! Estimated sums.

use std::ops::{AddAssign, SubAssign};

/// A sum over allocations that were chosen by chance, and how sure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The sum; exact where the variance is 0.
    pub value: f64,
    /// Estimated variance of the sum.
    pub variance: f64,
}

impl Estimate {
    /// One allocation that was chosen with this probability.
    pub fn one(probability: f64) -> Self {
        if probability >= 1.0 || probability <= 0.0 {
            return Self {
                value: probability.clamp(0.0, 1.0),
                variance: 0.0,
            };
        }
        Self {
            value: 1.0 / probability,
            variance: (1.0 - probability) / (probability * probability),
        }
    }

    /// The same of something of which each allocation has `factor`.
    pub fn times(self, factor: u64) -> Self {
        let factor = factor as f64;
        Self {
            value: self.value * factor,
            variance: self.variance * factor * factor,
        }
    }

    /// Half the width of the 95 % interval (normal approximation).
    pub fn error95(self) -> f64 {
        1.959_964 * self.variance.max(0.0).sqrt()
    }

    /// Without what rounding left of a sum that came back to nothing.
    pub(super) fn settled(self) -> Self {
        if self.value < 0.5 {
            Self::default()
        } else {
            self
        }
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.value += other.value;
        self.variance += other.variance;
    }
}

/// Takes a part out of a sum that it was added to before: its uncertainty goes with it.
impl SubAssign for Estimate {
    fn sub_assign(&mut self, other: Self) {
        self.value -= other.value;
        self.variance -= other.variance;
    }
}

/// What a stack, or several, have.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// Allocations that brought the stack.
    pub samples: u64,
    /// Allocations, resizes included.
    pub allocations: Estimate,
    /// Bytes requested by them.
    pub bytes: Estimate,
    /// Blocks alive at the peak of the program.
    pub peak_blocks: Estimate,
    /// Bytes alive at the peak of the program.
    pub peak_bytes: Estimate,
    /// Blocks alive at the end of their process.
    pub leaked_blocks: Estimate,
    /// Bytes alive at the end of their process.
    pub leaked_bytes: Estimate,
    /// Short-lived blocks.
    pub temporary_blocks: Estimate,
    /// Bytes of short-lived blocks.
    pub temporary_bytes: Estimate,
}

impl AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
        self.peak_blocks += other.peak_blocks;
        self.peak_bytes += other.peak_bytes;
        self.leaked_blocks += other.leaked_blocks;
        self.leaked_bytes += other.leaked_bytes;
        self.temporary_blocks += other.temporary_blocks;
        self.temporary_bytes += other.temporary_bytes;
    }
}
