//! A bar on a terminal for work that takes longer than two seconds: a verb, the share that is done, the time that is left.

use crate::out::Terminal;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a person sees of long work.
pub struct Bar {
    bar: Option<ProgressBar>,
    wanted: bool,
    what: &'static str,
    started: Instant,
}

impl Bar {
    /// `what` is said beside the bar: a verb. The work begins now.
    pub fn new(terminal: &Terminal, what: &'static str) -> Self {
        Self {
            bar: None,
            wanted: terminal.progress,
            what,
            started: Instant::now(),
        }
    }

    /// So much is done of so much.
    pub fn at(&mut self, done: u64, total: u64) {
        if !self.wanted || self.started.elapsed() < PATIENCE {
            return;
        }
        let (started, what) = (self.started, self.what);
        let bar = self.bar.get_or_insert_with(|| {
            let left = move |state: &ProgressState, text: &mut dyn Write| {
                let left = left(started.elapsed(), state.pos(), state.len().unwrap_or(0));
                // What cannot be drawn is not missed.
                let _ = write!(text, "{:#}", HumanDuration(left));
            };
            let style = ProgressStyle::with_template("{msg} {bar:30} {percent:>3} %  {left} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("left", left);
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                // Before the first drawing, which else says that nothing is done and years are left.
                .with_position(done)
                .with_style(style)
                .with_message(what)
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

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How long the rest takes at the pace from the start; the bar's own estimate begins with the bar and takes what was done
/// before for the work of an instant.
fn left(elapsed: Duration, done: u64, total: u64) -> Duration {
    let pace = elapsed.as_secs_f64() / done.max(1) as f64;
    Duration::from_secs_f64((pace * total.saturating_sub(done) as f64).min(1e9))
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
