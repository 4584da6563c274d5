//! Writes a script: ops arrive interleaved over threads, the file has one array per thread.

use crate::error::ScriptError;
use crate::file::{Run, ScriptInfo};
use crate::hash::WordHash;
use crate::layout::{self, AT_START, HEADER_BYTES, Header, THREAD_BYTES, ThreadEntry};
use crate::op::{FLAG_SHARED, Op, OpKind};
use crate::spill::Spill;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Streaming writer. Nothing appears under the final name before [`ScriptWriter::finish`] has succeeded; a writer
/// that is dropped leaves no file behind.
pub struct ScriptWriter {
    path: PathBuf,
    scratch_path: PathBuf,
    temporary: PathBuf,
    spill: Spill,
    threads: usize,
    started_by: Vec<u32>,
    counts: ScriptInfo,
    last_run: Run,
    ordered: Vec<u64>,
    phases: Vec<String>,
}

impl ScriptWriter {
    /// Starts a script with `thread_count` threads (≥ 1). Errors when the folder cannot be written.
    pub fn create(path: &Path, thread_count: u32) -> Result<Self, ScriptError> {
        if thread_count == 0 || thread_count > layout::MAX_THREADS {
            return Err(ScriptError::Misuse(format!(
                "{thread_count} threads are not possible"
            )));
        }
        // Two processes may compile the same script at once; each has its own scratch names.
        let stamp = (std::process::id(), unique());
        let beside = |what: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{}-{}.{what}", stamp.0, stamp.1));
            PathBuf::from(name)
        };
        let (scratch_path, temporary) = (beside("ops"), beside("tmp"));
        let scratch = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&scratch_path)
            .map_err(|error| ScriptError::io("write", path, error))?;
        let threads = thread_count as usize;
        Ok(Self {
            path: path.to_path_buf(),
            scratch_path,
            temporary,
            spill: Spill::new(scratch, threads + 1),
            threads,
            started_by: vec![AT_START; threads],
            counts: ScriptInfo::default(),
            last_run: Run {
                thread: 0,
                count: 0,
            },
            ordered: vec![0; threads],
            phases: Vec::new(),
        })
    }

    /// Appends an op to its thread. Slots are those of the finished table unless `finish_relocated` is used.
    #[inline]
    pub fn push(&mut self, thread: u32, op: Op) -> Result<(), ScriptError> {
        if thread as usize >= self.threads {
            return Err(ScriptError::Misuse(format!("there is no thread {thread}")));
        }
        match op.kind() {
            Some(OpKind::Malloc | OpKind::Calloc | OpKind::AlignedAlloc) => {
                self.counts.allocations += 1
            }
            Some(OpKind::Realloc) => self.counts.reallocs += 1,
            Some(OpKind::Free) => self.counts.frees += 1,
            Some(OpKind::Idle) => self.counts.idle_ns += op.size(),
            Some(OpKind::Mark) => {}
            Some(OpKind::ThreadStart) => {
                if op.slot as usize >= self.threads || op.slot == 0 || op.slot == thread {
                    return Err(ScriptError::Misuse(format!(
                        "thread {thread} cannot start thread {}",
                        op.slot
                    )));
                }
                self.started_by[op.slot as usize] = thread;
            }
            None => {
                return Err(ScriptError::Misuse(format!(
                    "no op has the number {}",
                    op.kind
                )));
            }
        }
        self.spill
            .append(thread as usize, &op_bytes(op))
            .map_err(|error| ScriptError::io("write", &self.path, error))
    }

    /// Appends `count` ops of `thread` to the global order. Neighbouring calls for one thread are joined.
    #[inline]
    pub fn order(&mut self, thread: u32, count: u32) -> Result<(), ScriptError> {
        if self.last_run.thread == thread
            && let Some(sum) = self.last_run.count.checked_add(count)
        {
            self.last_run.count = sum;
            return Ok(());
        }
        self.flush_run()?;
        self.last_run = Run { thread, count };
        Ok(())
    }

    fn flush_run(&mut self) -> Result<(), ScriptError> {
        let run = self.last_run;
        if run.count == 0 {
            return Ok(());
        }
        let Some(ordered) = self.ordered.get_mut(run.thread as usize) else {
            return Err(ScriptError::Misuse(format!(
                "the order names thread {}",
                run.thread
            )));
        };
        *ordered += u64::from(run.count);
        let word = u64::from(run.thread) | u64::from(run.count) << 32;
        self.spill
            .append(self.threads, &word.to_le_bytes())
            .map_err(|error| ScriptError::io("write", &self.path, error))
    }

    /// Names the next phase; returns its number, the `size` of its `Mark` ops.
    pub fn phase(&mut self, name: &str) -> u64 {
        self.phases.push(name.to_owned());
        self.phases.len() as u64 - 1
    }

    /// Writes the file and gives it its name. `info` brings the slots, the peaks and the dropped idle time; the writer
    /// counts the calls and computes the checksum itself and returns the whole.
    pub fn finish(self, info: ScriptInfo) -> Result<ScriptInfo, ScriptError> {
        let bases = vec![0; self.threads];
        self.finish_relocated(info, &bases, 0)
    }

    /// As [`ScriptWriter::finish`], for a compiler that learns the sizes of pools last: private slots were counted
    /// from 0 in each thread and get `private_base[thread]` added, shared ones were counted from 0 and get
    /// `shared_base` added.
    pub fn finish_relocated(
        mut self,
        info: ScriptInfo,
        private_base: &[u32],
        shared_base: u32,
    ) -> Result<ScriptInfo, ScriptError> {
        self.flush_run()?;
        self.last_run.count = 0;
        for thread in 0..self.threads {
            let ops = self.spill.length(thread) / size_of::<Op>() as u64;
            if self.ordered[thread] != ops {
                return Err(ScriptError::Misuse(format!(
                    "thread {thread} has {ops} ops but the order counts {}",
                    self.ordered[thread]
                )));
            }
        }
        let counts = ScriptInfo {
            calls: self.counts.allocations + self.counts.frees + self.counts.reallocs,
            allocations: self.counts.allocations,
            frees: self.counts.frees,
            reallocs: self.counts.reallocs,
            idle_ns: self.counts.idle_ns,
            ..info
        };
        let failed = |error| ScriptError::io("write", &self.path, error);
        let file = File::create(&self.temporary).map_err(failed)?;
        let info = self
            .assemble(file, counts, private_base, shared_base)
            .map_err(failed)?;
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|error| ScriptError::io("rename", &self.path, error))?;
        Ok(info)
    }

    fn assemble(
        &self,
        file: File,
        mut info: ScriptInfo,
        private_base: &[u32],
        shared_base: u32,
    ) -> io::Result<ScriptInfo> {
        let mut out = io::BufWriter::with_capacity(1 << 20, file);
        let thread_table = HEADER_BYTES as u64;
        let mut at = thread_table + (THREAD_BYTES * self.threads) as u64;
        let mut entries = Vec::with_capacity(self.threads);
        for thread in 0..self.threads {
            at = layout::align_up(at);
            let length = self.spill.length(thread);
            entries.push(ThreadEntry {
                ops: at,
                count: length / size_of::<Op>() as u64,
                started_by: self.started_by[thread],
            });
            at += length;
        }
        let order = layout::align_up(at);
        let runs = self.spill.length(self.threads) / 8;
        let phases = order + runs * 8;
        let phase_bytes: u64 = self.phases.iter().map(|name| 4 + name.len() as u64).sum();

        out.write_all(&[0; HEADER_BYTES])?;
        let mut written = HEADER_BYTES as u64;
        for entry in &entries {
            out.write_all(&entry.encode())?;
            written += THREAD_BYTES as u64;
        }
        let mut hash = WordHash::new();
        for (thread, entry) in entries.iter().enumerate() {
            written += pad(&mut out, written, entry.ops)?;
            let base = private_base[thread];
            self.spill.replay(thread, |bytes| {
                relocate(bytes, base, shared_base, &mut hash);
                written += bytes.len() as u64;
                out.write_all(bytes)
            })?;
        }
        written += pad(&mut out, written, order)?;
        self.spill.replay(self.threads, |bytes| {
            for word in bytes.chunks_exact(8) {
                hash.word(layout::read_u64(word, 0));
            }
            written += bytes.len() as u64;
            out.write_all(bytes)
        })?;
        debug_assert_eq!(written, phases);
        for name in &self.phases {
            out.write_all(&(name.len() as u32).to_le_bytes())?;
            out.write_all(name.as_bytes())?;
        }
        info.checksum = hash.value();
        let header = Header {
            threads: self.threads as u32,
            thread_table,
            order,
            runs,
            phases,
            phase_bytes,
            file_length: phases + phase_bytes,
            info: info.clone(),
        };
        out.flush()?;
        let file = out.get_mut();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.encode())?;
        Ok(info)
    }
}

impl Drop for ScriptWriter {
    fn drop(&mut self) {
        // After a successful finish the temporary name is gone already; both errors mean nothing is left to do.
        let _ = std::fs::remove_file(&self.scratch_path);
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn pad(out: &mut impl Write, from: u64, to: u64) -> io::Result<u64> {
    let gap = (to - from) as usize;
    out.write_all(&[0u8; layout::ALIGN as usize][..gap])?;
    Ok(gap as u64)
}

/// The op as it lies in the file.
#[inline(always)]
fn op_bytes(op: Op) -> [u8; 16] {
    let low = u64::from(op.kind)
        | u64::from(op.flags) << 8
        | u64::from(op.generation) << 16
        | u64::from(op.slot) << 32;
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&op.size_and_align.to_le_bytes());
    bytes
}

/// Adds the bases to the slots of calls, in place, and hashes the result.
fn relocate(bytes: &mut [u8], private_base: u32, shared_base: u32, hash: &mut WordHash) {
    for op in bytes.chunks_exact_mut(16) {
        let mut low = layout::read_u64(op, 0);
        if low as u8 <= OpKind::Free as u8 {
            let shared = (low >> 8) as u8 & FLAG_SHARED != 0;
            let base = if shared { shared_base } else { private_base };
            low = low.wrapping_add(u64::from(base) << 32);
            op[..8].copy_from_slice(&low.to_le_bytes());
        }
        hash.word(low);
        hash.word(layout::read_u64(op, 8));
    }
}
