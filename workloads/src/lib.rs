//! What produces operations: models, traces, and their compilation into scripts.
//!
//! Data flows one way: a model or a trace is a source of events in one global order ([`compile::Source`]), the
//! compiler turns addresses of blocks into slots and writes a script, which is all a replay ever sees.
//! [`Workload`] is the door: a name or a path in, a script out.

#![deny(unsafe_code)]

mod builtin;
pub mod cached;
mod chain;
pub mod compile;
mod error;
mod expected;
pub mod figures;
pub mod fit;
pub mod model;
mod nearest;
pub mod profile;
pub mod record;
mod suite;
pub mod trace;
mod workload;

pub use error::WorkloadError;
pub use expected::Expected;
pub use model::{Model, ModelParams};
pub use nearest::nearest;
pub use suite::{Suite, suite, suites};
pub use trace::Trace;
pub use workload::{CompiledScript, Kind, Params, TraceWorkload, Workload, WorkloadInfo};

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
