//! Phrases: sequences of calls that a role says, and says again.

mod common;
#[path = "common/text.rs"]
mod text;

use heaplab_script::{Op, OpKind};
use heaplab_workloads::Model;
use text::{HEAD, count, model, script};

/// What follows what is exactly what the phrases say, as they ask for it, and as much of it is written as `written` says.
#[test]
fn phrases_are_said_in_order() {
    let model = model(
        r#"
sources = []
ops = 10_000

[[role]]
name = "r"
phrases = [
    { name = "fill", calls = "+node:100*2 #node:100 @node:100 +%text", then = "empty:100", weight = 1 },
    { name = "empty", calls = "-node:2 >node <node !node !text", then = "fill:100", weight = 1 },
]
[[role.group]]
name = "node"
live = 2
size = { kind = "fixed", bytes = 16 }
lifetime = { kind = "recency", newest = 1, run = 4 }
aligned = { share = 0.0, to = [64] }
written = 0.5
[[role.group]]
name = "text"
live = 1
size = { kind = "fixed", bytes = 50_000 }
lifetime = { kind = "recency", newest = 1, run = 4 }
written = 0.25
"#,
    );
    let script = script(&model);
    let ops = script.thread(0);
    let kinds: Vec<OpKind> = ops.iter().filter_map(|op| op.kind()).collect();
    let start = kinds.iter().position(|kind| *kind == OpKind::Written);
    let round = [&ops[start.unwrap() - 4..], &[]].concat();
    let rounds: Vec<&[Op]> = round.chunks_exact(11).collect();
    assert!(rounds.len() > 900);
    for round in rounds {
        let sizes: Vec<u64> = round[..6].iter().map(|op| op.size()).collect();
        assert_eq!(sizes, [100, 100, 100, 100, 12_500, 50_000]);
        let asked: Vec<_> = (round[..4].iter())
            .map(|op| (op.kind().unwrap(), op.align_log2()))
            .collect();
        let [plain, cleared, aligned] = [OpKind::Malloc, OpKind::Calloc, OpKind::AlignedAlloc];
        assert_eq!(asked, [(plain, 0), (plain, 0), (cleared, 0), (aligned, 6)]);
        let slot = |index: usize| round[index].slot;
        // Of 0 1 2 3: the newest but two, the one after it, the one before that is gone, the newest.
        let freed: Vec<u32> = (6..9).map(slot).collect();
        assert_eq!(freed, [slot(1), slot(2), slot(0)]);
        assert_eq!((slot(9), slot(10)), (slot(3), slot(5)));
    }
}

/// Phrases that only rise or only fall lead a live set as far as it may go, and no further.
#[test]
fn phrases_lead_a_live_set_between_bounds() {
    let model = model(
        r#"
sources = []
ops = 50_000

[[role]]
name = "r"
phrases = [
    { name = "up", calls = "+node*30", weight = 1 },
    { name = "down", calls = "!node*30", weight = 1 },
]
[[role.group]]
name = "node"
live = 20
size = { kind = "fixed", bytes = 16 }
lifetime = { kind = "recency", newest = 1, above = 3, below = 7 }
"#,
    );
    let script = script(&model);
    let mut level = 0;
    let levels = script.thread(0).iter().map(|op| {
        level += if op.kind == OpKind::Free as u8 { -1 } else { 1 };
        level
    });
    let levels: Vec<i32> = levels.skip_while(|level| *level < 20).collect();
    assert_eq!(
        (levels.iter().min(), levels.iter().max()),
        (Some(&13), Some(&23))
    );
}

/// Of two blocks that grow the second is resized when the first has its size; what would resize a block that was left out is left
/// out as well.
#[test]
fn blocks_that_grow_beside_each_other_come_to_their_sizes() {
    let text = r#"
sources = []
ops = 50_000

[[role]]
name = "r"
phrases = [{ name = "p", calls = "+node*2 ~node*6 !node*2", weight = 1 }]
[[role.group]]
name = "node"
live = 2
size = { kind = "fixed", bytes = 80 }
grow = { start = 10, factor = 2.0 }
lifetime = { kind = "recency", newest = 1, above = 0, below = 2 }
"#;
    let resizes = |text: &str| {
        let script = script(&model(text));
        let ops = script.thread(0);
        count(ops, OpKind::Realloc) as f64 / count(ops, OpKind::Malloc) as f64
    };
    // Three steps each; the last one is not always found.
    let both = resizes(text);
    assert!(both > 2.6, "{both}");
    // One block has room for the second allocation no more.
    let one = resizes(&text.replace("live = 2", "live = 1"));
    assert!(one < 0.2, "{one}");
}

/// Sizes that one phrase of three draws from 5,000, with what the role says again.
fn drawn_sizes(recall: &str) -> Vec<u64> {
    let model = model(&format!(
        r#"
sources = []
ops = 40_000

[[role]]
name = "r"
phrases = [
    {{ name = "a", calls = "+node !node", weight = 1 }},
    {{ name = "b", calls = "+node !node +node !node", weight = 1 }},
    {{ name = "c", calls = "+node:1 !node", weight = 1 }},
]
{recall}
[[role.group]]
name = "node"
live = 4
size = {{ kind = "uniform", min = 2, max = 5001 }}
lifetime = {{ kind = "recency", newest = 1, run = 4 }}
"#
    ));
    let script = script(&model);
    let ops = script.thread(0).to_vec();
    ops.iter()
        .filter(|op| op.kind() == Some(OpKind::Malloc))
        .map(|op| op.size())
        .collect()
}

#[test]
fn what_was_said_is_said_again_with_its_sizes() {
    // How often the eight sizes before an allocation were met together before, and with the same size behind them.
    let known = |sizes: &[u64]| {
        let mut seen = std::collections::HashMap::new();
        let mut again = (0, 0);
        for window in sizes.windows(9) {
            if let Some(last) = seen.insert(&window[..8], window[8]) {
                again.0 += 1;
                again.1 += usize::from(last == window[8]);
            }
        }
        again
    };
    let plain = drawn_sizes("");
    let (met, _) = known(&plain);
    assert!(met < plain.len() / 50, "{met}");
    let recalled = drawn_sizes("recall = { chance = 0.9, calls = 100, memory = 10000 }");
    let (met, right) = known(&recalled);
    assert!(met > recalled.len() / 2, "{met} of {}", recalled.len());
    assert!(right * 10 > met * 8, "{right} of {met}");
    let redrawn =
        drawn_sizes("recall = { chance = 0.9, calls = 100, memory = 10000, redrawn = 1 }");
    let (met, _) = known(&redrawn);
    assert!(met < redrawn.len() / 20, "{met}");
    // Sizes and phrases are about as frequent as they were: what is said again wanders with what was said first (Pólya's urn).
    for sizes in [&plain, &recalled, &redrawn] {
        let drawn: Vec<u64> = sizes.iter().copied().filter(|size| *size > 1).collect();
        let mean = drawn.iter().sum::<u64>() as f64 / drawn.len() as f64;
        let share = drawn.len() as f64 / sizes.len() as f64;
        assert!((1500.0..3500.0).contains(&mean), "{mean}");
        assert!((0.3..0.98).contains(&share), "{share}");
    }
}

#[test]
fn what_is_wrong_with_phrases_is_said() {
    let group = |rest: &str| {
        let text = format!(
            "{HEAD}sources = []\nops = 10\n[[role]]\nname = \"r\"\nlive = 5\nsize = {{ kind = \"fixed\", bytes = 8 }}\n{rest}"
        );
        Model::parse(&text, "test.toml").unwrap_err().to_string()
    };
    for (rest, expected) in [
        (
            "phrases = [{ name = \"p\", calls = \"+r\", weight = 1 }]",
            "test.toml:12: role 'r': `phrases` need groups with `live` and a lifetime of kind \"recency\", group 'r' has another",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r ?r\", weight = 1 }]",
            "test.toml:13: role 'r', phrase: `calls` has the word \"?r\", expected +GROUP, +GROUP:BYTES, -GROUP,",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"-%r\", weight = 1 }]",
            "`calls` names the group '%r', expected one of r",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r @r:8\", weight = 1 }]",
            "`calls` has the word \"@r:8\", and the group 'r' says no alignments: expected `aligned` there",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"!r:8\", weight = 1 }]",
            "`calls` has the word \"!r:8\"",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+s\", weight = 1 }]",
            "`calls` names the group 's', expected one of r",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", then = \"q:5\", weight = 1 }]",
            "`then` names the phrase 'q', which the role does not have",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", then = \"p:60 p:60\", weight = 1 }]",
            "the percentages of `then` are above 100 together",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", weight = [1, 2] }]",
            "a phrase has 2 weights, expected one, or 1 as the courses have parts",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", weight = 0 }]",
            "all weights of phrases are 0, expected one above 0",
        ),
        (
            "recall = { calls = 10, memory = 100 }",
            "test.toml:12: role 'r': `recall` says phrases again, and the role has no `phrases`",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", weight = 1 }]\nrecall = { calls = 10, memory = 1 }",
            "expected a whole number from 2 to 1048576",
        ),
        (
            "lifetime = { kind = \"recency\", newest = 1 }\nphrases = [{ name = \"p\", calls = \"+r\", weight = 1 }]\nrecall = { calls = 10, memory = 2, redrawn = 2 }",
            "`redrawn` is 2, expected a number from 0 to 1",
        ),
    ] {
        let found = group(rest);
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}
