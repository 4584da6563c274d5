//! The text of a fitted model.

use super::collect::{Cell, Collected};
use super::roles::Roles;
use crate::trace::Trace;
use std::fmt::Write as _;

/// A class with a smaller share of its phase's allocations and bytes goes to its neighbour.
const LEAST: f64 = 0.01;
/// Drops of a smaller share are left out.
const LEAST_DROP: f64 = 0.02;
/// Calls that a thread makes in a row at most: beyond, the order of threads matters to nobody.
const MOST_BURST: u64 = 4096;

/// A group of the model.
struct Named {
    role: usize,
    phase: usize,
    name: String,
    /// Of the first phase in which the role allocates.
    first: bool,
    cell: Cell,
}

/// Writes the model.
pub(super) fn text(name: &str, trace: &Trace, roles: &Roles, counts: &Collected) -> String {
    let groups = groups(counts);
    let ops: u64 = counts.calls.iter().sum();
    let summary = trace.summary();
    let mut out = format!(
        "# Fitted by `heaplab trace model`: counts of sizes, ages and threads, nothing else of the program.\n\
         name = \"{}\"\nkind = \"fitted\"\npurpose = \"fitted to a trace of {} calls in {} threads\"\n\
         analysis = \"\"\"\nThe recording was cut into {} phases of equal length. Groups are named by phase and class of size: their weights are \
         calls,\ntheir ages are counted in allocations of the group; what survives its phase is dropped when later ones begin.\n\"\"\"\n\
         sources = [\"a recorded trace\"]\nops = {ops}\n",
        plain(name),
        summary.events,
        summary.threads,
        counts.phases,
    );
    for (number, role) in roles.roles.iter().enumerate() {
        let mine = groups.iter().filter(|group| group.role == number);
        let _ = write!(
            out,
            "\n[[role]]\nname = \"r{number}\"\nthreads = {}\nburst = {}\n",
            role.threads.len(),
            counts.burst[number].min(MOST_BURST)
        );
        // A role without a group only frees what others hand to it.
        for group in mine {
            write_group(&mut out, group, roles, counts);
        }
    }
    for phase in 0..counts.phases {
        let _ = write!(
            out,
            "\n[[phase]]\nname = \"p{phase}\"\nshare = {}\nchange = [\n",
            counts.calls[phase].max(1)
        );
        for group in &groups {
            // What a phase does not mention has its own weight again, which is 0 but for those of the role's first phase.
            let weight = match group.phase == phase {
                true => Some(group.cell.calls()),
                false if group.first => Some(0),
                false => None,
            };
            let drop = drop_share(group, phase);
            if weight.is_none() && drop < LEAST_DROP {
                continue;
            }
            let _ = write!(out, "  {{ group = \"{}\"", group.name);
            if let Some(weight) = weight {
                let _ = write!(out, ", weight = {weight}");
            }
            if drop >= LEAST_DROP {
                let _ = write!(out, ", drop = {drop:.3}");
            }
            out.push_str(" },\n");
        }
        out.push_str("]\n");
    }
    out
}

fn plain(name: &str) -> String {
    let text: String = name
        .to_lowercase()
        .chars()
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

/// Groups of all roles and phases; small classes are part of the next larger one, or of the one before.
fn groups(counts: &Collected) -> Vec<Named> {
    let mut groups = Vec::new();
    for (role, phases) in counts.cells.iter().enumerate() {
        let mut begun = None;
        for (phase, classes) in phases.iter().enumerate() {
            let blocks: u64 = classes.iter().map(|cell| cell.sizes.count).sum();
            let bytes: u128 = classes.iter().map(|cell| cell.sizes.sum()).sum();
            let mut kept: Vec<(usize, Cell)> = Vec::new();
            let mut waiting: Option<Cell> = None;
            for (class, cell) in classes
                .iter()
                .enumerate()
                .filter(|(_, cell)| cell.sizes.count > 0)
            {
                let mut cell = cell.clone();
                if let Some(smaller) = waiting.take() {
                    cell.append(&smaller);
                }
                let small = (cell.sizes.count as f64) < LEAST * blocks as f64
                    && (cell.sizes.sum() as f64) < LEAST * bytes as f64;
                match small {
                    true => waiting = Some(cell),
                    false => kept.push((class, cell)),
                }
            }
            match (waiting, kept.last_mut()) {
                (Some(rest), Some((_, last))) => last.append(&rest),
                (Some(rest), None) => kept.push((0, rest)),
                _ => {}
            }
            if begun.is_none() && !kept.is_empty() {
                begun = Some(phase);
            }
            let first = begun == Some(phase);
            groups.extend(kept.into_iter().map(|(class, cell)| {
                let letter = char::from(b'a' + class as u8);
                Named {
                    role,
                    phase,
                    name: format!("r{role}-p{phase}-{letter}"),
                    first,
                    cell,
                }
            }));
        }
    }
    groups
}

/// Of the blocks of a group that are alive when a phase begins, the share that dies then.
fn drop_share(group: &Named, phase: usize) -> f64 {
    let cell = &group.cell;
    if phase <= group.phase {
        return 0.0;
    }
    // A group's clock stands still when its phase is over. Blocks of the model whose age had not come by then (as many as the
    // mean age, since each allocation is a tick) are those that the trace counts as survivors already: they go at once.
    let waiting = (cell.ages.sum() / u128::from(cell.sizes.count.max(1))) as u64;
    let waiting = waiting.clamp(u64::from(cell.ages.count > 0), cell.ages.count.max(1));
    let now = phase == group.phase + 1;
    let dropped = cell.dropped[phase] + if now { waiting } else { 0 };
    let gone: u64 = cell.dropped[..phase].iter().sum();
    let away: u64 = cell.remote_other.iter().sum();
    let alive = cell
        .sizes
        .count
        .saturating_sub(cell.ages.count + gone + away)
        + if now { waiting } else { 0 };
    (dropped as f64 / alive.max(1) as f64).min(1.0)
}

fn write_group(out: &mut String, group: &Named, roles: &Roles, counts: &Collected) {
    let cell = &group.cell;
    let blocks = cell.sizes.count;
    let away: u64 = cell.remote_other.iter().sum();
    let survivors = blocks.saturating_sub(cell.ages.count + away);
    let _ = write!(
        out,
        "[[role.group]]\nname = \"{}\"\nweight = {}\nsize = {}\nlifetime = {{ kind = \"drawn\", allocations = {} }}\n",
        group.name,
        if group.first { cell.calls() } else { 0 },
        cell.sizes.text("bytes"),
        if cell.ages.count + survivors == 0 {
            "{ kind = \"fixed\", bytes = 1 }".to_string()
        } else {
            cell.ages.text_with("values", survivors)
        }
    );
    let share = |part: u64| part as f64 / blocks.max(1) as f64;
    if share(cell.calloc) >= 0.005 {
        let most = 1.0 - share(cell.aligned.count);
        let _ = writeln!(out, "calloc = {:.3}", share(cell.calloc).min(most));
    }
    if share(cell.aligned.count) >= 0.005 {
        // The usual alignments of a group are one or two.
        let mean = (cell.aligned.sum() / u128::from(cell.aligned.count.max(1))) as u32;
        let _ = writeln!(
            out,
            "aligned = {{ share = {:.3}, to = [{}] }}",
            share(cell.aligned.count),
            1u64 << mean.clamp(1, 30)
        );
    }
    if cell.resizes > 0 {
        let part = cell.resizes as f64 / cell.calls().max(1) as f64;
        let _ = writeln!(out, "resize = {:.4}", part.min(1.0));
    }
    let (to, most) = (cell.remote_other.iter().enumerate())
        .max_by_key(|(_, count)| **count)
        .map_or((0, 0), |(role, count)| (role, *count));
    if most > 0 && share(away) >= 0.005 {
        let hold = counts.waiting[to] / roles.roles[to].threads.len().max(1) as u64;
        let _ = writeln!(
            out,
            "hand-over = {{ kind = \"queue\", to = \"r{to}\", depth = {}, share = {:.3}, hold = {} }}",
            (hold + 64).min(1 << 20),
            share(away).min(1.0),
            hold.min(1 << 20)
        );
    } else if share(cell.remote_same) >= 0.005 && roles.roles[group.role].threads.len() > 1 {
        let _ = writeln!(
            out,
            "hand-over = {{ kind = \"random\", share = {:.3} }}",
            share(cell.remote_same).min(1.0)
        );
    }
}
