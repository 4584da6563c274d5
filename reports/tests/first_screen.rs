//! What the first screen says: the answer and what it must not claim, the row of today, how much the allocator can matter.

mod common;

use common::{result_set, single};
use heaplab_reports::schema::{Better, Metric, Recorded, ResultSet, Sample, Status, WorkloadFacts};
use heaplab_reports::{ReportOptions, Style, export, fill_ratios, table, write_report};

fn screen(result: &ResultSet) -> String {
    table::render(result, Style::Plain, Some("r/report.html"))
}

/// Keeps the first `blocks` blocks of every metric.
fn shortened(mut result: ResultSet, blocks: u32) -> ResultSet {
    for metric in result.cells.iter_mut().flat_map(|c| c.metrics.values_mut()) {
        let kept = metric.samples.iter().copied().filter(|s| s.block < blocks);
        let (unit, mode, touch) = (&metric.unit, &metric.mode, &metric.touch);
        *metric = Metric::from_samples(unit, metric.better, mode, touch, kept.collect()).unwrap();
    }
    fill_ratios(&mut result);
    result
}

fn recorded(result: &mut ResultSet, allocator: &str, cpu_s: Option<f64>) {
    result.workloads = vec![WorkloadFacts {
        workload_hash: result.cells[0].workload_hash.clone(),
        ops: 81_200_000,
        recorded: Some(Recorded {
            cpus: 64,
            allocator: allocator.to_owned(),
            command: vec!["./server".into(), "--port".into(), "80".into()],
            cpu_s,
        }),
    }];
}

#[test]
fn few_blocks_name_no_winner() {
    let whole = screen(&single());
    assert!(
        whole.contains("\n* ") && !whole.contains("no difference is claimed"),
        "{whole}"
    );
    let few = screen(&shortened(single(), 3));
    assert!(
        few.contains("ANSWER  no difference is claimed from fewer than 6 blocks"),
        "{few}"
    );
    assert!(!few.contains("\n* ") && few.contains("(range "), "{few}");
    assert!(!few.contains("Could have been shown"), "{few}");
}

#[test]
fn subjects_beyond_the_answer_are_counted_in_it() {
    let mut result = single();
    for name in ["rpmalloc", "snmalloc", "tcmalloc"] {
        let of = |label: &str| label == "jemalloc";
        let mut subject = (result.subjects.iter().find(|s| of(&s.name)).cloned()).unwrap();
        let mut cell = (result.cells.iter().find(|c| of(&c.subject)).cloned()).unwrap();
        name.clone_into(&mut subject.name);
        name.clone_into(&mut cell.subject);
        result.subjects.push(subject);
        result.cells.push(cell);
    }
    // Six of them: one leads and four follow, or four without a leader.
    assert!(screen(&result).contains("1 more in the table."));
    assert!(screen(&shortened(result, 3)).contains("2 more in the table."));
    assert!(!screen(&single()).contains("more in the table"));
}

/// Two builds of a library, or two rivals: the one named first is at 1, everywhere, and that is said.
#[test]
fn without_the_systems_allocator_the_first_subject_is_the_baseline() {
    for mut result in [single(), result_set()] {
        result.subjects.retain(|s| s.name != "system");
        result.cells.retain(|c| c.subject != "system");
        fill_ratios(&mut result);
        assert_eq!(result.baseline.as_deref(), Some("jemalloc"));
        let ratios = |name: &str| {
            let cells = result.cells.iter().filter(move |c| c.subject == name);
            cells
                .flat_map(|c| c.metrics.values())
                .filter(|m| m.ratio_to_system.is_some())
                .count()
        };
        assert!(ratios("jemalloc") == 0 && ratios("mimalloc") > 0);
        let text = screen(&result);
        let folder = tempfile::tempdir().unwrap();
        let files = write_report(&result, folder.path(), &ReportOptions::default()).unwrap();
        let mut told = vec![text, export::markdown(&result)];
        for file in files {
            let kind = file.extension().and_then(|end| end.to_str());
            if kind.is_some_and(|kind| ["html", "md", "svg"].contains(&kind)) {
                told.push(std::fs::read_to_string(file).unwrap());
            }
        }
        for text in told {
            let word = text.contains("ratios are taken against jemalloc");
            assert!(word || text.contains("<svg"), "{text}");
            for wrong in [
                "against system",
                "system's",
                "ratio to system",
                "the system allocator",
            ] {
                assert!(!text.contains(wrong), "{wrong} in {text}");
            }
        }
        // Where the first one has no figures there is nothing to compare with.
        result.cells.retain(|c| c.subject != "jemalloc");
        fill_ratios(&mut result);
        assert!(
            result
                .cells
                .iter()
                .all(|c| c.metrics.values().all(|m| m.ratio_to_system.is_none()))
        );
    }
}

#[test]
fn a_trace_says_where_it_comes_from_and_how_much_the_allocator_matters() {
    let mut result = single();
    recorded(&mut result, "system", Some(60.0));
    result.started = "2026-01-01T10:00:00Z".into();
    result.finished = "2026-01-01T10:07:41Z".into();
    let cell = result
        .cells
        .iter_mut()
        .find(|c| c.subject == "system")
        .unwrap();
    let mut time = cell.metrics["ns_per_op"].clone();
    time.median = 40.0;
    cell.metrics.insert("cpu_ns_per_op".into(), time);
    let text = screen(&result);
    for wanted in [
        "81.2 M ops",
        "recorded on 64 CPUs",
        "7m41s",
        "against system (the program's own)",
        "(today)",
        "trim",
        "live ",
        "resident but unused",
        "Could have been shown",
        // 81.2 M calls of 40 ns are 3.2 of 60 s.
        "! the allocator has about 5 % of the program's CPU time",
        "Confirm: heaplab validate -- ./server --port 80",
        "report: r/report.html",
        "again: heaplab",
    ] {
        assert!(text.contains(wanted), "'{wanted}' is missing in\n{text}");
    }
    // Recorded on another allocator: its row is today's.
    recorded(&mut result, "/usr/lib/libjemalloc.so.2", None);
    let text = screen(&result);
    let today = text.lines().find(|line| line.contains("today")).unwrap();
    assert!(today.contains("jemalloc"), "{text}");
    assert!(
        text.contains("the program itself ran on libjemalloc.so.2"),
        "{text}"
    );
    assert!(!text.contains("has about"), "{text}");
}

#[test]
fn metrics_of_the_users_own_decide_about_servers() {
    let mut result = result_set();
    result.cells.retain(|c| c.api == "program");
    for cell in &mut result.cells {
        let rate = match cell.subject.as_str() {
            "jemalloc" => 150.0,
            "mimalloc" => 90.0,
            _ => 100.0,
        };
        let samples: Vec<Sample> = (0..8)
            .map(|block| Sample {
                block,
                order: 0,
                value: rate + f64::from(block),
            })
            .collect();
        let own = Metric::from_samples("1/s", Better::Higher, "program", "program", samples);
        if cell.status == Status::Ok {
            cell.metrics.insert("rps".into(), own.unwrap());
        }
    }
    fill_ratios(&mut result);
    let text = screen(&result);
    let answer = text
        .lines()
        .find(|line| line.starts_with("ANSWER"))
        .unwrap();
    assert!(
        answer.contains("jemalloc") && answer.contains("rps +"),
        "{text}"
    );
}

#[test]
fn a_narrow_terminal_gets_whole_lines() {
    let mut result = single();
    recorded(&mut result, "system", Some(60.0));
    let wide = table::render_within(&result, Style::Plain, None, 140);
    assert!(
        wide.lines().all(|line| line.chars().count() <= 140),
        "{wide}"
    );
    assert!(
        wide.contains("purge") && !wide.contains("left out in"),
        "{wide}"
    );
    let narrow = table::render_within(&result, Style::Plain, None, 80);
    let free = |line: &&str| line.contains("again:") || line.contains("FAILED");
    for line in narrow.lines().filter(|line| !free(line)) {
        assert!(line.chars().count() <= 80, "{line}\n{narrow}");
    }
    // What the marks mean is longer than these.
    let legend = table::render_within(&result, Style::Plain, None, 60);
    let mut meaning = legend.lines().skip_while(|line| !line.starts_with("v/^"));
    assert!(
        meaning
            .next()
            .is_some_and(|line| line.chars().count() <= 60),
        "{legend}"
    );
    assert!(
        meaning.next().is_some_and(|line| line.starts_with("  ")),
        "{legend}"
    );
    for wanted in [
        "ANSWER",
        "ns/op",
        "peak resident",
        "(today)",
        "FAILED",
        "live ",
        "left out in 80 columns: purge",
    ] {
        assert!(
            narrow.contains(wanted),
            "'{wanted}' is missing in\n{narrow}"
        );
    }
    assert_eq!(
        screen(&result),
        table::render_within(&result, Style::Plain, Some("r/report.html"), usize::MAX)
    );
}

#[test]
fn a_figure_of_the_replay_that_has_no_column_is_not_taken_for_the_users() {
    let mut result = single();
    for cell in result.cells.iter_mut().filter(|c| c.status == Status::Ok) {
        let mut further = cell.metrics["peak_resident_bytes"].clone();
        further.unit = "bytes".into();
        cell.metrics.insert("further_bytes".into(), further);
    }
    fill_ratios(&mut result);
    assert_eq!(screen(&result), screen(&single()));
}

#[test]
fn a_ratio_that_contradicts_the_medians_is_explained() {
    let mut result = single();
    let said = "point in opposite directions, and the ratio counts";
    assert!(!screen(&result).contains(said), "{}", screen(&result));
    // Slower in the later blocks; in one of the early ones only the other was disturbed.
    let system = [10.0, 10.0, 10.0, 10.0, 30.0, 30.0, 30.0];
    let other = [9.5, 9.5, 9.5, 15.0, 28.5, 28.5, 28.5];
    for (subject, values) in [("system", system), ("mimalloc", other)] {
        let cell = (result.cells.iter_mut().find(|c| c.subject == subject)).unwrap();
        let metric = cell.metrics.get_mut("ns_per_op").unwrap();
        let samples = (0u32..).zip(values).map(|(block, value)| Sample {
            block,
            order: 0,
            value,
        });
        let (mode, touch) = (metric.mode.clone(), metric.touch.clone());
        *metric =
            Metric::from_samples("ns", Better::Lower, &mode, &touch, samples.collect()).unwrap();
    }
    fill_ratios(&mut result);
    let text = screen(&result);
    assert!(text.contains(said), "{text}");
    assert!(
        text.contains("15.0 ns against 10.0 ns by medians, -5.0 % by pairs"),
        "{text}"
    );
}

#[test]
fn at_the_recorded_pace_time_is_not_compared_and_latency_answers() {
    let mut result = single();
    recorded(&mut result, "system", Some(60.0));
    for cell in &mut result.cells {
        cell.metrics.retain(|name, _| name.ends_with("ns_per_op"));
        for metric in cell.metrics.values_mut() {
            metric.mode = "paced".into();
        }
    }
    let shown = screen(&result);
    let answer = shown.lines().find(|l| l.contains("ANSWER")).unwrap();
    assert!(
        answer.contains("999 of 1,000 calls took at most"),
        "{shown}"
    );
    let ours = answer.find("spanalloc (ours)").unwrap();
    assert!(
        ours < answer.find("system").unwrap(),
        "smallest first: {answer}"
    );
    for word in ["1.00", "calls x replayed time", "harness "] {
        assert!(!shown.contains(word), "{word} in {shown}");
    }
}

/// With nothing but latency there is no table over all workloads, and each answers for itself.
#[test]
fn latencies_of_several_workloads_are_answered_one_by_one() {
    let mut result = result_set();
    for cell in &mut result.cells {
        cell.metrics.clear();
        cell.timeline = None;
    }
    result
        .cells
        .retain(|cell| cell.status == Status::Ok && !cell.latency.is_empty());
    let said = screen(&result);
    assert!(
        !said.contains("nothing was measured") && !said.contains("all workloads"),
        "{said}"
    );
    let names: std::collections::BTreeSet<&str> = result
        .cells
        .iter()
        .map(|cell| cell.workload.as_str())
        .collect();
    assert!(names.len() > 1, "the set has several: {names:?}");
    for name in names {
        assert!(
            said.contains(&format!("{name}: 999 of 1,000 calls took at most")),
            "{said}"
        );
    }
}

#[test]
fn counted_instructions_are_not_called_time() {
    let mut result = single();
    for cell in &mut result.cells {
        if let Some(metric) = cell.metrics.remove("ns_per_op") {
            cell.metrics.insert("instructions".into(), metric);
        }
    }
    let shown = screen(&result);
    let answer = shown.lines().find(|l| l.contains("ANSWER")).unwrap();
    assert!(answer.contains("instructions "), "{shown}");
    assert!(!answer.contains("time "), "{shown}");
    // Several workloads, and nothing else was measured.
    let mut result = result_set();
    for cell in &mut result.cells {
        let metric = cell.metrics.remove("ns_per_op");
        cell.metrics.clear();
        (cell.metrics).extend(metric.map(|metric| ("instructions".to_owned(), metric)));
    }
    let shown = screen(&result);
    assert!(shown.contains("fewest instructions: "), "{shown}");
    let head = shown.lines().find(|l| l.contains("all workloads")).unwrap();
    assert!(
        head.contains("instructions") && !head.contains("peak"),
        "{head}"
    );
    let page = export::markdown(&result);
    assert!(page.contains("| instructions, geometric mean |"), "{page}");
    assert!(!page.contains("0 of 0"), "{page}");
}

#[test]
fn where_nothing_was_timed_no_time_is_shown() {
    let mut result = result_set();
    for cell in &mut result.cells {
        (cell.metrics).retain(|name, _| name.contains("resident"));
    }
    let shown = screen(&result);
    let at = shown
        .lines()
        .position(|l| l.contains("all workloads"))
        .unwrap();
    let rows: Vec<&str> = shown.lines().skip(at).take(4).collect();
    assert!(
        rows[0].contains("lowest peak in") && !rows[0].contains("mean"),
        "{rows:#?}"
    );
    assert!(rows[1..].iter().all(|row| !row.contains("1.00  ")));
    let dir = tempfile::tempdir().unwrap();
    heaplab_reports::write_report(&result, dir.path(), &Default::default()).unwrap();
    for file in ["report.html", "summary.md"] {
        let page = std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert!(!page.contains("geometric mean"), "{file}");
    }
}

#[test]
fn the_clocks_floor_is_that_of_the_rows_that_it_bounds() {
    let mut result = single();
    assert!(
        screen(&result)
            .contains("an empty pair takes 20.0 ns, and no percentile below that is shown"),
        "{}",
        screen(&result)
    );
    // One row's runs had a slower clock: that says nothing of the other rows' percentiles.
    for latency in result.cells[0].latency.values_mut() {
        latency.floor_ns = 228.0;
    }
    let shown = screen(&result).replace("\n    ", " ");
    assert!(
        shown.contains("an empty pair takes 20.0 ns to 228 ns, and no percentile below that of its own row's runs is shown"),
        "{shown}"
    );
}

#[test]
fn idle_tails_of_every_length_have_a_column_that_says_it() {
    let mut result = single();
    for cell in &mut result.cells {
        let Some(tail) = cell.metrics.remove("resident_after_idle_10s_bytes") else {
            continue;
        };
        let mut other = tail.clone();
        other.median = 123.0 * 1_048_576.0;
        cell.metrics
            .insert("resident_after_idle_3s_bytes".into(), other);
        cell.metrics
            .insert("resident_after_idle_500ms_bytes".into(), tail);
    }
    let markdown = export::markdown(&result);
    let head = markdown.lines().find(|l| l.contains("idle")).unwrap();
    let (short, long) = (head.find("after 500 ms idle"), head.find("after 3 s idle"));
    assert!(short.is_some() && short < long, "{head}");
    assert!(markdown.contains("123 MiB"), "{markdown}");
    // A narrow terminal does without both.
    let narrow = table::render_within(&result, Style::Plain, None, 90);
    let left_out = "after 500 ms idle, after 3 s idle";
    assert!(narrow.replace("\n    ", " ").contains(left_out), "{narrow}");
}

#[test]
fn a_programs_own_allocator_in_the_row_system_does_not_trim() {
    let mut result = single();
    let system = result
        .subjects
        .iter_mut()
        .find(|s| s.name == "system")
        .unwrap();
    system.settings.clear();
    system
        .settings
        .insert("dirty_decay_ms".into(), "30000".into());
    let shown = screen(&result);
    assert!(
        shown.contains("decay 30 s") && !shown.contains("trim"),
        "{shown}"
    );
}
