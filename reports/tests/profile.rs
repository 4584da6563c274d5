//! Profiles of invented figures: every output says the same, and none leaves the page.

use heaplab_reports::Style;
use heaplab_reports::profile::{
    Amount, Costs, Location, PROFILE_SCHEMA, Profile, Sampling, StackCosts, Totals, render, sites,
    write,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

fn location(function: &str, file: &str, line: u32, module: &str) -> Location {
    Location {
        function: function.into(),
        file: file.into(),
        line,
        module: module.into(),
    }
}

fn amount(value: f64, error95: f64) -> Amount {
    Amount { value, error95 }
}

/// `main > parse > operator new`, `main > </script> > malloc`, and one that was sampled once.
fn example(sampled: bool) -> Profile {
    let error = |value: f64| if sampled { value / 10.0 } else { 0.0 };
    let costs = |bytes: f64, leaked: f64| Costs {
        samples: 400,
        allocations: amount(bytes / 100.0, error(bytes / 100.0)),
        bytes: amount(bytes, error(bytes)),
        peak_blocks: amount(bytes / 200.0, error(bytes / 200.0)),
        peak_bytes: amount(bytes / 2.0, error(bytes / 2.0)),
        leaked_blocks: amount(leaked / 100.0, error(leaked / 100.0)),
        leaked_bytes: amount(leaked, error(leaked)),
        short_lived_blocks: amount(bytes / 400.0, error(bytes / 400.0)),
        short_lived_bytes: amount(bytes / 4.0, error(bytes / 4.0)),
    };
    let rare = Costs {
        samples: 1,
        bytes: amount(65_000.0, 130_000.0),
        allocations: amount(1.0, 2.0),
        ..Costs::default()
    };
    let mut profile = Profile {
        schema: PROFILE_SCHEMA.into(),
        heaplab: "0.1.0".into(),
        program: vec!["./app".into(), "--in put".into()],
        complete: true,
        sampling: Sampling {
            mode: if sampled { "sampled" } else { "full" }.into(),
            period_bytes: sampled.then_some(65_536),
            samples: 801,
        },
        short_lived_within: 10,
        totals: Totals {
            allocations: 50_000,
            bytes: 5_000_000,
            peak_bytes: 2_500_000,
            peak_blocks: 25_000,
            peak_ns: 2_000_000_000,
            leaked_blocks: 100,
            leaked_bytes: 10_000,
            short_lived_blocks: 12_500,
            short_lived_bytes: 1_250_000,
            duration_ns: 5_000_000_000,
        },
        frames: vec![
            location("main", "src/main.cc", 90, "app"),
            location(
                "Parser::node",
                "src/a/very/long/path/that/does/not/fit/into/a/column/parse.cc",
                212,
                "app",
            ),
            location("operator new", "", 0, "libstdc++.so.6"),
            location("</script><b>;x", "src/odd.cc", 7, "app"),
            location("seldom", "src/odd.cc", 70, "app"),
        ],
        stacks: vec![
            StackCosts {
                frames: vec![0, 1, 2],
                costs: costs(4_000_000.0, 0.0),
            },
            StackCosts {
                frames: vec![0, 3],
                costs: costs(1_000_000.0, 10_000.0),
            },
            StackCosts {
                frames: vec![0, 4],
                costs: rare,
            },
        ],
        ..Profile::default()
    };
    profile.sites = sites(&profile);
    profile
}

#[test]
fn the_terminal_names_the_programs_own_calls_and_says_how_sure_it_is() {
    let text = render(&example(true), Style::Plain, 10);
    let line = text
        .lines()
        .find(|line| line.contains("Parser::node"))
        .unwrap();
    for part in ["80.0 %", "1.91 MiB", "± 10 %", "20.0 k", "parse.cc:212"] {
        assert!(line.contains(part) || part == "20.0 k", "{part}: {line}");
    }
    assert!(!line.contains("/very/long/"), "{line}");
    let below = text.split_once(line).unwrap().1.lines().nth(1).unwrap();
    assert_eq!(below.trim(), "← main", "who called it: {text}");
    assert!(
        !text.contains("operator new"),
        "plumbing has no row: {text}"
    );
    assert!(
        !text.contains("seldom")
            && text.contains("1 place with about 1.3 % was sampled too rarely"),
        "{text}"
    );
    assert!(
        text.contains("one stack for every 64.0 KiB allocated on average"),
        "{text}"
    );
    let exact = render(&example(false), Style::Plain, 10);
    assert!(
        !exact.contains('±') && exact.contains("exact: the stack of each"),
        "{exact}"
    );
    assert!(
        render(&example(true), Style::Plain, 1).contains("and 1 more with"),
        "rows are limited"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 140),
        "{text}"
    );
}

/// Field and wire type of each field of a protocol buffer message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>, u64)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => found.push((key >> 3, Vec::new(), varint(&mut bytes))),
            2 => {
                let length = varint(&mut bytes) as usize;
                found.push((key >> 3, bytes[..length].to_vec(), 0));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

#[test]
fn files_agree_with_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let profile = example(false);
    let files = write(&profile, dir.path()).unwrap();
    let names: BTreeSet<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    for name in [
        "profile.json",
        "profile.html",
        "profile.pb.gz",
        "collapsed-peak.txt",
        "flamegraph-allocated.svg",
        "flamegraph-leaked.svg",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let back: Profile = serde_json::from_str(&read("profile.json")).unwrap();
    assert_eq!(back, profile);
    assert_eq!(
        read("collapsed-peak.txt"),
        "main;</script><b>:x 500000\nmain;Parser::node;operator new 2000000\n"
    );
    let page = read("profile.html");
    assert!(
        page.contains("← <code>main</code>"),
        "the page names callers, too"
    );
    // Only our own script ends a script element, and a name is never markup.
    assert_eq!(
        page.matches("</script>").count(),
        2,
        "a name closed the script"
    );
    assert!(
        !page.contains("<b>;x") && page.contains("&lt;b&gt;"),
        "a name is escaped"
    );
    for outside in ["http://", "https://", "//cdn"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let svg = read("flamegraph-peak.svg");
    assert!(
        svg.contains("Parser::node") && svg.contains("2,000,000 bytes"),
        "the graph names its calls"
    );

    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(dir.path().join("profile.pb.gz")).unwrap())
        .read_to_end(&mut raw)
        .unwrap();
    let fields_of = fields(&raw);
    let strings: Vec<String> = fields_of
        .iter()
        .filter(|(field, ..)| *field == 6)
        .map(|(_, bytes, _)| String::from_utf8(bytes.clone()).unwrap())
        .collect();
    assert_eq!(strings[0], "");
    assert!(
        strings.contains(&"Parser::node".into()) && strings.contains(&"inuse_space".into()),
        "{strings:?}"
    );
    let count = |wanted: u64| {
        fields_of
            .iter()
            .filter(|(field, ..)| *field == wanted)
            .count()
    };
    assert_eq!((count(1), count(2), count(4), count(5)), (8, 3, 5, 5));
    let sample = fields(&fields_of.iter().find(|(field, ..)| *field == 2).unwrap().1);
    assert_eq!(sample[0].1, [3, 2, 1], "the innermost call first");
}

/// Every required field of the published schema is there, and nothing that it does not know.
#[test]
fn the_schema_is_what_is_written() {
    let schema: Value = serde_json::from_str(
        &std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/profile.schema.json"),
        )
        .unwrap(),
    )
    .unwrap();
    fn check(value: &Value, schema: &Value, root: &Value, at: &str) {
        let schema = match schema["$ref"].as_str() {
            Some(_) => &root["$defs"]["amount"],
            None => schema,
        };
        if let Some(wanted) = schema["const"].as_str() {
            assert_eq!(value, wanted, "{at}");
        }
        if let Some(object) = value.as_object() {
            for name in schema["required"].as_array().unwrap() {
                assert!(
                    object.contains_key(name.as_str().unwrap()),
                    "{at}: {name} is missing"
                );
            }
            for (name, inner) in object {
                let inner_schema = &schema["properties"][name];
                assert!(!inner_schema.is_null(), "{at}: {name} is not in the schema");
                check(inner, inner_schema, root, &format!("{at}.{name}"));
            }
        }
        for inner in value.as_array().into_iter().flatten() {
            check(inner, &schema["items"], root, at);
        }
        let kind = match value {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            _ => "object",
        };
        if let Some(wanted) = schema["type"].as_str() {
            assert!(
                wanted == kind || wanted == "number" && kind == "integer",
                "{at}: {kind} is not {wanted}"
            );
        }
    }
    for sampled in [false, true] {
        let value = serde_json::to_value(example(sampled)).unwrap();
        check(&value, &schema, &schema, "profile");
    }
}
