//! Counts of values, and the short tables that stand for them.

use crate::model::definition::MAX_VALUE;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Values below this are counted exactly, larger ones in steps of 1/64 of their power of two.
const EXACT: u64 = 1024;
/// Entries of a table that a model shows.
const ENTRIES: usize = 14;
/// Largest number of a model.
pub(super) const MOST: u64 = MAX_VALUE;

/// How often each value was seen; the sum of values in each step, so that its mean is right.
#[derive(Clone, Default)]
pub(super) struct Counts {
    steps: BTreeMap<u64, (u64, u128)>,
    pub count: u64,
}

/// The step of a value.
fn key(value: u64) -> u64 {
    match value {
        0..EXACT => value,
        _ => {
            let shift = value.ilog2().saturating_sub(6);
            value >> shift << shift
        }
    }
}

impl Counts {
    pub fn add(&mut self, value: u64) {
        let step = self.steps.entry(key(value)).or_default();
        step.0 += 1;
        step.1 += u128::from(value);
        self.count += 1;
    }

    /// The same without some values (of those above [`EXACT`] without their step).
    pub fn without(&self, values: &[u32]) -> Self {
        let mut rest = self.clone();
        for &value in values {
            if let Some((count, _)) = rest.steps.remove(&key(u64::from(value))) {
                rest.count -= count;
            }
        }
        rest
    }

    /// Sum of all values.
    pub fn sum(&self) -> u128 {
        self.steps.values().map(|(_, sum)| sum).sum()
    }

    /// The values as at most [`ENTRIES`] pairs (value, count): the most frequent ones as they are, neighbours of the others
    /// together, with their mean.
    fn pairs(&self) -> Vec<(u64, u64)> {
        let mean = |(count, sum): (u64, u128)| {
            let value = (sum + u128::from(count / 2)) / u128::from(count.max(1));
            u64::try_from(value).unwrap_or(MOST).min(MOST)
        };
        if self.steps.len() <= ENTRIES {
            return self
                .steps
                .values()
                .map(|&step| (mean(step), step.0))
                .collect();
        }
        // A value that has its share alone stays alone; what lies between two such is cut by the sum of values, since large
        // blocks decide about memory, and by count, since small ones decide about time.
        let weight = |&(count, sum): &(u64, u128)| {
            count as f64 / self.count as f64 + sum as f64 / self.sum().max(1) as f64
        };
        let share = 2.0 / ENTRIES as f64;
        let mut pairs = Vec::new();
        let (mut open, mut gathered) = ((0u64, 0u128), 0.0);
        for step in self.steps.values() {
            let mine = weight(step);
            if gathered > 0.0 && gathered + mine > share {
                pairs.push((mean(open), open.0));
                (open, gathered) = ((0, 0), 0.0);
            }
            open = (open.0 + step.0, open.1 + step.1);
            gathered += mine;
        }
        pairs.push((mean(open), open.0));
        pairs
    }

    /// As a distribution of the model's language.
    pub fn text(&self, values: &str) -> String {
        let pairs = self.pairs();
        let all: u64 = pairs.iter().map(|(_, count)| count).sum();
        if let [(value, _)] = pairs[..] {
            return format!("{{ kind = \"fixed\", {values} = {value} }}");
        }
        let (mut numbers, mut weights) = (String::new(), String::new());
        for (index, (value, count)) in pairs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(numbers, "{comma}{value}");
            let share = 1000.0 * *count as f64 / all as f64;
            let digits = if share >= 10.0 { 0 } else { 3 };
            let _ = write!(weights, "{comma}{share:.digits$}");
        }
        format!("{{ kind = \"table\", {values} = [{numbers}], weights = [{weights}] }}")
    }
}
