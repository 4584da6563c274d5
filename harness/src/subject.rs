//! Subjects: from the words of the command line (`SPEC`) to the library, the environment and the label of an allocator
//! under test.

mod elf;
pub mod settings;

pub use elf::{Elf, GO, inspect};
pub(crate) use elf::{Function, functions};

use crate::embed::{self, Embedded};
use crate::error::Error;
use heaplab_workloads::nearest;
use std::path::{Path, PathBuf};

/// One allocator under test, ready to be put into a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What rows call it: the label of the SPEC, else the name with its settings.
    pub label: String,
    /// Its name: a known one, or the file name of a library.
    pub name: String,
    /// What goes into `LD_PRELOAD`; `None` for the system's allocator.
    pub library: Option<PathBuf>,
    /// Settings as given.
    pub settings: Vec<(String, String)>,
    /// Environment that carries the settings.
    pub env: Vec<(String, String)>,
    /// It is this project's own.
    pub ours: bool,
}

/// Name of every subject that is a build of the program of its own.
const VARIANT: &str = "variant";

impl Subject {
    /// A build of a program with an allocator linked in (`--variant`): nothing is put into it.
    pub fn variant(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            name: VARIANT.to_owned(),
            library: None,
            settings: Vec::new(),
            env: Vec::new(),
            ours: false,
        }
    }

    /// Whether it is one.
    pub fn is_variant(&self) -> bool {
        self.name == VARIANT
    }
}

/// A subject that `list subjects` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Name for `-a`.
    pub name: &'static str,
    /// Where it comes from, in a few words.
    pub origin: &'static str,
    /// Why it cannot be used here.
    pub unavailable: Option<String>,
}

/// Default of `-a`.
pub const DEFAULT: &str = "system,jemalloc,mimalloc,spanalloc";

/// Where a known name leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    System,
    Inside(Embedded),
    /// In builds with the cargo feature of the subject's name; else a shared object to look for, if there is one.
    Feature(Embedded, &'static [&'static str]),
    /// Shared objects to look for, best first.
    Installed(&'static [&'static str]),
}

const NAMES: [(&str, &str, Source); 12] = [
    ("system", "the C library's malloc", Source::System),
    ("jemalloc", "built in", Source::Inside(Embedded::Jemalloc)),
    (
        "mimalloc",
        "built in, v2 line",
        Source::Inside(Embedded::Mimalloc),
    ),
    (
        "mimalloc-v3",
        "built in, v3 line",
        Source::Inside(Embedded::MimallocV3),
    ),
    (
        "spanalloc",
        "built in, ours",
        Source::Inside(Embedded::Spanalloc),
    ),
    (
        "null",
        "built in, calibration only",
        Source::Inside(Embedded::Null),
    ),
    (
        "planted",
        "built in, the C library's malloc made worse on purpose (gate self-test)",
        Source::Inside(Embedded::Planted),
    ),
    (
        "tcmalloc",
        "Google's with the feature tcmalloc, else the installed library (gperftools)",
        Source::Feature(
            Embedded::Tcmalloc,
            &["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"],
        ),
    ),
    (
        "snmalloc",
        "with the feature snmalloc",
        Source::Feature(Embedded::Snmalloc, &[]),
    ),
    (
        "rpmalloc",
        "with the feature rpmalloc",
        Source::Feature(Embedded::Rpmalloc, &[]),
    ),
    (
        "jemalloc-installed",
        "installed library",
        Source::Installed(&["libjemalloc.so.2"]),
    ),
    (
        "mimalloc-installed",
        "installed library",
        Source::Installed(&["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0"]),
    ),
];

const LIBRARY_FOLDERS: [&str; 6] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
];

/// All names that `-a` knows.
pub fn known() -> Vec<Known> {
    NAMES
        .iter()
        .map(|&(name, origin, source)| Known {
            name,
            origin,
            unavailable: match source {
                Source::Installed(files) if installed(files).is_none() => {
                    Some(format!("{} is not installed", files[0]))
                }
                Source::Feature(which, files) if !which.is_here() && installed(files).is_none() => {
                    Some(format!(
                        "not in this build: cargo build --release --features {name}"
                    ))
                }
                _ => None,
            },
        })
        .collect()
}

/// Reads one `-a` argument: `NAME`, `PATH.so`, `NAME:key=value,…`, each with `LABEL=` before it, or a comma list of
/// plain names.
///
/// # Errors
/// For an unknown name or setting (naming what exists) and for a file that is no shared library for this machine.
pub fn parse(spec: &str) -> Result<Vec<Subject>, Error> {
    if spec.contains(':') {
        return Ok(vec![parse_one(spec)?]);
    }
    let list: Vec<_> = spec
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    if list.is_empty() {
        return Err(Error::usage(format!(
            "no subject is named in '{spec}'; known are {}",
            names()
        )));
    }
    list.into_iter().map(parse_one).collect()
}

fn parse_one(spec: &str) -> Result<Subject, Error> {
    let (label, rest) = match spec.split_once('=') {
        Some((label, rest)) if !label.contains([':', '/']) => (Some(label.trim()), rest),
        _ => (None, spec),
    };
    if label == Some("") {
        return Err(Error::usage(format!(
            "the label before '=' in '{spec}' is empty; write LABEL=NAME"
        )));
    }
    let (name, settings) = match rest.split_once(':') {
        Some((name, settings)) => (name, settings::split(rest, settings)?),
        None => (rest, Vec::new()),
    };
    let (name, library, ours) = locate(name)?;
    let family = family(&name, library.as_deref());
    let env = settings::environment(&family, &settings)?;
    let shown = if settings.is_empty() {
        name.clone()
    } else {
        let pairs: Vec<_> = settings
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        format!("{name}:{}", pairs.join(","))
    };
    Ok(Subject {
        label: label.map_or(shown, str::to_owned),
        name,
        library,
        settings,
        env,
        ours,
    })
}

/// Name, library, whether it is ours.
fn locate(name: &str) -> Result<(String, Option<PathBuf>, bool), Error> {
    if name.contains('/') || name.contains(".so") {
        let path = library_at(Path::new(name))?;
        let file = path.file_name().map_or_else(
            || name.to_owned(),
            |file| file.to_string_lossy().into_owned(),
        );
        return Ok((file, Some(path), false));
    }
    let Some(&(known, _, source)) = NAMES.iter().find(|(known, _, _)| *known == name) else {
        let near = nearest(name, NAMES.iter().map(|(known, _, _)| *known));
        let hint = near.map_or(String::new(), |near| format!(", did you mean '{near}'?"));
        return Err(Error::usage(format!(
            "unknown subject '{name}'{hint}; known are {}, or give the path of a .so file",
            names()
        )));
    };
    let library = match source {
        Source::System => None,
        Source::Inside(which) => Some(embed::path(which)?),
        Source::Feature(which, _) if which.is_here() => Some(embed::path(which)?),
        Source::Feature(_, files) => Some(installed(files).ok_or_else(|| {
            Error::environment(format!(
                "subject '{name}' is not in this build; `cargo build --release --features {name}` brings it in, or give \
                 the path of a .so file"
            ))
        })?),
        Source::Installed(files) => Some(installed(files).ok_or_else(|| {
            Error::environment(format!(
                "subject '{name}' needs {}, which is not installed; install it or give the path of a .so file",
                files[0]
            ))
        })?),
    };
    Ok((known.to_owned(), library, name == "spanalloc"))
}

/// Whose settings a subject reads: its name, or, for a library whose file name tells nothing, with the allocator that its
/// symbols tell of.
fn family(name: &str, library: Option<&Path>) -> String {
    const TOLD: [&str; 4] = ["jemalloc", "mimalloc", "spanalloc", "tcmalloc"];
    let told = |text: &str| TOLD.iter().any(|told| text.contains(told));
    library
        .filter(|_| name.contains(".so") && !told(name))
        .and_then(|path| elf::inspect(path).ok()?.carried_allocator())
        .filter(|allocator| told(allocator))
        .map_or_else(
            || name.to_owned(),
            |allocator| format!("{allocator} in {name}"),
        )
}

/// Checks that a file can be preloaded here.
fn library_at(path: &Path) -> Result<PathBuf, Error> {
    let shown = path.display();
    let full = std::path::absolute(path)
        .and_then(|full| full.canonicalize())
        .map_err(|error| Error::io("use", path, &error))?;
    match elf::inspect(&full) {
        Ok(elf) if elf.shared => {}
        Ok(_) => {
            return Err(Error::usage(format!(
                "'{shown}' is a program, not a shared library; give a .so file"
            )));
        }
        Err(reason) => {
            return Err(Error::usage(format!(
                "'{shown}' is not a shared library for this machine: {reason}; give a .so file for x86-64 Linux"
            )));
        }
    }
    // The loader splits LD_PRELOAD at these.
    if full.to_string_lossy().contains([':', ' ']) {
        return Err(Error::usage(format!(
            "'{shown}' has a colon or space in its path, which LD_PRELOAD cannot carry; copy it elsewhere"
        )));
    }
    Ok(full)
}

fn installed(files: &[&str]) -> Option<PathBuf> {
    files
        .iter()
        .flat_map(|file| {
            LIBRARY_FOLDERS
                .iter()
                .map(move |folder| Path::new(folder).join(file))
        })
        .find(|path| path.exists())
}

fn names() -> String {
    NAMES
        .iter()
        .map(|(name, _, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_labels_and_settings() {
        let list = parse("system,mine=jemalloc").unwrap();
        assert_eq!(list[0].label, "system");
        assert_eq!(list[0].library, None);
        assert_eq!(
            (list[1].label.as_str(), list[1].name.as_str()),
            ("mine", "jemalloc")
        );
        let one = parse("fast=jemalloc:dirty_decay_ms=0,narenas=2")
            .unwrap()
            .remove(0);
        assert_eq!(one.label, "fast");
        assert_eq!(
            one.env,
            [(
                "_RJEM_MALLOC_CONF".to_owned(),
                "dirty_decay_ms:0,narenas:2".to_owned()
            )]
        );
        let one = parse("mimalloc:purge_delay=0").unwrap().remove(0);
        assert_eq!(one.label, "mimalloc:purge_delay=0");
        assert_eq!(
            one.env,
            [("MIMALLOC_PURGE_DELAY".to_owned(), "0".to_owned())]
        );
        assert!(parse("spanalloc").unwrap()[0].ours);
    }

    #[test]
    fn wrong_words_are_named() {
        for (spec, wanted) in [
            (
                "jemaloc",
                "unknown subject 'jemaloc', did you mean 'jemalloc'?; known are system, jemalloc",
            ),
            ("system:arena=1", "system has no setting 'arena'"),
            ("system:arena_max=abc", "'abc' is no number"),
            (
                "jemalloc:decay",
                "'decay' in 'jemalloc:decay' is not key=value",
            ),
            ("=system", "label"),
            ("", "no subject is named"),
            ("/nowhere/lib.so", "/nowhere/lib.so"),
        ] {
            let error = parse(spec).unwrap_err().to_string();
            assert!(error.contains(wanted), "{spec}: {error}");
        }
    }

    #[test]
    fn a_text_file_and_a_program_are_no_libraries() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("lib.so");
        std::fs::write(&text, "hello").unwrap();
        let error = parse(text.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("is not a shared library"), "{error}");
        assert!(
            parse("null").unwrap()[0]
                .library
                .as_deref()
                .is_some_and(Path::exists)
        );
    }
}
