//! `heaplab gate self-test`: does this gate, with this policy, on this machine, say nothing where nothing changed and find what was
//! planted? Base and heads are the same library, whose settings plant what the heads are worse by.

mod shown;

use super::replaying::{Replaying, one};
use crate::cli::options::WorkloadArgs;
use crate::cli::{GateSelfTestArgs, ListFormat};
use crate::engine::Repetition;
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal};
use crate::plan::{self, Kind};
use crate::session::{self, Start};
use crate::subject::Subject;
use crate::tools::VALGRIND;
use crate::{interrupt, render};
use heaplab_ci::policy::Kind as Rule;
use heaplab_ci::{Policy, Row, Verdict, judge_pair};
use heaplab_reports::{shell, write_atomic};
use serde::Serialize;
use std::path::Path;

/// The library that is base and head.
const PLANTED: &str = "planted";
const BASE: &str = "base";
/// Where no workload is named: one whose figures have little to do with where blocks lie.
const WORKLOAD: &str = "churn";
/// Blocks of times where nothing else is said.
const BLOCKS: u32 = 24;
/// Counts and memory repeat, which two runs show.
const EXACT_BLOCKS: u32 = 2;
/// Name of the outcome in the result folder.
const FILE: &str = "self-test.json";

/// What a head is worse by.
#[derive(Clone, Debug)]
struct Plant {
    label: &'static str,
    /// In words.
    what: String,
    /// Setting of the library; `None`: nothing is planted.
    setting: Option<String>,
    expected: Expected,
}

/// What the gate must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Expected {
    /// Nothing changed: anything but red.
    NotRed,
    /// A change that repeats.
    Regression,
    /// A change of a noisy figure: a regression, or, where the machine is too noisy for these blocks, not decided; never a pass.
    NoPass,
}

impl Expected {
    fn holds(self, verdict: Verdict) -> bool {
        match self {
            Expected::NotRed => !verdict.is_red(),
            Expected::Regression => verdict == Verdict::Regression,
            Expected::NoPass => {
                matches!(verdict, Verdict::Regression | Verdict::Inconclusive)
            }
        }
    }
}

/// One kind of figure, with what is planted in it.
struct Trial {
    /// Folder of its result set.
    name: &'static str,
    kind: Kind,
    rule: Rule,
    plants: Vec<Plant>,
}

/// What the gate said of one head.
#[derive(Clone, Debug, Serialize)]
struct Said {
    planted: String,
    figures: &'static str,
    expected: Expected,
    verdict: Verdict,
    holds: bool,
    /// The row that decided.
    row: Row,
}

/// The outcome, as it is stored.
#[derive(Debug, Serialize)]
struct SelfTest {
    schema: &'static str,
    workload: String,
    seed: u64,
    blocks: u32,
    said: Vec<Said>,
    notes: Vec<String>,
}

/// Measures and tells.
///
/// # Errors
/// Wrong usage, an unreadable policy, or an environment in which nothing can be measured or kept.
pub fn run(args: &GateSelfTestArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    interrupt::install();
    let policy = super::policy(args.policy.as_deref())?;
    let start = Start::now(args.seed.unwrap_or_else(plan::draw_seed));
    let folder = session::folder(args.out.as_deref(), "gate-self-test")?;
    let workload = args.workload.as_deref().unwrap_or(WORKLOAD);
    let blocks = args.blocks.unwrap_or(BLOCKS.max(policy.min_pairs as u32));
    let mut test = SelfTest {
        schema: "heaplab.self-test/1",
        workload: workload.to_owned(),
        seed: start.seed,
        blocks,
        said: Vec::new(),
        notes: Vec::new(),
    };
    let parameters = WorkloadArgs {
        scale: args.scale,
        pace: 1.0,
        ..WorkloadArgs::default()
    };
    for trial in trials(&policy) {
        if trial.kind == Kind::Counts && VALGRIND.find().is_none() {
            test.notes
                .push(format!("counts were left out: {}", VALGRIND.missing()));
            continue;
        }
        if !judged(&policy, trial.rule) {
            test.notes.push(format!(
                "{} were left out: the policy judges none",
                trial.name
            ));
            continue;
        }
        let subjects = subjects(&trial)?;
        let repetition = match trial.kind {
            Kind::Speed => blocks,
            _ => EXACT_BLOCKS,
        };
        let finished = Replaying {
            workloads: &[workload.to_owned()],
            suite: "",
            parameters: &parameters,
            kinds: &[trial.kind],
            only: None,
            repetition: Repetition::Blocks(repetition),
            least_blocks: repetition,
            timeout: args.timeout,
            out: Some(&folder.join(trial.name)),
            name: trial.name,
            report: false,
        }
        .go(&start, &subjects, terminal)
        .inspect_err(|_| {
            // A workload that there is none of leaves nothing behind; a folder with something in it stays.
            let _ = std::fs::remove_dir(&folder);
        })?;
        if finished.outcome == Outcome::Interrupted {
            terminal.say(&format!(
                "interrupted; finished runs are in {}",
                shell::path(&folder)
            ));
            return Ok(Outcome::Interrupted);
        }
        for plant in &trial.plants {
            let report = judge_pair(&finished.result, BASE, plant.label, &[], &policy);
            let rows = report
                .rows
                .iter()
                .filter(|row| row.kind == Some(trial.rule) || row.kind.is_none());
            test.said.extend(rows.take(1).map(|row| Said {
                planted: plant.what.clone(),
                figures: trial.name,
                expected: plant.expected,
                verdict: row.verdict,
                holds: plant.expected.holds(row.verdict),
                row: row.clone(),
            }));
        }
    }
    finish(&test, &folder, args, terminal)
}

fn finish(
    test: &SelfTest,
    folder: &Path,
    args: &GateSelfTestArgs,
    terminal: &Terminal,
) -> Result<Outcome, Error> {
    let json = serde_json::to_string_pretty(test).unwrap_or_default() + "\n";
    write_atomic(&folder.join(FILE), json.as_bytes()).map_err(render::error)?;
    out::print(&match args.format {
        ListFormat::Json => json,
        ListFormat::Table => shown::table(test),
    })?;
    terminal.say(&format!("results: {}", shell::path(folder)));
    Ok(outcome(test, args.strict))
}

/// A figure that is missing is never well; a false alarm means that this machine cannot judge; what repeats and was not found is a
/// defect of the gate or a policy that lets it through.
fn outcome(test: &SelfTest, strict: bool) -> Outcome {
    let any = |is: &dyn Fn(&Said) -> bool| test.said.iter().any(is);
    if test.said.is_empty() || any(&|s| s.verdict == Verdict::Missing) {
        Outcome::Incomplete
    } else if any(&|s| !s.holds && s.expected != Expected::NotRed) {
        Outcome::Found
    } else if any(&|s| !s.holds) {
        Outcome::Contaminated
    } else if strict && any(&|s| s.verdict == Verdict::Inconclusive) {
        Outcome::Inconclusive
    } else {
        Outcome::Done
    }
}

fn judged(policy: &Policy, rule: Rule) -> bool {
    policy.metrics.values().any(|r| r.gate && r.kind == rule)
}

/// What the policy allows of a metric, percent.
fn limit(policy: &Policy, metric: &str) -> f64 {
    policy
        .rule(metric)
        .map_or(0.0, |rule| 100.0 * rule.limit.fraction())
}

/// What is planted: counts by a little, memory by much more than the policy allows (most of it is rounded), times by the limit and twice
/// the limit.
fn trials(policy: &Policy) -> [Trial; 3] {
    let nothing = || Plant {
        label: "same",
        what: "nothing".into(),
        setting: None,
        expected: Expected::NotRed,
    };
    let plant = |label, what: String, key: &str, value: f64, expected| Plant {
        label,
        what,
        setting: Some(format!("{key}={value:.0}")),
        expected,
    };
    // Two instructions a step, and a call of the smallest allocator has some fifty.
    let steps = (2.0 * limit(policy, "instructions")).ceil().max(3.0);
    let larger = (4.0 * limit(policy, "peak_resident_bytes"))
        .ceil()
        .max(10.0);
    let slower = limit(policy, "ns_per_op").ceil().max(1.0);
    let times = |label, percent: f64| {
        plant(
            label,
            format!("{percent:.0} % slower"),
            "slower",
            percent,
            Expected::NoPass,
        )
    };
    [
        Trial {
            name: "counts",
            kind: Kind::Counts,
            rule: Rule::Exact,
            plants: vec![
                nothing(),
                plant(
                    "steps",
                    format!("{:.0} instructions a call", 2.0 * steps),
                    "steps",
                    steps,
                    Expected::Regression,
                ),
            ],
        },
        Trial {
            name: "memory",
            kind: Kind::Memory,
            rule: Rule::Memory,
            plants: vec![
                nothing(),
                plant(
                    "larger",
                    format!("blocks {larger:.0} % larger"),
                    "larger",
                    larger,
                    Expected::Regression,
                ),
                plant(
                    "forgets",
                    "one free of 20 forgotten".into(),
                    "forgets",
                    20.0,
                    Expected::Regression,
                ),
            ],
        },
        Trial {
            name: "times",
            kind: Kind::Speed,
            rule: Rule::Time,
            plants: vec![
                nothing(),
                times("slower", slower),
                times("slower-still", 2.0 * slower),
            ],
        },
    ]
}

/// The base and a head for each plant.
fn subjects(trial: &Trial) -> Result<Vec<Subject>, Error> {
    let mut all = vec![one(&format!("{BASE}={PLANTED}"))?];
    for plant in &trial.plants {
        let spec = match &plant.setting {
            None => format!("{}={PLANTED}", plant.label),
            Some(setting) => format!("{}={PLANTED}:{setting}", plant.label),
        };
        all.push(one(&spec)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_exceeds_what_the_policy_allows() {
        let policy = Policy::default();
        for trial in trials(&policy) {
            assert!(judged(&policy, trial.rule), "{}", trial.name);
            assert_eq!(trial.plants[0].expected, Expected::NotRed);
            assert!(trial.plants.len() > 1, "{}", trial.name);
            let subjects = subjects(&trial).unwrap();
            assert_eq!(subjects.len(), trial.plants.len() + 1);
            // The same library on both sides: only what is planted differs.
            assert!(subjects.iter().all(|s| s.library == subjects[0].library));
            assert_eq!(subjects[0].env, subjects[1].env);
            assert_ne!(subjects[1].env, subjects[2].env);
        }
    }

    #[test]
    fn the_status_follows_the_gravest() {
        let expected = [Expected::NotRed, Expected::Regression, Expected::NoPass];
        let holds = |verdict| expected.map(|e| e.holds(verdict));
        assert_eq!(holds(Verdict::Regression), [false, true, true]);
        assert_eq!(holds(Verdict::Pass), [true, false, false]);
        assert_eq!(holds(Verdict::Inconclusive), [true, false, true]);
        assert_eq!(holds(Verdict::Missing), [false; 3]);
        assert_eq!(holds(Verdict::Improvement), [true, false, false]);
    }
}
