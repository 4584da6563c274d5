//! Report folders, result files, tables and merging, on a synthetic result set.

mod common;

use heaplab_reports::schema::Status;
use heaplab_reports::{
    ReportOptions, Style, diff, export, load, merge, save_atomic, table, write_report,
};

#[test]
fn report_is_self_contained_and_deterministic() {
    let result = common::result_set();
    let dir = tempfile::tempdir().unwrap();
    let files = write_report(&result, dir.path(), &ReportOptions::default()).unwrap();
    let first: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
    let again = write_report(&result, dir.path(), &ReportOptions::default()).unwrap();
    assert_eq!(files, again);
    for (file, bytes) in files.iter().zip(&first) {
        assert_eq!(&std::fs::read(file).unwrap(), bytes, "{}", file.display());
    }
    let page = String::from_utf8(first[0].clone()).unwrap();
    for address in ["http://", "https://", "src=\"/", "url(//", "@import"] {
        assert!(!page.contains(address), "{address}");
    }
    assert!(page.contains("overlapping blocks at op 1,204,331"));
    assert!(page.contains("print(1 &lt; 2)"));
}

#[test]
fn page_and_summary_say_what_a_workload_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let result = common::single();
    let mut options = ReportOptions::default();
    let text = "It asks <this>\nand that.\n\nSource: somebody (1998).";
    (options.analysis).insert(result.cells[0].workload.clone(), text.to_owned());
    options.no_chart_files = true;
    write_report(&result, dir.path(), &options).unwrap();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("<p>It asks &lt;this&gt;\nand that.</p>"));
    assert!(page.contains("<p class=\"dim\">Source: somebody (1998).</p>"));
    let summary = std::fs::read_to_string(dir.path().join("summary.md")).unwrap();
    let (first, rest) = summary.split_once("and that.\n\n").unwrap();
    assert!(first.ends_with("\n\nIt asks &lt;this&gt; "), "{first}");
    assert!(rest.starts_with("Source: somebody (1998).\n\n"));
}

#[test]
fn one_workload_of_a_program_is_asked_for_before_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut result = common::single();
    result.command = ["heaplab", "run", "--", "jq", "."].map(Into::into).to_vec();
    write_report(&result, dir.path(), &ReportOptions::default()).unwrap();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(
        page.contains("heaplab run --only "),
        "the option is heaplab's"
    );
    assert!(!page.contains("jq . --only"), "and not the program's");
}

#[test]
fn result_files_round_trip_and_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let result = common::result_set();
    save_atomic(&result, dir.path()).unwrap();
    assert_eq!(load(dir.path()).unwrap(), result);
    let file = dir.path().join("result.json");
    std::fs::write(&file, "{\"schema\": \"heaplab.result/9\"}").unwrap();
    assert!(
        load(&file)
            .unwrap_err()
            .to_string()
            .contains("heaplab.result/9")
    );
    std::fs::remove_file(&file).unwrap();
    std::fs::write(dir.path().join("runs.jsonl"), "").unwrap();
    assert!(
        load(dir.path())
            .unwrap_err()
            .to_string()
            .contains("--resume")
    );
}

#[test]
fn the_table_says_answer_failures_and_ours() {
    let text = table::render(&common::single(), Style::Plain, None);
    for part in [
        "ANSWER  jemalloc: time -",
        "system 2.36 (today)",
        "(ours)",
        "FAILED: overlapping",
        "live 2.2",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    assert!(export::csv(&common::single()).lines().count() > 40);
}

#[test]
fn shards_merge_in_any_order() {
    let whole = common::result_set();
    let part = |keep: bool| {
        let mut p = whole.clone();
        p.cells.retain(|c| (c.workload == "churn") == keep);
        p
    };
    let a = merge(&[part(true), part(false)]).unwrap();
    assert_eq!(a, merge(&[part(false), part(true)]).unwrap());
    assert_eq!(a.cells.len(), whole.cells.len());
    let mut other = part(true);
    other.cells[0].metrics.get_mut("ns_per_op").unwrap().samples[0].value += 1.0;
    assert!(
        merge(&[whole, other])
            .unwrap_err()
            .to_string()
            .contains("two values of ns_per_op")
    );
}

#[test]
fn diff_of_other_hosts_leaves_times_out() {
    let old = common::result_set();
    let mut new = old.clone();
    new.machine.host_id = "cd".repeat(32);
    new.cells[1].status = Status::Failed;
    let text = diff(&old, &new).render(Style::Plain, true);
    assert!(
        text.contains("not compared: other host") && text.contains("fails now"),
        "{text}"
    );
}

#[test]
fn forty_cells_stay_below_two_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    write_report(&common::large(10), folder.path(), &ReportOptions::default()).unwrap();
    let bytes = std::fs::metadata(folder.path().join("report.html"))
        .unwrap()
        .len();
    assert!(bytes < 2_000_000, "report.html has {bytes} bytes");
}
