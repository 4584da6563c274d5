//! Owns the stored counts: a small sorted text file, one line per cell and metric, made to be
//! kept in the repository so that its diff is the review of a change.
//!
//! ```text
//! # heaplab baseline 1
//! # heaplab: 0.1.0
//! # libc: glibc 2.41
//! churn/spanalloc 5f0c2a9e instructions 104211873 count lower lockstep none
//! ```
//!
//! Fields are separated by one space; spaces and `%` inside a field are written as `%20` and `%25`.

use crate::cell::cell_id;
use crate::judge::judge;
use crate::policy::{Kind, Policy, Quarantine, matches};
use crate::report::GateReport;
use crate::verdict::Mode;
use heaplab_reports::schema::{
    Better, Cell, IntervalKind, Machine, Metric, ResultSet, Sample, Status,
};
use heaplab_reports::stats::median;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const MAGIC: &str = "# heaplab baseline 1";

/// Bytes of a baseline at most: half a million figures.
const MOST_BYTES: u64 = 64 * heaplab_bounded::MIB;

/// Details of the machine that change counts and are kept in the header where they are known.
const KEPT_DETAILS: [&str; 5] = ["toolchain", "rustc", "cc", "tunables", "glibc_tunables"];

/// Stored counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    /// What the counts depend on, by name: versions, C library, page size, toolchain, tunables.
    pub header: BTreeMap<String, String>,
    /// Values by cell id and metric name.
    pub values: BTreeMap<(String, String), Stored>,
}

/// One stored figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Hash of the workload.
    pub workload_hash: String,
    /// Median of the runs.
    pub value: f64,
    /// Unit.
    pub unit: String,
    /// Direction.
    pub better: Better,
    /// Replay mode.
    pub mode: String,
    /// Touch policy.
    pub touch: String,
}

/// Why a baseline cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// There is none yet.
    #[error("there is no baseline '{0}'; make it with `heaplab gate baseline update`")]
    Absent(String),
    /// It cannot be read or written.
    #[error("baseline '{0}' cannot be used: {1}; check its path and permissions")]
    File(String, std::io::Error),
    /// A line is wrong.
    #[error(
        "baseline `{file}` line {line}: {message}; make it anew with `heaplab gate baseline update`"
    )]
    Line {
        /// Path as given.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A result set has nothing that can be stored, or something that must not be.
    #[error("no baseline can be made: {0}")]
    Unfit(String),
}

impl Baseline {
    /// Takes what `policy` judges as exact, and lockstep memory, from a result set in which the
    /// runs of each figure agree.
    ///
    /// # Errors
    /// A sentence when a cell failed, the set is unfinished, a count does not repeat, or nothing
    /// is left to store: a baseline with holes would let changes pass.
    pub fn from_result(set: &ResultSet, policy: &Policy) -> Result<Baseline, BaselineError> {
        let unfit = |text: String| Err(BaselineError::Unfit(text));
        if !set.complete {
            return unfit("the result set did not finish its plan; run it to its end".into());
        }
        let mut baseline = Baseline {
            header: header(set),
            values: BTreeMap::new(),
        };
        for cell in &set.cells {
            let id = cell_id(cell, Some(&cell.subject), &set.machine);
            if cell.status != Status::Ok {
                let why = cell.reason.as_deref().unwrap_or("no reason was given");
                return unfit(format!(
                    "cell `{id}` has no figures ({why}); cure or leave it out"
                ));
            }
            for (name, metric) in &cell.metrics {
                let Some(rule) = policy.rule(name) else {
                    continue;
                };
                let noisy = |q: &Quarantine| matches(&q.cell, &id) && matches(&q.metric, name);
                if policy.quarantine.iter().any(noisy) {
                    continue;
                }
                let within = match rule.kind {
                    Kind::Exact => policy.repeat_within,
                    Kind::Memory if metric.mode == "lockstep" => policy.steady_within,
                    Kind::Memory | Kind::Time => continue,
                };
                let values: Vec<f64> = metric.samples.iter().map(|s| s.value).collect();
                let Some(value) = median(&values) else {
                    continue;
                };
                let (low, high) = values
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                        (l.min(*v), h.max(*v))
                    });
                if values.len() < 2 || high - low > within.fraction() * value.abs() {
                    if rule.kind == Kind::Memory {
                        continue;
                    }
                    return unfit(format!(
                        "{name} of `{id}` was not shown to repeat ({} runs, {low} to {high}); \
                         measure two runs of a deterministic workload or quarantine it",
                        values.len()
                    ));
                }
                let stored = Stored {
                    workload_hash: cell.workload_hash.clone(),
                    value,
                    unit: metric.unit.clone(),
                    better: metric.better,
                    mode: metric.mode.clone(),
                    touch: metric.touch.clone(),
                };
                if baseline
                    .values
                    .insert((id.clone(), name.clone()), stored)
                    .is_some()
                {
                    return unfit(format!("cell `{id}` is there more than once"));
                }
            }
        }
        if baseline.values.is_empty() {
            return unfit("no cell has an exact count; run with --measure counts,memory".into());
        }
        Ok(baseline)
    }

    /// The text of the file: the same figures always give the same bytes.
    pub fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}\n");
        for (name, value) in &self.header {
            let _ = writeln!(text, "# {name}: {}", value.replace('\n', " "));
        }
        for ((cell, metric), s) in &self.values {
            let better = match s.better {
                Better::Lower => "lower",
                Better::Higher => "higher",
            };
            let value = s.value.to_string();
            let fields = [
                cell,
                &s.workload_hash,
                metric,
                &value,
                &s.unit,
                better,
                &s.mode,
                &s.touch,
            ];
            let line: Vec<String> = fields.iter().map(|f| escaped(f)).collect();
            let _ = writeln!(text, "{}", line.join(" "));
        }
        text
    }

    /// Reads the text of a file. `file` stands in errors.
    ///
    /// # Errors
    /// A sentence with the number of the wrong line.
    pub fn parse(text: &str, file: &str) -> Result<Baseline, BaselineError> {
        let mut baseline = Baseline::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |message: String| BaselineError::Line {
                file: file.to_string(),
                line: index + 1,
                message,
            };
            if index == 0 {
                if line != MAGIC {
                    return Err(wrong(format!("`{MAGIC}` was expected")));
                }
            } else if let Some(comment) = line.strip_prefix('#') {
                if let Some((name, value)) = comment.split_once(':') {
                    baseline
                        .header
                        .insert(name.trim().into(), value.trim().into());
                }
            } else if !line.trim().is_empty() {
                let (key, stored) = parse_line(line).map_err(wrong)?;
                if baseline.values.insert(key.clone(), stored).is_some() {
                    return Err(wrong(format!("{} of `{}` is there twice", key.1, key.0)));
                }
            }
        }
        if text.is_empty() {
            let message = "the file is empty".to_string();
            return Err(BaselineError::Line {
                file: file.to_string(),
                line: 1,
                message,
            });
        }
        Ok(baseline)
    }

    /// Whether a path leads to a file that begins as one does; a folder, or whatever cannot be read, is none.
    pub fn is_one(path: &Path) -> bool {
        let mut begin = [0; MAGIC.len()];
        path.is_file()
            && File::open(path).is_ok_and(|mut file| file.read_exact(&mut begin).is_ok())
            && begin == MAGIC.as_bytes()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`BaselineError::Absent`] if there is none, else as [`Baseline::parse`].
    pub fn read(path: &Path) -> Result<Baseline, BaselineError> {
        let name = path.display().to_string();
        match heaplab_bounded::read_text(path, MOST_BYTES) {
            Ok(text) => Baseline::parse(&text, &name),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(BaselineError::Absent(name)),
            Err(e) => Err(BaselineError::File(name, e)),
        }
    }

    /// Writes the file atomically: its name never stands for half of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), BaselineError> {
        let fail = |e| BaselineError::File(path.display().to_string(), e);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".partial");
        std::fs::write(&temporary, self.to_text()).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            fail(e)
        })
    }

    /// Judges a result set against the stored figures; times never are.
    ///
    /// What is stored was shown to repeat when it was stored, so it counts as two agreeing runs.
    /// Header lines that differ are noted, because they explain moved counts.
    pub fn compare(&self, head: &ResultSet, policy: &Policy) -> GateReport {
        let base = self.as_result(head);
        let mut timeless = policy.clone();
        timeless.metrics.retain(|name, rule| {
            let stored = self.values.keys().any(|(_, metric)| metric == name);
            rule.kind != Kind::Time && (stored || rule.required)
        });
        let mut report = judge(&base, head, &timeless, Mode::Stored);
        report.base = "stored counts".into();
        let now = header(head);
        for (name, stored) in &self.header {
            if let Some(value) = now.get(name).filter(|value| *value != stored) {
                report.notes.push(format!(
                    "{name} was {stored} when the base was stored, is {value}"
                ));
            }
        }
        report
    }

    /// The stored figures as a result set with the cells of `head` in it, so that the same rules
    /// judge both. Stored cells that `head` lacks stay in it and become missing rows.
    fn as_result(&self, head: &ResultSet) -> ResultSet {
        let ids: BTreeMap<String, &Cell> = head
            .cells
            .iter()
            .map(|c| (cell_id(c, Some(&c.subject), &head.machine), c))
            .collect();
        let mut cells: BTreeMap<&str, Cell> = BTreeMap::new();
        for ((id, metric), stored) in &self.values {
            let cell = cells.entry(id).or_insert_with(|| match ids.get(id) {
                Some(own) => Cell {
                    workload_hash: stored.workload_hash.clone(),
                    status: Status::Ok,
                    reason: None,
                    metrics: BTreeMap::new(),
                    latency: BTreeMap::new(),
                    timeline: None,
                    ..(*own).clone()
                },
                None => absent(id, stored, &head.machine),
            });
            let sample = |block| Sample {
                block,
                order: 0,
                value: stored.value,
            };
            cell.metrics.insert(
                metric.clone(),
                Metric {
                    unit: stored.unit.clone(),
                    better: stored.better,
                    mode: stored.mode.clone(),
                    touch: stored.touch.clone(),
                    median: stored.value,
                    low: stored.value,
                    high: stored.value,
                    interval: IntervalKind::Range,
                    samples: vec![sample(0), sample(1)],
                    ratio_to_system: None,
                },
            );
        }
        let stored = |name: &str, now: &str| self.header.get(name).map_or(now, |s| s).to_string();
        ResultSet {
            baseline: None,
            machine: Machine {
                libc: stored("libc", &head.machine.libc),
                thp: stored("thp", &head.machine.thp),
                page_size: stored("page_size", &head.machine.page_size.to_string())
                    .parse()
                    .unwrap_or(0),
                // A file in a repository comes from no host that still is the same.
                host_id: String::new(),
                ..head.machine.clone()
            },
            cells: cells.into_values().collect(),
            complete: true,
            notes: Vec::new(),
            ..head.clone()
        }
    }
}

/// A cell of which only the id is known: workload and subject are what the id begins with.
fn absent(id: &str, stored: &Stored, machine: &Machine) -> Cell {
    let (workload, subject) = id.split_once('/').unwrap_or((id, ""));
    Cell {
        workload: workload.to_string(),
        workload_hash: stored.workload_hash.clone(),
        subject: subject.to_string(),
        api: "malloc".into(),
        threads: 1,
        cpus: machine.cpus,
        thp: "default".into(),
        memory_limit: None,
        status: Status::Ok,
        reason: None,
        metrics: BTreeMap::new(),
        latency: BTreeMap::new(),
        timeline: None,
    }
}

fn header(set: &ResultSet) -> BTreeMap<String, String> {
    let machine = &set.machine;
    let mut header = BTreeMap::from([
        ("heaplab".to_string(), set.heaplab.version.clone()),
        ("cpu".to_string(), machine.cpu.clone()),
        ("cpus".to_string(), machine.cpus.to_string()),
        ("kernel".to_string(), machine.kernel.clone()),
        ("libc".to_string(), machine.libc.clone()),
        ("thp".to_string(), machine.thp.clone()),
        ("page_size".to_string(), machine.page_size.to_string()),
        ("seed".to_string(), set.seed.to_string()),
    ]);
    for subject in &set.subjects {
        let settings: Vec<String> = subject
            .settings
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let text = format!("{} {}", subject.version, settings.join(","));
        header.insert(
            format!("subject {}", subject.name.replace(':', "=")),
            text.trim().into(),
        );
    }
    for name in KEPT_DETAILS {
        if let Some(value) = machine.details.get(name) {
            header.insert(name.to_string(), value.clone());
        }
    }
    header
}

fn parse_line(line: &str) -> Result<((String, String), Stored), String> {
    let fields: Vec<String> = line.split(' ').map(unescaped).collect::<Result<_, _>>()?;
    let [cell, hash, metric, value, unit, better, mode, touch] = &fields[..] else {
        return Err(format!("8 fields were expected, {} found", fields.len()));
    };
    let value: f64 = match value.parse() {
        Ok(v) if f64::is_finite(v) && v >= 0.0 => v,
        _ => return Err(format!("`{value}` is no value")),
    };
    let better = match better.as_str() {
        "lower" => Better::Lower,
        "higher" => Better::Higher,
        other => return Err(format!("`{other}` is no direction (lower, higher)")),
    };
    let stored = Stored {
        workload_hash: hash.clone(),
        value,
        unit: unit.clone(),
        better,
        mode: mode.clone(),
        touch: touch.clone(),
    };
    Ok(((cell.clone(), metric.clone()), stored))
}

/// A field without spaces or line ends; an empty one is written as `%`.
fn escaped(field: &str) -> String {
    if field.is_empty() {
        return "%".into();
    }
    let mut text = String::new();
    for c in field.chars() {
        match c {
            '%' | ' ' | '#' | '\n' | '\r' | '\t' => {
                let _ = write!(text, "%{:02x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text
}

fn unescaped(field: &str) -> Result<String, String> {
    if field == "%" {
        return Ok(String::new());
    }
    let mut parts = field.split('%');
    let mut text = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) if code.is_ascii() => {
                text.push(code as char);
                text.push_str(&part[2..]);
            }
            _ => return Err(format!("`{field}` has a `%` that starts no code")),
        }
    }
    Ok(text)
}
