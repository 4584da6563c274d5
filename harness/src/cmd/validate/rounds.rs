//! Rounds over subjects: how often each is run, and what came out so far.

use crate::interrupt;
use crate::plan::{Comparison, Item, Kind};
use crate::progress::Progress;
use crate::subject::Subject;
use crate::validation::Samples;

/// What came out for each subject, in the order of the rounds.
pub struct Rounds<T> {
    /// Of each subject, or why it has none.
    pub samples: Vec<Samples<T>>,
}

impl<T> Rounds<T> {
    /// Nothing yet, for so many subjects.
    pub fn new(subjects: usize) -> Self {
        Self {
            samples: (0..subjects).map(|_| Ok(Vec::new())).collect(),
        }
    }

    /// Goes on until each subject has as many as `wanted` says, in rounds over all of them, so that a machine that changes
    /// meanwhile changes for all. A subject that failed is not run again. `run` takes the subject's place and the round.
    pub fn up_to(
        &mut self,
        wanted: &[u32],
        subjects: &[Subject],
        what: &str,
        progress: &Progress,
        mut run: impl FnMut(usize, u32) -> Result<T, String>,
    ) {
        let most = wanted.iter().copied().max().unwrap_or(0);
        for block in 0..most {
            for (at, samples) in self.samples.iter_mut().enumerate() {
                if interrupt::requested() {
                    return;
                }
                let Ok(list) = samples else {
                    continue;
                };
                if block >= wanted[at] || list.len() > block as usize {
                    continue;
                }
                let title = format!("{what} {}", subjects[at].label);
                progress.started(&title);
                match run(at, block) {
                    Ok(figure) => {
                        list.push(figure);
                        progress.finished(&format!("{title}: done"));
                    }
                    Err(reason) => {
                        progress.finished(&format!("{title}: FAILED {reason}"));
                        *samples = Err(reason);
                    }
                }
            }
        }
    }
}

/// A replay of one of the recordings, which the rounds take in turn.
pub fn item(comparisons: &[Comparison], subject: usize, kind: Kind, block: u32) -> Item {
    Item {
        comparison: block as usize % comparisons.len(),
        subject,
        kind,
        block,
        order: subject as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_rounds_go_on_where_the_first_ended_and_only_where_they_are_wanted() {
        let subjects: Vec<Subject> = (crate::subject::parse("system,spanalloc").unwrap())
            .into_iter()
            .chain(crate::subject::parse("mimalloc").unwrap())
            .collect();
        let mut rounds = Rounds::new(3);
        let mut asked = Vec::new();
        let mut go = |rounds: &mut Rounds<u32>, wanted: &[u32]| {
            rounds.up_to(wanted, &subjects, "run", &Progress::none(), |at, block| {
                asked.push((at, block));
                match at {
                    2 => Err("it hangs".into()),
                    _ => Ok(block),
                }
            });
        };
        go(&mut rounds, &[2, 2, 2]);
        go(&mut rounds, &[2, 4, 4]);
        assert_eq!(
            rounds.samples,
            [Ok(vec![0, 1]), Ok(vec![0, 1, 2, 3]), Err("it hangs".into())]
        );
        assert_eq!(
            asked,
            [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
        );
    }
}
