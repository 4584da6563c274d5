//! Where a trace is written, and where it is while the program runs.

use std::path::{Path, PathBuf};

/// The file that is written while the program runs: readable by every `trace` command, should this process be killed.
pub fn part_of(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// `<program>.hltrace` in the working directory, with a number where a trace of that name exists, or the part of one: another
/// recording goes on there, or was cut off and this is all that is left of it.
pub fn default_out(program: &std::ffi::OsStr) -> PathBuf {
    let stem = Path::new(program)
        .file_name()
        .unwrap_or(program)
        .to_string_lossy()
        .into_owned();
    let mut out = PathBuf::from(format!("{stem}.hltrace"));
    for number in 2.. {
        if !out.exists() && !part_of(&out).exists() {
            break;
        }
        out = PathBuf::from(format!("{stem}-{number}.hltrace"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_lies_beside_the_trace() {
        assert_eq!(
            part_of(Path::new("a/b.hltrace")),
            Path::new("a/b.hltrace.part")
        );
        assert_eq!(
            default_out("/usr/bin/no-such-9".as_ref()),
            Path::new("no-such-9.hltrace")
        );
    }
}
