//! Where functions lie in an ELF file.

use super::{sections, u16_at, u32_at, u64_at};

/// A function that a file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name without its version.
    pub name: String,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Functions of the dynamic and, where there is one, the full symbol table, by offset.
///
/// # Errors
/// A few words when the file is damaged.
pub(crate) fn functions(bytes: &[u8]) -> Result<Vec<Function>, String> {
    const SYMBOLS: u32 = 2;
    const DYNAMIC_SYMBOLS: u32 = 11;
    const FUNCTION: u8 = 2;
    let segments = segments(bytes)?;
    let sections = sections(bytes)?;
    let mut found = Vec::new();
    for section in &sections {
        if section.kind != SYMBOLS && section.kind != DYNAMIC_SYMBOLS {
            continue;
        }
        let names = sections
            .get(section.link)
            .map(|names| names.part(bytes))
            .unwrap_or_default();
        for symbol in section.part(bytes).chunks_exact(24) {
            let (address, size) = (u64_at(symbol, 8)?, u64_at(symbol, 16)?);
            if symbol[4] & 15 != FUNCTION || u16_at(symbol, 6)? == 0 {
                continue;
            }
            let text = names.get(u32_at(symbol, 0)? as usize..).unwrap_or_default();
            let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let segment = segments
                .iter()
                .find(|(from, length, _)| (*from..from + length).contains(&address));
            if let Some((from, _, offset)) = segment {
                found.push(Function {
                    name: String::from_utf8_lossy(name).into_owned(),
                    offset: address - from + offset,
                    size,
                });
            }
        }
    }
    found.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    found.dedup();
    Ok(found)
}

/// Address, length and offset of what is loaded.
fn segments(bytes: &[u8]) -> Result<Vec<(u64, u64, u64)>, String> {
    const LOAD: u32 = 1;
    let headers = u64_at(bytes, 32)? as usize;
    let (size, count) = (
        usize::from(u16_at(bytes, 54)?),
        usize::from(u16_at(bytes, 56)?),
    );
    let mut found = Vec::new();
    for index in 0..count {
        let at = headers.saturating_add(index * size);
        if u32_at(bytes, at)? == LOAD {
            found.push((
                u64_at(bytes, at + 16)?,
                u64_at(bytes, at + 32)?,
                u64_at(bytes, at + 8)?,
            ));
        }
    }
    Ok(found)
}
