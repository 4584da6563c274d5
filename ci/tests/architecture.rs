//! The architecture holds itself: which package may use which, where `unsafe` may stand, what lies on the top
//! level, and that every package says what it owns. Nested packages are found by walking the tree, so a new one
//! fails here until it has a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a package may do.
struct Rule {
    /// Folder, relative to the root.
    folder: &'static str,
    /// Packages of this project that it may use in normal dependencies.
    uses: &'static [&'static str],
    /// Registry crates that it may use; `None`: free choice.
    crates: Option<&'static [&'static str]>,
    /// Files or folders, relative to the package, in which `unsafe` may stand; `"."` = anywhere.
    unsafe_in: &'static [&'static str],
}

/// One row a package; the picture of DESIGN in the README of the root.
const RULES: &[Rule] = &[
    Rule {
        folder: "allocator",
        uses: &["heaplab-unwind"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "allocator/preload",
        uses: &["spanalloc"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "allocator/benches",
        uses: &["spanalloc"],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/script",
        uses: &[],
        crates: Some(&["libc"]),
        unsafe_in: &["src/buffer.rs", "src/map.rs", "src/newcomer.rs"],
    },
    Rule {
        folder: "workloads/bounded",
        uses: &[],
        crates: Some(&[]),
        unsafe_in: &[],
    },
    Rule {
        folder: "workloads/ring",
        uses: &[],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/preloaded",
        uses: &[],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/recorder/stacks",
        uses: &[
            "heaplab-hook",
            "heaplab-preloaded",
            "heaplab-ring",
            "heaplab-unwind",
        ],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/symbols",
        uses: &["heaplab-bounded"],
        crates: None,
        unsafe_in: &[],
    },
    Rule {
        folder: "workloads/unwind",
        uses: &[],
        crates: Some(&[]),
        unsafe_in: &[],
    },
    Rule {
        folder: "workloads/hook",
        uses: &["heaplab-ring"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/linked",
        uses: &["heaplab-hook", "heaplab-ring"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/recorded",
        uses: &["heaplab-hook", "heaplab-ring"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads/recorder",
        uses: &[
            "heaplab-hook",
            "heaplab-preloaded",
            "heaplab-ring",
            "heaplab-unwind",
        ],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "workloads",
        uses: &[
            "heaplab-bounded",
            "heaplab-script",
            "heaplab-ring",
            "heaplab-unwind",
        ],
        crates: None,
        unsafe_in: &["src/map.rs"],
    },
    Rule {
        folder: "reports",
        uses: &["heaplab-bounded"],
        crates: None,
        unsafe_in: &[],
    },
    Rule {
        folder: "ci",
        uses: &["heaplab-bounded", "heaplab-reports"],
        crates: None,
        unsafe_in: &[],
    },
    Rule {
        folder: "harness/mappings",
        uses: &[],
        crates: Some(&[]),
        unsafe_in: &[],
    },
    Rule {
        folder: "harness/mappings/agent",
        uses: &["heaplab-mappings", "heaplab-preloaded"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/statistics",
        uses: &[],
        crates: Some(&[]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/statistics/agent",
        uses: &["heaplab-preloaded", "heaplab-statistics"],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/worker",
        uses: &["heaplab-script", "heaplab-statistics"],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness",
        uses: &[
            "heaplab-bounded",
            "heaplab-ci",
            "heaplab-mappings",
            "heaplab-reports",
            "heaplab-ring",
            "heaplab-script",
            "heaplab-statistics",
            "heaplab-symbols",
            "heaplab-worker",
            "heaplab-workloads",
        ],
        crates: None,
        unsafe_in: &[],
    },
    Rule {
        folder: "harness/subjects/jemalloc",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/mimalloc",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/mimalloc-v3",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/optional/rpmalloc",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/optional/snmalloc",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/optional/tcmalloc",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/null",
        uses: &[],
        crates: None,
        unsafe_in: &["."],
    },
    Rule {
        folder: "harness/subjects/planted",
        uses: &[],
        crates: Some(&["libc"]),
        unsafe_in: &["."],
    },
];

/// Everything that may be seen on the top level of a checkout.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "allocator",
    "harness",
    "workloads",
    "reports",
    "ci",
];

/// Names of this project's own packages start like this.
fn is_ours(name: &str) -> bool {
    name.starts_with("heaplab") || name.starts_with("spanalloc")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("ci lies in the root")
        .to_path_buf()
}

/// Visits every file below `folder`, leaving out hidden folders and build outputs.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    // A package of benches alone has no `src`.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "heaplab-results" {
            continue;
        }
        if path.is_dir() {
            walk(&path, visit)
        } else {
            visit(&path)
        }
    }
}

/// Folders of all packages (manifests that have a `[package]`), relative to the root.
fn packages() -> BTreeMap<String, toml::Table> {
    let root = root();
    let mut found = BTreeMap::new();
    walk(&root, &mut |path| {
        if path.file_name().is_some_and(|name| name == "Cargo.toml") {
            let table: toml::Table = fs::read_to_string(path)
                .unwrap()
                .parse()
                .unwrap_or_else(|e| panic!("{path:?}: {e}"));
            if table.contains_key("package") {
                let folder = path.parent().unwrap().strip_prefix(&root).unwrap();
                found.insert(folder.to_string_lossy().into_owned(), table);
            }
        }
    });
    found
}

/// Normal (and build) dependencies of a manifest; `cfg(loom)` ones and dev-dependencies are exempt.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut add = |table: &toml::Table| {
        for kind in ["dependencies", "build-dependencies"] {
            if let Some(list) = table.get(kind).and_then(|v| v.as_table()) {
                names.extend(list.iter().map(|(name, value)| {
                    let real = value.get("package").and_then(|p| p.as_str());
                    real.unwrap_or(name).to_owned()
                }));
            }
        }
    };
    add(manifest);
    if let Some(targets) = manifest.get("target").and_then(|v| v.as_table()) {
        for (condition, table) in targets {
            if condition != "cfg(loom)" {
                add(table.as_table().expect("target tables are tables"));
            }
        }
    }
    names
}

/// Lines of a source file on which the keyword `unsafe` stands outside comments, strings and attributes such as
/// `forbid(unsafe_code)`. A line-based reading is enough here: it errs towards reporting.
fn unsafe_lines(source: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        let mut in_string = false;
        let stripped: String = code
            .chars()
            .filter(|&c| {
                if c == '"' {
                    in_string = !in_string;
                }
                !in_string
            })
            .collect();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        if stripped
            .split(|c: char| !is_word(c))
            .any(|word| word == "unsafe")
        {
            lines.push(number + 1);
        }
    }
    lines
}

#[test]
fn every_package_has_a_row_and_every_row_a_package() {
    let found: BTreeSet<String> = packages().into_keys().collect();
    let ruled: BTreeSet<String> = RULES.iter().map(|rule| rule.folder.to_owned()).collect();
    assert_eq!(
        found, ruled,
        "left: packages in the tree, right: rows of the table"
    );
}

#[test]
fn packages_use_only_what_they_may() {
    for (folder, manifest) in packages() {
        let Some(rule) = RULES.iter().find(|rule| rule.folder == folder) else {
            continue;
        };
        for name in dependencies(&manifest) {
            if is_ours(&name) {
                assert!(
                    rule.uses.contains(&name.as_str()),
                    "{folder} must not use {name}"
                );
            } else if let Some(allowed) = rule.crates {
                assert!(
                    allowed.contains(&name.as_str()),
                    "{folder} must not use the crate {name}"
                );
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let root = root();
    let mut checked = 0;
    for rule in RULES {
        let base = root.join(rule.folder);
        let nested: Vec<PathBuf> = RULES
            .iter()
            .filter(|other| other.folder != rule.folder)
            .map(|other| root.join(other.folder))
            .filter(|other| other.starts_with(&base))
            .collect();
        walk(&base.join("src"), &mut |path| {
            if path.extension().is_none_or(|e| e != "rs")
                || nested.iter().any(|n| path.starts_with(n))
            {
                return;
            }
            checked += 1;
            let inside = path.strip_prefix(&base).unwrap();
            let allowed = rule
                .unsafe_in
                .iter()
                .any(|place| *place == "." || inside.starts_with(place));
            let lines = unsafe_lines(&fs::read_to_string(path).unwrap());
            assert!(
                allowed || lines.is_empty(),
                "{path:?} uses unsafe on lines {lines:?}"
            );
        });
        if rule.unsafe_in.is_empty() {
            for crate_root in ["src/lib.rs", "src/main.rs"].map(|f| base.join(f)) {
                if crate_root.exists() {
                    let text = fs::read_to_string(&crate_root).unwrap();
                    assert!(
                        text.contains("#![forbid(unsafe_code)]"),
                        "{crate_root:?} must forbid unsafe code"
                    );
                }
            }
        }
    }
    assert!(
        checked > 50,
        "only {checked} source files were found: the walk is broken"
    );
}

#[test]
fn the_scan_for_unsafe_sees_what_it_should() {
    assert_eq!(unsafe_lines("unsafe { f() }"), [1]);
    assert_eq!(unsafe_lines("a\npub unsafe fn f() {}"), [2]);
    assert!(unsafe_lines("// unsafe\n#![forbid(unsafe_code)]\nlet s = \"unsafe\";").is_empty());
}

#[test]
fn the_top_level_is_what_was_agreed() {
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let generated = name == "target" || name == "heaplab-results";
        assert!(
            name.starts_with('.') || generated || TOP_LEVEL.contains(&name.as_str()),
            "{name} does not belong on the top level"
        );
    }
}

#[test]
fn every_package_says_what_it_owns() {
    for folder in packages().into_keys() {
        let readme = root().join(&folder).join("README.md");
        let text = fs::read_to_string(&readme).unwrap_or_else(|e| panic!("{readme:?}: {e}"));
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(
            lines >= 4,
            "{readme:?} must say what the package owns, what not, and how data enters and leaves"
        );
    }
}

#[test]
fn every_package_names_its_licence() {
    for (folder, manifest) in packages() {
        let license = manifest["package"]
            .get("license")
            .unwrap_or_else(|| panic!("{folder}: no licence"));
        let inherited = license.get("workspace").and_then(|v| v.as_bool()) == Some(true);
        assert!(
            inherited || license.as_str() == Some("MIT OR Apache-2.0"),
            "{folder}: licence must be MIT OR Apache-2.0"
        );
    }
}
