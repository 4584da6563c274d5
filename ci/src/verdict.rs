//! Owns the words of a judgement: verdicts, the rule that gave them, and the evidence.

use crate::policy::Kind;
use serde::Serialize;

/// How base and head were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In one job, block by block: block n of base belongs to block n of head.
    SameJob,
    /// At different times; block numbers mean nothing across the two.
    Stored,
}

/// What the gate says about one metric of one cell. In order of gravity, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Shown to be better by more than the limit (or the minimum effect, where noisy).
    Improvement,
    /// Shown to be no worse than the limit allows.
    Pass,
    /// Worse, and the policy says that this is wanted.
    Accepted,
    /// Known to be noisy: shown, not judged.
    Quarantined,
    /// Base and head cannot be compared in this metric, and nothing is wrong with either.
    NotCompared,
    /// Neither shown to be worse nor shown to be within the limit.
    Inconclusive,
    /// A control moved, so this figure cannot be trusted.
    Contaminated,
    /// Absent, failed or measured in another way on one side.
    Missing,
    /// Shown to be worse by a size that matters.
    Regression,
}

impl Verdict {
    /// Every verdict, in order of gravity.
    pub const ALL: [Verdict; 9] = [
        Verdict::Improvement,
        Verdict::Pass,
        Verdict::Accepted,
        Verdict::Quarantined,
        Verdict::NotCompared,
        Verdict::Inconclusive,
        Verdict::Contaminated,
        Verdict::Missing,
        Verdict::Regression,
    ];

    /// The word shown to people.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Improvement => "improvement",
            Verdict::Pass => "pass",
            Verdict::Accepted => "accepted",
            Verdict::Quarantined => "quarantined",
            Verdict::NotCompared => "not compared",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Contaminated => "contaminated",
            Verdict::Missing => "missing",
            Verdict::Regression => "regression",
        }
    }

    /// Whether the two sides were really held against each other.
    pub fn is_compared(self) -> bool {
        matches!(
            self,
            Verdict::Improvement
                | Verdict::Pass
                | Verdict::Accepted
                | Verdict::Inconclusive
                | Verdict::Contaminated
                | Verdict::Regression
        )
    }

    /// Whether it makes the gate red on its own.
    pub fn is_red(self) -> bool {
        matches!(
            self,
            Verdict::Contaminated | Verdict::Missing | Verdict::Regression
        )
    }
}

/// How a verdict was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Runs of each side agree; the limit decides.
    Exact,
    /// Runs of each side lie close together; ranges and limit decide.
    Steady,
    /// Exact signed-rank test of paired blocks and a minimum effect.
    Paired,
    /// Exact intervals of two medians, with an allowance for drift.
    Unpaired,
    /// Nothing was computed.
    None,
}

/// What a verdict rests on. Absent figures are those that the rule does not have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Rule used.
    pub rule: Rule,
    /// Median of the base, in the metric's unit.
    pub base: Option<f64>,
    /// Median of the head, in the metric's unit.
    pub head: Option<f64>,
    /// Head relative to base as a fraction: 0.05 = the figure grew by 5 %, whichever way is good.
    pub change: Option<f64>,
    /// Lower end of the change.
    pub low: Option<f64>,
    /// Upper end of the change.
    pub high: Option<f64>,
    /// Blocks in which both sides ran.
    pub pairs: usize,
    /// Runs of base and head.
    pub runs: [usize; 2],
    /// One-sided probability of a change this bad if nothing changed.
    pub p: Option<f64>,
    /// The level that `p` was held against.
    pub alpha: Option<f64>,
    /// Smallest change for the worse that would have been shown in 95 of 100 such runs, fraction.
    pub could_show: Option<f64>,
}

impl Evidence {
    /// No evidence.
    pub fn none() -> Evidence {
        Evidence {
            rule: Rule::None,
            base: None,
            head: None,
            change: None,
            low: None,
            high: None,
            pairs: 0,
            runs: [0, 0],
            p: None,
            alpha: None,
            could_show: None,
        }
    }
}

/// One line of the gate: a metric of a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Cell id, as `--only` takes it.
    pub cell: String,
    /// Metric name; empty when the cell as a whole is missing.
    pub metric: String,
    /// Unit of base and head.
    pub unit: String,
    /// By which rule the policy wants it judged; `None` when the cell as a whole is missing.
    pub kind: Option<Kind>,
    /// Verdict.
    pub verdict: Verdict,
    /// What it would be without quarantine, acceptance or contamination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_be: Option<Verdict>,
    /// Evidence.
    pub evidence: Evidence,
    /// The change for the worse that must not pass, fraction.
    pub limit: f64,
    /// Why: one sentence.
    pub reason: String,
}
