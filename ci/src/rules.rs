//! Owns the rules by which one metric of one cell is judged: exact counts, steady memory, paired
//! blocks, and two separate series. A rule sees two metrics and gives a verdict with evidence.
//!
//! Every rule is monotone: making every figure of the head worse by the same factor never gives
//! a better verdict (a property test holds them to it).

use crate::policy::{Bytes, Kind, MetricRule, Percent, Policy};
use crate::verdict::{Evidence, Rule, Verdict};
use heaplab_reports::schema::{Better, Metric};
use heaplab_reports::stats::{hodges_lehmann, log_pairs, median, median_interval, signed_rank};

/// What may be compared between the two sides, and how.
pub(crate) struct Setting {
    /// Block n of base belongs to block n of head.
    pub paired: bool,
    /// Why times cannot be compared.
    pub no_times: Option<String>,
    /// Why resident bytes cannot be compared.
    pub no_memory: Option<String>,
}

/// Verdict and what it rests on.
pub(crate) struct Judged {
    pub verdict: Verdict,
    pub evidence: Evidence,
    pub reason: String,
}

/// What has to be done with two metrics; found before anything is judged, because the level of
/// each statistical test depends on how many there are.
pub(crate) enum Plan {
    /// Judge by this rule.
    By(Rule),
    /// The verdict is already clear.
    Settled(Verdict, String),
}

/// One side of a comparison: its values and their median and range.
struct Side {
    median: f64,
    low: f64,
    high: f64,
    runs: usize,
}

impl Side {
    fn of(metric: &Metric) -> Option<Side> {
        let values: Vec<f64> = metric.samples.iter().map(|s| s.value).collect();
        Some(Side {
            median: median(&values)?,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            runs: values.len(),
        })
    }

    /// Whether all runs lie within `share` of each other.
    fn within(&self, share: Percent) -> bool {
        self.high - self.low <= share.fraction() * self.median.abs()
    }
}

/// Finds the rule for two metrics of the same name.
pub(crate) fn plan(
    base: &Metric,
    head: &Metric,
    rule: &MetricRule,
    setting: &Setting,
    policy: &Policy,
) -> Plan {
    if let Some(reason) = measured_differently(base, head) {
        return Plan::Settled(Verdict::Missing, reason);
    }
    let refused = match rule.kind {
        Kind::Time => &setting.no_times,
        Kind::Memory => &setting.no_memory,
        Kind::Exact => &None,
    };
    if let Some(reason) = refused {
        return Plan::Settled(Verdict::NotCompared, reason.clone());
    }
    for (side, metric) in [("base", base), ("head", head)] {
        let bad = metric.samples.iter().find(|s| {
            !s.value.is_finite() || s.value < 0.0 || (rule.kind == Kind::Time && s.value == 0.0)
        });
        if let Some(sample) = bad {
            let reason = format!("{side} has the impossible value {} in a run", sample.value);
            return Plan::Settled(Verdict::Missing, reason);
        }
    }
    let (Some(b), Some(h)) = (Side::of(base), Side::of(head)) else {
        return Plan::Settled(
            Verdict::Missing,
            "one side has no run of this metric".into(),
        );
    };
    let noisy = if setting.paired {
        Rule::Paired
    } else {
        Rule::Unpaired
    };
    let repeats = match rule.kind {
        Kind::Exact => Some((Rule::Exact, policy.repeat_within)),
        Kind::Memory if base.mode == "lockstep" => Some((Rule::Steady, policy.steady_within)),
        Kind::Memory | Kind::Time => None,
    };
    match repeats {
        Some(_) if b.runs < 2 || h.runs < 2 => Plan::Settled(
            Verdict::Inconclusive,
            "one run does not show that the figure repeats: two runs a side are needed".into(),
        ),
        Some((rule, within)) if b.within(within) && h.within(within) => Plan::By(rule),
        _ => Plan::By(noisy),
    }
}

fn measured_differently(base: &Metric, head: &Metric) -> Option<String> {
    for (what, b, h) in [
        ("unit", &base.unit, &head.unit),
        ("mode", &base.mode, &head.mode),
        ("touch", &base.touch, &head.touch),
    ] {
        if b != h {
            return Some(format!("{what} differs: base has {b}, head has {h}"));
        }
    }
    (base.better != head.better).then(|| "base and head disagree which direction is better".into())
}

/// Judges two metrics by `by`, as found by [`plan`]. `alpha` is the level of this one test.
pub(crate) fn apply(
    by: Rule,
    base: &Metric,
    head: &Metric,
    rule: &MetricRule,
    policy: &Policy,
    alpha: f64,
) -> Judged {
    let (Some(b), Some(h)) = (Side::of(base), Side::of(head)) else {
        return Judged {
            verdict: Verdict::Missing,
            evidence: Evidence::none(),
            reason: "one side has no run of this metric".into(),
        };
    };
    let mut judged = match by {
        Rule::Paired => paired(base, head, &b, &h, rule, policy, alpha),
        Rule::Unpaired => unpaired(base, head, &b, &h, rule, policy, alpha),
        Rule::Exact | Rule::Steady | Rule::None => limited(by, base.better, &b, &h, rule),
    };
    let evidence = &mut judged.evidence;
    evidence.rule = by;
    evidence.base = Some(b.median);
    evidence.head = Some(h.median);
    evidence.runs = [b.runs, h.runs];
    if evidence.change.is_none() {
        evidence.change = finite(h.median / b.median - 1.0);
    }
    judged
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Figures that repeat: the limit decides. Regression only if even the closest two runs are
/// apart in the wrong direction, so that the last digit of a count cannot trip a limit of zero.
fn limited(by: Rule, better: Better, b: &Side, h: &Side, rule: &MetricRule) -> Judged {
    // Turned so that larger is worse.
    let (from, to) = match better {
        Better::Lower => (b, h),
        Better::Higher => (h, b),
    };
    // A hair above, so that a change of exactly the limit is within it whatever the rounding.
    let limit = rule.limit.fraction() + 1e-12;
    let enough = rule.min_change.0 as f64;
    let apart = to.low > from.high;
    let apart_good = to.high < from.low;
    let grown = to.median - from.median;
    let (worse, improved, within) = if by == Rule::Exact {
        (
            to.low > from.high * (1.0 + limit),
            to.high * (1.0 + limit) < from.low,
            true,
        )
    } else {
        (
            apart && to.median > from.median * (1.0 + limit) && grown >= enough,
            apart_good && to.median * (1.0 + limit) < from.median && -grown >= enough,
            to.high <= from.low * (1.0 + limit) || to.high - from.low < enough,
        )
    };
    let limit = rule.limit;
    let floor = floor_note(rule);
    let (verdict, reason) = if worse {
        (
            Verdict::Regression,
            format!("all runs are worse and the change is beyond {limit}{floor}"),
        )
    } else if improved {
        (
            Verdict::Improvement,
            format!("all runs are better and the change is beyond {limit}"),
        )
    } else if within {
        (Verdict::Pass, format!("within the limit of {limit}{floor}"))
    } else {
        (
            Verdict::Inconclusive,
            format!("runs of base and head overlap around the limit of {limit}"),
        )
    };
    let mut evidence = Evidence::none();
    evidence.low = finite(h.low / b.high - 1.0);
    evidence.high = finite(h.high / b.low - 1.0);
    evidence.could_show = match by {
        // Whatever lies beyond the limit and the scatter of the runs would have been seen.
        Rule::Exact => finite((1.0 + limit.fraction()) * b.high / b.low - 1.0),
        _ => finite(limit.fraction().max(b.high / b.low * h.high / h.low - 1.0)),
    };
    Judged {
        verdict,
        evidence,
        reason,
    }
}

fn floor_note(rule: &MetricRule) -> String {
    if rule.min_change == Bytes(0) {
        String::new()
    } else {
        format!(" and {}", rule.min_change)
    }
}

/// Fewest pairs with which an exact test can reach `alpha`: all of them on one side have 2⁻ⁿ.
fn pairs_for(alpha: f64, min_pairs: usize) -> usize {
    ((1.0 / alpha).log2() - 1e-9)
        .ceil()
        .max(1.0)
        .max(min_pairs as f64) as usize
}

/// The log ratios of all blocks with both sides, turned so that positive is worse.
fn worse_logs(base: &Metric, head: &Metric) -> Vec<f64> {
    let sign = match base.better {
        Better::Lower => 1.0,
        Better::Higher => -1.0,
    };
    log_pairs(&head.samples, &base.samples)
        .into_values()
        .map(|d| sign * d)
        .collect()
}

/// Puts an interval of worse-is-positive logs into the evidence as changes of the figure.
fn set_change(evidence: &mut Evidence, better: Better, low: f64, centre: f64, high: f64) {
    let (low, centre, high) = match better {
        Better::Lower => (low, centre, high),
        Better::Higher => (-high, -centre, -low),
    };
    evidence.low = finite(low.exp_m1());
    evidence.change = finite(centre.exp_m1());
    evidence.high = finite(high.exp_m1());
}

/// Paired blocks: the order within a block was drawn at random, so without a change the signs
/// are fair coins whatever the machine does, and the signed-rank test is exact.
fn paired(
    base: &Metric,
    head: &Metric,
    b: &Side,
    h: &Side,
    rule: &MetricRule,
    policy: &Policy,
    alpha: f64,
) -> Judged {
    let logs = worse_logs(base, head);
    let mut evidence = Evidence::none();
    evidence.pairs = logs.len();
    evidence.alpha = Some(alpha);
    let Some(pass) = hodges_lehmann(&logs, 2.0 * policy.pass_confidence - 1.0) else {
        let reason = "no block has both sides: base and head must run in the same blocks".into();
        return Judged {
            verdict: Verdict::Inconclusive,
            evidence,
            reason,
        };
    };
    set_change(&mut evidence, base.better, pass.low, pass.centre, pass.high);
    let needed = pairs_for(alpha, policy.min_pairs);
    if logs.len() < needed || pass.coverage.is_none() {
        let n = logs.len();
        let reason = format!("{n} pairs cannot decide at this level: {needed} are needed");
        return Judged {
            verdict: Verdict::Inconclusive,
            evidence,
            reason,
        };
    }
    let test = signed_rank(&logs);
    evidence.p = Some(test.p_greater);
    let effect = rule.min_effect.fraction().ln_1p();
    evidence.could_show = could_show(&logs, alpha, effect);
    let grown = match base.better {
        Better::Lower => h.median - b.median,
        Better::Higher => b.median - h.median,
    };
    let enough = rule.min_change.0 as f64;
    let (limit, min_effect) = (rule.limit, rule.min_effect);
    let floor = floor_note(rule);
    let most = b.median * pass.high.exp_m1();
    let (verdict, reason) = if test.p_greater <= alpha
        && pass.centre >= effect
        && (enough == 0.0 || grown >= enough)
    {
        (
            Verdict::Regression,
            format!(
                "shown to be worse (p {:.1e}) and not below the minimum effect of {min_effect}{floor}",
                test.p_greater
            ),
        )
    } else if test.p_less <= alpha && pass.centre <= -effect && (enough == 0.0 || -grown >= enough)
    {
        (
            Verdict::Improvement,
            format!("shown to be better by {min_effect} or more"),
        )
    } else if pass.high < limit.fraction().ln_1p() || most < enough {
        (
            Verdict::Pass,
            format!("shown to be below the limit of {limit}{floor}"),
        )
    } else {
        (
            Verdict::Inconclusive,
            format!("neither shown to be worse nor shown to be below {limit}"),
        )
    };
    Judged {
        verdict,
        evidence,
        reason,
    }
}

/// Smallest change that such pairs show in 95 of 100 runs: the reach of the test at `alpha` (and
/// at least the minimum effect) plus how far the estimate may fall short.
fn could_show(logs: &[f64], alpha: f64, effect: f64) -> Option<f64> {
    let test = hodges_lehmann(logs, 1.0 - 2.0 * alpha)?;
    let short = hodges_lehmann(logs, 0.90)?;
    let reach = (test.centre - test.low).max(effect);
    finite((reach + short.high - short.centre).exp_m1())
}

/// Two series that are not paired: exact intervals of both medians must lie apart by more than
/// the drift allowed between two runs.
fn unpaired(
    base: &Metric,
    head: &Metric,
    b: &Side,
    h: &Side,
    rule: &MetricRule,
    policy: &Policy,
    alpha: f64,
) -> Judged {
    let drift = if rule.kind == Kind::Time {
        policy.drift
    } else {
        Percent::from_fraction(0.0)
    };
    let mut evidence = Evidence::none();
    evidence.alpha = Some(alpha);
    let ends = |metric: &Metric, confidence: f64| -> Option<(f64, f64)> {
        let mut values: Vec<f64> = metric.samples.iter().map(|s| s.value).collect();
        values.sort_by(f64::total_cmp);
        let (k, _) = median_interval(values.len(), confidence)?;
        Some((values[k - 1], values[values.len() - k]))
    };
    // Each side may be wrong with half the error, so both together keep the level.
    let (Some(bt), Some(ht), Some(bp), Some(hp)) = (
        ends(base, 1.0 - alpha),
        ends(head, 1.0 - alpha),
        ends(base, policy.pass_confidence),
        ends(head, policy.pass_confidence),
    ) else {
        evidence.low = finite(h.low / b.high - 1.0);
        evidence.high = finite(h.high / b.low - 1.0);
        let needed = pairs_for(alpha / 2.0, policy.min_pairs);
        let reason = format!(
            "{} and {} runs cannot decide: {needed} a side are needed",
            b.runs, h.runs
        );
        return Judged {
            verdict: Verdict::Inconclusive,
            evidence,
            reason,
        };
    };
    evidence.low = finite(hp.0 / bp.1 - 1.0);
    evidence.high = finite(hp.1 / bp.0 - 1.0);
    // Turned so that larger is worse: (low, median, high) of from and to, for test and pass.
    let turn = |lower: f64, higher: f64| match base.better {
        Better::Lower => lower,
        Better::Higher => higher,
    };
    let surely_worse = turn(ht.0 / bt.1, bt.0 / ht.1);
    let surely_better = turn(bt.0 / ht.1, ht.0 / bt.1);
    let worst = turn(hp.1 / bp.0, bp.1 / hp.0);
    let ratio = turn(h.median / b.median, b.median / h.median);
    let grown = turn(h.median - b.median, b.median - h.median);
    let enough = rule.min_change.0 as f64;
    let apart = 1.0 + drift.fraction();
    let effect = (1.0 + rule.min_effect.fraction()) * apart;
    let bound = (1.0 + rule.limit.fraction()) * apart;
    let limit = Percent::from_fraction(bound - 1.0);
    evidence.could_show = finite(effect.max(bt.1 / bt.0 * ht.1 / ht.0 * apart) - 1.0);
    let (verdict, reason) = if surely_worse > apart && ratio >= effect && grown >= enough {
        (
            Verdict::Regression,
            format!("separate runs lie apart by more than the drift of {drift} allowed"),
        )
    } else if surely_better > apart && ratio <= 1.0 / effect && -grown >= enough {
        (
            Verdict::Improvement,
            format!("better by more than the drift of {drift} allowed"),
        )
    } else if worst < bound || (worst - 1.0) * b.median < enough {
        (
            Verdict::Pass,
            format!("shown to be below {limit}, the limit with the drift allowed"),
        )
    } else {
        (
            Verdict::Inconclusive,
            format!("neither shown to be worse nor shown to be below {limit}"),
        )
    };
    Judged {
        verdict,
        evidence,
        reason,
    }
}

/// Whether a control moved: both ways, by an exact test and a smallest movement. `alpha` is the
/// two-sided level of this one test.
pub(crate) fn control(
    by: Rule,
    base: &Metric,
    head: &Metric,
    rule: &MetricRule,
    policy: &Policy,
    alpha: f64,
) -> Judged {
    let least = policy.controls.min_effect;
    let control_rule = MetricRule {
        min_effect: if least < rule.limit {
            least
        } else {
            rule.limit
        },
        ..rule.clone()
    };
    let mut judged = apply(by, base, head, &control_rule, policy, alpha / 2.0);
    let (verdict, reason) = match judged.verdict {
        Verdict::Regression | Verdict::Improvement => (
            Verdict::Contaminated,
            format!("the control moved by {least} or more: {}", judged.reason),
        ),
        Verdict::Pass => (Verdict::Pass, "machine steady".to_string()),
        // Not shown to have moved, with enough pairs to have seen it.
        Verdict::Inconclusive if judged.evidence.p.is_some() => {
            (Verdict::Pass, "not shown to have moved".to_string())
        }
        other => (other, judged.reason.clone()),
    };
    judged.verdict = verdict;
    judged.reason = reason;
    judged
}
