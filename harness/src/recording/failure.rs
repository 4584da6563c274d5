//! How a recording fails: with the statuses of wrappers such as `env`, and with what is kept.

use crate::error::{Error, lower_first, reason_of};
use crate::out::human_bytes;
use crate::workload;
use heaplab_workloads::record::RecordError;
use heaplab_workloads::trace::TraceError;
use std::path::Path;

/// Status of failures of heaplab itself, as shells and wrappers such as `env` have it.
const OURS: u8 = 125;

/// Failure of heaplab itself.
pub(super) fn ours(message: impl Into<String>) -> Error {
    Error::Launch {
        code: OURS,
        message: message.into(),
    }
}

pub(super) fn failed(error: RecordError) -> Error {
    ours(match error {
        RecordError::Pool { bytes, source } => format!(
            "the recording's memory of {} cannot be had: {}; choose a smaller --pool, or another folder with --out",
            human_bytes(bytes),
            reason_of(&source)
        ),
        other => lower_first(&other.to_string()),
    })
}

/// The raw file beside the trace could not be created: what was asked for is the trace.
pub(super) fn uncreated(error: TraceError, out: &Path) -> Error {
    let error = match error {
        TraceError::Io { action, source, .. } => TraceError::io(action, out, source),
        other => other,
    };
    unwritable(error)
}

/// The raw file could not even be begun.
pub(super) fn unwritable(error: TraceError) -> Error {
    ours(workload::trace_error(error).to_string())
}

/// Recording was stopped on the way; the raw file is readable up to there.
pub(super) fn stopped(error: RecordError, part: &Path) -> Error {
    let (why, lost) = match error {
        RecordError::Trace(error) => (workload::trace_error(error).to_string(), None),
        RecordError::Cut { source, lost, .. } => {
            (workload::trace_error(source).to_string(), Some(lost))
        }
        other => (lower_first(&other.to_string()), None),
    };
    let lost = match lost {
        Some(lost @ 1..) => {
            format!("the program went on to its end, and its last {lost} events are lost; ")
        }
        _ => String::new(),
    };
    ours(format!("{why}; {lost}{}", kept(part)))
}

/// What is left of a recording that was not finished.
pub(super) fn kept(part: &Path) -> String {
    format!(
        "what was recorded until then is in '{}', which `heaplab trace stats` can read, and `heaplab run` under a name that ends in .hltrace",
        part.display()
    )
}
