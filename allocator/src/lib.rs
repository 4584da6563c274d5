//! spanalloc.
