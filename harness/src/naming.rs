//! Names for the stacks of a trace: those that travel with it, or resolved from the files on this machine.

use crate::error::Error;
use crate::workload::trace_error;
use heaplab_symbols::{Knowledge, Options, resolve_all};
use heaplab_workloads::trace::stacks::{Symbol, Symbols};
use heaplab_workloads::trace::{StackTable, Trace, embed_symbols};
use std::path::Path;

/// Names of all frames, and in words how much is known of each module: `lines`, `functions`, `nothing: <why>`.
pub fn names(table: &StackTable) -> (Symbols, Vec<String>) {
    if let Some(symbols) = &table.symbols {
        let stored = "stored with the trace".to_owned();
        return (symbols.clone(), vec![stored; table.modules.len()]);
    }
    let mut modules: Vec<heaplab_symbols::Module> = table
        .modules
        .iter()
        .map(|module| heaplab_symbols::Module {
            path: module.path.clone().into(),
            build_id: module.build_id.clone(),
            addresses: Vec::new(),
        })
        .collect();
    let places: Vec<Option<(usize, usize)>> = table
        .frames
        .iter()
        .map(|frame| {
            let module = frame.module? as usize;
            let addresses = &mut modules.get_mut(module)?.addresses;
            addresses.push(frame.address);
            Some((module, addresses.len() - 1))
        })
        .collect();
    let resolved = resolve_all(&modules, &Options::default());
    let symbols = places
        .into_iter()
        .map(|place| {
            let found = place.and_then(|(module, at)| resolved.get(module)?.symbols.get(at));
            let found = found.map_or(&[][..], Vec::as_slice);
            found
                .iter()
                .map(|symbol| Symbol {
                    function: symbol.function.clone(),
                    file: symbol.file.clone(),
                    line: symbol.line,
                })
                .collect()
        })
        .collect();
    let known = resolved
        .iter()
        .map(|module| match &module.knowledge {
            Knowledge::Lines => "lines".into(),
            Knowledge::Functions => "functions".into(),
            Knowledge::Nothing(why) => format!("nothing: {why}"),
        })
        .collect();
    (symbols, known)
}

/// Writes `from` with its names as `to`, which may be the same file.
///
/// # Errors
/// A trace without stacks; a file that cannot be read or written.
pub fn embed(from: &Path, to: &Path) -> Result<(), Error> {
    let trace = Trace::open(from).map_err(trace_error)?;
    let table = trace.stacks().ok_or_else(|| no_stacks(from))?;
    let (symbols, _) = names(table);
    embed_symbols(&trace, to, &symbols).map_err(trace_error)
}

/// A trace that cannot be profiled.
pub fn no_stacks(path: &Path) -> Error {
    Error::usage(format!(
        "'{}' holds no stacks; record it with `heaplab record --stacks sampled` (or full)",
        path.display()
    ))
}
