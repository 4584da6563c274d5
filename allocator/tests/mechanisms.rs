//! The table of mechanisms in docs/DESIGN.md: its rows are all there, what they name exists, and each shows something
//! or says why it does not apply.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files of the package and of the preload library's tests.
fn sources() -> Vec<PathBuf> {
    let mut folders = vec![
        root().join("src"),
        root().join("tests"),
        root().join("preload/tests"),
    ];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Names of test functions: those that `#[test]` stands above, attributes between.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in sources() {
        let text = read(&file);
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                marked = true;
            } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                let name = rest.split('(').next().unwrap_or_default();
                names.insert(name.to_owned());
                marked = false;
            } else if !line.starts_with("#[") {
                marked = false;
            }
        }
    }
    names
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Fields of the statistics, from their document (another test compares that with the JSON).
fn statistics() -> BTreeSet<String> {
    let text = read(&root().join("docs/STATS.md"));
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|line| {
        quoted(line.split('|').nth(1).unwrap_or_default())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    })
    .collect()
}

struct Row<'a> {
    number: &'a str,
    place: &'a str,
    shows: &'a str,
}

fn rows(document: &str) -> Vec<Row<'_>> {
    let (_, table) = document
        .split_once("\n| # | mechanism")
        .expect("the table of mechanisms");
    let lines = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 4, "a row has four cells: {line}");
            Row {
                number: cells[0],
                place: cells[2],
                shows: cells[3],
            }
        })
        .collect()
}

/// What is wrong with the rows.
fn problems(rows: &[Row], tests: &BTreeSet<String>, statistics: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        if row.number != (at + 1).to_string() {
            found.push(format!("row {} is number {}", at + 1, row.number));
        }
        for name in quoted(row.place) {
            let file = root().join("src").join(name);
            let is_name = name.contains(char::is_uppercase)
                || name.starts_with("spanalloc_")
                || !name.starts_with(char::is_lowercase);
            if !is_name && name != "no_std" && !file.with_extension("rs").exists() && !file.is_dir()
            {
                found.push(format!("row {}: no file of the name {name}", row.number));
            }
        }
        let mut shown = 0;
        for name in quoted(row.shows) {
            if tests.contains(name) || statistics.contains(name) {
                shown += 1;
            } else if !root().join(name).exists() && !name.contains('=') {
                found.push(format!(
                    "row {}: {name} is neither a test nor a statistic",
                    row.number
                ));
            }
        }
        if shown == 0 && !row.shows.starts_with("not applicable") {
            found.push(format!("row {} shows nothing", row.number));
        }
    }
    found
}

#[test]
fn every_mechanism_shows_something_that_exists() {
    let document = read(&root().join("docs/DESIGN.md"));
    let rows = rows(&document);
    assert!(rows.len() >= 46, "{} rows", rows.len());
    let found = problems(&rows, &tests(), &statistics());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The positive control: rows that have rotted.
#[test]
fn rows_that_name_nothing_are_noticed() {
    let document = "\n| # | mechanism | where | observable |\n|---|---|---|---|\n\
        | 1 | good | `central` | `spans`, `every_mechanism_shows_something_that_exists` |\n\
        | 2 | moved | `centrals` | `spans` |\n\
        | 3 | renamed | `central` | `a_test_that_was_here`, `spans` |\n\
        | 4 | nothing | `central` | well tested |\n\
        | 6 | reason | – | not applicable: it is another language's |\n";
    let found = problems(&rows(document), &tests(), &statistics());
    let expected = [
        "row 2: no file",
        "row 3: a_test_that_was_here is neither",
        "row 4 shows nothing",
        "row 5 is number 6",
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}
