//! Bytes of the final form: kinds EVENT_STACKS, STACKS, MODULES, SYMBOLS.

use super::super::container::ChunkKind;
use super::super::error::TraceError;
use super::super::varint::{self, Cursor};
use super::super::writer::TraceWriter;
use super::raw::MOST_STACKS;
use super::table::{Frame, Module, StackTable, Symbol, Symbols};
use heaplab_ring::stack::StackMode;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Entries of a STACKS or SYMBOLS chunk at most.
const PART: usize = 1 << 16;

/// Body of MODULES.
#[derive(Serialize, Deserialize)]
struct Modules {
    /// "full", or "sampled" with its period.
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    period_bytes: Option<u32>,
    modules: Vec<Module>,
}

/// Body of SYMBOLS: names once, frames as triples of indices.
#[derive(Serialize, Deserialize)]
struct SymbolPart {
    /// Index of its first frame.
    first: u32,
    strings: Vec<String>,
    /// For each frame: function, file (both indices of strings), line; the innermost inlined function first.
    frames: Vec<Vec<(u32, u32, u32)>>,
}

/// Meta and body of EVENT_STACKS for a segment: (number of the event in the segment, stack), rising.
pub fn encode_event_stacks(first_event: u64, refs: &[(u32, u32)]) -> (Vec<u8>, Vec<u8>) {
    let mut meta = first_event.to_le_bytes().to_vec();
    meta.extend_from_slice(&(refs.len() as u32).to_le_bytes());
    let (mut gaps, mut stacks) = (Vec::new(), Vec::new());
    let mut last = 0;
    for &(event, stack) in refs {
        varint::put(&mut gaps, u64::from(event - last));
        last = event;
        varint::put(&mut stacks, u64::from(stack));
    }
    gaps.extend_from_slice(&stacks);
    (meta, gaps)
}

/// First event and references of an EVENT_STACKS chunk; the error says what is wrong.
pub fn decode_event_stacks(meta: &[u8], body: &[u8]) -> Result<(u64, Vec<(u64, u32)>), String> {
    let short = || "references to stacks are cut".to_string();
    let (first, rest) = meta.split_first_chunk::<8>().ok_or_else(short)?;
    let count = u32::from_le_bytes(*rest.first_chunk::<4>().ok_or_else(short)?) as usize;
    Ok((u64::from_le_bytes(*first), decode_pairs(count, 0, body)?))
}

/// Two columns of `count` varints: distances from `first` on, and stacks.
pub fn decode_pairs(count: usize, first: u64, body: &[u8]) -> Result<Vec<(u64, u32)>, String> {
    let short = || "references to stacks are cut".to_string();
    if count > body.len() / 2 {
        return Err(short());
    }
    let mut cursor = Cursor(body);
    let mut pairs = Vec::with_capacity(count);
    let mut last = first;
    for _ in 0..count {
        let gap = cursor.next().ok_or_else(short)?;
        last = last.checked_add(gap).ok_or("an event is out of range")?;
        pairs.push((last, 0));
    }
    for pair in &mut pairs {
        let stack = cursor.next().ok_or_else(short)?;
        let stack = u32::try_from(stack)
            .ok()
            .filter(|stack| *stack < MOST_STACKS);
        pair.1 = stack.ok_or("a stack's number is out of range")?;
    }
    if !cursor.0.is_empty() {
        return Err("references to stacks are too many".into());
    }
    Ok(pairs)
}

impl TraceWriter {
    /// Writes the stacks, after the last event that has one or before.
    pub fn stacks(&mut self, table: &StackTable) -> Result<(), TraceError> {
        let (mode, period_bytes) = match table.mode {
            StackMode::Off => return Ok(()),
            StackMode::Full => ("full", None),
            StackMode::Sampled { period } => ("sampled", Some(period)),
        };
        let modules = Modules {
            mode: mode.to_owned(),
            period_bytes,
            modules: table.modules.clone(),
        };
        self.about_json(ChunkKind::MODULES, &modules)?;
        for part in table.frames.chunks(PART) {
            let mut body = Vec::new();
            let mut last = 0u64;
            for frame in part {
                varint::put(
                    &mut body,
                    frame.module.map_or(0, |module| u64::from(module) + 1),
                );
                varint::put(
                    &mut body,
                    varint::zigzag(frame.address.wrapping_sub(last) as i64),
                );
                last = frame.address;
            }
            self.about(ChunkKind::FRAMES, &(part.len() as u32).to_le_bytes(), &body)?;
        }
        for (index, part) in table.nodes.chunks(PART).enumerate() {
            let mut body = Vec::new();
            for (number, (frame, caller)) in part.iter().enumerate() {
                let stack = (index * PART + number) as u64 + 1;
                varint::put(&mut body, u64::from(*frame));
                varint::put(&mut body, stack - u64::from(*caller));
            }
            self.about(ChunkKind::STACKS, &(part.len() as u32).to_le_bytes(), &body)?;
        }
        let Some(symbols) = &table.symbols else {
            return Ok(());
        };
        for body in symbol_chunks(symbols) {
            let body = body.map_err(|error| TraceError::io("write", self.path(), error.into()))?;
            self.about(ChunkKind::SYMBOLS, &[], &body)?;
        }
        Ok(())
    }

    fn about_json<T: Serialize>(&mut self, kind: ChunkKind, value: &T) -> Result<(), TraceError> {
        let body = serde_json::to_vec(value)
            .map_err(|error| TraceError::io("write", self.path(), error.into()))?;
        self.about(kind, &[], &body)
    }
}

/// Bodies of the SYMBOLS chunks.
pub fn symbol_chunks(symbols: &Symbols) -> impl Iterator<Item = serde_json::Result<Vec<u8>>> + '_ {
    let parts = symbols.chunks(PART).enumerate();
    parts.map(|(index, part)| serde_json::to_vec(&symbol_part(index * PART, part)))
}

fn symbol_part(first: usize, part: &[Vec<Symbol>]) -> SymbolPart {
    let mut strings = Vec::new();
    let mut known = HashMap::new();
    let mut intern = |text: &str| {
        *known.entry(text.to_owned()).or_insert_with(|| {
            strings.push(text.to_owned());
            strings.len() as u32 - 1
        })
    };
    let frames = part
        .iter()
        .map(|symbols| {
            let triples = symbols.iter();
            triples
                .map(|symbol| (intern(&symbol.function), intern(&symbol.file), symbol.line))
                .collect()
        })
        .collect();
    SymbolPart {
        first: first as u32,
        strings,
        frames,
    }
}

impl StackTable {
    /// Takes a chunk that describes stacks into `table`; `Ok(false)`: it is of another kind. The error says what is
    /// wrong. FRAMES follow MODULES, STACKS follow FRAMES.
    pub(in crate::trace) fn take_chunk(
        table: &mut Option<StackTable>,
        kind: ChunkKind,
        meta: &[u8],
        body: &[u8],
    ) -> Result<bool, String> {
        let json = |error: serde_json::Error| format!("a chunk cannot be read: {error}");
        if kind == ChunkKind::MODULES {
            let modules: Modules = serde_json::from_slice(body).map_err(json)?;
            let mode = match (modules.mode.as_str(), modules.period_bytes) {
                ("full", _) => StackMode::Full,
                ("sampled", Some(period)) if period > 0 => StackMode::Sampled { period },
                (other, _) => return Err(format!("'{other}' is no way to choose stacks")),
            };
            *table = Some(StackTable {
                mode,
                modules: modules.modules,
                ..StackTable::default()
            });
            return Ok(true);
        }
        if ![ChunkKind::FRAMES, ChunkKind::STACKS, ChunkKind::SYMBOLS].contains(&kind) {
            return Ok(false);
        }
        let table = table.as_mut().ok_or("stacks without modules")?;
        if kind == ChunkKind::SYMBOLS {
            let part: SymbolPart = serde_json::from_slice(body).map_err(json)?;
            table.take_symbols(&part)?;
            return Ok(true);
        }
        let short = || "a list of stacks is cut".to_string();
        let count = u32::from_le_bytes(*meta.first_chunk::<4>().ok_or_else(short)?) as usize;
        let mut cursor = Cursor(body);
        if count > body.len() / 2 || table.nodes.len() + count >= MOST_STACKS as usize {
            return Err(short());
        }
        let mut last = 0u64;
        for _ in 0..count {
            let one = cursor.next().ok_or_else(short)?;
            let two = cursor.next().ok_or_else(short)?;
            if kind == ChunkKind::FRAMES {
                last = last.wrapping_add(varint::unzigzag(two) as u64);
                let module = one.checked_sub(1).map(|module| module as u32);
                if module.is_some_and(|module| module as usize >= table.modules.len()) {
                    return Err("a frame names a module that is not there".into());
                }
                table.frames.push(Frame {
                    module,
                    address: last,
                });
            } else {
                let stack = table.nodes.len() as u64 + 1;
                let caller = stack.checked_sub(two).filter(|caller| *caller < stack);
                let caller = caller.ok_or("a stack is called by one that comes later")?;
                if one >= table.frames.len() as u64 {
                    return Err("a stack names a frame that is not there".into());
                }
                table.nodes.push((one as u32, caller as u32));
            }
        }
        if cursor.0.is_empty() {
            Ok(true)
        } else {
            Err("a list of stacks is too long".into())
        }
    }

    fn take_symbols(&mut self, part: &SymbolPart) -> Result<(), String> {
        let frames = self.frames.len();
        let symbols = self.symbols.get_or_insert_with(|| vec![Vec::new(); frames]);
        let text = |index: u32| {
            let found = part.strings.get(index as usize);
            found.cloned().ok_or("a name is not there")
        };
        for (frame, triples) in part.frames.iter().enumerate() {
            let place = symbols.get_mut(part.first as usize + frame);
            let place = place.ok_or("names for a frame that is not there")?;
            place.clear();
            for &(function, file, line) in triples {
                place.push(Symbol {
                    function: text(function)?,
                    file: text(file)?,
                    line,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_back() {
        let refs = [(0, 3), (1, 3), (5, 1), (131_071, 700_000)];
        let (meta, body) = encode_event_stacks(131_072, &refs);
        let (first, back) = decode_event_stacks(&meta, &body).expect("valid");
        assert_eq!(first, 131_072);
        assert_eq!(back, refs.map(|(event, stack)| (u64::from(event), stack)));
        for cut in 0..body.len() {
            assert!(decode_event_stacks(&meta, &body[..cut]).is_err());
        }
    }
}
