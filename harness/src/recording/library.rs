//! The preload library as a file.

use super::failure::ours;
use crate::embed::{self, Embedded};
use crate::error::Error;
use heaplab_workloads::record::StackMode;
use std::path::PathBuf;

/// The preload library, at a path that the dynamic loader can read.
pub(super) fn recorder(stacks: StackMode) -> Result<PathBuf, Error> {
    let which = match stacks {
        StackMode::Off => Embedded::Recorder,
        _ => Embedded::RecorderStacks,
    };
    embed::preloadable(which).map_err(|error| ours(error.to_string()))
}
