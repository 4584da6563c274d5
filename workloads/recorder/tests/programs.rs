//! Real programs, each counted equal by a second counter chained in the same run.

mod common;

use common::record;
use std::process::Command;

/// The interpreter itself: a shim would replace itself by exec several times.
fn python() -> String {
    let output = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("python3 runs");
    let shim = String::from_utf8(output.stdout).expect("a path");
    let path = std::fs::canonicalize(shim.trim()).expect("the interpreter's file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn python_is_counted_equal() {
    let script = "import json\nd = [{'k%d' % i: [i] * 5, 's': 'x' * i} for i in range(2000)]\n\
                  assert len(json.loads(json.dumps(d))) == 2000\nprint('done')";
    let run = record(
        Command::new(python())
            .env("PYTHONMALLOC", "malloc")
            .args(["-c", script]),
    );
    assert!(run.status.success());
    assert_eq!(run.stdout, "done\n");
    assert!(run.recorded.allocations() > 30_000);
    run.recorded.check();
    run.assert_counts_equal();
}
