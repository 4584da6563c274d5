//! Fits a model to a trace: sizes × deaths × threads × hand-over × time, in the language of `docs/MODELS.md`.
//!
//! What is fitted is what a replay would do: the events of the process that is replayed, thread by thread. `survey`
//! listens once and finds roles (threads that do the same) and `classes` of sizes. `collect` listens again, to the
//! blocks that each role allocates in each class: which of the living ones dies next (the newest, the neighbour of the
//! last, …), how many die in a row, which role's threads free them, and, in parts (`cuts`: two ways are tried), how many are alive
//! and how many calls are made for them. `phrases` finds the sequences of calls that are repeated most, and which
//! follows which. `emit` writes the text. Of several ways to merge classes, to cut the trace and to say phrases again the one is taken whose calls are as well foreseen
//! (`surprise`), whose small caches are missed as often (`asked`) and whose classes have their peaks as far apart (`spread`) as those of
//! the trace. Phrases may lead live sets from their courses about as far as those of the trace go (`waves`). Nothing of the trace but
//! counts of sizes, deaths and threads goes into it.

mod asked;
mod classes;
mod collect;
mod cuts;
mod distribution;
mod emit;
mod extent;
mod phrases;
mod roles;
mod spread;
mod surprise;
mod survey;
mod waves;

use crate::compile::Source;
use crate::error::WorkloadError;
use crate::model::{Model, ModelParams};
use asked::Asked;
use classes::Classes;
use collect::Collected;
use cuts::Cuts;
use distribution::MOST;
use phrases::Phrases;
use rayon::prelude::*;
use roles::Roles;
use spread::Spread;
use surprise::Surprise;
use survey::Survey;

/// Groups of all roles together, about, and of one role at least.
const GROUPS: usize = 16;
const LEAST_GROUPS: usize = 4;
/// Phrases of one role at least, and of one alone.
const LEAST_PHRASES: usize = 8;
const PHRASES: usize = 88;
/// What is tried for what blocks of another size at the peak weigh where classes of sizes are merged.
const STRAYS: [f64; 2] = [0.0, 1.0];
/// How often a trace is listened to: once, and once for each way of merging classes and of cutting it.
const PASSES: u64 = 1 + 2 * STRAYS.len() as u64;
/// A model whose peak of live bytes is so near is good enough.
const NEAR: f64 = 0.02;
/// How much an error of the peak beyond [`NEAR`] weighs beside one in how well calls are known, and from which sum of both on
/// phrases may do more harm than good.
const PEAK_WEIGHT: f64 = 10.0;
const SILENCE: f64 = 0.2;
/// What an error of the sum of the classes' own peaks, as a part of the peak of all, weighs.
const SPREAD_WEIGHT: f64 = 0.5;
/// What an error of the functions called and of the misses of small caches weighs: a miss costs about twice what a branch does that
/// was not foreseen.
const ASKED_WEIGHT: f64 = 2.0;
/// How threads may say again what they said: what is tried, and how many of them first.
const SCOUTS: usize = 6;
const AGAIN: [Option<Again>; 16] = [
    None,
    again(0.9, 100, 4096, false),
    again(0.9, 300, 16384, false),
    again(0.98, 300, 4096, false),
    again(0.9, 300, 16384, true),
    again(0.98, 300, 4096, true),
    again(0.5, 100, 4096, false),
    again(0.9, 100, 4096, true),
    again(0.98, 300, 1024, false),
    again(0.98, 300, 1024, true),
    again(0.98, 300, 16384, false),
    again(0.98, 300, 16384, true),
    again(0.98, 2000, 1024, false),
    again(0.98, 2000, 4096, false),
    again(0.98, 2000, 4096, true),
    again(0.98, 2000, 16384, true),
];

/// How threads say again what they said: see [`crate::model::definition::Recall`].
#[derive(Clone, Copy, Debug)]
struct Again {
    chance: f64,
    calls: u32,
    memory: u32,
    /// Whether so many sizes are others as in the trace; none if not.
    redrawn: bool,
}

const fn again(chance: f64, calls: u32, memory: u32, redrawn: bool) -> Option<Again> {
    Some(Again {
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
    let survey = survey::survey(source, &mut |done, total| progress(done, PASSES * total))?;
    let roles = roles::find(&survey.threads)?;
    let most = (GROUPS / roles.threads.len()).max(LEAST_GROUPS);
    let classes = STRAYS.map(|stray| Classes::of(&survey, most, stray));
    let cuts = [Cuts::of(&survey), Cuts::even(&survey)];
    let ways: Vec<_> = (classes.iter())
        .flat_map(|classes| cuts.iter().map(move |cuts| (classes, cuts)))
        .collect();
    let mut counts = Vec::with_capacity(ways.len());
    for (way, (classes, cuts)) in ways.iter().enumerate() {
        let before = survey.calls * (way as u64 + 1);
        let mut heard = |calls: u64| progress(before + calls, PASSES * survey.calls);
        counts.push(collect::collect(
            source, &survey, &roles, classes, cuts, &mut heard,
        )?);
    }
    let mut searches: Vec<Search<'_>> = (ways.par_iter().zip(&counts))
        .map(|(&(classes, cuts), counts)| {
            let mut search = Search {
                name,
                survey: &survey,
                roles: &roles,
                classes,
                counts,
                cuts,
                phrases: phrases_of(&roles, counts, cuts.len()),
                best: None,
            };
            search.scout()?;
            Ok(search)
        })
        .collect::<Result<_, WorkloadError>>()?;
    searches.sort_by(|a, b| a.worse().total_cmp(&b.worse()));
    // The nearest way is taken to its end.
    let nearest = searches.into_iter().next();
    let found = nearest.map(Search::finish).transpose()?.flatten();
    found.map(|best| best.fitted).ok_or_else(|| {
        WorkloadError::Parameters("the trace has no calls: there is nothing to fit".into())
    })
}

/// What each role says again and again.
fn phrases_of(roles: &Roles, counts: &Collected, parts: usize) -> Vec<Phrases> {
    let roles = &roles.threads;
    let most = (PHRASES / (2 * roles.len() - 1)).max(LEAST_PHRASES);
    (roles.iter())
        .map(|threads| {
            let said: Vec<_> = (threads.iter())
                .map(|&thread| &counts.said[thread as usize][..])
                .collect();
            phrases::find(&said, parts, most)
        })
        .collect()
}

/// Models of one trace, of which the nearest is kept.
struct Search<'a> {
    name: &'a str,
    survey: &'a Survey,
    roles: &'a Roles,
    classes: &'a Classes,
    counts: &'a Collected,
    cuts: &'a Cuts,
    /// By role.
    phrases: Vec<Phrases>,
    best: Option<Best>,
}

/// The nearest model so far.
struct Best {
    fitted: Fitted,
    /// How far it is from the trace.
    worse: f64,
    recall: Option<Again>,
    /// The factor on live sets that the next one begins with.
    factor: f64,
}

impl Search<'_> {
    /// Tries some of what there is to try, to see how near these classes and parts can come.
    fn scout(&mut self) -> Result<(), WorkloadError> {
        (AGAIN[..SCOUTS].iter()).try_for_each(|recall| self.attempt(*recall, WAVES[0]))
    }

    /// Tries the rest. The nearest model.
    fn finish(mut self) -> Result<Option<Best>, WorkloadError> {
        for recall in &AGAIN[SCOUTS..] {
            self.attempt(*recall, WAVES[0])?;
        }
        let recall = self.best.as_ref().and_then(|best| best.recall);
        for waves in &WAVES[1..] {
            self.attempt(recall, *waves)?;
        }
        // Where threads free each other's blocks, phrases may keep live sets from what they are: then each call is drawn alone.
        if self.worse() >= SILENCE {
            self.phrases = self.phrases.iter().map(|_| Phrases::default()).collect();
            self.attempt(None, None)?;
        }
        Ok(self.best)
    }

    /// How far the nearest model so far is from the trace.
    fn worse(&self) -> f64 {
        self.best.as_ref().map_or(f64::INFINITY, |best| best.worse)
    }

    /// What no model of the trace has, in words.
    fn left_out(&self) -> Vec<String> {
        let mut all = self.roles.left_out.clone();
        let (beyond, largest) = (self.survey.beyond, self.survey.largest);
        if beyond > 0 {
            let plural = if beyond == 1 { "" } else { "s" };
            all.push(format!(
                "what {beyond} block{plural} had beyond the {MOST} bytes that a model gives, of {largest} the largest"
            ));
        }
        all
    }

    /// Tries models whose phrases are said again like this, with live sets that follow so much of the trace's waves.
    fn attempt(
        &mut self,
        recall: Option<Again>,
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
                cuts: self.cuts,
                roles: self.roles,
                classes: self.classes,
                counts,
                phrases: &self.phrases,
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
            let least = self.worse();
            if worse < least {
                self.best = Some(Best {
                    fitted: Fitted {
                        text,
                        model,
                        parts: self.cuts.len(),
                        trace_peak: counts.peak_bytes,
                        model_peak: peak,
                        surprise: (counts.surprise.shares(), surprise.shares()),
                        left_out: self.left_out(),
                    },
                    worse,
                    recall,
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
