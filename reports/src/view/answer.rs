//! The answer in words for one workload.
//!
//! Rule: the subject with the smallest product of its time and peak ratios is named first; a difference that
//! is not shown counts as none, and from fewer than six blocks none is shown. Of a program with metrics of the user's
//! own, their geometric mean stands for the time. If the first is our own allocator, the best of the others is named too,
//! so that the ranking can be read without it.

use super::{Today, columns, memory_metric, time_metric, time_word};
use crate::builder::BASELINE;
use crate::schema::{Better, Cell, IntervalKind, Ratio, ResultSet, Status, Subject};
use crate::{latency, stats, units};

struct Candidate<'a> {
    cell: &'a Cell,
    ours: bool,
    time: Option<Ratio>,
    peak: Option<Ratio>,
    /// Metrics of the user's own: name, direction, ratio.
    own: Vec<(&'a str, Better, Ratio)>,
}

impl Candidate<'_> {
    /// Product of the ratios that count; smaller is better.
    fn score(&self) -> f64 {
        let peak = self.peak.as_ref().map_or(1.0, counted);
        if self.own.is_empty() {
            return peak * self.time.as_ref().map_or(1.0, counted);
        }
        let logs: f64 = self
            .own
            .iter()
            .map(|(_, better, ratio)| match better {
                Better::Lower => counted(ratio).ln(),
                Better::Higher => -counted(ratio).ln(),
            })
            .sum();
        peak * (logs / self.own.len() as f64).exp()
    }

    /// Word and ratio of everything that is compared.
    fn ratios(&self) -> Vec<(&str, &Ratio)> {
        let fixed = [(time_word(self.cell), &self.time), ("peak", &self.peak)];
        let fixed = fixed
            .into_iter()
            .filter_map(|(word, r)| Some((word, r.as_ref()?)));
        fixed
            .chain(self.own.iter().map(|(name, _, ratio)| (*name, ratio)))
            .collect()
    }

    fn name(&self) -> String {
        if self.ours {
            format!("{} (ours)", self.cell.subject)
        } else {
            self.cell.subject.clone()
        }
    }

    fn measured(&self) -> bool {
        !self.ratios().is_empty()
    }

    /// Whether there are blocks enough for any claim.
    fn has_interval(&self) -> bool {
        self.ratios()
            .iter()
            .any(|(_, r)| stats::ratio_kind(r) == IntervalKind::Ci95)
    }
}

/// Whether a difference is claimed: there is an interval, and it excludes 1.
fn claimed(r: &Ratio) -> bool {
    stats::ratio_kind(r) == IntervalKind::Ci95 && stats::shown_different(r)
}

/// A ratio as far as it may be relied on: 1 where no difference is claimed.
fn counted(r: &Ratio) -> f64 {
    if claimed(r) { r.median } else { 1.0 }
}

/// `time -9 % [-12,-6]`, `time not shown to differ (…)`; a range is given as one.
fn part(word: &str, r: &Ratio) -> String {
    let change = units::change_with_ends(r);
    match claimed(r) || stats::ratio_kind(r) == IntervalKind::Range {
        true => format!("{word} {change}"),
        false => format!("{word} not shown to differ ({change})"),
    }
}

/// Sentences, and the label of the subject named first.
pub(super) fn of_group(
    result: &ResultSet,
    cells: &[&Cell],
    today: &Today,
) -> (Vec<String>, Option<String>) {
    let ok: Vec<&Cell> = cells
        .iter()
        .copied()
        .filter(|c| c.status == Status::Ok)
        .collect();
    let mut sentences = Vec::new();
    let mut best = None;
    let base = result.baseline();
    match ok.iter().find(|c| c.subject == base) {
        None if ok.is_empty() => {
            sentences.push("no subject finished; see the reasons below.".to_owned())
        }
        None => sentences.push(no_baseline(ok.iter().map(|c| c.subject.as_str()), base)),
        Some(base) if ok.len() == 1 => sentences.push(alone(base)),
        Some(_) => {
            let mut candidates = candidates(result, &ok);
            candidates.sort_by(|a, b| a.score().total_cmp(&b.score()));
            match of_latency(result, &ok).filter(|_| candidates.is_empty()) {
                Some(sentence) => sentences.push(sentence),
                None => best = compare(&candidates, base, today, &mut sentences),
            }
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

/// Where nothing but latency was measured: the percentile of the table, smallest first. It has no interval, so nobody is the best.
fn of_latency(result: &ResultSet, ok: &[&Cell]) -> Option<String> {
    let mut found: Vec<(f64, String)> = (ok.iter())
        .filter_map(|cell| {
            let (all, floor) = latency::all_ops(&cell.latency)?;
            let subject = result.subjects.iter().find(|s| s.name == cell.subject);
            let ours = match subject.is_some_and(Subject::is_ours) {
                true => " (ours)",
                false => "",
            };
            let ns = latency::percentile(&all, 9_990, floor)?;
            let value = units::nanoseconds(ns);
            Some((ns, format!("{}{ours} {value}", cell.subject)))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let words: Vec<String> = found.into_iter().map(|(_, words)| words).collect();
    Some(format!(
        "999 of 1,000 calls took at most: {}; percentiles have no interval, so no difference is claimed.",
        words.join(", ")
    ))
}

fn alone(base: &Cell) -> String {
    let figures: Vec<String> = [time_metric(base), memory_metric(base)]
        .into_iter()
        .flatten()
        .filter_map(|name| base.metrics.get(name).map(|m| (name, m)))
        .map(|(name, m)| {
            let per_op = match name {
                "ns_per_op" => " per op",
                "instructions" => " instructions",
                _ => "",
            };
            let peak = if name.starts_with("peak") {
                "peak "
            } else {
                ""
            };
            format!("{peak}{}{per_op}", units::value(&m.unit, m.median))
        })
        .collect();
    if figures.is_empty() {
        return format!(
            "{} ran alone: there is nothing to compare it with.",
            base.subject
        );
    }
    format!(
        "{}: {}; there is nothing to compare it with.",
        base.subject,
        figures.join(", ")
    )
}

fn candidates<'a>(result: &ResultSet, ok: &[&'a Cell]) -> Vec<Candidate<'a>> {
    let ratio = |cell: &Cell, name: Option<&str>| cell.metrics.get(name?)?.ratio_to_system;
    ok.iter()
        .filter(|c| c.subject != result.baseline())
        .map(|cell| Candidate {
            cell,
            ours: result
                .subjects
                .iter()
                .any(|s| s.name == cell.subject && Subject::is_ours(s)),
            time: ratio(cell, time_metric(cell)),
            peak: ratio(cell, memory_metric(cell)),
            own: columns::own_metrics(cell)
                .filter_map(|name| {
                    let metric = cell.metrics.get(name)?;
                    Some((name.as_str(), metric.better, metric.ratio_to_system?))
                })
                .collect(),
        })
        .filter(Candidate::measured)
        .collect()
}

/// What is said where nothing can be compared.
fn no_baseline<'a>(subjects: impl Iterator<Item = &'a str>, base: &str) -> String {
    let names: Vec<_> = subjects.collect();
    format!(
        "{} cannot be compared, as {base}, against which ratios are taken, has no figures here.",
        names.join(", ")
    )
}

/// What is said where something else than [`BASELINE`] stands at 1.
pub(super) fn another_baseline(result: &ResultSet) -> String {
    let base = result.baseline();
    let mut words = result.command.iter().skip(1);
    match words.find(|word| !word.starts_with('-')) {
        // It compares what it is given, and nothing can be added.
        Some(command) if command == "gate" => format!("ratios are taken against {base}."),
        _ => format!(
            "ratios are taken against {base}, the subject named first, as \"{BASELINE}\" is not among them (-a {BASELINE} adds it)."
        ),
    }
}

/// `system (the program's own)`.
fn baseline(base: &str, today: &Today) -> String {
    match today {
        Today::Baseline if base == BASELINE => format!("{base} (the program's own)"),
        Today::Default | Today::Baseline => base.to_owned(),
        Today::Other(name) => format!("{base} (the program itself ran on {name})"),
    }
}

/// Subjects that get a sentence of their own: an answer with more is a table.
const NAMED: usize = 4;

/// What is said of the others of `all`.
fn not_named(all: usize) -> Option<String> {
    let left = all.checked_sub(NAMED).filter(|left| *left > 0)?;
    Some(format!("{left} more in the table."))
}

fn compare(
    candidates: &[Candidate<'_>],
    label: &str,
    today: &Today,
    sentences: &mut Vec<String>,
) -> Option<String> {
    let base = baseline(label, today);
    let Some(leader) = candidates.first() else {
        sentences.push(format!("no pair of blocks with \"{label}\": no ratios."));
        return None;
    };
    if !candidates.iter().any(Candidate::has_interval) {
        sentences.push(format!(
            "no difference is claimed from fewer than 6 blocks (--blocks 8 gives intervals); as measured, against {base}:"
        ));
        for candidate in candidates.iter().take(NAMED) {
            sentences.push(format!("{}.", against_baseline(candidate)));
        }
        sentences.extend(not_named(candidates.len()));
        return None;
    }
    if leader.score() >= 1.0 {
        sentences.push(format!(
            "no subject was shown to be better than {base} in time and peak together; nearest: {}.",
            against_baseline(leader)
        ));
        return Some(label.to_owned());
    }
    sentences.push(format!("{} against {base}.", against_baseline(leader)));
    let others = &candidates[1..];
    // Our own first place is never the only thing said.
    let first_of_others = if leader.ours {
        others.iter().position(|c| !c.ours)
    } else {
        None
    };
    if let Some(i) = first_of_others {
        sentences.push(format!(
            "without ours: {} against {label}.",
            against_baseline(&others[i])
        ));
    }
    for other in others.iter().take(NAMED) {
        sentences.push(format!("{}.", against_leader(other, leader)));
    }
    sentences.extend(not_named(others.len()));
    Some(leader.cell.subject.clone())
}

fn against_baseline(c: &Candidate<'_>) -> String {
    let parts: Vec<String> = c.ratios().iter().map(|(word, r)| part(word, r)).collect();
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
        (time_word(leader.cell), "as fast", time_metric(leader.cell)),
        ("peak", "as small", memory_metric(leader.cell)),
    ];
    for (word, same, metric) in words {
        let Some(r) = pair(metric) else { continue };
        parts.push(match stats::ratio_kind(&r) {
            IntervalKind::Ci95 if !claimed(&r) => format!("{same} (not shown to differ)"),
            _ => part(word, &r),
        });
    }
    for (name, ..) in leader.own.iter().take(3) {
        if let Some(r) = pair(Some(name)) {
            parts.push(part(name, &r));
        }
    }
    format!(
        "{}: {}, over {}",
        second.name(),
        parts.join(", "),
        leader.cell.subject
    )
}
