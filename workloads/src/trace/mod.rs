//! The trace: what a program asked its allocator for, event by event, with threads, times and one global order.
//!
//! `chunk` and `container` know chunks and checksums, `raw` what a recorder writes (addresses), `resolve` turns that into the final
//! form (block numbers), `writer`/`reader` are the final form. The bytes are described in `docs/TRACE_FORMAT.md`.

mod alone;
mod checkpoint;
mod chunk;
mod columns;
mod container;
mod encoder;
mod error;
mod event;
mod export;
mod header;
mod import;
mod index;
pub mod packed;
mod planes;
mod process;
pub mod raw;
mod reach;
mod reader;
mod resolve;
mod segments;
mod source;
pub mod stacks;
mod stats;
mod summary;
mod transform;
mod varint;
mod writer;
mod xxh64;

pub use error::TraceError;
pub use event::{Effect, EventKind, TICK_NS, TraceEvent};
#[cfg(feature = "parquet")]
pub use export::export_parquet;
pub use export::{export_chrome, export_csv};
pub use header::{FinishInfo, MachineShape, TraceHeader};
pub use heaplab_ring::stack::StackMode;
pub use import::{ImportFormat, ImportOptions, import};
pub use index::Segment;
pub use process::{ProcessCounts, ProcessInfo, Start};
pub use reader::{Events, Trace};
pub use resolve::{ResolveOptions, resolve_file};
pub use source::TraceSource;
pub use stacks::{StackTable, embed_symbols, sample_probability};
pub use stats::{Bucket, LivePoint, TraceStats};
pub use summary::{ThreadInfo, TraceSummary};
pub use transform::{
    CutOptions, MergeOptions, MergeStart, ScaleOptions, anonymise, cut, merge, one_process, repack,
    scale,
};
pub use writer::{TraceWriter, replaceable, temporary_path};
