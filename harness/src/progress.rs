//! Progress on standard error: a bar on a terminal, plain lines with `-v`.
//!
//! The bar is redrawn only between runs, never by a timer: a thread that wakes up on a two-core machine would disturb
//! the run that is being measured.

use crate::out::{Terminal, remark};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where a session stands.
pub struct Progress {
    bar: Option<ProgressBar>,
    verbose: bool,
}

impl Progress {
    /// A display for about `total` runs (it may grow when blocks are added).
    pub fn new(terminal: &Terminal, total: u64) -> Self {
        let bar = terminal.progress.then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                .with_style(style)
        });
        Self {
            bar,
            verbose: terminal.verbose,
        }
    }

    /// A silent one.
    pub fn none() -> Self {
        Self {
            bar: None,
            verbose: false,
        }
    }

    /// A run begins; drawn now, then left alone until [`Progress::finished`].
    pub fn started(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_string());
            bar.tick();
        }
    }

    /// A run ended; `line` is printed with `-v`.
    pub fn finished(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        if self.verbose {
            self.print(line);
        }
    }

    /// Something to be printed with `-v` that is no run of its own.
    pub fn detail(&self, line: &str) {
        if self.verbose {
            self.print(line);
        }
    }

    /// The number of runs that are expected has changed.
    pub fn expect(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// Prints a line above the bar.
    pub fn print(&self, line: &str) {
        self.aside(|| remark(line));
    }

    /// Lets `speak` write to standard error without the bar in between.
    pub fn aside(&self, speak: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(speak),
            None => speak(),
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
