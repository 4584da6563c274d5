//! What becomes of a recording whose file takes no more: the first error is kept, and everything after it is counted.

use super::sink::Sink;
use crate::trace::packed::Packed;
use crate::trace::stacks::raw::{RawModule, RawStack};
use crate::trace::{ProcessInfo, TraceError};

/// A sink that never fails: after the first error of the one behind it nothing more is passed on.
pub(super) struct Guard<'a, S> {
    sink: &'a mut S,
    error: Option<TraceError>,
    /// Events that were passed on.
    stored: u64,
    /// Events that were not.
    missed: u64,
}

impl<'a, S: Sink> Guard<'a, S> {
    pub fn new(sink: &'a mut S) -> Self {
        Self {
            sink,
            error: None,
            stored: 0,
            missed: 0,
        }
    }

    /// Whether the sink behind has failed.
    pub fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// The error, with the events passed on before it and those missed since.
    pub fn failure(&mut self) -> Option<(TraceError, u64, u64)> {
        let error = self.error.take()?;
        Some((error, self.stored, self.missed))
    }

    /// `true`: it was passed on.
    fn pass(&mut self, what: impl FnOnce(&mut S) -> Result<(), TraceError>) -> bool {
        if self.error.is_none() {
            self.error = what(self.sink).err();
        }
        self.error.is_none()
    }
}

impl<S: Sink> Sink for Guard<'_, S> {
    fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        self.pass(|sink| sink.process_start(process));
        Ok(())
    }
    fn process_end(&mut self, process: u32, time_ns: u64) -> Result<(), TraceError> {
        self.pass(|sink| sink.process_end(process, time_ns));
        Ok(())
    }
    fn thread_start(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        time_ns: u64,
    ) -> Result<(), TraceError> {
        self.pass(|sink| sink.thread_start(process, thread, os_tid, time_ns));
        Ok(())
    }
    fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.pass(|sink| sink.thread_name(thread, name));
        Ok(())
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        match self.pass(|sink| sink.events(thread, events)) {
            true => self.stored += events.len() as u64,
            false => self.missed += events.len() as u64,
        }
        Ok(())
    }
    fn thread_end(&mut self, thread: u32, time_ns: u64) -> Result<(), TraceError> {
        self.pass(|sink| sink.thread_end(thread, time_ns));
        Ok(())
    }
    fn mark(&mut self, process: Option<u32>, time_ns: u64, name: &str) -> Result<(), TraceError> {
        self.pass(|sink| sink.mark(process, time_ns, name));
        Ok(())
    }
    fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.pass(|sink| sink.note(text));
        Ok(())
    }
    fn module(&mut self, module: &RawModule) -> Result<(), TraceError> {
        self.pass(|sink| sink.module(module));
        Ok(())
    }
    fn stacks(&mut self, stacks: &[RawStack]) -> Result<(), TraceError> {
        self.pass(|sink| sink.stacks(stacks));
        Ok(())
    }
    fn event_stacks(&mut self, thread: u32, refs: &[(u64, u32)]) -> Result<(), TraceError> {
        self.pass(|sink| sink.event_stacks(thread, refs));
        Ok(())
    }
}
