//! Metrics that the user named: read from what a load printed, counted like all others.

use super::OWN_KEY;
use heaplab_reports::schema::{Better, Metric, RunLine, Sample};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Read {
    name: String,
    unit: String,
    better: Better,
    value: f64,
}

/// Every metric that the runs' answers name.
pub(super) fn metrics(lines: &[&RunLine]) -> Vec<(String, Metric)> {
    let mut found: BTreeMap<String, (String, Better, Vec<Sample>)> = BTreeMap::new();
    for line in lines {
        let read: Vec<Read> =
            serde_json::from_value(line.answer[OWN_KEY].clone()).unwrap_or_default();
        for one in read {
            let sample = Sample {
                block: line.block,
                order: line.order,
                value: one.value,
            };
            found
                .entry(one.name)
                .or_insert_with(|| (one.unit, one.better, Vec::new()))
                .2
                .push(sample);
        }
    }
    found
        .into_iter()
        .filter_map(|(name, (unit, better, samples))| {
            let metric = Metric::from_samples(&unit, better, "program", "program", samples)?;
            Some((name, metric))
        })
        .collect()
}
