//! The trace: what a program asked its allocator for, event by event, with threads, times and one global order.
//!
//! `container` knows chunks and checksums, `raw` what a recorder writes (addresses), `resolve` turns that into the final
//! form (block numbers), `writer`/`reader` are the final form. The bytes are described in `docs/TRACE_FORMAT.md`.

mod container;
mod error;
mod header;
pub mod raw;
mod varint;
mod xxh64;

pub use error::TraceError;
pub use header::{FinishInfo, MachineShape, TraceHeader};
