//! Groups of segments that can be read alone, and reading them in parallel.
//!
//! A group begins at the start of the trace or at a checkpoint. What is computed over a trace is a value per group and a
//! rule to join two; the groups are read by as many threads as their live blocks leave memory for.

use super::Trace;
use crate::trace::checkpoint::{self, Walk};
use crate::trace::error::TraceError;
use crate::trace::event::Block;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Bytes that the live blocks of all readers together may take.
const MEMORY: u64 = 640 << 20;

/// Segments that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::trace) struct Group {
    pub segments: Range<usize>,
    /// Offset of the checkpoint before it; `None` for the first group.
    checkpoint: Option<u64>,
}

impl Group {
    /// It begins where the trace does.
    pub fn is_first(&self) -> bool {
        self.checkpoint.is_none()
    }
}

impl Trace {
    /// All groups in order.
    pub(in crate::trace) fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::with_capacity(self.checkpoints.len() + 1);
        let mut start = (0, None);
        for &(segment, offset) in &self.checkpoints {
            groups.push(Group {
                segments: start.0..segment as usize,
                checkpoint: start.1,
            });
            start = (segment as usize, Some(offset));
        }
        groups.push(Group {
            segments: start.0..self.segments.len(),
            checkpoint: start.1,
        });
        groups.retain(|group| !group.segments.is_empty());
        groups
    }

    /// The state before a group.
    pub(in crate::trace) fn state_at(&self, group: &Group) -> Result<Walk, TraceError> {
        let Some(offset) = group.checkpoint else {
            return Ok(Walk::default());
        };
        let next_event = self.segments[group.segments.start].first_event;
        checkpoint::read(&self.reader, offset, next_event)
    }

    /// Computes `work` for each group, in parallel, and joins the results in order. `work` calls its last argument with
    /// the number of events that it has read since it last did so.
    pub(in crate::trace) fn fold_groups<T: Send>(
        &self,
        work: impl Fn(&Group, &mut dyn FnMut(u64)) -> Result<T, TraceError> + Sync,
        mut join: impl FnMut(T) -> Result<(), TraceError>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), TraceError> {
        enum Message<T> {
            Read(u64),
            Done(usize, Result<T, TraceError>),
        }
        let groups = self.groups();
        let total = self
            .segments
            .last()
            .map_or(0, |last| last.first_event + last.events);
        let width = self.width(groups.len());
        if width <= 1 {
            let mut read = 0;
            for group in &groups {
                let done = work(group, &mut |events| {
                    read += events;
                    progress(read, total);
                })?;
                join(done)?;
            }
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let (groups, next, work) = (&groups, &next, &work);
        rayon::in_place_scope(|scope| {
            let (send, receive) = mpsc::channel();
            for _ in 0..width {
                let send = send.clone();
                scope.spawn(move |_| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(group) = groups.get(index) else {
                            return;
                        };
                        // The receiver is gone only after an error, when nobody wants to know.
                        let done = work(group, &mut |events| {
                            let _ = send.send(Message::Read(events));
                        });
                        if send.send(Message::Done(index, done)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let mut waiting: Vec<Option<T>> = (0..groups.len()).map(|_| None).collect();
            let (mut joined, mut read) = (0, 0);
            let outcome = (|| {
                for message in receive {
                    match message {
                        Message::Read(events) => {
                            read += events;
                            progress(read, total);
                        }
                        Message::Done(index, done) => waiting[index] = Some(done?),
                    }
                    while let Some(done) = waiting.get_mut(joined).and_then(Option::take) {
                        join(done)?;
                        joined += 1;
                    }
                }
                Ok(())
            })();
            if outcome.is_err() {
                next.store(groups.len(), Ordering::Relaxed);
            }
            outcome
        })
    }

    /// How many groups are read at the same time.
    fn width(&self, groups: usize) -> usize {
        let blocks = self.summary.peak_live_blocks.max(1);
        let each = blocks.saturating_mul(size_of::<Block>() as u64 + 8);
        let most = (MEMORY / each.max(1)).clamp(1, 1 << 16) as usize;
        groups.min(rayon::current_num_threads()).min(most)
    }
}
