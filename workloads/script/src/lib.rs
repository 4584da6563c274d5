//! The script: a workload compiled for replay. From here on a synthetic and a recorded workload are the same thing.
//!
//! A script file holds, in this order: a header, the thread table, one array of [`Op`] per thread
//! (64-byte aligned), the global order (run-length: thread, number of its ops), and the names of phases.
//! See [`file`] for the exact layout. This crate is small on purpose: the worker links it.

#![deny(unsafe_code)]

mod buffer;
mod cursor;
mod error;
pub mod file;
mod hash;
mod layout;
mod map;
mod newcomer;
mod op;
mod pieces;
mod reader;
mod settled;
mod spill;
mod writer;

pub use error::ScriptError;
pub use file::{Cursor, Part, Run, Runs, Script, ScriptInfo, ScriptWriter};
pub use op::{FLAG_INHERITED, FLAG_SHARED, MAX_SIZE, Op, OpKind};
