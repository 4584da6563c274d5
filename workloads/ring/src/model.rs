//! A session in loom's memory instead of a mapping, for the model checker (`cfg(loom)` only).

use crate::layout::{Chunk, Control, Slot};
use crate::pool::Pool;
use crate::record::Record;
use crate::sync::{AtomicU32, AtomicU64};

/// The parts of a session, owned; lives inside one execution of a model.
#[derive(Debug)]
pub struct Session {
    control: Control,
    slots: Vec<Slot>,
    chunks: Vec<Chunk>,
}

impl Session {
    /// A session of `chunks` chunks of [`crate::RECORDS_PER_CHUNK`] records, all free.
    pub fn new(chunks: usize) -> Session {
        let session = Session {
            control: control(),
            slots: (0..chunks).map(|_| slot()).collect(),
            chunks: (0..chunks).map(|_| chunk()).collect(),
        };
        session.pool().initialise();
        session
    }

    /// The session as both sides see it.
    pub fn pool(&self) -> Pool<'_> {
        Pool {
            control: &self.control,
            slots: &self.slots,
            chunks: &self.chunks,
        }
    }
}

fn word() -> AtomicU32 {
    AtomicU32::new(0)
}

fn long() -> AtomicU64 {
    AtomicU64::new(0)
}

fn slot() -> Slot {
    Slot {
        state: word(),
        next: word(),
        thread: word(),
        os_tid: word(),
        sequence: word(),
        process: word(),
        length: word(),
        pid: word(),
        base: long(),
        name: core::array::from_fn(|_| long()),
    }
}

fn chunk() -> Chunk {
    Chunk {
        generation: word(),
        header_padding: core::array::from_fn(|_| word()),
        records: core::array::from_fn(|_| Record::empty()),
    }
}

fn control() -> Control {
    Control {
        magic: long(),
        nonce: long(),
        version: word(),
        chunk_count: word(),
        clock: word(),
        lossy: word(),
        drainer_pid: word(),
        stack_mode: word(),
        stack_period: word(),
        first_only: word(),
        mappings: word(),
        pauses: word(),
        resumes: word(),
        fixed_padding: core::array::from_fn(|_| word()),
        free_head: long(),
        first_pid: word(),
        processes: word(),
        next_thread: word(),
        high_water: word(),
        waiters: word(),
        attach_errno: word(),
        lost: long(),
        waits: long(),
        refused: long(),
        shared_padding: core::array::from_fn(|_| long()),
        free_epoch: word(),
        heartbeat: word(),
        stopped: word(),
        exhausted: word(),
        drainer_padding: core::array::from_fn(|_| word()),
        gate: word(),
    }
}
