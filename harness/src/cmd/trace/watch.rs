//! Long work on a trace, watched: a bar on a terminal after two seconds, and an orderly end by Ctrl-C.

use crate::interrupt;
use crate::out::{Terminal, remark};
use heaplab_workloads::trace::temporary_path;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(2);
/// Exit status of an interrupted command.
const INTERRUPTED: i32 = 130;

/// What a person sees of it.
pub struct Watch {
    bar: Option<ProgressBar>,
    wanted: bool,
    what: &'static str,
    started: Instant,
    temporary: Option<PathBuf>,
    kept: Option<String>,
}

impl Watch {
    /// `what` is said beside the bar: a verb.
    pub fn new(terminal: &Terminal, what: &'static str) -> Self {
        interrupt::install();
        Self {
            bar: None,
            wanted: terminal.progress,
            what,
            started: Instant::now(),
            temporary: None,
            kept: None,
        }
    }

    /// What is left when the work is interrupted: half a sentence.
    pub fn keeping(mut self, what: String) -> Self {
        self.kept = Some(what);
        self
    }

    /// The unfinished form of this file is removed when the work is interrupted.
    pub fn removing(self, out: &Path) -> Self {
        self.removing_file(temporary_path(out))
    }

    /// This file is removed when the work is interrupted.
    pub fn removing_file(mut self, unfinished: PathBuf) -> Self {
        self.temporary = Some(unfinished);
        self
    }

    /// A function that takes how much is done, and how much there is.
    pub fn events(&mut self) -> impl FnMut(u64, u64) + '_ {
        |done, total| self.update(done, total)
    }

    fn update(&mut self, done: u64, total: u64) {
        if interrupt::requested() {
            self.clear();
            if let Some(unfinished) = &self.temporary {
                // Nothing to be done about an error: the process ends.
                let _ = std::fs::remove_file(unfinished);
            }
            let left = match (&self.kept, &self.temporary) {
                (Some(kept), _) => kept,
                (None, Some(_)) => "nothing was written",
                (None, None) => "not all was read, so nothing is shown",
            };
            remark(&format!("heaplab: interrupted; {left}"));
            std::process::exit(INTERRUPTED);
        }
        if !self.wanted || self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let started = self.started;
            let left = move |state: &ProgressState, text: &mut dyn Write| {
                let left = left(started.elapsed(), state.pos(), state.len().unwrap_or(0));
                // What cannot be drawn is not missed.
                let _ = write!(text, "{:#}", HumanDuration(left));
            };
            let style = ProgressStyle::with_template("{msg} {bar:30} {percent:>3} %  {left} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("left", left);
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                .with_style(style)
                .with_message(self.what)
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// How long the rest takes at the pace from the start; the bar's own estimate begins with the bar and takes what was done
/// before for the work of an instant.
fn left(elapsed: Duration, done: u64, total: u64) -> Duration {
    let pace = elapsed.as_secs_f64() / done.max(1) as f64;
    Duration::from_secs_f64((pace * total.saturating_sub(done) as f64).min(1e9))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_pace_says() {
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(6), 30, 100), seconds(14));
        assert_eq!(left(seconds(2), 100, 100), seconds(0));
        assert!(left(seconds(2), 0, u64::MAX) > seconds(1_000_000));
    }
}
