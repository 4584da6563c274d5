//! Runs one worker process: spawned with an allow-listed environment, watched, killed when it takes too long, its answer
//! read and checked.

mod child;
pub(crate) mod descendants;
mod machine;

use crate::embed::{self, Embedded};
use crate::subject::Subject;
use child::Watched;
use heaplab_reports::{shell, units};
use heaplab_script::file::Script;
use heaplab_worker::protocol::{Answer, Report, RunSpec, SubjectProof};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use child::signal_name;
pub(crate) use child::{Ended, collect, kill_group, run_child, tail};
pub(crate) use machine::Limit;

/// Bounds of a run.
#[derive(Clone, Debug)]
pub struct Limits {
    /// After this the worker is killed.
    pub timeout: Duration,
    /// Set from outside: the worker is killed at once.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Limits {
    /// Only a time limit.
    pub fn seconds(seconds: u64) -> Self {
        Self {
            timeout: Duration::from_secs(seconds),
            cancel: None,
        }
    }
}

/// Why there is no result: a sentence for the failed row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RunFailure {
    /// One lower-case sentence.
    pub reason: String,
    /// The run was ended from outside and says nothing about the subject.
    pub cancelled: bool,
}

impl RunFailure {
    /// A failure of the subject or of the run.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            cancelled: false,
        }
    }
}

/// Variables that a worker gets from our environment. Everything else stays out: a stray MALLOC_ or LD_ variable would
/// change what is measured without a trace.
const ALLOWED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LANG"];

/// Replays a script under a subject.
///
/// # Errors
/// The reason for a failed row: the subject crashed, hung, broke a rule, or was not in force.
pub fn run_worker(
    subject: &Subject,
    spec: &RunSpec,
    limits: &Limits,
) -> Result<Report, RunFailure> {
    run_wrapped(subject, spec, limits, &[])
}

/// Asks a subject for its version and settings, in a process of its own.
///
/// # Errors
/// When the subject does not get as far as answering.
pub fn describe(subject: &Subject, limits: &Limits) -> Result<SubjectProof, RunFailure> {
    let ended = start(subject, &["--describe"], limits)?;
    let line = last_line(&ended.stdout);
    match serde_json::from_str::<SubjectProof>(line) {
        Ok(proof) => {
            prove(subject.library.as_deref(), &proof)?;
            Ok(proof)
        }
        Err(_) => Err(failure(&ended)),
    }
}

/// Anonymous bytes of a worker with `threads` threads and no library. At fixed addresses: at random ones the loader has a page more
/// once in a hundred times.
pub(crate) fn baseline(threads: u32, limits: &Limits) -> Result<u64, RunFailure> {
    let worker = worker()?;
    let mut command = Command::new(&worker);
    command.args(["--enter", "addresses=fixed", "--"]);
    command.arg(&worker);
    command.args(["--baseline", &threads.to_string()]);
    environment(&mut command);
    let ended = run_child(command, limits)?;
    last_line(&ended.stdout)
        .parse()
        .map_err(|_| failure(&ended))
}

/// The command that [`run_worker`] starts, for a shell (`--print-command`).
///
/// # Errors
/// When the worker cannot be written to the cache.
pub fn worker_command(subject: &Subject, spec: &RunSpec) -> Result<String, RunFailure> {
    let mut words = vec!["env".to_owned(), "-i".to_owned()];
    for name in ALLOWED {
        if let Ok(value) = std::env::var(name) {
            words.push(format!("{name}={value}"));
        }
    }
    let limit = Limit::to_type(&spec.machine);
    words.extend(worker_words(subject, spec, &limit, &[])?);
    Ok(shell::command(&words))
}

/// The words that start a worker: variables, a change of the machine, a tool around it, the worker and its task.
fn worker_words(
    subject: &Subject,
    spec: &RunSpec,
    limit: &Limit,
    wrapper: &[String],
) -> Result<Vec<String>, RunFailure> {
    let spec = complete(subject, spec);
    let text = serde_json::to_string(&spec).map_err(|error| RunFailure::new(error.to_string()))?;
    let worker = worker()?.display().to_string();
    let settings = machine::settings(subject, &spec, limit)?;
    let mut variables = injected(subject);
    for (name, value) in settings.variables {
        variables.retain(|(known, _)| *known != name);
        variables.push((name, value));
    }
    let mut words = vec![worker.clone(), "--enter".to_owned()];
    words.extend(settings.enter);
    words.extend((variables.iter()).map(|(name, value)| format!("env:{name}={value}")));
    words.push("--".to_owned());
    words.extend_from_slice(wrapper);
    words.extend([worker, text]);
    Ok(words)
}

/// As [`run_worker`], with words before the worker's path: a tool such as valgrind that runs it.
///
/// # Errors
/// As [`run_worker`].
pub fn run_wrapped(
    subject: &Subject,
    spec: &RunSpec,
    limits: &Limits,
    wrapper: &[String],
) -> Result<Report, RunFailure> {
    let limit = Limit::new(&spec.machine);
    let words = worker_words(subject, spec, &limit, wrapper)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    environment(&mut command);
    let ended = run_child(command, limits)?;
    let mut report = answer(&ended).map_err(|failure| match limit.has_killed() {
        true => beyond_limit(spec),
        false => failure,
    })?;
    prove(subject.library.as_deref(), &report.subject)?;
    report.memory_limit_by = limit.name().map(str::to_owned);
    Ok(report)
}

/// The limit was too low, whatever the subject is.
fn beyond_limit(spec: &RunSpec) -> RunFailure {
    let limit = units::bytes(spec.machine.memory_limit as f64);
    let alive =
        Script::open_windowed(&spec.script).map_or(0, |script| script.info().peak_live_bytes);
    RunFailure::new(format!(
        "ended by the kernel at the memory limit of {limit}; the workload has up to {} alive",
        units::bytes(alive as f64)
    ))
}

/// Fills in what follows from the subject.
fn complete(subject: &Subject, spec: &RunSpec) -> RunSpec {
    let null = subject.name == "null";
    RunSpec {
        expect_library: subject.library.clone(),
        null,
        integrity: spec.integrity && !null,
        ..spec.clone()
    }
}

fn worker() -> Result<std::path::PathBuf, RunFailure> {
    embed::path(Embedded::Worker).map_err(|error| RunFailure::new(error.to_string()))
}

/// What puts a subject into force.
pub(crate) fn injected(subject: &Subject) -> Vec<(String, String)> {
    let library = subject
        .library
        .as_ref()
        .map(|path| ("LD_PRELOAD".to_owned(), path.display().to_string()));
    library
        .into_iter()
        .chain(subject.env.iter().cloned())
        .collect()
}

fn environment(command: &mut Command) {
    command.env_clear();
    for name in ALLOWED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

fn start(subject: &Subject, arguments: &[&str], limits: &Limits) -> Result<Ended, RunFailure> {
    let mut command = Command::new(worker()?);
    command.args(arguments);
    environment(&mut command);
    command.envs(injected(subject));
    run_child(command, limits)
}

/// Reads the worker's last line.
fn answer(ended: &Ended) -> Result<Report, RunFailure> {
    match serde_json::from_str::<Answer>(last_line(&ended.stdout)) {
        Ok(Answer::Ok(report)) if ended.success() => Ok(*report),
        Ok(Answer::Failed { reason }) => Err(RunFailure::new(reason)),
        // A subject that dies at the process's end, after the answer, is broken all the same.
        _ => Err(failure(ended)),
    }
}

/// How a child ended that left no report.
pub(crate) fn failure_of(ended: &Ended) -> RunFailure {
    failure(ended)
}

/// How the worker ended, when it gave no answer.
fn failure(ended: &Ended) -> RunFailure {
    let said = tail(&ended.stderr);
    let said = if said.is_empty() {
        String::new()
    } else {
        format!("; its last words: {said}")
    };
    let how = match ended.watched {
        Watched::Cancelled => {
            return RunFailure {
                reason: "the run was interrupted".into(),
                cancelled: true,
            };
        }
        Watched::TimedOut(limit) => {
            format!("hung: killed after {} s (--timeout)", limit.as_secs_f64())
        }
        Watched::Exited {
            signal: Some(signal),
            ..
        } => format!("killed by {}", signal_name(signal)),
        Watched::Exited { code, .. } => {
            format!(
                "the worker gave no answer (exit status {})",
                code.unwrap_or_default()
            )
        }
    };
    RunFailure::new(format!("{how}{said}"))
}

/// The library that should be in force is the one that malloc lies in.
fn prove(library: Option<&Path>, proof: &SubjectProof) -> Result<(), RunFailure> {
    let object = Path::new(&proof.malloc_object);
    let right = match library {
        Some(library) => match (library.canonicalize(), object.canonicalize()) {
            (Ok(library), Ok(object)) => library == object,
            _ => library == object,
        },
        None => object
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("libc.so")),
    };
    if right {
        return Ok(());
    }
    let wanted = library.map_or_else(
        || "the C library".to_owned(),
        |path| path.display().to_string(),
    );
    Err(RunFailure::new(format!(
        "malloc comes from {}, not from {wanted}",
        proof.malloc_object
    )))
}

fn last_line(text: &str) -> &str {
    text.trim_end().rsplit('\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_worker_is_small() {
        let bytes = baseline(4, &Limits::seconds(60)).unwrap();
        assert!(bytes > 0 && bytes < 1 << 20, "{bytes}");
    }

    #[test]
    fn built_in_subjects_say_who_they_are() {
        for subject in
            crate::subject::parse("system,jemalloc,mimalloc,mimalloc-v3,spanalloc,null").unwrap()
        {
            let proof = describe(&subject, &Limits::seconds(60)).unwrap();
            assert!(proof.version.is_some(), "{proof:?}");
        }
        let subject = crate::subject::parse("jemalloc:dirty_decay_ms=77")
            .unwrap()
            .remove(0);
        let proof = describe(&subject, &Limits::seconds(60)).unwrap();
        assert_eq!(proof.settings["dirty_decay_ms"], "77");
        for (spec, key, value) in [
            ("mimalloc:purge_delay=77", "purge_delay", "77"),
            ("mimalloc-v3:purge_delay=77", "purge_delay", "77"),
            ("mimalloc-v3:page_full_retain=5", "page_full_retain", "5"),
            ("system:arena_max=3", "glibc.malloc.arena_max", "3"),
        ] {
            let subject = crate::subject::parse(spec).unwrap().remove(0);
            let proof = describe(&subject, &Limits::seconds(60)).unwrap();
            assert_eq!(proof.settings[key], value, "{spec}");
        }
        let versions = ["mimalloc", "mimalloc-v3"].map(|name| {
            let subject = crate::subject::parse(name).unwrap().remove(0);
            let proof = describe(&subject, &Limits::seconds(60)).unwrap();
            proof.version.unwrap()
        });
        assert!(
            versions[0].starts_with("2.") && versions[1].starts_with("3."),
            "{versions:?}"
        );
    }
}
