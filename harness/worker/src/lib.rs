//! The protocol between the harness and its workers; the worker itself is the binary of this package.
pub mod protocol;
