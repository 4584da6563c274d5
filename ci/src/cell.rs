//! Owns the identity of a cell across result sets: its id, and which cells belong together.

use heaplab_reports::schema::{Cell, Machine};

/// Ends the label of a control's second measurement in a paired run: the control `jemalloc` is
/// run as `jemalloc` and as `jemalloc#2`, and the two must not differ.
pub const CONTROL_SUFFIX: &str = "#2";

/// The label of a control's second measurement.
pub fn control_label(subject: &str) -> String {
    format!("{subject}{CONTROL_SUFFIX}")
}

/// The id of a cell: workload, subject and what differs from the plain case, for example
/// `churn/spanalloc`, `churn/spanalloc/sized/t4/thp-never`. `subject` is left out where a
/// comparison has only one. CPUs appear only if they are not the machine's own, so that ids in
/// policy files hold on every machine.
pub fn cell_id(cell: &Cell, subject: Option<&str>, machine: &Machine) -> String {
    let mut id = cell.workload.clone();
    if let Some(subject) = subject {
        id.push('/');
        id.push_str(subject);
    }
    if cell.api != "malloc" && cell.api != "program" {
        id.push('/');
        id.push_str(&cell.api);
    }
    if cell.threads > 1 {
        id.push_str(&format!("/t{}", cell.threads));
    }
    if cell.cpus != machine.cpus {
        id.push_str(&format!("/c{}", cell.cpus));
    }
    if cell.thp != "default" && !cell.thp.is_empty() {
        id.push_str(&format!("/thp-{}", cell.thp));
    }
    if let Some(limit) = cell.memory_limit {
        id.push_str(&format!("/mem-{limit}"));
    }
    id
}

/// Two cells that belong together, either of which may be absent.
pub(crate) struct Pairing<'a> {
    /// Id of the pair.
    pub id: String,
    /// Cell of the base.
    pub base: Option<&'a Cell>,
    /// Cell of the head.
    pub head: Option<&'a Cell>,
    /// Whether the subject is a control.
    pub control: bool,
    /// A side has this id more than once.
    pub twice: bool,
}

/// Pairs the cells of two lists by id; the order is that of the base, then what only head has.
pub(crate) fn pair_up<'a>(
    base: Vec<(String, &'a Cell)>,
    head: Vec<(String, &'a Cell)>,
    control: bool,
) -> Vec<Pairing<'a>> {
    let mut pairs: Vec<Pairing<'a>> = Vec::new();
    for (is_base, list) in [(true, base), (false, head)] {
        for (id, cell) in list {
            let at = match pairs.iter().position(|p| p.id == id) {
                Some(at) => at,
                None => {
                    pairs.push(Pairing {
                        id,
                        base: None,
                        head: None,
                        control,
                        twice: false,
                    });
                    pairs.len() - 1
                }
            };
            let pair = &mut pairs[at];
            let slot = if is_base {
                &mut pair.base
            } else {
                &mut pair.head
            };
            if slot.replace(cell).is_some() {
                pair.twice = true;
            }
        }
    }
    pairs
}
