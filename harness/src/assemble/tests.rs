//! Result sets from runs that were never made.

use super::*;
use crate::disturbance::Disturbance;
use crate::plan::tests::comparison;
use heaplab_worker::protocol::MemoryCurve;
use serde_json::json;
use std::collections::BTreeMap;

fn line(subject: &str, measure: &str, block: u32, answer: Value) -> RunLine {
    RunLine {
        workload: "churn".into(),
        subject: subject.into(),
        measure: measure.into(),
        block,
        order: 0,
        api: "malloc".into(),
        threads: 1,
        workload_hash: "00ff".into(),
        status: Status::Ok,
        reason: None,
        answer,
    }
}

fn subject(name: &str) -> Subject {
    Subject {
        name: name.into(),
        version: String::new(),
        path: String::new(),
        sha256: String::new(),
        settings: BTreeMap::new(),
        stats_at_end: None,
        stats_at_peak: None,
        notes: Vec::new(),
    }
}

fn set(lines: &[RunLine]) -> ResultSet {
    let comparisons = [comparison("churn", &[Kind::Speed, Kind::Memory])];
    assemble(Input {
        machine: Machine::default(),
        command: vec!["heaplab".into()],
        seed: 7,
        started: String::new(),
        finished: String::new(),
        subjects: vec![subject("system"), subject("x")],
        comparisons: &comparisons,
        shape: &|kind| (kind.default_mode(), kind.default_touch()),
        cpus: 2,
        lines,
        notes: Vec::new(),
        complete: true,
    })
}

fn speed_answer(wall_ns: u64, wait_ns: u64) -> Value {
    let report = Report {
        calls: 1000,
        wall_ns,
        wait_ns,
        ..Report::default()
    };
    let mut answer = serde_json::to_value(report).unwrap();
    answer["subject"]["version"] = json!("9.9");
    answer
}

fn memory_answer(live: u64) -> Value {
    let curve = MemoryCurve {
        ops: vec![1, 2],
        time_ns: vec![1, 2],
        live_bytes: vec![0, live],
        usable_bytes: vec![0, live + 100],
        resident_bytes: vec![1000, 2 * live + 1000],
        peak_resident_bytes: 2 * live + 1000,
        live_at_peak_resident_bytes: live,
        usable_at_peak_resident_bytes: live + 100,
        peak_live_bytes: live,
        resident_at_peak_live_bytes: 2 * live + 1000,
        resident_at_peak_resident_bytes: 2 * live + 1000,
        usable_at_peak_live_bytes: live + 100,
        mean_resident_bytes: live + 1000,
        ..MemoryCurve::default()
    };
    let report = Report {
        start_anon_bytes: 5000,
        memory: Some(curve),
        ..Report::default()
    };
    let mut answer = serde_json::to_value(report).unwrap();
    answer[BASELINE_KEY] = json!(1000);
    answer
}

#[test]
fn times_ratios_versions_and_marks() {
    let lines = [
        line("system", "speed", 0, speed_answer(20_000, 0)),
        line("x", "speed", 0, speed_answer(10_000, 5_000)),
        line(NULL, "speed", 0, speed_answer(4_000, 0)),
    ];
    let r = set(&lines);
    assert_eq!(r.cells[0].metrics["ns_per_op"].median, 20.0);
    assert_eq!(
        r.cells[1].metrics["ns_per_op"]
            .ratio_to_system
            .unwrap()
            .median,
        0.5
    );
    assert_eq!(r.cells[1].metrics["ops_per_s"].median, 1e8);
    assert_eq!(r.subjects[1].version, "9.9");
    assert_eq!(r.calibration.null_ns_per_op, Some(4.0));
    assert_eq!(r.notes.len(), 2, "{:?}", r.notes);
    assert!(
        r.notes[0].contains("in 1 of 2 cells, most in churn t1/x: 40 %; it is the same"),
        "{:?}",
        r.notes
    );
    assert!(
        r.notes[1].contains("in 1 of 2 cells, most in churn t1/x: 50 %; the time per op"),
        "{:?}",
        r.notes
    );
}

#[test]
fn programs_whose_time_could_not_be_sampled_have_no_share_and_it_is_said() {
    let mut answer = speed_answer(20_000, 0);
    answer["not_sampled"] = json!("Permission denied (os error 13)");
    let notes = set(&[line("system", "program", 0, answer)]).notes;
    let said = notes.iter().any(|note| {
        note.contains("was not sampled: Permission denied") && note.contains("perf_event_paranoid")
    });
    assert!(said, "{notes:?}");
}

#[test]
fn memory_runs_whose_huge_pages_the_kernel_refused_or_made_unasked_are_named() {
    let said = |runs: [[u64; 2]; 2]| {
        let answer = |[refused, collapsed]: [u64; 2]| {
            let mut answer = memory_answer(1 << 20);
            answer[HUGE_REFUSED_KEY] = json!(refused);
            answer[HUGE_COLLAPSED_KEY] = json!(collapsed);
            answer
        };
        let lines = [
            line("system", "memory", 0, answer(runs[0])),
            line("x", "memory", 0, answer(runs[1])),
        ];
        let mut notes = set(&lines).notes;
        notes.retain(|note| note.contains("huge page"));
        notes
    };
    assert_eq!(said([[0, 0], [0, 0]]), Vec::<String>::new());
    let both = said([[0, 1], [3, 0]]);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].contains("in 1 of 2 memory runs")
            && both[0].contains("churn/x block 1: 3 times")
            && both[0].contains("lower"),
        "{both:?}"
    );
    assert!(
        both[1].contains("churn/system block 1: 1 times") && both[1].contains("higher"),
        "{both:?}"
    );
}

#[test]
fn resident_figures_leave_the_worker_out_and_tiny_ratios_are_absent() {
    let r = set(&[
        line("system", "memory", 0, memory_answer(100_000)),
        line("x", "memory", 0, memory_answer(1000)),
    ]);
    let m = &r.cells[0].metrics;
    assert_eq!(m["peak_resident_bytes"].median, 200_000.0);
    assert_eq!(m["start_resident_bytes"].median, 4000.0);
    assert_eq!(m["footprint_at_peak_live"].median, 2.0);
    assert_eq!(m["rounding_at_peak_bytes"].median, 100.0);
    assert_eq!(m["unused_resident_at_peak_bytes"].median, 99_900.0);
    assert_eq!(
        (
            m["peak_live_bytes"].mode.as_str(),
            m["peak_live_bytes"].touch.as_str()
        ),
        ("lockstep", "page")
    );
    assert_eq!(
        r.cells[0].timeline.as_ref().unwrap().resident_bytes,
        [0, 200_000]
    );
    assert!(!r.cells[1].metrics.contains_key("footprint_at_peak_live"));
    assert!(r.cells[1].metrics.contains_key("peak_resident_bytes"));
}

#[test]
fn a_failure_is_a_row_without_figures_and_a_hole_says_so() {
    let mut bad = line("x", "memory", 1, Value::Null);
    bad.status = Status::Failed;
    bad.reason = Some("overlapping blocks at op 5".into());
    let r = set(&[line("x", "speed", 0, speed_answer(10_000, 0)), bad]);
    assert_eq!(r.cells[0].status, Status::Skipped);
    assert_eq!(r.cells[1].status, Status::Failed);
    assert!(r.cells[1].metrics.is_empty());
    assert_eq!(
        r.cells[1].reason.as_deref(),
        Some("overlapping blocks at op 5 (block 2, memory)")
    );
}

#[test]
fn a_busy_machine_is_said_of_the_whole_measurement_and_a_quiet_one_is_not() {
    let quiet = Disturbance {
        others: 0.02,
        seconds: 90.0,
        ..Disturbance::default()
    };
    assert_eq!(marks::throughout(&quiet), None);
    let busy = Disturbance {
        others: 0.4,
        steal: 0.01,
        ..quiet
    };
    let said = marks::throughout(&busy).unwrap();
    assert!(
        said.contains("other programs took 40 %") && said.contains("the host 1 %"),
        "{said}"
    );
}
