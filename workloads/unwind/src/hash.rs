//! A hash of a stack that can be extended at either end.
//!
//! A polynomial over 2^64: of addresses a0 (the innermost), a1, a2 … it is `f(a0) + f(a1) M + f(a2) M² + …` with an odd M and
//! a scrambling f. So the outer part of a stack has a number of its own, by which a walk that meets a part that it
//! knows need not go on.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Steele and Vigna 2021, "Computationally easy, spectrally good multipliers", table 6.
const SCRAMBLE: u64 = 0xd134_2543_de82_ef95;

/// What has been seen of a stack, from the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackHash {
    sum: u64,
    power: u64,
}

/// The sum of an outer part, from some frame to the outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHash(u64);

const fn scramble(pc: u64) -> u64 {
    let word = pc.wrapping_mul(SCRAMBLE);
    word ^ word >> 29
}

impl Default for StackHash {
    fn default() -> Self {
        Self::new()
    }
}

impl StackHash {
    /// Of nothing.
    pub const fn new() -> Self {
        Self { sum: 0, power: 1 }
    }

    /// With one more address outside.
    #[inline(always)]
    #[must_use]
    pub const fn outward(self, pc: u64) -> Self {
        Self {
            sum: self.sum.wrapping_add(scramble(pc).wrapping_mul(self.power)),
            power: self.power.wrapping_mul(MULTIPLIER),
        }
    }

    /// With all the rest outside.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, rest: OuterHash) -> Self {
        Self {
            sum: self.sum.wrapping_add(rest.0.wrapping_mul(self.power)),
            power: self.power,
        }
    }

    /// The number by which the stack is known; equal for equal addresses and seeds. Its upper bits are as good as any.
    #[inline(always)]
    pub const fn value(self, seed: u64) -> u64 {
        let word = self.sum ^ seed;
        (word ^ word >> 32).wrapping_mul(MULTIPLIER)
    }

    /// The number of these addresses, the innermost first.
    pub fn of(addresses: &[u64], seed: u64) -> u64 {
        let all = addresses
            .iter()
            .fold(Self::new(), |hash, pc| hash.outward(*pc));
        all.value(seed)
    }
}

impl OuterHash {
    /// Of nothing.
    pub const NONE: Self = Self(0);

    /// With one more address inside.
    #[inline(always)]
    #[must_use]
    pub const fn inward(self, pc: u64) -> Self {
        Self(scramble(pc).wrapping_add(self.0.wrapping_mul(MULTIPLIER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_stack_has_one_hash_wherever_it_is_split() {
        let addresses: Vec<u64> = (0..20).map(|at| 0x7f12_3456_0000 + at * 77).collect();
        let whole = StackHash::of(&addresses, 5);
        for split in 0..=addresses.len() {
            let (inner, outer) = addresses.split_at(split);
            let rest = (outer.iter().rev()).fold(OuterHash::NONE, |hash, pc| hash.inward(*pc));
            let hash = inner
                .iter()
                .fold(StackHash::new(), |hash, pc| hash.outward(*pc));
            assert_eq!(hash.and(rest).value(5), whole, "{split}");
        }
        assert_ne!(StackHash::of(&addresses, 6), whole);
    }

    /// Stacks of few addresses near each other, in every order and length, as programs have them.
    #[test]
    fn different_stacks_have_different_hashes_in_all_their_bits() {
        let (mut all, mut upper) = (HashSet::new(), HashSet::new());
        let mut count = 0;
        for length in 1..=6u32 {
            for number in 0..8u64.pow(length) {
                let addresses: Vec<u64> = (0..length)
                    .map(|at| 0x40_1000 + (number >> (3 * at) & 7) * 5)
                    .collect();
                let hash = StackHash::of(&addresses, 0);
                all.insert(hash);
                upper.insert(hash >> 32);
                count += 1;
            }
        }
        assert_eq!(all.len(), count);
        // Of 299,592 numbers of 32 bits some 10 pairs are equal by chance.
        assert!(count - upper.len() < 40, "{} of {count}", upper.len());
    }
}
