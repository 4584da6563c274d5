//! The two output channels: results on standard output, everything else on standard error.
//!
//! Standard output may be closed early by its reader (`… | head -1`); that ends the command quietly. Standard error
//! must never stop a measurement: what cannot be written there is dropped.

use crate::cli::options::{ColorArg, GlobalArgs};
use crate::error::{Error, reason_of};
use heaplab_reports::text::wrapped;
use std::fs::Permissions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a command needs to know about its terminal.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// No remarks.
    pub quiet: bool,
    /// A line for each run.
    pub verbose: bool,
    /// Standard output may carry colour.
    pub color: bool,
    /// Standard error is a terminal (a progress bar makes sense).
    pub progress: bool,
}

/// Columns of the terminal on standard output, or of `COLUMNS`; unlimited where it is neither, because files and pipes
/// have no width.
pub fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|n| n.parse().ok());
    let found = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col))
    };
    asked
        .or_else(found)
        .filter(|columns: &usize| *columns >= 40)
        .unwrap_or(usize::MAX)
}

impl Terminal {
    /// Decides from the options, NO_COLOR, TERM and what the channels are.
    pub fn new(global: &GlobalArgs) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let color = match global.color {
            ColorArg::Always => true,
            ColorArg::Never => false,
            ColorArg::Auto => std::io::stdout().is_terminal() && !no_color && !dumb,
        };
        Self {
            quiet: global.quiet,
            verbose: global.verbose,
            color,
            progress: std::io::stderr().is_terminal() && !global.quiet && !dumb,
        }
    }

    /// One that says nothing: where a step of something larger must not speak for itself.
    pub fn silent() -> Self {
        Self {
            quiet: true,
            verbose: false,
            color: false,
            progress: false,
        }
    }

    /// A remark for the person at the terminal; silent with `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            remark(line);
        }
    }

    /// A remark that only `-v` asks for.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            remark(line);
        }
    }
}

/// Writes a line to standard error; a failure to do so is nobody's business.
pub fn remark(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes `text` to standard output and ends it with a newline if it has none.
///
/// # Errors
/// [`Error::ClosedOutput`] when the reader has gone, else what the system says (a full disk behind `>`).
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(end.as_bytes()))
        .and_then(|()| out.flush())
        .map_err(|e| closed_or_full(&e))
}

/// What a failed write to standard output means: a reader that has gone is no failure.
pub fn closed_or_full(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Error::ClosedOutput,
        _ => Error::environment(format!(
            "cannot write to standard output: {}; send it to a place that has room",
            reason_of(error)
        )),
    }
}

/// Prints a value as indented JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::environment(format!("cannot form JSON: {e}; please report this")))?;
    print(&text)
}

/// A small left-aligned text table for lists: columns separated by two spaces, no frame, the last column not padded but
/// folded to the width of the terminal.
pub fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    columns_within(header, rows, width())
}

/// [`columns`] for so many characters in a line.
fn columns_within(header: &[&str], rows: &[Vec<String>], columns: usize) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|h| h.to_string()).collect();
    let last = widths.len().saturating_sub(1);
    let begin: usize = widths[..last].iter().map(|width| width + 2).sum();
    let room = columns.saturating_sub(begin);
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths[..last].iter().zip(row) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        let cell = row.get(last).map_or("", String::as_str);
        if cell.chars().count() <= room {
            line.push_str(cell);
        } else if room >= FOLDED {
            let between = format!("\n{}", " ".repeat(begin));
            line.push_str(&wrapped(cell, room, room).join(&between));
        } else {
            line.truncate(line.trim_end().len());
            let room = columns.saturating_sub(BELOW);
            for part in wrapped(cell, room, room) {
                line.extend(std::iter::once('\n').chain(std::iter::repeat_n(' ', BELOW)));
                line.push_str(&part);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Narrowest last column that is folded where it is; a narrower one goes below its row, so far to the right.
const FOLDED: usize = 30;
const BELOW: usize = 4;

/// `81.2 M`, `4.1 k`, `12`: counts for people.
pub fn human_count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

/// `6.81 GiB`, `512 KiB`, `12 B`: bytes for people.
pub fn human_bytes(n: u64) -> String {
    let f = n as f64;
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", f / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2} MiB", f / 1_048_576.0),
        _ => format!("{:.2} GiB", f / 1_073_741_824.0),
    }
}

/// A file in `folder` that becomes the user's when it is whole, with the permissions that files get here; temporary
/// files alone are their owner's.
///
/// # Errors
/// The file system's.
pub fn unfinished_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_is_folded_to_the_width() {
        let header = ["name", "purpose"];
        let rows = [vec![
            "larson".to_owned(),
            "one two three four five six seven".to_owned(),
        ]];
        let narrow = columns_within(&header, &rows, 38);
        assert_eq!(
            narrow,
            "name    purpose\nlarson  one two three four five six\n        seven\n"
        );
        assert!(narrow.lines().all(|line| line.len() <= 38));
        assert_eq!(
            columns_within(&header, &rows, 24),
            "name    purpose\nlarson\n    one two three four\n    five six seven\n"
        );
        let wide = columns_within(&header, &rows, usize::MAX);
        assert_eq!(wide.lines().count(), 2);
    }

    #[test]
    fn columns_line_up() {
        let t = columns(
            &["name", "ops"],
            &[
                vec!["a".into(), "12".into()],
                vec!["larson".into(), "3".into()],
            ],
        );
        assert_eq!(t, "name    ops\na       12\nlarson  3\n");
    }

    #[test]
    fn human_units() {
        assert_eq!(human_count(9_999), "9999");
        assert_eq!(human_count(81_200_000), "81.2 M");
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(7_312_164_455), "6.81 GiB");
    }
}
