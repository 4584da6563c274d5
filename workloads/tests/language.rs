//! Every key of the language does what `docs/MODELS.md` says of it, and a definition can be written and read again.

mod common;

use common::{follow_order, interpret};
use heaplab_script::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind, Script};
use heaplab_workloads::{Model, ModelParams};

const HEAD: &str = r#"
name = "test"
kind = "application"
purpose = "a test"
analysis = "none"
"#;

fn model(rest: &str) -> Model {
    Model::parse(&format!("{HEAD}{rest}"), "test.toml").unwrap()
}

/// Compiles and executes a model under the rules of scripts.
fn script(model: &Model) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let info = model
        .compile(&ModelParams::default(), &path, &mut |_, _| {})
        .unwrap();
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

fn count(ops: &[Op], kind: OpKind) -> usize {
    ops.iter().filter(|op| op.kind() == Some(kind)).count()
}

fn of_kind(script: &Script, kind: OpKind) -> Vec<Op> {
    let ops = script.threads().flatten();
    ops.filter(|op| op.kind() == Some(kind)).copied().collect()
}

#[test]
fn everything_at_once() {
    let all = r#"
sources = ["here"]
ops = 60_000
rounds = 3

[[role]]
name = "front"
threads = 3
burst = 16
ramp = 0.3
pause = { every = 2000, ms = 1 }

[[role.group]]
name = "sent"
weight = 2
run = 5
live = 100
size = { kind = "histogram", edges = [16, 64, 4096], weights = [3, 1] }
hand-over = { kind = "queue", to = "back", depth = 200, share = 0.5, batch = 10, hold = 20 }

[[role.group]]
name = "kept"
size = { kind = "empirical", quantiles = [8, 16, 100, 5000] }
lifetime = { kind = "drawn", allocations = { kind = "pareto", alpha = 1.0, min = 1, max = 100000 } }
grow = { start = 16, factor = 1.5, step = 8 }

[[role.group]]
name = "traded"
live = 50
size = { kind = "zipf", bytes = [32, 64, 128], exponent = 1 }
hand-over = { kind = "exchange", places = 40, share = 0.5 }

[[role]]
name = "back"
live = 300
size = { kind = "fixed", bytes = 48 }
lifetime = { kind = "generational", nursery = 50, survive = 0.2, generations = 2 }
hand-over = { kind = "respawn", every = 3000, inherit = false }

[[role]]
name = "side"
threads = 2

[[role.group]]
name = "small"
live-bytes = 20_000
calloc = 0.5
aligned = { share = 0.25, to = [64, 256] }
size = { kind = "uniform", min = 1, max = 100 }
lifetime = { kind = "by-size", dies = "large" }
resize = 0.2

[[role.group]]
name = "hot"
live = 200
size = { kind = "log-normal", median = 100, sigma = 1.5, min = 1, max = 100000 }
lifetime = { kind = "zipf", exponent = 1.2 }
hand-over = { kind = "random", share = 0.3 }

[[role.group]]
name = "vectors"
live = 20
size = { kind = "table", bytes = [1000, 2000], weights = [1, 1] }
grow = { start = 10, factor = 2.0, by = "copy" }

[[phase]]
name = "up"
share = 2
ramp = true

[[phase]]
name = "down"
share = 1
ramp = true
live-factor = 0.25
drop = 0.1
[[phase.change]]
group = "small"
role = "side"
drop = 0.5
drop-order = "alternate"
size = { kind = "fixed", bytes = 7 }
weight = 3
"#;
    let model = model(all);
    let script = script(&model);
    assert_eq!(script.phases(), ["up", "down"]);
    assert_eq!(of_kind(&script, OpKind::Mark).len(), 6);
    assert!(script.info().idle_ns > 0);
    for kind in [
        OpKind::Calloc,
        OpKind::AlignedAlloc,
        OpKind::Realloc,
        OpKind::ThreadStart,
    ] {
        assert!(!of_kind(&script, kind).is_empty(), "{kind:?}");
    }
    // Written and read again it is the same definition.
    let text = toml::to_string(model.definition()).unwrap();
    let again = Model::parse(&text, "again.toml").unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(again.definition(), model.definition());
}

#[test]
fn generation_is_the_same_however_many_threads_draw_it() {
    let model = model(
        "ops = 300_000\n[[role]]\nname = \"a\"\nthreads = 7\nlive = 500\nburst = 8\n\
         size = { kind = \"uniform\", min = 1, max = 100 }\n",
    );
    let checksum = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| script(&model).info().checksum)
    };
    assert_eq!(checksum(1), checksum(4));
}

#[test]
fn queues_send_their_share_and_stay_below_their_depth() {
    let script = script(&model(
        "ops = 100_000\n[[role]]\nname = \"p\"\nlive = 10\nsize = { kind = \"fixed\", bytes = 10 }\n\
         hand-over = { kind = \"queue\", to = \"c\", depth = 300, share = 0.75, batch = 8, hold = 100 }\n\
         [[role]]\nname = \"c\"\n",
    ));
    let sent = script
        .thread(0)
        .iter()
        .filter(|op| op.flags & FLAG_SHARED != 0)
        .count();
    let share = sent as f64 / count(script.thread(0), OpKind::Malloc) as f64;
    assert!((0.73..0.77).contains(&share), "{share}");
    let received = count(script.thread(1), OpKind::Free);
    assert!(
        (100..=316).contains(&(sent - received)),
        "{}",
        sent - received
    );
}

#[test]
fn a_successor_inherits_or_finds_nothing() {
    let with = |inherit: bool| {
        script(&model(&format!(
            "ops = 40_000\n[[role]]\nname = \"a\"\nthreads = 2\nlive = 200\n\
             size = {{ kind = \"fixed\", bytes = 10 }}\n\
             hand-over = {{ kind = \"respawn\", every = 1000, inherit = {inherit} }}\n"
        )))
    };
    let script = with(true);
    let inherited = of_kind(&script, OpKind::Free)
        .iter()
        .filter(|op| op.flags == FLAG_INHERITED)
        .count();
    // Nearly all 200 blocks of each life but the first are freed by a successor.
    let lives = script.thread_count() - 2;
    assert!(
        lives >= 30 && inherited > lives * 150,
        "{inherited} {lives}"
    );
    assert_eq!(script.info().shared_slots, 0);
    let script = with(false);
    let frees = of_kind(&script, OpKind::Free);
    assert!(frees.iter().all(|op| op.flags == 0));
    for thread in 0..script.thread_count() - 2 {
        let ops = script.thread(thread);
        assert_eq!(
            count(ops, OpKind::Malloc),
            count(ops, OpKind::Free),
            "thread {thread}"
        );
    }
}

/// Blocks alive after each fourth of a thread's calls.
fn levels(ops: &[Op]) -> Vec<i64> {
    let mut alive = 0;
    let mut each = ops.iter().map(|op| {
        alive += match op.kind() {
            Some(OpKind::Malloc) => 1,
            Some(OpKind::Free) => -1,
            _ => 0,
        };
        alive
    });
    (0..4).filter_map(|_| each.nth(ops.len() / 4 - 1)).collect()
}

#[test]
fn a_phase_ramps_from_nothing() {
    for (lifetime, slack) in [
        ("random", 5),
        ("fifo", 5),
        ("lifo", 400),
        ("exponential", 120),
    ] {
        let script = script(&model(&format!(
            "ops = 40_000\n[[role]]\nname = \"a\"\nlive = 400\nlifetime = {{ kind = \"{lifetime}\" }}\n\
             size = {{ kind = \"fixed\", bytes = 10 }}\n[[phase]]\nname = \"up\"\nshare = 1\nramp = true\n\
             [[phase]]\nname = \"down\"\nshare = 1\nramp = true\nlive-factor = 0.5\n"
        )));
        let ops = script.thread(0);
        let second = ops.iter().rposition(|op| op.kind() == Some(OpKind::Mark));
        let (up, down) = ops.split_at(second.unwrap());
        assert!(up.len() > 19_900, "{lifetime}: {} calls", up.len());
        for (level, due) in levels(up).into_iter().zip([100, 200, 300, 400]) {
            let least = if lifetime == "lifo" { 0 } else { due - slack };
            assert!(
                (least..=due + slack).contains(&level),
                "{lifetime}: {level}, {due} due"
            );
        }
        let last = levels(down)[3];
        assert!(
            (-200 - slack..=-200 + slack).contains(&last),
            "{lifetime}: {last}"
        );
    }
}

#[test]
fn phases_end_early_and_drop() {
    let model = model(
        "ops = 30_000\n[[role]]\nname = \"a\"\nlive = 4000\nlifetime = { kind = \"phase\" }\n\
         size = { kind = \"fixed\", bytes = 10 }\n\
         [[phase]]\nname = \"fill\"\nshare = 1\n[[phase]]\nname = \"thin\"\nshare = 1\ndrop = 0.5\n\
         drop-order = \"alternate\"\nsize = { kind = \"fixed\", bytes = 20 }\n",
    );
    let script = script(&model);
    let ops = script.thread(0);
    let mark = ops
        .iter()
        .rposition(|op| op.kind() == Some(OpKind::Mark))
        .unwrap();
    assert_eq!(count(&ops[..mark], OpKind::Malloc), 4000);
    let slots: Vec<u32> = ops[mark + 1..mark + 2001]
        .iter()
        .map(|op| op.slot)
        .collect();
    assert!(
        slots
            .iter()
            .enumerate()
            .all(|(index, &slot)| slot == 2 * index as u32 + 1)
    );
    assert!(ops[mark + 2001..].iter().all(|op| op.size() == 20));
    assert_eq!(count(&ops[mark..], OpKind::Malloc), 2000);
}

#[test]
fn bytes_bound_a_set_as_well_as_blocks() {
    let script = script(&model(
        "ops = 50_000\n[[role]]\nname = \"a\"\nlive-bytes = 100_000\n\
         size = { kind = \"uniform\", min = 1, max = 999 }\n",
    ));
    let peak = script.info().peak_live_bytes;
    assert!((100_000..101_000).contains(&peak), "{peak}");
}

#[test]
fn faults_of_groups_and_phases_name_their_line() {
    for (text, reason) in [
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nlive-bytes = 1",
            "test.toml:10: role 'a': `live` and `live-bytes` exclude",
        ),
        (
            "ops = 1\n[[role]]\nname = \"a\"\n",
            "test.toml:7: model 'test': role 'a': `size` is missing",
        ),
        (
            "ops = 1\nrounds = 2\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"fixed\", bytes = 1 }",
            "test.toml:7: model 'test': `rounds` repeats phases",
        ),
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"fixed\", bytes = 1 }\n[[phase]]\nname = \"p\"\nshare = 1\n\
             [[phase.change]]\ngroup = \"b\"",
            "phase 'p'",
        ),
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"histogram\", edges = [1, 1], weights = [1] }",
            "test.toml:10: role 'a': `edges` must increase",
        ),
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"fixed\", bytes = 1 }\n\
             hand-over = { kind = \"queue\", to = \"b\", depth = 5 }",
            "test.toml:11: model 'test': role 'a': `to` names the role 'b', expected one of a",
        ),
        ("ops = \n", "test.toml:6: a value is missing after `=`"),
        (
            "ops = 1\nops = 2\n",
            "test.toml:7: duplicate key, found `ops`",
        ),
    ] {
        let error = Model::parse(&format!("{HEAD}{text}"), "test.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "expected {reason} in {error}");
    }
}

#[test]
fn courses_lead_live_sets_and_shares_of_calls() {
    let model = model(
        r#"
sources = []
ops = 40_000

[[role]]
name = "early"
[[role.group]]
name = "rises"
live = 1000
size = { kind = "fixed", bytes = 100 }
lifetime = { kind = "recency", next = 1, run = 3 }
course = { live = [0.5, 1.0, 0.25, 0.25], weight = [3, 3, 1, 0] }
[[role.group]]
name = "one"
live = 1
size = { kind = "fixed", bytes = 1_000_000 }
lifetime = { kind = "recency", newest = 1 }
hand-over = { kind = "random", share = 1.0, to = "late" }
course = { live = [0, 1, 1, 0], weight = [0, 0, 0, 0] }

[[role]]
name = "late"
live = 10
size = { kind = "fixed", bytes = 10 }
lifetime = { kind = "recency", oldest = 1 }
course = { live = [0, 0, 1, 1], weight = [0, 0, 1, 1] }
"#,
    );
    let script = script(&model);
    // The single large block is there in its parts, whatever chance says, and the other role frees it.
    let large: Vec<(usize, Op)> = (script.threads().enumerate())
        .flat_map(|(thread, ops)| ops.iter().map(move |op| (thread, *op)))
        .filter(|(_, op)| op.size() == 1_000_000)
        .collect();
    let kinds: Vec<_> = large
        .iter()
        .map(|(thread, op)| (*thread, op.kind()))
        .collect();
    assert_eq!(kinds, [(0, Some(OpKind::Malloc)), (1, Some(OpKind::Free))]);
    let peak = script.info().peak_live_bytes;
    assert!((1_099_000..=1_102_000).contains(&peak), "{peak}");
    // 10,000 calls a part: all of the first two and half of the third are the early role's.
    let early = script.thread(0).len();
    assert!((24_500..25_500).contains(&early), "{early}");
    let alive: i64 = (script.thread(0).iter().filter(|op| op.size() == 100))
        .map(|op| {
            if op.kind() == Some(OpKind::Free) {
                -1
            } else {
                1
            }
        })
        .sum();
    assert!((244..=252).contains(&alive), "{alive}");
}

#[test]
fn parts_have_lengths_and_few_blocks_grow_at_once() {
    let script = script(&model(
        r#"
sources = []
ops = 40_000
parts = [1, 3]

[[role]]
name = "r"
[[role.group]]
name = "many"
live = 100
size = { kind = "fixed", bytes = 100 }
lifetime = { kind = "recency", newest = 1 }
course = { live = [1, 1], weight = [1, 1] }
[[role.group]]
name = "one"
live = 1
size = { kind = "fixed", bytes = 1_000_000 }
lifetime = { kind = "recency", newest = 1 }
grow = { start = 1000, factor = 2.0 }
course = { live = [0, 1], weight = [0, 0] }
"#,
    ));
    let ops = script.thread(0);
    let steps: Vec<_> = (ops.iter().enumerate())
        .filter(|(_, op)| op.kind() == Some(OpKind::Realloc))
        .map(|(at, op)| (at, op.size()))
        .collect();
    // At the beginning of the second part, a fourth of the calls being over.
    let sizes: Vec<u64> = steps.iter().map(|(_, size)| *size).collect();
    let doubled = (1..10).map(|step| 1000 << step);
    assert!(
        sizes.into_iter().eq(doubled.chain([1_000_000])),
        "{steps:?}"
    );
    assert!((10_000..10_020).contains(&steps[0].0), "{steps:?}");
}

#[test]
fn what_is_wrong_with_parts_is_said() {
    let with = |parts: &str, course: &str| {
        let text = format!(
            "{HEAD}sources = []\nops = 10\nparts = {parts}\n[[role]]\nname = \"r\"\nlive = 5\n\
             size = {{ kind = \"fixed\", bytes = 8 }}\n{course}"
        );
        Model::parse(&text, "test.toml").unwrap_err().to_string()
    };
    let course = "course = { live = [1, 1], weight = [1, 1] }";
    for (parts, course, expected) in [
        (
            "[1]",
            "",
            "`parts` are those of courses, but no group has a `course`",
        ),
        (
            "[1, 2, 3]",
            course,
            "`parts` has 3 lengths, expected 2, as the courses have parts",
        ),
        ("[1, 0]", course, "`parts` is 0, expected a number from"),
        ("5", course, "`parts` is 5, expected a list"),
    ] {
        let said = with(parts, course);
        assert!(
            said.starts_with("test.toml:8: ") && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_course_or_a_recency_is_said() {
    let group = |rest: &str| {
        let text = format!(
            "{HEAD}sources = []\nops = 10\n[[role]]\nname = \"r\"\nlive = 5\nsize = {{ kind = \"fixed\", bytes = 8 }}\n{rest}"
        );
        Model::parse(&text, "test.toml").unwrap_err().to_string()
    };
    for (rest, expected) in [
        (
            "course = { live = [1, 2], weight = [1] }",
            "test.toml:12: role 'r': a course has 1 factors of `weight` and 2 of `live`, expected as many",
        ),
        (
            "course = { live = [], weight = [] }",
            "test.toml:12: role 'r': `live` is an empty list, expected 1 to 4096 factors",
        ),
        (
            "course = { live = [1], weight = [1] }\n[[phase]]\nname = \"p\"\nshare = 1",
            "group 'r' has a `course`, and there are [[phase]] tables: expected only one of the two",
        ),
        (
            "lifetime = { kind = \"recency\", run = 2 }",
            "all shares of a recency lifetime are 0, expected one of newest, near, next, previous, oldest, random above 0",
        ),
        (
            "lifetime = { kind = \"recency\", near = 2 }",
            "`ranks` is missing",
        ),
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
        (
            "hand-over = { kind = \"random\", share = 1, to = \"q\" }",
            "`to` names the role 'q', expected one of r",
        ),
    ] {
        let found = group(rest);
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}

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
