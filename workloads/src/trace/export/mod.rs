//! Traces for other programs: tables of events, and counters over time for trace viewers.

mod csv;

pub use csv::export_csv;
