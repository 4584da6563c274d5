//! Owns the TOML form of the policy: its keys, their checks, and errors that point at a place.

use super::{Accept, Bytes, Controls, Kind, MetricRule, Percent, Policy, Quarantine};
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("policy `{file}` cannot be read: {source}; check the path given to --policy")]
    Read {
        /// Path as given.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its text is wrong.
    #[error("policy `{file}` line {line} column {column}: {message}")]
    Text {
        /// Path as given.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong and what to write instead.
        message: String,
    },
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Extends {
    #[default]
    Default,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePolicy {
    #[serde(default)]
    extends: Extends,
    alpha: Option<Probability>,
    pass_confidence: Option<Probability>,
    min_pairs: Option<PairCount>,
    repeat_within: Option<Percent>,
    steady_within: Option<Percent>,
    drift: Option<Percent>,
    max_quarantined: Option<Percent>,
    controls: Option<FileControls>,
    #[serde(default)]
    metric: BTreeMap<String, Spanned<FileMetric>>,
    #[serde(default)]
    quarantine: Vec<FileQuarantine>,
    #[serde(default)]
    accept: Vec<FileAccept>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileControls {
    subjects: Option<Vec<String>>,
    alpha: Option<Probability>,
    min_effect: Option<Percent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMetric {
    kind: Option<Kind>,
    limit: Option<Percent>,
    min_effect: Option<Percent>,
    min_change: Option<Bytes>,
    required: Option<bool>,
    gate: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileQuarantine {
    cell: Sentence,
    metric: Sentence,
    reason: Sentence,
    date: Date,
    until: Option<Date>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAccept {
    cell: Sentence,
    metric: Sentence,
    value: f64,
    reason: Sentence,
}

/// A probability strictly between 0 and 1.
struct Probability(f64);

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let p = f64::deserialize(d)?;
        if p > 0.0 && p < 1.0 {
            Ok(Probability(p))
        } else {
            Err(de::Error::custom(format!(
                "`{p}` is no probability: write a number such as 0.01"
            )))
        }
    }
}

/// A number of pairs, at least 1.
struct PairCount(usize);

impl<'de> Deserialize<'de> for PairCount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match i64::deserialize(d)? {
            n @ 1..=10_000 => Ok(PairCount(n as usize)),
            n => Err(de::Error::custom(format!(
                "`{n}` pairs are out of range: write a number from 1 to 10000"
            ))),
        }
    }
}

/// Text that is not blank: a quarantine or acceptance without a reason is refused.
struct Sentence(String);

impl<'de> Deserialize<'de> for Sentence {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text.trim().is_empty() {
            return Err(de::Error::custom(
                "the text is empty: say which cell, metric or reason",
            ));
        }
        Ok(Sentence(text))
    }
}

/// A day as `YYYY-MM-DD`; such texts sort like the days.
struct Date(String);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let parts: Vec<&str> = text.split('-').collect();
        let number = |s: &str, width: usize, range: Range<u32>| {
            s.len() == width
                && s.bytes().all(|b| b.is_ascii_digit())
                && s.parse::<u32>().is_ok_and(|n| range.contains(&n))
        };
        match parts[..] {
            [y, m, day]
                if number(y, 4, 1..9999) && number(m, 2, 1..13) && number(day, 2, 1..32) =>
            {
                Ok(Date(text))
            }
            _ => Err(de::Error::custom(format!(
                "`{text}` is no date: write \"2026-11-24\""
            ))),
        }
    }
}

/// Reads `text` and lays it over `below`; an `extends = "none"` in it replaces `below` by nothing.
///
/// # Errors
/// One sentence with `name`, line and column of what is wrong.
pub fn parse_over(below: &Policy, text: &str, name: &str) -> Result<Policy, PolicyError> {
    let at = |span: Option<Range<usize>>, message: String| {
        let (line, column) = place(text, span.map_or(0, |s| s.start));
        PolicyError::Text {
            file: name.to_string(),
            line,
            column,
            message,
        }
    };
    let file: FilePolicy =
        toml::from_str(text).map_err(|e| at(e.span(), e.message().replace('\n', " ")))?;
    let mut policy = match file.extends {
        Extends::Default => below.clone(),
        Extends::None => Policy::empty(),
    };
    set(&mut policy.alpha, file.alpha.map(|p| p.0));
    set(
        &mut policy.pass_confidence,
        file.pass_confidence.map(|p| p.0),
    );
    set(&mut policy.min_pairs, file.min_pairs.map(|p| p.0));
    set(&mut policy.repeat_within, file.repeat_within);
    set(&mut policy.steady_within, file.steady_within);
    set(&mut policy.drift, file.drift);
    set(&mut policy.max_quarantined, file.max_quarantined);
    if let Some(controls) = file.controls {
        let own: &mut Controls = &mut policy.controls;
        set(&mut own.subjects, controls.subjects);
        set(&mut own.alpha, controls.alpha.map(|p| p.0));
        set(&mut own.min_effect, controls.min_effect);
    }
    for (metric, entry) in file.metric {
        let span = entry.span();
        let rule = overlay(policy.metrics.get(&metric), entry.into_inner(), &metric)
            .map_err(|message| at(Some(span), message))?;
        policy.metrics.insert(metric, rule);
    }
    policy
        .quarantine
        .extend(file.quarantine.into_iter().map(|q| Quarantine {
            cell: q.cell.0,
            metric: q.metric.0,
            reason: q.reason.0,
            date: q.date.0,
            until: q.until.map(|d| d.0),
        }));
    policy
        .accept
        .extend(file.accept.into_iter().map(|a| Accept {
            cell: a.cell.0,
            metric: a.metric.0,
            value: a.value,
            reason: a.reason.0,
        }));
    Ok(policy)
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// The rule of `metric`: what the file says over what stood below it.
fn overlay(
    below: Option<&MetricRule>,
    file: FileMetric,
    metric: &str,
) -> Result<MetricRule, String> {
    let missing = |key: &str, example: &str| {
        format!("metric `{metric}` has no `{key}`: add for example {key} = {example}")
    };
    let kind = file
        .kind
        .or(below.map(|b| b.kind))
        .ok_or_else(|| missing("kind", "\"time\" (or exact, memory)"))?;
    let limit = file
        .limit
        .or(below.map(|b| b.limit))
        .ok_or_else(|| missing("limit", "\"+5 %\""))?;
    // Half the limit: a change of exactly the limit is then caught nearly always and not in
    // half of the runs, and what is far below the limit still passes.
    let half = Percent::from_fraction(limit.fraction() / 2.0);
    let kept = below
        .filter(|b| file.limit.is_none_or(|l| l == b.limit))
        .map(|b| b.min_effect);
    let min_effect = file.min_effect.or(kept).unwrap_or(half);
    if min_effect > limit {
        return Err(format!(
            "metric `{metric}`: min_effect {min_effect} is above its limit {limit}; lower it"
        ));
    }
    Ok(MetricRule {
        kind,
        limit,
        min_effect,
        min_change: file
            .min_change
            .or(below.map(|b| b.min_change))
            .unwrap_or_default(),
        required: file.required.or(below.map(|b| b.required)).unwrap_or(false),
        gate: file.gate.or(below.map(|b| b.gate)).unwrap_or(true),
    })
}

/// Line and column (from 1) of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        Policy::parse(text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_text_says_what_the_code_starts_from() {
        let p = Policy::default();
        assert_eq!(
            p.metrics["instructions"].limit,
            Percent::from_fraction(0.005)
        );
        assert_eq!(
            p.metrics["ns_per_op"].min_effect,
            Percent::from_fraction(0.025)
        );
        assert_eq!(p.metrics["peak_resident_bytes"].min_change, Bytes(65536));
        // Every scalar in the text is the same as the one an `extends = "none"` file starts from.
        let bare = Policy {
            metrics: BTreeMap::new(),
            ..p
        };
        assert_eq!(bare, Policy::empty());
    }

    #[test]
    fn a_file_changes_only_what_it_mentions() {
        let p = Policy::parse("[metric.ns_per_op]\nlimit = \"+8 %\"\n", "p.toml").unwrap();
        let rule = &p.metrics["ns_per_op"];
        assert_eq!(rule.limit, Percent::from_fraction(0.08));
        assert_eq!(
            rule.min_effect,
            Percent::from_fraction(0.04),
            "follows the new limit"
        );
        assert_eq!(rule.kind, Kind::Time);
        assert_eq!(p.metrics.len(), Policy::default().metrics.len());
        let p = Policy::parse("[metric.ns_per_op]\ngate = false\n", "p.toml").unwrap();
        assert!(p.rule("ns_per_op").is_none());
        let p = Policy::parse("extends = \"none\"\n", "p.toml").unwrap();
        assert!(p.metrics.is_empty());
    }

    #[test]
    fn errors_name_the_place_and_the_cure() {
        let e = wrong("alpha = 0.01\nalhpa = 0.02\n");
        assert!(
            e.contains("p.toml` line 2 column 1") && e.contains("alhpa"),
            "{e}"
        );
        let e = wrong("[metric.x]\nlimit = \"+5 %\"\n");
        assert!(
            e.contains("metric `x` has no `kind`") && e.contains("line 1"),
            "{e}"
        );
        let e = wrong("[metric.ns_per_op]\nlimit = \"105 %\"\n");
        assert!(e.contains("line 2") && e.contains("not a factor"), "{e}");
        assert!(wrong("alpha = 1.5").contains("no probability"));
        assert!(wrong("min_pairs = 0").contains("out of range"));
        let e = wrong(
            "[[quarantine]]\ncell = \"a\"\nmetric = \"*\"\nreason = \"r\"\ndate = \"yesterday\"\n",
        );
        assert!(e.contains("line 5") && e.contains("no date"), "{e}");
        let e = wrong("[[accept]]\ncell = \"a\"\nmetric = \"m\"\nvalue = 1\nreason = \" \"\n");
        assert!(e.contains("line 5") && e.contains("empty"), "{e}");
        assert!(wrong("[[accept]]\ncell = \"a\"\n").contains("metric"));
        let e = wrong("[metric.ns_per_op]\nmin_effect = \"9 %\"\n");
        assert!(e.contains("above its limit"), "{e}");
        assert!(!wrong("= [").contains('\n'));
    }

    #[test]
    fn a_file_that_is_not_there() {
        let e = Policy::load(std::path::Path::new("no/such/policy.toml"))
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("no/such/policy.toml") && e.contains("--policy"),
            "{e}"
        );
    }
}
