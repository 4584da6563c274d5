//! The first screen in a terminal.

use crate::schema::ResultSet;
use crate::text::wrapped;
use crate::units;
use crate::view::{Group, Row, Scaling, Summary, View, is_idle};

/// Colour or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences.
    #[default]
    Plain,
    /// ANSI colours; every colour stands beside a sign or word that says the same.
    Ansi,
}

impl Style {
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Style::Ansi if !code.is_empty() && !text.is_empty() => {
                format!("\u{1b}[{code}m{text}\u{1b}[0m")
            }
            _ => text.to_owned(),
        }
    }
}

pub(crate) const BOLD: &str = "1";
const DIM: &str = "2";
pub(crate) const GOOD: &str = "36";
pub(crate) const BAD: &str = "33";
pub(crate) const FAILED: &str = "1;31";

/// One field with its colour; padding is computed from the text alone.
pub(crate) struct Field {
    pub text: String,
    pub code: &'static str,
    pub right: bool,
}

impl Field {
    pub fn left(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: "",
            right: false,
        }
    }

    pub fn right(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: "",
            right: true,
        }
    }

    pub fn coloured(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }
}

/// Lines of aligned columns; a row may have fewer fields than others, its last field then runs on freely.
pub(crate) fn align(rows: &[Vec<Field>], gaps: &[usize], style: Style) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (i, field) in row.iter().enumerate() {
            if i + 1 < row.len() || row.len() == columns {
                widths[i] = widths[i].max(field.text.chars().count());
            }
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (i, field) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i].saturating_sub(field.text.chars().count()));
                let text = style.paint(field.code, &field.text);
                if i > 0 {
                    line.push_str(&" ".repeat(gaps.get(i).copied().unwrap_or(3)));
                }
                if field.right {
                    line.push_str(&pad);
                    line.push_str(&text);
                } else {
                    line.push_str(&text);
                    line.push_str(&pad);
                }
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// More groups than this fill a screen: the answer is said again at the end.
const REPEATED: usize = 2;

/// The comparison as `heaplab run` prints it: answer, tables, what the memory consists of, notes.
/// `report` is the path of the HTML report to point at.
pub fn render(result: &ResultSet, style: Style, report: Option<&str>) -> String {
    render_within(result, style, report, usize::MAX)
}

/// As [`render`], for a terminal of `width` columns: sentences are wrapped, and of tables that are too wide the least
/// important columns are left out, which is said.
pub fn render_within(
    result: &ResultSet,
    style: Style,
    report: Option<&str>,
    width: usize,
) -> String {
    let view = View::new(result);
    let mut out: Vec<String> = Vec::new();
    if let Some(summary) = &view.summary {
        push_answer(&mut out, &view.answer, style, width);
        out.push(String::new());
        push_summary(&mut out, summary, style);
    }
    if let Some(scaling) = &view.scaling {
        out.push(String::new());
        push_scaling(&mut out, scaling, style, width);
    }
    for (i, group) in view.groups.iter().enumerate() {
        if i > 0 || view.summary.is_some() {
            out.push(String::new());
        }
        push_facts(&mut out, group, style, width);
        if view.summary.is_none() {
            push_answer(&mut out, &view.answer, style, width);
            out.push(String::new());
        }
        push_group(&mut out, result, group, style, width);
    }
    out.push(String::new());
    push_legend(&mut out, &view, width);
    for warning in &view.warnings {
        for (i, line) in wrapped(warning, width.saturating_sub(2), width.saturating_sub(4))
            .iter()
            .enumerate()
        {
            let mark = if i == 0 {
                style.paint(BAD, "!")
            } else {
                " ".to_owned()
            };
            out.push(format!("{mark} {line}"));
        }
    }
    if view.groups.len() > REPEATED {
        // What was said first has left the screen by now.
        out.push(String::new());
        push_answer(&mut out, &view.answer, style, width);
    }
    if let Some(report) = report {
        out.push(format!("report: {report}"));
    }
    let took = match units::seconds_between(&result.started, &result.finished) {
        Some(seconds) if view.summary.is_some() => format!("   {}", units::elapsed(seconds)),
        _ => String::new(),
    };
    out.push(format!(
        "again: {}   seed {}{took}",
        view.again, result.seed
    ));
    out.push(String::new());
    out.join("\n")
}

/// Name of the workload, and what is known of it, broken between facts.
fn push_facts(out: &mut Vec<String>, group: &Group, style: Style, width: usize) {
    let mut used = group.workload.chars().count();
    let mut line = style.paint(BOLD, &group.workload);
    for fact in &group.facts {
        let length = 3 + fact.chars().count();
        if used.saturating_add(length) > width {
            out.push(std::mem::take(&mut line));
            used = 0;
        }
        line.push_str(&format!("   {fact}"));
        used += length;
    }
    out.push(line);
}

fn push_answer(out: &mut Vec<String>, answer: &[String], style: Style, width: usize) {
    for (i, sentence) in answer.iter().enumerate() {
        for (n, line) in wrapped(sentence, width.saturating_sub(8), width.saturating_sub(10))
            .iter()
            .enumerate()
        {
            let head = match (i, n) {
                (0, 0) => style.paint(BOLD, "ANSWER") + "  ",
                (_, 0) => " ".repeat(8),
                _ => " ".repeat(10),
            };
            out.push(format!("{head}{line}"));
        }
    }
}

/// Stands for the columns after idle tails, whatever their length.
const IDLE: &str = "idle";

/// Heads of columns that a narrow terminal can do without, the first to go first.
const DISPENSABLE: [&str; 7] = [
    "purge",
    "kernel",
    "user",
    IDLE,
    "/live",
    "p99.9/call",
    "in malloc",
];

fn label(row: &Row) -> String {
    let tail = match (row.today, row.ours) {
        (true, true) => " (ours, today)",
        (true, _) => " (today)",
        (_, true) => " (ours)",
        _ => "",
    };
    let star = if row.best { "* " } else { "  " };
    let space = if row.version.is_empty() { "" } else { " " };
    format!("{star}{}{space}{}{tail}", row.subject, row.version)
}

fn push_group(
    out: &mut Vec<String>,
    result: &ResultSet,
    group: &Group,
    style: Style,
    width: usize,
) {
    let mut without: Vec<&str> = Vec::new();
    let there = |head: &str| {
        let column = group.columns.iter().any(|c| c.head == head);
        column || (head == "purge" && group.rows.iter().any(|r| !r.purge.is_empty()))
    };
    let mut lines = rows_of(group, &without, style);
    let idle = || (group.columns.iter().map(|c| c.head.as_str())).filter(|head| is_idle(head));
    let dispensable = DISPENSABLE.into_iter().flat_map(|head| match head {
        IDLE => idle().collect(),
        head => vec![head],
    });
    for head in dispensable.filter(|head| there(head)) {
        // Colour takes no room: the plain table is what is measured.
        let plain = rows_of(group, &without, Style::Plain);
        let failed = |line: &&String| line.contains("FAILED") || line.contains("not run");
        let widest = plain
            .iter()
            .filter(|l| !failed(l))
            .map(|l| l.chars().count())
            .max();
        if widest.unwrap_or(0) <= width {
            break;
        }
        without.push(head);
        lines = rows_of(group, &without, style);
    }
    out.extend(lines);
    let mut tail: Vec<String> = group.could.iter().cloned().collect();
    if !without.is_empty() {
        tail.push(format!(
            "left out in {width} columns: {} (--format markdown has all)",
            without.join(", ")
        ));
    }
    if let Some(parts) = group.memory.iter().find(|p| {
        group
            .rows
            .iter()
            .any(|r| r.baseline && r.subject == p.subject)
    }) {
        let baseline = result.calibration.worker_baseline_bytes;
        let left_out = if baseline > 0 {
            format!(
                "   (worker's own, left out: {})",
                units::bytes(baseline as f64)
            )
        } else {
            String::new()
        };
        tail.push(format!(
            "{}'s {}: live {} | rounding {} | resident but unused {}{left_out}",
            parts.subject,
            parts.resident_text,
            parts.live_text,
            parts.rounding_text,
            parts.unused_text
        ));
    }
    for text in &tail {
        let lines = wrapped(text, width.saturating_sub(2), width.saturating_sub(4));
        out.extend(lines.iter().enumerate().map(|(i, line)| {
            let indent = if i == 0 { "  " } else { "    " };
            style.paint(DIM, &format!("{indent}{line}"))
        }));
    }
}

/// The table of a group without some columns.
fn rows_of(group: &Group, without: &[&str], style: Style) -> Vec<String> {
    let kept = |head: &str| !without.contains(&head);
    let purge = kept("purge")
        && group
            .rows
            .iter()
            .any(|r| !r.purge.is_empty() && r.failed.is_none());
    let mut head = vec![Field::left("")];
    let mut gaps = vec![0];
    for column in group.columns.iter().filter(|c| kept(&c.head)) {
        head.push(Field::right(column.head.clone()));
        gaps.push(3);
        if column.ratio {
            head.push(Field::left(""));
            gaps.push(2);
        }
    }
    if purge {
        head.push(Field::left("purge"));
        gaps.push(3);
    }
    let mut rows = vec![head];
    for row in &group.rows {
        let mut fields = vec![Field::left(label(row)).coloured(if row.best { BOLD } else { "" })];
        if let Some(reason) = &row.failed {
            fields.push(Field::left(reason.clone()).coloured(FAILED));
            rows.push(fields);
            continue;
        }
        let columns = group.columns.iter().zip(&row.values);
        for (column, value) in columns.filter(|(c, _)| kept(&c.head)) {
            fields.push(Field::right(value.text.clone()));
            if column.ratio {
                let code = match value.class.as_str() {
                    "better" => GOOD,
                    "worse" => BAD,
                    _ => "",
                };
                fields.push(Field::left(format!("{} {}", value.ratio, value.mark)).coloured(code));
            }
        }
        if purge {
            fields.push(Field::left(row.purge.clone()));
        }
        rows.push(fields);
    }
    // A failed row with the one other field is not full: its reason runs on past the columns.
    let mut lines = align(&rows, &gaps, style);
    if group.columns.is_empty() {
        lines.remove(0);
    }
    lines
}

fn push_summary(out: &mut Vec<String>, summary: &Summary, style: Style) {
    let weighed = summary.rows.iter().any(|r| r.weighed > 0);
    let mut head = vec![Field::left("  all workloads")];
    let mut gaps = vec![0];
    if let Some(measure) = summary.measure {
        head.extend([Field::right(measure), Field::left("geometric mean")]);
        gaps.extend([3, 2]);
    }
    if weighed {
        gaps.extend([3, 3]);
        head.push(Field::right("lowest peak in"));
        head.push(Field::left(format!(
            "peak resident / {}'s, lowest to highest",
            summary.baseline
        )));
    }
    let mut rows = vec![head];
    for r in &summary.rows {
        let ours = if r.ours { " (ours)" } else { "" };
        let code = match r.class.as_str() {
            "better" => GOOD,
            "worse" => BAD,
            _ => "",
        };
        let baseline = r.subject == summary.baseline;
        let mut fields = vec![Field::left(format!(
            "  {} {}{ours}{}",
            r.subject,
            r.version,
            if baseline { " (today)" } else { "" }
        ))];
        if summary.measure.is_some() {
            let interval = match &r.time {
                Some(ratio) => format!("{}  n={}", units::change_with_ends(ratio), r.timed),
                None => String::new(),
            };
            fields.extend([
                Field::right(format!("{} {:1}", r.time_text, r.mark)).coloured(code),
                Field::left(interval),
            ]);
        }
        if weighed {
            let lowest = match r.weighed {
                0 => "-".to_owned(),
                weighed => format!("{} of {weighed}", r.lowest_peak),
            };
            fields.extend([Field::right(lowest), Field::left(r.memory_text.clone())]);
        }
        if r.failed > 0 {
            fields.push(Field::left(format!("{} failed", r.failed)));
        }
        rows.push(fields);
    }
    gaps.push(3);
    out.extend(align(&rows, &gaps, style));
}

fn push_scaling(out: &mut Vec<String>, scaling: &Scaling, style: Style, width: usize) {
    let mut head = vec![Field::left("  more threads"), Field::left("")];
    head.extend(scaling.heads.iter().map(Field::right));
    let mut gaps = vec![0, 2];
    gaps.resize(head.len(), 3);
    let mut rows = vec![head];
    let mut last = "";
    for row in &scaling.rows {
        // A name is said once, in front of its subjects.
        let name = if row.workload == last {
            ""
        } else {
            &row.workload
        };
        last = &row.workload;
        let mut fields = vec![Field::left(format!("  {name}")), Field::left(&row.subject)];
        fields.extend(row.fields.iter().map(Field::right));
        rows.push(fields);
    }
    out.extend(align(&rows, &gaps, style));
    for line in wrapped(
        &scaling.about,
        width.saturating_sub(2),
        width.saturating_sub(2),
    ) {
        out.push(style.paint(DIM, &format!("  {line}")));
    }
}

fn push_legend(out: &mut Vec<String>, view: &View, width: usize) {
    let marks: Vec<&str> = view
        .groups
        .iter()
        .flat_map(|g| &g.rows)
        .flat_map(|r| &r.values)
        .map(|v| v.mark.as_str())
        .collect();
    let said = [
        (
            marks.iter().any(|m| ["v", "^", "~"].contains(m)),
            "v/^ the 95 % interval of the paired ratio excludes 1; ~ not shown to differ.",
        ),
        (
            marks.contains(&"?"),
            "? fewer than 6 blocks: ranges, no difference is claimed (more: --blocks 8).",
        ),
    ];
    for (_, sentence) in said.iter().filter(|(shown, _)| *shown) {
        let lines = wrapped(sentence, width, width.saturating_sub(2));
        out.push(lines.join("\n  "));
    }
}
