//! Real programs run on the library with the output and exit status that they have without. More of them, and longer:
//! `ci/real-programs`.

mod common;

use common::{compile, installed, passes, preloaded, same, scratch};
use std::process::Command;

const PYTHON: &str = r"
import threading, json, hashlib, re, gc
results = []
def work(number):
    table = {}
    for k in range(1500):
        table[k] = json.dumps({'a': list(range(k % 50)), 'b': 'x' * (k % 3000)})
        if k % 3 == 0:
            table.pop(k // 2, None)
    text = ''.join(table[k] for k in sorted(table))
    results.append((number, hashlib.sha1(text.encode()).hexdigest(), len(re.findall('x+', text))))
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
gc.collect()
print(sorted(results))
";

#[test]
fn python_with_threads() {
    if installed("python3") {
        same("python3", &["-c", PYTHON]);
    }
}

#[test]
fn perl_hashes() {
    if installed("perl") {
        same(
            "perl",
            &[
                "-e",
                "my %h; for(1..100000){$h{$_%777}.=\"x\".$_} my $s=0; $s+=length($h{$_}) for keys %h; print \"$s\\n\"",
            ],
        );
    }
}

#[test]
fn sqlite_with_an_index() {
    if installed("sqlite3") {
        let sql = "create table t(a integer primary key, b text);\
            with recursive c(x) as (select 1 union all select x+1 from c where x<30000)\
            insert into t select x, hex(x*x) from c; create index i on t(b);\
            select count(*), sum(length(b)), max(b) from t where b like '%3%';";
        same("sqlite3", &[":memory:", sql]);
    }
}

#[test]
fn git_makes_a_repository_and_checks_it() {
    if !installed("git") {
        return;
    }
    let folder = scratch().join("git");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let git = |arguments: &[&str]| {
        passes(
            preloaded("git")
                .args(["-c", "user.name=x", "-c", "user.email=x@example.invalid"])
                .args(arguments)
                .env("HOME", &folder)
                .current_dir(&folder),
        )
    };
    git(&["init", "-q"]);
    for file in 0..50 {
        let text = format!("line {file}\n").repeat(file * 40 + 1);
        std::fs::write(folder.join(format!("{file}.txt")), text).expect("the folder is writable");
    }
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    git(&["gc", "-q"]);
    git(&["fsck", "--strict"]);
    assert_eq!(
        git(&["ls-files"])
            .stdout
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count(),
        50
    );
}

#[test]
fn the_compiler_makes_the_same_object() {
    let source = scratch().join("same.cpp");
    let text = "#include <map>\n#include <string>\n#include <vector>\n\
        std::map<std::string, std::vector<int>> m;\n\
        int f(int x) { m[std::to_string(x)].push_back(x); return (int)m.size(); }\n";
    std::fs::write(&source, text).expect("the target folder is writable");
    let mut objects = Vec::new();
    for (name, with) in [("plain", false), ("ours", true)] {
        let folder = scratch().join(name);
        std::fs::create_dir_all(&folder).expect("the target folder is writable");
        let mut command = if with {
            preloaded("g++")
        } else {
            Command::new("g++")
        };
        passes(
            command
                .args(["-O2", "-c"])
                .arg(&source)
                .args(["-o", "same.o"])
                .current_dir(&folder),
        );
        objects.push(std::fs::read(folder.join("same.o")).expect("the object exists"));
    }
    assert!(objects[0] == objects[1], "the object files differ");
}

#[test]
fn cxx_with_threads_and_alignment() {
    let program = compile(
        "threads.cpp",
        r#"
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>
#include <cstdio>
#include <cstdlib>
#include <cstdint>
struct alignas(128) Big { char c[300]; };
int main() {
    std::map<std::string, std::vector<int>> m;
    for (int i = 0; i < 50000; i++) m[std::to_string(i % 5000)].push_back(i);
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++)
        threads.emplace_back([] {
            for (int i = 0; i < 2000; i++) {
                auto p = std::make_unique<Big>();
                if ((uintptr_t)p.get() % 128) abort();
                std::unique_ptr<Big[]> array(new Big[3]);
                if ((uintptr_t)array.get() % 128) abort();
                std::string s(i, 'x');
                if (s.size() != (size_t)i) abort();
                char *n = new (std::nothrow) char[i + 1];
                if (!n) abort();
                delete[] n;
            }
        });
    for (auto &t : threads) t.join();
    if (new (std::nothrow) char[(size_t)1 << 60]) abort();
    printf("%zu %zu\n", m.size(), m["17"].size());
}
"#,
    );
    assert_eq!(passes(&mut preloaded(program)).stdout, b"5000 10\n");
}

#[test]
fn cxx_without_memory_calls_the_handler_and_throws() {
    let program = compile(
        "bad_alloc.cpp",
        r#"
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); abort(); } } while (0)
struct Guard { int &n; ~Guard() { n++; } };
static size_t huge = (size_t)1 << 60;
static int calls;
static void *volatile sink;
static void gives_up() { if (++calls == 3) std::set_new_handler(nullptr); }
static void throws() { calls++; throw std::bad_alloc(); }
static void throws_other() { throw 42; }
template <class F> static bool bad(F f) {
    int unwound = 0;
    try { Guard g{unwound}; f(); } catch (const std::bad_alloc &) { CHECK(unwound == 1); return true; }
    return false;
}
struct alignas(64) Wide { char c[64]; };
int main() {
    CHECK(bad([] { sink = ::operator new(huge); }));
    CHECK(bad([] { sink = ::operator new[](huge); }));
    CHECK(bad([] { sink = ::operator new(huge, std::align_val_t(64)); }));
    CHECK(bad([] { std::vector<long> v; v.reserve(huge / 16); }));
    CHECK(bad([] { sink = new Wide[huge / 128]; }));
    std::set_new_handler(gives_up);
    CHECK(bad([] { sink = ::operator new(huge); }) && calls == 3);
    calls = 0; std::set_new_handler(throws);
    CHECK(bad([] { sink = ::operator new(huge); }) && calls == 1);
    CHECK(::operator new(huge, std::nothrow) == nullptr && calls == 2);
    CHECK(::operator new(huge, std::align_val_t(64), std::nothrow) == nullptr && calls == 3);
    std::set_new_handler(throws_other);
    int caught = 0;
    try { sink = ::operator new(huge); } catch (int n) { caught = n; }
    CHECK(caught == 42);
    std::set_new_handler(nullptr);
    CHECK(::operator new(huge, std::nothrow) == nullptr);
    /* Deep in frames with destructors, a thousand times. */
    for (int i = 0; i < 1000; i++) CHECK(bad([] { std::vector<std::vector<int>> v(10); v[3].resize(huge / 8); }));
    puts("caught");
}
"#,
    );
    assert_eq!(passes(&mut preloaded(program)).stdout, b"caught\n");
}

#[test]
fn cxx_names_in_a_process_without_cxx_end_it_with_a_line() {
    let program = compile(
        "no_cxx.c",
        "#include <stddef.h>\nvoid *_Znwm(size_t); int main(void) { _Znwm((size_t)1 << 60); return 0; }",
    );
    let output = preloaded(program).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("out of memory: operator new"),
        "{text}"
    );
}
