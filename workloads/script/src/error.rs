//! What can be wrong with a script, each as one lower-case sentence.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a script could not be written or opened.
#[derive(Debug)]
pub enum ScriptError {
    /// The operating system refused.
    Io {
        /// What was tried ("open", "write", …).
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is not a script, or is damaged.
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// The writer was used against its rules (a thread that does not exist, an order that does not add up).
    Misuse(String),
}

impl ScriptError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                action,
                path,
                source,
            } => {
                write!(out, "cannot {action} script '{}': {source}", path.display())?;
                match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => write!(
                        out,
                        "; a script takes 16 bytes a call and, above 256 MiB, as much again while it is made: free that much there, or set XDG_CACHE_HOME to a folder that has it"
                    ),
                    _ => Ok(()),
                }
            }
            Self::Invalid { path, reason } => write!(
                out,
                "'{}' is not a usable script: {reason}; delete it, it is compiled again when needed",
                path.display()
            ),
            Self::Misuse(reason) => write!(out, "script not written: {reason}"),
        }
    }
}

impl std::error::Error for ScriptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
