//! What must not be lost: every way to die, threads of every length, signals, forks, full rings.

mod common;

use common::{Recorded, Run, compile, record, record_with, scratch};
use heaplab_workloads::record::SessionOptions;
use heaplab_workloads::trace::Start;
use heaplab_workloads::trace::raw::RawKind;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

/// Runs a case of `programs/cases.c`.
fn case(mode: &str, count: u32) -> Run {
    case_with(mode, count, &SessionOptions::default(), Recorded::default())
}

fn case_with(mode: &str, count: u32, options: &SessionOptions, sink: Recorded) -> Run {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    record_with(
        Command::new(program).args([mode, &count.to_string()]),
        options,
        sink,
    )
}

#[test]
fn every_function_of_the_family_is_recorded() {
    let run = case("functions", 0);
    assert!(run.status.success());
    run.recorded.check();
    run.assert_counts_equal();
    for kind in [
        RawKind::Malloc,
        RawKind::Calloc,
        RawKind::AlignedAlloc,
        RawKind::Memalign,
        RawKind::PosixMemalign,
        RawKind::Valloc,
        RawKind::Pvalloc,
        RawKind::ReallocBegin,
        RawKind::ReallocEnd,
        RawKind::ReallocArrayEnd,
        RawKind::Free,
        RawKind::FailedAlloc,
    ] {
        assert!(run.recorded.count(kind) > 0, "no {kind:?} was recorded");
    }
    let huge = |event: &&_| matches!(event, heaplab_workloads::trace::raw::RawEvent { size, .. } if *size == 6 << 30);
    assert_eq!(run.recorded.events().filter(huge).count(), 1);
    let aligned = run
        .recorded
        .events()
        .find(|event| event.kind == RawKind::Memalign);
    assert_eq!(
        aligned.map(|event| (event.size, event.align_log2)),
        Some((300, 8))
    );
}

#[test]
fn of_large_blocks_it_is_told_how_much_was_written() {
    let run = case("written", 0);
    assert_eq!(run.status.code(), Some(0), "the program's blocks changed");
    run.recorded.check();
    run.assert_counts_equal();
    let kib: Vec<u64> = (run.recorded.events())
        .filter(|event| event.kind == RawKind::Written)
        .map(|event| event.size / 1024)
        .collect();
    // As they end, the last one at the exit. A block shares its first and last page with others: of the first it has less than a
    // page, and the last, in which the header of what lies behind it is, counts only behind a page that was written. The
    // zeros were read, and so have pages.
    let expected = [
        (0, 3),
        (100, 103),
        (1024, 1024),
        (1024, 1024),
        (0, 3),
        (256, 256),
        (256, 259),
        (20, 23),
        (252, 255),
    ];
    assert_eq!(kib.len(), expected.len(), "{kib:?}");
    for (kib, (least, most)) in kib.iter().zip(expected) {
        assert!((least..=most).contains(kib), "{kib} of {least} to {most}");
    }
}

/// Blocks of the program that were told to have nothing written to.
fn never_written(run: &Run) -> usize {
    assert_eq!(run.status.code(), Some(0));
    run.recorded.check();
    run.assert_counts_equal();
    let untouched = |event: &&_| {
        matches!(
            event,
            heaplab_workloads::trace::raw::RawEvent {
                kind: RawKind::Written,
                size: 0,
                ..
            }
        )
    };
    run.recorded.events().filter(untouched).count()
}

#[test]
fn of_early_blocks_it_is_told_that_they_were_never_written_to() {
    assert_eq!(never_written(&case("unwritten", 0)), 40);
    // They are not among the first blocks any more.
    assert_eq!(never_written(&case("unwritten", 300)), 0);
}

#[test]
fn eight_threads_that_hand_blocks_over_are_counted_equal() {
    let run = case("handover", 0);
    assert!(run.status.success());
    assert_eq!(run.summary.threads, 9);
    assert!(run.recorded.allocations() >= 8 * 40_000);
    run.recorded.check();
    run.assert_counts_equal();
    let handers = run
        .recorded
        .names
        .values()
        .filter(|name| *name == "hander")
        .count();
    assert_eq!(handers, 8);
}

#[test]
fn two_thousand_short_threads_are_all_there() {
    // A pool that only works when chunks of ended threads come back.
    let options = SessionOptions {
        pool_bytes: 4 << 20,
        ..SessionOptions::default()
    };
    let run = case_with("short", 2000, &options, Recorded::default());
    assert!(run.status.success());
    assert_eq!(run.summary.threads, 2001);
    assert_eq!(run.recorded.ended.len(), 2001);
    run.recorded.check();
    run.assert_counts_equal();
}

#[test]
fn handlers_that_allocate_inside_a_hook_lose_nothing() {
    let run = case("signal", 200_000);
    assert!(run.status.success());
    // The overflowing calls never reach the counter: they are failures that only the trace has.
    let failed = run.recorded.count(RawKind::FailedAlloc);
    assert!(failed >= 200_000);
    assert_eq!(run.recorded.allocations(), run.counted.allocations);
    assert_eq!(run.recorded.frees(), run.counted.frees);
    assert!(run.recorded.allocations() >= 20 * 40);
    assert_eq!((run.summary.lost_events, run.summary.torn_records), (0, 0));
    run.recorded.check();
}

#[test]
fn destructors_of_thread_keys_are_recorded() {
    let run = case("keys", 0);
    assert!(run.status.success());
    run.recorded.check();
    run.assert_counts_equal();
    assert!(
        run.recorded
            .events()
            .filter(|event| event.size == 33)
            .count()
            >= 100
    );
}

#[test]
fn constructors_destructors_and_atexit_are_recorded() {
    let run = case("lives", 0);
    assert!(run.status.success());
    run.assert_counts_equal();
    for size in [1001, 1002, 1003] {
        assert_eq!(
            run.recorded
                .events()
                .filter(|event| event.size == size)
                .count(),
            1
        );
    }
}

#[test]
fn kill_abort_and_exit_lose_nothing_that_was_committed() {
    for (mode, signal, code) in [
        ("kill", Some(9), None),
        ("abort", Some(6), None),
        ("_exit", None, Some(7)),
    ] {
        let run = case(mode, 50_000);
        assert_eq!(
            (run.status.signal(), run.status.code()),
            (signal, code),
            "{mode}"
        );
        assert!(run.recorded.allocations() >= 50_000, "{mode}");
        run.recorded.check();
        run.assert_counts_equal();
    }
}

#[test]
fn a_crash_in_the_caller_loses_nothing_that_was_committed() {
    let run = case("crash", 5000);
    assert_eq!(run.status.signal(), Some(libc::SIGSEGV));
    assert!(run.recorded.allocations() >= 5000);
    run.recorded.check();
    run.assert_counts_equal();
}

#[test]
fn two_hundred_threads_at_a_time_are_all_there() {
    let run = case("many", 200);
    assert!(run.status.success());
    assert_eq!(run.summary.threads, 201);
    run.recorded.check();
    run.assert_counts_equal();
}

/// More threads at a time than the pool has chunks: what does not fit is counted, and nobody waits for ever.
#[test]
fn more_threads_than_chunks_are_counted_as_lost() {
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        ..SessionOptions::default()
    };
    let run = case_with("many", 30, &options, Recorded::default());
    assert_eq!(run.status.code(), Some(30));
    let counted = run.counted;
    let all = counted.allocations + counted.frees + 2 * counted.reallocs;
    assert_eq!(run.summary.events + run.summary.lost_events, all);
}

#[test]
fn libraries_opened_at_run_time_are_recorded() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let plugin = compile(dir.path(), "plugin", true);
    let mut command = Command::new(&program);
    let run = record(command.arg("plugin").arg(&plugin));
    assert_eq!(run.status.code(), Some(0));
    run.recorded.check();
    run.assert_counts_equal();
    let sized = |size: u64| {
        run.recorded
            .events()
            .filter(|event| event.size == size)
            .count()
    };
    for size in 4001..=4005 {
        assert_eq!(sized(size), 3, "{size}");
    }
}

#[test]
fn images_that_follow_by_exec_are_all_there() {
    let run = case("exec", 3);
    assert_eq!(run.status.code(), Some(9));
    let images: Vec<(Start, Option<u32>)> = run
        .recorded
        .processes
        .iter()
        .map(|process| (process.start, process.parent))
        .collect();
    assert_eq!(images[0], (Start::First, None));
    assert_eq!(images.len(), 4);
    for (at, image) in images.iter().enumerate().skip(1) {
        let before = run.recorded.processes[at - 1].process;
        assert_eq!(*image, (Start::Exec, Some(before)));
    }
    assert_eq!((run.summary.processes, run.summary.execs), (4, 3));
    for process in &run.recorded.processes {
        let own = run.recorded.of_process(process.process);
        assert!(own.allocations() >= 100, "{}", own.allocations());
    }
    assert!(
        run.summary.not_recorded.is_empty(),
        "{:?}",
        run.summary.not_recorded
    );
}

/// Not one more and not one less: the child of a vfork writes into its parent's chunk, with its parent's state.
#[test]
fn the_heap_that_a_vfork_shares_is_counted_exactly() {
    let run = case("vfork", 40);
    assert_eq!(run.status.code(), Some(40));
    run.recorded.check();
    for (size, times) in [(5001, 40), (5002, 20), (5003, 40)] {
        let of_size = run.recorded.events().filter(|event| event.size == size);
        assert_eq!(of_size.count(), times, "blocks of {size} bytes");
    }
    let (summary, counted) = (&run.summary, run.counted);
    assert_eq!((summary.lost_events, summary.torn_records), (0, 0));
    // The second counter leaves out what runs under another process id.
    assert_eq!(run.recorded.allocations(), counted.allocations + 20);
    assert_eq!(run.recorded.frees(), counted.frees + 20);
    assert_eq!(summary.processes, 1);
    assert_eq!(summary.not_recorded.len(), 40);
    assert!(
        summary
            .not_recorded
            .iter()
            .all(|one| one.file == "/bin/true")
    );
}

#[test]
fn a_fork_in_a_threaded_program_changes_nothing() {
    let run = case("fork", 0);
    assert!(run.status.success());
    assert_eq!(run.stdout, format!("{}\n", (0..20).sum::<i32>()));
    assert_eq!(run.summary.processes, 21);
    run.recorded.check();
    // The counter counts the first process only.
    run.first_process().assert_counts_equal();
    let (first, children) = run.recorded.processes.split_first().expect("processes");
    assert_eq!((first.start, first.parent), (Start::First, None));
    for child in children {
        assert_eq!(
            (child.start, child.parent),
            (Start::Fork, Some(first.process))
        );
        assert!(child.program.ends_with("/cases"), "{}", child.program);
        let own = run.recorded.of_process(child.process);
        assert!(
            own.allocations() >= 500,
            "{} allocations",
            own.allocations()
        );
        assert_eq!(own.threads.len(), 1);
    }
    assert_eq!(run.recorded.count(RawKind::Fork), 20);
}

#[test]
fn a_full_ring_waits_for_a_slow_drainer() {
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        ..SessionOptions::default()
    };
    let slow = Recorded {
        delay: Duration::from_millis(20),
        ..Recorded::default()
    };
    let run = case_with("churn", 200_000, &options, slow);
    assert!(run.summary.waits > 0, "the ring was never full");
    assert_eq!(run.summary.lost_events, 0);
    run.recorded.check();
    run.assert_counts_equal();
}

#[test]
fn a_lossy_session_counts_what_it_drops() {
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        lossy: true,
        ..SessionOptions::default()
    };
    let slow = Recorded {
        delay: Duration::from_millis(50),
        ..Recorded::default()
    };
    let run = case_with("churn", 400_000, &options, slow);
    assert!(run.status.success());
    let counted = run.counted;
    let all = counted.allocations + counted.frees + 2 * counted.reallocs;
    assert!(run.summary.lost_events > 0, "nothing was dropped");
    assert_eq!(run.summary.events + run.summary.lost_events, all);
}

#[test]
fn handlers_that_interrupt_malloc_and_free_lose_nothing() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let allocator = compile(dir.path(), "sigsafe", true);
    let mut recorded = Recorded::default();
    // A pool of four chunks: handlers meet full chunks and an empty pool, too.
    let options = SessionOptions {
        pool_bytes: 256 << 10,
        ..SessionOptions::default()
    };
    let mut command = Command::new(program);
    command.args(["storm", "400000"]);
    let end = common::run(&mut command, &options, &mut recorded, &[&allocator]);
    assert!(end.status.success(), "{:?}", end.status);
    let handled: u64 = end.stdout.trim().parse().expect("number of signals");
    assert!(handled >= 100, "only {handled} signals");
    assert_eq!((end.summary.lost_events, end.summary.torn_records), (0, 0));
    assert_eq!(
        (recorded.allocations(), recorded.frees()),
        (end.counted.allocations, end.counted.frees)
    );
    assert!(recorded.allocations() >= 400_000 + 3 * handled);
    recorded.check();
    recorded.check_order_of_one_thread();
}

#[test]
fn every_program_of_a_shell_is_recorded() {
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let mut command = Command::new("sh");
    command
        .args(["-c", "\"$0\" churn 10; echo $?"])
        .arg(&program);
    let run = record(&mut command);
    assert_eq!(run.stdout, "10\n");
    let programs: Vec<(&str, Start)> = run
        .recorded
        .processes
        .iter()
        .map(|process| (process.name(), process.start))
        .filter(|(_, start)| *start != Start::Fork)
        .collect();
    assert_eq!(programs.len(), 2, "{:?}", run.recorded.processes);
    assert_eq!(programs[1].0, "cases");
    assert!(
        run.summary.not_recorded.is_empty(),
        "{:?}",
        run.summary.not_recorded
    );
    let last = run.recorded.processes.last().expect("processes");
    assert_eq!(last.argv[1..], ["churn", "10"]);
    assert!(run.recorded.of_process(last.process).allocations() >= 10);
    run.recorded.check();
}

#[test]
fn only_the_first_process_is_recorded_where_that_is_asked_for() {
    let options = SessionOptions {
        first_only: true,
        ..SessionOptions::default()
    };
    let run = case_with("fork", 0, &options, Recorded::default());
    assert_eq!((run.summary.processes, run.summary.left_out), (1, 20));
    run.recorded.check();
    run.assert_counts_equal();
    assert!(
        run.recorded
            .notes
            .iter()
            .any(|note| note.contains("20 further processes were left out"))
    );
}

#[test]
fn a_program_without_the_recorder_is_said_to_be_unrecorded() {
    let dir = scratch();
    let program = common::compile_static(dir.path(), "cases");
    let run = record(Command::new(program).args(["churn", "10"]));
    assert_eq!(run.status.code(), Some(10));
    assert_eq!((run.summary.processes, run.summary.events), (0, 0));
}

#[test]
fn a_program_without_room_for_the_session_is_said_to_be_so_and_goes_on() {
    use std::os::unix::process::CommandExt;
    let dir = scratch();
    let program = compile(dir.path(), "cases", false);
    let mut command = Command::new(program);
    command.args(["churn", "10"]);
    let limit = libc::rlimit {
        rlim_cur: 48 << 20,
        rlim_max: 48 << 20,
    };
    // SAFETY: setrlimit is a plain system call, allowed between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        });
    }
    let run = record(&mut command);
    assert_eq!(run.status.code(), Some(10));
    assert_eq!(
        (run.summary.processes, run.summary.attach_errno),
        (0, libc::ENOMEM as u32)
    );
}
