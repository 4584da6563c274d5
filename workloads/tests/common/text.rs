//! Models in tests: written down there, compiled, executed.
#![allow(dead_code)] // No test needs all of it.

use crate::common::{follow_order, interpret};
use heaplab_script::{Op, OpKind, Script};
use heaplab_workloads::{Model, ModelParams};

/// What every definition needs.
pub const HEAD: &str = r#"
name = "test"
kind = "application"
purpose = "a test"
analysis = "none"
"#;

pub fn model(rest: &str) -> Model {
    Model::parse(&format!("{HEAD}{rest}"), "test.toml").unwrap()
}

/// Compiles and executes a model under the rules of scripts.
pub fn script(model: &Model) -> Script {
    script_with(model, &ModelParams::default())
}

/// The same with other parameters.
pub fn script_with(model: &Model, params: &ModelParams) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let info = model.compile(params, &path, &mut |_, _| {}).unwrap();
    let script = Script::open(&path).unwrap();
    script.verify_checksum().unwrap();
    follow_order(&script);
    let mut turn = 0u64;
    interpret(&script, |count| {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (turn >> 33) as usize % count
    });
    assert_eq!(&info, script.info());
    script
}

pub fn count(ops: &[Op], kind: OpKind) -> usize {
    ops.iter().filter(|op| op.kind() == Some(kind)).count()
}

pub fn of_kind(script: &Script, kind: OpKind) -> Vec<Op> {
    let ops = script.threads().flatten();
    ops.filter(|op| op.kind() == Some(kind)).copied().collect()
}
