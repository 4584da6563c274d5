//! Addresses in files of code to functions, source files and lines.
//!
//! [`resolve`] does one module: `locate` finds the file with its debug information, DWARF (crate
//! `addr2line`) gives functions with what was inlined into them, `table` the names where there is no
//! DWARF, `demangle` makes names of Rust and C++ readable.
#![forbid(unsafe_code)]

mod demangle;
mod locate;
mod table;

pub use demangle::demangle;

use rayon::prelude::*;
use std::path::{Path, PathBuf};
use table::Table;

/// A function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// Demangled name, without parameters.
    pub function: String,
    /// Source file as the compiler had it; empty when unknown.
    pub file: String,
    /// Line, 0 when unknown.
    pub line: u32,
}

/// What is asked of a module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Where it was when it was recorded.
    pub path: PathBuf,
    /// The linker's build id, hexadecimal; empty: unknown, then any file is believed.
    pub build_id: String,
    /// Addresses inside of instructions, as linked.
    pub addresses: Vec<u64>,
}

/// How much is known of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Functions, files and lines.
    Lines,
    /// Functions only: there is no debug information.
    Functions,
    /// Nothing, for this reason.
    Nothing(String),
}

/// What is known of a module's addresses.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// For each address: what was inlined, the innermost first, then the function itself; empty when unknown.
    pub symbols: Vec<Vec<Symbol>>,
    /// How much is known.
    pub knowledge: Knowledge,
}

/// Where separate debug information lies.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the system's separate debug files.
    pub debug_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            debug_root: "/usr/lib/debug".into(),
        }
    }
}

/// Resolves modules in parallel, in their order.
pub fn resolve_all(modules: &[Module], options: &Options) -> Vec<Resolved> {
    modules
        .par_iter()
        .map(|module| resolve(module, options))
        .collect()
}

/// Resolves one module. Never fails: what is not known is empty, and [`Resolved::knowledge`] says why.
pub fn resolve(module: &Module, options: &Options) -> Resolved {
    let located = match locate::locate(&module.path, &module.build_id, options) {
        Ok(located) => located,
        Err(reason) => {
            return Resolved {
                symbols: vec![Vec::new(); module.addresses.len()],
                knowledge: Knowledge::Nothing(reason),
            };
        }
    };
    let table = Table::read(&located);
    let loader = located
        .debug
        .as_deref()
        .and_then(|path| load(path, located.supplement.as_deref()));
    let symbols: Vec<Vec<Symbol>> = module
        .addresses
        .iter()
        .map(|&address| {
            let mut symbols = Vec::new();
            if let Some(loader) = &loader {
                symbols = from_dwarf(loader, address, &table);
            }
            if symbols.is_empty() {
                symbols.extend(table.find(address).map(|name| Symbol {
                    function: demangle(name),
                    ..Symbol::default()
                }));
            }
            symbols
        })
        .collect();
    let knowledge = match loader {
        Some(_) => Knowledge::Lines,
        None if table.is_empty() => {
            Knowledge::Nothing("it has neither debug information nor symbols".into())
        }
        None => Knowledge::Functions,
    };
    Resolved { symbols, knowledge }
}

fn load(path: &Path, supplement: Option<&Path>) -> Option<addr2line::Loader> {
    addr2line::Loader::new_with_sup(path, supplement).ok()
}

fn from_dwarf(loader: &addr2line::Loader, address: u64, table: &Table) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    let Ok(mut frames) = loader.find_frames(address) else {
        return symbols;
    };
    while let Ok(Some(frame)) = frames.next() {
        let name = frame
            .function
            .as_ref()
            .and_then(|function| function.raw_name().ok());
        let name = match &name {
            Some(name) => demangle(name),
            // A line without a function: assembly, or a compilation unit without names.
            None => match table.find(address) {
                Some(name) => demangle(name),
                None => continue,
            },
        };
        let location = frame.location.as_ref();
        symbols.push(Symbol {
            function: name,
            file: location
                .and_then(|at| at.file)
                .unwrap_or_default()
                .to_owned(),
            line: location.and_then(|at| at.line).unwrap_or(0),
        });
    }
    symbols
}
