//! The text of a fitted model.

use super::classes::Classes;
use super::collect::{Alive, Cell, Collected};
use super::cuts::Cuts;
use super::distribution::MOST;
use super::phrases::Phrases;
use super::roles::Roles;
use super::{Again, Waves, waves};
use crate::model::definition::MOST_NAME;
use std::fmt::Write as _;

/// Calls that a thread makes in a row at most: beyond, the order of threads matters to nobody.
const MOST_BURST: u64 = 4096;
/// From this share on all blocks of a class count as written in part.
const ALL_PARTLY: f64 = 0.995;
/// What a class has of all calls, or of the peak, at least.
const LEAST_CALLS: f64 = 1e-4;
const LEAST_BYTES: f64 = 2e-3;
/// Live sets below this are not corrected.
const HANDFUL: f64 = 4.0;
/// Largest live set of the language.
const MOST_LIVE: f64 = (1u64 << 28) as f64;

/// What is fitted, as a whole.
pub(super) struct Fit<'a> {
    pub name: &'a str,
    pub calls: u64,
    pub threads: usize,
    pub cuts: &'a Cuts,
    pub roles: &'a Roles,
    pub classes: &'a Classes,
    pub counts: &'a Collected,
    /// By role.
    pub phrases: &'a [Phrases],
    /// How phrases are said again.
    pub recall: Option<Again>,
    /// Factor on all live sets.
    pub factor: f64,
    /// How far phrases may lead live sets; none: as the language has it.
    pub waves: Option<Waves>,
}

/// Writes the model.
pub(super) fn text(fit: &Fit<'_>) -> String {
    let mut out = format!(
        "# Fitted by `heaplab trace model`: counts of sizes, deaths and threads, nothing else of the program.\n\
         name = \"{}\"\nkind = \"fitted\"\npurpose = \"fitted to a trace of {} calls in {} thread{}\"\n\
         analysis = \"\"\"\nThe trace was cut into {} part{}. A group holds the blocks of a class of sizes: which of them \
         die\nnext, and in each part how many are alive and how many calls are made for them (`course`).\n\"\"\"\n\
         sources = [\"a recorded trace\"]\nops = {}\nparts = [{}]\n",
        plain(fit.name),
        fit.calls,
        fit.threads,
        if fit.threads == 1 { "" } else { "s" },
        fit.cuts.len(),
        if fit.cuts.len() == 1 { "" } else { "s" },
        fit.counts.calls,
        list(&mut fit.cuts.lengths().map(|calls| calls.to_string())),
    );
    for (role, cells) in fit.counts.cells.iter().enumerate() {
        let _ = write!(
            out,
            "\n[[role]]\nname = \"r{role}\"\nthreads = {}\nburst = {}\n",
            fit.roles.threads[role].len(),
            fit.counts.burst[role].min(MOST_BURST)
        );
        write_phrases(&mut out, fit, role, cells);
        // A role without a group only frees what others hand to it.
        for (class, cell) in cells.iter().enumerate() {
            if matters(fit, role, class, cell) {
                write_group(&mut out, fit, role, class, cell);
            }
        }
    }
    out
}

/// Whether a class has a part in the role's calls, in what they say or in what is alive: others would be lines that tell nothing.
fn matters(fit: &Fit<'_>, role: usize, class: usize, cell: &Cell) -> bool {
    let calls: u64 = cell.calls.iter().sum();
    let bytes = (cell.alive.iter().chain(&cell.left)).map(|alive| alive.bytes);
    calls as f64 >= LEAST_CALLS * fit.counts.calls as f64
        || bytes.max().unwrap_or(0) as f64 >= LEAST_BYTES * fit.counts.peak_bytes as f64
        || fit.phrases[role].mention(class)
}

/// What the role's threads do in a row, with weights in each part.
fn write_phrases(out: &mut String, fit: &Fit<'_>, role: usize, cells: &[Cell]) {
    let phrases = &fit.phrases[role].phrases;
    if phrases.is_empty() {
        return;
    }
    let mut heard = vec![0u64; fit.cuts.len()];
    for said in fit.roles.threads[role]
        .iter()
        .flat_map(|&thread| &fit.counts.said[thread as usize])
    {
        heard[usize::from(said.part)] += 1;
    }
    let calls: Vec<u64> = (0..fit.cuts.len())
        .map(|part| cells.iter().map(|cell| cell.calls[part]).sum())
        .collect();
    out.push_str("phrases = [\n");
    for phrase in phrases {
        out.push_str(&phrase.text(&fit.classes.names, &heard, &calls));
    }
    out.push_str("]\n");
    if let Some(recall) = fit.recall {
        let redrawn = match recall.redrawn {
            true => fit.phrases[role].redrawn,
            false => 0.0,
        };
        let _ = writeln!(
            out,
            "recall = {{ chance = {}, calls = {}, memory = {}, redrawn = {} }}",
            recall.chance,
            recall.calls,
            recall.memory,
            short(redrawn)
        );
    }
}

fn plain(name: &str) -> String {
    let text: String = name
        .to_lowercase()
        .chars()
        .take(MOST_NAME)
        .map(|sign| {
            if sign.is_ascii_lowercase() || sign.is_ascii_digit() {
                sign
            } else {
                '-'
            }
        })
        .collect();
    if text.is_empty() {
        "fitted".into()
    } else {
        text
    }
}

fn write_group(out: &mut String, fit: &Fit<'_>, role: usize, class: usize, cell: &Cell) {
    let growing = class >= fit.classes.first_growing;
    let calls: u64 = cell.calls.iter().sum();
    // A thread that has done its run turns to the same group again with the chance of its weight.
    let of_role: u64 = fit.counts.cells[role]
        .iter()
        .flat_map(|cell| &cell.calls)
        .sum();
    let others = 1.0 - calls as f64 / of_role.max(1) as f64;
    let run = (calls as f64 / cell.turns.max(1) as f64 * others).round();
    let run = run.clamp(1.0, 1e6);
    let weight = calls as f64 / run;
    let threads = fit.roles.threads[role].len().max(1) as f64;
    // As many blocks of the mean size as have the bytes; where they grow, the blocks themselves.
    let mean = cell.sizes.sum() as f64 / cell.sizes.count.max(1) as f64;
    let level = |of: &Alive| {
        let level = match growing {
            true => of.blocks as f64,
            false => (of.bytes as f64 / mean.max(1.0)).max(of.blocks.min(1) as f64),
        };
        // A handful of blocks is as many as it is.
        let factor = if level < HANDFUL { 1.0 } else { fit.factor };
        level * factor / threads
    };
    let told = |part: usize| match fit.counts.falls(part) {
        true => cell.left[part],
        false => cell.alive[part],
    };
    let levels: Vec<f64> = (0..fit.cuts.len()).map(|part| level(&told(part))).collect();
    let live = levels
        .iter()
        .copied()
        .fold(1.0, f64::max)
        .ceil()
        .min(MOST_LIVE);
    let spoken = !fit.phrases[role].phrases.is_empty();
    let course: Vec<f64> = (0..fit.cuts.len())
        .map(|part| told(part).blocks as f64 / threads)
        .collect();
    let band = (fit.waves).map(|Waves { share, runs }| {
        let (above, below) = waves::band(&cell.waves, &course);
        let least = if runs { 2.0 * deaths(cell) } else { 0.0 };
        ((above * share).max(least), (below * share).max(least))
    });
    let per_part = weight / fit.cuts.len() as f64;
    // Sizes that phrases name are not drawn.
    let rest = cell.sizes.without(&fit.phrases[role].named);
    let drawn = match rest.count {
        0 => &cell.sizes,
        _ => &rest,
    };
    let _ = write!(
        out,
        "[[role.group]]\nname = \"{}\"\nweight = {}\n",
        fit.classes.names[class],
        short(per_part.max(1e-3))
    );
    if run > 1.0 {
        let _ = writeln!(out, "run = {run}");
    }
    let _ = write!(
        out,
        "live = {live}\nsize = {}\n{}",
        drawn.text("bytes"),
        lifetime(cell, spoken, band)
    );
    let blocks = match growing {
        true => cell.first.count,
        false => cell.sizes.count,
    };
    let share = |part: u64| part as f64 / blocks.max(1) as f64;
    if share(cell.calloc) >= 0.005 {
        let most = 1.0 - share(cell.aligned.count);
        let _ = writeln!(out, "calloc = {:.3}", share(cell.calloc).min(most));
    }
    if !growing && cell.partly.bytes > 0 {
        let _ = writeln!(out, "written = {}", written(cell, fit.counts.peak_part));
    }
    if cell.aligned.count > 0 {
        // The usual alignments of a group are one or two.
        let mean = (cell.aligned.sum() / u128::from(cell.aligned.count.max(1))) as u32;
        let _ = writeln!(
            out,
            "aligned = {{ share = {:.3}, to = [{}] }}",
            share(cell.aligned.count).min(1.0),
            1u64 << mean.clamp(1, 30)
        );
    }
    if growing {
        let (sum, steps) = cell.growth;
        let start = cell.first.sum() / u128::from(cell.first.count.max(1));
        let _ = writeln!(
            out,
            "grow = {{ start = {}, factor = {:.3} }}",
            start.clamp(1, u128::from(MOST)),
            (sum / steps.max(1) as f64).exp().clamp(1.001, 64.0)
        );
    } else if cell.resizes > 0 {
        let part = cell.resizes as f64 / calls.max(1) as f64;
        let _ = writeln!(out, "resize = {:.4}", part.min(1.0));
    }
    if let Some(hand_over) = hand_over(cell, role, threads, blocks) {
        let _ = writeln!(out, "hand-over = {hand_over}");
    }
    // Beside those of a part of the mean length: weights are compared within a part.
    let mean = 1.0 / fit.cuts.len() as f64;
    let weights = (cell.calls.iter().enumerate()).map(|(part, &calls)| {
        calls as f64 / run / per_part.max(1e-9) * mean / fit.cuts.share(part).max(1e-9)
    });
    let _ = writeln!(
        out,
        "course = {{ live = [{}], weight = [{}] }}",
        list(&mut levels.iter().map(|level| short(level / live))),
        list(&mut weights.map(short))
    );
}

/// How much of the blocks is written. Phrases say which are written in part; others keep the live set, and what is alive at the peak
/// decides about memory.
fn written(cell: &Cell, peak: usize) -> String {
    let at_peak = cell.alive[peak];
    let (partly, bytes) = match at_peak.bytes {
        0 => (cell.partly, cell.bytes),
        bytes => (at_peak.partly, bytes),
    };
    let share = partly.bytes as f64 / bytes.max(1) as f64;
    let of = if partly.bytes > 0 {
        partly
    } else {
        cell.partly
    };
    let part = of.written as f64 / of.bytes.max(1) as f64;
    match share {
        ALL_PARTLY.. => format!("{part:.3}"),
        _ => format!("{{ share = {share:.3}, part = {part:.3} }}"),
    }
}

fn list(values: &mut dyn Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(", ")
}

/// How many die in a row.
fn deaths(cell: &Cell) -> f64 {
    // What the course says is no run: where a part only rises or falls, nothing goes up and down.
    let churn: u64 = cell
        .moves
        .iter()
        .map(|(begun, died)| *begun.min(died))
        .sum();
    (churn as f64 / cell.reversals.max(1) as f64)
        .round()
        .max(1.0)
}

/// Which blocks die.
fn lifetime(cell: &Cell, phrases: bool, band: Option<(f64, f64)>) -> String {
    // Phrases say which deaths are those of the newest or of a neighbour.
    let mut cell = cell.clone();
    let [newest, near, next, previous, oldest, random] = cell.deaths;
    if phrases && near + oldest + random > 0 {
        cell.deaths = [0, near, 0, 0, oldest, random];
    } else if phrases {
        cell.deaths = [newest, 0, next, previous, 0, 0];
    }
    let cell = &cell;
    let all: u64 = cell.deaths.iter().sum();
    if all == 0 {
        return "lifetime = { kind = \"recency\", newest = 1 }\n".into();
    }
    let mut text = String::from("lifetime = { kind = \"recency\"");
    let names = ["newest", "near", "next", "previous", "oldest", "random"];
    for (name, deaths) in names.iter().zip(cell.deaths) {
        let share = 100.0 * deaths as f64 / all as f64;
        if share < 0.05 {
            continue;
        }
        let _ = write!(text, ", {name} = {}", short(share));
        if *name == "near" {
            let _ = write!(text, ", ranks = {}", cell.ranks.text("values"));
        }
    }
    let run = deaths(cell);
    if run > 1.0 {
        let _ = write!(text, ", run = {run}");
    }
    if let Some((above, below)) = band.filter(|_| phrases) {
        // A full set that may not fall is one in which nothing is allocated or freed.
        let below = below.round().max(1.0);
        let _ = write!(text, ", above = {}, below = {below}", above.round());
    }
    text.push_str(" }\n");
    text
}

/// The role that frees most of the blocks that other threads free stands for all.
fn hand_over(cell: &Cell, role: usize, threads: f64, blocks: u64) -> Option<String> {
    let away: u64 = cell.remote.iter().sum();
    let share = (away as f64 / blocks.max(1) as f64).min(1.0);
    let (to, _) = (cell.remote.iter().enumerate()).max_by_key(|(_, count)| **count)?;
    if share < 0.005 || to == role && threads < 2.0 {
        return None;
    }
    let to = match to == role {
        true => String::new(),
        false => format!(", to = \"r{to}\""),
    };
    Some(format!("{{ kind = \"random\", share = {share:.3}{to} }}"))
}

/// Two or three digits that matter, without zeros at the end.
fn short(value: f64) -> String {
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}
