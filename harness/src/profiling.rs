//! From a trace with stacks to the profile that reports show.

use crate::naming;
use crate::service::metric;
use heaplab_reports::profile::{
    Amount, Costs, Location, ModuleNames, PROFILE_SCHEMA, Profile, Sampling, StackCosts, Totals,
    sites,
};
use heaplab_workloads::profile::{self, Estimate, HeapProfile, ProfileOptions};
use heaplab_workloads::trace::stacks::Symbols;
use heaplab_workloads::trace::{StackMode, StackTable, Trace, TraceError};
use std::collections::{BTreeSet, HashMap};

/// Reads a trace, names its stacks and adds up. A trace without stacks gives a profile without sites.
///
/// # Errors
/// As for reading the trace.
pub fn make(
    trace: &Trace,
    options: &ProfileOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Profile, TraceError> {
    let found = profile::profile(trace, options, progress)?;
    let nothing = StackTable::default();
    let table = trace.stacks().unwrap_or(&nothing);
    let (symbols, known) = naming::names(table);
    let (frames, of_frame) = locations(table, &modules(trace, table), &symbols);
    let (mode, period_bytes) = match found.mode {
        StackMode::Full => ("full", None),
        StackMode::Sampled { period } => ("sampled", Some(period)),
        StackMode::Off => ("off", None),
    };
    let totals = found.totals;
    let mut profile = Profile {
        schema: PROFILE_SCHEMA.into(),
        heaplab: env!("CARGO_PKG_VERSION").into(),
        program: trace.header().argv.clone(),
        recorded: trace.header().created.clone(),
        complete: trace.summary().complete,
        missing: trace.summary().missing.clone(),
        measured: (trace.notes().iter())
            .filter_map(|note| metric::of_note(note))
            .collect(),
        sampling: Sampling {
            mode: mode.into(),
            period_bytes,
            samples: found.samples,
        },
        short_lived_within: options.temporary,
        totals: Totals {
            allocations: totals.allocations,
            bytes: totals.bytes,
            peak_bytes: totals.peak_bytes,
            peak_blocks: totals.peak_blocks,
            peak_ns: totals.peak_ns,
            leaked_blocks: totals.leaked_blocks,
            leaked_bytes: totals.leaked_bytes,
            short_lived_blocks: totals.temporary_blocks,
            short_lived_bytes: totals.temporary_bytes,
            duration_ns: totals.duration_ns,
        },
        sites: Vec::new(),
        modules: table
            .modules
            .iter()
            .zip(known)
            .map(|(module, names)| ModuleNames {
                path: module.path.clone(),
                build_id: module.build_id.clone(),
                names,
            })
            .collect(),
        stacks: stacks(&found, table, &of_frame),
        frames,
    };
    profile.sites = sites(&profile);
    Ok(profile)
}

/// What each module is called: its file's name, or, for a program that was called by another (a symbolic link, as
/// `redis-server` is one to `redis-check-rdb`), that one.
fn modules(trace: &Trace, table: &StackTable) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    table
        .modules
        .iter()
        .map(|module| {
            let called: BTreeSet<String> = (trace.processes().iter())
                .filter(|process| process.info.program == module.path)
                .filter_map(|process| process.info.argv.first().map(|word| name(word)))
                .collect();
            let mut called = called.into_iter();
            match (called.next(), called.next()) {
                // A shell that logs in calls itself `-bash`.
                (Some(only), None) if !only.is_empty() && !only.starts_with('-') => only,
                _ => name(&module.path),
            }
        })
        .collect()
}

/// All calls, each once, and for each frame of the table its calls from the outermost inward: a function, then what was
/// inlined into it.
fn locations(
    table: &StackTable,
    modules: &[String],
    symbols: &Symbols,
) -> (Vec<Location>, Vec<Vec<u32>>) {
    let mut locations = Vec::new();
    let mut known: HashMap<Location, u32> = HashMap::new();
    let mut intern = |location: Location| {
        *known.entry(location.clone()).or_insert_with(|| {
            locations.push(location);
            locations.len() as u32 - 1
        })
    };
    let of_frame = table
        .frames
        .iter()
        .enumerate()
        .map(|(index, frame)| {
            let module = frame.module.and_then(|module| modules.get(module as usize));
            let module = module.map_or("", String::as_str);
            let found = symbols.get(index).map_or(&[][..], Vec::as_slice);
            if found.is_empty() {
                let function = match (module, frame.address) {
                    ("", 0) => "[unknown]".to_owned(),
                    ("", address) => format!("[{address:#x}]"),
                    (module, address) => format!("{module}+{address:#x}"),
                };
                return vec![intern(Location {
                    function,
                    module: module.to_owned(),
                    ..Location::default()
                })];
            }
            found
                .iter()
                .rev()
                .map(|symbol| {
                    intern(Location {
                        function: symbol.function.clone(),
                        file: symbol.file.clone(),
                        line: symbol.line,
                        module: module.to_owned(),
                    })
                })
                .collect()
        })
        .collect();
    (locations, of_frame)
}

fn stacks(found: &HeapProfile, table: &StackTable, of_frame: &[Vec<u32>]) -> Vec<StackCosts> {
    let amount = |estimate: Estimate| Amount {
        value: estimate.value,
        error95: estimate.error95(),
    };
    found
        .stacks
        .iter()
        .map(|(stack, costs)| {
            let mut outer_first: Vec<u32> = table.frames_of(*stack).collect();
            outer_first.reverse();
            StackCosts {
                frames: outer_first
                    .iter()
                    .flat_map(|frame| of_frame.get(*frame as usize).into_iter().flatten().copied())
                    .collect(),
                costs: Costs {
                    samples: costs.samples,
                    allocations: amount(costs.allocations),
                    bytes: amount(costs.bytes),
                    peak_blocks: amount(costs.peak_blocks),
                    peak_bytes: amount(costs.peak_bytes),
                    leaked_blocks: amount(costs.leaked_blocks),
                    leaked_bytes: amount(costs.leaked_bytes),
                    short_lived_blocks: amount(costs.temporary_blocks),
                    short_lived_bytes: amount(costs.temporary_bytes),
                },
            }
        })
        .collect()
}
