//! The gate: may this change pass?
//!
//! Result sets and a policy go in; verdicts with evidence, an exit status and reports for people
//! and for CI systems come out. Everything here is a pure function of its inputs: no clock, no
//! environment, no process. Measuring is the harness's work, statistics are
//! [`heaplab_reports::stats`]'s, so that table, report and gate cannot disagree.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod baseline;
mod cell;
mod judge;
pub mod policy;
pub mod render;
mod report;
mod rules;
pub mod templates;
pub mod verdict;

pub use cell::{CONTROL_SUFFIX, cell_id, control_label};
pub use judge::{JOB_DETAIL, judge, judge_pair};
pub use policy::{Policy, PolicyError};
pub use report::GateReport;
pub use verdict::{Evidence, Mode, Row, Rule, Verdict};
