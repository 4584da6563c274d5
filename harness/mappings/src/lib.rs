//! The address ranges that a program maps by itself, and the file in which the agent in it keeps them for the harness. Nothing
//! here allocates: the agent is called in the middle of allocations.
#![no_std]
#![forbid(unsafe_code)]

mod page;
mod ranges;

pub use page::{
    CAPACITY, COUNT_AT, FOLLOWED, LOST, PAGE_BYTES, RANGES_AT, RENEWALS, RENEWALS_AT, RENEWED_AT,
    SEQUENCE_AT, STATE_AT, UNSETTLED_AT,
};
pub use ranges::{Full, Range, Ranges};
