//! The stored counts: a file that reads back as written, refuses holes, and is judged by the same
//! rules as everything else.

mod common;

use common::{cell, set};
use heaplab_ci::baseline::{Baseline, BaselineError};
use heaplab_ci::{Policy, Verdict};
use heaplab_reports::schema::{ResultSet, Status};

fn figures(instructions: f64) -> ResultSet {
    let metrics = |s: f64| {
        [
            ("instructions", vec![instructions * s; 2]),
            ("peak_live_bytes", vec![1e6, 1e6]),
            ("peak_resident_bytes", vec![5e7, 5.01e7]),
            ("ns_per_op", vec![40.0, 50.0]),
        ]
    };
    let mut threads = cell("larson 100 %", "spanalloc", &metrics(3.0));
    threads.threads = 4;
    set(vec![cell("churn", "spanalloc", &metrics(1.0)), threads])
}

fn stored() -> Baseline {
    Baseline::from_result(&figures(1e8), &Policy::default()).unwrap()
}

#[test]
fn the_file_is_sorted_and_reads_back() {
    let text = stored().to_text();
    assert_eq!(Baseline::parse(&text, "f").unwrap(), stored());
    assert_eq!(text, stored().to_text());
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(lines.len(), 6, "counts and steady memory, no times: {text}");
    assert!(lines.is_sorted());
    assert_eq!(
        lines[0],
        "churn/spanalloc hash-of-churn instructions 100000000 count lower lockstep none"
    );
    assert!(
        lines[3].starts_with("larson%20100%20%25/spanalloc/t4 "),
        "{}",
        lines[3]
    );
    assert!(text.contains("# libc: glibc 2.41\n") && text.contains("# subject spanalloc: 1.0\n"));
}

#[test]
fn the_same_again_passes_and_more_does_not() {
    let run = |f: f64| stored().compare(&figures(f), &Policy::default());
    let report = run(1e8);
    assert_eq!(
        (report.count(Verdict::Pass), report.rows.len()),
        (6, 6),
        "{report:#?}"
    );
    assert_eq!(report.exit_status(true), 0);
    let report = run(1.01e8);
    assert_eq!(
        (report.count(Verdict::Regression), report.exit_status(false)),
        (2, 1)
    );
    assert_eq!(run(0.9e8).count(Verdict::Improvement), 2);
    // Conditions that changed are named beside what they may explain, and stop memory.
    let mut other = figures(1e8);
    other.machine.libc = "glibc 2.42".into();
    let report = stored().compare(&other, &Policy::default());
    assert_eq!(
        (
            report.count(Verdict::NotCompared),
            report.count(Verdict::Pass)
        ),
        (2, 4)
    );
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("libc was glibc 2.41"))
    );
}

#[test]
fn a_lost_cell_is_missing() {
    let mut less = figures(1e8);
    less.cells.pop();
    let report = stored().compare(&less, &Policy::default());
    assert_eq!(
        (report.count(Verdict::Missing), report.exit_status(false)),
        (1, 4)
    );
    assert!(report.rows[0].cell.starts_with("larson 100 %/spanalloc/t4"));
    let mut failed = figures(1e8);
    failed.cells[0].status = Status::Failed;
    assert_eq!(
        stored()
            .compare(&failed, &Policy::default())
            .exit_status(false),
        4
    );
    let empty = Baseline::default().compare(&figures(1e8), &Policy::default());
    assert_eq!(empty.exit_status(false), 4);
}

#[test]
fn what_must_not_be_stored_is_refused() {
    let refused = |change: &dyn Fn(&mut ResultSet)| {
        let mut result = figures(1e8);
        change(&mut result);
        let e = Baseline::from_result(&result, &Policy::default())
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("no baseline can be made: "), "{e}");
        e
    };
    assert!(refused(&|r| r.complete = false).contains("finish"));
    assert!(refused(&|r| r.cells[0].status = Status::Failed).contains("`churn/spanalloc`"));
    assert!(refused(&|r| r.cells.clear()).contains("--measure counts"));
    assert!(refused(&|r| r.cells.push(r.cells[0].clone())).contains("more than once"));
    let shaky = |r: &mut ResultSet| {
        r.cells[0].metrics.get_mut("instructions").unwrap().samples[1].value *= 1.01;
    };
    assert!(refused(&shaky).contains("was not shown to repeat"));
    // A quarantined count is left out instead.
    let policy = Policy::parse(
        "[[quarantine]]\ncell = \"churn/*\"\nmetric = \"instructions\"\nreason = \"r\"\n\
         date = \"2026-11-24\"\n",
        "p",
    )
    .unwrap();
    let mut result = figures(1e8);
    shaky(&mut result);
    assert_eq!(
        Baseline::from_result(&result, &policy)
            .unwrap()
            .values
            .len(),
        5
    );
}

#[test]
fn files_are_read_and_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts.txt");
    assert!(matches!(
        Baseline::read(&path),
        Err(BaselineError::Absent(_))
    ));
    let e = Baseline::read(&path).unwrap_err().to_string();
    assert!(e.contains("heaplab gate baseline update"), "{e}");
    stored().write(&path).unwrap();
    assert_eq!(Baseline::read(&path).unwrap(), stored());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    assert!(
        stored()
            .write(&folder.path().join("no/such/folder"))
            .is_err()
    );
}

#[test]
fn wrong_lines_are_named() {
    let good = "# heaplab baseline 1\nc/s h m 1 count lower lockstep none\n";
    assert!(Baseline::parse(good, "f").is_ok());
    for (text, words) in [
        ("", "empty"),
        (
            "c/s h m 1 count lower lockstep none\n",
            "line 1: `# heaplab baseline 1`",
        ),
        ("# heaplab baseline 2\n", "was expected"),
        (
            "# heaplab baseline 1\nc/s h m 1 count lower lockstep\n",
            "line 2: 8 fields",
        ),
        (
            "# heaplab baseline 1\nc/s h m x count lower lockstep none\n",
            "`x` is no value",
        ),
        (
            "# heaplab baseline 1\nc/s h m inf count lower lockstep none\n",
            "`inf` is no value",
        ),
        (
            "# heaplab baseline 1\nc/s h m 1 count down lockstep none\n",
            "`down` is no direction",
        ),
        (
            "# heaplab baseline 1\nc%zz h m 1 count lower lockstep none\n",
            "starts no code",
        ),
        (
            "# heaplab baseline 1\nc%\u{fc}1 h m 1 count lower lockstep none\n",
            "starts no code",
        ),
    ] {
        let e = Baseline::parse(text, "f").unwrap_err().to_string();
        assert!(
            e.contains(words) && e.starts_with("baseline `f` line"),
            "{text:?}: {e}"
        );
    }
    let twice = format!("{good}c/s h m 2 count lower lockstep none\n");
    assert!(
        Baseline::parse(&twice, "f")
            .unwrap_err()
            .to_string()
            .contains("line 3")
    );
}
