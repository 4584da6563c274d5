//! What can be wrong with a trace, each as one lower-case sentence.

use std::io;
use std::path::{Path, PathBuf};

/// Why a trace could not be written, read or transformed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The operating system refused.
    #[error("cannot {action} '{}': {source}", path.display())]
    Io {
        /// What was tried ("open", "write", …).
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file does not begin like a trace.
    #[error(
        "'{}' is not a heaplab trace: {reason}; record one with 'heaplab record -o FILE.hltrace -- CMD'",
        path.display()
    )]
    NotATrace {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// The file is of a version that this program does not know.
    #[error(
        "'{}' has trace format version {version}, this program reads up to {known}: use a newer heaplab",
        path.display()
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its major version.
        version: u16,
        /// The newest major version that can be read.
        known: u16,
    },
    /// The file is damaged, or breaks a rule of the format.
    #[error("'{}' is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the chunk begins that is wrong.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The request makes no sense for this trace.
    #[error("{0}")]
    Usage(String),
}

impl TraceError {
    /// An error of the operating system on `path`.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Damage in the chunk that begins at `offset`.
    pub fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            offset,
            reason: reason.into(),
        }
    }
}
