//! `trace anonymise` on recordings of real programs: nothing that the recorder wrote down of them is left in any chunk.
//! Addresses are there only where somebody asks for them.

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use support::{heaplab, run};

/// Kinds of chunks that tell of the program in words: HEADER to NOTE, PROCESS, MODULES, SYMBOLS, INDEX.
const JSON: [u16; 6] = [1, 2, 7, 35, 49, 52];
const TEXT: [u16; 3] = [3, 4, 5];
/// Values that say nothing of a program: allocators, page settings, how processes begin, ourselves.
const PUBLIC: [&str; 5] = ["system", "madvise", "always", "heaplab", "sampled"];

/// Kind, meta and body of each chunk, decompressed; every byte up to the trailer is a chunk's.
fn chunks(path: &Path) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let mut found = Vec::new();
    let mut at = 16;
    while bytes[at..].starts_with(b"HLck") {
        let word = |from: usize| {
            let four = bytes[at + from..at + from + 4].try_into().unwrap();
            u32::from_le_bytes(four) as usize
        };
        let (kind, flags) = (word(4) as u16, word(4) >> 16);
        let body_at = at + 32 + word(8);
        let end = body_at + word(12);
        let meta = bytes[at + 32..body_at].to_vec();
        let body = match flags & 1 {
            0 => bytes[body_at..end].to_vec(),
            _ => zstd::bulk::decompress(&bytes[body_at..end], word(16)).unwrap(),
        };
        found.push((kind, meta, body));
        at = end;
    }
    assert_eq!(bytes.len() - at, 16);
    found
}

/// Words of six letters and more: of text, and of the values of JSON.
fn words(chunks: &[(u16, Vec<u8>, Vec<u8>)]) -> BTreeSet<String> {
    fn values(value: &Value, into: &mut String) {
        match value {
            Value::String(text) => {
                into.push_str(text);
                into.push('\n');
            }
            Value::Array(all) => all.iter().for_each(|one| values(one, into)),
            Value::Object(all) => all.values().for_each(|one| values(one, into)),
            _ => {}
        }
    }
    let mut text = String::new();
    for (kind, meta, body) in chunks {
        if TEXT.contains(kind) {
            text.push_str(&String::from_utf8_lossy(body));
            text.push('\n');
        } else if JSON.contains(kind) {
            for part in [meta, body] {
                if let Ok(value) = serde_json::from_slice(part) {
                    values(&value, &mut text);
                }
            }
        }
    }
    let part = |c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c));
    let all = text.split(part).filter(|word| word.len() >= 6);
    let all = all.filter(|word| word.parse::<f64>().is_err() && !PUBLIC.contains(word));
    all.map(String::from).collect()
}

/// The names of JSON's fields, which are the format's.
fn names(chunks: &[(u16, Vec<u8>, Vec<u8>)]) -> BTreeSet<String> {
    fn keys(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Array(all) => all.iter().for_each(|one| keys(one, into)),
            Value::Object(all) => {
                into.extend(all.keys().cloned());
                all.values().for_each(|one| keys(one, into));
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for (_, meta, body) in chunks.iter().filter(|(kind, ..)| JSON.contains(kind)) {
        for part in [meta, body] {
            if let Ok(value) = serde_json::from_slice(part) {
                keys(&value, &mut found);
            }
        }
    }
    found
}

fn holds(chunks: &[(u16, Vec<u8>, Vec<u8>)], text: &str) -> Option<u16> {
    let within = |bytes: &[u8]| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let found = chunks
        .iter()
        .find(|(_, meta, body)| within(meta) || within(body));
    found.map(|(kind, ..)| *kind)
}

/// Records a program, with all that a recording can hold; `secrets` must be in it, and nothing of it in the copy.
fn check(at: &Path, command: &[&str], secrets: &[&str]) {
    let (status, _, err) = run(heaplab(at)
        .args([
            "record",
            "--stacks",
            "full",
            "--embed-symbols",
            "--keep-addresses",
        ])
        .args(["-o", "told.hltrace", "--"])
        .args(command)
        .env("ENVIRON_NAME", "environ-value"));
    assert_eq!(status, 0, "{err}");
    let (status, _, err) =
        run(heaplab(at).args(["trace", "anonymise", "told.hltrace", "-o", "bare.hltrace"]));
    assert_eq!(status, 0, "{err}");
    let told = chunks(&at.join("told.hltrace"));
    let bare = chunks(&at.join("bare.hltrace"));
    for secret in secrets {
        assert!(holds(&told, secret).is_some(), "{secret} was never there");
        assert_eq!(holds(&bare, secret), None, "{secret}");
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let mut never = vec!["ENVIRON_NAME", "environ-value", "/proc/"];
    // Two or three letters stand somewhere in any packed numbers.
    never.extend(Some(host.trim()).filter(|name| name.len() >= 6));
    for text in never {
        assert_eq!(holds(&bare, text), None, "{text}");
    }
    let said = words(&told);
    assert!(said.len() > 25, "{said:?}");
    let fields = names(&bare);
    for word in said
        .iter()
        .filter(|word| !fields.iter().any(|name| name.contains(*word)))
    {
        assert_eq!(holds(&bare, word), None, "{word}");
    }
    let kinds: BTreeSet<u16> = bare.iter().map(|(kind, ..)| *kind).collect();
    // Header, processes, forks, segments, events, index, checkpoints.
    let known = BTreeSet::from([1, 7, 8, 33, 35, 36, 37]);
    assert!(kinds.is_subset(&known), "{kinds:?}");
    assert_eq!(
        run(heaplab(at).args(["trace", "verify", "bare.hltrace"])).0,
        0
    );
}

/// Addresses are in the trace where they are asked for, those that the program saw, and nowhere else.
#[test]
fn addresses_are_kept_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = "#include <stdio.h>\n#include <stdlib.h>\n\
        int main(void) {\n\
          for (int i = 0; i < 50; i++) {\n\
            void *block = malloc(3000 + i), *other = malloc(10);\n\
            printf(\"malloc,%d,%lu\\n\", 3000 + i, (unsigned long)block);\n\
            block = realloc(block, 9000 + i);\n\
            printf(\"realloc,%d,%lu\\n\", 9000 + i, (unsigned long)block);\n\
            if (i % 2) free(block);\n\
            (void)other;\n\
          }\n\
        }\n";
    std::fs::write(at.join("told.c"), source).unwrap();
    let built = Command::new("cc")
        .args(["-fno-builtin", "-o"])
        .args([at.join("told"), at.join("told.c")])
        .status()
        .unwrap();
    assert!(built.success());
    let (status, said, err) = run(heaplab(at).args([
        "record",
        "--keep-addresses",
        "-o",
        "kept.hltrace",
        "--",
        "./told",
    ]));
    assert_eq!(status, 0, "{err}");
    let (status, table, err) = run(heaplab(at).args(["trace", "export", "kept.hltrace"]));
    assert_eq!(status, 0, "{err}");
    assert_eq!(
        table.lines().next(),
        Some("event,time_ns,thread,call,block,size,alignment,address")
    );
    let kept: Vec<String> = (table.lines())
        .filter_map(|line| {
            let of: Vec<&str> = line.split(',').collect();
            let size: u32 = of.get(5)?.parse().ok()?;
            let told = of[3] != "free" && matches!(size, 3000..3050 | 9000..9050);
            told.then(|| format!("{},{size},{}", of[3], of[7]))
        })
        .collect();
    assert_eq!(kept, said.lines().collect::<Vec<_>>());
    assert_eq!(kept.len(), 100);

    run(heaplab(at).args(["record", "-o", "plain.hltrace", "--", "./told"]));
    run(heaplab(at).args(["trace", "anonymise", "kept.hltrace", "-o", "bare.hltrace"]));
    for name in ["plain.hltrace", "bare.hltrace"] {
        let (_, table, _) = run(heaplab(at).args(["trace", "export", name]));
        assert_eq!(
            table.lines().next(),
            Some("event,time_ns,thread,call,block,size,alignment"),
            "{name}"
        );
    }
}

#[test]
fn nothing_of_a_c_program_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = r#"#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
extern void heaplab_mark(const char *name) __attribute__((weak));
__attribute__((noinline)) static void *hidden_function(void *all) {
    pthread_setname_np(pthread_self(), "hidden-thread");
    for (int i = 0; i < 2000; i++) ((void **)all)[i] = malloc(i + 1);
    return all;
}
int main(void) {
    static void *all[2000];
    pthread_t thread;
    pthread_create(&thread, 0, hidden_function, all);
    pthread_join(thread, 0);
    if (heaplab_mark) heaplab_mark("hidden-mark");
    if (fork() == 0) { for (int i = 0; i < 2000; i++) free(all[i]); _exit(0); }
    wait(0);
    return 0;
}
"#;
    std::fs::write(at.join("hidden_file.c"), source).unwrap();
    let built = Command::new("cc")
        .args([
            "-g",
            "-O1",
            "-pthread",
            "-Wl,--build-id=0xdeadbeef5ca1ab1e",
            "-o",
        ])
        .args([at.join("hidden_program"), at.join("hidden_file.c")])
        .status()
        .unwrap();
    assert!(built.success());
    let secrets = [
        "hidden_program",
        "hidden-argument",
        "hidden-thread",
        "hidden-mark",
        "hidden_function",
        "hidden_file.c",
        "deadbeef5ca1ab1e",
        "libc.so.6",
    ];
    check(at, &["./hidden_program", "hidden-argument"], &secrets);
}

#[test]
fn nothing_of_a_python_program_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let source = "import threading, json\n\
                  t = threading.Thread(target=lambda: json.loads('[1, 2, 3]' * 1))\nt.start(); t.join()\n";
    std::fs::write(folder.path().join("hidden_script.py"), source).unwrap();
    let command = ["python3", "-I", "hidden_script.py", "hidden-argument"];
    check(
        folder.path(),
        &command,
        &["hidden_script.py", "hidden-argument", "python3"],
    );
}

#[test]
fn nothing_of_a_rust_program_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let source = r#"
#[inline(never)]
fn hidden_function(n: usize) -> Vec<u8> { vec![1; n] }
fn main() {
    let threads: Vec<_> = (0..4usize)
        .map(|i| {
            let name = format!("hidden-{i}");
            let run = move || (1..500).map(|n| hidden_function(n + i).len()).sum::<usize>();
            std::thread::Builder::new().name(name).spawn(run).unwrap()
        })
        .collect();
    let sum: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(sum > 0);
}
"#;
    std::fs::write(at.join("hidden_file.rs"), source).unwrap();
    let rustc = std::env::var("RUSTC").unwrap_or("rustc".into());
    let built = Command::new(rustc)
        .args(["-g", "--edition", "2021", "-o"])
        .args([at.join("hidden_program"), at.join("hidden_file.rs")])
        .status()
        .unwrap();
    assert!(built.success());
    let secrets = [
        "hidden_program",
        "hidden-3",
        "hidden_function",
        "hidden_file.rs",
    ];
    check(at, &["./hidden_program"], &secrets);
}
