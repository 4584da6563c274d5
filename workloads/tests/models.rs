//! Built-in models compile to sound scripts, the same to the byte for the same seed.

mod common;
#[path = "common/text.rs"]
mod text;

use heaplab_script::{OpKind, Script};
use heaplab_workloads::{Model, ModelParams, Params, Workload};
use text::script_with;

fn small() -> ModelParams {
    ModelParams {
        seed: 7,
        scale: 0.01,
        threads: None,
    }
}

#[test]
fn every_model_is_sound() {
    assert!(Model::list().len() >= 8);
    for about in Model::list() {
        let model = Model::builtin(&about.name).unwrap();
        assert_eq!(model.name(), about.name, "the file is named like the model");
        assert!(!model.definition().sources.is_empty());
        let script = script_with(&model, &small());
        let info = script.info();
        let peak = model.peak(&small()).unwrap();
        assert_eq!(
            (peak.calls, peak.live_bytes),
            (info.calls, info.peak_live_bytes)
        );
        assert_eq!(peak.threads as usize, script.thread_count());
        let wanted = (model.definition().ops as f64 * 0.01) as u64;
        assert!(
            info.calls >= wanted * 9 / 10 && info.calls <= wanted,
            "{about:?} {info:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::builtin("churn").unwrap();
    let write = |name: &str, params: &ModelParams| {
        let path = folder.path().join(name);
        model.compile(params, &path, &mut |_, _| {}).unwrap();
        std::fs::read(path).unwrap()
    };
    let first = write("a", &small());
    assert!(first == write("b", &small()));
    assert!(first != write("c", &ModelParams { seed: 8, ..small() }));
}

#[test]
fn models_do_what_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    let compile = |name: &str, threads| {
        let path = folder.path().join(name);
        let params = ModelParams {
            scale: 0.05,
            threads,
            ..ModelParams::default()
        };
        Model::builtin(name)
            .unwrap()
            .compile(&params, &path, &mut |_, _| {})
            .unwrap();
        Script::open(&path).unwrap()
    };
    let script = compile("producer-consumer", Some(4));
    assert_eq!(script.thread_count(), 4);
    let frees = |thread: usize| {
        script
            .thread(thread)
            .iter()
            .filter(|op| op.kind() == Some(OpKind::Free))
            .count()
    };
    let calls = |thread: usize| script.thread(thread).len();
    assert_eq!(
        (frees(1), frees(3)),
        (calls(1), calls(3)),
        "consumers only free"
    );
    // A table as large as what is on its way, not as the number of messages.
    assert!(
        script.info().shared_slots < 4 * 6000,
        "{}",
        script.info().shared_slots
    );

    let script = compile("larson", Some(3));
    assert!(script.thread_count() > 20, "{}", script.thread_count());
    assert!((0..3).all(|thread| script.exists_from_start(thread)));
    assert!(!script.exists_from_start(3));

    let script = compile("realloc-growth", None);
    assert!(script.info().reallocs > script.info().allocations * 2);
    let script = compile("churn", None);
    assert_eq!(script.info().shared_slots, 0);
    let script = compile("fragmenter", None);
    assert_eq!(script.phases(), ["small", "middle", "large", "small-again"]);
}

#[test]
fn the_cache_knows_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let workload = Workload::resolve("tiny-churn").unwrap();
    let params = Params {
        scale: 0.01,
        ..Params::default()
    };
    let first = workload
        .compile(&params, folder.path(), &mut |_, _| {})
        .unwrap();
    let again = workload
        .compile(&params, folder.path(), &mut |_, _| {})
        .unwrap();
    assert!(!first.cached && again.cached);
    assert_eq!(
        (&first.path, &first.info, &first.hash),
        (&again.path, &again.info, &again.hash)
    );
    let other = Params { seed: 2, ..params };
    assert_ne!(
        workload.hash(&params).unwrap(),
        workload.hash(&other).unwrap()
    );
    // A damaged entry is made anew.
    std::fs::write(&first.path, b"damaged").unwrap();
    let repaired = workload
        .compile(&params, folder.path(), &mut |_, _| {})
        .unwrap();
    assert!(!repaired.cached);
    assert_eq!(repaired.info, first.info);
}

#[test]
fn errors_name_file_line_and_what_was_expected() {
    let good = include_str!("../definitions/larson.toml");
    let line_of =
        |text: &str, what: &str| text.lines().position(|line| line.contains(what)).unwrap() + 1;
    for (from, to, line, reason) in [
        (
            "threads = 2",
            "thread = 2",
            "thread = 2",
            "role 'server': unknown key `thread`, did you mean `threads`?",
        ),
        (
            "live = 5_000",
            "live = \"many\"",
            "many",
            "role 'server': `live` is \"many\", expected a whole number from 1 to 268435456",
        ),
        (
            "kind = \"uniform\"",
            "kind = \"unifrom\"",
            "unifrom",
            "`kind` is \"unifrom\", expected one of \"fixed\", \"uniform\"",
        ),
        (
            "live = 5_000",
            "",
            "[[role]]",
            "role 'server': `live` is missing",
        ),
        // What is needed is there, but mistyped.
        (
            "live = 5_000",
            "lives = 5_000",
            "lives",
            "role 'server': unknown key `lives`, did you mean `live`?",
        ),
        (
            "max = 1000",
            "maxx = 1000",
            "maxx",
            "unknown key `maxx`, did you mean `max`?",
        ),
        (
            "min = 8, max = 1000",
            "min = 9, max = 1",
            "min = 9",
            "`max` is 1, expected a whole number from 9 to 1073741824",
        ),
        (
            "threads = 2",
            "threads = 0",
            "threads = 0",
            "`threads` is 0, expected a whole number from 1 to 4096",
        ),
        (
            "every = 100_000",
            "every = 1.5",
            "every = 1.5",
            "`every` is 1.5, expected a whole number",
        ),
        (
            "kind = \"classic\"",
            "kind = \"clasic\"",
            "clasic",
            "expected one of \"classic\", \"application\"",
        ),
        ("ops = 3_000_000", "ops 3", "ops 3", ""),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        let error = Model::parse(&text, "my.toml").unwrap_err().to_string();
        let at = format!("my.toml:{}: ", line_of(&text, line));
        assert!(error.starts_with(&at), "expected {at} in {error}");
        assert!(error.contains(reason), "{error}");
    }
    let error = Workload::resolve("larsen").unwrap_err().to_string();
    assert!(error.contains("did you mean 'larson'"), "{error}");
    let error = Workload::resolve("missing.toml").unwrap_err().to_string();
    assert!(error.contains("missing.toml"), "{error}");
    let few = ModelParams {
        threads: Some(1),
        ..ModelParams::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let model = Model::builtin("producer-consumer").unwrap();
    let error = model
        .compile(&few, &folder.path().join("s"), &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot run with 1 threads: it needs 2"),
        "{error}"
    );
}

#[test]
fn a_role_without_weight_rests_for_the_phase() {
    let text = r#"
name = "rests"
kind = "application"
purpose = "one role works in one phase only"
analysis = "a test"
sources = ["none"]
ops = 20000
[[role]]
name = "always"
live = 10
size = { kind = "fixed", bytes = 16 }
[[role]]
name = "first"
live = 10
size = { kind = "fixed", bytes = 32 }
[[phase]]
name = "both"
share = 1
[[phase]]
name = "one"
share = 1
change = [{ role = "first", group = "first", weight = 0 }]
"#;
    let model = Model::parse(text, "rests.toml").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    let params = ModelParams::default();
    let info = model.compile(&params, &path, &mut |_, _| {}).unwrap();
    assert_eq!(info.calls, 20_000);
    let script = Script::open(&path).unwrap();
    // Half of the first phase, nothing of the second one.
    let calls = script.thread(1).len();
    assert!((4_000..6_000).contains(&calls), "{calls}");
}

/// A number of calls that no file system has room for is refused before anything is written.
#[test]
fn a_script_that_no_disk_holds_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let workload = Workload::resolve("tiny-churn").unwrap();
    let Workload::Model(model) = workload else {
        panic!("not a model");
    };
    let workload = Workload::Model(Box::new(model.with_ops(1 << 40)));
    let params = Params {
        scale: 1000.0,
        ..Params::default()
    };
    let error = workload
        .compile(&params, &cache, &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error
            .starts_with("the script of model 'tiny-churn' has up to 17592186044416000 bytes and ")
            && error.contains("lower its `ops` or --scale"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}
