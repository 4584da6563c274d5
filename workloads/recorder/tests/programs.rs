//! Real programs: what the final trace says, through the raw file and the resolver, equals what a
//! second counter chained behind the recorder saw in the same run.

mod common;

use common::{compile, round_trip, scratch};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// The interpreter itself: a shim would replace itself by exec several times.
fn python() -> String {
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("python3 runs");
    let shim = String::from_utf8(output.stdout).expect("a path");
    let path = fs::canonicalize(shim.trim()).expect("the interpreter's file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn python_is_counted_equal() {
    let script = "import json\nd = [{'k%d' % i: [i] * 5, 's': 'x' * i} for i in range(2000)]\n\
                  assert len(json.loads(json.dumps(d))) == 2000";
    let stats = round_trip(
        Command::new(python())
            .env("PYTHONMALLOC", "malloc")
            .args(["-c", script]),
    );
    assert!(stats.allocations > 30_000);
    assert!(stats.peak_live_bytes > 2_000_000);
}

#[test]
fn python_with_its_own_small_blocks_is_counted_equal() {
    let stats = round_trip(Command::new(python()).args(["-c", "import json, collections"]));
    assert!(stats.allocations > 200);
}

#[test]
fn sqlite_is_counted_equal() {
    let dir = scratch();
    let script = dir.path().join("script.sql");
    let mut text =
        String::from("create table t (id integer primary key, name text, size int);\nbegin;\n");
    for id in 0..3000 {
        let size = id * 7919 % 1000;
        writeln!(
            text,
            "insert into t values ({id}, 'name {}', {size});",
            "x".repeat(id % 90)
        )
        .expect("writing to a string");
    }
    text.push_str(
        "commit;\ncreate index by_size on t (size);\n\
         select count(*), sum(a.size) from t a join t b on a.size = b.size;\n\
         select size, group_concat(name) from t group by size order by 2 limit 5;\n",
    );
    fs::write(&script, text).expect("script");
    let read = format!(".read {}", script.display());
    let stats = round_trip(Command::new("sqlite3").args([":memory:", &read]));
    assert!(stats.allocations > 10_000);
}

#[test]
fn a_compilers_back_end_is_counted_equal() {
    let dir = scratch();
    let source = dir.path().join("unit.cc");
    let mut text = String::from("#include <map>\n#include <string>\n#include <vector>\n");
    for number in 0..30 {
        writeln!(
            text,
            "struct S{number} {{ std::map<std::string, std::vector<int>> all; int f(int x) {{ \
             auto &v = all[std::to_string(x)]; v.push_back(x * {number}); return (int)v.size(); }} }};\n\
             int g{number}(int x) {{ S{number} s; return s.f(x) + s.f(x + 1); }}"
        )
        .expect("writing to a string");
    }
    fs::write(&source, text).expect("source");
    // The driver only starts it; cc1plus itself is the program with a hundred thousand blocks.
    let path = Command::new("g++")
        .arg("-print-prog-name=cc1plus")
        .output()
        .expect("g++ runs");
    let path = String::from_utf8(path.stdout).expect("a path");
    let stats = round_trip(
        Command::new(path.trim())
            .args([
                "-quiet",
                "-O1",
                "-imultiarch",
                "x86_64-linux-gnu",
                "-o",
                "/dev/null",
            ])
            .arg(&source),
    );
    assert!(
        stats.allocations > 50_000,
        "{} allocations",
        stats.allocations
    );
}

#[test]
fn eight_threads_are_counted_equal_in_the_final_trace() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let stats = round_trip(Command::new(program).arg("handover"));
    assert_eq!(stats.threads, 9);
    assert!(stats.allocations >= 8 * 40_000);
    // How many travel depends on the scheduler; what is left in the 64 boxes the main thread frees.
    assert!(
        stats.remote_frees >= 64,
        "{} remote frees",
        stats.remote_frees
    );
}
