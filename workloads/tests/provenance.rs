//! The traces of `traces/` are what `traces/PROVENANCE.md` says, whole, and recorded with what was written of large blocks.

use heaplab_workloads::Workload;

/// All together, bytes: what a clone is asked to carry.
const MOST: u64 = 20_000_000;

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn each_trace_is_what_its_row_says() {
    let table = include_str!("../traces/PROVENANCE.md");
    let mut total = 0;
    let mut found = 0;
    for name in Workload::builtin_names() {
        let workload = Workload::resolve(name).unwrap();
        let Workload::Trace(trace) = &workload else {
            continue;
        };
        found += 1;
        let row: Vec<&str> = table
            .lines()
            .find(|line| line.starts_with(&format!("| {name} | ")))
            .unwrap_or_else(|| panic!("{name} has no row in traces/PROVENANCE.md"))
            .trim_matches(['|', ' '])
            .split(" | ")
            .collect();
        let summary = trace.trace().summary();
        let finish = summary.finish.as_ref().unwrap();
        let bytes = std::fs::metadata(format!("traces/{name}.hltrace"))
            .unwrap()
            .len();
        total += bytes;
        assert_eq!(
            row[4..],
            [
                &trace.trace().header().created[..10],
                &format!("{:.0} ns", finish.recorder_ns_per_event.unwrap()),
                &summary.processes.to_string(),
                &summary.threads.to_string(),
                &thousands(summary.events),
                &format!("{:.1} MiB", summary.peak_live_bytes as f64 / 1048576.0),
                &thousands(bytes),
            ],
            "{name}"
        );
        assert!(summary.complete && finish.lost_events == 0, "{name}");
        // All of jq's blocks are small.
        let says = summary.written_blocks > 0 || name == "jq-records";
        assert!(says, "{name}: nothing says what was written");
        // A replay makes as many calls as the list of workloads says: of several processes it takes one.
        if let Some((process, _)) = trace.process() {
            assert!(process.reallocs > 0, "{name}: {process:?}");
        }
    }
    assert!(found >= 12, "{found}");
    assert!(total <= MOST, "{total}");
    let rows = table.lines().filter(|line| line.starts_with("| ")).count();
    assert_eq!(rows, found + 1, "a row without a trace");
}
