//! Real output fits the schema that is documented, and the schema knows every field of it.

mod support;

use serde_json::Value;
use support::{heaplab, run};

const SCHEMA: &str = include_str!("../docs/result.schema.json");
const VALIDATE: &str = include_str!("../docs/validate.schema.json");

/// Checks `value` against `schema` with the keywords that ours uses; any other keyword is an error, so that nothing is
/// passed over.
fn check(root: &Value, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{path}: {what}"));
    for (keyword, wanted) in schema.as_object().ok_or(format!("{path}: no schema"))? {
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#'));
                let target = root.pointer(pointer.unwrap_or_default());
                check(
                    root,
                    target.ok_or(format!("{path}: {wanted} leads nowhere"))?,
                    value,
                    path,
                )?;
            }
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "number" => value.is_number(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "null" => value.is_null(),
                    _ => false,
                };
                let fits = match wanted {
                    Value::String(name) => is(name),
                    Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
                    _ => false,
                };
                if !fits {
                    return wrong(format!("{value} is no {wanted}"));
                }
            }
            "const" if value != wanted => return wrong(format!("{value} is not {wanted}")),
            "const" => {}
            "enum" if !wanted.as_array().is_some_and(|all| all.contains(value)) => {
                return wrong(format!("{value} is none of {wanted}"));
            }
            "enum" => {}
            "minimum" if value.as_f64() < wanted.as_f64() => {
                return wrong(format!("{value} is below {wanted}"));
            }
            "minimum" => {}
            "required" => {
                for name in wanted.as_array().into_iter().flatten() {
                    if value.get(name.as_str().unwrap_or_default()).is_none() {
                        return wrong(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in wanted.as_object().into_iter().flatten() {
                    if let Some(field) = value.get(name) {
                        check(root, schema, field, &format!("{path}/{name}"))?;
                    }
                }
            }
            "additionalProperties" => {
                let named = |name: &str| schema["properties"].get(name).is_some();
                for (name, field) in value.as_object().into_iter().flatten() {
                    match wanted {
                        _ if named(name) => {}
                        Value::Bool(false) => return wrong(format!("{name} is not described")),
                        schema => check(root, schema, field, &format!("{path}/{name}"))?,
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{path}/{index}"))?;
                }
            }
            other => {
                return wrong(format!(
                    "the schema uses '{other}', which this test does not know"
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn real_results_fit_the_documented_schema() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (words, status) in [
        (
            "run churn producer-consumer --scale 0.01 --seed 7 --blocks 2 --idle 20ms --aa --memory-limit 1GiB \
             -a system,jemalloc --no-report --format json",
            0,
        ),
        (
            "run fragmenter --blocks 1 --measure memory -a system --memory-limit 4MiB --no-report --format json",
            4,
        ),
        (
            "run --blocks 1 -a system --no-report --format json -- /bin/true",
            0,
        ),
    ] {
        let (got, out, err) = run(heaplab(folder.path()).args(words.split(' ')));
        assert_eq!(got, status, "{err}");
        let result: Value = serde_json::from_str(&out).unwrap();
        check(&schema, &schema, &result, "").unwrap_or_else(|error| panic!("{words}: {error}"));
        seen.push(result);
    }
    // A schema that lets everything pass would prove nothing.
    for (pointer, broken) in [
        ("/cells/0/status", Value::from("fine")),
        ("/cells/0/threads", Value::from("two")),
        ("/seed", Value::Null),
        ("/machine/surprise", Value::from(1)),
        ("/cells/0/metrics/ns_per_op/interval", Value::from("ci90")),
    ] {
        let mut result = seen[0].clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        result.pointer_mut(parent).unwrap()[field] = broken;
        assert!(check(&schema, &schema, &result, "").is_err(), "{pointer}");
    }
}

#[test]
fn real_validations_fit_the_documented_schema() {
    let schema: Value = serde_json::from_str(VALIDATE).unwrap();
    let fits = |found: &Value, what: &str| {
        check(&schema, &schema, found, "").unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    let folder = tempfile::tempdir().unwrap();
    // Too short to be looked at under one of them: a row with its reason.
    let program = "head -c 40000000 /dev/zero | tail -1 >/dev/null; echo took 3";
    let (_, out, err) = run(heaplab(folder.path())
        .args([
            "validate",
            "-a",
            "system,spanalloc",
            "--runs",
            "1",
            "--format",
            "json",
        ])
        .args(["--metric", "took=s:lower:took ([0-9]+)"])
        .args(["--variant", "none=/bin/true", "--", "sh", "-c", program]));
    let live: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{err}"));
    fits(&live, "live");
    assert_eq!(
        live["subjects"][0]["metrics"]["took"]["median"], 3.0,
        "{live}"
    );
    let variant = &live["subjects"][2];
    assert!(
        variant["variant"] == true && variant["reason"].is_string(),
        "{variant}"
    );
    // Those of the documentation, among which are rows that were asked further.
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/validation");
    let mut asked = 0;
    for file in std::fs::read_dir(stored).unwrap() {
        let path = file.unwrap().path();
        let found: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        fits(&found, &path.display().to_string());
        let rows = found["subjects"].as_array().unwrap();
        asked += rows.iter().filter(|row| row["asked"].is_object()).count();
    }
    assert!(asked > 0);
    // A row that was measured anew without the others (validation_page.rs).
    let mut anew = live.clone();
    anew["subjects"][0]["measured"] = serde_json::json!({
        "commit": "bbbbbbb", "time": "2026-11-02 10:00 UTC", "recordings": 8, "disturbed_recordings": 1, "others": 0.02
    });
    fits(&anew, "a row measured anew");
    for (pointer, broken) in [
        ("/subjects/0/error", Value::from("none")),
        ("/subjects/0/surprise", Value::from(1)),
        ("/ranking/agree", Value::from(-1)),
        ("/beside", Value::from("quiet")),
        ("/subjects/0/metrics/took/interval", Value::from("ci90")),
    ] {
        let mut found = live.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        found.pointer_mut(parent).unwrap()[field] = broken;
        assert!(check(&schema, &schema, &found, "").is_err(), "{pointer}");
    }
    // Metrics are described once.
    let result: Value = serde_json::from_str(SCHEMA).unwrap();
    for shared in ["metric", "ratio"] {
        assert_eq!(schema["$defs"][shared], result["$defs"][shared], "{shared}");
    }
}
