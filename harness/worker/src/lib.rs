//! The protocol between the harness and its workers, and what needs no process to be tested; the worker itself is the binary of this package.
pub mod doing;
pub mod elsewhere;
pub mod fill;
pub mod peak;
pub mod protocol;
pub mod slip;
