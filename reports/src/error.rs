//! What can go wrong with result sets and reports. Every message is one lower-case sentence that names the
//! offending thing and the next step.

use crate::shell;
use std::path::{Path, PathBuf};

/// An error of this package.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; give a result folder or a result.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; choose another folder with -o or make room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder holds no result of any kind.
    #[error("{} holds no result.json; give the folder that `heaplab run` printed", path.display())]
    NoResult {
        /// The folder.
        path: PathBuf,
    },
    /// The run was not finished.
    #[error(
        "{} is unfinished (it has runs.jsonl but no result.json); finish it with `heaplab run --resume {}`",
        path.display(),
        shell::path(path)
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The text is not a result set.
    #[error("{} is not a result set: {message}; write it again with `heaplab run`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// A newer or foreign schema.
    #[error(
        "{} has schema \"{found}\", this heaplab reads \"{}\"; use the heaplab that wrote it or run again",
        path.display(),
        crate::schema::SCHEMA
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A histogram could not be decoded.
    #[error("the latency histogram of {what} cannot be decoded: {message}; run the cell again")]
    Histogram {
        /// Op kind or cell.
        what: String,
        /// Why.
        message: String,
    },
    /// Shards that do not belong together.
    #[error("cannot merge: {what}; merge only the shards of one plan")]
    Merge {
        /// What differs.
        what: String,
    },
    /// A chart could not be drawn.
    #[error("cannot draw chart {name}: {message}; report this as a bug of heaplab")]
    Chart {
        /// File stem of the chart.
        name: String,
        /// Why.
        message: String,
    },
    /// The HTML template failed.
    #[error("cannot render report.html: {message}; report this as a bug of heaplab")]
    Template {
        /// Why.
        message: String,
    },
}

impl ReportError {
    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}
