//! Makes tables of what is embedded: model definitions and the traces that lie in `traces/` (none is fine).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let mut code = String::new();
    let models = entries(&here.join("definitions"), "toml", &["suites"]);
    let _ = writeln!(code, "pub(crate) const MODELS: &[(&str, &str)] = &[");
    for (name, path) in models {
        let _ = writeln!(code, "    ({name:?}, include_str!({path:?})),");
    }
    let _ = writeln!(code, "];\npub(crate) const TRACES: &[(&str, &[u8])] = &[");
    for (name, path) in entries(&here.join("traces"), "hltrace", &[]) {
        let _ = writeln!(code, "    ({name:?}, include_bytes!({path:?})),");
    }
    let _ = writeln!(code, "];");
    if let Err(error) = std::fs::write(out.join("embedded.rs"), code) {
        println!("cargo::error=cannot write the table of embedded workloads: {error}");
    }
}

/// (file stem, path) of the files with this extension, sorted by name.
fn entries(folder: &Path, extension: &str, without: &[&str]) -> Vec<(String, PathBuf)> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .collect();
    found.sort();
    found
}
