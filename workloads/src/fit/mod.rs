//! Fits a model to a trace: sizes × deaths × threads × hand-over × time, in the language of `docs/MODELS.md`.
//!
//! What is fitted is what a replay would do: the events of the process that is replayed, thread by thread. `survey`
//! listens once and finds roles (threads that do the same) and `classes` of sizes. `collect` listens again, to the
//! blocks that each role allocates in each class: which of the living ones dies next (the newest, the neighbour of the
//! last, …), how many die in a row, which role's threads free them, and, in parts of equal length, how many are alive
//! and how many calls are made for them. `phrases` finds the sequences of calls that are repeated most, and which
//! follows which. `emit` writes the text. Of several ways to say phrases again the one is taken whose calls are as well foreseen
//! (`surprise`) and whose classes have their peaks as far apart (`spread`) as those of the trace. Nothing of the trace but
//! counts of sizes, deaths and threads goes into it.

mod classes;
mod collect;
mod distribution;
mod emit;
mod phrases;
mod roles;
mod spread;
mod surprise;
mod survey;

use crate::compile::Source;
use crate::error::WorkloadError;
use crate::model::definition::Recall;
use crate::model::{Model, ModelParams};
use classes::Classes;
use spread::Spread;
use surprise::Surprise;

/// Parts of a trace, and calls of one at least.
const PARTS: u64 = 24;
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
/// What an error of the peaks of all classes together weighs.
const SPREAD_WEIGHT: f64 = 0.25;
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
    let parts = (survey.calls / LEAST_CALLS).clamp(1, PARTS) as usize;
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
    let mut best: Option<(f64, Fitted)> = None;
    let mut good = 1.0;
    let spoken = RECALLS.iter().map(|recall| (&phrases, recall.as_ref()));
    for (phrases, recall) in spoken.chain([(&silent, None)]) {
        // Where threads free each other's blocks, phrases may keep live sets from what they are: then each call is drawn alone.
        if best.as_ref().is_some_and(|(worst, _)| *worst < SILENCE)
            && std::ptr::eq(phrases, &silent)
        {
            break;
        }
        let mut factor = good;
        for _ in 0..=CORRECTIONS {
            let text = emit::text(&emit::Fit {
                name,
                calls: survey.calls,
                threads: survey.threads.iter().filter(|one| one.calls > 0).count(),
                parts,
                roles: &roles,
                classes: &classes,
                counts: &counts,
                phrases,
                recall,
                factor,
            });
            let model = Model::parse(&text, name)?;
            let (mut surprise, mut spread) = (Surprise::default(), Spread::default());
            let peak = model.listen(&ModelParams::default(), &mut |thread, op| {
                surprise.op(thread, op);
                spread.op(thread, op);
            })?;
            let ratio = peak as f64 / counts.peak_bytes.max(1) as f64;
            let error = (ratio - 1.0).abs();
            let spread = spread.bytes() as f64 / counts.spread.bytes().max(1) as f64;
            let worse = surprise.apart(&counts.surprise)
                + SPREAD_WEIGHT * (spread - 1.0).abs()
                + PEAK_WEIGHT * (error - NEAR).max(0.0);
            if best.as_ref().is_none_or(|(least, _)| worse < *least) {
                let fitted = Fitted {
                    text,
                    model,
                    parts,
                    trace_peak: counts.peak_bytes,
                    model_peak: peak,
                    surprise: (counts.surprise.shares(), surprise.shares()),
                    left_out: roles.left_out.clone(),
                };
                best = Some((worse, fitted));
                good = factor;
            }
            if error < NEAR {
                break;
            }
            factor = (factor / ratio.max(1e-3)).clamp(0.5, 2.0);
        }
    }
    best.map(|(_, fitted)| fitted).ok_or_else(|| {
        WorkloadError::Parameters("the trace has no calls: there is nothing to fit".into())
    })
}
