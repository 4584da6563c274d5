//! Libraries opened with RTLD_DEEPBIND, whose calls the loader binds past every preloaded library.

mod common;

use common::{Run, compile, compile_as, record_alone, round_trip_alone, scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The plugin, as `lib<name>.so`.
fn plugin(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let options = [&["-shared", "-fPIC"], options].concat();
    compile_as(dir, "cc", "bound.c", &format!("lib{name}.so"), &options)
}

fn program(dir: &Path) -> PathBuf {
    compile_as(dir, "cc", "deepbind.c", "deepbind", &["-ldl"])
}

fn sized(run: &Run, size: u64) -> usize {
    let of_size = |event: &&heaplab_workloads::trace::raw::RawEvent| event.size == size;
    run.recorded.events().filter(of_size).count()
}

#[track_caller]
fn recorded(command: &mut Command) -> Run {
    let run = record_alone(command);
    assert_eq!(run.status.code(), Some(0), "{}", run.stdout);
    assert_eq!((run.summary.lost_events, run.summary.torn_records), (0, 0));
    run
}

#[test]
fn what_they_allocate_is_recorded_however_they_are_bound() {
    let dir = scratch();
    let program = program(dir.path());
    for (kind, options) in [
        ("full", &["-Wl,-z,now,-z,relro"][..]),
        ("lazy", &["-Wl,-z,lazy,-z,relro"]),
        ("bare", &["-Wl,-z,lazy,-z,norelro"]),
        ("noplt", &["-fno-plt", "-Wl,-z,lazy"]),
    ] {
        let plugin = plugin(dir.path(), kind, options);
        for mode in ["now", "lazy"] {
            let run = recorded(Command::new(&program).arg(mode).arg(&plugin));
            // Three openings, each at its own time; the destructor runs at the closing.
            for size in [4002, 4003, 4004, 4005, 4006, 4007, 4103] {
                assert_eq!(sized(&run, size), 3, "{size} bytes, {kind}, {mode}");
            }
            // The constructor ran before the opening returned.
            assert_eq!((sized(&run, 4101), sized(&run, 4102)), (0, 0));
        }
    }
}

#[test]
fn blocks_of_their_constructors_are_counted_when_they_are_freed_or_resized() {
    let dir = scratch();
    let plugin = plugin(dir.path(), "bound", &[]);
    let stats = round_trip_alone(Command::new(program(dir.path())).arg("now").arg(plugin));
    // Of each of three openings one is freed and one resized.
    assert_eq!((stats.foreign_frees, stats.lost_frees), (6, 0));
}

#[test]
fn what_comes_with_them_is_recorded() {
    let dir = scratch();
    compile(dir.path(), "depends", true);
    let folder = format!("-L{}", dir.path().display());
    let options = ["-DDEPENDS", &folder, "-ldepends", "-Wl,-rpath,$ORIGIN"];
    let plugin = plugin(dir.path(), "bound", &options);
    let program = program(dir.path());
    let run = recorded(Command::new(&program).arg("depends").arg(plugin));
    assert_eq!(sized(&run, 4008), 1);

    // The C++ library: the program itself has none.
    let plugin = compile_as(
        dir.path(),
        "g++",
        "bound.cc",
        "libcxx.so",
        &["-shared", "-fPIC"],
    );
    let run = recorded(Command::new(&program).arg("vector").arg(plugin));
    assert_eq!(sized(&run, 4009), 1);
}

#[test]
fn files_are_looked_for_where_the_caller_has_them() {
    let dir = scratch();
    let inner = dir.path().join("inner/deeper");
    fs::create_dir_all(&inner).expect("folders");
    plugin(&inner, "bound", &[]);
    let options = [
        "-shared",
        "-fPIC",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/deeper",
        "-ldl",
    ];
    let opener = compile_as(
        &dir.path().join("inner"),
        "cc",
        "opener.c",
        "libopener.so",
        &options,
    );
    let mut command = Command::new(program(dir.path()));
    command.arg("opener").arg(opener);
    let run = recorded(command.args(["libbound.so", "$ORIGIN/deeper/libbound.so"]));
    assert_eq!(run.stdout, "");
    assert_eq!(sized(&run, 4010), 2);
}

#[test]
fn errors_are_those_of_the_unrecorded_program() {
    let dir = scratch();
    let plugin = plugin(dir.path(), "bound", &["-Wl,-z,lazy"]);
    let mut command = Command::new(program(dir.path()));
    command.arg("errors").arg(plugin);
    let bare = command.output().expect("the program runs");
    let run = recorded(&mut command);
    assert_eq!(run.stdout.as_bytes(), bare.stdout);
    assert!(
        run.stdout.contains("libof-no-file.so: cannot open"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("fine"), "{}", run.stdout);
}

#[test]
fn one_that_is_there_already_is_recorded_as_before() {
    let dir = scratch();
    let plugin = plugin(dir.path(), "bound", &["-Wl,-z,lazy"]);
    let run = recorded(Command::new(program(dir.path())).arg("again").arg(plugin));
    assert_eq!([4011, 4012, 4013].map(|size| sized(&run, size)), [1; 3]);
}

#[test]
fn another_namespace_has_a_heap_of_its_own() {
    let dir = scratch();
    let plugin = plugin(dir.path(), "bound", &[]);
    for (mode, times) in [("base", 1), ("other", 0)] {
        let run = recorded(Command::new(program(dir.path())).arg(mode).arg(&plugin));
        assert_eq!(sized(&run, 4014), times, "{mode}");
    }
}

#[test]
fn one_with_an_allocator_of_its_own_keeps_it() {
    let dir = scratch();
    let plugin = plugin(dir.path(), "bound", &["-DOWN"]);
    let run = recorded(Command::new(program(dir.path())).arg("own").arg(plugin));
    assert_eq!(sized(&run, 4015), 0);
}

#[test]
fn threads_that_open_and_close_at_a_time_are_all_there() {
    let dir = scratch();
    let plugins = ["one", "two", "three"].map(|name| plugin(dir.path(), name, &["-Wl,-z,relro"]));
    let run = recorded(
        Command::new(program(dir.path()))
            .arg("threads")
            .args(plugins),
    );
    assert_eq!(sized(&run, 4100), 600);
}
