//! What can go wrong between a name and a script, each as one lower-case sentence.

use crate::trace::TraceError;
use heaplab_script::ScriptError;
use std::path::PathBuf;

/// Why a workload could not be found, read or compiled.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// No built-in workload has this name and no file either.
    #[error(
        "there is no workload '{name}'{}; 'heaplab list workloads' shows the built-in ones, a path must end in .toml or .hltrace",
        suggestion.as_ref().map(|near| format!(", did you mean '{near}'?")).unwrap_or_default()
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// A built-in name that is close to it.
        suggestion: Option<String>,
    },
    /// No suite has this name.
    #[error(
        "there is no suite '{name}'{}; the suites are {known}",
        suggestion.as_ref().map(|near| format!(", did you mean '{near}'?")).unwrap_or_default()
    )]
    UnknownSuite {
        /// What was asked for.
        name: String,
        /// A suite whose name is close to it.
        suggestion: Option<String>,
        /// All names, joined.
        known: String,
    },
    /// A model file says something that cannot be.
    #[error("{file}:{line}: {reason}")]
    Model {
        /// The file, or the built-in model's name.
        file: String,
        /// Line, 1-based.
        line: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A script differs from what was written down for its model.
    #[error("{0}")]
    Unexpected(String),
    /// A script would be larger than the room that there is for it.
    #[error(
        "the script of model '{name}' has up to {needed} bytes and '{}' has room for {free}: lower its `ops` or --scale, or point XDG_CACHE_HOME to a larger file system",
        folder.display()
    )]
    NoRoom {
        /// The model.
        name: String,
        /// Bytes of the script.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Where.
        folder: PathBuf,
    },
    /// Parameters that this workload cannot take.
    #[error("{0}")]
    Parameters(String),
    /// A source broke the rules of events (a bug, or a damaged trace).
    #[error("event {event} is not possible: {reason}")]
    Impossible {
        /// Number of the event in the global order, from 0.
        event: u64,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} '{}': {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The trace could not be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The script could not be written or read back.
    #[error(transparent)]
    Script(#[from] ScriptError),
}
