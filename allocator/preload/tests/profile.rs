//! Heap profiles of C programs whose allocations are known: the estimates are right for every size, the
//! stacks lead to the functions that allocated, and what was freed is not live.

mod common;

use common::{compile, passes, preloaded, scratch};
use std::path::{Path, PathBuf};

/// One line of a profile.
#[derive(Debug)]
struct Line {
    live: [f64; 2],
    all: [f64; 2],
    addresses: Vec<u64>,
}

/// A profile as pprof reads it: counts and bytes divided by the chance of being sampled.
struct Profile {
    mean: f64,
    lines: Vec<Line>,
    maps: String,
}

fn counts(text: &str) -> [f64; 2] {
    let (blocks, bytes) = text.split_once(": ").expect("blocks: bytes");
    [blocks, bytes].map(|number| number.trim().parse().expect("a number"))
}

impl Profile {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the profile was written");
        let (samples, maps) = text
            .split_once("\n\nMAPPED_LIBRARIES:\n")
            .expect("the maps follow");
        let mut lines = samples.lines();
        let head = lines.next().expect("a first line");
        assert!(head.starts_with("heap profile: "), "{head}");
        let mean = head.split_once("@ heap_v2/").expect("the form").1;
        let lines = lines
            .map(|line| {
                let (numbers, addresses) = line.split_once("] @").expect("a stack");
                let (live, all) = numbers.split_once(" [").expect("two counts");
                let addresses = addresses
                    .split_whitespace()
                    .map(|address| u64::from_str_radix(&address[2..], 16).expect("an address"))
                    .collect();
                Line {
                    live: counts(live),
                    all: counts(all),
                    addresses,
                }
            })
            .collect();
        Self {
            mean: mean.parse().expect("a number"),
            lines,
            maps: maps.to_owned(),
        }
    }

    /// Estimated live and total bytes of the stacks that go through a function.
    fn bytes_of(&self, function: (u64, u64)) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for line in &self.lines {
            if !line
                .addresses
                .iter()
                .any(|at| (function.0..function.1).contains(at))
            {
                continue;
            }
            for (sum, [blocks, bytes]) in sums.iter_mut().zip([line.live, line.all]) {
                if blocks > 0.0 {
                    *sum += bytes / (1.0 - (-(bytes / blocks) / self.mean).exp());
                }
            }
        }
        sums
    }
}

/// `NAME START END` of each line of a program's output.
fn functions(output: &[u8]) -> std::collections::BTreeMap<String, (u64, u64)> {
    String::from_utf8_lossy(output)
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            Some((name, (number(words.next()?)?, number(words.next()?)?)))
        })
        .collect()
}

/// The address range of a function is found by the debugger's table, which the program has for itself.
const HEAD: &str = r#"
#define _GNU_SOURCE
#include "spanalloc.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
/* A function of its own section, whose start and end the linker knows. */
#define SITE(name) __attribute__((noinline, noclone, section("site_" #name))) 
#define TELL(name) do { extern char __start_site_##name[], __stop_site_##name[]; printf(#name " %p %p\n", (void *)__start_site_##name, (void *)__stop_site_##name); } while (0)
"#;

fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found / expected - 1.0).abs() < tolerance,
        "{what}: {found} bytes, expected {expected}"
    );
}

#[test]
fn estimates_are_right_for_all_sizes_and_stacks_lead_to_their_functions() {
    let source = r#"
static char **keep; static int kept;
SITE(small) void small(void) { for (int i = 0; i < 400000; i++) { char *p = malloc(40); CHECK(p); if (i % 4 == 0) keep[kept++] = p; else free(p); } }
SITE(middle) void middle(void) { for (int i = 0; i < 6000; i++) { char *p = calloc(3, 1000); CHECK(p); if (i % 2) keep[kept++] = p; else free(p); } }
SITE(large) void large(void) { for (int i = 0; i < 60; i++) { keep[kept++] = aligned_alloc(64, 400000); keep[kept++] = malloc(100000); } }
SITE(grown) void grown(void) { char *p = NULL; for (size_t n = 50000; n <= 8 << 20; n += 50000) CHECK(p = realloc(p, n)); keep[kept++] = p; }
SITE(pairs) void pairs(void) { for (int i = 0; i < 1000000; i++) free(malloc(32)); }
int main(int argc, char **argv) {
    keep = malloc(200000 * sizeof *keep);
    errno = 33; small(); middle(); large(); grown(); pairs(); CHECK(errno == 33);
    TELL(small); TELL(middle); TELL(large); TELL(grown); TELL(pairs);
    CHECK(!spanalloc_heap_profile(argv[1]));
    CHECK(spanalloc_heap_profile("/no/such/folder/x") == ENOENT && spanalloc_heap_profile(NULL) == EINVAL);
    fflush(stdout); _exit(0);
}
"#;
    let program = compile("profile.c", &format!("{HEAD}{source}"));
    let path = folder("profile").join("out.heap");
    // Some thousand samples of each: three standard errors are below the tolerances.
    let output = passes(
        preloaded(program)
            .arg(&path)
            .env("SPANALLOC_CONF", "profile_bytes=1k"),
    );
    let sites = functions(&output.stdout);
    let profile = Profile::read(&path);
    assert_eq!(profile.mean, 1024.0);
    for (name, live, all, tolerance) in [
        ("small", 100_000.0 * 40.0, 400_000.0 * 40.0, 0.06),
        ("middle", 3_000.0 * 3_000.0, 6_000.0 * 3_000.0, 0.06),
        ("large", 60.0 * 500_000.0, 60.0 * 500_000.0, 0.001),
        (
            "grown",
            167.0 * 50_000.0,
            50_000.0 * 167.0 * 168.0 / 2.0,
            0.01,
        ),
    ] {
        let found = profile.bytes_of(sites[name]);
        near(&format!("{name}, live"), found[0], live, tolerance);
        near(&format!("{name}, all"), found[1], all, tolerance);
    }
    let found = profile.bytes_of(sites["pairs"]);
    assert_eq!(found[0], 0.0, "freed blocks are not live");
    near("pairs, all", found[1], 32e6, 0.06);
    assert!(profile.maps.contains("profile_c") && profile.maps.contains("libc"));
    let parts = std::fs::read_dir(path.parent().expect("a folder"))
        .expect("the folder")
        .count();
    assert_eq!(parts, 1, "no part of a profile stays behind");
    // The outermost frames are those of the C library's start, so the walk came to the end.
    let whole = profile
        .lines
        .iter()
        .filter(|line| line.addresses.len() >= 4)
        .count();
    assert!(
        whole * 10 > profile.lines.len() * 9,
        "{:?}",
        profile.lines.first()
    );
}

#[test]
fn threads_are_reached_when_a_profile_starts_and_blocks_may_be_freed_by_others() {
    let source = r#"
static pthread_barrier_t step; static char *slots[4][5000];
SITE(before) char *before(void) { return malloc(100); }
SITE(during) char *during(void) { return malloc(100); }
SITE(after) char *after(void) { return malloc(100); }
static void *worker(void *number) {
    size_t me = (size_t)number; static char *old[4][5000];
    for (int i = 0; i < 5000; i++) old[me][i] = before();
    pthread_barrier_wait(&step); pthread_barrier_wait(&step); /* main starts the profile between */
    for (int i = 0; i < 5000; i++) { slots[me][i] = during(); free(old[me][i]); }
    pthread_barrier_wait(&step);
    for (int i = 0; i < 5000; i += 2) free(slots[(me + 1) % 4][i]);
    pthread_barrier_wait(&step); pthread_barrier_wait(&step); /* … writes it, stops */
    for (int i = 0; i < 5000; i++) free(after());
    return NULL;
}
int main(int argc, char **argv) {
    pthread_t t[4]; pthread_barrier_init(&step, NULL, 5);
    CHECK(spanalloc_heap_profile(argv[1]) == ENODATA);
    for (size_t i = 0; i < 4; i++) pthread_create(&t[i], NULL, worker, (void *)i);
    pthread_barrier_wait(&step); CHECK(!spanalloc_profile_start(100)); pthread_barrier_wait(&step);
    pthread_barrier_wait(&step); pthread_barrier_wait(&step);
    CHECK(!spanalloc_heap_profile(argv[1]));
    pid_t child = fork();
    if (!child) { CHECK(!spanalloc_heap_profile(argv[2])); free(during()); _exit(0); }
    int status; CHECK(waitpid(child, &status, 0) == child && !status);
    CHECK(!spanalloc_profile_start(0)); CHECK(spanalloc_heap_profile(argv[1]) == ENODATA);
    pthread_barrier_wait(&step);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    CHECK(!spanalloc_profile_start(1000)); for (int i = 0; i < 10000; i++) free(after());
    char json[65536]; spanalloc_stats_json(json, sizeof json);
    CHECK(strstr(json, "\"profile_live_samples\":0,") && strstr(json, "\"profile_bytes\":1000,") && strstr(json, "\"profile_dropped\":0,"));
    TELL(before); TELL(during); TELL(after); fflush(stdout); _exit(0);
}
"#;
    let program = compile("profile_threads.c", &format!("{HEAD}{source}"));
    let paths = ["one.heap", "child.heap"].map(|name| folder(name).join(name));
    let output = passes(preloaded(program).args(&paths));
    let sites = functions(&output.stdout);
    for path in &paths {
        let profile = Profile::read(path);
        let found = profile.bytes_of(sites["during"]);
        near("during, live", found[0], 1e6, 0.06);
        near("during, all", found[1], 2e6, 0.06);
        assert_eq!(profile.bytes_of(sites["before"]), [0.0; 2]);
        assert_eq!(profile.bytes_of(sites["after"]), [0.0; 2]);
    }
}

#[test]
fn files_at_exit_and_on_a_signal() {
    let source = r#"
SITE(leak) void leak(void) { for (int i = 0; i < 100; i++) CHECK(malloc(10000)); }
int main(void) {
    leak(); raise(SIGUSR1);
    char name[64]; sprintf(name, "spanalloc-%d.1.heap", getpid());
    for (int i = 0; access(name, R_OK) && i < 1000; i++) usleep(10000);
    CHECK(!access(name, R_OK));
    leak(); TELL(leak); printf("pid 0x%x 0x0\n", getpid());
    return 0;
}
"#;
    let program = compile("profile_files.c", &format!("{HEAD}{source}"));
    let here = folder("files");
    let output = passes(preloaded(program).current_dir(&here).env(
        "SPANALLOC_CONF",
        "profile_bytes=100,profile_at_exit=1,profile_signal=10",
    ));
    let sites = functions(&output.stdout);
    let pid = sites["pid"].0;
    for (name, bytes) in [
        (format!("spanalloc-{pid}.1.heap"), 1e6),
        (format!("spanalloc-{pid}.heap"), 2e6),
    ] {
        let profile = Profile::read(&here.join(name));
        near("leak", profile.bytes_of(sites["leak"])[0], bytes, 0.01);
    }
}

#[test]
fn without_caches_there_is_no_profile_and_a_line_says_so() {
    for setting in ["check=1", "hardened=1", "front_end=cpu"] {
        let output =
            passes(preloaded("true").env("SPANALLOC_CONF", format!("profile_bytes=1k,{setting}")));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("no profile, because it needs caches of threads"),
            "{setting}: {text}"
        );
    }
}
