//! The same data for other programs: Markdown, CSV, JSON.

use crate::schema::{IntervalKind, ResultSet, Status};
use crate::units;
use crate::view::View;
use std::collections::BTreeMap;

/// `result.json` as text.
pub fn json(result: &ResultSet) -> String {
    // The types hold nothing that JSON cannot express (string keys, finite numbers).
    let mut text = serde_json::to_string_pretty(result).expect("a result set is valid JSON");
    text.push('\n');
    text
}

/// One line a metric and percentile of every cell, with a header; failed cells have a line with their reason.
pub fn csv(result: &ResultSet) -> String {
    let mut out = String::from(
        "workload,workload_hash,subject,version,api,threads,cpus,thp,memory_limit,status,metric,unit,mode,touch,\
         median,low,high,interval,samples,ratio,ratio_low,ratio_high,ratio_pairs,reason\n",
    );
    for cell in &result.cells {
        let version = result
            .subjects
            .iter()
            .find(|s| s.name == cell.subject)
            .map_or("", |s| &s.version);
        let status = match cell.status {
            Status::Ok => "ok",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        };
        let head = [
            quote(&cell.workload),
            cell.workload_hash.clone(),
            quote(&cell.subject),
            quote(version),
            quote(&cell.api),
            cell.threads.to_string(),
            cell.cpus.to_string(),
            quote(&cell.thp),
            cell.memory_limit.map(|l| l.to_string()).unwrap_or_default(),
            status.to_owned(),
        ]
        .join(",");
        if cell.status != Status::Ok {
            let reason = quote(cell.reason.as_deref().unwrap_or(""));
            out.push_str(&format!("{head}{}{reason}\n", ",".repeat(14)));
        }
        for (name, m) in &cell.metrics {
            let kind = if m.interval == IntervalKind::Ci95 {
                "ci95"
            } else {
                "range"
            };
            let ratio = m
                .ratio_to_system
                .map(|r| format!("{},{},{},{}", r.median, r.low, r.high, r.pairs))
                .unwrap_or_else(|| ",,,".to_owned());
            out.push_str(&format!(
                "{head},{},{},{},{},{},{},{},{kind},{},{ratio},\n",
                quote(name),
                quote(&m.unit),
                quote(&m.mode),
                quote(&m.touch),
                m.median,
                m.low,
                m.high,
                m.samples.len()
            ));
        }
        for (op, l) in &cell.latency {
            let percentiles = [
                ("p50", l.p50_ns),
                ("p90", l.p90_ns),
                ("p99", l.p99_ns),
                ("p999", l.p999_ns),
                ("p9999", l.p9999_ns),
                ("max", Some(l.max_ns)),
            ];
            for (p, ns) in percentiles {
                let Some(ns) = ns else { continue };
                out.push_str(&format!(
                    "{head},{},ns,,,{ns},,,,{},,,,,\n",
                    quote(&format!("latency_{op}_{p}_ns")),
                    l.count
                ));
            }
        }
    }
    out
}

fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The first screen as GitHub-flavoured Markdown.
pub fn markdown(result: &ResultSet) -> String {
    explained(result, &BTreeMap::new())
}

/// The same with what each workload is for (`summary.md`); `analysis` is text by name of workload.
pub(crate) fn explained(result: &ResultSet, analysis: &BTreeMap<String, String>) -> String {
    let view = View::new(result);
    let mut out = String::from("# heaplab comparison\n\n");
    for (i, sentence) in view.answer.iter().enumerate() {
        let head = if i == 0 { "**ANSWER** " } else { "" };
        out.push_str(&format!("{head}{}\n", escape(sentence)));
    }
    if let Some(summary) = &view.summary {
        let (mut head, mut rule) = ("\n| all workloads |".to_owned(), "|---|".to_owned());
        if let Some(measure) = summary.measure {
            head.push_str(&format!(" {measure}, geometric mean | interval |"));
            rule.push_str("---:|---|");
        }
        out.push_str(&format!(
            "{head} lowest peak in | peak / {}'s |\n{rule}---:|---|\n",
            escape(&summary.baseline)
        ));
        for r in &summary.rows {
            let failed = match r.failed {
                0 => String::new(),
                failed => format!(" ({failed} failed)"),
            };
            let time = if summary.measure.is_some() {
                let interval = r.time.as_ref().map(units::change_with_ends);
                format!(
                    " {} {} | {} |",
                    r.time_text,
                    r.mark,
                    interval.unwrap_or_default()
                )
            } else {
                String::new()
            };
            let lowest = match r.weighed {
                0 => "-".to_owned(),
                weighed => format!("{} of {weighed}", r.lowest_peak),
            };
            out.push_str(&format!(
                "| {}{failed} |{time} {lowest} | {} |\n",
                label(&r.subject, &r.version, r.ours),
                escape(&r.memory_text)
            ));
        }
    }
    if let Some(scaling) = &view.scaling {
        out.push_str(&format!(
            "\n| more threads | subject | {} |\n|---|---|{}\n",
            scaling.heads.join(" | "),
            "---:|".repeat(scaling.heads.len())
        ));
        for row in &scaling.rows {
            out.push_str(&format!(
                "| {} | {} | {} |\n",
                escape(&row.workload),
                escape(&row.subject),
                row.fields.join(" | ")
            ));
        }
        out.push_str(&format!("\n{}.\n", scaling.about));
    }
    for group in &view.groups {
        out.push_str(&format!(
            "\n## {}\n\n{}\n\n",
            escape(&group.workload),
            escape(&group.facts.join(" · "))
        ));
        for part in analysis
            .get(&group.key.workload)
            .into_iter()
            .flat_map(|text| text.split("\n\n"))
        {
            out.push_str(&format!("{}\n\n", escape(part.trim())));
        }
        if view.summary.is_some() {
            out.push_str(&format!("{}\n\n", escape(&group.answer.join(" "))));
        }
        out.push_str("| subject |");
        for column in &group.columns {
            out.push_str(&format!(" {} |", escape(&column.head)));
            if column.ratio {
                out.push_str(" ratio |");
            }
        }
        out.push_str("\n|---|");
        for column in &group.columns {
            out.push_str(if column.ratio { "---:|:---|" } else { "---:|" });
        }
        out.push('\n');
        let width: usize = group.columns.iter().map(|c| 1 + usize::from(c.ratio)).sum();
        for row in &group.rows {
            let name = label(&row.subject, &row.version, row.ours);
            let name = if row.best {
                format!("**{name}**")
            } else {
                name
            };
            out.push_str(&format!(
                "| {name}{} |",
                if row.today { " (today)" } else { "" }
            ));
            if let Some(reason) = &row.failed {
                out.push_str(&format!(
                    " {} |{}\n",
                    escape(reason),
                    " |".repeat(width.saturating_sub(1))
                ));
                continue;
            }
            for (column, value) in group.columns.iter().zip(&row.values) {
                out.push_str(&format!(" {} |", value.text));
                if column.ratio {
                    out.push_str(&format!(" {} {} |", value.ratio, value.mark));
                }
            }
            out.push('\n');
        }
        for parts in &group.memory {
            out.push_str(&format!(
                "\n{}'s {}: live {}, rounding {}, resident but unused {}\n",
                escape(&parts.subject),
                parts.resident_text,
                parts.live_text,
                parts.rounding_text,
                parts.unused_text
            ));
        }
        if let Some(could) = &group.could {
            out.push_str(&format!("\n{could}\n"));
        }
    }
    out.push_str(
        "\nv/^ the 95 % interval of the paired ratio excludes 1; ~ not shown to differ; ? fewer than 6 blocks: \
         a range.\n",
    );
    for warning in &view.warnings {
        out.push_str(&format!("\n- {}", escape(warning)));
    }
    let m = &result.machine;
    out.push_str(&format!(
        "\n\nMachine: {}, {} CPUs, {}, kernel {}, {}. Again: `{}` (seed {}, heaplab {}).\n",
        escape(&m.cpu),
        m.cpus,
        units::bytes(m.memory_bytes as f64),
        escape(&m.kernel),
        escape(&m.libc),
        view.again.replace('`', "'"),
        result.seed,
        result.heaplab.version
    ));
    if !view.counted.is_empty() {
        out.push_str("\n## What the allocators count themselves\n\n");
        for counted in &view.counted {
            out.push_str(&format!(
                "- {}, {}: {}\n",
                escape(&counted.subject),
                counted.when,
                escape(&counted.text)
            ));
        }
    }
    out
}

fn label(subject: &str, version: &str, ours: bool) -> String {
    format!(
        "{} {}{}",
        escape(subject),
        escape(version),
        if ours { " (ours)" } else { "" }
    )
}

/// Text without meaning to Markdown or HTML.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '#' | '\\' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
