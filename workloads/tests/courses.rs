//! Parts of a model and the courses of its groups over them.

mod common;
#[path = "common/text.rs"]
mod text;

use heaplab_script::{Op, OpKind};
use heaplab_workloads::Model;
use text::{HEAD, model, script};

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
fn what_is_wrong_with_a_course_or_a_lifetime_is_said() {
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
            "hand-over = { kind = \"random\", share = 1, to = \"q\" }",
            "`to` names the role 'q', expected one of r",
        ),
    ] {
        let found = group(rest);
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}
