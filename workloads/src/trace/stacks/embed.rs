//! Adding names to a trace that has stacks: the events stay as they are, the index moves behind the names.

use super::super::container::{ChunkKind, ChunkWriter};
use super::super::error::TraceError;
use super::super::index::{self, IndexMeta};
use super::super::reader::Trace;
use super::super::writer::TRAILER;
use super::super::{replaceable, temporary_path};
use super::chunks::symbol_chunks;
use super::table::Symbols;
use std::path::Path;

/// zstd's level of the names.
const LEVEL: i32 = 9;

/// Writes `trace` with these names of its frames as `out`, which may be the file itself; names that it had are replaced.
///
/// # Errors
/// A file that cannot be written; a trace without stacks, or one that was cut off (`trace cut` makes it whole).
pub fn embed_symbols(trace: &Trace, out: &Path, symbols: &Symbols) -> Result<(), TraceError> {
    let reader = trace.chunks();
    let found = index::read(reader)?.filter(|_| trace.stacks().is_some());
    let Some(found) = found else {
        return Err(TraceError::Usage(format!(
            "'{}' has no stacks or no index to add names to",
            trace.path().display()
        )));
    };
    let place = reader.place(found.offset)?;
    let place =
        place.ok_or_else(|| TraceError::damaged(reader.path(), found.offset, "no index"))?;
    let body = reader.chunk(&place)?.body;
    replaceable(out).map_err(|error| TraceError::io("write", out, error))?;
    let temporary = temporary_path(out);
    let write = || {
        std::fs::copy(reader.path(), &temporary)
            .map_err(|error| TraceError::io("write", out, error))?;
        let mut writer = ChunkWriter::resume(&temporary, found.offset, LEVEL)?;
        let mut late = found.meta.late.clone().unwrap_or_default();
        // Names that were stored before are skipped from now on.
        late.retain(|offset| {
            !matches!(reader.place(*offset), Ok(Some(place)) if place.kind == ChunkKind::SYMBOLS)
        });
        for part in symbol_chunks(symbols) {
            let body = part.map_err(|error| TraceError::io("write", out, error.into()))?;
            late.push(writer.offset());
            writer.write(ChunkKind::SYMBOLS, &[], &body)?;
        }
        let offset = writer.offset();
        let meta = serde_json::to_vec(&IndexMeta {
            late: Some(late),
            ..found.meta
        })
        .map_err(|error| TraceError::io("write", out, error.into()))?;
        writer.write(ChunkKind::INDEX, &meta, &body)?;
        let mut trailer = TRAILER.to_vec();
        trailer.extend_from_slice(&offset.to_le_bytes());
        writer.trailer(&trailer)?;
        std::fs::rename(&temporary, out).map_err(|error| TraceError::io("rename", out, error))
    };
    write().inspect_err(|_: &TraceError| {
        // The cause matters, not a failure to tidy up after it.
        let _ = std::fs::remove_file(&temporary);
    })
}
