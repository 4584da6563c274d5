//! What produces operations: models, traces, and their compilation into scripts.
//!
//! Data flows one way: a model or a trace is a source of events in one global order ([`compile::Source`]), the
//! compiler turns addresses of blocks into slots and writes a script, which is all a replay ever sees.

#![deny(unsafe_code)]

pub mod trace;
