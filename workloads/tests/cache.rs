//! What a cache of scripts must survive: a flipped bit is never replayed.

use heaplab_script::Script;
use heaplab_workloads::{Params, Workload};
use std::path::Path;

/// Everything that a replay reads.
type Content = (Vec<Vec<heaplab_script::Op>>, String);

fn content(path: &Path) -> Content {
    let script = Script::open(path).unwrap();
    let ops = script.threads().map(<[_]>::to_vec).collect();
    let told = (script.info(), script.order().len(), script.phases());
    (ops, format!("{told:?}"))
}

/// Flips one bit in each of `flips` bytes all over the file, asks for the script again, and counts those that were not noticed: they
/// may only lie in gaps, where nothing is read.
fn every_flip_is_noticed(name: &str, params: &Params, flips: usize) {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload::resolve(name).unwrap();
    let compile = || {
        workload
            .compile(params, folder.path(), &mut |_, _| {})
            .unwrap()
    };
    let first = compile();
    let good = std::fs::read(&first.path).unwrap();
    let meant = content(&first.path);
    // Header and table, the names at the end, and everything between.
    let ends = (0..256).chain(good.len() - 64..good.len());
    let between = (256..good.len() - 64).step_by(good.len() / flips);
    let mut unnoticed = 0;
    for at in ends.step_by(320 / (flips / 2).min(320)).chain(between) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&first.path, &bad).unwrap();
        let again = compile();
        if again.cached {
            unnoticed += 1;
            assert_eq!(good[at], 0, "byte {at} is no gap");
            assert!(content(&first.path) == meant, "byte {at} is read");
        } else {
            assert!(std::fs::read(&first.path).unwrap() == good, "byte {at}");
        }
        assert_eq!(again.info, first.info);
    }
    // Arrays begin at multiples of 64 bytes: a gap behind the table, few bytes elsewhere.
    assert!(unnoticed < 64 && unnoticed * 4 < flips, "{unnoticed}");
}

#[test]
fn one_flipped_bit_in_a_model_is_noticed() {
    let params = Params {
        scale: 0.001,
        // Not the written-down script: only its own checksums protect it.
        seed: 3,
        ..Params::default()
    };
    every_flip_is_noticed("fragmenter", &params, 120);
}

#[test]
fn one_flipped_bit_in_a_trace_with_times_is_noticed() {
    let name = Workload::builtin_names()
        .into_iter()
        .filter_map(|name| {
            let info = Workload::resolve(name).ok()?.info().ok()?;
            (info.kind == heaplab_workloads::Kind::Trace).then_some((info.ops, name))
        })
        .min();
    let (ops, name) = name.expect("a built-in trace");
    let params = Params {
        scale: 2_000.0 / ops as f64,
        times: true,
        ..Params::default()
    };
    every_flip_is_noticed(name, &params, 12);
}

/// A script of gigabytes is not checked in silence, and what it is comes from the same pass.
#[test]
fn the_check_of_a_cached_script_tells_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload::resolve("larson").unwrap();
    let params = Params::default();
    assert!(!workload.is_cached(&params, folder.path()).unwrap());
    let made = workload.compile(&params, folder.path(), &mut |_, _| {});
    let made = made.unwrap();
    assert!(workload.is_cached(&params, folder.path()).unwrap());
    let bytes = std::fs::metadata(&made.path).unwrap().len();
    let mut told = Vec::new();
    let found = workload.compile(&params, folder.path(), &mut |done, total| {
        told.push(done);
        assert_eq!(total, bytes);
    });
    let found = found.unwrap();
    assert!(found.cached && found.info == made.info);
    assert_eq!((found.threads, found.runs), (made.threads, made.runs));
    // A part for each mebibyte at least, and nearly all of the file at the end: what is left is the order.
    assert!(told.is_sorted() && told.len() as u64 >= bytes >> 20);
    assert!(
        told.last()
            .is_some_and(|done| *done > bytes * 9 / 10 && *done <= bytes)
    );
}
