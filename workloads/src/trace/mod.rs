//! The trace: what a program asked its allocator for, event by event, with threads, times and one global order.
//!
//! `container` knows chunks and checksums, `raw` what a recorder writes (addresses), `resolve` turns that into the final
//! form (block numbers), `writer`/`reader` are the final form. The bytes are described in `docs/TRACE_FORMAT.md`.

mod container;
mod error;
mod event;
mod header;
mod process;
pub mod raw;
mod reader;
mod resolve;
mod source;
mod stats;
mod summary;
mod transform;
mod varint;
mod writer;
mod xxh64;

pub use error::TraceError;
pub use event::{Effect, EventKind, TICK_NS, TraceEvent};
pub use header::{FinishInfo, MachineShape, TraceHeader};
pub use process::{ProcessCounts, ProcessInfo, Start};
pub use reader::{Events, Segment, Trace};
pub use resolve::{ResolveOptions, resolve_file};
pub use source::TraceSource;
pub use stats::{Bucket, LivePoint, TraceStats};
pub use summary::{ThreadInfo, TraceSummary};
pub use transform::{CutOptions, anonymise, cut, export_csv};
pub use writer::TraceWriter;
