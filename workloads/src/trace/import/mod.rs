//! Recordings of other tools as traces: heaptrack's files, glibc's `mtrace` logs, comma-separated values.
//!
//! Each format is a reader of lines that tells an [`Intake`] what happened; the intake gives blocks their numbers and counts
//! what cannot be. Input is read as a stream, compressed by zstd or gzip or not at all.
//!
//! Memory, whatever the input is: 32 MiB for the input's window, a line of at most 64 KiB, calls that wait for their time
//! (heaptrack), and the segments that are written, one for each CPU and at most nine of some 2 MiB; at most 128 MiB more where a
//! zstd file asks for so large a window, or for the 2^24 sorts that an interpreted heaptrack file may declare; and up to 200
//! bytes for each block that is alive at once. Nothing grows with the length of the input (`tests/import_memory.rs`).

mod csv;
mod heaptrack;
mod intake;
mod lines;
mod mtrace;

use super::error::TraceError;
use super::header::TraceHeader;
use super::summary::TraceSummary;
use super::writer::TraceWriter;
use intake::Intake;
use lines::Lines;
use std::path::Path;

/// What a file was written by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// heaptrack, raw or interpreted.
    Heaptrack,
    /// glibc's `mtrace`.
    Mtrace,
    /// Comma-separated values with a line of names.
    Csv,
}

/// How to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// The format; `None`: what the first bytes say.
    pub format: Option<ImportFormat>,
    /// Store addresses, where the input has them.
    pub keep_addresses: bool,
    /// zstd's level of the result.
    pub level: i32,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            format: None,
            keep_addresses: false,
            level: 6,
        }
    }
}

/// Imports `from` into the trace `out`, which appears only when all of it was read. `progress` gets bytes.
///
/// # Errors
/// A line that its format does not allow, with its number; a file of no known format.
pub fn import(
    from: &Path,
    out: &Path,
    options: &ImportOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TraceSummary, TraceError> {
    let mut lines = Lines::open(from)?;
    if lines.peek()?.starts_with("HLTRACE") {
        return Err(TraceError::Usage(format!(
            "'{}' is a heaplab trace already: use it as it is",
            from.display()
        )));
    }
    if std::fs::metadata(from).is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(TraceError::Usage(format!(
            "'{}' is empty: there is nothing to import",
            from.display()
        )));
    }
    let format = match options.format {
        Some(format) => format,
        None => detect(lines.peek()?).ok_or_else(|| {
            TraceError::Usage(format!(
                "'{}' is neither a heaptrack file, nor an mtrace log, nor a table with the columns call, block and size; \
                 name its format with '--from'",
                from.display()
            ))
        })?,
    };
    // What the input says of its program stands before its events: the header waits for it.
    let about = match format {
        ImportFormat::Heaptrack => heaptrack::about(&mut lines)?,
        ImportFormat::Mtrace | ImportFormat::Csv => TraceHeader::default(),
    };
    let name = match format {
        ImportFormat::Heaptrack => "heaptrack",
        ImportFormat::Mtrace => "mtrace",
        ImportFormat::Csv => "a table",
    };
    let header = TraceHeader {
        tool: format!("heaplab {}, from {name}", env!("CARGO_PKG_VERSION")),
        ..about
    };
    let writer = TraceWriter::create(out, &header, options.keep_addresses, options.level)?;
    let mut intake = Intake::new(writer);
    match format {
        ImportFormat::Heaptrack => heaptrack::read(&mut lines, &mut intake, progress)?,
        ImportFormat::Mtrace => mtrace::read(&mut lines, &mut intake, progress)?,
        ImportFormat::Csv => csv::read(&mut lines, &mut intake, progress)?,
    }
    intake.finish()
}

fn detect(first: &str) -> Option<ImportFormat> {
    if first.starts_with("v ") {
        return Some(ImportFormat::Heaptrack);
    }
    if first.starts_with("= Start") || first.starts_with("@ ") {
        return Some(ImportFormat::Mtrace);
    }
    let names: Vec<&str> = first.trim().split(',').map(str::trim).collect();
    let has = |name: &str| names.contains(&name);
    (has("call") && has("block") && has("size")).then_some(ImportFormat::Csv)
}
