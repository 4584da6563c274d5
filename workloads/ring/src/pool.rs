//! The protocol: how a chunk goes from the free stack to a thread, to the drainer, and back.
//!
//! ```text
//! Free ──take──► Active ──close──► Closed ──recycle──► Free
//!       thread           thread             drainer
//! ```
//! A thread writes only into its Active chunk; the drainer reads Active and Closed chunks and
//! recycles only Closed ones, or others whose thread is known to be dead.
//!
//! A full chunk usually stays with its thread, so that a thread writes to lines that no other core has read: its records are
//! copied to a second chunk (Filling), which is closed under the same sequence number, and the first one begins anew under
//! the next. Whatever instant the thread dies at, records with one sequence number are the same records: the drainer takes
//! the chunk that it meets first and drops the other.

use crate::clock::Clock;
use crate::layout::{Chunk, Control, GATE_PAUSED, RECORDS_PER_CHUNK, Slot};
use crate::record::RecordView;
use crate::sync::{AtomicU32, Ordering, fence};

/// Where a chunk is in its circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlotState {
    Free = 0,
    /// Owned by a thread that writes.
    Active = 1,
    /// Full; the thread went on to another chunk.
    Closed = 2,
    /// Closed because the thread ends; events may still follow in a further chunk.
    ClosedAtEnd = 3,
    /// A thread copies its full chunk to this one.
    Filling = 4,
}

/// A slot, read out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub state: SlotState,
    pub thread: u32,
    pub os_tid: u32,
    pub sequence: u32,
    /// Number of the thread's process.
    pub process: u32,
    /// The system's id of that process.
    pub pid: u32,
    /// The session's clock when the chunk was taken.
    pub base: u64,
    /// Records reserved; [`RECORDS_PER_CHUNK`] while the chunk is active.
    pub length: usize,
    /// The thread's name, zero-padded.
    pub name: [u8; 16],
}

/// Who takes a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub thread: u32,
    pub os_tid: u32,
    pub sequence: u32,
    pub process: u32,
    pub pid: u32,
    /// The session's clock now: the chunk's times count from here.
    pub base: u64,
    pub name: [u8; 16],
}

/// A mapped session, seen as the typed parts of its layout.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    pub(crate) control: &'a Control,
    pub(crate) slots: &'a [Slot],
    pub(crate) chunks: &'a [Chunk],
}

impl<'a> Pool<'a> {
    /// Chunks in the pool.
    pub fn chunk_count(&self) -> u32 {
        self.chunks.len() as u32
    }

    /// The chunk with this index. Panics when it is out of range.
    pub fn chunk(&self, index: u32) -> &'a Chunk {
        &self.chunks[index as usize]
    }

    // ---- producer: a thread of the recorded program ----

    /// A new thread number, in the order of first events.
    pub fn next_thread(&self) -> u32 {
        self.control.next_thread.fetch_add(1, Ordering::Relaxed)
    }

    /// Pops a free chunk and makes it `owner`'s; `None` when there is none.
    /// Wait-free apart from contention; a death inside loses at most one empty chunk.
    pub fn take(&self, owner: &Owner) -> Option<u32> {
        self.take_as(owner, SlotState::Active)
    }

    /// As [`Pool::take`], a chunk for [`Pool::copy`].
    pub fn take_for_copy(&self, owner: &Owner) -> Option<u32> {
        self.take_as(owner, SlotState::Filling)
    }

    fn take_as(&self, owner: &Owner, state: SlotState) -> Option<u32> {
        let mut head = self.control.free_head.load(Ordering::Acquire);
        let index = loop {
            let index = (head as u32).checked_sub(1)?;
            let slot = self.slots.get(index as usize)?;
            // May be stale when another thread pops `index` first; the tag then differs.
            let next = slot.next.load(Ordering::Relaxed);
            let tag = (head >> 32).wrapping_add(1) << 32;
            match self.control.free_head.compare_exchange(
                head,
                tag | u64::from(next),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break index,
                Err(now) => head = now,
            }
        };
        self.control
            .high_water
            .fetch_max(index + 1, Ordering::Relaxed);
        let slot = &self.slots[index as usize];
        slot.thread.store(owner.thread, Ordering::Relaxed);
        slot.os_tid.store(owner.os_tid, Ordering::Relaxed);
        slot.sequence.store(owner.sequence, Ordering::Relaxed);
        slot.process.store(owner.process, Ordering::Relaxed);
        slot.pid.store(owner.pid, Ordering::Relaxed);
        slot.base.store(owner.base, Ordering::Relaxed);
        slot.length
            .store(RECORDS_PER_CHUNK as u32, Ordering::Relaxed);
        set_name(slot, owner.name);
        slot.state.store(state as u32, Ordering::Release);
        Some(index)
    }

    /// Hands chunk `index` to the drainer; `length` records of it were reserved.
    pub fn close(&self, index: u32, length: usize, at_end: bool, name: [u8; 16]) {
        let Some(slot) = self.slots.get(index as usize) else {
            return;
        };
        slot.length
            .store(length.min(RECORDS_PER_CHUNK) as u32, Ordering::Relaxed);
        set_name(slot, name);
        let state = if at_end {
            SlotState::ClosedAtEnd
        } else {
            SlotState::Closed
        };
        slot.state.store(state as u32, Ordering::Release);
    }

    /// Copies the full chunk `from` to `to`, both the caller's. `false`: a slot of it has been reserved and not committed (its
    /// hook was interrupted by the handler that is calling); `to` is then free again.
    pub fn copy(&self, from: u32, to: u32) -> bool {
        let (from, target) = (&self.chunks[from as usize], &self.chunks[to as usize]);
        let (mark, new_mark) = (from.generation(), target.generation());
        let whole = crate::record::copy_all(&from.records, &target.records, mark, new_mark);
        crate::record::end_of_copy();
        if !whole {
            self.recycle(to);
        }
        whole
    }

    /// Begins a copied chunk anew, after the copy was closed: under another sequence number, its times from `base` on.
    pub fn restart(&self, index: u32, sequence: u32, base: u64) {
        self.next_generation(index);
        // Whoever reads a record that comes after this, and then looks at the generation, sees the new one.
        fence(Ordering::Release);
        let slot = &self.slots[index as usize];
        slot.base.store(base, Ordering::Relaxed);
        // Release: under this number no earlier record is to be seen.
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// Makes all records of a chunk empty.
    fn next_generation(&self, index: u32) {
        let chunk = &self.chunks[index as usize];
        let next = (chunk.generation() + 1) & u32::from(u8::MAX);
        if next == 0 {
            // The mark starts again at 1: what was left by that generation must not read as new.
            chunk.records.iter().for_each(|record| record.clear());
        }
        chunk.generation.store(next.max(1), Ordering::Relaxed);
    }

    /// Whether a free chunk was there a moment ago.
    pub fn has_free(&self) -> bool {
        self.control.free_head.load(Ordering::Relaxed) as u32 != 0
    }

    /// Counts events that could not be recorded.
    pub fn count_lost(&self, events: u64) {
        self.control.lost.fetch_add(events, Ordering::Relaxed);
    }

    /// Process `pid`, in which a recorder has just been loaded, joins. Its number, from 1; `None` when only the first
    /// process records and this is another one.
    pub fn join(&self, pid: u32) -> Option<u32> {
        let first =
            self.control
                .first_pid
                .compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire);
        if self.is_first_only() && first.is_err_and(|first| first != pid) {
            self.control.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.next_process())
    }

    /// A number for a process that is about to be forked.
    pub fn next_process(&self) -> u32 {
        self.control.processes.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether only the first process records.
    pub fn is_first_only(&self) -> bool {
        self.control.first_only.load(Ordering::Relaxed) != 0
    }

    /// Counts a forked process that does not record, because only the first one does.
    pub fn count_refused(&self) {
        self.control.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether mmap, munmap, mremap and brk are recorded.
    pub fn wants_mappings(&self) -> bool {
        self.control.mappings.load(Ordering::Relaxed) != 0
    }

    /// The word that every event looks at: 0, or bits of [`GATE_PAUSED`] and [`crate::layout::GATE_CLOCK`].
    pub fn gate(&self) -> &'a AtomicU32 {
        &self.control.gate
    }

    /// Leaves events out from now on, or no more; `true` when that is a change.
    pub fn set_paused(&self, paused: bool) -> bool {
        let gate = &self.control.gate;
        let before = match paused {
            true => gate.fetch_or(GATE_PAUSED, Ordering::Relaxed),
            false => gate.fetch_and(!GATE_PAUSED, Ordering::Relaxed),
        };
        (before & GATE_PAUSED != 0) != paused
    }

    /// [`Pool::set_paused`] for whoever runs the recording: counts the change, so that the drainer can mark it however
    /// soon the next one follows. The program's own calls leave marks themselves.
    pub fn switch_paused(&self, paused: bool) -> bool {
        let changed = self.set_paused(paused);
        if changed {
            let count = match paused {
                true => &self.control.pauses,
                false => &self.control.resumes,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        changed
    }

    /// How often [`Pool::switch_paused`] paused and resumed.
    pub fn switches(&self) -> (u32, u32) {
        (
            self.control.pauses.load(Ordering::Relaxed),
            self.control.resumes.load(Ordering::Relaxed),
        )
    }

    /// Whether events are left out.
    pub fn is_paused(&self) -> bool {
        self.control.gate.load(Ordering::Relaxed) & GATE_PAUSED != 0
    }

    /// Notes why a recorder that found the session cannot record.
    pub fn set_attach_errno(&self, errno: u32) {
        self.control.attach_errno.store(errno, Ordering::Relaxed);
    }

    /// Whether a thread without a chunk drops events instead of waiting.
    pub fn is_lossy(&self) -> bool {
        self.control.lossy.load(Ordering::Relaxed) != 0
    }

    /// Whether the drainer takes no more records.
    pub fn is_stopped(&self) -> bool {
        self.control.stopped.load(Ordering::Acquire) != 0
    }

    /// Whether waiting for a chunk would not have helped when the drainer last looked: threads held all of them.
    pub fn is_exhausted(&self) -> bool {
        self.control.exhausted.load(Ordering::Acquire) != 0
    }

    /// Whether waiting does not help a thread that read this [`Pool::heartbeat`] after it had closed its chunk. What an earlier
    /// pass found does not count: that chunk may be the one that comes free.
    pub fn is_exhausted_since(&self, heartbeat: u32) -> bool {
        let pass = self.control.exhausted.load(Ordering::Acquire);
        pass != 0 && pass.wrapping_sub(heartbeat) as i32 > 0
    }

    /// The session's clock; the counter when the field holds nonsense.
    pub fn clock(&self) -> Clock {
        Clock::from_u32(self.control.clock.load(Ordering::Relaxed)).unwrap_or(Clock::Tsc)
    }

    /// Which allocations bring their stacks.
    pub fn stacks(&self) -> crate::stack::StackMode {
        crate::stack::StackMode::from_words(
            self.control.stack_mode.load(Ordering::Relaxed),
            self.control.stack_period.load(Ordering::Relaxed),
        )
    }

    /// The drainer's process id.
    pub fn drainer_pid(&self) -> u32 {
        self.control.drainer_pid.load(Ordering::Relaxed)
    }

    /// The number of the drainer's pass, which changes while it runs. A later one finds closed what the caller closed before.
    pub fn heartbeat(&self) -> u32 {
        // Pairs with the fence in `beat`.
        fence(Ordering::SeqCst);
        self.control.heartbeat.load(Ordering::Relaxed)
    }

    // ---- consumer: the drainer ----

    /// Puts all chunks on the free stack, the first on top. Before anyone else sees the session.
    pub fn initialise(&self) {
        for (index, slot) in self.slots.iter().enumerate() {
            let next = if index + 1 == self.slots.len() {
                0
            } else {
                index as u32 + 2
            };
            slot.next.store(next, Ordering::Relaxed);
            slot.state.store(SlotState::Free as u32, Ordering::Relaxed);
            self.chunks[index].generation.store(1, Ordering::Relaxed);
        }
        self.control
            .free_head
            .store(u64::from(!self.slots.is_empty()), Ordering::Release);
    }

    /// How many chunks the drainer has to look at: one more than the highest ever taken.
    pub fn high_water(&self) -> u32 {
        self.control
            .high_water
            .load(Ordering::Acquire)
            .min(self.chunk_count())
    }

    /// Slot `index` as it is now. What it says besides the state is settled unless it is free.
    pub fn slot(&self, index: u32) -> SlotInfo {
        let slot = &self.slots[index as usize];
        let state = match slot.state.load(Ordering::Acquire) {
            1 => SlotState::Active,
            2 => SlotState::Closed,
            3 => SlotState::ClosedAtEnd,
            4 => SlotState::Filling,
            _ => SlotState::Free,
        };
        let mut name = [0; 16];
        for (part, word) in name.chunks_exact_mut(8).zip(&slot.name) {
            part.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        SlotInfo {
            state,
            thread: slot.thread.load(Ordering::Relaxed),
            os_tid: slot.os_tid.load(Ordering::Relaxed),
            // Acquire: see `restart`.
            sequence: slot.sequence.load(Ordering::Acquire),
            process: slot.process.load(Ordering::Relaxed),
            pid: slot.pid.load(Ordering::Relaxed),
            base: slot.base.load(Ordering::Relaxed),
            length: (slot.length.load(Ordering::Relaxed) as usize).min(RECORDS_PER_CHUNK),
            name,
        }
    }

    /// Record `position` of chunk `index`, if it is committed.
    #[inline]
    pub fn read(&self, index: u32, position: usize) -> Option<RecordView> {
        let chunk = &self.chunks[index as usize];
        chunk.records.get(position)?.read(chunk.generation())
    }

    /// Whether what was read of a chunk of a living thread belongs together: the thread has not begun it anew since `slot` and
    /// `generation` were read.
    pub fn is_same(&self, index: u32, slot: &SlotInfo, generation: u32) -> bool {
        fence(Ordering::Acquire);
        self.chunks[index as usize].generation() == generation
            && self.slots[index as usize].sequence.load(Ordering::Relaxed) == slot.sequence
    }

    /// Gives a drained chunk back. Its owner must have closed it or be dead: nobody writes to it.
    pub fn recycle(&self, index: u32) {
        self.next_generation(index);
        let slot = &self.slots[index as usize];
        slot.state.store(SlotState::Free as u32, Ordering::Relaxed);
        let mut head = self.control.free_head.load(Ordering::Relaxed);
        loop {
            slot.next.store(head as u32, Ordering::Relaxed);
            let new = (head & !0xffff_ffff) | u64::from(index + 1);
            // Release: whoever pops the chunk sees its new generation.
            match self.control.free_head.compare_exchange(
                head,
                new,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
    }

    /// Tells producers that the drainer lives, and begins a pass.
    pub fn beat(&self) {
        self.control.heartbeat.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `heartbeat`: a thread that read an earlier number has closed its chunk for this pass.
        fence(Ordering::SeqCst);
    }

    /// Says at the end of a pass whether it found all chunks held by threads, so that waiting for one cannot help.
    pub fn set_exhausted(&self, exhausted: bool) {
        let pass = match exhausted {
            true => self.control.heartbeat.load(Ordering::Relaxed),
            false => 0,
        };
        self.control.exhausted.store(pass, Ordering::Release);
    }

    /// First process that joined, 0 when none has yet.
    pub fn first_pid(&self) -> u32 {
        self.control.first_pid.load(Ordering::Acquire)
    }

    /// Events counted as lost so far.
    pub fn lost(&self) -> u64 {
        self.control.lost.load(Ordering::Relaxed)
    }

    /// How often a thread waited for a chunk so far.
    pub fn waits(&self) -> u64 {
        self.control.waits.load(Ordering::Relaxed)
    }

    /// Processes turned away so far, because only the first one records.
    pub fn refused(&self) -> u64 {
        self.control.refused.load(Ordering::Relaxed)
    }

    /// Errno of a recorder that could not map the whole session, 0 for none.
    pub fn attach_errno(&self) -> u32 {
        self.control.attach_errno.load(Ordering::Relaxed)
    }
}

fn set_name(slot: &Slot, name: [u8; 16]) {
    for (part, word) in name.chunks_exact(8).zip(&slot.name) {
        let bytes = part.iter().rev();
        word.store(
            bytes.fold(0, |word, &byte| word << 8 | u64::from(byte)),
            Ordering::Relaxed,
        );
    }
}

#[cfg(not(loom))]
impl Pool<'_> {
    /// Waits until a chunk may be free, recording stops, or `timeout_ms` is over.
    pub fn wait_for_chunk(&self, timeout_ms: u32) {
        let epoch = self.control.free_epoch.load(Ordering::Acquire);
        self.control.waiters.fetch_add(1, Ordering::SeqCst);
        if !self.has_free() && !self.is_stopped() {
            self.control.waits.fetch_add(1, Ordering::Relaxed);
            crate::sys::futex_wait(&self.control.free_epoch, epoch, timeout_ms);
        }
        self.control.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes threads that wait for a chunk, after one or more were recycled.
    pub fn wake_waiters(&self) {
        self.control.free_epoch.fetch_add(1, Ordering::SeqCst);
        if self.control.waiters.load(Ordering::SeqCst) != 0 {
            crate::sys::futex_wake_all(&self.control.free_epoch);
        }
    }

    /// Ends the session for the program's threads: they stop recording and go on unharmed.
    pub fn stop(&self) {
        self.control.stopped.store(1, Ordering::Release);
        self.wake_waiters();
    }
}
