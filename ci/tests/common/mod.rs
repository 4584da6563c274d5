//! Result sets for the tests of the gate: built from figures, complete and valid in all the rest.
#![allow(dead_code)] // Each test file uses its own part.

use heaplab_ci::{GateReport, Row};
use heaplab_reports::schema::{
    Better, Calibration, Cell, IntervalKind, Machine, Metric, ResultSet, SCHEMA, Sample, Status,
    Subject, Tool,
};
use std::collections::BTreeMap;

/// A result set of one host and job with these cells.
pub fn set(cells: Vec<Cell>) -> ResultSet {
    let names: std::collections::BTreeSet<String> =
        cells.iter().map(|c| c.subject.clone()).collect();
    ResultSet {
        baseline: None,
        workloads: Vec::new(),
        schema: SCHEMA.into(),
        heaplab: Tool {
            version: "0.1.0".into(),
            commit: None,
        },
        machine: Machine {
            cpu: "Example 3000".into(),
            cpus: 2,
            memory_bytes: 1 << 33,
            kernel: "6.1".into(),
            libc: "glibc 2.41".into(),
            thp: "madvise".into(),
            page_size: 4096,
            host_id: "host-a".into(),
            details: BTreeMap::from([("job".into(), "job-1".into())]),
        },
        command: ["heaplab", "gate", "run", "--base", "base", "--head", "head"]
            .map(String::from)
            .to_vec(),
        seed: 7,
        started: "2026-11-25T02:00:00Z".into(),
        finished: "2026-11-25T02:09:12Z".into(),
        subjects: names
            .into_iter()
            .map(|name| Subject {
                name,
                version: "1.0".into(),
                path: String::new(),
                sha256: String::new(),
                settings: BTreeMap::new(),
                stats_at_end: None,
                stats_at_peak: None,
                notes: Vec::new(),
            })
            .collect(),
        cells,
        calibration: Calibration::default(),
        notes: Vec::new(),
        complete: true,
    }
}

/// A cell that ran, with these metrics: name and one value a block.
pub fn cell(workload: &str, subject: &str, metrics: &[(&str, Vec<f64>)]) -> Cell {
    Cell {
        workload: workload.into(),
        workload_hash: format!("hash-of-{workload}"),
        subject: subject.into(),
        api: "malloc".into(),
        threads: 1,
        cpus: 2,
        thp: "default".into(),
        memory_limit: None,
        status: Status::Ok,
        reason: None,
        metrics: metrics
            .iter()
            .map(|(n, v)| (n.to_string(), metric(n, v)))
            .collect(),
        latency: BTreeMap::new(),
        timeline: None,
    }
}

/// 24 paired times: a drift of the machine that both sides share, and noise of ±1 %.
pub fn times(factor: f64) -> Vec<f64> {
    (0..24)
        .map(|i| {
            let drift = 1.0 + f64::from(i) / 40.0;
            let noise = if factor == 1.0 {
                1.0
            } else {
                1.0 + f64::from(i % 5 - 2) / 200.0
            };
            40.0 * drift * noise * factor
        })
        .collect()
}

/// One metric of a base and a head.
pub fn pair(base: Vec<f64>, head: Vec<f64>, name: &str) -> ResultSet {
    set(vec![
        cell("churn", "base", &[(name, base)]),
        cell("churn", "head", &[(name, head)]),
    ])
}

/// The report's row, which must be its only one.
pub fn only(report: &GateReport) -> &Row {
    assert_eq!(report.rows.len(), 1, "{report:#?}");
    &report.rows[0]
}

/// A metric with the unit and mode that go with its name.
pub fn metric(name: &str, values: &[f64]) -> Metric {
    let (unit, mode, touch) = match name {
        "peak_resident_bytes" => ("bytes", "lockstep", "page"),
        "peak_live_bytes" => ("bytes", "lockstep", "none"),
        "peak_rss_bytes" => ("bytes", "program", "program"),
        "instructions" | "allocations" => ("count", "lockstep", "none"),
        "ops_per_s" => ("1/s", "fast", "first"),
        _ => ("ns", "fast", "first"),
    };
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Metric {
        unit: unit.into(),
        better: if name == "ops_per_s" {
            Better::Higher
        } else {
            Better::Lower
        },
        mode: mode.into(),
        touch: touch.into(),
        median: sorted.get(sorted.len() / 2).copied().unwrap_or(0.0),
        low: sorted.first().copied().unwrap_or(0.0),
        high: sorted.last().copied().unwrap_or(0.0),
        interval: IntervalKind::Range,
        samples: values
            .iter()
            .enumerate()
            .map(|(i, value)| Sample {
                block: i as u32,
                order: 0,
                value: *value,
            })
            .collect(),
        ratio_to_system: None,
    }
}

/// A deterministic source of noise (splitmix64 with transforms).
pub struct Noise(pub u64);

impl Noise {
    /// Uniform in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Student t with 3 degrees of freedom, scaled to standard deviation 1: the tails that times
    /// on shared machines have.
    pub fn heavy(&mut self) -> f64 {
        let chi = (0..3).map(|_| self.normal().powi(2)).sum::<f64>();
        self.normal() / (chi / 3.0).sqrt() / 3.0_f64.sqrt()
    }
}
