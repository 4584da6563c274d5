//! What more threads bring: throughput against as many times that of the fewest threads.

use super::time_metric;
use crate::builder::WorkloadKey;
use crate::schema::{ResultSet, Status};
use crate::units;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Shares of linear growth, of the workloads that ran with several numbers of threads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scaling {
    /// What the numbers are, in one sentence.
    pub about: String,
    /// Heads of the columns behind workload and subject.
    pub heads: Vec<String>,
    /// The means over workloads first, then each workload; subjects in their order.
    pub rows: Vec<ScalingRow>,
}

/// One workload, or all of them, on one subject.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScalingRow {
    /// Its name, or how many the mean is over.
    pub workload: String,
    pub subject: String,
    /// Calls per second with the fewest threads (nothing for a mean), then the share with each number of threads.
    pub fields: Vec<String>,
}

/// One workload on one subject.
struct Line<'a> {
    key: WorkloadKey,
    subject: &'a str,
    /// Nanoseconds by call of all threads together, by number of threads.
    times: BTreeMap<u32, f64>,
}

impl Line<'_> {
    /// The fewest threads, and the time with them.
    fn base(&self) -> (u32, f64) {
        let first = self.times.first_key_value();
        first.map_or((1, f64::NAN), |(threads, ns)| (*threads, *ns))
    }

    fn share(&self, threads: u32) -> Option<f64> {
        let (least, base) = self.base();
        Some(base / self.times.get(&threads)? * f64::from(least) / f64::from(threads))
    }
}

impl Scaling {
    /// `None` where nothing ran with more than one number of threads.
    pub fn new(result: &ResultSet) -> Option<Self> {
        let lines = lines(result);
        let threads: BTreeSet<u32> = lines.iter().flat_map(|l| l.times.keys().copied()).collect();
        let most = *threads.last()?;
        let cpus = result.machine.cpus;
        let mut about = "calls per second as a share of what the fewest threads give, times as many: 1.00 is linear".to_owned();
        if most > cpus {
            about.push_str(&format!(
                "; there are {cpus} CPUs, so that {most} threads cannot reach it"
            ));
        }
        let mut heads = vec!["fewest".to_owned()];
        heads.extend(threads.iter().map(|n| match n {
            1 => "1 thread".to_owned(),
            n => format!("{n} threads"),
        }));
        let mut rows = means(result, &lines, &threads);
        rows.extend(lines.iter().map(|line| {
            let (_, base) = line.base();
            let mut fields = vec![format!("{}/s", units::count((1e9 / base).round()))];
            fields.extend(threads.iter().map(|n| text(line.share(*n))));
            ScalingRow {
                workload: line.key.workload.clone(),
                subject: line.subject.to_owned(),
                fields,
            }
        }));
        Some(Self { about, heads, rows })
    }
}

fn text(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{share:.2}"))
}

/// Every workload on every subject that ran with at least two numbers of threads, in the order of the result set.
fn lines(result: &ResultSet) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for cell in result.cells.iter().filter(|c| c.status == Status::Ok) {
        let Some(metric) = cell.metrics.get("ns_per_op") else {
            continue;
        };
        if time_metric(cell) != Some("ns_per_op") || metric.median <= 0.0 {
            continue;
        }
        // What must be equal for two cells to differ in their threads alone; the hash is of the script and differs.
        let key = WorkloadKey {
            threads: 0,
            workload_hash: String::new(),
            ..cell.key()
        };
        let known = (lines.iter_mut()).find(|l| l.key == key && l.subject == cell.subject);
        match known {
            Some(line) => {
                line.times.insert(cell.threads, metric.median);
            }
            None => lines.push(Line {
                key,
                subject: &cell.subject,
                times: BTreeMap::from([(cell.threads, metric.median)]),
            }),
        }
    }
    lines.retain(|line| line.times.len() > 1);
    let place = |line: &Line<'_>| {
        let workload = result
            .cells
            .iter()
            .position(|c| c.workload == line.key.workload);
        let subject = result.subjects.iter().position(|s| s.name == line.subject);
        (workload, subject)
    };
    lines.sort_by_key(place);
    lines
}

/// The geometric mean of each subject over the workloads that all subjects ran with all numbers of threads; none with
/// fewer than two such workloads.
fn means(result: &ResultSet, lines: &[Line<'_>], threads: &BTreeSet<u32>) -> Vec<ScalingRow> {
    let whole = |key: &WorkloadKey| {
        let mut of = lines.iter().filter(|line| line.key == *key);
        of.all(|line| line.times.len() == threads.len())
    };
    let keys: BTreeSet<&WorkloadKey> = (lines.iter().map(|line| &line.key))
        .filter(|key| whole(key))
        .collect();
    if keys.len() < 2 {
        return Vec::new();
    }
    let mut rows = Vec::new();
    for subject in &result.subjects {
        let of: Vec<&Line<'_>> = (lines.iter())
            .filter(|line| line.subject == subject.name && keys.contains(&line.key))
            .collect();
        if of.is_empty() {
            continue;
        }
        let mean = |threads: u32| {
            let logs: f64 = of.iter().filter_map(|l| Some(l.share(threads)?.ln())).sum();
            (logs / of.len() as f64).exp()
        };
        let mut fields = vec![String::new()];
        fields.extend(threads.iter().map(|n| text(Some(mean(*n)))));
        rows.push(ScalingRow {
            workload: format!("mean of {}", of.len()),
            subject: subject.name.clone(),
            fields,
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{
        Better, Calibration, Cell, IntervalKind, Machine, Metric, SCHEMA, Subject, Tool,
    };

    fn cell(workload: &str, subject: &str, threads: u32, ns: f64) -> Cell {
        let metric = Metric {
            unit: "ns".into(),
            better: Better::Lower,
            mode: "fast".into(),
            touch: "first".into(),
            median: ns,
            low: ns,
            high: ns,
            interval: IntervalKind::Range,
            samples: Vec::new(),
            ratio_to_system: None,
        };
        Cell {
            workload: workload.into(),
            workload_hash: format!("{workload}{threads}"),
            subject: subject.into(),
            api: "malloc".into(),
            threads,
            cpus: 2,
            thp: "default".into(),
            memory_limit: None,
            status: Status::Ok,
            reason: None,
            metrics: BTreeMap::from([("ns_per_op".to_owned(), metric)]),
            latency: BTreeMap::new(),
            timeline: None,
        }
    }

    fn result(cells: Vec<Cell>) -> ResultSet {
        let subjects = ["system", "other"].map(|name| Subject {
            name: name.into(),
            version: String::new(),
            path: String::new(),
            sha256: String::new(),
            settings: BTreeMap::new(),
            stats_at_end: None,
            stats_at_peak: None,
            notes: Vec::new(),
        });
        ResultSet {
            baseline: None,
            schema: SCHEMA.into(),
            heaplab: Tool {
                version: String::new(),
                commit: None,
            },
            machine: Machine {
                cpus: 2,
                ..Machine::default()
            },
            command: Vec::new(),
            seed: 0,
            started: String::new(),
            finished: String::new(),
            subjects: subjects.to_vec(),
            workloads: Vec::new(),
            cells,
            calibration: Calibration::default(),
            notes: Vec::new(),
            complete: true,
        }
    }

    #[test]
    fn a_share_is_throughput_by_threads_against_that_of_the_fewest() {
        let found = Scaling::new(&result(vec![
            cell("a", "other", 1, 10.0),
            cell("a", "system", 1, 20.0),
            cell("a", "system", 2, 10.0),
            cell("a", "system", 4, 10.0),
            cell("a", "other", 2, 10.0),
            cell("a", "other", 4, 2.5),
            cell("pair", "system", 2, 100.0),
            cell("pair", "system", 4, 100.0),
            cell("alone", "system", 8, 1.0),
        ]))
        .unwrap();
        let rows: Vec<String> = (found.rows.iter())
            .map(|row| format!("{} {} {}", row.workload, row.subject, row.fields.join(" ")))
            .collect();
        // No mean: one workload alone has all numbers of threads. `alone` has one number, and no column.
        assert_eq!(
            rows,
            [
                "a system 50.0 M/s 1.00 1.00 0.50",
                "a other 100 M/s 1.00 0.50 1.00",
                "pair system 10.0 M/s - 1.00 0.50",
            ]
        );
        assert_eq!(
            found.heads,
            ["fewest", "1 thread", "2 threads", "4 threads"]
        );
        assert!(found.about.contains("there are 2 CPUs"), "{}", found.about);
        assert!(Scaling::new(&result(vec![cell("a", "system", 1, 1.0)])).is_none());
    }

    #[test]
    fn the_mean_is_over_workloads_with_all_numbers_of_threads() {
        let found = Scaling::new(&result(vec![
            cell("a", "system", 1, 10.0),
            cell("a", "system", 2, 10.0),
            cell("b", "system", 1, 10.0),
            cell("b", "system", 2, 2.5),
        ]))
        .unwrap();
        assert_eq!(found.rows[0].workload, "mean of 2");
        assert_eq!(found.rows[0].fields, ["", "1.00", "1.00"]);
        assert!(!found.about.contains("CPUs"), "{}", found.about);
    }
}
