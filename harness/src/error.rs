//! Errors that a user sees, and the exit statuses of the contract.
//!
//! Two tiers: everything a user or a machine can cause is an [`Error`] with a status of its own and one lower-case
//! sentence that names the offending thing and a next step; what is left is a bug and may panic.

use std::fmt;
use std::path::Path;

/// How a command ended when nothing stopped it: what `main` turns into the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing wrong (0).
    Done,
    /// A regression was found, or a trace or subject failed verification (1).
    Found,
    /// Some run failed or some cell is missing; its row says why (4).
    Incomplete,
    /// The gate could not decide and was asked to be strict (5).
    Inconclusive,
    /// The controls moved: this machine cannot judge (6).
    Contaminated,
    /// Ctrl-C; what was finished is kept (130).
    Interrupted,
    /// The status of the command that was run on the user's behalf (`record`).
    Command(u8),
}

impl Outcome {
    /// The process exit status.
    pub fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Found => 1,
            Outcome::Incomplete => 4,
            Outcome::Inconclusive => 5,
            Outcome::Contaminated => 6,
            Outcome::Interrupted => 130,
            Outcome::Command(code) => code,
        }
    }
}

/// What stops a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Wrong usage (2).
    Usage(String),
    /// The environment cannot do it: something is missing, not permitted, or full (3).
    Environment(String),
    /// A trace failed verification (1).
    Verification(String),
    /// A run that everything else depends on failed (4).
    Run(String),
    /// A failure under `record`, where 125, 126 and 127 keep their meaning from the shell.
    Launch {
        /// 125 heaplab itself, 126 not executable, 127 not found.
        code: u8,
        /// The sentence.
        message: String,
    },
    /// Standard output was closed by its reader (`heaplab list workloads | head -1`): no message, status 0.
    ClosedOutput,
}

impl Error {
    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// The environment cannot do it.
    pub fn environment(message: impl Into<String>) -> Self {
        Error::Environment(message.into())
    }

    /// A failed file operation: "cannot write '/x/result.json': no space left on device; <next step>".
    pub fn io(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        let why = reason_of(error);
        let next = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "; free some space or choose another folder with --out"
            }
            std::io::ErrorKind::FileTooLarge => "; raise the limit on file sizes (ulimit -f)",
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "; choose a place you may use"
            }
            std::io::ErrorKind::NotFound => "; check the path",
            std::io::ErrorKind::NotADirectory => {
                "; a part of the path is a file, choose another path"
            }
            std::io::ErrorKind::AlreadyExists => "; choose another name",
            std::io::ErrorKind::IsADirectory => "; name a file",
            _ => "",
        };
        Error::Environment(format!("cannot {verb} '{}': {why}{next}", path.display()))
    }

    /// The exit status that belongs to the error.
    pub fn code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Environment(_) => 3,
            Error::Verification(_) => 1,
            Error::Run(_) => 4,
            Error::Launch { code, .. } => *code,
            Error::ClosedOutput => 0,
        }
    }
}

/// The exit status of what ended with `ended`, as `git bisect run` takes it: only a verdict is good (0) or bad (1), all else skips the
/// commit.
pub fn bisected(ended: &Result<u8, Error>) -> u8 {
    match ended {
        Ok(code @ 0..=1) => *code,
        _ => 125,
    }
}

/// The operating system's words without the number: "no space left on device".
pub fn reason_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    lower_first(text)
}

/// Lower-cases the first letter unless the word is an abbreviation ("LD_PRELOAD …").
pub fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(a), Some(b)) if a.is_uppercase() && b.is_lowercase() => a
            .to_lowercase()
            .chain(std::iter::once(b))
            .chain(chars)
            .collect(),
        _ => text.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(m) | Error::Environment(m) | Error::Verification(m) | Error::Run(m) => {
                f.write_str(m)
            }
            Error::Launch { message, .. } => f.write_str(message),
            Error::ClosedOutput => f.write_str("standard output was closed"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_name_the_file_the_cause_and_a_next_step() {
        let full = std::io::Error::from_raw_os_error(28);
        let e = Error::io("write", Path::new("/x/result.json"), &full);
        assert_eq!(
            e.to_string(),
            "cannot write '/x/result.json': no space left on device; free some space or choose another folder with \
             --out"
        );
        assert_eq!(e.code(), 3);
    }

    #[test]
    fn first_letters_are_lowered_but_abbreviations_stay() {
        assert_eq!(lower_first("No such file"), "no such file");
        assert_eq!(lower_first("LD_PRELOAD is set"), "LD_PRELOAD is set");
        assert_eq!(lower_first(""), "");
    }

    #[test]
    fn only_a_verdict_is_good_or_bad_to_a_bisection() {
        let ended = |outcome: Outcome| bisected(&Ok(outcome.code()));
        assert_eq!((ended(Outcome::Done), ended(Outcome::Found)), (0, 1));
        for outcome in [
            Outcome::Incomplete,
            Outcome::Inconclusive,
            Outcome::Contaminated,
            Outcome::Interrupted,
        ] {
            assert_eq!(ended(outcome), 125, "{outcome:?}");
        }
        for error in [
            Error::usage("no such option"),
            Error::environment("the disk is full"),
            Error::Verification("the trace is damaged".into()),
            Error::Run("it failed".into()),
            Error::ClosedOutput,
        ] {
            assert_eq!(bisected(&Err(error.clone())), 125, "{error:?}");
        }
    }
}
