//! The answer in words for one workload.
//!
//! Rule: the subject with the smallest product of its time and peak ratios is named first; a difference that
//! is not shown counts as none. If that is our own allocator, the best of the others is named too, so that
//! the ranking can be read without it.

use super::{memory_metric, time_metric};
use crate::builder::BASELINE;
use crate::schema::{Cell, IntervalKind, Ratio, ResultSet, Status, Subject};
use crate::{stats, units};

struct Candidate<'a> {
    cell: &'a Cell,
    ours: bool,
    time: Option<Ratio>,
    peak: Option<Ratio>,
}

impl Candidate<'_> {
    /// Product of the ratios that count; smaller is better.
    fn score(&self) -> f64 {
        [&self.time, &self.peak]
            .into_iter()
            .flatten()
            .map(counted)
            .product()
    }

    fn name(&self) -> String {
        if self.ours {
            format!("{} (ours)", self.cell.subject)
        } else {
            self.cell.subject.clone()
        }
    }

    fn measured(&self) -> bool {
        self.time.is_some() || self.peak.is_some()
    }
}

/// A ratio as far as it may be relied on: 1 if the interval includes 1.
fn counted(r: &Ratio) -> f64 {
    let shown = stats::ratio_kind(r) == IntervalKind::Range || stats::shown_different(r);
    if shown { r.median } else { 1.0 }
}

/// Sentences, and the label of the subject named first.
pub(super) fn of_group(result: &ResultSet, cells: &[&Cell]) -> (Vec<String>, Option<String>) {
    let ok: Vec<&Cell> = cells
        .iter()
        .copied()
        .filter(|c| c.status == Status::Ok)
        .collect();
    let mut sentences = Vec::new();
    let mut best = None;
    match ok.iter().find(|c| c.subject == BASELINE) {
        None if ok.is_empty() => {
            sentences.push("no subject finished; see the reasons below.".to_owned())
        }
        None => sentences.push(format!(
            "{} ran without the baseline \"{BASELINE}\": no ratios.",
            ok.iter()
                .map(|c| c.subject.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )),
        Some(base) if ok.len() == 1 => sentences.push(alone(base)),
        Some(_) => {
            let mut candidates = candidates(result, &ok);
            candidates.sort_by(|a, b| a.score().total_cmp(&b.score()));
            best = compare(&candidates, &mut sentences);
        }
    }
    let failed: Vec<&str> = cells
        .iter()
        .filter(|c| c.status == Status::Failed)
        .map(|c| c.subject.as_str())
        .collect();
    if !failed.is_empty() && !ok.is_empty() {
        sentences.push(format!("{} failed (see its row).", failed.join(", ")));
    }
    (sentences, best)
}

fn alone(base: &Cell) -> String {
    let figures: Vec<String> = [time_metric(base), memory_metric(base)]
        .into_iter()
        .flatten()
        .filter_map(|name| base.metrics.get(name).map(|m| (name, m)))
        .map(|(name, m)| {
            let per_op = if name == "ns_per_op" { " per op" } else { "" };
            let peak = if name.starts_with("peak") {
                "peak "
            } else {
                ""
            };
            format!("{peak}{}{per_op}", units::value(&m.unit, m.median))
        })
        .collect();
    format!(
        "{BASELINE}: {}; there is nothing to compare it with.",
        figures.join(", ")
    )
}

fn candidates<'a>(result: &ResultSet, ok: &[&'a Cell]) -> Vec<Candidate<'a>> {
    let ratio = |cell: &Cell, name: Option<&str>| cell.metrics.get(name?)?.ratio_to_system;
    ok.iter()
        .filter(|c| c.subject != BASELINE)
        .map(|cell| Candidate {
            cell,
            ours: result
                .subjects
                .iter()
                .any(|s| s.name == cell.subject && Subject::is_ours(s)),
            time: ratio(cell, time_metric(cell)),
            peak: ratio(cell, memory_metric(cell)),
        })
        .filter(Candidate::measured)
        .collect()
}

fn compare(candidates: &[Candidate<'_>], sentences: &mut Vec<String>) -> Option<String> {
    let Some(leader) = candidates.first() else {
        sentences.push(format!("no pair of blocks with \"{BASELINE}\": no ratios."));
        return None;
    };
    if leader.score() >= 1.0 {
        sentences.push(format!(
            "no subject is better than {BASELINE} in time and peak together; nearest: {}.",
            against_system(leader)
        ));
        return Some(BASELINE.to_owned());
    }
    sentences.push(format!("{} against {BASELINE}.", against_system(leader)));
    let others = &candidates[1..];
    // Our own first place is never the only thing said.
    let first_of_others = if leader.ours {
        others.iter().position(|c| !c.ours)
    } else {
        None
    };
    if let Some(i) = first_of_others {
        sentences.push(format!(
            "without ours: {} against {BASELINE}.",
            against_system(&others[i])
        ));
    }
    for other in others.iter().take(4) {
        sentences.push(format!("{}.", against_leader(other, leader)));
    }
    Some(leader.cell.subject.clone())
}

fn against_system(c: &Candidate<'_>) -> String {
    let mut parts = Vec::new();
    for (word, ratio) in [("time", &c.time), ("peak", &c.peak)] {
        let Some(r) = ratio else { continue };
        let differs = stats::ratio_kind(r) == IntervalKind::Range || stats::shown_different(r);
        let change = units::change_with_ends(r);
        parts.push(if differs {
            format!("{word} {change}")
        } else {
            format!("{word} not shown to differ ({change})")
        });
    }
    format!("{}: {}", c.name(), parts.join(", "))
}

fn against_leader(second: &Candidate<'_>, leader: &Candidate<'_>) -> String {
    let pair = |name: Option<&str>| {
        let name = name?;
        stats::paired_ratio(
            &second.cell.metrics.get(name)?.samples,
            &leader.cell.metrics.get(name)?.samples,
        )
    };
    let mut parts = Vec::new();
    let words = [
        ("time", "as fast", time_metric(leader.cell)),
        ("peak", "as small", memory_metric(leader.cell)),
    ];
    for (word, same, metric) in words {
        let Some(r) = pair(metric) else { continue };
        let differs = stats::ratio_kind(&r) == IntervalKind::Range || stats::shown_different(&r);
        parts.push(if differs {
            format!("{word} {}", units::change_with_ends(&r))
        } else {
            format!("{same} (not shown to differ)")
        });
    }
    format!(
        "{}: {}, over {}",
        second.name(),
        parts.join(", "),
        leader.cell.subject
    )
}
