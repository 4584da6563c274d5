//! From samples to metrics: what the harness calls to fill a result set.

use crate::schema::{Better, Cell, Metric, ResultSet, Sample, Status, Subject};
use crate::stats;

/// Label of the subject that ratios are taken against wherever it is among those compared.
pub const BASELINE: &str = "system";

impl Metric {
    /// A metric with median and ends computed from `samples` (values that are not finite are dropped);
    /// `None` if no value is left. `ratio_to_system` is filled later by [`fill_ratios`].
    pub fn from_samples(
        unit: &str,
        better: Better,
        mode: &str,
        touch: &str,
        samples: Vec<Sample>,
    ) -> Option<Metric> {
        let mut samples = samples;
        samples.retain(|s| s.value.is_finite());
        samples.sort_by_key(|s| (s.block, s.order));
        let i = stats::summarise(&samples)?;
        Some(Metric {
            unit: unit.to_owned(),
            better,
            mode: mode.to_owned(),
            touch: touch.to_owned(),
            median: i.median,
            low: i.low,
            high: i.high,
            interval: i.kind,
            samples,
            ratio_to_system: None,
        })
    }
}

impl ResultSet {
    /// Label of the subject that ratios are taken against: [`BASELINE`], and where that is not among the subjects the one that was
    /// named first.
    pub fn baseline(&self) -> &str {
        let named = |label: &str| self.subjects.iter().any(|s| s.name == label);
        let recorded = self.baseline.as_deref().filter(|label| named(label));
        match recorded {
            _ if named(BASELINE) => BASELINE,
            Some(label) => label,
            None => self.subjects.first().map_or(BASELINE, |s| &s.name),
        }
    }
}

impl Subject {
    /// Whether this is the project's own allocator, which every table marks as such.
    pub fn is_ours(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or("");
        self.name == "spanalloc" || file.starts_with("libspanalloc")
    }
}

/// What two cells of different subjects must share to be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadKey {
    /// Name of the workload.
    pub workload: String,
    /// Hash of what was run.
    pub workload_hash: String,
    /// API.
    pub api: String,
    /// Threads.
    pub threads: u32,
    /// CPUs the subject saw.
    pub cpus: u32,
    /// Huge-page setting.
    pub thp: String,
    /// Memory limit, bytes.
    pub memory_limit: Option<u64>,
}

impl Cell {
    /// The part of the cell's identity that does not name the subject.
    pub fn key(&self) -> WorkloadKey {
        WorkloadKey {
            workload: self.workload.clone(),
            workload_hash: self.workload_hash.clone(),
            api: self.api.clone(),
            threads: self.threads,
            cpus: self.cpus,
            thp: self.thp.clone(),
            memory_limit: self.memory_limit,
        }
    }

    /// Readable identity, also the fragment of links: `workload/subject/api/t4`, further parts only where
    /// they are not the default.
    pub fn id(&self) -> String {
        let mut id = format!(
            "{}/{}/{}/t{}",
            self.workload, self.subject, self.api, self.threads
        );
        if self.thp != "default" {
            id.push_str("/thp-");
            id.push_str(&self.thp);
        }
        if let Some(limit) = self.memory_limit {
            id.push_str(&format!("/limit-{limit}"));
        }
        id
    }
}

/// Fills `ratio_to_system` of every metric whose workload also ran under the baseline ([`ResultSet::baseline`]) with the same API,
/// threads and machine shape, and notes which that is. The baseline itself and values that are not positive get none.
pub fn fill_ratios(result: &mut ResultSet) {
    let baseline = result.baseline().to_owned();
    let baselines: Vec<(WorkloadKey, std::collections::BTreeMap<String, Metric>)> = result
        .cells
        .iter()
        .filter(|c| c.subject == baseline && c.status == Status::Ok)
        .map(|c| (c.key(), c.metrics.clone()))
        .collect();
    for cell in &mut result.cells {
        let key = cell.key();
        let base = baselines
            .iter()
            .find(|(k, _)| *k == key)
            .filter(|_| cell.subject != baseline);
        for (name, metric) in &mut cell.metrics {
            metric.ratio_to_system = base
                .and_then(|(_, metrics)| metrics.get(name))
                // Another mode or touch policy measures something else.
                .filter(|b| b.mode == metric.mode && b.touch == metric.touch)
                .and_then(|b| stats::paired_ratio(&metric.samples, &b.samples));
        }
    }
    result.baseline = Some(baseline);
}
