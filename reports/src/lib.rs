//! Result sets of heaplab and everything made from them: statistics, tables, charts, the HTML report, exports.
//!
//! Data enters as samples and histograms ([`schema::Metric::from_samples`], [`latency_by_op`]) or as a stored
//! `result.json` ([`load`]); it leaves as text (tables and exports), as files (the report) or as a
//! comparison of two sets . Nothing here measures, and nothing here decides a verdict.
#![forbid(unsafe_code)]

mod builder;
mod charts;
mod diff;
mod error;
pub mod export;
mod html;
mod latency;
pub mod profile;
mod report;
pub mod schema;
pub mod shell;
pub mod stats;
mod store;
pub mod table;
pub mod text;
pub mod units;
mod view;

pub use builder::{BASELINE, WorkloadKey, fill_ratios};
pub use diff::{Change, Diff, DiffRow, Direction, diff};
pub use error::ReportError;
pub use latency::{HistogramPart, interval_log, latency_by_op};
pub use report::{ReportOptions, write_report};
pub use store::{RESULT_FILE, RUNS_FILE, load, merge, save_atomic, write_atomic};
pub use table::Style;
