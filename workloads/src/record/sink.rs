//! Where drained events go.

use crate::trace::packed::Packed;
use crate::trace::raw::RawWriter;
use crate::trace::stacks::raw::{RawModule, RawStack};
use crate::trace::{ProcessInfo, TraceError};

/// Takes what the drainer reads, in each thread's order.
pub trait Sink {
    /// Who a process is. Threads and events of it may have come before.
    fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        let _ = process;
        Ok(())
    }
    /// The process is over.
    fn process_end(&mut self, process: u32, time_ns: u64) -> Result<(), TraceError> {
        let _ = (process, time_ns);
        Ok(())
    }
    /// Thread `thread` (dense from 0 over all processes) of `process` has its first event.
    fn thread_start(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        time_ns: u64,
    ) -> Result<(), TraceError>;
    /// The thread has (now) this name.
    fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError>;
    /// The next events of a thread.
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError>;
    /// The thread has ended; nothing of it follows.
    fn thread_end(&mut self, thread: u32, time_ns: u64) -> Result<(), TraceError>;
    /// A named instant of a process, or of the whole recording.
    fn mark(&mut self, process: Option<u32>, time_ns: u64, name: &str) -> Result<(), TraceError>;
    /// A remark for the reader of the trace.
    fn note(&mut self, text: &str) -> Result<(), TraceError>;
    /// A module of a program that brings stacks.
    fn module(&mut self, _: &RawModule) -> Result<(), TraceError> {
        Ok(())
    }
    /// Stacks that were met for the first time; events may have named them already.
    fn stacks(&mut self, _: &[RawStack]) -> Result<(), TraceError> {
        Ok(())
    }
    /// The stacks of the thread's next events: (number of the event among the thread's, from 0; stack).
    fn event_stacks(&mut self, _: u32, _: &[(u64, u32)]) -> Result<(), TraceError> {
        Ok(())
    }
}

impl Sink for RawWriter {
    fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        RawWriter::process_start(self, process)
    }
    fn process_end(&mut self, process: u32, time_ns: u64) -> Result<(), TraceError> {
        RawWriter::process_end(self, process, time_ns)
    }
    fn thread_start(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        time_ns: u64,
    ) -> Result<(), TraceError> {
        RawWriter::thread_start_in(self, process, thread, os_tid, time_ns)
    }
    fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        RawWriter::thread_name(self, thread, name)
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        RawWriter::packed(self, thread, events)
    }
    fn thread_end(&mut self, thread: u32, time_ns: u64) -> Result<(), TraceError> {
        RawWriter::thread_end(self, thread, time_ns)
    }
    fn mark(&mut self, process: Option<u32>, time_ns: u64, name: &str) -> Result<(), TraceError> {
        RawWriter::mark_in(self, process, time_ns, name)
    }
    fn note(&mut self, text: &str) -> Result<(), TraceError> {
        RawWriter::note(self, text)
    }
    fn module(&mut self, module: &RawModule) -> Result<(), TraceError> {
        RawWriter::module(self, module)
    }
    fn stacks(&mut self, stacks: &[RawStack]) -> Result<(), TraceError> {
        RawWriter::stacks(self, stacks)
    }
    fn event_stacks(&mut self, thread: u32, refs: &[(u64, u32)]) -> Result<(), TraceError> {
        RawWriter::event_stacks(self, thread, refs)
    }
}

/// Drops everything: for measuring the cost of recording without that of a file.
#[derive(Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn thread_start(&mut self, _: u32, _: u32, _: u32, _: u64) -> Result<(), TraceError> {
        Ok(())
    }
    fn thread_name(&mut self, _: u32, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
    fn events(&mut self, _: u32, _: &Packed) -> Result<(), TraceError> {
        Ok(())
    }
    fn thread_end(&mut self, _: u32, _: u64) -> Result<(), TraceError> {
        Ok(())
    }
    fn mark(&mut self, _: Option<u32>, _: u64, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
    fn note(&mut self, _: &str) -> Result<(), TraceError> {
        Ok(())
    }
}
