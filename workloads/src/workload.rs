//! The door to everything here: a name or a path becomes a workload, a workload becomes a cached script.

use crate::builtin;
use crate::cached;
use crate::compile::{self, Progress};
use crate::error::WorkloadError;
use crate::expected::{self, Expected};
use crate::model::definition::Category;
use crate::model::{Model, ModelParams};
use crate::trace::{ProcessCounts, Trace, TraceSource};
use heaplab_script::{Script, ScriptInfo};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Something that can be replayed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Workload {
    /// Drawn from a seed.
    Model(Box<Model>),
    /// Recorded or imported.
    Trace(Box<TraceWorkload>),
}

/// A trace as a workload.
#[derive(Debug)]
pub struct TraceWorkload {
    name: String,
    trace: Trace,
    content: Content,
    /// The process that is replayed, of several.
    process: Option<u32>,
    /// It was named, not taken as the busiest.
    named: bool,
}

#[derive(Debug)]
enum Content {
    File(PathBuf),
    Embedded(&'static [u8]),
}

impl TraceWorkload {
    /// The trace itself.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The process that is replayed where the trace has several, and whether it was named (else it is the busiest).
    pub fn process(&self) -> Option<(&ProcessCounts, bool)> {
        let process = self.trace.processes().get(self.process? as usize)?;
        Some((process, self.named))
    }

    /// What a replay of the whole trace would do, without its idle time.
    ///
    /// # Errors
    /// None for a trace that was opened; the type is that of parts of traces.
    pub fn source(&self) -> Result<TraceSource<'_>, WorkloadError> {
        Ok(TraceSource::new(&self.trace, 1.0, 0)?.of_process(self.process))
    }

    /// `word` names a process of the trace.
    fn open(path: &Path, word: Option<&str>) -> Result<Self, WorkloadError> {
        let trace = Trace::open(path)?;
        let mut name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let process = match word {
            None => trace.busiest_process(),
            Some(word) => {
                name = format!("{name}#{word}");
                let found = trace.find_process(word).and_then(|process| {
                    let idle = trace.processes()[process as usize].events == 0;
                    let reason = "it makes no call in this trace".to_string();
                    if idle { Err(reason) } else { Ok(process) }
                });
                Some(found.map_err(|reason| {
                    WorkloadError::Parameters(format!(
                        "'{}#{word}' cannot be chosen: {reason}; `heaplab trace info` lists the processes of a trace",
                        path.display()
                    ))
                })?)
            }
        };
        Ok(Self {
            name,
            trace,
            content: Content::File(path.to_path_buf()),
            process,
            named: word.is_some(),
        })
    }

    fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, WorkloadError> {
        let trace = Trace::embedded(name, bytes)?;
        Ok(Self {
            name: name.to_owned(),
            process: trace.busiest_process(),
            named: false,
            trace,
            content: Content::Embedded(bytes),
        })
    }

    /// The note that begins with "purpose: ", else what was recorded.
    fn purpose(&self) -> String {
        let noted = self
            .trace
            .notes()
            .iter()
            .find_map(|note| note.strip_prefix("purpose: "));
        match (noted, self.trace.header().argv.first()) {
            (Some(purpose), _) => purpose.to_owned(),
            (None, Some(program)) => {
                let name = Path::new(program)
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                format!("recorded from {name}")
            }
            (None, None) => "a recorded trace".to_owned(),
        }
    }

    fn hash(&self, params: &Params) -> Result<String, WorkloadError> {
        let mut hash = Sha256::new();
        match &self.content {
            Content::Embedded(bytes) => hash.update(bytes),
            Content::File(path) => {
                let failed = |source| WorkloadError::Io {
                    action: "read",
                    path: path.clone(),
                    source,
                };
                let mut file = std::fs::File::open(path).map_err(failed)?;
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let count = file.read(&mut buffer).map_err(failed)?;
                    if count == 0 {
                        break;
                    }
                    hash.update(&buffer[..count]);
                }
            }
        }
        hash.update(format!(
            "trace/{TRACE_VERSION} {:016x} {}{}",
            params.scale.to_bits(),
            params.idle_budget_ns,
            if params.times { " times" } else { "" }
        ));
        if let Some(process) = self.process {
            hash.update(format!(" process {process}"));
        }
        Ok(crate::hex(&hash.finalize()))
    }
}

/// Bytes of a model's file at most; the longest that is fitted to a recording has some ten thousand.
const MODEL_BYTES: u64 = 16 * heaplab_bounded::MIB;

/// Changes when the same trace would give another script; part of every hash.
const TRACE_VERSION: u32 = 2;

/// Model or trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Synthetic.
    Model,
    /// Recorded or imported.
    Trace,
}

/// What `list workloads` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadInfo {
    /// Name, or file name without extension.
    pub name: String,
    /// Model or trace.
    pub kind: Kind,
    /// Which sort of model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Number of threads: of a model those that run at a time (successors of threads that end not counted), of a trace
    /// all.
    pub threads: u32,
    /// Calls of the malloc family.
    pub ops: u64,
    /// Largest sum of requested bytes alive.
    pub peak_live_bytes: u64,
    /// What it is for, one line.
    pub purpose: String,
    /// What it stresses and what a change means; empty where nobody wrote it down.
    #[serde(skip)]
    pub analysis: String,
}

/// What a user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Seed (models).
    pub seed: u64,
    /// Factor on ops and live sets (models); share of the recording from its start, at most 1 (traces).
    pub scale: f64,
    /// Number of threads (models only); `None`: the workload's own.
    pub threads: Option<u32>,
    /// Idle time that a replay of a trace may keep, nanoseconds in all. Recorded gaps are shortened in proportion.
    pub idle_budget_ns: u64,
    /// Keep the time of every event, for a replay at the recorded pace; impossible for models.
    pub times: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            seed: 1,
            scale: 1.0,
            threads: None,
            idle_budget_ns: 100_000_000,
            times: false,
        }
    }
}

/// A script in the cache.
#[derive(Clone, Debug)]
pub struct CompiledScript {
    /// The file.
    pub path: PathBuf,
    /// Counts, slots, peaks.
    pub info: ScriptInfo,
    /// SHA-256 of definition and parameters (models) or of the trace and parameters: `workload_hash` of results.
    pub hash: String,
    /// It was there already.
    pub cached: bool,
    /// Threads, all generations together.
    pub threads: u32,
    /// Runs of the global order: how often another thread's turn comes.
    pub runs: u64,
}

impl Workload {
    /// Finds a workload: a path that ends in `.toml` or `.hltrace` (or contains a slash) is a file, all else a built-in
    /// name. `FILE.hltrace#PROCESS` is one process of a trace of several ([`Trace::find_process`]); without that it is the
    /// busiest one.
    pub fn resolve(name_or_path: &str) -> Result<Self, WorkloadError> {
        let path = Path::new(name_or_path);
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("toml") {
            heaplab_bounded::check(path, MODEL_BYTES).map_err(|source| WorkloadError::Io {
                action: "read",
                path: path.to_path_buf(),
                source,
            })?;
            return Ok(Self::Model(Box::new(Model::load(path)?)));
        }
        if let Some(model) = Model::builtin(name_or_path) {
            return Ok(Self::Model(Box::new(model)));
        }
        // A file may have the sign in its name: that comes first.
        if let Some((file, word)) = name_or_path.rsplit_once('#')
            && file.ends_with(".hltrace")
            && !path.exists()
        {
            let workload = TraceWorkload::open(Path::new(file), Some(word))?;
            return Ok(Self::Trace(Box::new(workload)));
        }
        if extension == Some("hltrace") || name_or_path.contains('/') {
            return Ok(Self::Trace(Box::new(TraceWorkload::open(path, None)?)));
        }
        if let Some((name, bytes)) = builtin::TRACES
            .iter()
            .find(|(name, _)| *name == name_or_path)
        {
            return Ok(Self::Trace(Box::new(TraceWorkload::embedded(name, bytes)?)));
        }
        Err(WorkloadError::Unknown {
            name: name_or_path.to_owned(),
            suggestion: nearest(name_or_path),
        })
    }

    /// Names of all built-in workloads: models, then traces, each sorted.
    pub fn builtin_names() -> Vec<&'static str> {
        let models = builtin::MODELS.iter().map(|(name, _)| *name);
        models
            .chain(builtin::TRACES.iter().map(|(name, _)| *name))
            .collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(model) => model.name(),
            Self::Trace(trace) => &trace.name,
        }
    }

    /// What there is to know without compiling a script. A built-in model's figures are written down, another one is played
    /// once (tens of milliseconds).
    pub fn info(&self) -> Result<WorkloadInfo, WorkloadError> {
        match self {
            Self::Model(model) => {
                let expected = Expected::of(model.name()).filter(|_| model.is_builtin());
                let (calls, peak_live_bytes) = match expected {
                    Some(expected) => (expected.calls, expected.peak_live_bytes),
                    None => {
                        let peak = model.peak(&ModelParams::default())?;
                        (peak.calls, peak.live_bytes)
                    }
                };
                let definition = model.definition();
                Ok(WorkloadInfo {
                    name: model.name().to_owned(),
                    kind: Kind::Model,
                    category: Some(definition.kind),
                    threads: model.threads(),
                    ops: calls,
                    peak_live_bytes,
                    purpose: definition.purpose.clone(),
                    analysis: definition.analysis.clone(),
                })
            }
            Self::Trace(trace) => {
                let summary = trace.trace.summary();
                let (threads, ops, peak_live_bytes) = match trace.process() {
                    Some((process, _)) => (
                        process.threads,
                        process.allocations + process.frees + process.reallocs,
                        process.peak_live_bytes,
                    ),
                    None => (
                        summary.threads,
                        summary.allocations + summary.frees + summary.lost_frees + summary.reallocs,
                        summary.peak_live_bytes,
                    ),
                };
                Ok(WorkloadInfo {
                    name: trace.name.clone(),
                    kind: Kind::Trace,
                    category: None,
                    threads,
                    ops,
                    peak_live_bytes,
                    purpose: match trace.process() {
                        Some((_, false)) => format!(
                            "{} (replayed: the busiest of {})",
                            trace.purpose(),
                            trace.trace.processes().len()
                        ),
                        _ => trace.purpose(),
                    },
                    analysis: String::new(),
                })
            }
        }
    }

    /// The script of this workload in `cache`, compiled if it is not there yet. `progress` takes what is done and how much there is, of
    /// the check of a script that is there, and of the making of one.
    ///
    /// # Errors
    /// Parameters that the workload cannot take; a script that is not what the model's `expect` says, whatever the seed is: then
    /// the one that it speaks of is made as well.
    pub fn compile(
        &self,
        params: &Params,
        cache: &Path,
        progress: Progress<'_>,
    ) -> Result<CompiledScript, WorkloadError> {
        if let Self::Model(model) = self
            && model.definition().expect.is_some()
            && !expected::are_own(model, &model_params(params))
        {
            self.make(&Params::default(), cache, progress)?;
        }
        self.make(params, cache, progress)
    }

    fn make(
        &self,
        params: &Params,
        cache: &Path,
        progress: Progress<'_>,
    ) -> Result<CompiledScript, WorkloadError> {
        if let Self::Trace(workload) = self {
            let recorded = match workload.process() {
                Some((process, _)) => process.threads,
                None => workload.trace.summary().threads,
            };
            if params.threads.is_some_and(|threads| threads != recorded) {
                return Err(WorkloadError::Parameters(format!(
                    "trace '{}' has {recorded} recorded threads: --threads is for models",
                    workload.name
                )));
            }
        }
        if params.times && matches!(self, Self::Model(_)) {
            return Err(WorkloadError::Parameters(format!(
                "model '{}' has no recorded times: paced replays need a recorded trace",
                self.name()
            )));
        }
        let hash = self.hash(params)?;
        let path = cached_path(self.name(), &hash, cache);
        let claimed = cached::claim(&path);
        if claimed.is_some()
            && let Some(script) = self.found(params, &path, progress)
        {
            return Ok(CompiledScript {
                info: script.info().clone(),
                threads: script.thread_count() as u32,
                runs: script.run_count(),
                path,
                hash,
                cached: true,
            });
        }
        std::fs::create_dir_all(cache).map_err(|source| WorkloadError::Io {
            action: "create",
            path: cache.to_path_buf(),
            source,
        })?;
        let info = match self {
            Self::Model(model) => model.compile(&model_params(params), &path, progress)?,
            Self::Trace(workload) => {
                let trace = &workload.trace;
                let mut source = TraceSource::new(trace, params.scale, params.idle_budget_ns)?
                    .of_process(workload.process);
                if params.times {
                    source = source.with_times();
                }
                compile::compile(&mut source, &path, progress)?
            }
        };
        let (threads, runs) = Script::shape(&path)?;
        Ok(CompiledScript {
            path,
            info,
            hash,
            cached: false,
            threads: threads as u32,
            runs,
        })
    }

    /// Whether `cache` has a script of this name and these parameters, sound or not: then [`Workload::compile`] begins with a check.
    pub fn is_cached(&self, params: &Params, cache: &Path) -> Result<bool, WorkloadError> {
        let hash = self.hash(params)?;
        Ok(cached_path(self.name(), &hash, cache).exists())
    }

    /// A script in the cache that is whole, undamaged, and what it must be.
    fn found(&self, params: &Params, path: &Path, progress: Progress<'_>) -> Option<Script> {
        let script = Script::open_verified(path, progress).ok()?;
        if let Self::Model(model) = self {
            expected::check(model, &model_params(params), script.info()).ok()?;
        }
        Some(script)
    }

    /// The hash that names this workload with these parameters.
    pub fn hash(&self, params: &Params) -> Result<String, WorkloadError> {
        match self {
            Self::Model(model) => Ok(model.hash(&model_params(params))),
            Self::Trace(trace) => trace.hash(params),
        }
    }
}

/// Where the script of this hash lies in a cache.
fn cached_path(name: &str, hash: &str, cache: &Path) -> PathBuf {
    cache.join(format!("{name}-{}.hlscript", &hash[..32]))
}

fn model_params(params: &Params) -> ModelParams {
    ModelParams {
        seed: params.seed,
        scale: params.scale,
        threads: params.threads,
    }
}

/// The built-in name that is close to another one.
fn nearest(name: &str) -> Option<String> {
    crate::nearest::nearest(name, Workload::builtin_names()).map(str::to_owned)
}
