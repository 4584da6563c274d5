//! `heaplab trace export`: tables and counters for other programs.

use super::open;
use crate::cli::trace::{AsArg, TraceExport};
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_count};
use crate::watch::Watch;
use crate::workload::trace_error;
use heaplab_workloads::trace::{self, Trace, TraceError};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Does it.
///
/// # Errors
/// A format that this build lacks; a file that cannot be read or written.
pub fn run(args: &TraceExport, terminal: &Terminal) -> Result<Outcome, Error> {
    let trace = open(&args.file)?;
    let Some(path) = args.out.as_deref() else {
        let mut standard = BufWriter::with_capacity(1 << 16, std::io::stdout());
        let watch = Watch::new(terminal, "writing")
            .keeping("what was written until then is not the whole trace".into());
        let written = write(&trace, args, &mut standard, watch)?.and_then(|()| {
            standard
                .flush()
                .map_err(|error| TraceError::io("write", Path::new("the table"), error))
        });
        return match written {
            Err(TraceError::Io { source, .. }) => Err(out::closed_or_full(&source)),
            Err(error) => Err(trace_error(error)),
            Ok(()) => Ok(Outcome::Done),
        };
    };
    // Beside its final name until it is whole.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Error::io("write", path, &error);
    trace::replaceable(path).map_err(failed)?;
    let mut file = out::unfinished_in(folder).map_err(failed)?;
    let unfinished = file.path().to_path_buf();
    let watch = Watch::new(terminal, "writing").removing_file(unfinished);
    let mut buffered = BufWriter::with_capacity(1 << 16, file.as_file_mut());
    write(&trace, args, &mut buffered, watch)?.map_err(|error| match error {
        TraceError::Io { source, .. } => failed(source),
        other => trace_error(other),
    })?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    file.persist(path).map_err(|e| failed(e.error))?;
    terminal.say(&format!(
        "wrote {}: {} events",
        path.display(),
        human_count(trace.summary().events)
    ));
    Ok(Outcome::Done)
}

/// The outer error is about the request, the inner one about the writing.
fn write(
    trace: &Trace,
    args: &TraceExport,
    out: &mut (impl Write + Send),
    mut watch: Watch,
) -> Result<Result<(), TraceError>, Error> {
    let progress = &mut watch.events();
    Ok(match args.format {
        AsArg::Csv => trace::export_csv(trace, out, progress),
        AsArg::Chrome => trace::export_chrome(trace, out, args.points, progress),
        #[cfg(feature = "parquet")]
        AsArg::Parquet => trace::export_parquet(trace, out, progress),
        #[cfg(not(feature = "parquet"))]
        AsArg::Parquet => {
            return Err(Error::environment(
                "this heaplab cannot write Parquet; build it with 'cargo build --release --features parquet', or use '--as csv'",
            ));
        }
    })
}
