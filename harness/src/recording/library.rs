//! The preload library as a file.

use super::failure::ours;
use crate::embed::{self, Embedded};
use crate::error::Error;
use heaplab_workloads::record::StackMode;
use std::path::{Path, PathBuf};

/// The preload library, at a path that the dynamic loader can read: it takes spaces and colons for separators.
pub(super) fn recorder(stacks: StackMode) -> Result<PathBuf, Error> {
    let which = match stacks {
        StackMode::Off => Embedded::Recorder,
        _ => Embedded::RecorderStacks,
    };
    let readable = |path: &Path| !path.to_string_lossy().contains([' ', ':']);
    let path = embed::path(which).map_err(|e| ours(e.to_string()))?;
    if readable(&path) {
        return Ok(path);
    }
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("heaplab-recorder-{user}"));
    let other = embed::path_in(&folder, which).ok().filter(|p| readable(p));
    other.ok_or_else(|| {
        ours(format!(
            "'{}' has a space or a colon, which LD_PRELOAD cannot carry; set XDG_CACHE_HOME to a folder without",
            path.display()
        ))
    })
}
