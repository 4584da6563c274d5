//! What the scripts of built-in models must be (`definitions/expected.lock`).
//!
//! The promise "the same script to the byte on every machine" as data: whoever compiles a built-in model at its default
//! parameters compares with it, so every run is a test of the promise.

use crate::error::WorkloadError;
use crate::model::{Model, ModelParams};
use heaplab_script::ScriptInfo;

const LOCK: &str = include_str!("../definitions/expected.lock");

/// What a model's script is at seed 1, scale 1 and its own number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Threads of the script, successors included.
    pub threads: u32,
    /// Calls of the malloc family.
    pub calls: u64,
    /// Largest sum of requested bytes alive.
    pub peak_live_bytes: u64,
    /// Checksum of the script.
    pub checksum: u64,
    /// Checksum at seed 7 and scale 0.01: quick to make, so tests make it.
    pub small_checksum: u64,
}

impl Expected {
    /// What the built-in model with this name must be; `None` when the lock file does not know it.
    pub fn of(name: &str) -> Option<Self> {
        LOCK.lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(name)).then(|| Self::parse(words))?
            })
    }

    fn parse<'w>(mut words: impl Iterator<Item = &'w str>) -> Option<Self> {
        let mut number = |radix| u64::from_str_radix(words.next()?, radix).ok();
        Some(Self {
            threads: number(10)? as u32,
            calls: number(10)?,
            peak_live_bytes: number(10)?,
            checksum: number(16)?,
            small_checksum: number(16)?,
        })
    }

    /// The line of the lock file.
    pub fn line(&self, name: &str) -> String {
        format!(
            "{name:<18} {:>6} {:>9} {:>11} {:016x} {:016x}\n",
            self.threads, self.calls, self.peak_live_bytes, self.checksum, self.small_checksum
        )
    }
}

/// Whether these are the parameters of what is written down.
pub fn are_own(model: &Model, params: &ModelParams) -> bool {
    let own_threads = params
        .threads
        .is_none_or(|threads| threads == model.threads());
    params.seed == 1 && params.scale == 1.0 && own_threads
}

/// Compares a script at default parameters with what was written down for its model.
///
/// # Errors
/// The counts or the checksum differ.
pub fn check(model: &Model, params: &ModelParams, info: &ScriptInfo) -> Result<(), WorkloadError> {
    if !are_own(model, params) {
        return Ok(());
    }
    let own = model.definition().expect;
    let written = match own {
        Some(expect) => Some((expect.calls, expect.checksum)),
        None if model.is_builtin() => {
            Expected::of(model.name()).map(|expected| (expected.calls, expected.checksum))
        }
        None => None,
    };
    let Some((calls, checksum)) = written else {
        return Ok(());
    };
    if (calls, checksum) == (info.calls, info.checksum) {
        return Ok(());
    }
    let differs = format!(
        "{} calls, checksum {:016x}, expected {calls} calls, checksum {checksum:016x}",
        info.calls, info.checksum
    );
    let name = model.name();
    Err(WorkloadError::Unexpected(match own {
        Some(_) => format!(
            "{}: the script of model '{name}' is not the one that `expect` names: {differs}; where the model was meant to change, write what it has now into `expect`",
            model.place_of("expect")
        ),
        None => format!(
            "the script of model '{name}' is not the one that was written down: {differs}; results would not compare with others, please report this"
        ),
    }))
}
