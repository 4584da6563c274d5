//! Mistakes of programs: each ends the process with a line that names it, by default at the call where
//! that costs nothing and otherwise when the thread's cache is next emptied, in checked and hardened mode
//! always at the call.

mod common;

use common::{compile, passes, preloaded};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

const HEAD: &str = r#"
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
void free_sized(void *, size_t);
void _ZdlPvm(void *, size_t);
void *spanalloc_malloc_data(size_t);
static char *p, *q, *many[3000];
static void *end_after_mistake(void *unused) {
    p = malloc(40); q = malloc(40); free(p); free(q); free(p);
    exit(0);
}
/* So that the thread's bins have room and nothing takes a slow path by chance. */
static void warm_up(size_t size) {
    alarm(20);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 500; i++) many[i] = malloc(size);
        for (int i = 0; i < 500; i++) free(many[i]);
    }
    for (int i = 0; i < 10; i++) malloc(size);
}
"#;

/// A mistake: name, the statements that make it, and what the line must contain.
struct Mistake {
    name: &'static str,
    body: &'static str,
    message: &'static str,
    /// By default, too, the call itself reports it.
    at_once: bool,
}

const fn mistake(
    name: &'static str,
    body: &'static str,
    message: &'static str,
    at_once: bool,
) -> Mistake {
    Mistake {
        name,
        body,
        message,
        at_once,
    }
}

const MISTAKES: &[Mistake] = &[
    mistake(
        "twice",
        "p = malloc(40); free(p); free(p);",
        "double free of 0x",
        true,
    ),
    mistake(
        "twice_with_others_between",
        "p = malloc(40); q = malloc(40); free(p); free(q); free(p);",
        "double free of 0x",
        false,
    ),
    mistake(
        "twice_much_later",
        "for (int i = 0; i < 3000; i++) many[i] = malloc(40); \
         for (int i = 0; i < 3000; i++) free(many[i]); free(many[7]);",
        "double free of 0x",
        false,
    ),
    mistake(
        "twice_large",
        "p = malloc(1 << 20); free(p); free(p);",
        "double free of 0x",
        true,
    ),
    mistake(
        "stack",
        "int local; free(&local);",
        "spanalloc did not return: 0x",
        true,
    ),
    mistake(
        "constant",
        "free((void *)0x123450);",
        "spanalloc did not return: 0x123450",
        true,
    ),
    mistake(
        "into_large",
        "p = malloc(1 << 20); free(p + 4096);",
        "0x",
        true,
    ),
    mistake(
        "into_small",
        "p = malloc(100); free(p + 16);",
        "middle of a block: 0x",
        false,
    ),
    mistake(
        "misaligned",
        "p = malloc(100); free(p + 3);",
        "misaligned pointer: 0x",
        true,
    ),
    mistake(
        "misaligned_realloc",
        "p = malloc(100); q = realloc(p + 1, 200);",
        "misaligned pointer: 0x",
        true,
    ),
    mistake(
        "wrong_sized_delete",
        "p = malloc(100); _ZdlPvm(p, 4000);",
        "another class than the block's: 0x",
        false,
    ),
];

fn run(mistake: &Mistake, after: &str, settings: &str) -> Output {
    let name = format!("{}{}.c", mistake.name, after.len());
    let body = format!(
        "{HEAD}int main(void) {{ warm_up(40); warm_up(100); {} {after} _exit(0); }}",
        mistake.body
    );
    preloaded(compile(&name, &body))
        .env("SPANALLOC_CONF", settings)
        .output()
        .expect("the program starts")
}

fn assert_reported(mistake: &Mistake, output: &Output, settings: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    let name = mistake.name;
    assert_eq!(
        output.status.signal(),
        Some(6),
        "{name} under '{settings}': {} {text}",
        output.status
    );
    assert!(
        text.starts_with("spanalloc: ") && text.contains(mistake.message),
        "{name} under '{settings}': {text}"
    );
    assert_eq!(text.lines().count(), 1, "{name} under '{settings}': {text}");
}

#[test]
fn by_default_every_mistake_is_reported_at_the_latest_when_the_cache_is_emptied() {
    for mistake in MISTAKES {
        let after = if mistake.at_once {
            ""
        } else {
            "malloc_trim(0);"
        };
        assert_reported(mistake, &run(mistake, after, ""), "");
    }
}

#[test]
fn by_default_every_mistake_is_reported_at_the_latest_when_the_process_ends() {
    for mistake in MISTAKES.iter().filter(|mistake| !mistake.at_once) {
        for settings in ["", "front_end=cpu"] {
            let mut expected = mistake.message;
            if settings == "front_end=cpu" && mistake.name == "wrong_sized_delete" {
                // A list of blocks that is counted by its class is checked as such.
                expected = "0x";
            }
            let mistake = Mistake {
                message: expected,
                ..*mistake
            };
            assert_reported(&mistake, &run(&mistake, "exit(0);", settings), settings);
        }
    }
    let of_data = mistake(
        "data_twice",
        "p = spanalloc_malloc_data(40); q = spanalloc_malloc_data(40); free(p); free(q); free(p);",
        "double free of 0x",
        false,
    );
    assert_reported(&of_data, &run(&of_data, "exit(0);", ""), "");
    let in_a_thread = mistake(
        "twice_in_a_thread",
        "pthread_t t; pthread_create(&t, NULL, end_after_mistake, NULL); pause();",
        "double free of 0x",
        false,
    );
    assert_reported(&in_a_thread, &run(&in_a_thread, "", ""), "");
}

/// As the document says: a block that is in a bin twice has two owners once it was handed out twice, and nobody knows before both have
/// freed it.
#[test]
fn by_default_a_block_freed_twice_may_have_two_owners_until_both_have_freed_it() {
    let twice = mistake(
        "two_owners",
        "p = malloc(40); q = malloc(40); free(p); free(q); free(p); \
         char *one = malloc(40), *other = (malloc(40), malloc(40)); if (one != other) return 1;",
        "double free of 0x",
        false,
    );
    let output = run(&twice, "exit(0);", "");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let freed = "free(one); free(other); exit(0);";
    assert_reported(&twice, &run(&twice, freed, ""), "");
}

/// A handler that ends the process has interrupted whatever it may; it is no place to look at bins half changed.
#[test]
fn a_handler_may_end_the_process_in_the_middle_of_a_slow_path() {
    let program = compile(
        "ended.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <signal.h>
#include <sys/time.h>
static void handler(int s) { exit(0); }
int main(void) {
    signal(SIGVTALRM, handler);
    struct itimerval soon = {{0, 0}, {0, 3000}}; setitimer(ITIMER_VIRTUAL, &soon, NULL);
    for (;;) { char *block[8]; for (int i = 0; i < 8; i++) block[i] = malloc(180000); for (int i = 0; i < 8; i++) free(block[i]); }
}
"#
        ),
    );
    for settings in ["", "front_end=cpu"] {
        // Most of the time is in slow paths.
        for _ in 0..20 {
            let output = passes(preloaded(&program).env("SPANALLOC_CONF", settings));
            assert!(output.stderr.is_empty(), "{settings}: {output:?}");
        }
    }
}

#[test]
fn checked_and_hardened_report_every_mistake_at_the_call() {
    for mistake in MISTAKES {
        for settings in ["check=1", "hardened=1", "hardened=1,guard_rate=1"] {
            // The pages of guarded blocks can tell less: what lies beside a block is nobody's.
            let mut expected = mistake.message;
            if settings.ends_with("guard_rate=1") && mistake.name.starts_with("misaligned") {
                expected = "0x";
            }
            let output = run(mistake, "", settings);
            let mistake = Mistake {
                message: expected,
                ..*mistake
            };
            assert_reported(&mistake, &output, settings);
        }
    }
}

#[test]
fn checked_mode_compares_the_size_given_to_free_sized() {
    let wrong = mistake(
        "free_sized",
        "p = malloc(100); free_sized(p, 4000);",
        "another class than the block's: 0x",
        true,
    );
    assert_reported(&wrong, &run(&wrong, "", "check=1"), "check=1");
    let large = mistake(
        "free_sized_large",
        "p = malloc(300000); free_sized(p, 600000);",
        "another class than the block's: 0x",
        true,
    );
    assert_reported(&large, &run(&large, "", "check=1"), "check=1");
    let right = mistake(
        "free_sized_right",
        "free_sized(malloc(100), 100); free_sized(realloc(malloc(1000), 600), 600); \
         free_sized(malloc(300000), 300000); free_sized(NULL, 5);",
        "",
        true,
    );
    for settings in ["", "check=1", "hardened=1", "hardened=1,guard_rate=1"] {
        let output = run(&right, "", settings);
        assert!(output.status.success(), "{settings}: {output:?}");
    }
}

#[test]
fn a_write_to_a_freed_block_is_found_when_it_leaves_the_quarantine() {
    let late = mistake(
        "write_after_free",
        "p = malloc(100); free(p); p[50] = 1; \
         for (int i = 0; i < 9000; i++) free(malloc(2000));",
        "write to a block after its free: 0x",
        true,
    );
    let settings = "hardened=1,guard_rate=0";
    assert_reported(&late, &run(&late, "", settings), settings);
    let output = run(&late, "", "");
    assert!(output.status.success(), "not found by default: {output:?}");
}

#[test]
fn guarded_blocks_fault_at_the_access_and_the_line_says_at_what() {
    for (name, body, message) in [
        (
            "behind",
            "p = malloc(96); ((volatile char *)p)[96] = 1;",
            " behind the block 0x",
        ),
        (
            "before",
            "p = malloc(8192); ((volatile char *)p)[-1] = 1;",
            " before the block 0x",
        ),
        (
            "after_free",
            "p = malloc(96); free(p); q = (char *)(intptr_t)((volatile char *)p)[5];",
            " to a block after its free: 0x",
        ),
    ] {
        let access = mistake(name, body, message, true);
        let output = run(&access, "", "hardened=1,guard_rate=1");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(11), "{name}: {text}");
        assert!(
            text.starts_with("spanalloc: access at 0x") && text.contains(message),
            "{name}: {text}"
        );
    }
}

#[test]
fn correct_programs_run_as_ever_in_every_mode() {
    let program = compile(
        "correct.cpp",
        r#"
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>
extern "C" void *aligned_alloc(size_t, size_t);
int main() {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([t] {
            std::map<int, std::string> m;
            for (int i = 0; i < 4000; i++) { m[i * 7919 % 500] += std::string(i % 300, 'a' + t); if (i % 5 == 0) m.erase(i % 500); }
            std::vector<std::unique_ptr<std::vector<long>>> v;
            for (int i = 0; i < 300; i++) { v.push_back(std::make_unique<std::vector<long>>(i * 5)); if (i % 3 == 0) v.erase(v.begin() + i / 4); }
            char *p = (char *)malloc(10);
            for (int i = 1; i < 2000; i++) { p = (char *)realloc(p, i * 37 % 9000 + 1); p[i * 37 % 9000] = i; }
            free(p);
            for (size_t a = 16; a <= 65536; a *= 2) { char *q = (char *)aligned_alloc(a, a * 2); if ((size_t)q % a) abort(); q[a * 2 - 1] = 1; free(q); }
            char *z = (char *)calloc(1, 5000); for (int i = 0; i < 5000; i++) if (z[i]) abort(); free(z);
        });
    for (auto &t : threads) t.join();
    puts("ok");
}
"#,
    );
    for settings in [
        "",
        "check=1",
        "hardened=1",
        "hardened=1,guard_rate=3,quarantine_bytes=100k",
    ] {
        let output = passes(preloaded(&program).env("SPANALLOC_CONF", settings));
        assert_eq!(output.stdout, b"ok\n", "{settings}");
        assert!(output.stderr.is_empty(), "{settings}: {output:?}");
    }
}

/// A handler that interrupts a slow path of its own thread and takes one itself would meet bins half changed or wait
/// for ever for a lock that its thread holds. The line says what it is, and what allows it.
#[test]
fn a_handler_that_interrupts_a_slow_path_is_reported() {
    let program = compile(
        "interrupted.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <signal.h>
#include <sys/time.h>
/* Blocks of classes of their own, so large that nearly every call takes a slow path. */
static void handler(int s) { char *block[4]; for (int i = 0; i < 4; i++) block[i] = malloc(250000); for (int i = 0; i < 4; i++) free(block[i]); }
int main(int argc, char **argv) {
    signal(SIGVTALRM, handler);
    struct itimerval often = {{0, 200}, {0, 200}}; setitimer(ITIMER_VIRTUAL, &often, NULL);
    long rounds = argc > 1 ? atol(argv[1]) : 5000000;
    for (long n = 0; n < rounds; n++) { char *block[8]; for (int i = 0; i < 8; i++) block[i] = malloc(180000); for (int i = 0; i < 8; i++) free(block[i]); }
    return 0;
}
"#
        ),
    );
    let output = preloaded(&program).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{text}");
    assert!(
        text.contains("signal handler that interrupted another (front_end=cpu allows it)"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");
    passes(
        preloaded(&program)
            .arg("20000")
            .env("SPANALLOC_CONF", "front_end=cpu"),
    );
}

/// Every other slow path is marked, too: a handler that comes in between and takes one itself would wait for a lock of its own
/// thread for ever. With caches of CPUs all of it is allowed, and with `check` and `hardened` it is a mistake as well.
#[test]
fn a_handler_that_interrupts_any_slow_path_is_reported() {
    let program = compile(
        "interrupted_any.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <signal.h>
#include <sys/time.h>
#include "spanalloc.h"
static void *volatile kept;
static int visit(const struct spanalloc_region *r, void *x) { return 0; }
/* Each its own: what a handler has freed the interrupted one must not free again. */
static void large(void) { void *volatile block = malloc(1 << 20); free(block); }
static void grow(void) { char *block = malloc(300 << 10); for (int i = 4; i < 16; i++) block = realloc(block, i * 100 << 10); free(block); }
static void zeroed(void) { void *volatile block = calloc(1, 1 << 20); free(block); }
static void data(void) { void *block[9]; for (int i = 0; i < 9; i++) block[i] = spanalloc_malloc_data(30000 * (i + 1)); for (int i = 0; i < 9; i++) free(block[i]); }
static void statistics(void) { kept = (void *)mallinfo2().arena; }
static void walk(void) { spanalloc_walk(visit, NULL); }
static void small(void) { void *block[9]; for (int i = 0; i < 9; i++) block[i] = malloc(100); for (int i = 0; i < 9; i++) free(block[i]); }
static void trim(void) { small(); malloc_trim(0); }
static const struct { const char *name; void (*work)(void); } works[] = {{"large", large}, {"grow", grow}, {"zeroed", zeroed},
    {"data", data}, {"statistics", statistics}, {"walk", walk}, {"trim", trim}, {"small", small}};
static void (*work)(void);
static void handler(int s) { work(); large(); small(); }
int main(int argc, char **argv) {
    alarm(20);
    for (int i = 0; i < 8; i++) if (!strcmp(works[i].name, argv[1])) work = works[i].work;
    /* Something to walk over, count and give back. */
    for (int i = 0; i < 3000; i++) many[i] = malloc(i % 2 ? 3000 : 100);
    for (int i = 0; i < 3000; i += 3) free(many[i]);
    signal(SIGVTALRM, handler);
    struct itimerval often = {{0, 200}, {0, 200}}; setitimer(ITIMER_VIRTUAL, &often, NULL);
    for (long n = atol(argv[2]); n > 0; n--) work();
    return 0;
}
"#
        ),
    );
    let all = [
        "large",
        "grow",
        "zeroed",
        "data",
        "statistics",
        "walk",
        "trim",
    ];
    let by_default = all.map(|work| (work, "decay_ms=1000"));
    let checked = [("small", "check=1"), ("small", "hardened=1,guard_rate=100")];
    for (work, settings) in by_default.into_iter().chain(checked) {
        let output = preloaded(&program)
            .args([work, "1000000000"])
            .env("SPANALLOC_CONF", settings)
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.signal(),
            Some(6),
            "{work}, {settings}: {text}"
        );
        assert!(
            text.contains(
                "signal handler that interrupted another (front_end=cpu allows it), in thread "
            ),
            "{work}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{work}: {text}");
    }
    for work in all {
        passes(
            preloaded(&program)
                .args([work, "3000"])
                .env("SPANALLOC_CONF", "front_end=cpu"),
        );
    }
}

/// Crash reporters allocate in a handler of SIGABRT: after a fault found on a slow path they can, and one that meets the very path
/// that was interrupted ends the process instead of itself for ever.
#[test]
fn a_handler_of_the_end_may_allocate_and_cannot_go_round() {
    let program = compile(
        "reporter.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <signal.h>
#include <sys/time.h>
static void *blocks[3000];
static void fill(size_t size) { for (int i = 0; i < 3000; i++) blocks[i] = malloc(size); for (int i = 0; i < 3000; i++) free(blocks[i]); }
static void reporter(int s) { fill(300); fill(5000); write(1, "reported\n", 9); }
static void often(int s) { fill(100); }
int main(int argc, char **argv) {
    signal(SIGABRT, reporter);
    if (argc > 1) {
        signal(SIGVTALRM, often);
        struct itimerval soon = {{0, 200}, {0, 200}}; setitimer(ITIMER_VIRTUAL, &soon, NULL);
        for (;;) fill(100);
    }
    char *block = malloc(100);
    /* Until the bin is full, so that one of these frees takes the slow path. */
    for (int i = 0; i < 3000; i++) free(block + 8 + 8 * (i % 4));
    return 0;
}
"#
        ),
    );
    let output = preloaded(&program).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{text}");
    assert_eq!(output.stdout, b"reported\n", "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let output = preloaded(&program)
        .arg("interrupted")
        .output()
        .expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "{text}");
    assert!(text.lines().count() <= 2, "{text}");
}
