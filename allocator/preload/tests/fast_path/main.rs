//! The golden fast path: which instructions each entry point executes when its cache has a block, counted by kind, and how
//! many instructions the library executes per block in fixed loops; the C and C++ names with each front end, and Rust's interface.
//!
//! callgrind counts how often each instruction of the shipped library ran; those that ran in every iteration of a loop are its
//! fast path, and the disassembly says what they are. The counts are in `../fast_path.txt`: those of fast paths must be equal, those
//! of loops within 1 %. When they change on purpose:
//!
//! ```sh
//! UPDATE_FAST_PATH=1 cargo test -p spanalloc-preload --test fast_path
//! ```
//!
//! Another compiler generates other code: with one the bounds alone are checked, and where `CI` is set, as `.ci/run` does, the test fails.

mod callgrind;
#[path = "../common/mod.rs"]
mod common;
mod disassembly;
mod paths;

use callgrind::{Executed, Run};
use common::{built, compile, library};
use disassembly::{Code, KINDS, disassembly, exports, kind, symbols};
use paths::{LOOPS, NO_FAST_PATH, PATHS, ROUNDS, source};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Rows that call with caches per thread, too, and why.
const NOT_STRAIGHT: [(&str, &str); 5] = [
    (
        "free 64 of data",
        "foreign to the main heap, so found on a slow path",
    ),
    ("posix_memalign 16, 64", "asks where errno is, to keep it"),
    ("posix_memalign 64, 64", "asks where errno is, to keep it"),
    (
        "new aligned 64",
        "what aligns is called: a failure has to throw",
    ),
    ("new aligned nothrow 64", "as above"),
];

/// Instructions by kind of each row, and in all.
type Counts = BTreeMap<String, BTreeMap<&'static str, usize>>;

fn all(counts: &Counts, row: &str) -> usize {
    counts[row].values().sum()
}

/// A row of the table for what ran in every round.
fn row(table: &mut String, counts: &mut Counts, title: &str, hot: &[&Code]) {
    assert!(!hot.is_empty(), "{title}: callgrind saw nothing of it");
    let mut kinds = BTreeMap::<_, usize>::new();
    for code in hot {
        *kinds.entry(kind(&code.text)).or_default() += 1;
    }
    let _ = write!(table, "{title:27}{:>5}", hot.len());
    for kind in KINDS {
        let _ = write!(table, "{:>6}", kinds.get(kind).copied().unwrap_or(0));
    }
    table.push('\n');
    counts.insert(title.to_owned(), kinds);
}

fn head(table: &mut String, name: &str) {
    let _ = write!(table, "\n{name:27}{:>5}", "all");
    for kind in KINDS {
        let _ = write!(table, "{kind:>6}");
    }
    table.push('\n');
}

fn hot<'a>(executed: &Executed, code: &'a BTreeMap<u64, Code>) -> Vec<&'a Code> {
    executed
        .iter()
        .filter(|&(_, &count)| count * 20 >= ROUNDS * 19)
        .filter_map(|(address, _)| code.get(address))
        .filter(|code| !code.function.ends_with("@plt"))
        .collect()
}

/// That a row neither calls nor locks.
fn assert_straight(title: &str, hot: &[&Code]) {
    if let Some(code) = hot.iter().find(|code| code.is_locked_or_call())
        && !NOT_STRAIGHT.iter().any(|(name, _)| *name == title)
    {
        panic!("{title}: a lock or a call in the fast path: {}", code.text);
    }
}

/// The sections of the C and C++ names, with a front end.
fn library_section(table: &mut String, program: &Path, front_end: &str) -> Counts {
    let code = disassembly(library());
    let run = Run::new(front_end, program, Some(&format!("front_end={front_end}")));
    let mut said = run.said.lines();
    let base = said.next().and_then(|line| line.strip_prefix("0x"));
    let base = base.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let base = base.expect("the program says where the library is");
    let name = format!("\"front_end\":\"{front_end}\"");
    assert!(
        said.any(|line| line.replace(' ', "").contains(&name)),
        "the front end is not {front_end}: {}",
        run.said
    );
    let mut counts = Counts::new();
    head(table, &format!("front_end={front_end}"));
    for (number, path) in PATHS.iter().enumerate() {
        // Data has no cache per CPU: all of it is a slow path.
        if front_end == "cpu" && path.title.contains("data") {
            continue;
        }
        let executed = run.executed(number, library(), base);
        let hot = hot(&executed, &code);
        if front_end == "thread" {
            assert_straight(path.title, &hot);
        }
        row(table, &mut counts, path.title, &hot);
    }
    let _ = write!(
        table,
        "\n{:36}{:>10}\n",
        "all instructions per block", "malloc+free"
    );
    for (number, (name, blocks, _)) in LOOPS.iter().enumerate() {
        let executed = run.executed(PATHS.len() + number, library(), base);
        let all: u64 = executed.values().sum();
        let _ = writeln!(
            table,
            "{name:36}{:>10.1}",
            all as f64 / (10 * blocks) as f64
        );
    }
    counts
}

/// The section of Rust's interface, from `examples/rust_paths.rs`.
fn rust_section(table: &mut String) -> Counts {
    let program = built("examples/rust_paths", &["--example", "rust_paths"]);
    let code = disassembly(&program);
    let names = symbols(&program);
    let run = Run::new("rust", &program, None);
    let mut counts = Counts::new();
    head(table, "Rust");
    for (number, line) in run.said.lines().enumerate() {
        let (title, entry) = line.split_once('\t').expect("a title and a name");
        let mut hot = hot(&run.executed(number, &program, 0), &code);
        // The loop around it is in the same file; functions with the same code are one, under one of their names.
        let entry = &code[&names[entry]].function;
        hot.retain(|code| code.function == *entry || code.function.contains("spanalloc"));
        assert_straight(title, &hot);
        row(table, &mut counts, title, &hot);
    }
    counts
}

/// Exported names with the same code, and that none is forgotten.
fn aliases(table: &mut String) {
    let exports = exports(library());
    let with_row: BTreeMap<u64, &str> = PATHS
        .iter()
        .rev()
        .map(|path| (exports[path.entry], path.entry))
        .collect();
    table.push_str("\nthe same code\n");
    for (name, address) in &exports {
        match with_row.get(address) {
            Some(_) if PATHS.iter().any(|path| path.entry == name) => {}
            Some(entry) => {
                let _ = writeln!(table, "{name} = {entry}");
            }
            None => assert!(
                NO_FAST_PATH.contains(&name.as_str()),
                "'{name}' is exported and has no row: add one to PATHS in tests/fast_path/paths.rs, or the name to NO_FAST_PATH"
            ),
        }
    }
}

fn compiler() -> String {
    let output = Command::new("rustc")
        .arg("-V")
        .output()
        .expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn last_number(line: &str) -> Option<f64> {
    line.split_whitespace().last()?.parse().ok()
}

/// Whether a line of the table is as it was.
fn is_as(stored: &str, now: &str) -> bool {
    if stored == now {
        return true;
    }
    let of_loop = LOOPS
        .iter()
        .any(|(name, ..)| stored.starts_with(name) && now.starts_with(name));
    match (last_number(stored), last_number(now)) {
        // Where the heap lies is drawn by lot, and a slow path more or less hangs on it.
        (Some(old), Some(new)) if of_loop => (old - new).abs() <= old * 0.01,
        _ => false,
    }
}

/// The table as stored against the one of now; what is wrong, if anything. `strict`: another compiler is wrong, too.
fn difference(stored: &str, now: &str, strict: bool) -> Option<String> {
    let (made_by, this) = (stored.lines().next(), now.lines().next());
    if made_by != this {
        let what = format!(
            "tests/fast_path.txt was made by '{}', this is '{}': run the test with the former, or make the table anew with UPDATE_FAST_PATH=1",
            made_by.unwrap_or(""),
            this.unwrap_or("")
        );
        if strict {
            return Some(what);
        }
        eprintln!("{what}; only its bounds were checked");
        return None;
    }
    let hint = "differs from tests/fast_path.txt; on purpose? UPDATE_FAST_PATH=1";
    let lines: Vec<String> = stored
        .lines()
        .zip(now.lines())
        .filter(|(stored, now)| !is_as(stored, now))
        .map(|(stored, now)| format!("stored {stored}\nnow    {now}\n"))
        .collect();
    if stored.lines().count() != now.lines().count() {
        return Some(format!("the number of lines {hint}:\n{now}"));
    }
    (!lines.is_empty()).then(|| format!("{hint}:\n{}", lines.concat()))
}

#[test]
fn fast_paths_execute_what_the_table_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fast_path.txt");
    let program = compile("fast_path.c", &source());
    let mut table = String::new();
    let c = library_section(&mut table, &program, "thread");
    let _ = library_section(&mut table, &program, "cpu");
    let rust = rust_section(&mut table);
    aliases(&mut table);
    // Whatever the compiler.
    assert!(all(&c, "malloc 64") <= 16, "malloc has grown:\n{table}");
    assert!(all(&c, "free 64") <= 20, "free has grown:\n{table}");
    // Where the size is known no page map is read: three loads less than where the address alone says the class.
    for (sized, by_address) in [
        (&c["delete sized 64"], &c["delete 64"]),
        (
            &rust["SpanAlloc dealloc 64"],
            &rust["SpanAlloc dealloc 64, 64"],
        ),
        (
            &rust["SpanAlloc dealloc any"],
            &rust["SpanAlloc dealloc 64, 64"],
        ),
    ] {
        assert!(
            sized["load"] + 3 <= by_address["load"],
            "a sized free reads the page map:\n{table}"
        );
    }
    let now = format!("{}\n{table}", compiler());
    if std::env::var_os("UPDATE_FAST_PATH").is_some() {
        std::fs::write(&golden, &now).expect("the table is writable");
    }
    let stored = std::fs::read_to_string(&golden).expect("the table is checked in");
    if let Some(difference) = difference(&stored, &now, std::env::var_os("CI").is_some()) {
        panic!("{difference}");
    }
}

#[test]
fn a_change_is_told_from_what_hangs_on_chance() {
    let loops = LOOPS[0].0;
    let table = |compiler: &str, malloc: u32, per_block: f64| {
        format!("{compiler}\n\nmalloc 64 {malloc}\n{loops:36}{per_block:>10.1}\n")
    };
    let stored = table("rustc 1", 16, 200.0);
    let told = |now: &str, strict| difference(&stored, now, strict);
    assert_eq!(told(&stored, true), None);
    assert_eq!(told(&table("rustc 1", 16, 201.9), true), None);
    for (change, names) in [
        (table("rustc 1", 17, 200.0), "malloc 64 17"),
        (table("rustc 1", 16, 202.1), "202.1"),
        (table("rustc 1", 16, 197.9), "197.9"),
        (format!("{stored}free 64 20\n"), "number of lines"),
    ] {
        let told = told(&change, false).unwrap_or_default();
        assert!(
            told.contains(names) && told.contains("UPDATE_FAST_PATH=1"),
            "{told}"
        );
    }
    let other = table("rustc 2", 16, 200.0);
    assert_eq!(told(&other, false), None);
    let told = told(&other, true).unwrap_or_default();
    assert!(told.contains("'rustc 1', this is 'rustc 2'"), "{told}");
}
