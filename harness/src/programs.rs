//! Runs of the plan as whole programs under each subject.

use crate::assemble::{self, DISTURBANCE_KEY, NOT_COUNTED_KEY, OWN_KEY};
use crate::disturbance::Watch;
use crate::engine::Executor;
use crate::exec::{self, Limits};
use crate::plan::{Item, Kind};
use crate::program::{self, ProgramOptions, ProgramReport, Statistics};
use crate::recording;
use crate::service::OwnMetric;
use crate::subject::Subject;
use heaplab_worker::protocol::SubjectProof;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Makes runs of programs; each comparison is one command.
pub struct Programs<'a> {
    /// Command and arguments by subject: one for all, or one for each (a gate of two builds, variants).
    commands: &'a [Vec<OsString>],
    /// Subjects.
    subjects: &'a [Subject],
    /// Time limit, output, server.
    options: ProgramOptions,
    /// What subjects say of themselves, by the object that malloc is bound to.
    described: HashMap<String, SubjectProof>,
    /// Subjects whose own statistics were asked for, as often as that is done: once.
    asked: HashSet<usize>,
}

/// A program that runs longer is not run once more for statistics.
const ASK_WITHIN: Duration = Duration::from_secs(60);

impl<'a> Programs<'a> {
    /// For one program or one build of it for each subject.
    pub fn new(
        commands: &'a [Vec<OsString>],
        subjects: &'a [Subject],
        options: ProgramOptions,
    ) -> Self {
        Self {
            commands,
            subjects,
            options,
            described: HashMap::new(),
            asked: HashSet::new(),
        }
    }

    /// Version and settings as the subject itself tells them, in a worker of its own: the program is not asked.
    fn describe(&mut self, subject: &Subject, report: &ProgramReport) -> SubjectProof {
        let object = &report.malloc_object;
        let key = format!("{}\0{object}", subject.label);
        if let Some(known) = self.described.get(&key) {
            return known.clone();
        }
        let name = Path::new(object).file_name().map_or_else(
            || object.clone(),
            |name| name.to_string_lossy().into_owned(),
        );
        let of_libc = name.starts_with("libc.so") || name.starts_with("libc-");
        let mut proof = if subject.is_variant() && !object.starts_with('/') {
            SubjectProof::default()
        } else {
            // Without a library of ours the program may bring one: redis-server on Debian is linked to jemalloc.
            let asked = Subject {
                library: subject
                    .library
                    .clone()
                    .or_else(|| (!of_libc).then(|| object.into())),
                ..subject.clone()
            };
            exec::describe(&asked, &self.options.limits).unwrap_or_default()
        };
        proof.malloc_object = object.clone();
        proof.statistics = None;
        if subject.library.is_none() && !of_libc {
            let version = proof.version.take().unwrap_or_default();
            proof.version = Some(format!("{name} {version}").trim_end().to_owned());
        }
        self.described.insert(key, proof.clone());
        proof
    }
}

impl Programs<'_> {
    /// The allocator's own statistics at the program's peak and end, from a run that is made for them: what asks has a thread
    /// in the program. A run that fails takes nothing away from those that are measured.
    fn ask(&mut self, subject: usize, report: &ProgramReport) -> Option<Statistics> {
        let took = Duration::from_nanos(report.wall_ns);
        if !self.asked.insert(subject) || took > ASK_WITHIN {
            return None;
        }
        let options = ProgramOptions {
            ask: true,
            limits: Limits {
                timeout: (took * 5 + Duration::from_secs(10)).min(self.options.limits.timeout),
                ..self.options.limits.clone()
            },
            metrics: Vec::new(),
            ..self.options.clone()
        };
        let command = self.commands.get(subject).unwrap_or(&self.commands[0]);
        program::run_program(&self.subjects[subject], command, &options)
            .ok()?
            .statistics
    }
}

impl Executor for Programs<'_> {
    fn run(&mut self, item: &Item) -> Result<Value, String> {
        let command = self.commands.get(item.subject).unwrap_or(&self.commands[0]);
        let subject = &self.subjects[item.subject];
        if item.kind == Kind::Counts {
            let service = self.options.service.clone();
            let calls = recording::asked(subject, command, service, false);
            return match calls {
                Ok(calls) if calls.events > 0 || !subject.is_variant() => Ok(json!({
                    "allocations": calls.allocations,
                    "bytes_allocated": calls.bytes_allocated,
                    "peak_live_bytes": calls.peak_live_bytes,
                })),
                // An allocator that is linked in is reached by no other way; the times of the build stand all the same.
                Ok(_) => Ok(json!({NOT_COUNTED_KEY: "its allocator is linked in"})),
                Err(why) if subject.is_variant() => Ok(json!({NOT_COUNTED_KEY: why})),
                Err(why) => Err(why),
            };
        }
        // Only marked: to run a program once more takes as long again, and a load may have changed what it works on.
        let watch = Watch::new();
        let mut report = program::run_program(subject, command, &self.options)
            .map_err(|failure| failure.reason)?;
        let disturbance = (watch.end()).map(|found| found.with_held_up(report.held_up));
        let proof = self.describe(subject, &report);
        report.statistics = self.ask(item.subject, &report);
        let mut answer = answer(&report, &proof, &self.options.metrics)?;
        if let Some(disturbance) = disturbance {
            answer[DISTURBANCE_KEY] = json!(disturbance);
        }
        Ok(answer)
    }

    fn calibrate(&mut self, _: usize) -> Option<Result<Value, String>> {
        None
    }

    fn figure(&self, _: usize, kind: Kind, answer: &Value) -> Option<f64> {
        assemble::figure(kind, 0, answer)
    }
}

/// The report with times in seconds beside it, under the names of the metrics.
fn answer(
    report: &ProgramReport,
    proof: &SubjectProof,
    metrics: &[OwnMetric],
) -> Result<Value, String> {
    let kept = |e: serde_json::Error| format!("the answer cannot be kept: {e}");
    let mut answer = serde_json::to_value(report).map_err(kept)?;
    for (name, ns) in [
        ("wall_s", Some(report.wall_ns)),
        ("user_s", Some(report.user_ns)),
        ("sys_s", Some(report.sys_ns)),
        ("ready_s", report.ready_ns),
        ("load_s", report.load_ns),
    ] {
        if let Some(ns) = ns {
            answer[name] = json!(ns as f64 / 1e9);
        }
    }
    for (name, value) in [
        ("allocator_cpu_share", report.allocator_share()),
        ("allocator_cpu_s", report.allocator_s()),
    ] {
        if let Some(value) = value {
            answer[name] = json!(value);
        }
    }
    let own: Vec<Value> = metrics
        .iter()
        .filter_map(|metric| {
            let value = report.own.get(&metric.name)?;
            Some(json!({
                "name": metric.name, "unit": metric.unit, "better": metric.better, "value": value
            }))
        })
        .collect();
    answer[OWN_KEY] = Value::Array(own);
    answer["subject"] = serde_json::to_value(proof).map_err(kept)?;
    Ok(answer)
}
