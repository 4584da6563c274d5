//! Traces for other programs: tables of events, and counters over time for trace viewers.

mod chrome;
mod csv;
#[cfg(feature = "parquet")]
mod parquet;

#[cfg(feature = "parquet")]
pub use self::parquet::export_parquet;
pub use chrome::export_chrome;
pub use csv::export_csv;
