//! Models: synthetic workloads, defined in TOML and drawn from a seed.
//!
//! `definition` is the file's form, `math` and `sampler` turn distributions into tables of integers, `generate` plays the
//! threads. Everything from seed to event is integer arithmetic or exactly rounded floating point, so that the same
//! seed gives the same script on every machine.

mod definition;
mod generate;
mod live;
mod math;
mod sampler;

use crate::builtin;
use crate::compile::{self, Action, Progress, Source};
use crate::error::WorkloadError;
pub use definition::Definition;
use heaplab_script::ScriptInfo;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What a user may choose for a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelParams {
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Factor on the number of ops and on live sets.
    pub scale: f64,
    /// Number of threads; `None`: the model's own.
    pub threads: Option<u32>,
}

impl Default for ModelParams {
    fn default() -> Self {
        Self {
            seed: 1,
            scale: 1.0,
            threads: None,
        }
    }
}

/// A model, read and checked.
#[derive(Clone, Debug)]
pub struct Model {
    definition: Definition,
    text: String,
}

/// One line about a built-in model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name.
    pub name: String,
    /// Its own number of threads.
    pub threads: u32,
    /// Calls at scale 1.
    pub ops: u64,
    /// What it is for, one line.
    pub purpose: String,
}

/// What playing a model shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Threads, all generations together.
    pub threads: u32,
    /// Calls of the malloc family.
    pub calls: u64,
    /// Largest sum of requested bytes alive.
    pub live_bytes: u64,
}

impl Model {
    /// The built-in model with this name; `None` when there is none.
    pub fn builtin(name: &str) -> Option<Self> {
        let (_, text) = builtin::MODELS.iter().find(|(known, _)| *known == name)?;
        Self::parse(text, name).ok()
    }

    /// Reads a model from a file.
    pub fn load(path: &Path) -> Result<Self, WorkloadError> {
        let text = std::fs::read_to_string(path).map_err(|source| WorkloadError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a model from text; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, WorkloadError> {
        Ok(Self {
            definition: definition::parse(text, file)?,
            text: text.to_owned(),
        })
    }

    /// All built-in models, sorted by name.
    pub fn list() -> Vec<ModelInfo> {
        builtin::MODELS
            .iter()
            .filter_map(|(name, _)| Self::builtin(name))
            .map(|model| ModelInfo {
                name: model.name().to_owned(),
                threads: model.threads(),
                ops: model.definition.ops,
                purpose: model.definition.purpose.clone(),
            })
            .collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// What the file says.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Its own number of threads.
    pub fn threads(&self) -> u32 {
        self.definition.role.iter().map(|role| role.threads).sum()
    }

    /// SHA-256 over the definition's text and the parameters: the key of the cache and the name of what was run.
    pub fn hash(&self, params: &ModelParams) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("model/{}/{}\n", generate::VERSION, self.text.len()));
        hash.update(&self.text);
        let threads = params.threads.unwrap_or_else(|| self.threads());
        hash.update(format!(
            "\n{} {:016x} {threads}",
            params.seed,
            params.scale.to_bits()
        ));
        crate::hex(&hash.finalize())
    }

    /// Plays the model without writing anything.
    pub fn peak(&self, params: &ModelParams) -> Result<Peak, WorkloadError> {
        let mut generator = generate::Generator::new(&self.definition, params)?;
        let mut sizes: Vec<u64> = Vec::new();
        let (mut live, mut peak) = (
            0u64,
            Peak {
                threads: 1,
                calls: 0,
                live_bytes: 0,
            },
        );
        generator.tell(|event| {
            peak.threads = peak.threads.max(event.thread + 1);
            match event.action {
                Action::Alloc { block, size, .. } => {
                    if block as usize >= sizes.len() {
                        sizes.resize(block as usize + 1, 0);
                    }
                    sizes[block as usize] = size;
                    live += size;
                }
                Action::Realloc { block, size } => {
                    let old = std::mem::replace(&mut sizes[block as usize], size);
                    live = live + size - old;
                }
                Action::Free { block } => live -= sizes[block as usize],
                _ => return Ok(()),
            }
            peak.calls += 1;
            peak.live_bytes = peak.live_bytes.max(live);
            Ok(())
        })?;
        Ok(peak)
    }

    /// Draws the model and writes its script to `out`.
    pub fn compile(
        &self,
        params: &ModelParams,
        out: &Path,
        progress: Progress<'_>,
    ) -> Result<ScriptInfo, WorkloadError> {
        let mut generator = generate::Generator::new(&self.definition, params)?;
        compile::compile(&mut generator, out, progress)
    }
}
