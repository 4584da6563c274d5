//! `heaplab trace import`: recordings of other tools.

use super::{make, other_file};
use crate::cli::trace::{FromArg, TraceImport};
use crate::error::{Error, Outcome};
use crate::out::Terminal;
use heaplab_workloads::trace::{self, ImportFormat, ImportOptions};

/// Does it.
///
/// # Errors
/// A file of another format, or one that breaks its format's rules.
pub fn run(args: &TraceImport, terminal: &Terminal) -> Result<Outcome, Error> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => args.file.with_extension("hltrace"),
    };
    if args.file.is_dir() {
        return Err(Error::environment(format!(
            "cannot read '{}': it is a folder; name the file that the other tool wrote",
            args.file.display()
        )));
    }
    // A trace of ours is said to be one before anything else.
    if args.out.is_some() || args.file != out {
        other_file(&args.file, &out)?;
    }
    let options = ImportOptions {
        format: args.from.map(|from| match from {
            FromArg::Heaptrack => ImportFormat::Heaptrack,
            FromArg::Mtrace => ImportFormat::Mtrace,
            FromArg::Csv => ImportFormat::Csv,
        }),
        keep_addresses: args.keep_addresses,
        ..ImportOptions::default()
    };
    make(terminal, &out, |progress| {
        trace::import(&args.file, &out, &options, progress)
    })
}
