//! Stacks of small C programs, compiled with and without frame pointers and unwind tables.

mod common;

use common::{Allocation, Recorded, compile, record, record_before};
use heaplab_workloads::record::StackMode;
use heaplab_workloads::trace::{EventKind, sample_probability};
use std::process::Command;

fn of_size(recorded: &Recorded, size: u64) -> &Allocation {
    let mut found = recorded
        .allocations
        .iter()
        .filter(|allocation| allocation.size == size);
    let one = found
        .next()
        .unwrap_or_else(|| panic!("no allocation of {size} bytes"));
    assert!(
        found.next().is_none(),
        "more than one allocation of {size} bytes"
    );
    one
}

fn begins(recorded: &Recorded, size: u64, functions: &[&str]) {
    let found = &of_size(recorded, size).functions;
    assert!(
        found.len() >= functions.len() && found.iter().zip(functions).all(|(a, b)| a == b),
        "{size} bytes: {found:?}"
    );
}

/// What holds however the program was compiled.
fn chain(options: &[&str], tables: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let program = compile(dir.path(), "chain", options);
    let recorded = record(dir.path(), &mut Command::new(&program), StackMode::Full);
    assert!(recorded.output.status.success(), "{:?}", recorded.output);
    assert_eq!(
        (recorded.summary.lost_events, recorded.summary.torn_records),
        (0, 0)
    );
    begins(&recorded, 1001, &["three", "two", "one", "main"]);
    begins(&recorded, 2002, &["three", "two", "variable", "main"]);
    begins(&recorded, 3003, &["three", "two", "one", "main"]);
    begins(&recorded, 3333, &["again", "main"]);
    begins(&recorded, 4004, &["zeroed", "main"]);
    begins(&recorded, 5055, &["aligned", "main"]);
    begins(&recorded, 6006, &["three", "two", "one", "worker"]);
    begins(&recorded, 7007, &["three", "two", "handler"]);
    let last = |size| {
        of_size(&recorded, size)
            .functions
            .last()
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(last(1001), "_start");
    if tables {
        // Through the kernel's frame to where the signal came.
        let handler = &of_size(&recorded, 7007).functions;
        assert!(
            handler.iter().any(|name| name == "interrupted"),
            "{handler:?}"
        );
    }
    // The line of the call, not of what comes after it.
    assert_eq!(of_size(&recorded, 1001).lines[0], 13);
    let modules = &recorded.trace.stacks().expect("stacks").modules;
    let of = |path: &str| modules.iter().find(|module| module.path.ends_with(path));
    assert!(
        of("/chain").is_some_and(|module| module.path.starts_with('/')),
        "{modules:?}"
    );
    assert!(
        of("/libc.so.6").is_some_and(|module| module.build_id.len() == 40),
        "{modules:?}"
    );
    assert!(
        recorded
            .allocations
            .iter()
            .all(|allocation| allocation.stack != 0),
        "each has a stack"
    );
}

#[test]
fn code_without_frame_pointers_is_walked_by_its_tables() {
    chain(&["-O2", "-fomit-frame-pointer"], true);
}

#[test]
fn unoptimised_code_is_walked() {
    chain(&["-O0"], true);
}

#[test]
fn code_with_frame_pointers_and_tables_is_walked() {
    chain(&["-O2", "-fno-omit-frame-pointer"], true);
}

#[test]
fn code_without_tables_is_walked_by_its_frame_pointers() {
    chain(
        &[
            "-O2",
            "-fno-omit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ],
        false,
    );
}

#[test]
fn a_corrupt_frame_pointer_does_no_harm() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = compile(
        dir.path(),
        "corrupt",
        &[
            "-O1",
            "-fno-omit-frame-pointer",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ],
    );
    let recorded = record(dir.path(), &mut Command::new(&program), StackMode::Full);
    assert!(recorded.output.status.success(), "{:?}", recorded.output);
    assert_eq!(recorded.output.stdout, b"survived\n");
    let seen = recorded.allocations.iter().filter(|allocation| {
        allocation
            .functions
            .first()
            .is_some_and(|name| name == "with_rbp")
    });
    assert_eq!(seen.count(), 3 * 23 * 2);
}

/// The opening returns by way of an instruction in the caller's object: a walk passes it.
#[test]
fn stacks_in_and_after_an_opening_with_deepbind_are_whole() {
    for optimised in ["-O0", "-O2"] {
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugin = compile(
            folder.path(),
            "host",
            &["-DPLUGIN", "-shared", "-fPIC", optimised],
        );
        let program = compile(dir.path(), "host", &["-rdynamic", optimised]);
        let recorded = record(
            dir.path(),
            Command::new(&program).arg(&plugin),
            StackMode::Full,
        );
        assert!(recorded.output.status.success(), "{:?}", recorded.output);
        begins(&recorded, 8002, &["plugin_take", "opens", "main"]);
        begins(&recorded, 8001, &["host_take", "plugin_begins"]);
        let found = &of_size(&recorded, 8001).functions;
        let end = ["opens", "main"];
        assert!(
            found.windows(2).any(|names| names == end),
            "{optimised}: {found:?}"
        );
        assert_eq!(found.last().map(String::as_str), Some("_start"));
    }
}

/// What sampling estimates lies within four standard errors of the truth, for blocks far smaller than the period and
/// blocks near it, in two threads.
#[test]
fn sampled_sums_are_unbiased() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = compile(dir.path(), "load", &["-O2"]);
    let mode = StackMode::Sampled { period: 65_536 };
    let recorded = record(dir.path(), &mut Command::new(&program), mode);
    assert!(recorded.output.status.success());
    for (function, size, count) in [("small", 100u64, 400_000.0), ("large", 60_000, 1_000.0)] {
        let samples: Vec<&Allocation> = recorded
            .allocations
            .iter()
            .filter(|allocation| allocation.stack != 0 && allocation.functions[0] == function)
            .collect();
        assert!(samples.iter().all(|allocation| allocation.size == size));
        let p = sample_probability(mode, size);
        let estimate = samples.len() as f64 / p;
        let error = (count * (1.0 - p) / p).sqrt();
        println!(
            "{function}: {} samples, {estimate:.0} of {count} allocations, standard error {error:.0}",
            samples.len()
        );
        assert!(
            (estimate - count).abs() < 4.0 * error,
            "{function}: {estimate} of {count}, error {error}"
        );
    }
    // All events are there all the same.
    let all = |size| {
        recorded
            .allocations
            .iter()
            .filter(|allocation| allocation.size == size)
            .count()
    };
    assert_eq!((all(100), all(60_000)), (400_000, 1_000));
}

/// A real program, without frame pointers and with many call sites: Python reading JSON. In every class of sizes the sampled
/// ones stand for as many as there were, and their stacks are whole.
#[test]
fn sampled_stacks_of_python_are_whole_and_unbiased() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "import json\nd = [{'k%d' % i: [i] * 5, 's': 'x' * (i % 900)} for i in range(4000)]\n\
                  print(len(json.loads(json.dumps(d))))";
    let mode = StackMode::Sampled { period: 16_384 };
    let mut command = Command::new("/usr/bin/python3");
    command.env("PYTHONMALLOC", "malloc").args(["-c", script]);
    let recorded = record(dir.path(), &mut command, mode);
    assert_eq!(recorded.output.stdout, b"4000\n", "{:?}", recorded.output);
    assert_eq!(
        (recorded.summary.lost_events, recorded.summary.torn_records),
        (0, 0)
    );
    let (mut samples, mut whole) = (0, 0);
    for sizes in [0..64, 64..512, 512..4096, 4096..u64::MAX] {
        let (mut exact, mut estimate, mut variance) = (0.0f64, 0.0, 0.0);
        let of_size = |allocation: &&Allocation| {
            !matches!(allocation.kind, EventKind::Failed | EventKind::Written)
                && sizes.contains(&allocation.size)
        };
        for allocation in recorded.allocations.iter().filter(of_size) {
            let p = sample_probability(mode, allocation.size);
            exact += 1.0;
            variance += (1.0 - p) / p;
            if allocation.stack != 0 {
                estimate += 1.0 / p;
                samples += 1;
                // What modules allocate before the program starts is called by the loader.
                let outermost = allocation.functions.last();
                whole += u32::from(
                    outermost.is_some_and(|name| ["_start", "_dl_init"].contains(&name.as_str())),
                );
            }
        }
        let error = variance.sqrt();
        println!(
            "{sizes:?} bytes: {estimate:.0} of {exact} allocations, standard error {error:.0}"
        );
        assert!(
            exact > 50.0 && (estimate - exact).abs() < 4.5 * error,
            "{sizes:?}: {estimate} of {exact}, error {error}"
        );
    }
    assert!(samples > 200, "{samples} samples");
    assert_eq!(
        whole, samples,
        "stacks that do not end in _start or the loader"
    );
}

/// Handlers that allocate at any instruction, of a walk, too: each finds its own stack, and nobody takes another's.
#[test]
fn handlers_that_interrupt_a_walk_have_stacks_of_their_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = compile(dir.path(), "cases", &["-O1"]);
    let allocator = compile(dir.path(), "sigsafe", &["-shared", "-fPIC", "-O1"]);
    let mut command = Command::new(program);
    command.args(["storm", "60000"]);
    let mode = StackMode::Full;
    let recorded = record_before(dir.path(), &mut command, mode, allocator.as_os_str());
    assert!(recorded.output.status.success(), "{:?}", recorded.output);
    assert_eq!(
        (recorded.summary.lost_events, recorded.summary.torn_records),
        (0, 0)
    );
    let handled: usize = String::from_utf8_lossy(&recorded.output.stdout)
        .trim()
        .parse()
        .expect("number of signals");
    let (mut in_handler, mut in_main) = (0, 0);
    for allocation in &recorded.allocations {
        let innermost = allocation.functions.first().map_or("", String::as_str);
        match allocation.size {
            200..=202 | 300 => {
                assert_eq!(innermost, "on_storm", "{allocation:?}");
                in_handler += 1;
            }
            16..=65 if innermost == "main" => {
                assert_eq!(
                    allocation.functions.last().map(String::as_str),
                    Some("_start"),
                    "{allocation:?}"
                );
                in_main += 1;
            }
            16..=65 => assert_ne!(innermost, "on_storm", "{allocation:?}"),
            _ => {}
        }
    }
    assert_eq!(in_handler, 3 * handled + handled / 64 * 1500);
    assert!(in_main >= 60_000, "{in_main}");
}
