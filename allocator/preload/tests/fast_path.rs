//! The golden fast path: which instructions each entry point executes when its cache has a block,
//! counted by kind, and how many instructions the library executes per block in fixed loops.
//!
//! callgrind counts how often each instruction of the shipped library ran; those that ran in every
//! iteration of a loop are its fast path, and the disassembly says what they are. The counts are in
//! `fast_path.txt`: those of fast paths must be equal, those of loops within 5 %. When they change on purpose:
//!
//! ```sh
//! UPDATE_FAST_PATH=1 cargo test -p spanalloc-preload --test fast_path
//! ```

mod common;

use common::{compile, library, scratch};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Iterations of each loop in `LOOPS`.
const ROUNDS: u64 = 1000;

/// Each loop is warmed up, then counted alone; its name and the entry point that it is about.
const PATHS: [(&str, &str, &str); 14] = [
    ("malloc 64", "malloc", "use(malloc(64)); free(kept)"),
    ("malloc 2048", "malloc", "use(malloc(2048)); free(kept)"),
    ("free 64", "free", "use(malloc(64)); free(kept)"),
    ("calloc 1 x 64", "calloc", "use(calloc(1, 64)); free(kept)"),
    (
        "calloc 1 x 512",
        "calloc",
        "use(calloc(1, 512)); free(kept)",
    ),
    (
        "realloc in place",
        "realloc",
        "use(malloc(64)); use(realloc(kept, 60)); free(kept)",
    ),
    (
        "aligned_alloc 16, 64",
        "aligned_alloc",
        "use(aligned_alloc(16, 64)); free(kept)",
    ),
    (
        "aligned_alloc 64, 64",
        "aligned_alloc",
        "use(aligned_alloc(64, 64)); free(kept)",
    ),
    (
        "free_sized 64",
        "free_sized",
        "use(malloc(64)); free_sized(kept, 64)",
    ),
    ("new 64", "_Znwm", "use(_Znwm(64)); _ZdlPv(kept)"),
    (
        "new nothrow 64",
        "_ZnwmRKSt9nothrow_t",
        "use(_ZnwmRKSt9nothrow_t(64, 0)); _ZdlPv(kept)",
    ),
    ("delete 64", "_ZdlPv", "use(_Znwm(64)); _ZdlPv(kept)"),
    (
        "delete sized 64",
        "_ZdlPvm",
        "use(_Znwm(64)); _ZdlPvm(kept, 64)",
    ),
    (
        "usable_size 64",
        "malloc_usable_size",
        "use(malloc(64)); malloc_usable_size(kept); free(kept)",
    ),
];

/// Loops of which all instructions in the library count, slow paths too: name, blocks, code.
const LOOPS: [(&str, u64, &str); 5] = [
    (
        "1,000 x 64 B, last in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(64); for (int k = 999; k >= 0; k--) free(many[k])",
    ),
    (
        "1,000 x 64 B, first in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(64); for (int k = 0; k < 1000; k++) free(many[k])",
    ),
    (
        "1,000 x 1 KiB, last in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(1024); for (int k = 999; k >= 0; k--) free(many[k])",
    ),
    (
        "20,000 x 64 B, shuffled",
        20_000,
        "for (int k = 0; k < 20000; k++) many[k] = malloc(64); for (int k = 0; k < 20000; k++) free(many[k * 7919L % 20000])",
    ),
    (
        "20,000 x 16 B to 4 KiB, shuffled",
        20_000,
        "for (int k = 0; k < 20000; k++) many[k] = malloc(16 + k * 7919L % 4080); for (int k = 0; k < 20000; k++) free(many[k * 7919L % 20000])",
    ),
];

/// The kinds that are counted, in the order of the table.
const KINDS: [&str; 10] = [
    "load", "store", "rmw", "lea", "alu", "cmp", "jcc", "jmp", "call", "stack",
];

/// Kind of an instruction in objdump's Intel syntax.
fn kind(text: &str) -> &'static str {
    let (name, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let first = operands.split(',').next().unwrap_or("");
    let in_memory = |operand: &str| operand.contains('[');
    match name {
        "call" => "call",
        "jmp" | "ret" => "jmp",
        "push" | "pop" => "stack",
        "lea" => "lea",
        "cmp" | "test" => "cmp",
        _ if name.starts_with('j') => "jcc",
        _ if name.contains("mov") && in_memory(first) => "store",
        _ if name.contains("mov") && in_memory(operands) => "load",
        _ if in_memory(first) => "rmw",
        // A calculation with an operand in memory is counted as the load that it is.
        _ if in_memory(operands) => "load",
        _ => "alu",
    }
}

fn source() -> String {
    let mut text = String::from(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n\
         #include <stdlib.h>\n#include <malloc.h>\n#include <valgrind/callgrind.h>\n\
         void free_sized(void *, size_t);\nvoid *_Znwm(size_t);\nvoid _ZdlPv(void *);\n\
         void _ZdlPvm(void *, size_t);\nvoid *_ZnwmRKSt9nothrow_t(size_t, const void *);\n\
         static void *volatile kept;\nstatic void *many[20000];\n#define use(x) (kept = (x))\n\
         int main(void) {\n",
    );
    for (_, _, code) in PATHS {
        let _ = writeln!(
            text,
            "  for (int i = 0; i < 100; i++) {{ {code}; }}\n  CALLGRIND_ZERO_STATS;\n  \
             for (int i = 0; i < {ROUNDS}; i++) {{ {code}; }}\n  CALLGRIND_DUMP_STATS;"
        );
    }
    for (_, _, code) in LOOPS {
        let _ = writeln!(
            text,
            "  for (int i = 0; i < 5; i++) {{ {code}; }}\n  CALLGRIND_ZERO_STATS;\n  \
             for (int i = 0; i < 10; i++) {{ {code}; }}\n  CALLGRIND_DUMP_STATS;"
        );
    }
    text.push_str(
        "  Dl_info library;\n  if (!dladdr((void *)malloc, &library)) return 1;\n  \
         printf(\"%p\\n\", library.dli_fbase);\n  return 0;\n}\n",
    );
    text
}

/// How often each instruction of the library ran, by its address in the library's file.
type Executed = BTreeMap<u64, u64>;

/// What a dump says of the library that was loaded at `base`.
fn executed(dump: &Path, base: u64) -> Executed {
    let text = std::fs::read_to_string(dump)
        .unwrap_or_else(|error| panic!("{} is no dump of callgrind: {error}", dump.display()));
    let name = library()
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a plain name");
    let mut found = Executed::new();
    let (mut ours, mut of_call) = (false, false);
    let mut bias = 0;
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            // Valgrind takes only `.text` for the library's; addresses of other sections are the process's.
            let unknown = object == "???";
            ours = unknown || object.ends_with(name);
            bias = if unknown { base } else { 0 };
        } else if line.starts_with("calls=") {
            // The next line is the cost of the whole call.
            of_call = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            let mut fields = rest.split_whitespace();
            let address = fields
                .next()
                .and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let count = fields.nth(1).and_then(|count| count.parse::<u64>().ok());
            if let (Some(address), Some(count)) = (address, count)
                && ours
                && !of_call
            {
                *found.entry(address.wrapping_sub(bias)).or_default() += count;
            }
            of_call = false;
        }
    }
    found
}

struct Code {
    function: String,
    text: String,
}

/// Addresses of the exported functions.
fn exports() -> BTreeMap<String, u64> {
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library())
        .output()
        .expect("nm runs (package binutils)");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            let name = rest.split_once(' ')?.1;
            Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?))
        })
        .collect()
}

/// The library's instructions by address.
fn disassembly() -> BTreeMap<u64, Code> {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn", "-M", "intel"])
        .arg(library())
        .output()
        .expect("objdump runs (package binutils)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut function = String::new();
    let mut code = BTreeMap::new();
    for line in text.lines() {
        if let Some(symbol) = line
            .strip_suffix(">:")
            .and_then(|line| line.split_once('<'))
        {
            function = symbol.1.to_owned();
        } else if let Some((address, text)) = line.split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            code.insert(
                address,
                Code {
                    function: function.clone(),
                    text: text.trim().to_owned(),
                },
            );
        }
    }
    code
}

/// Runs the loops under callgrind; one dump a loop, and where the library was.
fn dumps() -> (Vec<PathBuf>, u64) {
    let program = compile("fast_path.c", &source());
    let folder = scratch().join("fast_path");
    // Dumps of an earlier run would be taken for this one's.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let out = folder.join("dump");
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--dump-instr=yes",
            "--compress-pos=no",
            "--compress-strings=no",
            "--soname-synonyms=somalloc=nouserintercepts",
        ])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .env("LD_PRELOAD", library())
        // Nothing that depends on the clock.
        .env("SPANALLOC_CONF", "decay_ms=-1,helper=0")
        .output()
        .expect("valgrind runs (package valgrind)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let base = said.trim().strip_prefix("0x");
    let base = base.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let dumps = (1..=PATHS.len() + LOOPS.len())
        .map(|number| folder.join(format!("dump.{number}")))
        .collect();
    (dumps, base.expect("the program says where the library is"))
}

fn measured_table() -> (String, BTreeMap<&'static str, usize>) {
    let code = disassembly();
    let exports = exports();
    // Functions with the same code are one, under one of their names.
    let name_at = |name: &str| code[&exports[name]].function.as_str();
    let entries: Vec<&str> = exports.keys().map(|name| name_at(name)).collect();
    let (dumps, base) = dumps();
    let mut totals = BTreeMap::new();
    let mut table = format!("{:22}{:>6}", "fast path of", "all");
    for kind in KINDS {
        let _ = write!(table, "{kind:>6}");
    }
    table.push('\n');
    for ((name, entry, _), dump) in PATHS.iter().zip(&dumps) {
        let executed = executed(dump, base);
        let entry = name_at(entry);
        let hot: Vec<&Code> = executed
            .iter()
            .filter(|&(_, &count)| count * 20 >= ROUNDS * 19)
            .filter_map(|(address, _)| code.get(address))
            // The loop's other entry points are not this one's doing.
            .filter(|code| code.function == entry || !entries.contains(&&*code.function))
            .filter(|code| !code.function.ends_with("@plt"))
            .collect();
        assert!(!hot.is_empty(), "{name}: callgrind saw nothing of {entry}");
        let locked = hot.iter().find(|code| {
            code.text.starts_with("lock")
                || code.text.starts_with("xchg")
                || code.text.starts_with("call")
        });
        assert!(
            locked.is_none(),
            "{name}: a lock or a call in the fast path: {}",
            locked.map_or("", |code| &code.text)
        );
        let mut counts = BTreeMap::<_, usize>::new();
        for instruction in &hot {
            *counts.entry(kind(&instruction.text)).or_default() += 1;
        }
        let _ = write!(table, "{name:22}{:>6}", hot.len());
        for kind in KINDS {
            let _ = write!(table, "{:>6}", counts.get(kind).copied().unwrap_or(0));
        }
        table.push('\n');
        totals.insert(*name, hot.len());
    }
    let _ = write!(
        table,
        "\n{:36}{:>10}\n",
        "all instructions per block", "malloc+free"
    );
    for ((name, blocks, _), dump) in LOOPS.iter().zip(&dumps[PATHS.len()..]) {
        let all: u64 = executed(dump, base).values().sum();
        let _ = writeln!(
            table,
            "{name:36}{:>10.0}",
            all as f64 / (10 * blocks) as f64
        );
    }
    (table, totals)
}

fn last_number(line: &str) -> Option<f64> {
    line.split_whitespace().last()?.parse().ok()
}

fn compiler() -> String {
    let output = Command::new("rustc")
        .arg("-V")
        .output()
        .expect("rustc runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn fast_paths_execute_what_the_table_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fast_path.txt");
    let (table, totals) = measured_table();
    assert!(totals["malloc 64"] <= 16, "malloc has grown:\n{table}");
    assert!(totals["free 64"] <= 20, "free has grown:\n{table}");
    let now = format!("{}\n\n{table}", compiler());
    if std::env::var_os("UPDATE_FAST_PATH").is_some() {
        std::fs::write(&golden, &now).expect("the table is writable");
    }
    let stored = std::fs::read_to_string(&golden).expect("the table is checked in");
    if stored.lines().next() == now.lines().next() {
        let hint = "differs from tests/fast_path.txt; on purpose? UPDATE_FAST_PATH=1";
        assert_eq!(
            stored.lines().count(),
            now.lines().count(),
            "the table {hint}"
        );
        for (stored, now) in stored.lines().zip(now.lines()) {
            let close = match (last_number(stored), last_number(now)) {
                // Loops run slow paths too, where an instruction more is no event.
                (Some(old), Some(new)) if LOOPS.iter().any(|of| now.starts_with(of.0)) => {
                    (old - new).abs() <= old * 0.05
                }
                _ => stored == now,
            };
            assert!(close, "{hint}:\nstored {stored}\nnow    {now}");
        }
    } else {
        // Another compiler generates other code: only the bounds above hold for all of them.
        eprintln!("tests/fast_path.txt was made by another compiler:\n{stored}\nnow:\n{now}");
    }
}

#[test]
fn instructions_are_told_apart() {
    for (text, expected) in [
        ("mov    rax,QWORD PTR [rip+0x10]", "load"),
        ("movzx  edx,BYTE PTR [rax+rdx*1]", "load"),
        ("mov    QWORD PTR [rcx],rdx", "store"),
        ("inc    DWORD PTR [rcx+0x8]", "rmw"),
        ("sub    rax,QWORD PTR [rip+0x10]", "load"),
        ("cmp    rdi,0x401", "cmp"),
        ("jae    51cc <malloc+0x1c>", "jcc"),
        ("jmp    8f20 <slow>", "jmp"),
        ("ret", "jmp"),
        ("shr    rdx,cl", "alu"),
        ("push   rbx", "stack"),
        ("lea    rax,[rip+0x1]", "lea"),
    ] {
        assert_eq!(kind(text), expected, "{text}");
    }
}
