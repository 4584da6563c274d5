//! Builds the preload library once as it is shipped, compiles C and C++ programs, and runs
//! programs with and without the library.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for this test file's products, under the target folder.
pub fn scratch() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spanalloc");
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// Path of `libspanalloc_preload.so`, built with the profile that is shipped.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| built("libspanalloc_preload.so", &[]))
}

/// Path of something else of this package, built with the profile that is shipped.
pub fn built(what: &str, arguments: &[&str]) -> PathBuf {
    let target = scratch().join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--profile",
            "embedded",
            "-p",
            "spanalloc-preload",
        ])
        .args(arguments)
        .arg("--manifest-path")
        .arg(manifest().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CLIPPY_ARGS")
        .env_remove("RUSTFLAGS");
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{what} does not build");
    let made = target.join("embedded").join(what);
    assert!(made.exists(), "{} was not built", made.display());
    made
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}

/// The compiler's arguments for the headers: the library's and `check.h`.
pub fn header_folders() -> [String; 2] {
    ["../include", "tests/common"].map(|folder| format!("-I{}", manifest().join(folder).display()))
}

/// Compiles `source` (C, or C++ when `name` ends in `.cpp`) and returns the program's path. Tests that run at the same time
/// compile programs of the same name: each writes into a folder of its own, and the program gets its place when it is whole,
/// as the kernel executes no file that somebody writes.
pub fn compile(name: &str, source: &str) -> PathBuf {
    static COMPILED: AtomicU32 = AtomicU32::new(0);
    let number = COMPILED.fetch_add(1, Ordering::Relaxed);
    let folder = scratch().join(format!("{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let file = folder.join(name);
    let made = folder.join("program");
    let program = scratch().join(name.replace('.', "_"));
    std::fs::write(&file, source).expect("the target folder is writable");
    let compiler = if name.ends_with(".cpp") { "g++" } else { "cc" };
    let output = Command::new(compiler)
        .args([
            "-O1",
            "-g",
            "-fno-builtin",
            "-pthread",
            "-Wno-free-nonheap-object",
            "-w",
        ])
        .args(header_folders())
        .arg(&file)
        .arg("-o")
        .arg(&made)
        // The C23 names and ours are not in glibc: the library supplies them.
        .arg(library())
        .output()
        .unwrap_or_else(|error| panic!("{compiler} does not run ({error}): install gcc and g++"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&made, &program)
        .and_then(|()| std::fs::remove_dir_all(&folder))
        .expect("the target folder is writable");
    program
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}"))
    })
}

/// A command with the library preloaded.
pub fn preloaded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library()).stdin(Stdio::null());
    command
}

/// Runs a program with the library and expects it to succeed; returns its output.
pub fn passes(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Settings under which blocks go other ways: caches per thread, caches per CPU, none, and none behind a quarantine (a
/// small one: what waits in it counts as in use) with guarded blocks.
pub const MODES: [&str; 4] = [
    "",
    "front_end=cpu",
    "check=1",
    "hardened=1,guard_rate=50,quarantine_bytes=64k",
];

/// Runs a program with the library under the settings of each of [`MODES`] and expects it to succeed.
pub fn passes_in_every_mode(program: impl AsRef<std::ffi::OsStr>, arguments: &[&std::ffi::OsStr]) {
    for settings in MODES {
        let mut command = preloaded(&program);
        passes(command.args(arguments).env("SPANALLOC_CONF", settings));
    }
}

/// Runs a command with and without the library: status and standard output must be equal.
pub fn same(program: &str, arguments: &[&str]) {
    let plain = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    let ours = preloaded(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    assert_eq!(
        plain.status,
        ours.status,
        "{}",
        String::from_utf8_lossy(&ours.stderr)
    );
    assert!(
        plain.stdout == ours.stdout,
        "{program} {arguments:?} prints something else"
    );
}
