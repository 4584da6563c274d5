//! What the integration tests share: building the recorder and small C programs, running a program
//! under the recorder with a counting library behind it, and checking what was recorded.
#![allow(dead_code, unused_imports)] // each test binary uses its part

mod recorded;
mod run;

pub use recorded::Recorded;
pub use run::{
    Counted, Run, counted, record, record_alone, record_with, round_trip, round_trip_alone, run,
};

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The preload library, built with this test's profile and target folder.
pub fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| built("heaplab-recorder", &["--lib"], "libheaplab_recorder.so"))
}

/// The archive that a package builds.
pub fn archive(package: &str, file: &str) -> PathBuf {
    built(package, &["--lib"], file)
}

/// An example of this package.
pub fn example(name: &str) -> PathBuf {
    let package = env!("CARGO_PKG_NAME");
    built(package, &["--example", name], &format!("examples/{name}"))
}

fn built(package: &str, arguments: &[&str], file: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let exe = std::env::current_exe().expect("own path");
    let profile = exe.ancestors().nth(2).expect("profile folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", package, "--manifest-path"]);
    build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    build
        .args(arguments)
        .arg("--target-dir")
        .arg(profile.parent().expect("target folder"));
    match profile.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => {}
        Some(name) => {
            build.args(["--profile", name]);
        }
    }
    assert!(
        build.status().expect("cargo runs").success(),
        "{build:?} failed"
    );
    let path = profile.join(file);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// Waits until something is so; fails after a minute.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(
            start.elapsed().as_secs() < 60,
            "{what}: not within a minute"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A folder for what a test makes, removed with it.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

/// Compiles `programs/<name>.c` into `dir`; `shared` makes it a library.
pub fn compile(dir: &Path, name: &str, shared: bool) -> PathBuf {
    let out = if shared {
        format!("lib{name}.so")
    } else {
        name.to_owned()
    };
    let options: &[&str] = if shared { &["-shared", "-fPIC"] } else { &[] };
    compile_as(dir, "cc", &format!("{name}.c"), &out, options)
}

/// Compiles `programs/<name>.c` to a program that loads no library.
pub fn compile_static(dir: &Path, name: &str) -> PathBuf {
    compile_as(dir, "cc", &format!("{name}.c"), name, &["-static"])
}

/// Compiles a file of `programs` into `dir` as `out`.
pub fn compile_as(
    dir: &Path,
    compiler: &str,
    source: &str,
    out: &str,
    options: &[&str],
) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/programs")
        .join(source);
    let out = dir.join(out);
    let mut command = Command::new(compiler);
    command.args([
        "-O1",
        "-g",
        "-Wall",
        "-Wno-alloc-size-larger-than",
        "-fno-builtin",
    ]);
    command.args(["-pthread", "-D_GNU_SOURCE"]);
    // Libraries are looked through for what the source before them needs.
    command.arg("-o").arg(&out).arg(&source).args(options);
    // What it warns of is told only where it fails: these programs do what compilers warn of.
    let compiled = command.output().expect("the compiler runs");
    assert!(
        compiled.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    out
}
