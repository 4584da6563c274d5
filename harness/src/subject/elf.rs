//! What an ELF file is: just enough to tell a shared library from a program, a static program from a dynamic one, and to
//! find an allocator that a program carries in itself.

mod functions;

pub(crate) use functions::{Function, functions};
use std::collections::BTreeSet;
use std::path::Path;

/// What was found in an ELF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// A shared library (position-independent and without an interpreter of its own).
    pub shared: bool,
    /// A program that the dynamic loader starts, so that LD_PRELOAD works.
    pub dynamic: bool,
    /// The dynamic loader that it asks for, which tells glibc from musl.
    pub interpreter: Option<String>,
    /// Functions that the file defines and that belong to an allocator: `malloc`, or the names by which jemalloc,
    /// mimalloc and tcmalloc are known.
    pub allocator_symbols: BTreeSet<String>,
    /// Allocator that the texts of a program without symbols, or its sections, tell of.
    pub told_otherwise: Option<&'static str>,
}

/// Bytes of a library or program at most: browsers with debug information have 2 GiB.
const MOST_BYTES: u64 = 4096 * heaplab_bounded::MIB;

/// What a Go program allocates with, in words.
pub const GO: &str = "the Go runtime's allocator";

/// Texts by which a stripped program gives an allocator away: messages that it can print.
///
/// The last is the C library's own: a program may carry both and use the other.
const TELLING_TEXTS: [(&str, &str); 4] = [
    ("<jemalloc>: Error in munmap", "jemalloc"),
    ("mimalloc: warning: ", "mimalloc"),
    ("MallocExtension::Initialize", "tcmalloc"),
    ("malloc(): corrupted top size", "the C library's malloc"),
];

/// Section of every Go program, stripped or not.
const GO_SECTION: &[u8] = b".go.buildinfo\0";

/// Names that give an allocator away, and the allocator.
///
/// Several of each, as a program holds only those that it calls.
const TELLING: [(&str, &str); 15] = [
    ("malloc", "an own malloc"),
    ("runtime.mallocgc", GO),
    ("je_malloc", "jemalloc"),
    ("_rjem_malloc", "jemalloc"),
    ("_rjem_mallocx", "jemalloc"),
    ("_rjem_sdallocx", "jemalloc"),
    ("mallocx", "jemalloc"),
    ("mi_malloc", "mimalloc"),
    ("mi_malloc_aligned", "mimalloc"),
    ("mi_free", "mimalloc"),
    ("tc_malloc", "tcmalloc"),
    ("TCMallocInternalMalloc", "tcmalloc"),
    ("sn_rust_alloc", "snmalloc"),
    ("rpmalloc", "rpmalloc"),
    ("spanalloc_version", "spanalloc"),
];

impl Elf {
    /// The allocator that the file carries, if its symbols tell.
    pub fn carried_allocator(&self) -> Option<&'static str> {
        let found = |name: &str| self.allocator_symbols.contains(name);
        TELLING
            .iter()
            .rev()
            .find(|(symbol, _)| found(symbol))
            .map(|(_, allocator)| *allocator)
            .or(self.told_otherwise)
    }

    fn is_of_musl(&self) -> bool {
        self.interpreter
            .as_deref()
            .is_some_and(|path| path.contains("ld-musl"))
    }

    /// Why a preloaded library cannot serve the program's allocations: "is a static program and carries jemalloc".
    pub fn unreachable(&self) -> Option<String> {
        match (self.dynamic, self.carried_allocator()) {
            (false, Some(allocator)) => Some(format!(
                "is a static program and carries {allocator}: no allocator can be put into it"
            )),
            (false, None) => Some(
                "is a static program without symbols, whose allocator does not tell its name: no other can be put into it"
                    .to_owned(),
            ),
            (true, None) if self.is_of_musl() => Some(
                "is linked to musl's C library and allocates with that: a library for glibc cannot be put into it"
                    .to_owned(),
            ),
            (true, Some(allocator)) => Some(format!(
                "carries its own allocator ({allocator}): no other can be put into it"
            )),
            (true, None) => None,
        }
    }
}

/// Reads an ELF file for x86-64.
///
/// # Errors
/// A few words when it cannot be read or is something else.
pub fn inspect(path: &Path) -> Result<Elf, String> {
    let bytes = heaplab_bounded::read(path, MOST_BYTES).map_err(|error| error.to_string())?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Elf, String> {
    const SHARED_OBJECT: u16 = 3;
    const INTERPRETER: u32 = 3;
    if !bytes.starts_with(b"\x7fELF") {
        return Err("it is not an ELF file".into());
    }
    if bytes.get(4..6) != Some(&[2, 1]) || u16_at(bytes, 18)? != 62 {
        return Err("it is for another kind of machine".into());
    }
    let headers = u64_at(bytes, 32)? as usize;
    let (size, count) = (
        usize::from(u16_at(bytes, 54)?),
        usize::from(u16_at(bytes, 56)?),
    );
    let mut interpreter = None;
    for index in 0..count {
        let at = headers.saturating_add(index * size);
        if u32_at(bytes, at)? == INTERPRETER {
            let (from, length) = (
                u64_at(bytes, at.saturating_add(8))? as usize,
                u64_at(bytes, at.saturating_add(32))? as usize,
            );
            let path = bytes
                .get(from..from.saturating_add(length))
                .unwrap_or_default();
            let path = path.strip_suffix(b"\0").unwrap_or(path);
            interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let dynamic = interpreter.is_some();
    let object = u16_at(bytes, 16)? == SHARED_OBJECT;
    // libc.so.6 and a few others are libraries with an interpreter; the missing one is what marks a plain library.
    let shared = object && (!dynamic || has_soname(bytes));
    Ok(Elf {
        shared,
        dynamic,
        interpreter,
        allocator_symbols: symbols(bytes).unwrap_or_default(),
        told_otherwise: otherwise(bytes),
    })
}

/// What sections and, without a symbol table, texts tell.
fn otherwise(bytes: &[u8]) -> Option<&'static str> {
    const SYMBOLS: u32 = 2;
    let sections = sections(bytes).ok()?;
    let names = sections
        .get(usize::from(u16_at(bytes, 62).ok()?))?
        .part(bytes);
    let named = |wanted: &[u8]| {
        sections.iter().any(|section| {
            names
                .get(section.name..)
                .is_some_and(|name| name.starts_with(wanted))
        })
    };
    if named(GO_SECTION) {
        return Some(GO);
    }
    if sections.iter().any(|section| section.kind == SYMBOLS) {
        return None;
    }
    let texts = sections
        .iter()
        .filter(|section| {
            names
                .get(section.name..)
                .is_some_and(|name| name.starts_with(b".rodata"))
        })
        .map(|section| section.part(bytes));
    let texts: Vec<&[u8]> = texts.collect();
    TELLING_TEXTS
        .iter()
        .find(|(text, _)| texts.iter().any(|part| contains(part, text.as_bytes())))
        .map(|(_, allocator)| *allocator)
}

fn contains(part: &[u8], wanted: &[u8]) -> bool {
    let first = wanted[0];
    let mut rest = part;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Whether a dynamic section names the object as libraries are named.
fn has_soname(bytes: &[u8]) -> bool {
    const DYNAMIC: u32 = 6;
    const SONAME: u64 = 14;
    sections(bytes)
        .into_iter()
        .flatten()
        .filter(|section| section.kind == DYNAMIC)
        .any(|section| {
            section
                .part(bytes)
                .chunks_exact(16)
                .any(|entry| u64_at(entry, 0) == Ok(SONAME))
        })
}

struct Section {
    /// Where its name begins in the section of names.
    name: usize,
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

impl Section {
    fn part<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes
            .get(self.offset..self.offset.saturating_add(self.size))
            .unwrap_or_default()
    }
}

fn sections(bytes: &[u8]) -> Result<Vec<Section>, String> {
    let headers = u64_at(bytes, 40)? as usize;
    let (size, count) = (
        usize::from(u16_at(bytes, 58)?),
        usize::from(u16_at(bytes, 60)?),
    );
    (0..count)
        .map(|index| {
            let at = headers.saturating_add(index * size);
            Ok(Section {
                name: u32_at(bytes, at)? as usize,
                kind: u32_at(bytes, at.saturating_add(4))?,
                offset: u64_at(bytes, at.saturating_add(24))? as usize,
                size: u64_at(bytes, at.saturating_add(32))? as usize,
                link: u32_at(bytes, at.saturating_add(40))? as usize,
            })
        })
        .collect()
}

/// Telling functions that the symbol tables define.
fn symbols(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    const SYMBOLS: u32 = 2;
    const DYNAMIC_SYMBOLS: u32 = 11;
    let sections = sections(bytes)?;
    let mut found = BTreeSet::new();
    for section in &sections {
        if section.kind != SYMBOLS && section.kind != DYNAMIC_SYMBOLS {
            continue;
        }
        let names = sections
            .get(section.link)
            .map(|names| names.part(bytes))
            .unwrap_or_default();
        for symbol in section.part(bytes).chunks_exact(24) {
            let defined = u16_at(symbol, 6)? != 0;
            let text = names.get(u32_at(symbol, 0)? as usize..).unwrap_or_default();
            if !defined {
                continue;
            }
            if let Some((name, _)) = TELLING.iter().find(|(name, _)| {
                text.strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&0))
            }) {
                found.insert((*name).to_owned());
            }
        }
    }
    Ok(found)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..at.saturating_add(N))
        .and_then(|part| part.try_into().ok())
        .ok_or_else(|| "it is cut off".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    field(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_truncated_file_is_an_error_at_every_length() {
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in [0, 3, 5, 19, 40, 60, 63] {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        let elf = parse(&whole).unwrap();
        assert!(elf.dynamic && !elf.shared);
        let loader = elf.interpreter.unwrap();
        assert!(Path::new(&loader).is_absolute(), "{loader}");
    }

    #[test]
    fn libraries_and_what_they_define() {
        let path = crate::embed::path(crate::embed::Embedded::Null).unwrap();
        let elf = inspect(&path).unwrap();
        assert!(elf.shared);
        assert!(elf.allocator_symbols.contains("malloc"));
        assert_eq!(elf.carried_allocator(), Some("an own malloc"));
    }
}
