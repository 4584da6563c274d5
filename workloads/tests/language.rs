//! Every key of the language does what `docs/MODELS.md` says of it, and a definition can be written and read again.

mod common;
#[path = "common/text.rs"]
mod text;

use heaplab_script::{FLAG_INHERITED, FLAG_SHARED, Op, OpKind};
use heaplab_workloads::Model;
use text::{HEAD, count, model, of_kind, script};

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

/// Of a share of the blocks, evenly spaced, only a part is written.
#[test]
fn a_share_of_the_blocks_is_written_in_part() {
    let script = script(&model(
        "ops = 8000\n[[role]]\nname = \"a\"\nlive = 40\nsize = { kind = \"fixed\", bytes = 100_000 }\n\
         written = { share = 0.25, part = 0.125 }\n",
    ));
    let births: Vec<Op> = (script.thread(0).iter().copied())
        .filter(|op| matches!(op.kind(), Some(OpKind::Malloc | OpKind::Written)))
        .collect();
    let told: Vec<usize> = (births.iter().enumerate())
        .filter(|(_, op)| op.kind() == Some(OpKind::Written))
        .map(|(at, op)| {
            assert_eq!(op.size(), 12_500);
            at
        })
        .collect();
    // Four allocations and what is told of one of them.
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] == 5));
    assert_eq!(told.len(), births.len() / 5);
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
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"fixed\", bytes = 1 }\nwritten = 2",
            "test.toml:11: role 'a': `written` is 2, expected a number from 0 to 1, or { share, part }",
        ),
        (
            "ops = 1\n[[role]]\nname = \"a\"\nlive = 1\nsize = { kind = \"fixed\", bytes = 1 }\nwritten = { share = 0.5 }",
            "role 'a': `part` is missing, expected",
        ),
        ("ops = \n", "test.toml:6: a value is missing after `=`"),
        (
            "ops = 1\nops = 2\n",
            "test.toml:7: the key `ops` comes twice, expected it once",
        ),
    ] {
        let error = Model::parse(&format!("{HEAD}{text}"), "test.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "expected {reason} in {error}");
    }
}
