//! Threads of the recorded programs: met at their first chunk, named, missed when they are gone.

use super::super::sink::Sink;
use super::super::stream::Stream;
use super::Drainer;
use crate::trace::TraceError;
use crate::trace::packed::Packed;
use heaplab_ring::{SlotInfo, SlotState};
use std::collections::HashSet;

impl<S: Sink> Drainer<'_, S> {
    /// Makes a thread's acquaintance at its first chunk.
    pub(super) fn meet(&mut self, slot: &SlotInfo) -> Result<(), TraceError> {
        if self.threads.contains_key(&slot.thread) {
            return Ok(());
        }
        self.processes.meet(slot.process, slot.pid);
        let now = self.clock.now_ns();
        self.sink
            .thread_start(slot.process, slot.thread, slot.os_tid, now)?;
        self.threads
            .insert(slot.thread, Stream::new(slot.process, slot.os_tid));
        self.summary.threads += 1;
        // A later thread with the same id may have been met first; numbers rise with time.
        let id = (slot.process, slot.os_tid);
        let present = self.by_tid.entry(id).or_insert(slot.thread);
        let earlier = slot.thread.min(*present);
        *present = slot.thread.max(*present);
        if earlier != *present
            && let Some(earlier) = self.threads.get_mut(&earlier)
        {
            earlier.dead = true;
        }
        Ok(())
    }

    /// Looks which threads are gone: those that said they end, or with `all` every silent one.
    pub(super) fn look_for_threads(&mut self, all: bool) -> Result<(), TraceError> {
        let mut gone = Vec::new();
        let mut names = Vec::new();
        if all {
            for (_, process) in self.processes.iter_mut() {
                if !process.dead {
                    process.dead = process.target.is_over();
                }
            }
        }
        for (&thread, stream) in &mut self.threads {
            if stream.ended {
                continue;
            }
            let Some(process) = self.processes.get_mut(stream.process) else {
                continue;
            };
            if stream.dead {
                gone.push(thread);
            } else if process.dead {
                stream.dead = true;
            } else if stream.ending || (all && !stream.lively) {
                stream.dead = process.target.is_gone(stream.os_tid);
            } else if all && let Some(name) = process.target.name(stream.os_tid) {
                names.push((thread, name));
            }
            if all {
                stream.lively = false;
            }
        }
        // Found dead by an earlier look: it is over once the passes since then have read what was left.
        if !gone.is_empty() {
            let held: HashSet<u32> = (0..self.pool.high_water())
                .map(|index| self.pool.slot(index))
                .filter(|slot| slot.state != SlotState::Free)
                .map(|slot| slot.thread)
                .collect();
            for thread in gone.into_iter().filter(|thread| !held.contains(thread)) {
                self.end_thread(thread)?;
            }
        }
        for (thread, name) in names {
            self.rename(thread, &name)?;
        }
        Ok(())
    }

    pub(super) fn end_thread(&mut self, thread: u32) -> Result<(), TraceError> {
        self.flush(thread)?;
        if let Some(stream) = self.threads.get_mut(&thread)
            && !stream.ended
        {
            stream.ended = true;
            stream.events = Packed::default();
            let (process, last_ns) = (stream.process, stream.last_ns);
            self.sink.thread_end(thread, last_ns)?;
            if let Some(process) = self.processes.get_mut(process) {
                process.last_ns = process.last_ns.max(last_ns);
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        if let Some(stream) = self.threads.get_mut(&thread)
            && !name.is_empty()
            && stream.name != name
        {
            name.clone_into(&mut stream.name);
            self.sink.thread_name(thread, name)?;
        }
        Ok(())
    }
}

pub(super) fn name_of(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
