//! The chunks of text, and a file without an index: walks over chunk headers.

use super::Trace;
use super::segment::SegmentMeta;
use crate::trace::container::{Chunk, ChunkKind, ChunkPlace, FILE_HEADER};
use crate::trace::error::TraceError;
use crate::trace::index::Segment;
use crate::trace::stacks::StackTable;

/// A chunk, read and checked when it is asked for.
pub(in crate::trace) type Lazy<'a> = &'a dyn Fn() -> Result<Chunk, TraceError>;

impl Trace {
    /// Shows every chunk of the file with its offset, up to the end or to where the file is damaged.
    pub(in crate::trace) fn each_chunk(
        &self,
        seen: &mut dyn FnMut(ChunkKind, Lazy<'_>, u64) -> Result<(), TraceError>,
    ) -> Result<(), TraceError> {
        let mut offset = FILE_HEADER;
        while let Ok(Some(place)) = self.reader.place(offset) {
            seen(place.kind, &|| self.reader.chunk(&place), offset)?;
            offset = place.end();
        }
        Ok(())
    }

    /// Reads the chunks of text of a file with an index: those before the first segment, and those that it lists; all,
    /// where it is of a version that lists none.
    pub(super) fn read_text(&mut self, late: Option<&[u64]>, end: u64) -> Result<(), TraceError> {
        let mut offset = FILE_HEADER;
        while offset < end
            && let Some(place) = self.reader.place(offset)?
        {
            offset = place.end();
            if late.is_some() && matches!(place.kind, ChunkKind::SEGMENT | ChunkKind::CHECKPOINT) {
                break;
            }
            self.read_chunk(&place)?;
        }
        for &offset in late.unwrap_or_default() {
            let place = self.reader.place(offset)?.ok_or_else(|| {
                TraceError::damaged(
                    self.reader.path(),
                    offset,
                    "the index points behind the file",
                )
            })?;
            self.read_chunk(&place)?;
        }
        Ok(())
    }

    /// Collects the whole segments of a file without an index, each checked in full, and says what is missing.
    pub(super) fn scan(&mut self) -> Result<(), TraceError> {
        let mut offset = FILE_HEADER;
        let mut open: Option<(Segment, u32)> = None;
        let mut damage = None;
        let mut checkpoint = None;
        while let Some(place) = self.reader.place(offset).unwrap_or_else(|error| {
            damage = Some(error);
            None
        }) {
            offset = place.end();
            let outcome = self
                .read_chunk(&place)
                .and_then(|()| self.scan_chunk(&place, &mut open, &mut checkpoint));
            match outcome {
                Ok(()) => {}
                Err(error) if self.segments.is_empty() => return Err(error),
                Err(error) => {
                    damage = Some(error);
                    break;
                }
            }
        }
        let known = self.segments.len() as u64;
        self.checkpoints.retain(|(segment, _)| *segment < known);
        let missing = &mut self.summary.missing;
        missing.extend(damage.map(|error| format!("everything after: {error}")));
        missing.push("the end of the file with its index".into());
        Ok(())
    }

    fn scan_chunk(
        &mut self,
        place: &ChunkPlace,
        open: &mut Option<(Segment, u32)>,
        checkpoint: &mut Option<u64>,
    ) -> Result<(), TraceError> {
        let damaged = |reason: &str| TraceError::damaged(self.reader.path(), place.offset, reason);
        match place.kind {
            ChunkKind::SEGMENT => {
                // Checked in full: what is listed must be readable.
                let chunk = self.reader.chunk(place)?;
                let meta = SegmentMeta::decode(&chunk.meta).map_err(|reason| damaged(&reason))?;
                let expected = self
                    .segments
                    .last()
                    .map_or(0, |last| last.first_event + last.events);
                if meta.first_event != expected {
                    return Err(damaged("a segment is missing"));
                }
                let segment = Segment {
                    offset: place.offset,
                    first_event: meta.first_event,
                    events: u64::from(meta.events),
                    first_tick: 0,
                    last_tick: 0,
                    live_bytes: 0,
                };
                *open = Some((segment, meta.chunks));
            }
            ChunkKind::EVENTS | ChunkKind::EVENTS_1 => {
                self.reader.chunk(place)?;
                if let Some((segment, left)) = open {
                    *left -= 1;
                    if *left == 0 {
                        self.segments.push(*segment);
                        *open = None;
                    }
                }
            }
            ChunkKind::CHECKPOINT => {
                let chunk = self.reader.chunk(place)?;
                let first = *checkpoint.get_or_insert(place.offset);
                if chunk.meta.get(8..12) == Some(&[0; 4]) {
                    // Its last part: it belongs to the segment that follows.
                    *checkpoint = None;
                    if open.is_none() && !self.segments.is_empty() {
                        self.checkpoints.push((self.segments.len() as u64, first));
                        self.checkpoints.dedup_by_key(|(segment, _)| *segment);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what a chunk of text says; other kinds are left alone.
    fn read_chunk(&mut self, place: &ChunkPlace) -> Result<(), TraceError> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let damaged = |reason: &str| TraceError::damaged(self.reader.path(), place.offset, reason);
        match place.kind {
            ChunkKind::HEADER => {
                let chunk = self.reader.chunk(place)?;
                let argv = std::mem::take(&mut self.header.argv);
                self.header = serde_json::from_slice(&chunk.body)
                    .map_err(|error| damaged(&format!("the header cannot be read: {error}")))?;
                self.header.argv = argv;
            }
            ChunkKind::ARGV => {
                let chunk = self.reader.chunk(place)?;
                self.header.argv = serde_json::from_slice(&chunk.body)
                    .map_err(|error| damaged(&format!("the arguments cannot be read: {error}")))?;
            }
            ChunkKind::NAME => {
                let chunk = self.reader.chunk(place)?;
                let thread = chunk
                    .meta
                    .first_chunk::<4>()
                    .ok_or_else(|| damaged("no thread"))?;
                self.names
                    .push((u32::from_le_bytes(*thread), text(chunk.body)));
            }
            ChunkKind::MARK => {
                let chunk = self.reader.chunk(place)?;
                let tick = chunk
                    .meta
                    .first_chunk::<8>()
                    .ok_or_else(|| damaged("no time"))?;
                let process = chunk.meta.get(8..).and_then(<[u8]>::first_chunk::<4>);
                self.mark_processes
                    .push(process.map(|process| u32::from_le_bytes(*process)));
                self.marks
                    .push((u64::from_le_bytes(*tick), text(chunk.body)));
            }
            ChunkKind::NOTE => {
                let chunk = self.reader.chunk(place)?;
                self.notes.push(text(chunk.body));
            }
            ChunkKind::MODULES | ChunkKind::FRAMES | ChunkKind::STACKS | ChunkKind::SYMBOLS => {
                let chunk = self.reader.chunk(place)?;
                StackTable::take_chunk(&mut self.stacks, place.kind, &chunk.meta, &chunk.body)
                    .map_err(|reason| damaged(&reason))?;
            }
            _ => {}
        }
        Ok(())
    }
}
