//! The door to everything here: a name or a path becomes a workload, a workload becomes a cached script.

use crate::compile::Progress;
use crate::error::WorkloadError;
use crate::model::{Model, ModelParams};
use heaplab_script::{Script, ScriptInfo};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Something that can be replayed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Workload {
    /// Drawn from a seed.
    Model(Model),
}

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
    /// Number of threads.
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
}

impl Default for Params {
    fn default() -> Self {
        Self {
            seed: 1,
            scale: 1.0,
            threads: None,
            idle_budget_ns: 100_000_000,
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
}

impl Workload {
    /// Finds a workload: a path that ends in `.toml` or `.hltrace` (or contains a slash) is a file, all else a built-in
    /// name.
    pub fn resolve(name_or_path: &str) -> Result<Self, WorkloadError> {
        let path = Path::new(name_or_path);
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("toml") {
            return Model::load(path).map(Self::Model);
        }
        if let Some(model) = Model::builtin(name_or_path) {
            return Ok(Self::Model(model));
        }
        Err(WorkloadError::Unknown {
            name: name_or_path.to_owned(),
            suggestion: nearest(name_or_path),
        })
    }

    /// Names of all built-in workloads: models, then traces, each sorted.
    pub fn builtin_names() -> Vec<&'static str> {
        crate::builtin::MODELS
            .iter()
            .map(|(name, _)| *name)
            .collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(model) => model.name(),
        }
    }

    /// What there is to know without compiling a script. A model is played once to know its peak (tens of milliseconds).
    pub fn info(&self) -> Result<WorkloadInfo, WorkloadError> {
        match self {
            Self::Model(model) => {
                let peak = model.peak(&ModelParams::default())?;
                let definition = model.definition();
                Ok(WorkloadInfo {
                    name: model.name().to_owned(),
                    kind: Kind::Model,
                    threads: peak.threads,
                    ops: peak.calls,
                    peak_live_bytes: peak.live_bytes,
                    purpose: definition.purpose.clone(),
                    analysis: definition.analysis.clone(),
                })
            }
        }
    }

    /// The script of this workload in `cache`, compiled if it is not there yet.
    pub fn compile(
        &self,
        params: &Params,
        cache: &Path,
        progress: Progress<'_>,
    ) -> Result<CompiledScript, WorkloadError> {
        let hash = self.hash(params)?;
        let path = cache.join(format!("{}-{}.hlscript", self.name(), &hash[..32]));
        if path.exists()
            && let Ok(script) = Script::open(&path)
        {
            let info = script.info().clone();
            return Ok(CompiledScript {
                path,
                info,
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
        };
        Ok(CompiledScript {
            path,
            info,
            hash,
            cached: false,
        })
    }

    /// The hash that names this workload with these parameters.
    pub fn hash(&self, params: &Params) -> Result<String, WorkloadError> {
        match self {
            Self::Model(model) => Ok(model.hash(&model_params(params))),
        }
    }
}

fn model_params(params: &Params) -> ModelParams {
    ModelParams {
        seed: params.seed,
        scale: params.scale,
        threads: params.threads,
    }
}

/// The built-in name with the smallest edit distance, if it is at most a third of the name.
fn nearest(name: &str) -> Option<String> {
    let (distance, near) = Workload::builtin_names()
        .into_iter()
        .map(|known| (edit_distance(name, known), known))
        .min()?;
    (distance * 3 <= name.len().max(3)).then(|| near.to_owned())
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
