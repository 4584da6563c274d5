//! Fits a model to a trace: sizes × lifetimes × threads × hand-over × phases, in the language of `docs/MODELS.md`.
//!
//! The trace is cut into phases of equal numbers of events. In each phase, the blocks that a role's threads allocate are split
//! into classes by size; a class of a phase is a group of the model, with its sizes, the ages at which its blocks die within
//! the phase (counted in allocations of the group and the thread), and its share of the calls. What survives the phase is
//! dropped at the beginnings of later phases, in the shares that the trace shows; what is never freed stays. `collect` counts
//! over the trace, `emit` writes the text. Nothing of the trace but counts of sizes, ages and threads goes into it.

mod collect;
mod distribution;
mod emit;
mod roles;

use crate::error::WorkloadError;
use crate::model::{Model, ModelParams};
use crate::trace::Trace;

/// Numbers of phases that are tried, one after the other.
const PHASES: [usize; 4] = [6, 12, 24, 48];
/// A model whose peak of live bytes is so near is good enough.
const NEAR: f64 = 0.03;

/// A model that was fitted.
#[derive(Debug)]
pub struct Fitted {
    /// The file's text.
    pub text: String,
    /// The model.
    pub model: Model,
    /// Phases that the trace was cut into.
    pub phases: usize,
    /// Largest sum of live bytes of the trace, of the part that the model is of.
    pub trace_peak: u64,
    /// Of the model.
    pub model_peak: u64,
    /// What the model leaves out, in words.
    pub left_out: Vec<String>,
}

/// Fits a model called `name`. `progress` gets (done, total) of each pass.
///
/// # Errors
/// A trace without calls; a damaged one.
pub fn fit(
    trace: &Trace,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Fitted, WorkloadError> {
    let roles = roles::find(trace)?;
    let mut best: Option<(f64, Fitted)> = None;
    for phases in PHASES {
        // Phases of a few events are noise.
        if best.is_some() && trace.summary().events / (phases as u64) < 5_000 {
            break;
        }
        let counts = collect::collect(trace, &roles, phases, progress)?;
        let text = emit::text(name, trace, &roles, &counts);
        let model = Model::parse(&text, name)?;
        let peak = model.peak(&ModelParams::default())?;
        let error = (peak.live_bytes as f64 / counts.peak_bytes.max(1) as f64 - 1.0).abs();
        let fitted = Fitted {
            text,
            model,
            phases,
            trace_peak: counts.peak_bytes,
            model_peak: peak.live_bytes,
            left_out: roles.left_out.clone(),
        };
        // More phases must be worth their lines.
        if best.as_ref().is_none_or(|(least, _)| error < 0.8 * least) {
            best = Some((error, fitted));
        }
        if best.as_ref().is_some_and(|(least, _)| *least < NEAR) {
            break;
        }
    }
    best.map(|(_, fitted)| fitted).ok_or_else(|| {
        WorkloadError::Parameters("the trace has no calls: there is nothing to fit".into())
    })
}
