//! Where allocations come from: modules, addresses in them, stacks as a tree, and their names once resolved.
//!
//! `table` is the model, `chunks` its bytes in the final form, `raw` what the recorder's drainer writes, `build` makes the
//! one from the other, `read` gives the stack of each event.

mod build;
mod chunks;
mod embed;
pub mod raw;
mod read;
mod table;

pub(super) use build::{RawStacks, Refs};
pub(super) use chunks::encode_event_stacks;
pub use embed::embed_symbols;
pub use table::{
    Frame, Module, StackTable, StackTableBuilder, Symbol, Symbols, sample_probability,
};
