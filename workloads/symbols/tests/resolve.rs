//! Small C programs, compiled in different ways, and this test itself.

use heaplab_symbols::{Knowledge, Module, Options, Resolved, Symbol, resolve};
use object::{Object, ObjectSymbol};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "\
static inline __attribute__((always_inline)) int inner(volatile int *at) {
    return *at + 1;
}
__attribute__((noinline)) int outer(volatile int *at) {
    return inner(at) * 3;
}
int main(void) {
    volatile int at = 5;
    return outer(&at) - 18;
}
";

fn run(program: &str, arguments: &[&str], dir: &Path) {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .status()
        .expect(program);
    assert!(status.success(), "{program} {arguments:?}");
}

fn compile(dir: &Path, options: &[&str]) -> PathBuf {
    fs::write(dir.join("lab.c"), SOURCE).expect("source");
    let mut arguments = vec!["-O1", "-Wl,--build-id=sha1", "-o", "lab", "lab.c"];
    arguments.extend_from_slice(options);
    run("cc", &arguments, dir);
    dir.join("lab")
}

/// Build id and the address of a function's first instruction.
fn facts(path: &Path, function: &str) -> (String, u64) {
    let data = fs::read(path).expect("a program");
    let file = object::File::parse(&*data).expect("an object file");
    let id = file.build_id().expect("notes").expect("a build id");
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(function))
        .expect("the function");
    (
        id.iter().map(|byte| format!("{byte:02x}")).collect(),
        symbol.address(),
    )
}

fn ask(path: &Path, build_id: &str, address: u64, root: &Path) -> Resolved {
    let module = Module {
        path: path.to_path_buf(),
        build_id: build_id.to_owned(),
        addresses: vec![address],
    };
    resolve(
        &module,
        &Options {
            debug_root: root.to_path_buf(),
        },
    )
}

fn functions(resolved: &Resolved) -> Vec<(&str, u32)> {
    resolved.symbols[0]
        .iter()
        .map(|symbol| (symbol.function.as_str(), symbol.line))
        .collect()
}

#[test]
fn inlined_functions_come_with_their_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = compile(dir.path(), &["-g"]);
    let (id, address) = facts(&path, "outer");
    let resolved = ask(&path, &id, address, dir.path());
    assert_eq!(resolved.knowledge, Knowledge::Lines);
    assert_eq!(functions(&resolved), [("inner", 2), ("outer", 5)]);
    assert!(resolved.symbols[0][0].file.ends_with("lab.c"));
}

#[test]
fn separate_debug_files_are_found_by_build_id_and_by_link() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = compile(dir.path(), &["-g"]);
    let (id, address) = facts(&path, "outer");
    run(
        "objcopy",
        &["--only-keep-debug", "lab", "lab.debug"],
        dir.path(),
    );
    run("strip", &["lab"], dir.path());
    let bare = ask(&path, &id, address, dir.path());
    assert_eq!(bare.symbols, [Vec::new()]);
    assert!(matches!(
        bare.knowledge,
        Knowledge::Nothing(_) | Knowledge::Functions
    ));
    run(
        "objcopy",
        &["--add-gnu-debuglink=lab.debug", "lab"],
        dir.path(),
    );
    assert_eq!(
        functions(&ask(&path, &id, address, Path::new("/nowhere"))),
        [("inner", 2), ("outer", 5)]
    );
    let folder = dir.path().join(".build-id").join(&id[..2]);
    fs::create_dir_all(&folder).expect("a folder");
    fs::rename(
        dir.path().join("lab.debug"),
        folder.join(format!("{}.debug", &id[2..])),
    )
    .expect("moved");
    assert_eq!(
        functions(&ask(&path, &id, address, dir.path())),
        [("inner", 2), ("outer", 5)]
    );
    // The program is gone, its debug file is not.
    assert_eq!(
        functions(&ask(Path::new("/nowhere/lab"), &id, address, dir.path())),
        [("inner", 2), ("outer", 5)]
    );
}

#[test]
fn without_debug_information_the_symbols_name_what_they_cover() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = compile(dir.path(), &[]);
    let (id, address) = facts(&path, "outer");
    let resolved = ask(&path, &id, address, dir.path());
    assert_eq!(resolved.knowledge, Knowledge::Functions);
    assert_eq!(functions(&resolved), [("outer", 0)]);
    let beyond = ask(&path, &id, u64::MAX, dir.path());
    assert_eq!(beyond.symbols, [Vec::<Symbol>::new()]);
}

#[test]
fn another_build_is_not_believed() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = compile(dir.path(), &["-g"]);
    let resolved = ask(&path, "0123456789", 0x1139, dir.path());
    let Knowledge::Nothing(reason) = resolved.knowledge else {
        panic!("believed")
    };
    assert!(reason.contains("another build"), "{reason}");
    let gone = ask(&dir.path().join("gone"), "", 0x1139, dir.path());
    assert!(
        matches!(gone.knowledge, Knowledge::Nothing(reason) if reason.contains("cannot be read"))
    );
}

#[inline(never)]
fn a_function_of_this_test(value: u64) -> u64 {
    std::hint::black_box(value) * 3
}

#[test]
fn rust_names_are_paths() {
    let own = std::env::current_exe().expect("own path");
    let data = fs::read(&own).expect("own program");
    let file = object::File::parse(&*data).expect("an object file");
    assert_eq!(a_function_of_this_test(2), 6);
    let symbol = file.symbols().find(|symbol| {
        symbol
            .name()
            .is_ok_and(|name| name.contains("a_function_of_this_test"))
    });
    let resolved = ask(
        &own,
        "",
        symbol.expect("the function").address(),
        Path::new("/nowhere"),
    );
    let last = resolved.symbols[0].last().expect("a name");
    assert_eq!(last.function, "resolve::a_function_of_this_test");
    assert!(
        last.file.ends_with("tests/resolve.rs") && last.line > 0,
        "{last:?}"
    );
}
