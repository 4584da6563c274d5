//! Nonsense for each key of the language: a wrong type, a number out of range, a key that is missing, one that nobody knows.
//! What is said names the file, the line, what was found and what was expected.

use heaplab_workloads::Model;

/// A key of a table: its name, a value that is right, one that is out of range and what is then expected. A key may be left out
/// where it has a `?` behind its name.
type Key = (&'static str, &'static str, &'static str, &'static str);

/// A key of a role whose value is a table, the `kind` of that table (if it has one), and the table's other keys.
type Shape = (&'static str, &'static str, &'static [Key]);

const NEGATIVE: &str = "a whole number from 0 to 1073741824";
const SHARE: &str = "a number from 0 to 1";
const FACTOR: &str = "a number from 0 to 1000000000";
const CALLS: &str = "a whole number from 1 to 1099511627776";
const FIXED: &str = "{ kind = \"fixed\", bytes = 8 }";

const SHAPES: &[Shape] = &[
    ("size", "fixed", &[("bytes", "8", "-1", NEGATIVE)]),
    (
        "size",
        "uniform",
        &[
            ("min", "8", "-8", NEGATIVE),
            ("max", "9", "7", "a whole number from 8 to 1073741824"),
        ],
    ),
    (
        "size",
        "table",
        &[
            ("bytes", "[8, 16]", "[8, -1]", NEGATIVE),
            (
                "weights",
                "[1, 2]",
                "[1, -2]",
                "a number from 0 to 1000000000000",
            ),
        ],
    ),
    (
        "size",
        "histogram",
        &[
            ("edges", "[8, 16]", "[8]", "2 to 65536 numbers"),
            (
                "weights",
                "[1]",
                "[1, 2]",
                "`weights` has 2 numbers, expected 1",
            ),
        ],
    ),
    (
        "size",
        "zipf",
        &[
            ("bytes", "[8, 16]", "[]", "1 to 65536 numbers"),
            ("exponent", "1", "21", "a number from 0 to 20"),
        ],
    ),
    (
        "size",
        "log-normal",
        &[
            ("min", "8", "2000000000", NEGATIVE),
            ("max", "64", "1", "a whole number from 8 to 1073741824"),
            ("median", "16", "0", "a whole number from 1 to 1073741824"),
            ("sigma", "1.0", "-0.5", "a number from 0 to 10"),
        ],
    ),
    (
        "size",
        "pareto",
        &[
            ("min", "8", "0", "a whole number from 1 to 1073741824"),
            ("max", "64", "1.5", "a whole number from 8 to 1073741824"),
            ("alpha", "1", "0", "a number from 0.05 to 100"),
        ],
    ),
    (
        "size",
        "empirical",
        &[(
            "quantiles",
            "[8, 9]",
            "[9, 8]",
            "`quantiles` must never decrease",
        )],
    ),
    (
        "size",
        "mixture",
        &[(
            "parts",
            "[{ weight = 1, size = { kind = \"fixed\", bytes = 8 } }]",
            "[{ weight = 0, size = { kind = \"fixed\", bytes = 8 } }]",
            "all weights are 0, expected one above 0",
        )],
    ),
    ("lifetime", "random", &[]),
    ("lifetime", "fifo", &[]),
    ("lifetime", "lifo", &[]),
    ("lifetime", "exponential", &[]),
    ("lifetime", "phase", &[]),
    (
        "lifetime",
        "bimodal",
        &[
            ("short-share", "0.5", "1.5", SHARE),
            (
                "short-live",
                "3",
                "-3",
                "a whole number from 0 to 268435456",
            ),
        ],
    ),
    (
        "lifetime",
        "batch",
        &[(
            "order",
            "\"fifo\"",
            "\"best\"",
            "one of \"fifo\", \"lifo\", \"random\"",
        )],
    ),
    (
        "lifetime",
        "generational",
        &[
            ("nursery", "5", "0", "a whole number from 1 to 268435456"),
            ("survive", "0.5", "2", SHARE),
            ("generations?", "2", "17", "a whole number from 1 to 16"),
        ],
    ),
    (
        "lifetime",
        "by-size",
        &[
            (
                "dies",
                "\"small\"",
                "\"tiny\"",
                "one of \"small\", \"large\"",
            ),
            ("tries?", "4", "1", "a whole number from 2 to 64"),
        ],
    ),
    (
        "lifetime",
        "zipf",
        &[("exponent", "1", "9", "a number from 0 to 8")],
    ),
    (
        "lifetime",
        "recency",
        &[
            ("newest?", "1", "-1", FACTOR),
            ("near?", "1", "-1", FACTOR),
            (
                "ranks",
                "{ kind = \"fixed\", values = 7 }",
                "{ kind = \"fixed\", values = -7 }",
                NEGATIVE,
            ),
            ("next?", "1", "-1", FACTOR),
            ("previous?", "1", "-1", FACTOR),
            ("oldest?", "1", "-1", FACTOR),
            ("random?", "1", "-1", FACTOR),
            ("run?", "2", "0.5", "a number from 1 to 1000000000"),
        ],
    ),
    (
        "lifetime",
        "drawn",
        &[(
            "allocations",
            "{ kind = \"fixed\", values = 7 }",
            "{ kind = \"fixed\", values = 0 }",
            "a whole number from 1 to 1073741824",
        )],
    ),
    (
        "hand-over",
        "queue",
        &[
            (
                "to",
                "\"s\"",
                "\"t\"",
                "`to` names the role 't', expected one of r, s",
            ),
            ("depth", "5", "0", "a whole number from 1 to 268435456"),
            ("share?", "0.5", "1.1", SHARE),
            ("batch?", "2", "0", "a whole number from 1 to 1048576"),
            ("hold?", "2", "-2", "a whole number from 0 to 268435456"),
        ],
    ),
    (
        "hand-over",
        "random",
        &[
            ("share", "0.5", "-0.5", SHARE),
            ("to?", "\"s\"", "\"r\"", "`to` must name another role"),
        ],
    ),
    (
        "hand-over",
        "exchange",
        &[
            ("places", "5", "0", "a whole number from 1 to 16777216"),
            ("share?", "0.5", "2", SHARE),
        ],
    ),
    ("hand-over", "ring", &[("every", "5", "0", CALLS)]),
    (
        "hand-over",
        "respawn",
        &[
            ("every", "5", "0", CALLS),
            ("inherit?", "true", "\"no\"", "true or false"),
        ],
    ),
    (
        "grow",
        "",
        &[
            ("start", "8", "0", "a whole number from 1 to 1073741824"),
            ("factor?", "2", "0.5", "a number from 1 to 64"),
            ("step?", "8", "-8", NEGATIVE),
            (
                "by?",
                "\"copy\"",
                "\"move\"",
                "one of \"realloc\", \"copy\"",
            ),
        ],
    ),
    (
        "aligned",
        "",
        &[
            ("share", "0.5", "1.5", SHARE),
            ("to", "[64]", "[63]", "`to` is 63, expected a power of two"),
        ],
    ),
    (
        "pause",
        "",
        &[
            ("every", "5", "0", CALLS),
            ("ms", "1", "60001", "a whole number from 1 to 60000"),
        ],
    ),
    (
        "course",
        "",
        &[
            ("live", "[1]", "[-1]", FACTOR),
            (
                "weight",
                "[1]",
                "[1, 2]",
                "a course has 2 factors of `weight` and 1 of `live`, expected as many",
            ),
        ],
    ),
];

/// Keys that are numbers, texts or flags: right, out of range, expected.
const ROLE: &[Key] = &[
    ("threads?", "2", "4097", "a whole number from 1 to 4096"),
    ("burst?", "2", "0", "a whole number from 1 to 1048576"),
    ("ramp?", "0.5", "1.5", SHARE),
    ("live", "5", "0", "a whole number from 1 to 268435456"),
    (
        "live-bytes?",
        "5",
        "0",
        "a whole number from 1 to 1099511627776",
    ),
    ("weight?", "5", "-1", FACTOR),
    ("run?", "5", "0", "a whole number from 1 to 1048576"),
    ("calloc?", "0.5", "-0.5", SHARE),
    ("written?", "0.5", "1.5", SHARE),
    ("resize?", "0.5", "1.5", SHARE),
];

const MODEL: &[Key] = &[
    ("name", "\"t\"", "\"T t\"", "a name of a-z, 0-9 and '-'"),
    (
        "kind",
        "\"application\"",
        "\"app\"",
        "one of \"classic\", \"application\", \"fragmentation\", \"fitted\"",
    ),
    (
        "purpose",
        "\"p\"",
        "\"\"",
        "one line that says what the model is for",
    ),
    (
        "analysis",
        "\"a\"",
        "\" \"",
        "a text that says what the model stresses",
    ),
    ("sources?", "[\"s\"]", "[1]", "a text in quotes"),
    ("ops", "10", "0", CALLS),
    ("rounds?", "2", "0", "a whole number from 1 to 1048576"),
    (
        "expect?",
        "{ calls = 1, checksum = \"ab\" }",
        "{ calls = 1, checksum = \"xyz\" }",
        "16 hexadecimal digits in quotes",
    ),
];

const PHASE: &[Key] = &[
    ("name", "\"p\"", "5", "a text in quotes"),
    ("share", "1", "0", "a number from 0.000000001 to 1000000000"),
    ("ramp?", "true", "2", "true or false"),
    ("drop?", "0.5", "1.5", SHARE),
    (
        "drop-order?",
        "\"oldest\"",
        "\"old\"",
        "one of \"random\", \"oldest\", \"youngest\", \"alternate\"",
    ),
    ("live-factor?", "0.5", "-1", "a number from 0 to 1000000"),
    ("size?", FIXED, "{ kind = \"fixed\", bytes = -8 }", NEGATIVE),
    ("weight?", "1", "-1", FACTOR),
    (
        "change?",
        "[{ group = \"r\", weight = 2 }]",
        "[{ group = \"q\" }]",
        "a change names the group 'q', which no role has",
    ),
];

fn plain((key, ..): &Key) -> (&'static str, bool) {
    match key.strip_suffix('?') {
        Some(key) => (key, false),
        None => (key, true),
    }
}

/// A file of these parts, each key on a line of its own, and the line of each.
fn file(model: &[String], role: &[String], phase: &[String]) -> String {
    let mut lines: Vec<&str> = model.iter().map(String::as_str).collect();
    lines.push("[[role]]\nname = \"r\"");
    lines.extend(role.iter().map(String::as_str));
    lines.push("[[role]]\nname = \"s\"\nlive = 5\nsize = { kind = \"fixed\", bytes = 8 }");
    if !phase.is_empty() {
        lines.push("[[phase]]");
        lines.extend(phase.iter().map(String::as_str));
    }
    lines.join("\n")
}

fn sound(keys: &[Key]) -> Vec<String> {
    let line = |key: &Key| format!("{} = {}", plain(key).0, key.1);
    keys.iter().filter(|key| plain(key).1).map(line).collect()
}

/// What is said of a text, which must name the line that has `mark`, where there is one.
fn said(text: &str, mark: Option<&str>, expected: &str) -> bool {
    let error = match Model::parse(text, "t.toml") {
        Ok(_) => panic!("expected {expected}, but this is taken:\n{text}"),
        Err(error) => error.to_string(),
    };
    let line = mark.and_then(|mark| text.lines().position(|line| line.contains(mark)));
    let begin = line.map_or("t.toml:".to_owned(), |line| {
        format!("t.toml:{}: ", line + 1)
    });
    assert!(
        error.starts_with(&begin) && error.contains(expected),
        "expected {begin} … {expected} in\n{error}\n{text}"
    );
    true
}

/// A value of another type than the key's.
fn other_type(right: &str) -> &'static str {
    match right {
        "true" => "5",
        _ => "true",
    }
}

/// All faults of one key after the other, where `text` makes a file of the lines of its table.
fn faults(keys: &[Key], text: &dyn Fn(&[String]) -> String) -> usize {
    let mut count = 0;
    for key in keys {
        let (name, needed) = plain(key);
        let begin = format!("{name} = ");
        let others: Vec<String> = sound(keys)
            .into_iter()
            .filter(|line| !line.starts_with(&begin))
            .collect();
        let with = |value: &str| [others.clone(), vec![format!("{begin}{value}")]].concat();
        let (wrong, bad) = (other_type(key.1), key.2);
        let mark = format!("{begin}{wrong}");
        let expected = format!("`{name}` is {wrong}, expected ");
        count += usize::from(said(&text(&with(wrong)), Some(&mark), &expected));
        let mark = format!("{begin}{bad}");
        count += usize::from(said(&text(&with(bad)), Some(&mark), key.3));
        if needed {
            let expected = format!("`{name}` is missing, expected ");
            count += usize::from(said(&text(&others), None, &expected));
        }
    }
    let unknown = [sound(keys), vec!["zzzz = 1".to_owned()]].concat();
    count
        + usize::from(said(
            &text(&unknown),
            Some("zzzz"),
            "unknown key `zzzz`, expected one of ",
        ))
}

#[test]
fn keys_of_models_roles_and_phases() {
    let (model, size) = (sound(MODEL), vec![format!("size = {FIXED}")]);
    let role = [sound(ROLE), size.clone()].concat();
    let phase = sound(PHASE);
    let mut count = faults(MODEL, &|model| file(model, &role, &phase));
    count += faults(PHASE, &|phase| file(&model, &role, phase));
    count += faults(ROLE, &|role| {
        // The two exclude each other.
        let bytes = role.iter().any(|line| line.starts_with("live-bytes"));
        let role = role
            .iter()
            .filter(|line| !(bytes && line.starts_with("live =")));
        let role: Vec<String> = role.cloned().collect();
        file(&model, &[role, size.clone()].concat(), &[])
    });
    assert!(count > 60, "{count}");
}

#[test]
fn keys_of_sizes_lifetimes_hand_overs_and_the_like() {
    let model = sound(MODEL);
    let mut count = 0;
    for (table, kind, keys) in SHAPES {
        let mut others = Vec::new();
        if *table != "size" {
            others.push(format!("size = {FIXED}"));
        }
        if *kind != "drawn" {
            others.push("live = 5".to_owned());
        }
        let text = |lines: &[String]| {
            let mut words = lines.to_vec();
            if !kind.is_empty() {
                words.insert(0, format!("kind = \"{kind}\""));
            }
            // What is right must say so: `factor` and `near` are needed by others than themselves.
            for (by, word) in [
                ("start", "step = 1"),
                ("ranks", "near = 1"),
                ("run", "newest = 1"),
            ] {
                let key = word.split(' ').next().unwrap_or(word);
                let has = |name: &str| {
                    words
                        .iter()
                        .any(|line| line.starts_with(&format!("{name} =")))
                };
                let here = (*table == "grow" || *kind == "recency")
                    && keys.iter().any(|k| plain(k).0 == by);
                if here && !has(key) {
                    words.push(word.to_owned());
                }
            }
            let line = format!("{table} = {{ {} }}", words.join(", "));
            file(&model, &[vec![line], others.clone()].concat(), &[])
        };
        if let Err(error) = Model::parse(&text(&sound(keys)), "t.toml") {
            panic!("{table} {kind}: {error}");
        }
        count += faults(keys, &text);
        let line = |value: &str| {
            file(
                &model,
                &[vec![format!("{table} = {value}")], others.clone()].concat(),
                &[],
            )
        };
        let expected = format!("`{table}` is 5, expected a table");
        count += usize::from(said(&line("5"), Some(&format!("{table} = 5")), &expected));
        if !kind.is_empty() {
            count += usize::from(said(&line("{ }"), None, "`kind` is missing"));
            let mark = Some("kind = \"best\"");
            count += usize::from(said(
                &line("{ kind = \"best\" }"),
                mark,
                "`kind` is \"best\", expected one of \"",
            ));
        }
    }
    assert!(count > 200, "{count}");
}

/// Slips that concern more than one key, or the text itself.
#[test]
fn what_does_not_fit_together() {
    let role = format!("[[role]]\nname = \"r\"\nlive = 5\nsize = {FIXED}");
    let with =
        |model: &str, more: &str| format!("{}\n{model}\n{role}\n{more}", sound(MODEL).join("\n"));
    let many = role.replace("]]\nname = \"r\"", "]] # second\nname = \"q\"") + "\nthreads = 4096";
    let course = "course = { live = [1, 2], weight = [1, 1] }";
    let cases: &[(String, &str, &str)] = &[
        (
            with("", &many),
            "# second",
            "the roles have 4097 threads with this one, expected at most 4096 in all",
        ),
        (
            with("", "").replace("[[role]]", "[role]"),
            "[role]",
            "`role` is a table, expected a head in double square brackets for each, [[…]]",
        ),
        (
            with("", "lifetime = \"lifo\""),
            "lifetime = ",
            "`lifetime` is \"lifo\", expected a table that begins with its kind, { kind = \"…\", … }",
        ),
        (
            with("", "live = 6"),
            "live = 6",
            "the key `live` comes twice, expected it once",
        ),
        (
            with("", &format!("{course}\n[[phase]]\nname = \"p\"\nshare = 1")),
            "[[role]]",
            "group 'r' has a `course`, and there are [[phase]] tables: expected only one of the two",
        ),
        (
            with("", "").replace(
                "\nsize = { kind = \"fixed\", bytes = 8 }",
                "\nsize = { kind = \"empirical\", quantiles = [1] }",
            ),
            "quantiles",
            "`quantiles` is a list of 1, expected 2 to 65536 numbers",
        ),
        (
            with("", "").replace("\"p\"", "\"a\\u0000b\""),
            "purpose",
            "expected one line that says what the model is for",
        ),
        (
            with("", "").replace("name = \"t\"", &format!("name = \"{}\"", "t".repeat(101))),
            "name",
            "expected a name of a-z, 0-9 and '-', 100 at most",
        ),
    ];
    for (text, mark, expected) in cases {
        assert!(said(text, Some(mark), expected));
    }
}
