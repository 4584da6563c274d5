//! A system that refuses: every k-th call of a kind fails, address space or a control group's memory is short. The
//! program gets null and `ENOMEM`, loses nothing that it has, and goes on when there is memory again.

mod common;

use common::{compile, installed, library, passes, preloaded};
use std::path::PathBuf;
use std::process::Command;

const HEAD: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
"#;

/// Rounds of everything that asks the system for something, with all contents checked: blocks of all sizes, growth in
/// place and by moving, zeroed and aligned blocks, frees and trims, in two threads. It prints how often it got null.
const ROUNDS: &str = r#"
static int nulls;
static void *got(void *block) { if (!block) { CHECK(errno == ENOMEM); __atomic_add_fetch(&nulls, 1, __ATOMIC_RELAXED); } errno = 0; return block; }
#define N 600
static void *rounds(void *seed) {
    static char *blocks[3][N]; static size_t lengths[3][N];
    /* The tracer counts each thread's calls from its start, and those of the loader shall not fail: FIRST is more. */
    for (int i = 0; i < FIRST; i++) mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned r = (uintptr_t)seed; char **at = blocks[r]; size_t *length = lengths[r];
    for (int step = 0; step < 2500; step++) {
        r = r * 1664525 + 1013904223; int n = (r >> 8) % N; unsigned what = r >> 24;
        size_t size = what % 16 < 2 ? (r >> 5) % (3 << 20) : what % 16 < 5 ? (r >> 5) % 200000 : (r >> 5) % 3000; size++;
        char *old = at[n];
        if (old) for (size_t k = 0; k < length[n]; k += k + 97 < length[n] ? 97 : 1) CHECK(old[k] == (char)n);
        if (old && what & 1) {
            char *moved = got(realloc(old, size));
            if (moved) { for (size_t k = 0; k < size && k < length[n]; k += 97) CHECK(moved[k] == (char)n); memset(moved, n, size); at[n] = moved; length[n] = size; }
            continue;
        }
        free(old); at[n] = NULL;
        char *block;
        if (what & 2) { block = got(calloc(1, size)); if (block) for (size_t k = 0; k < size; k++) CHECK(!block[k]); }
        else if (what & 4) { block = got(aligned_alloc(1 << (what >> 4), size)); CHECK((uintptr_t)block % (1 << (what >> 4)) == 0); }
        else block = got(malloc(size));
        if (block) { memset(block, n, size); at[n] = block; length[n] = size; }
        if (step % 500 == 0) malloc_trim(0);
    }
    for (int n = 0; n < N; n++) { if (at[n]) for (size_t k = 0; k < length[n]; k++) CHECK(at[n][k] == (char)n); free(at[n]); }
    return NULL;
}
int main(void) {
    free(malloc(1));
    pthread_t t;
    if (pthread_create(&t, NULL, rounds, (void *)2)) t = 0;
    rounds((void *)1);
    if (t) pthread_join(t, NULL);
    struct mallinfo2 m = mallinfo2();
    CHECK(m.uordblks < 1 << 20);
    char line[20]; CHECK(write(1, line, sprintf(line, "%d\n", nulls)) > 0);
    return 0;
}
"#;

/// Calls of each thread that do not fail yet.
const FIRST: u32 = 60;

/// Runs the rounds with every `step`-th call of `call` refused; how often malloc gave null, and how
/// many calls were refused.
fn injected(program: &PathBuf, call: &str, step: u32) -> (u32, usize) {
    let mut strace = Command::new("strace");
    strace.args(["--seccomp-bpf", "-f", "-qq", "-e", "signal=none"]);
    strace.arg("-e").arg(format!("trace={call}"));
    let first = if call == "mmap" { FIRST } else { 1 };
    let inject = format!("inject={call}:error=ENOMEM:when={first}+{step}");
    strace.arg("-e").arg(inject);
    strace.arg(format!("--env=LD_PRELOAD={}", library().display()));
    // Frequent windows, so that madvise has something to do.
    strace.arg("--env=SPANALLOC_CONF=decay_ms=1");
    let output = passes(strace.arg(program));
    let refused = String::from_utf8_lossy(&output.stderr)
        .matches("(INJECTED)")
        .count();
    let nulls = String::from_utf8_lossy(&output.stdout).trim().parse();
    (nulls.expect("the program prints a number"), refused)
}

#[test]
fn every_kth_call_that_fails_is_survived_with_nothing_lost() {
    assert!(installed("strace"), "install strace");
    let program = compile(
        "rounds.c",
        &format!("#define FIRST {FIRST}\n{HEAD}{ROUNDS}"),
    );
    for call in ["mmap", "mremap", "madvise", "clone,clone3"] {
        let mut refused = 0;
        let mut nulls = 0;
        let steps = if call == "mmap" {
            &[1, 3, 7][..]
        } else {
            &[1, 4]
        };
        for &step in steps {
            let found = injected(&program, call, step);
            nulls += found.0;
            refused += found.1;
        }
        eprintln!("{call}: {refused} refused, {nulls} nulls");
        match call {
            "mmap" => assert!(refused > 20 && nulls > 0, "{refused} {nulls}"),
            // Moving by copying, memory kept, no helper: none of these is the program's business.
            "mremap" | "madvise" => {
                assert!(refused > 5 && nulls == 0, "{call}: {refused} {nulls}")
            }
            _ => assert!(refused > 0 && nulls == 0, "{call}: {refused} {nulls}"),
        }
    }
}

/// Fills address space of several sizes up to its end, three times.
const ADDRESS_SPACE: &str = r#"
static void *blocks[200000];
int main(void) {
    for (long mib = 32; mib <= MOST; mib += mib / 2) {
        pid_t child = fork();
        if (!child) {
            struct rlimit limit = {mib << 20, mib << 20}; CHECK(!setrlimit(RLIMIT_AS, &limit));
            size_t first = 0;
            /* Three times: what was freed can be had again, in other sizes too. */
            for (int round = 0; round < 3; round++) {
                int n = 0; size_t total = 0;
                for (;; n++) {
                    CHECK(n < 200000);
                    size_t size = round == 1 ? 70000 : n % 60 == 0 ? 400000 : n % 6000 + 1;
                    errno = 0; blocks[n] = malloc(size);
                    if (!blocks[n]) { CHECK(errno == ENOMEM); break; }
                    memset(blocks[n], 1, 8); total += size;
                }
                if (!round) { first = total; CHECK(total > ((size_t)mib << 20) / 3); }
                CHECK(total >= first / 2);
                /* At the end of memory: resizes and trims keep what there is. */
                char *keep = blocks[n - 1]; memcpy(keep, "kept", 1);
                CHECK(!realloc(keep, 1ul << 30) && errno == ENOMEM && *keep == 'k');
                CHECK(!calloc(1 << 20, 1 << 10) && !aligned_alloc(1 << 21, 1ul << 30));
                while (n--) free(blocks[n]);
                malloc_trim(0);
            }
            _exit(0);
        }
        int status; CHECK(waitpid(child, &status, 0) == child); if (status) fprintf(stderr, "%ld MiB: status %x\n", mib, status); CHECK(status == 0);
    }
    return 0;
}
"#;

#[test]
fn address_space_from_32_mib_up_is_used_and_its_end_survived() {
    let program = compile(
        "address_space.c",
        &format!("#define MOST 512\n{HEAD}{ADDRESS_SPACE}"),
    );
    passes(&mut preloaded(program));
}

/// The controls: what an allocator that takes a refusal wrongly would do ends that program.
#[test]
fn refusals_taken_wrongly_are_noticed() {
    let mistakes = [
        ("nothing", "(void)0", "free(block)"),
        ("errno is left alone", "errno = 0", "free(block)"),
        (
            "what was refused is used",
            "*(volatile char *)block = 1",
            "free(block)",
        ),
        (
            "memory is lost once something was refused",
            "refused = 1",
            "if (!refused) free(block)",
        ),
    ];
    for (mistake, on_null, free) in mistakes {
        let wrong = format!(
            "static int refused;\n\
             static void *taken(size_t size) {{ void *block = malloc(size); if (!block) {on_null}; return block; }}\n\
             static void given(void *block) {{ {free}; }}\n\
             #define malloc taken\n#define free given\n"
        );
        let program = compile(
            "taken_wrongly.c",
            &format!("#define MOST 32\n{HEAD}{wrong}{ADDRESS_SPACE}"),
        );
        let output = preloaded(program).output().expect("the program starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            mistake == "nothing",
            "{mistake}: {told}"
        );
    }
}

#[test]
fn short_blocks_use_what_is_mapped_beyond_a_limit_on_address_space() {
    let program = compile(
        "beyond_limit.c",
        &format!(
            "{HEAD}{}",
            r#"
static void *blocks[256];
int main(void) {
    for (int i = 0; i < 256; i++) { CHECK(blocks[i] = malloc(1 << 20)); memset(blocks[i], 1, 8); }
    for (int i = 0; i < 256; i++) free(blocks[i]);
    struct rlimit limit = {32 << 20, 32 << 20}; CHECK(!setrlimit(RLIMIT_AS, &limit));
    for (size_t size = 40; size <= 4000; size *= 10) {
        size_t total = 0; char *last = NULL, *block;
        while (errno = 0, block = malloc(size)) {
            for (size_t i = 0; i < size; i++) block[i] = 0;
            memcpy(block, &last, sizeof last); last = block; total += size;
        }
        CHECK(errno == ENOMEM);
        if (total < 200 << 20) { fprintf(stderr, "%zu: %zu KiB\n", size, total >> 10); return 1; }
        while (last) { memcpy(&block, last, sizeof last); free(last); last = block; }
    }
    return 0;
}
"#
        ),
    );
    passes(&mut preloaded(program));
}

/// A control group with a memory limit; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// `None`: control groups cannot be made here.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("spanalloc-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Self(PathBuf::from(root).join(&name));
            if std::fs::create_dir(&group.0).is_err() {
                std::mem::forget(group);
                continue;
            }
            let swap = group.0.join("memory.swap.max");
            let _ = swap.exists().then(|| std::fs::write(swap, "0"));
            if std::fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// The program, to be run in the group.
    fn command(&self, program: &PathBuf) -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo $$ >\"$1/cgroup.procs\" && shift && exec env LD_PRELOAD=\"$1\" \"$2\"",
            "sh",
        ]);
        command.arg(&self.0).arg(library()).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A control group kills who takes more than its limit, so null has to come before: by `limit_hard`. And who stays
/// below by giving back must not be killed for memory that the allocator keeps.
#[test]
fn in_a_control_group_the_hard_limit_answers_first_and_memory_given_back_counts() {
    let Some(group) = Group::new(96 << 20) else {
        eprintln!("skipped: no control group with a memory limit can be made here");
        return;
    };
    let greedy = compile(
        "greedy.c",
        &format!(
            "{HEAD}int main(void) {{ for (int n = 0; n < 3000; n++) {{ char *p = malloc(100000); if (!p) {{ CHECK(errno == ENOMEM); puts(\"null\"); return 0; }} memset(p, 1, 100000); }} puts(\"all\"); return 0; }}"
        ),
    );
    // The control: without a limit of its own the program is killed.
    let killed = group.command(&greedy).output().expect("sh runs");
    assert!(
        !killed.status.success(),
        "the group's limit is not in force"
    );
    let refused = passes(
        group
            .command(&greedy)
            .env("SPANALLOC_CONF", "limit_hard=80m"),
    );
    assert_eq!(refused.stdout, b"null\n");
    let shifting = compile(
        "shifting.c",
        &format!(
            "{HEAD}{}",
            r#"
static char *blocks[4000000];
int main(void) {
    /* 56 MiB in use at a time, of another size each time: without giving back that would be 400 MiB. */
    for (int round = 0; round < 7; round++) {
        size_t size = 48 << round * 2; int n = (56 << 20) / size;
        for (int i = 0; i < n; i++) { blocks[i] = malloc(size); CHECK(blocks[i]); memset(blocks[i], round, size); }
        for (int i = 0; i < n; i++) { CHECK(blocks[i][size - 1] == round); free(blocks[i]); }
    }
    puts("done");
    return 0;
}
"#
        ),
    );
    assert_eq!(passes(&mut group.command(&shifting)).stdout, b"done\n");
}
