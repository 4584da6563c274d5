//! What charts say of cells and subjects in the same way: which cells, whose colour, which name.

use super::theme::Look;
use crate::schema::ResultSet;
use crate::units;
use crate::view::{self, Group};

/// Look of a subject: the same in every chart of a result set.
pub(super) fn look(result: &ResultSet, subject: &str) -> Look {
    Look::of(
        result
            .subjects
            .iter()
            .position(|s| s.name == subject)
            .unwrap_or(0),
    )
}

/// Name of a subject in legends.
pub(super) fn legend_name(result: &ResultSet, subject: &str) -> String {
    let ours = result
        .subjects
        .iter()
        .any(|s| s.name == subject && s.is_ours());
    if ours {
        format!("{subject} (ours)")
    } else {
        subject.to_owned()
    }
}

/// Cells of a group that have figures.
pub(super) fn ok_cells<'a>(result: &'a ResultSet, group: &Group) -> Vec<&'a crate::schema::Cell> {
    let mut cells = view::cells(result, &group.key);
    cells.retain(|c| c.status == crate::schema::Status::Ok);
    cells
}

pub(super) fn stem(group: &Group, what: &str) -> String {
    units::file_stem(&format!("{}-{what}", group.id))
}
