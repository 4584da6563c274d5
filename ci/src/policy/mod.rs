//! Owns the policy: which metrics gate, by which rule and limit, which cells are controls,
//! quarantined or accepted. Read from TOML, laid over the built-in `policy.toml`.

mod file;
mod units;

pub use file::{PolicyError, parse_over};
pub use units::{Bytes, Percent};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The text of the built-in policy, documented line by line: what `--policy` files are laid over.
pub const DEFAULT_TEXT: &str = include_str!("../../policy.toml");

/// Bytes of a policy at most; the built-in one has a few thousand.
const MOST_BYTES: u64 = heaplab_bounded::MIB;

/// By which rule a metric is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Counts that repeat; two runs a side must agree, then the limit decides alone.
    Exact,
    /// Bytes; the limit decides where runs repeat (lockstep), else paired blocks do.
    Memory,
    /// Only paired blocks of one job, by an exact test and a minimum effect.
    Time,
}

impl Kind {
    /// The word used in policy files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Exact => "exact",
            Kind::Memory => "memory",
            Kind::Time => "time",
        }
    }
}

/// The rule for one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricRule {
    /// Rule.
    pub kind: Kind,
    /// The change for the worse that must not pass.
    pub limit: Percent,
    /// A shown change below this is not a regression (noisy figures only).
    pub min_effect: Percent,
    /// Changes of fewer bytes never count (memory only).
    pub min_change: Bytes,
    /// A cell without this metric counts as missing.
    pub required: bool,
    /// Whether it is judged at all.
    pub gate: bool,
}

/// Subjects that the change cannot have touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Controls {
    /// Labels of subjects.
    pub subjects: Vec<String>,
    /// Two-sided level of the exact tests, for all controls of a run together.
    pub alpha: f64,
    /// Smallest movement that counts.
    pub min_effect: Percent,
}

/// A known noisy cell: run and shown, never red.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quarantine {
    /// Pattern over cell ids; `*` matches anything.
    pub cell: String,
    /// Pattern over metric names.
    pub metric: String,
    /// Why: one sentence.
    pub reason: String,
    /// Since when, `YYYY-MM-DD`.
    pub date: String,
    /// Last day on which it has effect, `YYYY-MM-DD`.
    pub until: Option<String>,
}

/// A wanted change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accept {
    /// Pattern over cell ids; `*` matches anything.
    pub cell: String,
    /// Metric name, exactly.
    pub metric: String,
    /// The new value, in the metric's unit: anything worse is a regression again.
    pub value: f64,
    /// Why: one sentence.
    pub reason: String,
}

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    /// Probability of a false alarm of a whole gate run without a change.
    pub alpha: f64,
    /// One-sided confidence that a pass needs.
    pub pass_confidence: f64,
    /// Fewest paired blocks that decide anything.
    pub min_pairs: usize,
    /// Agreement that runs of an exact count must show.
    pub repeat_within: Percent,
    /// Agreement that runs of a lockstep memory figure must show.
    pub steady_within: Percent,
    /// Added to limits of times of two separate runs of one job.
    pub drift: Percent,
    /// Share of quarantined rows above which the report says so.
    pub max_quarantined: Percent,
    /// Controls.
    pub controls: Controls,
    /// Rules by metric name.
    pub metrics: BTreeMap<String, MetricRule>,
    /// Quarantined cells.
    pub quarantine: Vec<Quarantine>,
    /// Accepted changes.
    pub accept: Vec<Accept>,
}

impl Default for Policy {
    /// The built-in policy.
    fn default() -> Policy {
        match parse_over(&Policy::empty(), DEFAULT_TEXT, "built-in policy") {
            Ok(policy) => policy,
            // Embedded text: a test parses it, so this cannot be reached by any input.
            Err(e) => unreachable!("{e}"),
        }
    }
}

impl Policy {
    /// A policy that judges nothing: what `extends = "none"` starts from.
    pub fn empty() -> Policy {
        Policy {
            alpha: 0.01,
            pass_confidence: 0.99,
            min_pairs: 12,
            repeat_within: Percent::from_fraction(0.0002),
            steady_within: Percent::from_fraction(0.02),
            drift: Percent::from_fraction(0.03),
            max_quarantined: Percent::from_fraction(0.25),
            controls: Controls {
                subjects: Vec::new(),
                alpha: 0.01,
                min_effect: Percent::from_fraction(0.015),
            },
            metrics: BTreeMap::new(),
            quarantine: Vec::new(),
            accept: Vec::new(),
        }
    }

    /// Reads a policy from TOML text, laid over the built-in one. `name` stands in errors.
    ///
    /// # Errors
    /// One sentence with name, line and column of what is wrong.
    pub fn parse(text: &str, name: &str) -> Result<Policy, PolicyError> {
        parse_over(&Policy::default(), text, name)
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// As [`Policy::parse`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Policy, PolicyError> {
        let name = path.display().to_string();
        let text = heaplab_bounded::read_text(path, MOST_BYTES).map_err(|e| PolicyError::Read {
            file: name.clone(),
            source: e,
        })?;
        Policy::parse(&text, &name)
    }

    /// The rule of a metric that gates; `None` if the policy does not judge it.
    pub fn rule(&self, metric: &str) -> Option<&MetricRule> {
        self.metrics.get(metric).filter(|rule| rule.gate)
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text (also across `/`).
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    // `split` yields at least one part; the first is anchored at the start.
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("*", "", true),
            ("a/*", "a/b/c", true),
            ("*/c", "a/b/c", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
