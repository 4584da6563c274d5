//! Runs the built `heaplab` in a folder of its own.

use std::path::Path;
use std::process::{Command, Output};

/// A command in `folder`, without colour and without stray settings.
pub fn heaplab(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heaplab"));
    command
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env_remove("LD_PRELOAD");
    command
}

/// Runs to the end; exit status, standard output, standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("heaplab starts");
    (
        status.code().unwrap_or(-1),
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}
