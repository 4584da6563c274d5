//! reports.
pub mod schema;
