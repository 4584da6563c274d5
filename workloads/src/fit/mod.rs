//! Fits a model to a trace: sizes × deaths × threads × hand-over × time, in the language of `docs/MODELS.md`.
//!
//! What is fitted is what a replay would do: the events of the process that is replayed, thread by thread. `survey`
//! listens once and finds roles (threads that do the same) and `classes` of sizes. `collect` listens again, to the
//! blocks that each role allocates in each class: which of the living ones dies next (the newest, the neighbour of the
//! last, …), how many die in a row, which role's threads free them, and, in parts of equal length, how many are alive
//! and how many calls are made for them. `phrases` finds the sequences of calls that are repeated most, and which
//! follows which. `emit` writes the text. Of several ways to say phrases again the one is taken whose calls are as well foreseen
//! (`surprise`), whose small caches are missed as often (`asked`) and whose classes have their peaks as far apart (`spread`) as those of
//! the trace. Phrases may lead live sets from their courses about as far as those of the trace go (`waves`). Nothing of the trace but
//! counts of sizes, deaths and threads goes into it.

mod asked;
mod classes;
mod collect;
mod distribution;
mod emit;
mod phrases;
mod roles;
mod spread;
mod surprise;
mod survey;
mod waves;

use crate::compile::Source;
use crate::error::WorkloadError;
use crate::model::definition::Recall;
use crate::model::{Model, ModelParams};
use asked::Asked;
use classes::Classes;
use collect::Collected;
use phrases::Phrases;
use roles::Roles;
use spread::Spread;
use surprise::Surprise;
use survey::Survey;

/// Parts of a trace, from and to, and calls of one at least.
const PARTS: (u64, u64) = (20, 26);
const LEAST_CALLS: u64 = 500;
/// Groups of all roles together, about, and of one role at least.
const GROUPS: usize = 16;
const LEAST_GROUPS: usize = 4;
/// Phrases of one role at least, and of one alone.
const LEAST_PHRASES: usize = 8;
const PHRASES: usize = 88;
/// A model whose peak of live bytes is so near is good enough.
const NEAR: f64 = 0.02;
/// How much an error of the peak beyond [`NEAR`] weighs beside one in how well calls are known, and from which sum of both on
/// phrases may do more harm than good.
const PEAK_WEIGHT: f64 = 10.0;
const SILENCE: f64 = 0.2;
/// What an error of the sum of the classes' own peaks, as a part of the peak of all, weighs.
const SPREAD_WEIGHT: f64 = 1.0;
/// What an error of the functions called and of the misses of small caches weighs: a miss costs about twice what a branch does that
/// was not foreseen.
const ASKED_WEIGHT: f64 = 2.0;
/// How a role's threads may say again what they said: what is tried.
const RECALLS: [Option<Recall>; 12] = [
    None,
    recall(0.5, 100, 4096, 0.0),
    recall(0.9, 100, 4096, 0.0),
    recall(0.9, 300, 16384, 0.0),
    recall(0.98, 300, 1024, 0.0),
    recall(0.98, 300, 4096, 0.0),
    recall(0.98, 300, 4096, 0.3),
    recall(0.98, 300, 16384, 0.0),
    recall(0.98, 2000, 1024, 0.0),
    recall(0.98, 2000, 4096, 0.0),
    recall(0.98, 2000, 4096, 0.3),
    recall(0.98, 2000, 16384, 0.3),
];

const fn recall(chance: f64, calls: u32, memory: u32, redrawn: f64) -> Option<Recall> {
    Some(Recall {
        chance,
        calls,
        memory,
        redrawn,
    })
}

/// How phrases may lead live sets from their courses: what is tried.
const WAVES: [Option<Waves>; 4] = [
    follow(1.0, true),
    follow(1.0, false),
    follow(0.4, true),
    None,
];

/// How far phrases may lead live sets from their courses.
#[derive(Clone, Copy, Debug)]
struct Waves {
    /// As a part of what those of the trace do.
    share: f64,
    /// By two runs of deaths at least, as where nothing is told: phrases are said whole, and a few large blocks may be too many.
    runs: bool,
}

const fn follow(share: f64, runs: bool) -> Option<Waves> {
    Some(Waves { share, runs })
}

/// Corrections of live sets by how far the peak is off.
const CORRECTIONS: u32 = 3;

/// A model that was fitted.
#[derive(Debug)]
pub struct Fitted {
    /// The file's text.
    pub text: String,
    /// The model.
    pub model: Model,
    /// Parts that the trace was cut into.
    pub parts: usize,
    /// Largest sum of live bytes of the trace, of the part that the model is of.
    pub trace_peak: u64,
    /// Of the model.
    pub model_peak: u64,
    /// Of the trace and of the model: shares of the calls whose kind, and whose kind and size, do not follow from those before.
    pub surprise: ((f64, f64), (f64, f64)),
    /// What the model leaves out, in words.
    pub left_out: Vec<String>,
}

/// Fits a model called `name`. `progress` gets (done, total) of each pass.
///
/// # Errors
/// A source without calls; a damaged trace.
pub fn fit<S: Source>(
    source: &mut S,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Fitted, WorkloadError> {
    let survey = survey::survey(source, progress)?;
    let roles = roles::find(&survey.threads)?;
    let classes = Classes::of(&survey, (GROUPS / roles.threads.len()).max(LEAST_GROUPS));
    let parts = parts(survey.calls, survey.peak_at);
    let counts = collect::collect(source, &survey, &roles, &classes, parts, progress)?;
    let phrases: Vec<_> = (roles.threads.iter())
        .map(|threads| {
            let said: Vec<_> = (threads.iter())
                .map(|&thread| &counts.said[thread as usize][..])
                .collect();
            phrases::find(
                &said,
                parts,
                (PHRASES / (2 * roles.threads.len() - 1)).max(LEAST_PHRASES),
            )
        })
        .collect();
    let silent: Vec<_> = phrases
        .iter()
        .map(|_| phrases::Phrases::default())
        .collect();
    let mut search = Search {
        name,
        survey: &survey,
        roles: &roles,
        classes: &classes,
        counts: &counts,
        parts,
        best: None,
    };
    for recall in &RECALLS {
        search.attempt(&phrases, recall.as_ref(), WAVES[0])?;
    }
    let recall = search.best.as_ref().and_then(|best| best.recall);
    for waves in &WAVES[1..] {
        search.attempt(&phrases, recall.as_ref(), *waves)?;
    }
    // Where threads free each other's blocks, phrases may keep live sets from what they are: then each call is drawn alone.
    if (search.best.as_ref()).is_none_or(|best| best.worse >= SILENCE) {
        search.attempt(&silent, None, None)?;
    }
    search.best.map(|best| best.fitted).ok_or_else(|| {
        WorkloadError::Parameters("the trace has no calls: there is nothing to fit".into())
    })
}

/// Models of one trace, of which the nearest is kept.
struct Search<'a> {
    name: &'a str,
    survey: &'a Survey,
    roles: &'a Roles,
    classes: &'a Classes,
    counts: &'a Collected,
    parts: usize,
    best: Option<Best>,
}

/// The nearest model so far.
struct Best {
    fitted: Fitted,
    /// How far it is from the trace.
    worse: f64,
    recall: Option<Recall>,
    /// The factor on live sets that the next one begins with.
    factor: f64,
}

impl Search<'_> {
    /// Tries models with these phrases, said again like this, with live sets that follow so much of the trace's waves.
    fn attempt(
        &mut self,
        phrases: &[Phrases],
        recall: Option<&Recall>,
        waves: Option<Waves>,
    ) -> Result<(), WorkloadError> {
        let counts = self.counts;
        let mut factor = self.best.as_ref().map_or(1.0, |best| best.factor);
        for _ in 0..=CORRECTIONS {
            let text = emit::text(&emit::Fit {
                name: self.name,
                calls: self.survey.calls,
                threads: (self.survey.threads.iter())
                    .filter(|one| one.calls > 0)
                    .count(),
                parts: self.parts,
                roles: self.roles,
                classes: self.classes,
                counts,
                phrases,
                recall,
                factor,
                waves,
            });
            let model = Model::parse(&text, self.name)?;
            let (mut surprise, mut spread) = (Surprise::default(), Spread::default());
            let mut asked = Asked::default();
            let peak = model.listen(&ModelParams::default(), &mut |thread, op| {
                surprise.op(thread, op);
                if let (Some((from, to)), Some(kind)) = (spread.op(thread, op), op.kind()) {
                    asked.take(thread, kind, from, to);
                }
            })?;
            let ratio = peak as f64 / counts.peak_bytes.max(1) as f64;
            let error = (ratio - 1.0).abs();
            // As a part of each one's peak: that may be off yet, which is corrected by itself.
            let spread =
                spread.bytes() as f64 / counts.spread.bytes().max(1) as f64 / ratio.max(0.01);
            let behaviour = surprise.apart(&counts.surprise)
                + ASKED_WEIGHT * asked.apart(&counts.asked)
                + SPREAD_WEIGHT * (spread - 1.0).abs();
            let worse = behaviour + PEAK_WEIGHT * (error - NEAR).max(0.0);
            let least = self.best.as_ref().map_or(f64::INFINITY, |best| best.worse);
            if worse < least {
                self.best = Some(Best {
                    fitted: Fitted {
                        text,
                        model,
                        parts: self.parts,
                        trace_peak: counts.peak_bytes,
                        model_peak: peak,
                        surprise: (counts.surprise.shares(), surprise.shares()),
                        left_out: self.roles.left_out.clone(),
                    },
                    worse,
                    recall: recall.copied(),
                    factor: if error < NEAR { factor } else { 1.0 },
                });
            }
            // With the right peak it would not be nearer either.
            if error < NEAR || behaviour > least {
                break;
            }
            let next = (factor / ratio.max(1e-3)).clamp(0.5, 2.0);
            if (next - factor).abs() < 1e-6 {
                break;
            }
            factor = next;
        }
        Ok(())
    }
}

/// How many parts a trace of so many calls is cut into: so many that one ends just after the peak, because a part is told by one
/// level, and what falls after the peak in the same part would not be told.
fn parts(calls: u64, peak_at: u64) -> usize {
    let most = (calls / LEAST_CALLS).clamp(1, PARTS.1);
    // From the peak to the end of its part, in calls.
    let after = |parts: u64| {
        let reached = peak_at as f64 / calls.max(1) as f64 * parts as f64;
        (reached.ceil() - reached) / parts as f64
    };
    let all = most.min(PARTS.0)..=most;
    (all.rev().min_by(|&a, &b| after(a).total_cmp(&after(b)))).unwrap_or(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_just_after_the_peak() {
        assert_eq!(parts(100, 50), 1);
        for peak_at in [77_000, 500_000, 834_000, 961_000, 999_999] {
            let parts = parts(1_000_000, peak_at);
            assert!((20..=26).contains(&parts));
            let after = 1.0 - ((peak_at - 1) as f64 / 1e6 * parts as f64).fract();
            assert!(after < 0.2, "{peak_at}: {after}, {parts} parts");
        }
    }
}
