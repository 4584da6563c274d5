//! A synthetic but plausible result set: four subjects plus one bad library on several workloads. All figures
//! are invented; what matters is that every state a report must render occurs (failed and skipped cells, few
//! blocks, missing latency, remote frees, a percentile below the floor, a program, a custom metric).
#![allow(dead_code)]

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use heaplab_reports::schema::*;
use heaplab_reports::{HistogramPart, fill_ratios, latency_by_op};
use std::collections::BTreeMap;

/// Small deterministic generator; the same numbers on every machine.
pub struct Noise(pub u64);

impl Noise {
    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal with standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

const GIB: f64 = 1_073_741_824.0;

struct Profile {
    name: &'static str,
    time: f64,
    memory: f64,
    tail: f64,
}

const PROFILES: [Profile; 4] = [
    Profile {
        name: "system",
        time: 1.0,
        memory: 1.0,
        tail: 1.0,
    },
    Profile {
        name: "jemalloc",
        time: 0.91,
        memory: 0.42,
        tail: 0.7,
    },
    Profile {
        name: "mimalloc",
        time: 0.90,
        memory: 0.55,
        tail: 0.45,
    },
    Profile {
        name: "spanalloc",
        time: 0.995,
        memory: 0.43,
        tail: 0.5,
    },
];

/// The whole set: four replay workloads, one of them with few blocks, and one program.
pub fn result_set() -> ResultSet {
    let mut result = empty();
    let mut noise = Noise(42);
    workload(
        &mut result,
        &mut noise,
        "svc.hltrace",
        66,
        38.1,
        2.2 * GIB,
        3.1,
        8,
        true,
    );
    workload(
        &mut result,
        &mut noise,
        "churn",
        2,
        12.4,
        0.061 * GIB,
        1.12,
        8,
        true,
    );
    workload(
        &mut result,
        &mut noise,
        "larson",
        4,
        55.0,
        0.4 * GIB,
        1.6,
        8,
        false,
    );
    workload(
        &mut result,
        &mut noise,
        "growth",
        1,
        210.0,
        0.03 * GIB,
        1.4,
        3,
        true,
    );
    program(&mut result, &mut noise);
    let bad = result.cells[0].clone();
    result.cells.insert(
        4,
        Cell {
            subject: "libfoo.so".to_owned(),
            status: Status::Failed,
            reason: Some("overlapping blocks at op 1,204,331 of thread 2 in block 2".to_owned()),
            metrics: BTreeMap::new(),
            latency: BTreeMap::new(),
            timeline: None,
            ..bad
        },
    );
    fill_ratios(&mut result);
    result
}

/// One workload only: the screen of the contract.
pub fn single() -> ResultSet {
    let mut result = result_set();
    result.cells.retain(|c| c.workload == "svc.hltrace");
    result
}

/// A set with `workloads` × 4 cells, for the size limit of the report.
pub fn large(workloads: usize) -> ResultSet {
    let mut result = empty();
    let mut noise = Noise(7);
    for i in 0..workloads {
        let name = format!("workload-{i}");
        workload(
            &mut result,
            &mut noise,
            &name,
            4,
            20.0 + i as f64,
            0.1 * GIB,
            1.5,
            8,
            true,
        );
    }
    fill_ratios(&mut result);
    result
}

/// No cells, five subjects.
pub fn empty() -> ResultSet {
    let subject = |name: &str, version: &str, settings: &[(&str, &str)]| Subject {
        name: name.to_owned(),
        version: version.to_owned(),
        path: if name == "system" {
            String::new()
        } else {
            format!("/cache/heaplab/lib{name}.so")
        },
        sha256: if name == "system" {
            String::new()
        } else {
            "5a".repeat(32)
        },
        settings: settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        stats_at_end: None,
        stats_at_peak: None,
        notes: Vec::new(),
    };
    ResultSet {
        baseline: None,
        schema: SCHEMA.to_owned(),
        heaplab: Tool {
            version: "0.1.0".to_owned(),
            commit: Some("3f2c1a7".to_owned()),
        },
        workloads: Vec::new(),
        machine: Machine {
            cpu: "Example CPU 3.0 GHz".to_owned(),
            cpus: 2,
            memory_bytes: 8 << 30,
            kernel: "6.1.0-example".to_owned(),
            libc: "glibc 2.36".to_owned(),
            thp: "madvise".to_owned(),
            page_size: 4096,
            host_id: "ab".repeat(32),
            details: BTreeMap::from([
                ("governor".to_owned(), "performance".to_owned()),
                (
                    "kdamond".to_owned(),
                    "running: pages can be taken back behind a run's back".to_owned(),
                ),
            ]),
        },
        command: [
            "heaplab",
            "run",
            "svc.hltrace",
            "churn",
            "larson",
            "growth",
            "--seed",
            "7",
        ]
        .map(str::to_owned)
        .to_vec(),
        seed: 7,
        started: "2026-01-02T03:04:05Z".to_owned(),
        finished: "2026-01-02T03:11:46Z".to_owned(),
        subjects: vec![
            subject("system", "2.36", &[("purge", "trim")]),
            subject(
                "jemalloc",
                "5.3.1",
                &[("opt.dirty_decay_ms", "10000"), ("opt.narenas", "8")],
            ),
            subject("mimalloc", "2.3.2", &[("purge_delay", "10")]),
            subject("spanalloc", "0.1.0", &[("purge", "decay")]),
            subject("libfoo.so", "", &[]),
        ],
        cells: Vec::new(),
        calibration: Calibration {
            null_ns_per_op: Some(3.2),
            timer_ns: Some(20.0),
            worker_baseline_bytes: 126_976,
            null_by_workload: BTreeMap::from([("churn".to_owned(), 3.1)]),
            touching_by_workload: BTreeMap::new(),
            aa: None,
        },
        notes: vec![
            "the allocator has 6 % of the program's CPU time: expect at most 0.6 % less".to_owned(),
        ],
        complete: true,
    }
}

fn samples(noise: &mut Noise, blocks: u32, centre: f64, spread: f64, drift: &[f64]) -> Vec<Sample> {
    (0..blocks)
        .map(|block| Sample {
            block,
            order: (noise.uniform() * 4.0) as u32,
            value: centre * (1.0 + spread * noise.normal()) * drift[block as usize],
        })
        .collect()
}

#[allow(clippy::too_many_arguments)]
fn workload(
    result: &mut ResultSet,
    noise: &mut Noise,
    name: &str,
    threads: u32,
    ns: f64,
    live: f64,
    footprint: f64,
    blocks: u32,
    latency: bool,
) {
    let drift: Vec<f64> = (0..blocks).map(|_| 1.0 + 0.04 * noise.normal()).collect();
    let still = vec![1.0; blocks as usize];
    for p in &PROFILES {
        // Subjects differ more where fragmentation is large.
        let footprint =
            1.0 + (footprint - 1.0) * p.memory.powf(if footprint > 2.0 { 1.6 } else { 0.6 });
        let resident = live * footprint;
        let rounding = live * 0.05 * p.memory.sqrt();
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, unit: &str, better, mode: &str, touch: &str, samples| {
            metrics.insert(
                name.to_owned(),
                Metric::from_samples(unit, better, mode, touch, samples)
                    .expect("there are samples"),
            );
        };
        use Better::{Higher, Lower};
        let speed = samples(noise, blocks, ns * p.time, 0.012, &drift);
        put(
            "ops_per_s",
            "1/s",
            Higher,
            "fast",
            "first",
            speed
                .iter()
                .map(|s| Sample {
                    value: 1e9 / s.value,
                    ..*s
                })
                .collect(),
        );
        put("ns_per_op", "ns", Lower, "fast", "first", speed);
        put(
            "cpu_ns_per_op",
            "ns",
            Lower,
            "fast",
            "first",
            samples(noise, blocks, ns * p.time * 1.1, 0.01, &drift),
        );
        let wait = if name == "larson" { 0.15 } else { 0.01 };
        put(
            "wait_ns_per_op",
            "ns",
            Lower,
            "fast",
            "first",
            samples(noise, blocks, ns * wait, 0.1, &drift),
        );
        let mut bytes = |name: &str, centre: f64, spread: f64| {
            let s = samples(noise, blocks, centre, spread, &still);
            let s = s
                .into_iter()
                .map(|s| Sample {
                    value: (s.value / 4096.0).round() * 4096.0,
                    ..s
                })
                .collect();
            put(name, "bytes", Lower, "lockstep", "page", s);
        };
        bytes("peak_resident_bytes", resident, 0.006);
        bytes("mean_resident_bytes", resident * 0.8, 0.006);
        bytes("peak_live_bytes", live, 0.0);
        bytes("rounding_at_peak_bytes", rounding, 0.0);
        bytes(
            "unused_resident_at_peak_bytes",
            resident - rounding - live,
            0.002,
        );
        bytes("start_resident_bytes", 131_072.0 / p.memory, 0.01);
        if name == "svc.hltrace" {
            bytes(
                "resident_after_idle_10s_bytes",
                resident * (0.97 - 0.8 * (1.0 - p.tail)),
                0.01,
            );
        }
        put(
            "footprint_at_peak_resident",
            "ratio",
            Lower,
            "lockstep",
            "page",
            samples(noise, blocks, footprint, 0.006, &still),
        );
        put(
            "footprint_mean",
            "ratio",
            Lower,
            "lockstep",
            "page",
            samples(noise, blocks, footprint * 1.05, 0.006, &still),
        );
        put(
            "minor_faults",
            "count",
            Lower,
            "fast",
            "first",
            samples(noise, blocks, resident / 4096.0, 0.02, &still),
        );
        result.cells.push(Cell {
            workload: name.to_owned(),
            workload_hash: format!("{:016x}", name.len() as u64 * 0x1234_5678_9abc),
            subject: p.name.to_owned(),
            api: "malloc".to_owned(),
            threads,
            cpus: if threads > 8 { 64 } else { 2 },
            thp: "default".to_owned(),
            memory_limit: None,
            status: Status::Ok,
            reason: None,
            metrics,
            latency: if latency {
                latencies(noise, ns * p.time, p.tail)
            } else {
                BTreeMap::new()
            },
            timeline: Some(timeline(live, footprint)),
        });
    }
}

/// V2 base64 as a worker sends it.
pub fn histogram_text(values: impl Iterator<Item = u64>) -> String {
    let mut h = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
    values.for_each(|v| h.saturating_record(v));
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&h, &mut bytes).unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn latencies(noise: &mut Noise, ns: f64, tail: f64) -> BTreeMap<String, Latency> {
    let mut texts: Vec<(&str, u64, bool, String)> = Vec::new();
    for (op, factor, count) in [
        ("malloc", 1.1, 40_000),
        ("free", 0.9, 39_000),
        ("realloc", 4.0, 2_000),
    ] {
        for (size, remote) in [(64, false), (1024, false), (u64::MAX, true)] {
            if remote && op != "free" {
                continue;
            }
            let values = (0..count).map(|_| {
                let base = ns * factor * (1.0 + 0.2 * noise.normal().abs());
                let u = noise.uniform();
                let slow = if u < 0.002 {
                    30.0 * tail / (u * 500.0 + 0.01)
                } else {
                    1.0
                };
                (base * slow).max(1.0) as u64
            });
            let text = histogram_text(values.collect::<Vec<_>>().into_iter());
            texts.push((op, size, remote, text));
        }
    }
    let parts: Vec<HistogramPart<'_>> = texts
        .iter()
        .map(|(op, size_le, remote, text)| HistogramPart {
            op,
            size_le: *size_le,
            remote: *remote,
            hdr_base64: text,
            slow: [12, 3, 40],
        })
        .collect();
    latency_by_op(&parts, 20.0).unwrap()
}

fn timeline(live_peak: f64, footprint: f64) -> Timeline {
    let mut t = Timeline::default();
    let mut held = 0.0_f64;
    for i in 0..=200_u64 {
        let x = i as f64 / 200.0;
        let live = live_peak
            * ((x * 3.0).min(1.0) * (1.0 - 0.3 * (x * 19.0).sin().abs()) * (1.0 - x.powi(6) * 0.9));
        held = (live * (1.0 + (footprint - 1.0) * 0.3)).max(held * 0.995);
        let resident = held.max(live * 1.02) * (1.0 + (footprint - 1.0) * 0.5 * x);
        t.ops.push(i * 40_000);
        t.time_ns.push(i * 1_500_000);
        t.live_bytes.push(live as u64);
        t.usable_bytes.push((live * 1.05) as u64);
        t.resident_bytes.push(resident as u64);
    }
    t
}

fn program(result: &mut ResultSet, noise: &mut Noise) {
    let drift = [1.0, 1.03, 0.98, 1.01, 1.02, 0.97];
    for p in &PROFILES {
        let mut metrics = BTreeMap::new();
        for (name, unit, centre) in [
            ("wall_s", "s", 1.9 * p.time.powf(0.2)),
            ("user_s", "s", 1.7 * p.time.powf(0.2)),
            ("sys_s", "s", 0.14),
            ("peak_rss_bytes", "bytes", 92_000_000.0 * p.memory.powf(0.1)),
            ("req_ms", "ms", 3.2 * p.time),
        ] {
            let s = samples(noise, 6, centre, 0.01, &drift);
            metrics.insert(
                name.to_owned(),
                Metric::from_samples(unit, Better::Lower, "program", "program", s).unwrap(),
            );
        }
        let skipped = p.name == "mimalloc";
        result.cells.push(Cell {
            workload: "python3 -c 'print(1 < 2)'".to_owned(),
            workload_hash: "00ff".repeat(4),
            subject: p.name.to_owned(),
            api: "program".to_owned(),
            threads: 1,
            cpus: 2,
            thp: "default".to_owned(),
            memory_limit: None,
            status: if skipped { Status::Skipped } else { Status::Ok },
            reason: skipped.then(|| "the program carries its own allocator (libfoo)".to_owned()),
            metrics: if skipped { BTreeMap::new() } else { metrics },
            latency: BTreeMap::new(),
            timeline: None,
        });
    }
}
