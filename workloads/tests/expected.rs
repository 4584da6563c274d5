//! Built-in scripts are what was written down. `HEAPLAB_UPDATE=1 cargo test --release -p heaplab-workloads --test expected`
//! writes `definitions/expected.lock` anew.

use heaplab_workloads::{Expected, Model, ModelParams, Params, Workload};

fn small() -> ModelParams {
    ModelParams {
        seed: 7,
        scale: 0.01,
        threads: None,
    }
}

fn checksum(model: &Model, params: &ModelParams) -> heaplab_script::ScriptInfo {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    model.compile(params, &path, &mut |_, _| {}).unwrap()
}

/// The promise "on every machine". A difference here needs a new `play::VERSION`, or a changed definition.
#[test]
fn scripts_are_what_they_were() {
    let update = std::env::var_os("HEAPLAB_UPDATE").is_some();
    let mut lock = "# What the scripts of built-in models are at seed 1, scale 1 and their own threads; written by\n\
                    # HEAPLAB_UPDATE=1 cargo test --release -p heaplab-workloads --test expected\n\
                    # model, threads, calls, peak live bytes, checksum, checksum at seed 7 and scale 0.01\n"
        .to_owned();
    for about in Model::list() {
        let model = Model::builtin(&about.name).unwrap();
        let small_checksum = checksum(&model, &small()).checksum;
        if update {
            // The same ops, but nothing is expected of a model that is not built in.
            let params = ModelParams::default();
            let text = format!("{}\n", model.text());
            let free = Model::parse(&text, "free").unwrap();
            let info = checksum(&free, &params);
            let expected = Expected {
                threads: free.peak(&params).unwrap().threads,
                calls: info.calls,
                peak_live_bytes: info.peak_live_bytes,
                checksum: info.checksum,
                small_checksum,
            };
            lock += &expected.line(&about.name);
            continue;
        }
        let expected = Expected::of(&about.name)
            .unwrap_or_else(|| panic!("{} is not in definitions/expected.lock", about.name));
        assert_eq!(expected.small_checksum, small_checksum, "{}", about.name);
    }
    if update {
        std::fs::write("definitions/expected.lock", lock).unwrap();
    }
}

/// Some of them at full length, those that are soon made.
#[test]
fn full_scripts_are_what_they_were() {
    for name in ["mleak", "columnar", "malloc-large"] {
        let model = Model::builtin(name).unwrap();
        let expected = Expected::of(name).unwrap();
        let info = checksum(&model, &ModelParams::default());
        assert_eq!(
            (info.calls, info.peak_live_bytes, info.checksum),
            (expected.calls, expected.peak_live_bytes, expected.checksum),
            "{name}"
        );
    }
}

#[test]
fn a_script_that_differs_is_an_error_and_is_not_kept() {
    let text = Model::builtin("mleak").unwrap().text().to_owned();
    let expected = Expected::of("mleak").unwrap();
    let with = |calls: u64| {
        let line = format!(
            "expect = {{ calls = {calls}, checksum = \"{:016x}\" }}\nops = ",
            expected.checksum
        );
        text.replacen("ops = ", &line, 1)
    };
    let folder = tempfile::tempdir().unwrap();
    let compile = |text: &str, seed: u64| {
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, text).unwrap();
        let workload = Workload::resolve(file.to_str().unwrap()).unwrap();
        let params = Params {
            seed,
            ..Params::default()
        };
        workload.compile(&params, &folder.path().join("cache"), &mut |_, _| {})
    };
    // A seed of chance has no script that was written down: that of the model's own parameters is made and compared.
    for seed in [1, 5] {
        let error = compile(&with(expected.calls + 1), seed).unwrap_err();
        let error = error.to_string();
        // It stands before the last key of the model's own table.
        let place = format!("{}:", folder.path().join("mine.toml").display());
        let line = with(0).lines().position(|line| line.starts_with("expect"));
        assert!(
            error.starts_with(&format!("{place}{}: ", line.unwrap() + 1))
                && error.contains("is not the one that `expect` names")
                && error.contains("write what it has now into `expect`"),
            "{error}"
        );
        let kept = std::fs::read_dir(folder.path().join("cache")).unwrap();
        assert_eq!(kept.count(), 0, "seed {seed}");
    }
    let made = |seed: u64| compile(&with(expected.calls), seed).unwrap().info.checksum;
    assert_eq!(made(1), expected.checksum);
    assert_ne!(made(5), expected.checksum);
}
