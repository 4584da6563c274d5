//! Owns the outcome of a gate run as data: rows, controls, problems, counts and the exit status.

use crate::policy::Percent;
use crate::verdict::{Mode, Row, Verdict};
use serde::Serialize;
use std::cmp::Reverse;

/// The schema string of the JSON form.
const SCHEMA: &str = "heaplab.gate/1";

/// What a gate run found. Its JSON form is this structure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateReport {
    /// Always `heaplab.gate/1`.
    pub schema: &'static str,
    /// How base and head were measured.
    pub mode: Mode,
    /// What the base is, for people: a label, a commit. The caller may replace it.
    pub base: String,
    /// What the head is, for people.
    pub head: String,
    /// Seconds that the measuring took; the caller sets it.
    pub elapsed_s: Option<f64>,
    /// Level of the whole run.
    pub alpha: f64,
    /// Statistical tests that share it.
    pub tests: usize,
    /// Gated rows, the gravest first.
    pub rows: Vec<Row>,
    /// Rows of controls.
    pub controls: Vec<Row>,
    /// Why the run as a whole cannot pass, one sentence each.
    pub problems: Vec<String>,
    /// What a reader should know, one sentence each.
    pub notes: Vec<String>,
    /// The command that measured; `--only CELL` narrows it to one row. The caller may replace it.
    pub reproduce: String,
}

impl GateReport {
    /// An empty report.
    pub(crate) fn new(mode: Mode, base: String, head: String, reproduce: String) -> GateReport {
        GateReport {
            schema: SCHEMA,
            mode,
            base,
            head,
            elapsed_s: None,
            alpha: 0.0,
            tests: 0,
            rows: Vec::new(),
            controls: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            reproduce,
        }
    }

    /// Sorts rows, the gravest and largest first, and adds what follows from all of them.
    pub(crate) fn finish(&mut self, max_quarantined: Percent) {
        // Change beyond the limit in thousandths of a percent: a total order without floats.
        let size = |row: &Row| {
            let change = row.evidence.change.map_or(f64::INFINITY, f64::abs);
            (change.min(1e9) * 1e5) as i64
        };
        for rows in [&mut self.rows, &mut self.controls] {
            rows.sort_by_cached_key(|r| {
                (
                    Reverse(r.verdict),
                    Reverse(size(r)),
                    r.cell.clone(),
                    r.metric.clone(),
                )
            });
        }
        if !self.rows.iter().any(|r| r.verdict.is_compared()) {
            self.problems
                .push("nothing was compared: this is no pass".into());
        }
        let quarantined = self.count(Verdict::Quarantined) as f64;
        if quarantined > max_quarantined.fraction() * self.rows.len() as f64 {
            let n = self.rows.len();
            self.notes.push(format!(
                "{quarantined} of {n} rows are quarantined, more than {max_quarantined}: the gate \
                 has holes"
            ));
        }
    }

    /// Rows with this verdict (controls not counted).
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|r| r.verdict == verdict).count()
    }

    /// Rows that make the gate red, the gravest first, controls last.
    pub fn red_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .chain(&self.controls)
            .filter(|r| r.verdict.is_red())
    }

    /// The exit status of the contract: 0 nothing wrong, 1 regression, 4 something is missing or
    /// nothing was compared, 6 a control moved, 5 (only with `strict`) something is inconclusive.
    ///
    /// A regression is proved by figures that no control casts doubt on, so it comes first; what
    /// is missing comes before a moved control, because measuring again does not cure it.
    pub fn exit_status(&self, strict: bool) -> u8 {
        let any =
            |v: Verdict| self.count(v) > 0 || self.controls.iter().any(|row| row.verdict == v);
        if self.count(Verdict::Regression) > 0 {
            1
        } else if any(Verdict::Missing) || !self.problems.is_empty() {
            4
        } else if any(Verdict::Contaminated) {
            6
        } else if strict && any(Verdict::Inconclusive) {
            5
        } else {
            0
        }
    }

    /// The outcome in a word or two.
    pub fn headline(&self, strict: bool) -> &'static str {
        let decided = [Verdict::Pass, Verdict::Improvement, Verdict::Accepted];
        match self.exit_status(strict) {
            1 => "FAIL",
            4 => "INCOMPLETE",
            6 => "NO VERDICT",
            5 => "INCONCLUSIVE",
            // Not red without --strict, but nothing was shown to be well either.
            _ if !decided.iter().any(|v| self.count(*v) > 0) => "INCONCLUSIVE",
            _ => "PASS",
        }
    }
}
