//! `heaplab trace export`: tables and counters for other programs.

use super::open;
use crate::cli::trace::{AsArg, TraceExport};
use crate::error::{Error, Outcome};
use crate::out::{self, Terminal, human_count};
use crate::watch::Watch;
use crate::workload::trace_error;
use heaplab_workloads::trace::{self, Trace, TraceError};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

/// Points of a counter where nothing else is said.
const POINTS: u32 = 4000;

/// Does it.
///
/// # Errors
/// A format that this build lacks; a file that cannot be read or written.
pub fn run(args: &TraceExport, terminal: &Terminal) -> Result<Outcome, Error> {
    fits(args, std::io::stdout().is_terminal())?;
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

/// Whether the options fit the format; `terminal`: standard output is one.
fn fits(args: &TraceExport, terminal: bool) -> Result<(), Error> {
    if args.points.is_some() && args.format != AsArg::Chrome {
        return Err(Error::usage(
            "--points thins out the counters of '--as chrome'; the other formats have every event, leave it out",
        ));
    }
    let binary = cfg!(feature = "parquet") && args.format == AsArg::Parquet;
    if binary && args.out.is_none() && terminal {
        return Err(Error::usage(
            "'--as parquet' is nothing to read on a terminal; write it to a file with -o FILE, or into a pipe",
        ));
    }
    Ok(())
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
        AsArg::Chrome => trace::export_chrome(trace, out, args.points.unwrap_or(POINTS), progress),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_format_cannot_have_is_refused() {
        let of = |format, out: Option<&str>, points, terminal| {
            let args = TraceExport {
                file: "a.hltrace".into(),
                out: out.map(Into::into),
                format,
                points,
            };
            fits(&args, terminal).map_err(|error| error.to_string())
        };
        assert_eq!(of(AsArg::Chrome, None, Some(9), true), Ok(()));
        assert_eq!(of(AsArg::Csv, None, None, true), Ok(()));
        for format in [AsArg::Csv, AsArg::Parquet] {
            let error = of(format, Some("a"), Some(9), false).unwrap_err();
            assert!(error.contains("--points"), "{error}");
        }
        // A build without it says so instead.
        let parquet = |out, terminal| of(AsArg::Parquet, out, None, terminal);
        assert_eq!(parquet(None, true).is_err(), cfg!(feature = "parquet"));
        assert_eq!(parquet(None, false), Ok(()));
        assert_eq!(parquet(Some("a.parquet"), true), Ok(()));
    }
}
