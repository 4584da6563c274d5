//! Which workloads belong into a suite, by data: `cargo run -p heaplab-workloads --example suite_data -- RESULT/result.json...`.
//!
//! Reads results of `heaplab run` with measures speed and memory and prints, as Markdown, for each workload: how far it
//! sets the subjects apart, how well it repeats, and which other workload says nearly the same; then which ones a greedy
//! choice takes. The definitions:
//!
//! - a subject's *ns per op* is the least of its runs, in all results: what other programs take only adds, and a machine that others use
//!   too gives half of its speed for seconds at a time; its other figures are medians;
//! - *apart*: largest over smallest figure of the subjects, for ns per op and for peak resident bytes;
//! - *noise*: median over the subjects of (third quartile - first quartile) / median of a subject's figure over the geometric mean of all
//!   subjects in the same block, as a gate compares runs of one block;
//! - *pairs*: how many pairs of subjects it tells apart: ns per op, or peaks above 1 MiB, that differ by more
//!   than 5 % and more than both subjects' noise;
//! - *profile*: logarithms of each subject's ns per op, peak and mean resident bytes, minor faults, each against the
//!   geometric mean of all subjects; *twin*: the workload whose profile lies nearest (root mean square distance), with
//!   the correlation of the two profiles.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

/// Metrics of a profile.
const METRICS: [&str; 4] = [
    "ns_per_op",
    "peak_resident_bytes",
    "mean_resident_bytes",
    "minor_faults",
];
/// A profile nearer than this to a chosen one is redundant: a factor of exp(0.12), 13 %, on average.
const NEAR: f64 = 0.12;
/// Smallest difference that tells a pair apart.
const DIFFERENT: f64 = 0.05;
/// Peaks below this are start-up memory, bytes.
const LARGE: f64 = 1048576.0;
/// Correlation above which one workload resembles another.
const ALIKE: f64 = 0.95;
/// Quartile distance of ns per op above which a workload does not repeat well enough for a gate.
const STEADY: f64 = 0.08;

/// A run's place: result and block.
type Place = (usize, u64);

/// One workload's figures and spreads: by metric, by subject.
#[derive(Default)]
struct Row {
    samples: BTreeMap<String, BTreeMap<String, Vec<(Place, f64)>>>,
    medians: BTreeMap<String, BTreeMap<String, f64>>,
    noise: BTreeMap<String, Vec<f64>>,
    /// The same spreads by metric and subject.
    spreads: BTreeMap<(String, String), f64>,
}

/// A pair of subjects that a workload tells apart: the smaller one by this metric first.
type Told = (&'static str, String, String);

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: suite_data RESULT/result.json...");
        return ExitCode::from(2);
    }
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (number, path) in paths.into_iter().enumerate() {
        let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let result = read.and_then(|text| {
            serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())
        });
        match result {
            Ok(result) => add(number, &result, &mut rows),
            Err(error) => {
                eprintln!("cannot read '{path}': {error}");
                return ExitCode::from(3);
            }
        }
    }
    // What was measured of subjects without times is left out: all figures are of the same subjects.
    for row in rows.values_mut() {
        row.finish();
        let timed = row.medians.get("ns_per_op").cloned().unwrap_or_default();
        for medians in row.medians.values_mut() {
            medians.retain(|subject, _| timed.contains_key(subject));
        }
    }
    print(&rows);
    ExitCode::SUCCESS
}

/// Adds the cells of a result to the rows.
fn add(number: usize, result: &Value, rows: &mut BTreeMap<String, Row>) {
    for cell in result["cells"].as_array().into_iter().flatten() {
        let (Some(workload), Some(subject)) = (cell["workload"].as_str(), cell["subject"].as_str())
        else {
            continue;
        };
        for metric in METRICS {
            let samples = cell["metrics"][metric]["samples"].as_array();
            let values = (samples.into_iter().flatten()).filter_map(|sample| {
                let block = sample["block"].as_u64()?;
                Some(((number, block), sample["value"].as_f64()?))
            });
            let values: Vec<_> = values.collect();
            if values.is_empty() {
                continue;
            }
            let row = rows.entry(workload.to_owned()).or_default();
            let of_metric = row.samples.entry(metric.to_owned()).or_default();
            of_metric
                .entry(subject.to_owned())
                .or_default()
                .extend(values);
        }
    }
}

impl Row {
    /// Figures and noise, when all samples are there.
    fn finish(&mut self) {
        for (metric, subjects) in &self.samples {
            // Sum of logarithms and number of the runs in each block.
            let mut blocks: BTreeMap<Place, (f64, f64)> = BTreeMap::new();
            for (place, value) in subjects.values().flatten() {
                let of = blocks.entry(*place).or_default();
                of.0 += value.max(1.0).ln();
                of.1 += 1.0;
            }
            for (subject, samples) in subjects {
                let mut values: Vec<f64> = samples.iter().map(|(_, value)| *value).collect();
                values.sort_by(f64::total_cmp);
                let figure = quantile(&values, if metric == METRICS[0] { 0.0 } else { 0.5 });
                let mut ratios: Vec<f64> = (samples.iter())
                    .map(|(place, value)| {
                        let (sum, count) = blocks[place];
                        value.max(1.0) / (sum / count).exp()
                    })
                    .collect();
                ratios.sort_by(f64::total_cmp);
                let spread =
                    (quantile(&ratios, 0.75) - quantile(&ratios, 0.25)) / quantile(&ratios, 0.5);
                self.noise.entry(metric.clone()).or_default().push(spread);
                (self.spreads).insert((metric.clone(), subject.clone()), spread);
                let medians = self.medians.entry(metric.clone()).or_default();
                medians.insert(subject.clone(), figure.max(1.0));
            }
        }
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let low = sorted[at as usize];
    let high = sorted[(at as usize + 1).min(sorted.len() - 1)];
    low + (high - low) * at.fract()
}

impl Row {
    fn apart(&self, metric: &str) -> f64 {
        let values = self
            .medians
            .get(metric)
            .into_iter()
            .flat_map(BTreeMap::values);
        let (min, max) = values.fold((f64::INFINITY, 0.0f64), |(min, max), &value| {
            (min.min(value), max.max(value))
        });
        if max > 0.0 { max / min } else { 1.0 }
    }

    fn noise(&self, metric: &str) -> f64 {
        let mut values = self.noise.get(metric).cloned().unwrap_or_default();
        values.sort_by(f64::total_cmp);
        if values.is_empty() {
            0.0
        } else {
            quantile(&values, 0.5)
        }
    }

    /// The pairs of subjects that it tells apart, by time and by peak.
    fn told(&self) -> BTreeSet<Told> {
        let mut told = BTreeSet::new();
        for metric in ["ns_per_op", "peak_resident_bytes"] {
            let Some(medians) = self.medians.get(metric) else {
                continue;
            };
            for (less, low) in medians {
                for (more, high) in medians {
                    let spread = |subject: &String| {
                        let key = (metric.to_owned(), subject.clone());
                        self.spreads.get(&key).copied().unwrap_or(0.0)
                    };
                    let noise = DIFFERENT.max(spread(less)).max(spread(more));
                    let counts = metric == "ns_per_op" || *low > LARGE;
                    if counts && high / low > 1.0 + noise {
                        told.insert((metric, less.clone(), more.clone()));
                    }
                }
            }
        }
        told
    }

    /// How many pairs of subjects, by time or by peak.
    fn pairs(&self) -> usize {
        let pairs: BTreeSet<(String, String)> = self
            .told()
            .into_iter()
            .map(|(_, one, other)| (one.clone().min(other.clone()), one.max(other)))
            .collect();
        pairs.len()
    }

    /// See the head of the file.
    fn profile(&self) -> Vec<f64> {
        let mut profile = Vec::new();
        for metric in METRICS {
            let logs: Vec<f64> = self
                .medians
                .get(metric)
                .into_iter()
                .flat_map(BTreeMap::values)
                .map(|value| value.ln())
                .collect();
            let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
            // Faults differ by factors of hundreds: they count as tens of percents do elsewhere.
            let weight = if metric == "minor_faults" { 0.1 } else { 1.0 };
            profile.extend(logs.iter().map(|log| (log - mean) * weight));
        }
        profile
    }

    /// Subjects from the fastest to the slowest.
    fn ranking(&self) -> String {
        let mut subjects: Vec<(&String, &f64)> = self
            .medians
            .get("ns_per_op")
            .into_iter()
            .flatten()
            .collect();
        subjects.sort_by(|left, right| left.1.total_cmp(right.1));
        let shown: Vec<String> = subjects
            .iter()
            .map(|(name, ns)| format!("{name} {ns:.1}"))
            .collect();
        shown.join(", ")
    }
}

fn distance(left: &[f64], right: &[f64]) -> f64 {
    let sum: f64 = left
        .iter()
        .zip(right)
        .map(|(left, right)| (left - right).powi(2))
        .sum();
    (sum / left.len().max(1) as f64).sqrt()
}

fn correlation(left: &[f64], right: &[f64]) -> f64 {
    let product = |one: &[f64], other: &[f64]| {
        one.iter()
            .zip(other)
            .map(|(one, other)| one * other)
            .sum::<f64>()
    };
    product(left, right)
        / (product(left, left) * product(right, right))
            .sqrt()
            .max(1e-12)
}

fn print(rows: &BTreeMap<String, Row>) {
    let profiles: BTreeMap<&String, Vec<f64>> = rows
        .iter()
        .map(|(name, row)| (name, row.profile()))
        .collect();
    println!(
        "| workload | apart: ns/op | peak | noise: ns/op | peak | pairs | nearest twin | distance | correlation | ns/op, fastest first |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, row) in rows {
        let twin = profiles
            .iter()
            .filter(|(other, _)| **other != name)
            .map(|(other, profile)| (distance(&profiles[name], profile), *other))
            .min_by(|left, right| left.0.total_cmp(&right.0));
        let Some((near, twin)) = twin else { continue };
        println!(
            "| {name} | {:.2} | {} | {:.1} % | {:.1} % | {} | {twin} | {near:.2} | {:.2} | {} |",
            row.apart("ns_per_op"),
            match row.apart("peak_resident_bytes") {
                far if far > 99.0 => "> 99".to_owned(),
                far => format!("{far:.2}"),
            },
            100.0 * row.noise("ns_per_op"),
            100.0 * row.noise("peak_resident_bytes"),
            row.pairs(),
            correlation(&profiles[name], &profiles[twin]),
            row.ranking(),
        );
    }
    println!(
        "\nChosen greedily, the strongest separation over noise first, none with a profile nearer than {NEAR} to one before it:\n"
    );
    let score = |row: &Row| {
        let apart = row.apart("ns_per_op").ln() + row.apart("peak_resident_bytes").ln();
        apart / (0.01 + row.noise("ns_per_op"))
    };
    let mut order: Vec<(&String, &Row)> = rows.iter().collect();
    order.sort_by(|left, right| score(right.1).total_cmp(&score(left.1)));
    let mut chosen: Vec<&String> = Vec::new();
    for (name, row) in order {
        let near = chosen
            .iter()
            .find(|other| distance(&profiles[**other], &profiles[name]) < NEAR);
        let noise = row.noise("ns_per_op");
        let verdict = match near {
            _ if noise > STEADY => {
                format!("left out: does not repeat well ({:.1} %)", 100.0 * noise)
            }
            Some(near) => format!("left out: says what {near} says"),
            None => {
                chosen.push(name);
                format!("in (score {:.0})", score(row))
            }
        };
        println!("- {name}: {verdict}");
    }
    redundant(rows, &profiles);
}

/// Which workloads say nothing that another one does not say, and which tell nothing apart at all.
fn redundant(rows: &BTreeMap<String, Row>, profiles: &BTreeMap<&String, Vec<f64>>) {
    println!(
        "\nTells no pair apart that its twin does not tell apart the same way, and resembles it (nearer than {NEAR}, or correlation above {ALIKE}):\n"
    );
    let mut gone = Vec::new();
    for (name, row) in rows {
        let told = row.told();
        let twins = rows.iter().filter(|(other, _)| *other != name);
        let near = twins
            .map(|(other, twin)| {
                let far = distance(&profiles[name], &profiles[other]);
                let alike = correlation(&profiles[name], &profiles[other]);
                (far, alike, other, twin)
            })
            .filter(|&(far, alike, _, _)| far < NEAR || alike > ALIKE)
            .filter(|(_, _, _, twin)| told.is_subset(&twin.told()))
            .min_by(|left, right| left.0.total_cmp(&right.0));
        if let Some((far, alike, other, twin)) = near {
            println!(
                "- {name}: {} of the {} pairs of {other} (distance {far:.2}, correlation {alike:.2})",
                told.len(),
                twin.told().len(),
            );
            if told.is_empty() {
                gone.push(name.as_str());
            }
        }
    }
    match gone.as_slice() {
        [] => println!("\nNone of them tells no pair apart: no model has to go."),
        names => println!(
            "\nTells no pair apart at all, and has to go: {}",
            names.join(", ")
        ),
    }
}
