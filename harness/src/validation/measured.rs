//! Metrics of the user's own in the program's runs, with the statistics that `heaplab run` gives them.

use super::face::Table;
use super::{Row, Run, Samples};
use crate::service::OwnMetric;
use crate::subject::Subject;
use heaplab_reports::BASELINE;
use heaplab_reports::schema::{IntervalKind, Metric, Sample};
use heaplab_reports::{stats, units};
use std::collections::{BTreeMap, BTreeSet};

/// Of each subject, by name. Rounds are the blocks: each runs every subject once, in the order of the rows.
pub fn measured(
    subjects: &[Subject],
    metrics: &[OwnMetric],
    runs: &[Samples<Run>],
) -> Vec<BTreeMap<String, Metric>> {
    let samples = |at: usize, metric: &OwnMetric| -> Vec<Sample> {
        let runs = runs[at].iter().flatten().enumerate();
        runs.filter_map(|(block, run)| {
            Some(Sample {
                block: block as u32,
                order: at as u32,
                value: *run.metrics.get(&metric.name)?,
            })
        })
        .collect()
    };
    let system = subjects.iter().position(|s| s.label == BASELINE);
    let of = |at: usize, metric: &OwnMetric| {
        let own = samples(at, metric);
        let ratio = system
            .filter(|system| *system != at)
            .and_then(|system| stats::paired_ratio(&own, &samples(system, metric)));
        let found = Metric::from_samples(&metric.unit, metric.better, "program", "program", own)?;
        let found = Metric {
            ratio_to_system: ratio,
            ..found
        };
        Some((metric.name.clone(), found))
    };
    (0..subjects.len())
        .map(|at| metrics.iter().filter_map(|metric| of(at, metric)).collect())
        .collect()
}

/// Names of all.
pub(super) fn names(rows: &[Row]) -> BTreeSet<&String> {
    rows.iter().flat_map(|row| row.metrics.keys()).collect()
}

/// The user's own metrics, a column each; absent where there are none.
pub(super) fn table(rows: &[Row]) -> Option<Table> {
    let names = names(rows);
    if names.is_empty() {
        return None;
    }
    let mut head = vec!["subject".to_owned()];
    for name in &names {
        head.extend([
            (*name).clone(),
            "95 % or range".into(),
            "of system's".into(),
        ]);
    }
    let cell = |metric: &Metric| {
        let value = |number| units::value(&metric.unit, number);
        let ends = format!("{} to {}", value(metric.low), value(metric.high));
        let ratio = metric.ratio_to_system.as_ref();
        let ratio = ratio.map_or("-".into(), |ratio| {
            let ends = stats::ratio_kind(ratio) == IntervalKind::Ci95;
            let ends = match ends {
                true => format!(" [{:.2} {:.2}]", ratio.low, ratio.high),
                false => String::new(),
            };
            format!("{:.2}{ends}", ratio.median)
        });
        [value(metric.median), ends, ratio]
    };
    let cells = rows.iter().map(|row| {
        let found = (names.iter()).flat_map(|name| match row.metrics.get(*name) {
            Some(metric) => cell(metric),
            None => ["-"; 3].map(String::from),
        });
        std::iter::once(row.subject.clone()).chain(found).collect()
    });
    Some((head, cells.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_a_run_and_paired_by_the_round() {
        let metric = OwnMetric::parse("rps=1/s:higher:([0-9]+)").unwrap();
        let subjects: Vec<Subject> = ["system", "mimalloc"]
            .iter()
            .flat_map(|name| crate::subject::parse(name).unwrap())
            .chain([Subject::variant("mine")])
            .collect();
        let runs = |values: &[f64]| -> Samples<Run> {
            let run = |value: &f64| Run {
                metrics: [("rps".to_owned(), *value)].into(),
                ..Run::default()
            };
            Ok(values.iter().map(run).collect())
        };
        let runs = [
            runs(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
            runs(&[20.0, 40.0, 60.0, 80.0, 100.0, 120.0]),
            Err("it hangs".into()),
        ];
        let found = measured(&subjects, &[metric], &runs);
        let (system, mimalloc) = (&found[0]["rps"], &found[1]["rps"]);
        assert_eq!((system.median, system.interval), (35.0, IntervalKind::Ci95));
        assert_eq!((system.low, system.high), (10.0, 60.0));
        assert!(system.ratio_to_system.is_none());
        // Twice as many in each round, whatever the rounds have in common.
        let ratio = mimalloc.ratio_to_system.unwrap();
        assert!(
            (ratio.low, ratio.high) == (2.0, 2.0) && ratio.pairs == 6,
            "{ratio:?}"
        );
        assert!(found[2].is_empty());
    }
}
