//! Checks every rule of a trace; counts a trace whose index is missing.

use super::Trace;
use super::groups::Group;
use crate::trace::checkpoint::Walk;
use crate::trace::container::{ChunkKind, FILE_HEADER};
use crate::trace::error::TraceError;
use crate::trace::summary::TraceSummary;

impl Trace {
    /// Reads everything and checks every rule: checksums, columns, that each block is allocated before it is resized or
    /// freed, that time never runs backwards in a thread, that checkpoints, index and summary agree with the events.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<TraceSummary, TraceError> {
        self.check_chunks()?;
        let mut found = self.count(progress)?;
        found.close();
        if !found.same_counts(&self.summary) {
            let reason = format!(
                "the summary disagrees with the events: {} allocations and {} frees were found, {} and {} are stated",
                found.allocations, found.frees, self.summary.allocations, self.summary.frees
            );
            return Err(TraceError::damaged(
                &self.path,
                self.reader.length(),
                reason,
            ));
        }
        Ok(self.summary.clone())
    }

    /// Counts all events, and checks that each checkpoint is the state that the events before it lead to.
    pub(super) fn count(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<TraceSummary, TraceError> {
        let mut sum = TraceSummary::default();
        let mut state: Option<Walk> = None;
        let work = |group: &Group, read: &mut dyn FnMut(u64)| {
            let mut walk = self.state_at(group)?;
            let before = (!group.is_first()).then(|| walk.max_tick());
            let mut summary = TraceSummary::continued(before);
            for index in group.segments.clone() {
                let mut first = None;
                self.segment(index, &mut walk, &mut |event, block, live| {
                    first = first.or(Some(event.tick));
                    summary.count(event, block.thread, live);
                })?;
                let segment = self.segments[index];
                // The entries of a scanned file carry no times.
                if segment.last_tick != 0 && first != Some(segment.first_tick) {
                    let reason = "the index is wrong about the time of a segment";
                    return Err(TraceError::damaged(&self.path, segment.offset, reason));
                }
                read(segment.events);
            }
            Ok((group.clone(), summary, walk))
        };
        let join = |(group, summary, after): (Group, TraceSummary, Walk)| {
            if let Some(before) = state.replace(after)
                && !before.same(&self.state_at(&group)?)
            {
                let offset = self.segments[group.segments.start].offset;
                let reason = "the checkpoint before this segment disagrees with the events";
                return Err(TraceError::damaged(&self.path, offset, reason));
            }
            sum.append(summary);
            Ok(())
        };
        self.fold_groups(work, join, progress)?;
        Ok(sum)
    }

    /// Every byte belongs to a chunk, and what is not read as events has the right checksum.
    fn check_chunks(&self) -> Result<(), TraceError> {
        if !self.indexed {
            return Ok(());
        }
        let (mut offset, end) = (FILE_HEADER, self.reader.length() - 16);
        while offset < end {
            let Some(place) = self.reader.place(offset)? else {
                break;
            };
            offset = place.end();
            if place.kind != ChunkKind::SEGMENT && !place.kind.is_events() {
                self.reader.chunk(&place)?;
            }
        }
        if offset == end {
            return Ok(());
        }
        Err(TraceError::damaged(
            &self.path,
            offset,
            "the last chunk does not end at the trailer",
        ))
    }
}
