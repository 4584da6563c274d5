//! All workloads together: a geometric mean for time, ranges for memory.
//!
//! There is no mean of memory over workloads: models and traces differ too much in what a byte means, so the
//! lowest and highest ratio are named with their workloads.

use super::{cells, common_time_word, group_name, keys, memory_metric, time_metric};
use crate::schema::{IntervalKind, Ratio, ResultSet, Status, Subject};
use crate::{stats, units};
use serde::Serialize;
use std::collections::BTreeMap;

/// The table over all workloads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Label of the subject at 1.
    pub baseline: String,
    /// What is compared beside memory: `time`, `instructions` where these were counted instead, or nothing.
    pub measure: Option<&'static str>,
    /// Workloads in the set.
    pub workloads: usize,
    pub rows: Vec<SummaryRow>,
}

/// One subject over all workloads, against the baseline.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct SummaryRow {
    pub subject: String,
    pub version: String,
    pub ours: bool,
    /// Geometric mean of time.
    #[serde(skip)]
    pub time: Option<Ratio>,
    /// The mean as it is shown: 1.00 for the baseline, a dash without one.
    pub time_text: String,
    /// The same as a number.
    pub time_sort: Option<f64>,
    /// `-6.8 % [-8,-5]`.
    pub ends: String,
    /// `v`, `^`, `~`, `?`.
    pub mark: String,
    pub class: String,
    /// Workloads in the mean.
    pub timed: usize,
    /// `0.42 (svc) to 1.10 (churn)`.
    pub memory_text: String,
    /// Workloads in which its peak was the lowest.
    pub lowest_peak: usize,
    /// Workloads with a peak.
    pub weighed: usize,
    /// Cells that failed or were not run.
    pub failed: usize,
}

impl Summary {
    /// `None` with fewer than two workloads, and where neither times nor peaks were measured.
    pub fn new(result: &ResultSet) -> Option<Self> {
        let keys = keys(result);
        if keys.len() < 2 {
            return None;
        }
        let rows: Vec<SummaryRow> = (result.subjects.iter())
            .filter_map(|s| row(result, s))
            .collect();
        let says = |row: &SummaryRow| row.time.is_some() || row.weighed > 0 || row.failed > 0;
        if !rows.iter().any(says) {
            return None;
        }
        let measure = common_time_word(&result.cells);
        Some(Self {
            baseline: result.baseline().to_owned(),
            measure,
            workloads: keys.len(),
            rows,
        })
    }

    /// The answer in words.
    pub fn answer(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        let measure = self.measure.unwrap_or("time");
        let mut timed: Vec<&SummaryRow> = self.rows.iter().filter(|r| r.time.is_some()).collect();
        timed.sort_by(|a, b| {
            a.time_sort
                .unwrap_or(1.0)
                .total_cmp(&b.time_sort.unwrap_or(1.0))
        });
        let mut named: Vec<&SummaryRow> = timed.first().copied().into_iter().collect();
        // Our own first place is never the only thing said.
        if named.first().is_some_and(|r| r.ours) {
            named.extend(timed.iter().copied().find(|r| !r.ours));
        }
        for (i, r) in named.iter().enumerate() {
            let Some(ratio) = &r.time else { continue };
            let first = match measure {
                "instructions" => "fewest instructions",
                _ => "fastest",
            };
            let word = match i {
                0 if ratio.median > 1.0 => format!("{first}: {}; next", self.baseline),
                0 => first.to_owned(),
                _ => "without ours".to_owned(),
            };
            let differs = match r.mark.as_str() {
                "~" => " (not shown to differ)",
                "?" => " (no difference is claimed from fewer than 6 blocks)",
                _ => "",
            };
            sentences.push(format!(
                "{word}: {}, {} {}{differs} against {}, geometric mean over {} of {} workloads; \
                 peak {}.",
                r.label(),
                measure,
                units::change_with_ends(ratio),
                self.baseline,
                r.timed,
                self.workloads,
                if r.memory_text.is_empty() {
                    "not measured"
                } else {
                    &r.memory_text
                },
            ));
        }
        if let Some((leader, rest)) = timed.split_first() {
            let level: Vec<String> = rest
                .iter()
                .filter(|r| overlap(leader, r))
                .map(|r| r.label())
                .collect();
            if !level.is_empty() {
                sentences.push(format!(
                    "not told apart from {} by {}, as the intervals overlap: {}.",
                    leader.label(),
                    measure,
                    level.join(" and ")
                ));
            }
        }
        if let Some(most) = self
            .rows
            .iter()
            .map(|r| r.lowest_peak)
            .max()
            .filter(|m| *m > 0)
        {
            let names: Vec<String> = self
                .rows
                .iter()
                .filter(|r| r.lowest_peak == most)
                .map(SummaryRow::label)
                .collect();
            let of = self.rows.iter().map(|r| r.weighed).max().unwrap_or(0);
            sentences.push(format!(
                "lowest peak most often: {} ({most} of {of} workloads).",
                names.join(" and ")
            ));
        }
        let failed: Vec<String> = self
            .rows
            .iter()
            .filter(|r| r.failed > 0)
            .map(|r| format!("{} {} of {}", r.subject, r.failed, self.workloads))
            .collect();
        if !failed.is_empty() {
            sentences.push(format!("failed or not run: {}.", failed.join(", ")));
        }
        sentences
    }
}

impl SummaryRow {
    fn label(&self) -> String {
        if self.ours {
            format!("{} (ours)", self.subject)
        } else {
            self.subject.clone()
        }
    }
}

fn row(result: &ResultSet, subject: &Subject) -> Option<SummaryRow> {
    let mut logs: Vec<BTreeMap<u32, f64>> = Vec::new();
    let mut peaks: Vec<(f64, String)> = Vec::new();
    let (mut failed, mut lowest_peak, mut present, mut weighed) = (0, 0, 0, 0);
    for key in keys(result) {
        let group = cells(result, &key);
        let ok = |name: &str| {
            group
                .iter()
                .copied()
                .find(|c| c.subject == name && c.status == Status::Ok)
        };
        let Some(cell) = group.iter().find(|c| c.subject == subject.name) else {
            continue;
        };
        present += 1;
        if cell.status != Status::Ok {
            failed += 1;
            continue;
        }
        let peak = |c: &crate::schema::Cell| {
            memory_metric(c)
                .and_then(|m| c.metrics.get(m))
                .map(|m| m.median)
        };
        if let Some(mine) = peak(cell) {
            weighed += 1;
            let others = group
                .iter()
                .filter(|c| c.status == Status::Ok)
                .filter_map(|c| peak(c));
            lowest_peak += usize::from(others.fold(f64::INFINITY, f64::min) >= mine);
        }
        let Some(base) = ok(result.baseline()).filter(|b| b.subject != cell.subject) else {
            continue;
        };
        if let Some(r) = memory_metric(cell).and_then(|m| cell.metrics.get(m)?.ratio_to_system) {
            peaks.push((r.median, group_name(result, &key)));
        }
        let pair = time_metric(cell).and_then(|m| {
            Some(stats::log_pairs(
                &cell.metrics.get(m)?.samples,
                &base.metrics.get(m)?.samples,
            ))
        });
        logs.extend(pair.filter(|p| !p.is_empty()));
    }
    if present == 0 {
        return None;
    }
    let time = stats::geometric_mean_of_pairs(&logs);
    let mean = if subject.name == result.baseline() {
        Some(1.0)
    } else {
        time.map(|r| r.median)
    };
    peaks.sort_by(|a, b| a.0.total_cmp(&b.0));
    let memory_text = match (peaks.first(), peaks.last()) {
        (Some(low), Some(high)) if peaks.len() > 1 => {
            format!("{:.2} ({}) to {:.2} ({})", low.0, low.1, high.0, high.1)
        }
        (Some(only), _) => format!("{:.2} ({})", only.0, only.1),
        _ => String::new(),
    };
    let (mark, class) = match &time {
        None => ("", ""),
        Some(r) if (r.pairs as usize) < stats::MIN_BLOCKS => ("?", ""),
        Some(r) if !stats::shown_different(r) => ("~", ""),
        Some(r) if r.median < 1.0 => ("v", "better"),
        Some(_) => ("^", "worse"),
    };
    Some(SummaryRow {
        subject: subject.name.clone(),
        version: subject.version.clone(),
        ours: subject.is_ours(),
        time_text: mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.2}")),
        time_sort: mean,
        ends: time
            .as_ref()
            .map(units::change_with_ends)
            .unwrap_or_default(),
        time,
        mark: mark.to_owned(),
        class: class.to_owned(),
        timed: logs.len(),
        memory_text,
        lowest_peak,
        weighed,
        failed,
    })
}

/// Whether both times have intervals that meet: who is faster is then not shown.
fn overlap(a: &SummaryRow, b: &SummaryRow) -> bool {
    let interval = |row: &SummaryRow| {
        row.time
            .filter(|r| stats::ratio_kind(r) == IntervalKind::Ci95)
    };
    match (interval(a), interval(b)) {
        (Some(a), Some(b)) => a.low <= b.high && b.low <= a.high,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer on subjects with these means, intervals and blocks.
    fn answer(times: &[(&str, f64, f64, f64, u32)]) -> String {
        let row = |&(subject, median, low, high, pairs): &(&str, f64, f64, f64, u32)| SummaryRow {
            subject: subject.to_owned(),
            time: Some(Ratio {
                median,
                low,
                high,
                pairs,
            }),
            time_sort: Some(median),
            ..SummaryRow::default()
        };
        let rows = times.iter().map(row).collect();
        Summary {
            baseline: "system".to_owned(),
            measure: Some("time"),
            workloads: 7,
            rows,
        }
        .answer()
        .join("\n")
    }

    #[test]
    fn a_first_place_that_is_not_shown_is_said_to_be_none() {
        let second = ("b", 0.43, 0.40, 0.47, 7);
        let third = ("c", 0.50, 0.48, 0.52, 7);
        let said = "not told apart from a by time, as the intervals overlap: b.";
        let close = answer(&[third, ("a", 0.41, 0.37, 0.47, 7), second]);
        assert!(
            close.contains("fastest: a") && close.contains(said),
            "{close}"
        );
        let clear = answer(&[("a", 0.30, 0.29, 0.31, 7), second, third]);
        assert!(!clear.contains("told apart"), "{clear}");
        // Behind the base there is only a next one.
        let slower = answer(&[("a", 1.88, 1.80, 1.95, 7)]);
        assert!(
            slower.starts_with("fastest: system; next: a, time +88 %"),
            "{slower}"
        );
        // Ranges are no intervals: what is said of them stands in their own sentence.
        let few = answer(&[("a", 0.41, 0.37, 0.47, 2), ("b", 0.43, 0.40, 0.47, 2)]);
        assert!(!few.contains("told apart"), "{few}");
    }
}
