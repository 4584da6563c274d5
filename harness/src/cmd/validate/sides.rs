//! Both sides of a validation as they grow: recordings with their replays, and runs of the program.

use super::recordings::Recordings;
use super::rounds::Rounds;
use super::{Trial, programs, replayed};
use crate::error::Error;
use crate::interrupt;
use crate::subject::Subject;
use crate::validation::{Run, Seen};

/// What was measured so far.
pub struct Sides<'a> {
    /// Subjects as they are replayed on.
    pub subjects: &'a [Subject],
    /// The same as they are put into the program.
    pub in_place: &'a [Subject],
    /// What does not come from malloc.
    pub own: programs::Own,
    /// Recordings of the program.
    pub recordings: Recordings,
    /// Peaks of their replays, by subject.
    pub peaks: Rounds<Seen>,
    /// Runs of the program, by subject.
    pub runs: Rounds<Run>,
}

impl Sides<'_> {
    /// Goes on until each subject has as many replays and runs as `wanted` says, a round at a time: what else goes on at the
    /// machine comes and goes, and is then the same for recordings, replays and runs.
    ///
    /// # Errors
    /// A program that cannot be recorded.
    pub fn up_to(
        &mut self,
        wanted: &[u32],
        trial: &Trial<'_>,
        remarks: &mut Vec<String>,
    ) -> Result<(), Error> {
        let last = wanted.iter().copied().max().unwrap_or(0);
        for round in 1..=last {
            let recordings = match trial.args.recordings {
                Some(all) if round == last => all,
                Some(all) => all.min(round),
                None => round,
            };
            self.recordings.up_to(recordings, trial)?;
            if interrupt::requested() {
                return Ok(());
            }
            let so_far: Vec<u32> = wanted.iter().map(|count| round.min(*count)).collect();
            let (recordings, subjects) = (&self.recordings, self.subjects);
            replayed::peaks(&mut self.peaks, recordings, subjects, &so_far, trial);
            let runs = &mut self.runs;
            let live = (self.recordings).middle(|trace| trace.peak_live_bytes);
            programs::runs(
                runs,
                self.in_place,
                (self.own, live),
                &so_far,
                trial,
                remarks,
            );
        }
        Ok(())
    }
}
