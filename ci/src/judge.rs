//! Owns the judging of whole result sets: pairs cells, spreads the error level over all tests,
//! applies the rules, then lets controls, acceptances and quarantine have their word.

use crate::cell::{Pairing, cell_id, control_label, pair_up};
use crate::policy::{Kind, MetricRule, Policy, Quarantine, matches};
use crate::report::GateReport;
use crate::rules::{self, Judged, Plan, Setting};
use crate::verdict::{Evidence, Mode, Row, Rule, Verdict};
use heaplab_reports::schema::{Better, Cell, Machine, Metric, ResultSet, Status};
use heaplab_reports::shell;
use std::collections::BTreeSet;

/// Name of the entry in `machine.details` that identifies the CI job in which a result set was
/// measured. Times of two result sets are compared only where it and the host agree.
pub const JOB_DETAIL: &str = "job";

/// Judges `head` against `base`, two result sets. Cells belong together by id and workload hash.
///
/// [`Mode::SameJob`] says that block n of one set ran next to block n of the other; with
/// [`Mode::Stored`] nothing is paired and times are compared only where host and job agree.
/// Controls are the subjects named by the policy.
pub fn judge(base: &ResultSet, head: &ResultSet, policy: &Policy, mode: Mode) -> GateReport {
    let setting = setting(base, head, mode);
    let is_control = |cell: &Cell| policy.controls.subjects.contains(&cell.subject);
    let cells = |set: &'_ ResultSet, control: bool| -> Vec<(String, usize)> {
        let own = set
            .cells
            .iter()
            .enumerate()
            .filter(|(_, c)| is_control(c) == control);
        own.map(|(i, c)| (cell_id(c, Some(&c.subject), &set.machine), i))
            .collect()
    };
    let mut pairs = Vec::new();
    for control in [false, true] {
        let with = |set| {
            let list: Vec<(String, usize)> = cells(set, control);
            list.into_iter()
                .map(|(id, i)| (id, &set.cells[i]))
                .collect::<Vec<_>>()
        };
        pairs.extend(pair_up(with(base), with(head), control));
    }
    let mut bench = Bench::new(policy, mode, &setting, &head.finished);
    bench.note_unfinished("base", base);
    bench.note_unfinished("head", head);
    for name in &policy.controls.subjects {
        if !pairs
            .iter()
            .any(|p| p.control && p.subject() == Some(name.as_str()))
        {
            bench.problem(format!("control `{name}` is in neither result set"));
        }
    }
    let label = |set: &ResultSet| match &set.heaplab.commit {
        Some(commit) => format!("{} ({commit})", set.started),
        None => set.started.clone(),
    };
    bench.judge(&pairs, label(base), label(head), reproduce(head))
}

/// Judges two subjects of one result set, measured in the same blocks: `head_subject` against
/// `base_subject`. Each of `controls` is a label whose second measurement is labelled
/// [`control_label`]; other subjects are ignored.
pub fn judge_pair(
    result: &ResultSet,
    base_subject: &str,
    head_subject: &str,
    controls: &[String],
    policy: &Policy,
) -> GateReport {
    let setting = Setting {
        paired: true,
        no_times: None,
        no_memory: None,
    };
    let cells = |subject: &str, shown: Option<&str>| -> Vec<(String, &Cell)> {
        let own = result.cells.iter().filter(|c| c.subject == subject);
        own.map(|c| (cell_id(c, shown, &result.machine), c))
            .collect()
    };
    let mut bench = Bench::new(policy, Mode::SameJob, &setting, &result.finished);
    bench.note_unfinished("the run", result);
    let mut pairs = Vec::new();
    if base_subject == head_subject {
        bench.problem(format!(
            "base and head have the same label `{base_subject}`: give one another label, as in \
             --head new={head_subject}"
        ));
    } else {
        let (mut base, mut head) = (cells(base_subject, None), cells(head_subject, None));
        if let ([b], [h]) = (&mut base[..], &mut head[..])
            && b.1.api == "program"
            && h.1.api == "program"
        {
            // Two programs are the two sides: their command lines differ and belong together.
            h.0 = b.0.clone();
        }
        pairs.extend(pair_up(base, head, false));
    }
    for name in controls {
        let again = control_label(name);
        let found = pair_up(cells(name, Some(name)), cells(&again, Some(name)), true);
        if found.is_empty() {
            bench.problem(format!("control `{name}` was not run"));
        }
        pairs.extend(found);
    }
    bench.judge(
        &pairs,
        base_subject.into(),
        head_subject.into(),
        reproduce(result),
    )
}

/// The command that made `result`, with its seed: failing rows add `--only CELL` to it.
fn reproduce(result: &ResultSet) -> String {
    let line = shell::command(&result.command);
    let seeded = result
        .command
        .iter()
        .any(|w| w == "--seed" || w.starts_with("--seed="));
    if seeded || line.is_empty() {
        line
    } else {
        shell::with_option(&line, &format!("--seed {}", result.seed))
    }
}

/// What two result sets allow to compare.
fn setting(base: &ResultSet, head: &ResultSet, mode: Mode) -> Setting {
    let (b, h) = (&base.machine, &head.machine);
    let other_host = b.host_id != h.host_id || b.host_id.is_empty();
    let no_times = match mode {
        _ if other_host && b.cpu != h.cpu => {
            Some("time against a result from another CPU".to_string())
        }
        _ if other_host => Some("time against a result from another host".to_string()),
        Mode::SameJob => None,
        Mode::Stored => {
            let job = |m: &Machine| m.details.get(JOB_DETAIL).filter(|j| !j.is_empty()).cloned();
            match (job(b), job(h)) {
                (Some(b), Some(h)) if b == h => None,
                _ => Some("time against a result from another job".to_string()),
            }
        }
    };
    let no_memory = [
        ("huge-page setting", &b.thp, &h.thp),
        ("C library", &b.libc, &h.libc),
        (
            "page size",
            &b.page_size.to_string(),
            &h.page_size.to_string(),
        ),
    ]
    .into_iter()
    .find(|(_, b, h)| b != h)
    .map(|(what, b, h)| format!("memory across another {what}: {b} and {h}"));
    Setting {
        paired: mode == Mode::SameJob,
        no_times,
        no_memory,
    }
}

impl Pairing<'_> {
    fn subject(&self) -> Option<&str> {
        self.base.or(self.head).map(|c| c.subject.as_str())
    }
}

/// A pair of metrics waiting for its level.
struct Pending<'a> {
    row: usize,
    by: Rule,
    base: &'a Metric,
    head: &'a Metric,
    rule: &'a MetricRule,
    control: bool,
}

/// Entries of the policy that had an effect, by index.
#[derive(Default)]
struct Used {
    quarantine: BTreeSet<usize>,
    accept: BTreeSet<usize>,
}

/// Everything that is the same for all rows of one gate run.
struct Bench<'a> {
    policy: &'a Policy,
    mode: Mode,
    setting: &'a Setting,
    /// `YYYY-MM-DD` of the head, which decides whether a quarantine has ended.
    today: String,
    problems: Vec<String>,
    rows: Vec<Row>,
    is_control: Vec<bool>,
    /// Direction of each row's metric, for acceptances.
    better: Vec<Better>,
}

impl<'a> Bench<'a> {
    fn new(policy: &'a Policy, mode: Mode, setting: &'a Setting, finished: &str) -> Bench<'a> {
        Bench {
            policy,
            mode,
            setting,
            today: finished.chars().take(10).collect(),
            problems: Vec::new(),
            rows: Vec::new(),
            is_control: Vec::new(),
            better: Vec::new(),
        }
    }

    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    fn note_unfinished(&mut self, what: &str, set: &ResultSet) {
        if !set.complete {
            self.problem(format!(
                "{what} did not finish its plan: cells or runs are missing"
            ));
        }
    }

    fn judge<'p>(
        mut self,
        pairs: &[Pairing<'p>],
        base: String,
        head: String,
        reproduce: String,
    ) -> GateReport
    where
        'a: 'p,
    {
        let mut pending: Vec<Pending<'_>> = Vec::new();
        for pair in pairs {
            self.cell(pair, &mut pending);
        }
        let policy = self.policy;
        let statistical = |p: &&Pending<'_>| matches!(p.by, Rule::Paired | Rule::Unpaired);
        let quarantined = |p: &&Pending<'_>| self.quarantine(&self.rows[p.row]).is_some();
        // Every test that can make the gate red shares the level; quarantined rows cannot.
        let tests = pending
            .iter()
            .filter(|p| !p.control)
            .filter(statistical)
            .filter(|p| !quarantined(p))
            .count();
        let control_tests = pending
            .iter()
            .filter(|p| p.control)
            .filter(statistical)
            .count();
        let alpha = policy.alpha / tests.max(1) as f64;
        let control_alpha = policy.controls.alpha / control_tests.max(1) as f64;
        for p in pending {
            let Judged {
                verdict,
                evidence,
                reason,
            } = if p.control {
                rules::control(p.by, p.base, p.head, p.rule, policy, control_alpha)
            } else {
                rules::apply(p.by, p.base, p.head, p.rule, policy, alpha)
            };
            let row = &mut self.rows[p.row];
            row.verdict = verdict;
            row.evidence = evidence;
            row.reason = reason;
        }
        let moved = self.moved_kinds();
        let mut notes = Vec::new();
        let mut used = Used::default();
        for i in 0..self.rows.len() {
            if !self.is_control[i] {
                self.overrule(i, &moved, &mut used);
            }
        }
        self.note_unused(&used, &mut notes);
        let mut rows = Vec::new();
        let mut controls = Vec::new();
        for (row, control) in self.rows.into_iter().zip(self.is_control) {
            if control {
                controls.push(row)
            } else {
                rows.push(row)
            }
        }
        let mut report = GateReport::new(self.mode, base, head, reproduce);
        report.alpha = policy.alpha;
        report.tests = tests;
        report.rows = rows;
        report.controls = controls;
        report.problems = self.problems;
        report.notes = notes;
        report.finish(policy.max_quarantined);
        report
    }

    /// Adds the rows of one pair of cells.
    fn cell<'p>(&mut self, pair: &Pairing<'p>, pending: &mut Vec<Pending<'p>>)
    where
        'a: 'p,
    {
        let whole = |bench: &mut Bench<'a>, verdict: Verdict, reason: String| {
            bench.push(pair, "", "", None, Better::Lower, verdict, 0.0, reason);
        };
        if pair.twice {
            return whole(
                self,
                Verdict::Missing,
                "the cell is there more than once".into(),
            );
        }
        let (base, head) = match (pair.base, pair.head) {
            (Some(base), Some(head)) => (base, head),
            (Some(_), None) => return whole(self, Verdict::Missing, "head lacks the cell".into()),
            (None, _) if self.mode == Mode::Stored => {
                let reason = "the base lacks this cell, it is new: store a new base".into();
                return whole(self, Verdict::NotCompared, reason);
            }
            (None, _) => return whole(self, Verdict::Missing, "base lacks the cell".into()),
        };
        for (side, cell) in [("base", base), ("head", head)] {
            if cell.status != Status::Ok {
                let what = if cell.status == Status::Failed {
                    "failed"
                } else {
                    "was skipped"
                };
                let why = cell.reason.as_deref().unwrap_or("no reason was given");
                return whole(self, Verdict::Missing, format!("{side} {what}: {why}"));
            }
        }
        // Of two programs in one job the difference is the question.
        let programs = self.setting.paired && base.api == "program" && head.api == "program";
        if base.workload_hash != head.workload_hash && !programs {
            let short = |c: &Cell| c.workload_hash.chars().take(12).collect::<String>();
            let (b, h) = (short(base), short(head));
            let reason = format!("the workload is another one: hash {b} in base, {h} in head");
            return whole(self, Verdict::Missing, reason);
        }
        let before = self.rows.len();
        let policy = self.policy;
        for (name, rule) in policy.metrics.iter().filter(|(_, rule)| rule.gate) {
            self.metric(pair, name, rule, (base, head), pending);
        }
        if self.rows.len() == before {
            let reason = "neither side has a metric that the policy judges".to_string();
            whole(self, Verdict::Missing, reason);
        }
    }

    fn metric<'p>(
        &mut self,
        pair: &Pairing<'p>,
        name: &str,
        rule: &'a MetricRule,
        (base, head): (&'p Cell, &'p Cell),
        pending: &mut Vec<Pending<'p>>,
    ) where
        'a: 'p,
    {
        use Verdict::{Missing, NotCompared};
        let settled = |verdict, reason: &str| Plan::Settled(verdict, reason.to_string());
        let (b, h) = (base.metrics.get(name), head.metrics.get(name));
        let plan = match (b, h) {
            (None, None) if !rule.required => return,
            (None, None) => settled(Missing, "neither side has this required metric"),
            (Some(_), None) => settled(Missing, "head lacks this metric"),
            (None, Some(_)) if self.mode == Mode::Stored => settled(
                NotCompared,
                "the base lacks this metric, it is new: store a new base",
            ),
            (None, Some(_)) => settled(Missing, "base lacks this metric"),
            (Some(_), Some(_)) if base.cpus != head.cpus && rule.kind != Kind::Exact => {
                let reason = format!("measured with {} CPUs and {}", base.cpus, head.cpus);
                Plan::Settled(NotCompared, reason)
            }
            (Some(b), Some(h)) => rules::plan(b, h, rule, self.setting, self.policy),
        };
        let (verdict, reason) = match (plan, b, h) {
            (Plan::Settled(verdict, reason), ..) => (verdict, reason),
            (Plan::By(by), Some(base), Some(head)) => {
                let row = self.rows.len();
                pending.push(Pending {
                    row,
                    by,
                    base,
                    head,
                    rule,
                    control: pair.control,
                });
                (Verdict::Inconclusive, String::new())
            }
            (Plan::By(_), ..) => (Missing, "one side lacks this metric".to_string()),
        };
        let (unit, better) = h
            .or(b)
            .map_or(("", Better::Lower), |m| (m.unit.as_str(), m.better));
        let (kind, limit) = (Some(rule.kind), rule.limit.fraction());
        self.push(pair, name, unit, kind, better, verdict, limit, reason);
    }

    #[allow(clippy::too_many_arguments)] // One row has that many fields; a builder would repeat them.
    fn push(
        &mut self,
        pair: &Pairing<'_>,
        metric: &str,
        unit: &str,
        kind: Option<Kind>,
        better: Better,
        verdict: Verdict,
        limit: f64,
        reason: String,
    ) {
        self.rows.push(Row {
            cell: pair.id.clone(),
            metric: metric.to_string(),
            unit: unit.to_string(),
            kind,
            verdict,
            would_be: None,
            evidence: Evidence::none(),
            limit,
            reason,
        });
        self.is_control.push(pair.control);
        self.better.push(better);
    }

    /// Kinds of figures in which a control moved.
    fn moved_kinds(&self) -> BTreeSet<Kind> {
        let controls = self
            .rows
            .iter()
            .zip(&self.is_control)
            .filter(|(_, control)| **control);
        controls
            .filter(|(row, _)| row.verdict == Verdict::Contaminated)
            .filter_map(|(row, _)| row.kind)
            .collect()
    }

    /// The quarantine in force for `row`.
    fn quarantine(&self, row: &Row) -> Option<(usize, &'a Quarantine)> {
        let policy: &'a Policy = self.policy;
        let mut entries = policy.quarantine.iter().enumerate();
        entries.find(|(_, q)| self.in_force(q) && covers(q, row))
    }

    fn in_force(&self, q: &Quarantine) -> bool {
        q.until.as_ref().is_none_or(|until| *until >= self.today)
    }

    /// Quarantine, then contamination, then acceptance; a figure that is not there stays missing,
    /// because noise explains no crash.
    fn overrule(&mut self, i: usize, moved: &BTreeSet<Kind>, used: &mut Used) {
        let found = self.quarantine(&self.rows[i]);
        let better = self.better[i];
        let policy = self.policy;
        let row = &mut self.rows[i];
        if let Some((index, _)) = found {
            used.quarantine.insert(index);
        }
        if !row.verdict.is_compared() {
            return;
        }
        let was = row.verdict;
        if let Some((_, q)) = found {
            row.verdict = Verdict::Quarantined;
            row.reason = format!(
                "{} (since {}); it would be {}",
                q.reason,
                q.date,
                was.word()
            );
        } else if row.kind.is_some_and(|kind| moved.contains(&kind)) {
            row.verdict = Verdict::Contaminated;
            row.reason = format!("a control moved; without it this would be {}", was.word());
        } else if let Some((index, a)) = policy.accept.iter().enumerate().find(|(_, a)| {
            a.metric == row.metric && matches(&a.cell, &row.cell) && was == Verdict::Regression
        }) {
            used.accept.insert(index);
            let head = row.evidence.head.unwrap_or(f64::NAN);
            let covered = match better {
                Better::Lower => head <= a.value * (1.0 + row.limit),
                Better::Higher => head * (1.0 + row.limit) >= a.value,
            };
            if !covered {
                row.reason = format!("{}; worse than the accepted {}", row.reason, a.value);
                return;
            }
            row.verdict = Verdict::Accepted;
            row.reason = a.reason.clone();
        } else {
            return;
        }
        row.would_be = Some(was);
    }

    /// Entries of the policy that have no effect are said, or they would pile up.
    fn note_unused(&self, used: &Used, notes: &mut Vec<String>) {
        for (index, q) in self.policy.quarantine.iter().enumerate() {
            let name = format!("quarantine of `{}` {}", q.cell, q.metric);
            if let Some(until) = q.until.as_ref().filter(|_| !self.in_force(q)) {
                notes.push(format!("{name} ended on {until}: remove it or renew it"));
            } else if !used.quarantine.contains(&index) {
                notes.push(format!("{name} matches no row: remove it"));
            }
        }
        for (index, a) in self.policy.accept.iter().enumerate() {
            if !used.accept.contains(&index) {
                let name = format!("acceptance of `{}` {}", a.cell, a.metric);
                notes.push(format!(
                    "{name} is not needed: remove it once the base has the change"
                ));
            }
        }
    }
}

fn covers(q: &Quarantine, row: &Row) -> bool {
    matches(&q.cell, &row.cell) && matches(&q.metric, &row.metric)
}
