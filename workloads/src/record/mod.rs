//! Recording: the drainer's side of a session with the preload library of `heaplab-recorder`.
//!
//! [`Session`] creates the shared memory and says which environment the program needs;
//! [`Session::drain`] runs beside the program and moves what its threads recorded to a [`Sink`],
//! usually the raw trace's writer. Nothing here touches the program: it may die at any instant, and
//! so may the drainer.
//!
//! `clock` turns ticks into nanoseconds, `chunks` reads records, `stream` keeps a thread's in order and knows what they
//! mean, `drain` is the loop, `processes` knows who takes part, `guard` counts what a file does not take, `target` looks at a process through /proc, `cost`
//! measures what recording costs, `room` knows what memory there is.

mod chunks;
mod clock;
mod cost;
mod drain;
#[cfg(test)]
mod drain_tests;
mod guard;
mod processes;
mod room;
mod session;
mod sink;
mod stacks;
mod stream;
mod summary;
mod target;

pub use cost::{AGREEING, Cost, calibration_loop, measure_cost};
pub use heaplab_ring::stack::StackMode;
pub use processes::NotRecorded;
pub use room::{POOL_BYTES, default_pool_bytes};
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
    /// The trace could not be written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The trace took no more while the program ran, which went on without being recorded.
    #[error("{source}; {stored} events were written before, {lost} after them are lost")]
    Cut {
        /// What the trace's writer met.
        source: TraceError,
        /// Events that are in the file.
        stored: u64,
        /// Events that are not.
        lost: u64,
    },
    /// The cost of recording could not be measured.
    #[error("cannot measure the recorder's cost: {0}")]
    Cost(String),
}
