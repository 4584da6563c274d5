//! The index at the end of a file: what opening needs without reading an event.

use super::container::{ChunkKind, ChunkReader, FILE_HEADER};
use super::error::TraceError;
use super::summary::TraceSummary;
use super::writer::{INDEX_ENTRY, SEGMENT_EVENTS, TRAILER};
use serde::{Deserialize, Serialize};

/// A segment's place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset of its chunk.
    pub offset: u64,
    /// Number of its first event.
    pub first_event: u64,
    /// Its events.
    pub events: u64,
    /// Tick of its first event.
    pub first_tick: u64,
    /// Largest tick up to its end.
    pub last_tick: u64,
    /// Live bytes after its first event.
    pub live_bytes: u64,
}

/// Meta of the INDEX chunk. Its body has 48 bytes a segment.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct IndexMeta {
    #[serde(flatten)]
    pub summary: TraceSummary,
    /// Offsets of the chunks of text that lie behind the first segment; absent in files of version 1.0, where a reader has
    /// to walk over all chunks to find them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Vec<u64>>,
    /// Checkpoints: number of the segment that follows, offset.
    #[serde(default)]
    pub checkpoints: Vec<(u64, u64)>,
}

/// What the index says.
pub(super) struct Index {
    pub meta: IndexMeta,
    pub segments: Vec<Segment>,
    /// Where the INDEX chunk begins.
    pub offset: u64,
}

/// Reads the index that the trailer points to; `None` when there is no trailer.
pub(super) fn read(reader: &ChunkReader) -> Result<Option<Index>, TraceError> {
    let length = reader.length();
    let mut trailer = [0u8; 16];
    if length < FILE_HEADER + 16 {
        return Ok(None);
    }
    reader.bytes_at(length - 16, &mut trailer)?;
    if trailer[..8] != TRAILER {
        return Ok(None);
    }
    let mut word = [0u8; 8];
    word.copy_from_slice(&trailer[8..]);
    let offset = u64::from_le_bytes(word);
    let damaged = |reason: &str| TraceError::damaged(reader.path(), offset, reason);
    let place = reader
        .place(offset)?
        .filter(|place| place.kind == ChunkKind::INDEX && place.end() == length - 16)
        .ok_or_else(|| damaged("the trailer does not point to the index"))?;
    let chunk = reader.chunk(&place)?;
    let meta: IndexMeta = serde_json::from_slice(&chunk.meta)
        .map_err(|error| damaged(&format!("the summary cannot be read: {error}")))?;
    if !chunk.body.len().is_multiple_of(INDEX_ENTRY) {
        return Err(damaged("the index is cut"));
    }
    let segments = segments(&chunk.body, offset).map_err(damaged)?;
    let events = segments
        .last()
        .map_or(0, |last| last.first_event + last.events);
    if meta.summary.events != events {
        return Err(damaged(
            "the summary and the index count different numbers of events",
        ));
    }
    let mut before = 0;
    for &(segment, at) in &meta.checkpoints {
        if segment <= before || segment >= segments.len() as u64 || at >= offset {
            return Err(damaged("a checkpoint of the index is out of order"));
        }
        before = segment;
    }
    Ok(Some(Index {
        meta,
        segments,
        offset,
    }))
}

fn segments(body: &[u8], end: u64) -> Result<Vec<Segment>, &'static str> {
    let mut segments = Vec::with_capacity(body.len() / INDEX_ENTRY);
    let mut next_event = 0u64;
    for entry in body.chunks_exact(INDEX_ENTRY) {
        let at = |index: usize| {
            let mut word = [0u8; 8];
            word.copy_from_slice(&entry[8 * index..8 * index + 8]);
            u64::from_le_bytes(word)
        };
        let segment = Segment {
            offset: at(0),
            first_event: at(1),
            events: at(2),
            first_tick: at(3),
            last_tick: at(4),
            live_bytes: at(5),
        };
        if segment.first_event != next_event
            || segment.events == 0
            || segment.events > SEGMENT_EVENTS as u64
            || segment.offset >= end
        {
            return Err("an entry of the index does not follow the one before");
        }
        next_event += segment.events;
        segments.push(segment);
    }
    Ok(segments)
}
