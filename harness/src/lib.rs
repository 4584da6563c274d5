//! The `heaplab` command: turns a command line into a plan, drives it through worker processes, and hands the results
//! to the reports and the gate.
//!
//! Data enters as arguments, models, traces and programs (`cli`, `workload`), becomes a plan of comparisons (`plan`),
//! is run block by block (`engine`) into a folder that keeps every finished run (`session`), and leaves as one result
//! set (`assemble`). Measuring itself happens in other processes (`exec`, `program`).
#![forbid(unsafe_code)]
pub mod assemble;
pub mod bar;
pub mod calibrate;
pub mod campaign;
pub mod cli;
pub mod clock;
pub mod cmd;
pub mod cost;
pub mod counts;
pub mod disturbance;
pub mod embed;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod exec;
pub mod fingerprint;
pub mod huge_pages;
pub mod interrupt;
pub mod metrics;
pub mod naming;
pub mod out;
pub mod plan;
pub mod profiling;
pub mod program;
pub mod programs;
pub mod progress;
pub mod readback;
pub mod recording;
pub mod render;
pub mod replays;
pub mod script_cache;
pub mod service;
pub mod session;
pub mod subject;
pub mod tails;
pub mod tools;
pub mod validation;
pub mod watch;
pub mod workload;
