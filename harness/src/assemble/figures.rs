//! What one run's report says, as samples of named metrics.

use super::{IDLE_KEY, RATIO_FLOOR_BYTES};
use heaplab_reports::schema::{Better, Metric, RunLine, Sample, Timeline};
use heaplab_worker::protocol::{MemoryCurve, Report};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) struct Table {
    #[expect(
        clippy::type_complexity,
        reason = "one local table, named by its fields below"
    )]
    pub(super) metrics: BTreeMap<
        Cow<'static, str>,
        (
            &'static str,
            Better,
            (&'static str, &'static str),
            Vec<Sample>,
        ),
    >,
}

impl Table {
    pub(super) fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        unit: &'static str,
        better: Better,
        shape: (&'static str, &'static str),
        line: &RunLine,
        value: f64,
    ) {
        let sample = Sample {
            block: line.block,
            order: line.order,
            value,
        };
        self.metrics
            .entry(name.into())
            .or_insert_with(|| (unit, better, shape, Vec::new()))
            .3
            .push(sample);
    }

    pub(super) fn finish(self) -> BTreeMap<String, Metric> {
        self.metrics
            .into_iter()
            .filter_map(|(name, (unit, better, (mode, touch), samples))| {
                Some((
                    name.to_string(),
                    Metric::from_samples(unit, better, mode, touch, samples)?,
                ))
            })
            .collect()
    }
}

pub(super) type Shape = (&'static str, &'static str);

pub(super) fn speed(table: &mut Table, line: &RunLine, shape: Shape, report: &Report) {
    let calls = report.calls as f64;
    if calls == 0.0 || report.wall_ns == 0 {
        return;
    }
    let mut add = |name, unit, better, value| table.add(name, unit, better, shape, line, value);
    add(
        "ns_per_op",
        "ns",
        Better::Lower,
        report.wall_ns as f64 / calls,
    );
    add(
        "cpu_ns_per_op",
        "ns",
        Better::Lower,
        report.cpu_ns as f64 / calls,
    );
    add(
        "wait_ns_per_op",
        "ns",
        Better::Lower,
        report.wait_ns as f64 / calls,
    );
    add(
        "ops_per_s",
        "1/s",
        Better::Higher,
        calls * 1e9 / report.wall_ns as f64,
    );
    add(
        "minor_faults",
        "count",
        Better::Lower,
        report.minor_faults as f64,
    );
    add(
        "major_faults",
        "count",
        Better::Lower,
        report.major_faults as f64,
    );
    add(
        "context_switches",
        "count",
        Better::Lower,
        report.context_switches as f64,
    );
}

pub(super) fn memory(
    table: &mut Table,
    line: &RunLine,
    shape: Shape,
    report: &Report,
    curve: &MemoryCurve,
    baseline: u64,
) {
    let own = |bytes: u64| bytes.saturating_sub(baseline);
    let mut add = |name, unit, value: f64| table.add(name, unit, Better::Lower, shape, line, value);
    let peak = own(curve.peak_resident_bytes);
    add("peak_resident_bytes", "bytes", peak as f64);
    add(
        "mean_resident_bytes",
        "bytes",
        own(curve.mean_resident_bytes) as f64,
    );
    add("peak_live_bytes", "bytes", curve.peak_live_bytes as f64);
    add(
        "start_resident_bytes",
        "bytes",
        own(report.start_anon_bytes) as f64,
    );
    let written = curve.peak_live_bytes - curve.unwritten_at_peak_live_bytes;
    if written >= RATIO_FLOOR_BYTES {
        let resident = own(curve.resident_at_peak_live_bytes) as f64;
        add("footprint_at_peak_live", "ratio", resident / written as f64);
    }
    let written = curve.live_at_peak_resident_bytes - curve.unwritten_at_peak_resident_bytes;
    if written >= RATIO_FLOOR_BYTES {
        let resident = own(curve.resident_at_peak_resident_bytes) as f64;
        add(
            "footprint_at_peak_resident",
            "ratio",
            resident / written as f64,
        );
    }
    if let Some(mean) = curve.footprint_mean {
        add("footprint_mean", "ratio", mean);
    }
    let usable = curve.usable_at_peak_resident_bytes;
    let rounding = usable.saturating_sub(curve.live_at_peak_resident_bytes);
    add("rounding_at_peak_bytes", "bytes", rounding as f64);
    add(
        "unused_resident_at_peak_bytes",
        "bytes",
        peak.saturating_sub(usable - curve.unwritten_at_peak_resident_bytes) as f64,
    );
    let lazy = curve.lazyfree_bytes.iter().max().copied().unwrap_or(0);
    add("lazyfree_peak_bytes", "bytes", lazy as f64);
    add(
        "sampling_error_bytes",
        "bytes",
        curve.sampling_error_bytes as f64,
    );
}

/// What an idle tail adds; its length is part of the names.
pub(super) fn idle(
    table: &mut Table,
    line: &RunLine,
    shape: Shape,
    curve: &MemoryCurve,
    baseline: u64,
) {
    let own = |bytes: u64| bytes.saturating_sub(baseline) as f64;
    let length = match line.answer[IDLE_KEY].as_u64().unwrap_or_default() {
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    };
    let mut add = |name: String, value: f64| {
        table.add(name, "bytes", Better::Lower, shape, line, value);
    };
    if let Some(bytes) = curve.after_idle_bytes {
        add(format!("resident_after_idle_{length}_bytes"), own(bytes));
        // Resident still, and free for the taking.
        add(
            "lazyfree_after_idle_bytes".to_owned(),
            curve.lazyfree_after_idle_bytes as f64,
        );
    }
    if let Some(bytes) = curve.after_trickle_bytes {
        add(format!("resident_after_trickle_{length}_bytes"), own(bytes));
    }
}

/// What a run of a whole program gives, with units: the names are the same in its answer and in the contract.
const PROGRAM_METRICS: [(&str, &str); 13] = [
    ("wall_s", "s"),
    ("user_s", "s"),
    ("sys_s", "s"),
    ("allocator_cpu_share", "share"),
    ("allocator_cpu_s", "s"),
    ("ready_s", "s"),
    ("load_s", "s"),
    ("peak_rss_bytes", "bytes"),
    ("peak_pss_bytes", "bytes"),
    ("processes", "count"),
    ("minor_faults", "count"),
    ("major_faults", "count"),
    ("context_switches", "count"),
];

/// What a program asked for, where it was recorded.
const CALL_METRICS: [(&str, &str); 3] = [
    ("allocations", "count"),
    ("bytes_allocated", "bytes"),
    ("peak_live_bytes", "bytes"),
];

pub(super) fn program(table: &mut Table, line: &RunLine) {
    for (name, unit) in PROGRAM_METRICS.into_iter().chain(CALL_METRICS) {
        if let Some(value) = line.answer[name].as_f64() {
            table.add(
                name,
                unit,
                Better::Lower,
                ("program", "program"),
                line,
                value,
            );
        }
    }
}

pub(super) fn timeline(curve: &MemoryCurve, baseline: u64) -> Timeline {
    Timeline {
        ops: curve.ops.clone(),
        time_ns: curve.time_ns.clone(),
        live_bytes: curve.live_bytes.clone(),
        usable_bytes: curve.usable_bytes.clone(),
        resident_bytes: curve
            .resident_bytes
            .iter()
            .map(|b| b.saturating_sub(baseline))
            .collect(),
        lazyfree_bytes: (curve.lazyfree_bytes.len() == curve.ops.len())
            .then(|| curve.lazyfree_bytes.clone()),
    }
}
