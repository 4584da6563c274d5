//! Builds what travels inside the binary (worker, recorder, spanalloc, competitors) with nested cargo runs into
//! `<target>/embedded`, and writes `embedded.rs` with their bytes and hashes.
//!
//! The nested runs have a target folder and a profile of their own, whatever the outer build is: no lock is shared with
//! it, debug and release builds embed the same files, and jemalloc is compiled once.

use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name inside the binary, and name of the built file.
const FILES: [(&str, &str); 11] = [
    ("heaplab-worker", "heaplab-worker"),
    ("libheaplab_recorder.so", "libheaplab_recorder.so"),
    ("libspanalloc.so", "libspanalloc_preload.so"),
    ("libheaplab_jemalloc.so", "libheaplab_jemalloc.so"),
    ("libheaplab_mimalloc.so", "libheaplab_mimalloc.so"),
    ("libheaplab_null.so", "libheaplab_null.so"),
    ("libheaplab_planted.so", "libheaplab_planted.so"),
    ("libheaplab_mimalloc_v3.so", "libheaplab_mimalloc_v3.so"),
    (
        "libheaplab_recorder_stacks.so",
        "libheaplab_recorder_stacks.so",
    ),
    (
        "libheaplab_statistics_agent.so",
        "libheaplab_statistics_agent.so",
    ),
    (
        "libheaplab_mappings_agent.so",
        "libheaplab_mappings_agent.so",
    ),
];

/// Subjects of a cargo feature each, in a workspace each: `harness/subjects/optional/<name>`.
const OPTIONAL: [&str; 3] = ["snmalloc", "rpmalloc", "tcmalloc"];

/// What the embedded files are made of, from the workspace root.
const SOURCES: [&str; 12] = [
    "Cargo.toml",
    "Cargo.lock",
    "allocator/Cargo.toml",
    "allocator/src",
    "allocator/preload",
    "workloads/ring",
    "workloads/hook",
    "workloads/preloaded",
    "workloads/script",
    "workloads/unwind",
    "workloads/recorder",
    "harness/subjects",
];

/// Variables of cargo that say where things are or how the network is used; all others describe the outer build and
/// would leak into the nested one.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_HTTP_",
    "CARGO_SOURCE_",
];

/// Further variables of the outer build: with them set, clippy or flags meant for it would run in the nested one.
const CLEARED: [&str; 10] = [
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC",
    "RUSTDOC",
    "MAKEFLAGS",
    "MFLAGS",
    "RUSTC_LINKER",
];

fn main() {
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let harness = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let root = harness
        .parent()
        .ok_or("the harness has no workspace above it")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let own = [
        "build.rs",
        "worker/Cargo.toml",
        "worker/src",
        "statistics",
        "mappings",
    ];
    for source in own {
        println!("cargo::rerun-if-changed={}", harness.join(source).display());
    }
    let target = target_folder(&out).join("embedded");
    let packages = [
        "spanalloc-preload",
        "heaplab-recorder",
        "heaplab-recorder-stacks",
        "heaplab-statistics-agent",
        "heaplab-mappings-agent",
        "heaplab-worker",
    ];
    cargo(root, &target, &packages)?;
    cargo(&harness.join("subjects"), &target, &[])?;
    cargo(&harness.join("subjects/mimalloc-v3"), &target, &[])?;
    let mut files: Vec<(String, String)> = FILES
        .iter()
        .map(|(name, built)| ((*name).to_owned(), (*built).to_owned()))
        .collect();
    for name in OPTIONAL {
        let feature = format!("CARGO_FEATURE_{}", name.to_uppercase());
        if std::env::var_os(feature).is_some() {
            cargo(&harness.join("subjects/optional").join(name), &target, &[])?;
            let file = format!("libheaplab_{name}.so");
            files.push((file.clone(), file));
        }
    }
    let mut list = format!("const FILES: [File; {}] = [\n", files.len());
    for (name, built) in &files {
        let path = target.join("embedded").join(built);
        let bytes = fs::read(&path)
            .map_err(|error| format!("{} was not built: {error}", path.display()))?;
        let kept = out.join(name);
        fs::write(&kept, &bytes)?;
        let hash: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        writeln!(
            list,
            "    File {{ name: {name:?}, sha256: {hash:?}, bytes: include_bytes!({:?}) }},",
            kept.display().to_string()
        )?;
    }
    list.push_str("];\n");
    fs::write(out.join("embedded.rs"), list)?;
    Ok(())
}

/// The target folder that this build writes to: the nearest one above OUT_DIR that cargo has marked.
fn target_folder(out: &Path) -> PathBuf {
    let marked = out
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists());
    // Without a mark: <target>/<profile>/build/<package>/out.
    marked
        .or_else(|| out.ancestors().nth(4))
        .unwrap_or(out)
        .to_path_buf()
}

/// Builds packages of a workspace (all of them when none is named).
fn cargo(workspace: &Path, target: &Path, packages: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::var("CARGO")?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if foreign || CLEARED.contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(workspace)
        .args(["build", "--profile", "embedded", "--target-dir"])
        .arg(target);
    for package in packages {
        command.args(["-p", package]);
    }
    if workspace.join("Cargo.lock").exists() {
        command.arg("--locked");
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "the nested build in {} failed ({}):\n{}",
        workspace.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
