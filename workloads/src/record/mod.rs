//! Recording: the drainer's side of a session with the preload library of `heaplab-recorder`.
//!
//! [`Session`] creates the shared memory and says which environment the program needs;
//! [`Session::drain`] runs beside the program and moves what its threads recorded to a [`Sink`],
//! usually the raw trace's writer. Nothing here touches the program: it may die at any instant, and
//! so may the drainer.
//!
//! `clock` turns ticks into nanoseconds, `chunks` reads records, `stream` keeps a thread's in order and knows what they
//! mean, `drain` is the loop, `processes` knows who takes part, `target` looks at a process through /proc, `cost`
//! measures what recording costs.

mod chunks;
mod clock;
mod cost;
mod drain;
#[cfg(test)]
mod drain_tests;
mod processes;
mod session;
mod sink;
mod stacks;
mod stream;
mod summary;
mod target;

pub use cost::{calibration_loop, measure_cost};
pub use heaplab_ring::stack::StackMode;
pub use processes::NotRecorded;
pub use session::{Session, SessionOptions, Switch};
pub use sink::{Discard, Sink};
pub use summary::DrainSummary;

use crate::trace::TraceError;

/// Why a recording could not begin or go on. The program is never harmed by it.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No shared memory for the records.
    #[error(
        "cannot create the shared memory of the recording ({bytes} bytes): {source}; try a smaller pool or another output folder"
    )]
    Pool {
        /// What was asked for.
        bytes: u64,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The trace could not be written; recording was stopped and the program goes on.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The cost of recording could not be measured.
    #[error("cannot measure the recorder's cost: {0}")]
    Cost(String),
}
