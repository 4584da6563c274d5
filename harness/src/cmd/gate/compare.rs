//! `heaplab gate compare`: judges what is stored, a result set or the stored counts before, a result set after.

use crate::cli::GateCompareArgs;
use crate::error::{Error, Outcome, lower_first};
use crate::out::Terminal;
use crate::render;
use heaplab_ci::baseline::Baseline;
use heaplab_ci::{Mode, judge};
use heaplab_reports::schema::ResultSet;
use heaplab_reports::{RESULT_FILE, shell};
use std::path::Path;

/// Judges.
///
/// # Errors
/// Usage for an unreadable policy, environment where one of the two is not there, verification for a damaged one.
pub fn run(args: &GateCompareArgs, terminal: &Terminal) -> Result<Outcome, Error> {
    let policy = super::policy(args.policy.as_deref())?;
    let report = if Baseline::is_one(&args.old) {
        let baseline = Baseline::read(&args.old).map_err(error)?;
        baseline.compare(&load(&args.new)?, &policy)
    } else {
        judge(&load(&args.old)?, &load(&args.new)?, &policy, Mode::Stored)
    };
    super::print(&report, args.format, args.strict, terminal)?;
    Ok(super::outcome(&report, args.strict))
}

/// A damaged file is no wrong usage, and one that is not there is made by a command.
pub fn error(error: heaplab_ci::baseline::BaselineError) -> Error {
    use heaplab_ci::baseline::BaselineError::{Absent, File, Line, Unfit};
    let text = lower_first(&error.to_string());
    match error {
        Absent(_) | File(..) => Error::environment(text),
        Line { .. } | Unfit(_) => Error::Verification(text),
    }
}

pub fn load(path: &Path) -> Result<ResultSet, Error> {
    if !path.exists() {
        let folder = match path.parent() {
            Some(folder) if path.ends_with(RESULT_FILE) && folder != Path::new("") => folder,
            _ => path,
        };
        return Err(Error::environment(format!(
            "there is no result at '{}'; `heaplab run --suite gate --measure memory,counts -o {}` makes one",
            path.display(),
            shell::path(folder)
        )));
    }
    heaplab_reports::load(path).map_err(render::error)
}
