//! The mapped reader: a script that opens is safe to replay without further checks of bounds.

use crate::error::ScriptError;
use crate::file::{Run, ScriptInfo};
use crate::hash::{SegmentHash, WordHash};
use crate::layout::{self, AT_START, HEADER_BYTES, Header, THREAD_BYTES, ThreadEntry};
use crate::map::Mapping;
use crate::op::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use crate::spill::SEGMENT;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A script mapped from its file.
///
/// `open` has checked: every op has a known kind, a slot of its kind within the table, a sane alignment; every
/// thread that is started exists and is started once; the order counts every op exactly once.
pub struct Script {
    path: PathBuf,
    map: Mapping,
    header: Header,
    entries: Vec<ThreadEntry>,
    phases: Vec<String>,
}

impl Script {
    /// Opens and checks a script (one pass over its ops). Errors for anything that is not a sound script.
    pub fn open(path: &Path) -> Result<Self, ScriptError> {
        let file = File::open(path).map_err(|error| ScriptError::io("open", path, error))?;
        let map = Mapping::new(&file).map_err(|error| ScriptError::io("map", path, error))?;
        Self::check(path, map).map_err(|reason| ScriptError::invalid(path, reason))
    }

    fn check(path: &Path, map: Mapping) -> Result<Self, String> {
        let bytes = map.bytes();
        let header = Header::decode(bytes)?;
        if header.file_length != bytes.len() as u64 {
            return Err(format!(
                "it has {} bytes where {} were written",
                bytes.len(),
                header.file_length
            ));
        }
        if header.threads == 0 || header.threads > layout::MAX_THREADS {
            return Err(format!("it claims {} threads", header.threads));
        }
        let table = part(
            bytes,
            header.thread_table,
            u64::from(header.threads) * THREAD_BYTES as u64,
            "thread table",
        )?;
        let entries: Vec<_> = table
            .chunks_exact(THREAD_BYTES)
            .map(ThreadEntry::decode)
            .collect();
        let phases = decode_phases(part(
            bytes,
            header.phases,
            header.phase_bytes,
            "names of phases",
        )?)?;
        let script = Self {
            path: path.to_path_buf(),
            map,
            header,
            entries,
            phases,
        };
        script.check_ops()?;
        script.check_order()?;
        Ok(script)
    }

    fn check_ops(&self) -> Result<(), String> {
        let info = &self.header.info;
        let slots = info
            .private_slots
            .checked_add(info.shared_slots)
            .ok_or("it claims more slots than numbers for them")?;
        let mut started = vec![AT_START; self.entries.len()];
        let mut calls = 0u64;
        for (thread, entry) in self.entries.iter().enumerate() {
            let ops = self
                .map
                .records::<Op>(entry.ops, entry.count)
                .filter(|_| entry.ops.is_multiple_of(layout::ALIGN))
                .filter(|_| entry.ops >= HEADER_BYTES as u64 || entry.count == 0)
                .ok_or_else(|| format!("the ops of thread {thread} lie outside the file"))?;
            for (index, op) in ops.iter().enumerate() {
                if op.is_call() {
                    calls += 1;
                    let shared = op.flags & FLAG_SHARED != 0;
                    let fits = if shared {
                        op.slot >= info.private_slots && op.slot < slots
                    } else {
                        op.slot < info.private_slots
                    };
                    if !fits || op.flags > FLAG_INHERITED.max(FLAG_SHARED) || op.align_log2() >= 48
                    {
                        return Err(format!("op {index} of thread {thread} is damaged: {op:?}"));
                    }
                    continue;
                }
                match op.kind() {
                    Some(OpKind::ThreadStart) => {
                        let child = op.slot as usize;
                        if child == 0 || child >= started.len() || child == thread {
                            return Err(format!(
                                "op {index} of thread {thread} starts thread {child}, which it cannot"
                            ));
                        }
                        if started[child] != AT_START {
                            return Err(format!("thread {child} is started twice"));
                        }
                        started[child] = thread as u32;
                    }
                    Some(_) => {}
                    None => {
                        return Err(format!(
                            "op {index} of thread {thread} has the unknown kind {}",
                            op.kind
                        ));
                    }
                }
            }
        }
        if let Some(thread) =
            (0..started.len()).find(|&thread| started[thread] != self.entries[thread].started_by)
        {
            return Err(format!(
                "the thread table is wrong about who starts thread {thread}"
            ));
        }
        if calls != info.calls {
            return Err(format!(
                "it has {calls} calls where {} were written",
                info.calls
            ));
        }
        Ok(())
    }

    fn check_order(&self) -> Result<(), String> {
        if !self.header.order.is_multiple_of(layout::ALIGN)
            || self
                .map
                .records::<Run>(self.header.order, self.header.runs)
                .is_none()
        {
            return Err("the global order lies outside the file".into());
        }
        let mut left: Vec<u64> = self.entries.iter().map(|entry| entry.count).collect();
        for (index, run) in self.order().iter().enumerate() {
            let Some(left) = left.get_mut(run.thread as usize) else {
                return Err(format!(
                    "run {index} of the order names thread {}",
                    run.thread
                ));
            };
            if run.count == 0 || u64::from(run.count) > *left {
                return Err(format!("run {index} of the order counts {} ops", run.count));
            }
            *left -= u64::from(run.count);
        }
        match left.iter().position(|&left| left != 0) {
            Some(thread) => Err(format!("the order leaves out ops of thread {thread}")),
            None => Ok(()),
        }
    }

    /// The file it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of threads, ≥ 1.
    pub fn thread_count(&self) -> usize {
        self.entries.len()
    }

    /// The ops of one thread; panics when there is no such thread.
    pub fn thread(&self, thread: usize) -> &[Op] {
        let entry = &self.entries[thread];
        self.map.records(entry.ops, entry.count).unwrap_or_default()
    }

    /// The ops of each thread, in the order of thread numbers.
    pub fn threads(&self) -> impl ExactSizeIterator<Item = &[Op]> {
        (0..self.entries.len()).map(|thread| self.thread(thread))
    }

    /// Whether a thread exists from the beginning: no `ThreadStart` op names it. True for thread 0.
    pub fn exists_from_start(&self, thread: usize) -> bool {
        self.entries[thread].started_by == AT_START
    }

    /// The global order.
    pub fn order(&self) -> &[Run] {
        self.map
            .records(self.header.order, self.header.runs)
            .unwrap_or_default()
    }

    /// Counts, slots, peaks.
    pub fn info(&self) -> &ScriptInfo {
        &self.header.info
    }

    /// Names of phases; a `Mark` op's size is an index into them.
    pub fn phases(&self) -> &[String] {
        &self.phases
    }

    /// Hashes all ops and the order again and compares with the header. Costs a few ns per op, so `open` leaves it out.
    pub fn verify_checksum(&self) -> Result<(), ScriptError> {
        let mut hash = WordHash::new();
        let bytes = self.map.bytes();
        let arrays = self
            .entries
            .iter()
            .map(|entry| (entry.ops, entry.count * size_of::<Op>() as u64));
        for (offset, length) in arrays.chain([(self.header.order, self.header.runs * 8)]) {
            for segment in bytes[offset as usize..(offset + length) as usize].chunks(SEGMENT) {
                hash.word(SegmentHash::of(segment));
            }
        }
        if hash.value() == self.header.info.checksum {
            return Ok(());
        }
        Err(ScriptError::invalid(
            &self.path,
            "the checksum of its ops does not match",
        ))
    }
}

fn part<'a>(bytes: &'a [u8], offset: u64, length: u64, what: &str) -> Result<&'a [u8], String> {
    offset
        .checked_add(length)
        .filter(|&end| end <= bytes.len() as u64)
        .map(|end| &bytes[offset as usize..end as usize])
        .ok_or_else(|| format!("its {what} lies outside the file"))
}

fn decode_phases(mut bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or("the names of phases are cut")?;
        let length = u32::from_le_bytes(*length) as usize;
        let name = rest.get(..length).ok_or("the names of phases are cut")?;
        let name = std::str::from_utf8(name).map_err(|_| "a name of a phase is not text")?;
        names.push(name.to_owned());
        bytes = &rest[length..];
    }
    Ok(names)
}
