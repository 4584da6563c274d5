//! Collapsed stacks: one line a stack, `outer;inner amount`, as flame graph tools read them.

use super::schema::{Metric, Profile};
use std::collections::BTreeMap;

/// The lines, sorted; amounts are rounded, stacks without any are left out.
pub fn lines(profile: &Profile, metric: Metric) -> Vec<String> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for stack in &profile.stacks {
        let value = metric.of(&stack.costs).value;
        if value <= 0.0 {
            continue;
        }
        let names: Vec<String> = stack
            .frames
            .iter()
            .map(|index| name(profile, *index))
            .collect();
        *sums.entry(names.join(";")).or_default() += value;
    }
    sums.into_iter()
        .map(|(stack, value)| (stack, value.round()))
        .filter(|(_, value)| *value >= 1.0)
        .map(|(stack, value)| format!("{stack} {value}"))
        .collect()
}

/// A function's name without what the format uses.
fn name(profile: &Profile, index: u32) -> String {
    let location = profile.frames.get(index as usize);
    location.map_or("?".into(), |location| {
        location
            .function
            .replace(';', ":")
            .replace(['\n', '\r'], " ")
    })
}
