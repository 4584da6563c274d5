//! What a program asks of a subject: recorded with the subject underneath. A program may ask otherwise under another allocator, where
//! it looks at how large its blocks really are or goes by the clock.

use super::Recording;
use crate::exec::signal_name;
use crate::out::Terminal;
use crate::service::Service;
use crate::subject::Subject;
use heaplab_workloads::record::SessionOptions;
use heaplab_workloads::trace::TraceSummary;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// The totals of [`recorded_under`]; the recording itself is not kept.
///
/// # Errors
/// As there.
pub fn asked(
    subject: &Subject,
    command: &[OsString],
    service: Option<Service>,
    first_only: bool,
) -> Result<TraceSummary, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for a recording: {e}"))?;
    let out = folder.path().join("asked.hltrace");
    recorded_under(subject, command, service, first_only, &out)
}

/// Records `command` with `subject` underneath into `out`; `first_only`: nothing of the processes that it starts.
///
/// # Errors
/// One lower-case sentence: the program cannot be recorded or does not end as it should.
pub fn recorded_under(
    subject: &Subject,
    command: &[OsString],
    service: Option<Service>,
    first_only: bool,
    out: &Path,
) -> Result<TraceSummary, String> {
    let recorded = Recording {
        command,
        out: out.to_path_buf(),
        keep_addresses: false,
        session: SessionOptions {
            first_only,
            ..SessionOptions::default()
        },
        silent: true,
        service,
        metrics: &[],
        allocator: subject.library.clone(),
        settings: subject.env.clone(),
    }
    .run(&Terminal::silent())
    .map_err(|error| error.to_string())?;
    if let Some(trouble) = recorded.trouble {
        return Err(trouble);
    }
    match (recorded.status.code(), recorded.status.signal()) {
        (Some(0), _) => {}
        _ if recorded.stopped => {}
        (Some(code), _) => return Err(format!("ended with exit status {code} while recorded")),
        (None, signal) => {
            let name = signal_name(signal.unwrap_or_default());
            return Err(format!("killed by {name} while recorded"));
        }
    }
    recorded.trace.ok_or_else(|| recorded.remarks.join("; "))
}
