//! What was read and is not yet written.

use super::super::sink::Sink;
use super::super::stream::{FLUSH_EVENTS, Stream};
use super::Drainer;
use crate::trace::TraceError;

/// Events held in memory over all threads (some 6 bytes each) before all are written.
const MOST_BUFFERED: usize = 1 << 20;

impl<S: Sink> Drainer<'_, S> {
    pub(super) fn flush_if_full(&mut self, thread: u32) -> Result<(), TraceError> {
        if self.buffered >= MOST_BUFFERED {
            return self.flush_all();
        }
        let full = |stream: &Stream| stream.events.len() >= FLUSH_EVENTS;
        if self.threads.get(&thread).is_some_and(full) {
            self.flush(thread)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, thread: u32) -> Result<(), TraceError> {
        if let Some(stream) = self.threads.get_mut(&thread)
            && !stream.events.is_empty()
        {
            let (process, stacks) = (stream.process, &mut stream.stacks);
            self.stacks.write(&mut self.sink, process, thread, stacks)?;
            self.sink.events(thread, &stream.events)?;
            self.buffered -= stream.events.len();
            stream.events.clear();
        }
        Ok(())
    }

    pub(super) fn flush_all(&mut self) -> Result<(), TraceError> {
        let mut threads: Vec<u32> = self
            .threads
            .iter()
            .filter(|(_, stream)| !stream.events.is_empty())
            .map(|(&thread, _)| thread)
            .collect();
        threads.sort_unstable();
        for thread in threads {
            self.flush(thread)?;
            // Many threads with large buffers of their own would be held for nothing.
            if let Some(stream) = self.threads.get_mut(&thread) {
                stream.events.shrink_to(FLUSH_EVENTS / 16);
            }
        }
        Ok(())
    }
}
