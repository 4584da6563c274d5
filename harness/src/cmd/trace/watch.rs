//! Long work on a trace, watched: a bar on a terminal after two seconds, and an orderly end by Ctrl-C.

use crate::interrupt;
use crate::out::{Terminal, remark};
use heaplab_workloads::trace::temporary_path;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
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
            let style = ProgressStyle::with_template("{msg} {bar:30} {percent} %  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
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

impl Drop for Watch {
    fn drop(&mut self) {
        self.clear();
    }
}
