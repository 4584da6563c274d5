//! The faces of a report: what the gate screen must say, and that every machine form is well
//! formed whatever names it holds.

mod common;

use common::{cell, set};
use heaplab_ci::render::{self, Look};
use heaplab_ci::{GateReport, Mode, Policy, Verdict, judge, judge_pair};
use heaplab_reports::schema::{ResultSet, Status};

fn times(factor: f64) -> Vec<f64> {
    (0..24)
        .map(|i| factor * (40.0 + f64::from(i * 7 % 24) / 50.0))
        .collect()
}

/// A regression, a pass, an improvement, an inconclusive row, a quarantined one and a control.
fn mixed() -> GateReport {
    let one = |w: &str, s: &str, name: &str, v: Vec<f64>| cell(w, s, &[(name, v)]);
    let result = set(vec![
        one("parse", "base", "allocations", vec![12_004.0; 2]),
        one("parse", "head", "allocations", vec![14_120.0; 2]),
        one("churn", "base", "ns_per_op", times(1.0)),
        one("churn", "head", "ns_per_op", times(1.0)),
        one("grow", "base", "ns_per_op", times(1.0)),
        one("grow", "head", "ns_per_op", times(0.8)),
        one("redis", "base", "ns_per_op", times(1.0)[..5].to_vec()),
        one("redis", "head", "ns_per_op", times(1.0)[..5].to_vec()),
        one("noisy", "base", "ns_per_op", times(1.0)),
        one("noisy", "head", "ns_per_op", times(1.4)),
        one("churn", "jemalloc", "ns_per_op", times(1.0)),
        one("churn", "jemalloc#2", "ns_per_op", times(1.001)),
    ]);
    let policy = Policy::parse(
        "[[quarantine]]\ncell = \"noisy\"\nmetric = \"*\"\nreason = \"two speeds\"\n\
         date = \"2026-11-24\"\n",
        "p",
    )
    .unwrap();
    let mut report = judge_pair(&result, "base", "head", &["jemalloc".into()], &policy);
    report.base = "3f2c1a7".into();
    report.head = "91be004".into();
    report.elapsed_s = Some(552.0);
    report
}

#[test]
fn the_screen_says_first_and_last_what_matters() {
    let text = render::terminal(&mixed(), Look::default());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "FAIL  1 regression | 1 pass  1 improvement  1 inconclusive  1 quarantined  0 missing | \
         3f2c1a7 -> 91be004, same job | 9m12s"
    );
    assert!(lines[1].starts_with("REGRESSION    parse"), "{text}");
    assert!(
        lines[1].contains("12,004 -> 14,120  +17.6 %   limit 0 %   exact 2/2"),
        "{text}"
    );
    assert!(
        lines[2]
            .contains("reproduce: heaplab gate run --base base --head head --seed 7 --only parse")
    );
    assert!(lines[3].contains("[[accept]] in the policy file"));
    let line = |word: &str| *lines.iter().find(|l| l.starts_with(word)).unwrap();
    assert!(
        line("inconclusive").contains("5 pairs cannot decide"),
        "{text}"
    );
    assert!(line("inconclusive").contains("not red without --strict"));
    assert!(line("quarantined").contains("two speeds (since 2026-11-24); it would be regression"));
    assert!(line("improvement").contains("could show >= "), "{text}");
    assert!(line("control").contains("machine steady"), "{text}");
    assert!(
        !text.contains("\npass"),
        "passing rows are counted, not listed"
    );
    assert_eq!(lines[lines.len() - 2], "FAIL  parse allocations");
    assert_eq!(lines[lines.len() - 1], "FAIL  exit 1");
    assert!(!text.contains('\x1b'));
    // Colour adds nothing but colour; --strict is said where it matters.
    let color = render::terminal(
        &mixed(),
        Look {
            color: true,
            ..Look::default()
        },
    );
    let mut plain = String::new();
    for part in color.split('\x1b') {
        plain.push_str(
            part.strip_prefix('[')
                .and_then(|p| p.split_once('m'))
                .map_or(part, |p| p.1),
        );
    }
    assert_eq!(plain, text);
    let all = render::terminal(
        &mixed(),
        Look {
            all: true,
            ..Look::default()
        },
    );
    assert!(all.contains("\npass"));
}

#[test]
fn rows_not_compared_are_one_line_for_each_reason() {
    let figures = |host: &str| {
        let metrics = [("ns_per_op", times(1.0)), ("instructions", vec![1e6; 2])];
        let cells = ["a", "b", "c"].map(|w| cell(w, "s", &metrics));
        let mut result = set(cells.to_vec());
        result.machine.host_id = host.into();
        result
    };
    let report = judge(
        &figures("x"),
        &figures("y"),
        &Policy::default(),
        Mode::Stored,
    );
    assert_eq!(report.exit_status(true), 0);
    let text = render::terminal(&report, Look::default());
    assert_eq!(
        text.matches("not compared  time against a result from another host")
            .count(),
        1
    );
    assert!(
        text.contains("(3 rows)") && text.ends_with("PASS  exit 0\n"),
        "{text}"
    );
}

#[test]
fn markdown_lists_what_is_not_well_and_how_to_go_on() {
    let text = render::markdown(&mixed(), false);
    assert!(text.starts_with("## heaplab gate: FAIL\n"));
    assert!(
        text.contains("| regression | parse | allocations | 12,004 -&gt; 14,120 | +17.6 % | 0 % |")
    );
    assert!(text.contains("<details><summary>1 pass</summary>"));
    assert!(
        text.contains("```sh\nheaplab gate run --base base --head head --seed 7 --only parse\n```")
    );
    // The entry that it offers is a policy that accepts the row.
    let entry = text
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let policy = Policy::parse(entry, "offered").unwrap();
    assert_eq!(
        (policy.accept[0].cell.as_str(), policy.accept[0].value),
        ("parse", 14_120.0)
    );
    assert!(text.ends_with("**FAIL**, exit 1\n"));
}

#[test]
fn json_has_outcome_rows_and_failing_rows() {
    let value: serde_json::Value = serde_json::from_str(&render::json(&mixed(), false)).unwrap();
    assert_eq!(value["schema"], "heaplab.gate/1");
    assert_eq!(
        (value["outcome"].as_str(), value["exit_status"].as_u64()),
        (Some("FAIL"), Some(1))
    );
    assert_eq!(value["rows"].as_array().unwrap().len(), 5);
    assert_eq!(value["rows"][0]["verdict"], "regression");
    assert_eq!(value["rows"][0]["evidence"]["rule"], "exact");
    assert_eq!(value["counts"]["quarantined"], 1);
    assert_eq!(value["controls"][0]["cell"], "churn/jemalloc");
    assert_eq!(value["failing"].as_array().unwrap().len(), 1);
    assert!(
        value["failing"][0]["accept"]
            .as_str()
            .unwrap()
            .contains("[[accept]]")
    );
}

#[test]
fn annotations_are_few_and_never_silent() {
    let text = render::annotations(&mixed(), false);
    assert_eq!(text.lines().count(), 1);
    assert!(text.starts_with("::error title=regression parse allocations::12,004 -> 14,120"));
    assert!(text.contains("+17.6 %25") && text.contains("%0Areproduce: "));
    assert_eq!(
        render::annotations(&mixed(), true).lines().count(),
        2,
        "inconclusive is red now"
    );
    let many = |head: f64| {
        let cells = (0..9).flat_map(|i| {
            let name = format!("w{i}");
            [("base", 1e6), ("head", head)]
                .map(|(s, v)| cell(&name, s, &[("instructions", vec![v; 2])]))
        });
        judge_pair(
            &set(cells.collect()),
            "base",
            "head",
            &[],
            &Policy::default(),
        )
    };
    let text = render::annotations(&many(2e6), false);
    assert_eq!(text.lines().count(), 5);
    assert!(text.ends_with("and 4 more in the summary\n"));
    let text = render::annotations(&many(1e6), false);
    assert!(
        text.starts_with("::notice title=heaplab gate::PASS: 0 regressions | 9 pass"),
        "{text}"
    );
}

#[test]
fn junit_counts_agree_with_its_cases() {
    let check = |report: &GateReport, strict: bool, expected: [usize; 4]| {
        let xml = render::junit(report, strict);
        let attribute = |name: &str| -> usize {
            let from = xml.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
            xml[from..].split('"').next().unwrap().parse().unwrap()
        };
        let names = ["tests", "failures", "errors", "skipped"];
        assert_eq!(names.map(attribute), expected, "{xml}");
        let tags = ["<testcase ", "<failure ", "<error ", "<skipped "];
        assert_eq!(tags.map(|t| xml.matches(t).count()), expected, "{xml}");
        well_formed(&xml);
        xml
    };
    let xml = check(&mixed(), false, [6, 1, 0, 2]);
    assert!(xml.contains("<skipped message=\"quarantined; "));
    assert!(xml.contains("FAIL  exit 1</system-out>"));
    check(&mixed(), true, [6, 2, 0, 1]);
    let empty = judge_pair(&set(Vec::new()), "a", "b", &[], &Policy::default());
    check(&empty, false, [1, 0, 1, 0]);
}

#[test]
fn hostile_names_stay_text() {
    let name = "a<b>&\"'|`*@me\x1b[31m\n::error::x\u{0}%";
    let mut result: ResultSet = set(vec![
        cell(name, "base", &[("instructions", vec![1e6; 2])]),
        cell(name, "head", &[("instructions", vec![2e6; 2])]),
        cell("failed", "base", &[]),
        cell("failed", "head", &[]),
    ]);
    result.cells[3].status = Status::Failed;
    result.cells[3].reason = Some(name.into());
    let report = judge_pair(&result, "base", "head", &[], &Policy::default());
    assert_eq!(report.count(Verdict::Regression), 1);
    let screen = render::terminal(&report, Look::default());
    assert!(screen.chars().all(|c| c == '\n' || !c.is_control()));
    well_formed(&render::junit(&report, false));
    for line in render::annotations(&report, false).lines() {
        assert!(line.starts_with("::error title="), "{line}");
    }
    let markdown = render::markdown(&report, false);
    // Outside code blocks nothing is markup.
    let outside: String = markdown.split("```").step_by(2).collect();
    assert!(!outside.contains("<b>") && !outside.contains("@me") && !outside.contains("'|`"));
    serde_json::from_str::<serde_json::Value>(&render::json(&report, false)).unwrap();
    // What it offers to accept is still TOML.
    let entry = markdown
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert_eq!(
        Policy::parse(entry, "offered").unwrap().accept[0].cell,
        name
    );
}

/// A small check of XML: tags nest, attributes are quoted, no bare `&` or control character.
fn well_formed(xml: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = xml
        .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>")
        .unwrap();
    assert!(rest.chars().all(|c| c >= ' ' || c == '\n' || c == '\t'));
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "{rest}");
        let end = at + rest[at..].find('>').expect("tag ends");
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    for (at, _) in xml.match_indices('&') {
        let entity = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
        assert!(
            entity.iter().any(|e| xml[at..].starts_with(e)),
            "{}",
            &xml[at..]
        );
    }
}

#[test]
fn examples_for_ci_systems_measure_base_and_head_in_one_job() {
    use heaplab_ci::templates::{GITHUB_ACTIONS, GITLAB_CI};
    for text in [GITHUB_ACTIONS, GITLAB_CI] {
        assert_eq!(text.matches("heaplab gate run").count(), 1);
        assert!(text.contains("--base base=") && text.contains("--head head="));
        assert!(text.contains("git worktree add") && !text.contains('\t'));
    }
    assert!(GITLAB_CI.contains("junit: gate-result/junit.xml"));
}
