//! Models: synthetic workloads, defined in TOML and drawn from a seed.
//!
//! `definition` is the file's form, read by `decode`; `math`, `sampler` and `plan` turn it into tables of integers; `live`
//! holds the blocks of a thread; `play` plays the threads; `script` writes what they do. Everything from seed to op is
//! integer arithmetic or exactly rounded floating point, so that the same seed gives the same script on every machine.

mod alias;
mod curves;
mod decode;
pub mod definition;
mod live;
mod math;
mod plan;
mod play;
mod sampler;
mod script;
mod threads;

use crate::builtin;
use crate::compile::Progress;
use crate::error::WorkloadError;
use crate::expected;
pub use definition::Definition;
use heaplab_script::{Op, ScriptInfo};
use plan::Plan;
pub use play::Played;
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
    /// Where the text is from, for errors.
    file: String,
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
        let bytes = std::fs::read(path).map_err(|source| WorkloadError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let file = path.display().to_string();
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &file),
            Err(error) => {
                let before = bytes.iter().take(error.valid_up_to());
                Err(WorkloadError::Model {
                    file,
                    line: 1 + before.filter(|byte| **byte == b'\n').count(),
                    reason: "a byte that is no UTF-8, expected text in TOML".into(),
                })
            }
        }
    }

    /// Reads a model from text; `file` is named in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self, WorkloadError> {
        Ok(Self {
            definition: definition::parse(text, file)?,
            text: text.to_owned(),
            file: file.to_owned(),
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

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file and the line on which one of the model's own keys stands.
    pub(crate) fn place_of(&self, key: &str) -> String {
        let mut lines = self.text.lines().map(str::trim_start);
        let line = lines.position(|line| line.starts_with(key));
        format!("{}:{}", self.file, 1 + line.unwrap_or(0))
    }

    /// What the file says.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The same model with another number of calls and the same live sets (`scale` would change both). It has another hash.
    pub fn with_ops(mut self, ops: u64) -> Self {
        self.text.push_str(&format!("\n# ops = {ops}"));
        self.definition.ops = ops;
        self.definition.expect = None;
        self
    }

    /// Whether it is, to the letter, one of the built-in models.
    pub fn is_builtin(&self) -> bool {
        builtin::MODELS
            .iter()
            .any(|(name, text)| *name == self.name() && *text == self.text)
    }

    /// Its own number of threads.
    pub fn threads(&self) -> u32 {
        self.definition.roles.iter().map(|role| role.threads).sum()
    }

    /// The smallest number of threads that it can run with: one for each role.
    pub fn least_threads(&self) -> u32 {
        self.definition.roles.len() as u32
    }

    /// SHA-256 over the definition's text and the parameters: the key of the cache and the name of what was run.
    pub fn hash(&self, params: &ModelParams) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("model/{}/{}\n", play::VERSION, self.text.len()));
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
        let plan = Plan::new(&self.definition, params)?;
        let played = script::dry(&plan)?;
        Ok(Peak {
            threads: played.pools.len() as u32,
            calls: played.calls,
            live_bytes: played.peak_bytes,
        })
    }

    /// Plays the model, telling each thread's ops in their order; returns the largest sum of requested bytes alive.
    pub(crate) fn listen(
        &self,
        params: &ModelParams,
        take: &mut dyn FnMut(u32, &Op),
    ) -> Result<u64, WorkloadError> {
        let plan = Plan::new(&self.definition, params)?;
        Ok(script::listen(&plan, take)?.peak_bytes)
    }

    /// Whether a script of so many calls fits the file system of `out`: a model of one number too many would fill it first.
    fn check_room(&self, calls: u64, out: &Path) -> Result<(), WorkloadError> {
        let folder = match out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Where nobody can say, writing will.
        let Ok(about) = rustix::fs::statvfs(folder) else {
            return Ok(());
        };
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        let needed = calls.saturating_mul(size_of::<Op>() as u64);
        if needed <= free {
            return Ok(());
        }
        Err(WorkloadError::NoRoom {
            name: self.name().to_owned(),
            needed,
            free,
            folder: folder.to_path_buf(),
        })
    }

    /// Draws the model and writes its script to `out`.
    ///
    /// # Errors
    /// Parameters that it cannot take; a file that cannot be written; a script that differs from the one that was written
    /// down for it (then none is left).
    pub fn compile(
        &self,
        params: &ModelParams,
        out: &Path,
        progress: Progress<'_>,
    ) -> Result<ScriptInfo, WorkloadError> {
        let plan = Plan::new(&self.definition, params)?;
        self.check_room(plan.calls, out)?;
        let info = script::write(&plan, out, progress)?;
        if let Err(error) = expected::check(self, params, &info) {
            // Nobody may find it in the cache.
            let _ = std::fs::remove_file(out);
            return Err(error);
        }
        Ok(info)
    }
}
