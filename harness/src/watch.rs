//! Long work on a trace or a script, watched: a bar on a terminal after two seconds, and an orderly end by Ctrl-C.

use crate::bar::Bar;
use crate::interrupt;
use crate::out::{Terminal, remark};
use heaplab_workloads::trace::temporary_path;
use std::path::{Path, PathBuf};

/// Exit status of an interrupted command.
const INTERRUPTED: i32 = 130;

/// What a person sees of it.
pub struct Watch {
    bar: Bar,
    temporary: Option<PathBuf>,
    kept: Option<String>,
}

impl Watch {
    /// `what` is said beside the bar: a verb.
    pub fn new(terminal: &Terminal, what: &'static str) -> Self {
        interrupt::install();
        Self {
            bar: Bar::new(terminal, what),
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
        self.bar.at(done, total);
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        self.bar.clear();
    }
}
