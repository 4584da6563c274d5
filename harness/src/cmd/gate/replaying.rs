//! What a gate measures by replays: the workloads of a suite or those that are named, under some subjects, as one campaign.

use crate::campaign::{Campaign, Finished};
use crate::cli::options::WorkloadArgs;
use crate::cmd::commands;
use crate::cmd::run::keep_only;
use crate::engine::Repetition;
use crate::error::{Error, Outcome};
use crate::exec::Limits;
use crate::out::Terminal;
use crate::plan::{Comparison, Kind};
use crate::replays::Replays;
use crate::session::{Session, Start};
use crate::subject::{self, Subject};
use crate::tails::Tails;
use crate::tools::VALGRIND;
use crate::{interrupt, readback, workload};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Where no workloads are named.
pub const SUITE: &str = "gate";

/// What is measured, and where it is kept.
pub struct Replaying<'a> {
    /// Names of workloads; empty: the suite.
    pub workloads: &'a [String],
    /// A named set of workloads.
    pub suite: &'a str,
    /// Parameters of the workloads.
    pub parameters: &'a WorkloadArgs,
    /// Measures.
    pub kinds: &'a [Kind],
    /// Only this cell.
    pub only: Option<&'a str>,
    /// How often.
    pub repetition: Repetition,
    /// Blocks that a budget always buys.
    pub least_blocks: u32,
    /// When a run counts as hanging.
    pub timeout: Duration,
    /// Folder of the result set; `None`: one of its own, with `name` in its name.
    pub out: Option<&'a Path>,
    /// What the result set is called.
    pub name: &'a str,
    /// Write report.html, charts and summary.md.
    pub report: bool,
}

impl Replaying<'_> {
    fn comparisons(&self, seed: u64, terminal: &Terminal) -> Result<Vec<Comparison>, Error> {
        let all = workload::comparisons(
            self.workloads,
            self.suite,
            self.parameters,
            seed,
            self.kinds,
            terminal,
        )?;
        keep_only(all, self.only)
    }

    /// Prints what [`Replaying::go`] would start.
    ///
    /// # Errors
    /// As there.
    pub fn commands(
        &self,
        seed: u64,
        subjects: &[Subject],
        terminal: &Terminal,
    ) -> Result<Outcome, Error> {
        let shape = |kind| workload::shape(self.parameters, kind);
        commands::replays(&self.comparisons(seed, terminal)?, subjects, &shape)
    }

    /// Measures `subjects` and stores the result set.
    ///
    /// # Errors
    /// Usage for unknown workloads, environment where nothing can be measured or kept.
    pub fn go(
        &self,
        start: &Start,
        subjects: &[Subject],
        terminal: &Terminal,
    ) -> Result<Finished, Error> {
        // A setting that was not taken would be judged as if it were.
        let mut notes = readback::check(subjects, &Limits::seconds(60))?;
        if self.kinds.contains(&Kind::Counts) && VALGRIND.find().is_none() {
            // The rows fail and the gate cannot pass; the remedy is said before time is spent.
            let missing = VALGRIND.missing();
            terminal.say(&format!("instructions cannot be counted: {missing}"));
            notes.push(format!("instructions could not be counted: {missing}"));
        }
        let comparisons = self.comparisons(start.seed, terminal)?;
        let shape = |kind| workload::shape(self.parameters, kind);
        let null = match self.kinds.contains(&Kind::Speed) {
            true => subject::parse("null")?.pop(),
            false => None,
        };
        let mut executor = Replays {
            comparisons: &comparisons,
            subjects,
            null,
            shape: &shape,
            limits: Limits {
                timeout: self.timeout,
                cancel: Some(interrupt::flag()),
            },
            baselines: HashMap::new(),
            random_addresses: false,
            clocks: Vec::new(),
            idle: Duration::ZERO,
            tails: Tails::default(),
        };
        let campaign = Campaign {
            session: Session::create(self.out, self.name, start)?,
            command: start.again(),
            seed: start.seed,
            started: start.started.clone(),
            done: Vec::new(),
            comparisons: &comparisons,
            subjects,
            shape: &shape,
            repetition: self.repetition,
            least_blocks: self.least_blocks,
            idle: Duration::ZERO,
            notes,
            report: self.report,
        };
        campaign.go(&mut executor, terminal)
    }
}

/// One subject; a list is refused.
///
/// # Errors
/// Usage.
pub fn one(spec: &str) -> Result<Subject, Error> {
    match <[Subject; 1]>::try_from(subject::parse(spec)?) {
        Ok([only]) => Ok(only),
        Err(_) => Err(Error::usage(format!(
            "'{spec}' names several subjects; a side of the gate is one"
        ))),
    }
}
