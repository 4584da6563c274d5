//! Everything of a recording in memory, and what must hold of it.

use heaplab_workloads::record::Sink;
use heaplab_workloads::trace::packed::Packed;
use heaplab_workloads::trace::raw::{RawEvent, RawKind};
use heaplab_workloads::trace::{ProcessInfo, TraceError};
use std::collections::BTreeMap;

/// Everything that was recorded, by thread.
#[derive(Default)]
pub struct Recorded {
    pub threads: BTreeMap<u32, Vec<RawEvent>>,
    pub os_tids: BTreeMap<u32, u32>,
    pub names: BTreeMap<u32, String>,
    pub ended: Vec<u32>,
    pub processes: Vec<ProcessInfo>,
    pub process_ends: Vec<u32>,
    /// The process of each thread.
    pub owners: BTreeMap<u32, u32>,
    /// Times and names.
    pub marks: Vec<(u64, String)>,
    pub notes: Vec<String>,
    /// Slows the drainer down: this long at every batch of events.
    pub delay: std::time::Duration,
}

impl Sink for Recorded {
    fn process_start(&mut self, process: &ProcessInfo) -> Result<(), TraceError> {
        self.processes.push(process.clone());
        Ok(())
    }
    fn process_end(&mut self, process: u32, _: u64) -> Result<(), TraceError> {
        self.process_ends.push(process);
        Ok(())
    }
    fn thread_start(
        &mut self,
        process: u32,
        thread: u32,
        os_tid: u32,
        _: u64,
    ) -> Result<(), TraceError> {
        self.owners.insert(thread, process);
        assert!(
            self.os_tids.insert(thread, os_tid).is_none(),
            "thread {thread} started twice"
        );
        self.threads.entry(thread).or_default();
        Ok(())
    }
    fn thread_name(&mut self, thread: u32, name: &str) -> Result<(), TraceError> {
        self.names.insert(thread, name.to_owned());
        Ok(())
    }
    fn events(&mut self, thread: u32, events: &Packed) -> Result<(), TraceError> {
        std::thread::sleep(self.delay);
        assert!(
            !self.ended.contains(&thread),
            "events of thread {thread} after its end"
        );
        self.threads
            .get_mut(&thread)
            .expect("a started thread")
            .extend(events.events());
        Ok(())
    }
    fn thread_end(&mut self, thread: u32, _: u64) -> Result<(), TraceError> {
        self.ended.push(thread);
        Ok(())
    }
    fn mark(&mut self, _: Option<u32>, time_ns: u64, name: &str) -> Result<(), TraceError> {
        self.marks.push((time_ns, name.to_owned()));
        Ok(())
    }
    fn note(&mut self, text: &str) -> Result<(), TraceError> {
        self.notes.push(text.to_owned());
        Ok(())
    }
}

impl Recorded {
    /// All events, thread after thread.
    pub fn events(&self) -> impl Iterator<Item = &RawEvent> {
        self.threads.values().flatten()
    }

    /// How many events of this kind there are.
    pub fn count(&self, kind: RawKind) -> u64 {
        self.events().filter(|event| event.kind == kind).count() as u64
    }

    /// How many blocks were allocated by anything but realloc.
    pub fn allocations(&self) -> u64 {
        use RawKind::*;
        [
            Malloc,
            Calloc,
            AlignedAlloc,
            Memalign,
            PosixMemalign,
            Valloc,
            Pvalloc,
        ]
        .into_iter()
        .map(|kind| self.count(kind))
        .sum()
    }

    /// How many blocks were freed by anything but realloc.
    pub fn frees(&self) -> u64 {
        [RawKind::Free, RawKind::FreeSized, RawKind::FreeAlignedSized]
            .into_iter()
            .map(|kind| self.count(kind))
            .sum()
    }

    /// How many calls of realloc and reallocarray returned.
    pub fn reallocs(&self) -> u64 {
        self.count(RawKind::ReallocEnd) + self.count(RawKind::ReallocArrayEnd)
    }

    /// What the threads of one process recorded, as if it were alone.
    pub fn of_process(&self, process: u32) -> Recorded {
        let threads = self.threads.iter();
        Recorded {
            threads: threads
                .filter(|(thread, _)| self.owners[thread] == process)
                .map(|(&thread, events)| (thread, events.clone()))
                .collect(),
            ..Recorded::default()
        }
    }

    /// Checks the invariants of the first process's recording: times do not go back in a thread, every
    /// address is freed at most as often as it was allocated, a begin of realloc has its end.
    /// Returns the number of blocks left at the end.
    pub fn check(&self) -> i64 {
        let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
        let first = self.owners.values().min();
        for (thread, events) in &self.threads {
            if self.owners.get(thread) != first {
                continue;
            }
            let mut last = 0;
            let mut begun: Option<u64> = None;
            for event in events {
                assert!(event.time_ns >= last, "time goes back in thread {thread}");
                last = event.time_ns;
                match event.kind {
                    RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized => {
                        *balance.entry(event.address).or_default() -= 1;
                    }
                    RawKind::ReallocBegin => {
                        assert_eq!(begun, None, "two begins of realloc in thread {thread}");
                        begun = Some(event.address);
                    }
                    RawKind::ReallocEnd | RawKind::ReallocArrayEnd => {
                        let old = begun.take().expect("an end of realloc without a begin");
                        let failed = event.address == 0 && event.size > 0;
                        if old != 0 && !failed {
                            *balance.entry(old).or_default() -= 1;
                        }
                        if event.address != 0 {
                            *balance.entry(event.address).or_default() += 1;
                        }
                    }
                    kind if changes_no_block(kind) => {}
                    _ => *balance.entry(event.address).or_default() += 1,
                }
            }
        }
        for (address, live) in &balance {
            assert!(
                (0..=1).contains(live),
                "block {address:#x} is live {live} times at the end"
            );
        }
        balance.values().sum()
    }
}

/// An event that neither makes nor ends a block.
fn changes_no_block(kind: RawKind) -> bool {
    matches!(
        kind,
        RawKind::FailedAlloc
            | RawKind::Mark
            | RawKind::Fork
            | RawKind::Mmap
            | RawKind::Munmap
            | RawKind::Mremap
            | RawKind::Brk
            | RawKind::Written
    )
}

impl Recorded {
    /// Checks that the one thread's events, in the order in which they were drained, alternate at
    /// every address. Only for programs whose realloc never fails.
    pub fn check_order_of_one_thread(&self) {
        assert_eq!(self.threads.len(), 1);
        let mut live = std::collections::BTreeSet::new();
        for (number, event) in self.events().enumerate() {
            match event.kind {
                RawKind::Free | RawKind::FreeSized | RawKind::FreeAlignedSized => {
                    assert!(
                        live.remove(&event.address),
                        "event {number} frees no block: {event:?}"
                    );
                }
                RawKind::ReallocBegin => {
                    assert!(
                        event.address == 0 || live.remove(&event.address),
                        "{number}: {event:?}"
                    );
                }
                kind if changes_no_block(kind) => {}
                _ => assert!(
                    live.insert(event.address),
                    "event {number} is live: {event:?}"
                ),
            }
        }
    }
}
