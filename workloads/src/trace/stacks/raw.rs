//! What the drainer writes: run-time addresses, by process and epoch.

use super::super::container::{ChunkKind, ChunkWriter};
use super::super::error::TraceError;
use super::super::varint::{self, Cursor};
use serde::{Deserialize, Serialize};

/// Where addresses mean something: a process, between two unloadings of code.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct CodeSpace {
    /// The recorder's number of the process.
    pub process: u32,
    /// How often code was unloaded in it.
    pub epoch: u16,
}

/// A module as the program met it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawModule {
    /// Where it counts.
    pub space: CodeSpace,
    /// First address.
    pub start: u64,
    /// Address behind its last one.
    pub end: u64,
    /// Run-time address minus linked address, wrapping.
    pub bias: u64,
    /// Hexadecimal; empty without one.
    pub build_id: String,
    /// As the loader had it.
    pub path: String,
}

/// A stack as it was walked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawStack {
    /// The number by which events name it, from 1.
    pub id: u32,
    /// Where its addresses mean something.
    pub space: CodeSpace,
    /// Run-time addresses inside the call instructions, the innermost first.
    pub frames: Vec<u64>,
}

/// Stacks of a chunk at most, so that its body stays below the limit of chunks.
const CHUNK_STACKS: usize = 8192;

/// Writes a module.
pub fn write_module(out: &mut ChunkWriter, module: &RawModule) -> Result<(), TraceError> {
    super::super::raw::write_json(out, ChunkKind::RAW_MODULE, module)
}

/// Writes stacks, in as many chunks as they need.
pub fn write_stacks(out: &mut ChunkWriter, stacks: &[RawStack]) -> Result<(), TraceError> {
    for part in stacks.chunks(CHUNK_STACKS) {
        let mut body = Vec::new();
        for stack in part {
            varint::put(&mut body, u64::from(stack.id));
            varint::put(&mut body, u64::from(stack.space.process));
            varint::put(&mut body, u64::from(stack.space.epoch));
            varint::put(&mut body, stack.frames.len() as u64);
            let mut last = 0u64;
            for &address in &stack.frames {
                varint::put(&mut body, varint::zigzag(address.wrapping_sub(last) as i64));
                last = address;
            }
        }
        out.write(
            ChunkKind::RAW_STACKS,
            &(part.len() as u32).to_le_bytes(),
            &body,
        )?;
    }
    Ok(())
}

/// The stacks of a chunk; the error says what is wrong.
pub fn decode_stacks(meta: &[u8], body: &[u8]) -> Result<Vec<RawStack>, String> {
    let short = || "a list of stacks is cut".to_string();
    let count = u32::from_le_bytes(*meta.first_chunk::<4>().ok_or_else(short)?);
    // Each takes four bytes at least.
    if count as usize > body.len() / 4 {
        return Err(short());
    }
    let mut cursor = Cursor(body);
    let mut stacks = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let mut next = || cursor.next().ok_or_else(short);
        let id = u32::try_from(next()?).map_err(|_| "a stack's number is out of range")?;
        let process = u32::try_from(next()?).map_err(|_| "a process is out of range")?;
        let epoch = u16::try_from(next()?).map_err(|_| "an epoch is out of range")?;
        let frames = next()?;
        if id >= MOST_STACKS || frames > 1024 {
            return Err("a stack claims impossible numbers".into());
        }
        let mut last = 0u64;
        let mut addresses = Vec::with_capacity(frames as usize);
        for _ in 0..frames {
            last = last.wrapping_add(varint::unzigzag(next()?) as u64);
            addresses.push(last);
        }
        stacks.push(RawStack {
            id,
            space: CodeSpace { process, epoch },
            frames: addresses,
        });
    }
    if !cursor.0.is_empty() {
        return Err("a list of stacks is too long".into());
    }
    Ok(stacks)
}

/// Numbers of stacks are below this, against hostile files.
pub const MOST_STACKS: u32 = 1 << 26;

/// Writes which of a thread's events have which stacks: (number of the event in the thread, stack), rising.
pub fn write_refs(
    out: &mut ChunkWriter,
    thread: u32,
    refs: &[(u64, u32)],
) -> Result<(), TraceError> {
    let Some(&(first, _)) = refs.first() else {
        return Ok(());
    };
    let mut meta = thread.to_le_bytes().to_vec();
    meta.extend_from_slice(&(refs.len() as u32).to_le_bytes());
    meta.extend_from_slice(&first.to_le_bytes());
    let (mut gaps, mut stacks) = (Vec::new(), Vec::new());
    let mut last = first;
    for &(event, stack) in refs {
        varint::put(&mut gaps, event - last);
        last = event;
        varint::put(&mut stacks, u64::from(stack));
    }
    gaps.extend_from_slice(&stacks);
    out.write(ChunkKind::RAW_EVENT_STACKS, &meta, &gaps)
}

/// Thread and first event of a chunk of references.
pub fn refs_meta(meta: &[u8]) -> Option<(u32, u64)> {
    let thread = u32::from_le_bytes(*meta.first_chunk::<4>()?);
    let first = u64::from_le_bytes(*meta.get(8..)?.first_chunk::<8>()?);
    Some((thread, first))
}

/// The references of a chunk; the error says what is wrong.
pub fn decode_refs(meta: &[u8], body: &[u8]) -> Result<Vec<(u64, u32)>, String> {
    let short = || "references to stacks are cut".to_string();
    let (_, first) = refs_meta(meta).ok_or_else(short)?;
    let count = meta.get(4..).and_then(|rest| rest.first_chunk::<4>());
    let count = u32::from_le_bytes(*count.ok_or_else(short)?) as usize;
    super::chunks::decode_pairs(count, first, body)
}
