//! Memory that goes back: from idle programs, from other threads' caches, and from heaps that only
//! pass blocks on.

mod common;

use common::{compile, passes, preloaded};

/// Opening of the programs: a check that fails, resident bytes, and fields of the statistics.
const HEAD: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "spanalloc.h"
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); report(); _exit(1); } } while (0)
static char json[65536];
static void report(void) { spanalloc_stats_json(json, sizeof json); fprintf(stderr, "%s\n", json); }
static long field(const char *name) {
    char key[64]; snprintf(key, sizeof key, "\"%s\":", name);
    spanalloc_stats_json(json, sizeof json);
    char *at = strstr(strstr(json, "\"heap_bytes\""), key); CHECK(at); /* behind the settings */
    return strtol(at + strlen(key), NULL, 10);
}
static long resident(void) {
    long pages = 0; FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%*s %ld", &pages) == 1); fclose(f); return pages * 4096;
}
static int tasks(void) {
    int n = 0; DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d); return n;
}
/* Waits until a condition holds, at most 20 s. */
#define SOON(c) do { int left = 2000; while (!(c) && left--) usleep(10000); CHECK(c); } while (0)
"#;

fn program(name: &str, body: &str, settings: &str) {
    let program = compile(name, &format!("{HEAD}{body}"));
    passes(preloaded(program).env("SPANALLOC_CONF", settings));
}

const IDLE: &str = r#"
#define N 60000
static char *blocks[N];
static long high; /* resident before the frees: on a busy machine much is back before the last of them */
static void scatter(void) {
    for (int i = 0; i < N; i++) { blocks[i] = malloc(1500); memset(blocks[i], i, 1500); }
    high = resident();
    for (int i = 0; i < N; i++) if (i % 20) { free(blocks[i]); blocks[i] = NULL; }
}
static void same(void) {
    for (int i = 0; i < N; i += 20) for (int k = 0; k < 1500; k++) CHECK(blocks[i][k] == (char)i);
}
"#;

#[test]
fn an_idle_program_gives_memory_back_and_its_helper_ends() {
    let text = IDLE.to_owned()
        + r#"
int main(void) {
    CHECK(tasks() == 1);
    long before = resident();
    scatter();
    CHECK(high - before > 80 << 20);
    CHECK(field("helper_starts") >= 1);
    pid_t child = fork();
    if (!child) {
        /* The question comes first: without a cache what closedir frees may be what starts another one. */
        CHECK(field("helper_running") == 0 && tasks() == 1);
        same();
        for (int i = 0; i < N; i += 20) free(blocks[i]);
        scatter();
        SOON(resident() - before < (high - before) / 3);
        CHECK(field("helper_starts") >= 1);
        _exit(0);
    }
    SOON(resident() - before < (high - before) / 3);
    SOON(tasks() == 1);
    CHECK(field("helper_running") == 0 && field("helper_starts") >= 1 && field("purged_bytes") > 40 << 20);
    CHECK(field("helper_released_bytes") > 0);
    /* Less than the helper has existed for; a call that gives memory back takes more than 100 ns. */
    CHECK(field("helper_run_ns") > 0 && field("helper_run_ns") < 20000000000);
    CHECK(field("release_ns") > 100 * field("releases") && field("release_ns") < 40000000000);
    same();
    int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int i = 0; i < N; i += 20) free(blocks[i]);
    return 0;
}
"#;
    for others in [
        "",
        ",front_end=cpu",
        ",check=1",
        ",hardened=1,quarantine_bytes=64k",
    ] {
        program("idle.c", &text, &format!("decay_ms=100{others}"));
    }
}

/// A signal sent to the process comes to any thread that has not blocked it, and the helper has no room for a handler and no thread-local
/// storage of its own.
#[test]
fn the_helper_blocks_all_signals() {
    program(
        "helper_signals.c",
        &(IDLE.to_owned()
            + r#"
int main(void) {
    scatter();
    /* It sleeps for a window, which is longer than this takes. */
    CHECK(field("helper_running") == 1 && tasks() == 2);
    DIR *d = opendir("/proc/self/task"); CHECK(d);
    for (struct dirent *e; (e = readdir(d));) {
        char line[300]; unsigned long blocked = 0;
        if (e->d_name[0] == '.') continue;
        snprintf(line, sizeof line, "/proc/self/task/%s/status", e->d_name);
        FILE *f = fopen(line, "r"); CHECK(f);
        while (fgets(line, sizeof line, f)) sscanf(line, "SigBlk: %lx", &blocked);
        fclose(f);
        /* All that can be: not SIGKILL and SIGSTOP. */
        CHECK(blocked == (atoi(e->d_name) == getpid() ? 0 : ~0ul & ~(1ul << 8) & ~(1ul << 18)));
    }
    closedir(d);
    return 0;
}
"#),
        "decay_ms=20000",
    );
}

/// What a child of `vfork` frees is the parent's memory; a helper that it started would end with the child.
#[test]
fn a_child_of_vfork_takes_no_helper_with_it() {
    program(
        "vfork_helper.c",
        &(IDLE.to_owned()
            + r#"
static char *large[64];
int main(void) {
    for (int i = 0; i < 64; i++) { CHECK(large[i] = malloc(1 << 20)); memset(large[i], 1, 1 << 20); }
    pid_t child = vfork();
    if (!child) { for (int i = 0; i < 64; i++) free(large[i]); _exit(0); }
    int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(field("helper_running") == 0 && field("helper_starts") == 0);
    free(malloc(1 << 20));
    SOON(field("helper_released_bytes") > 20 << 20);
    return 0;
}
"#),
        "decay_ms=100",
    );
}

#[test]
fn without_a_helper_an_idle_program_keeps_its_memory_until_it_is_asked() {
    program(
        "no_helper.c",
        &(IDLE.to_owned()
            + r#"
int main(void) {
    long before = resident();
    scatter();
    long rest = resident();
    usleep(600000);
    CHECK(tasks() == 1 && field("helper_starts") == 0 && field("helper_run_ns") == 0);
    CHECK(resident() > rest - (4 << 20));
    CHECK((long)spanalloc_release_memory() > (rest - before) / 2);
    CHECK(resident() - before < (high - before) / 3);
    same();
    return 0;
}
"#),
        "decay_ms=100,helper=0",
    );
}

#[test]
fn a_trim_reaches_the_caches_of_busy_threads_and_counts_those_of_sleeping_ones() {
    program(
        "reach.c",
        r#"
static int stop, filled, wake[2];
/* 300 KiB or so of free blocks of many sizes in the calling thread's cache. */
static void fill(int most) {
    static __thread char *p[400];
    for (int round = 0; round < 3; round++)
        for (int size = 64; size <= most; size *= 2) {
            int n = 65536 / size > 400 ? 400 : 65536 / size;
            for (int i = 0; i < n; i++) p[i] = malloc(size);
            for (int i = 0; i < n; i++) free(p[i]);
        }
    __atomic_add_fetch(&filled, 1, __ATOMIC_SEQ_CST);
}
static void *busy(void *x) {
    fill(8192);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) { char *p = malloc(40); *(volatile char *)p = 1; free(p); }
    return x;
}
static void *asleep(void *x) {
    fill(128);
    char c; CHECK(read(wake[0], &c, 1) == 1);
    free(malloc(40));
    CHECK(read(wake[0], &c, 1) == 1);
    return x;
}
int main(void) {
    char *heap[64];
    for (int i = 0; i < 64; i++) heap[i] = malloc(1 << 20);
    CHECK(!pipe(wake));
    pthread_t t[4];
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, NULL);
    pthread_create(&t[3], NULL, asleep, NULL);
    SOON(__atomic_load_n(&filled, __ATOMIC_SEQ_CST) == 4);
    usleep(50000);
    long cached = field("thread_cache_bytes");
    CHECK(cached > 400 << 10);
    spanalloc_release_memory();
    /* The busy threads take no slow path of their own, but they come here at their next call. */
    SOON(field("thread_cache_bytes") < cached / 2);
    long left = field("unreached_bytes");
    CHECK(left > 0 && left < cached / 2);
    CHECK(write(wake[1], "x", 1) == 1);
    SOON(field("unreached_bytes") == 0);
    CHECK(write(wake[1], "x", 1) == 1);
    stop = 1;
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    /* Threads that end while they are called, over and over. */
    for (int n = 0; n < 200; n++) {
        stop = n % 2;
        for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, NULL);
        for (int i = 0; i < 5; i++) { malloc_trim(0); if (i == 2) stop = 1; }
        for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    }
    CHECK(field("threads") == 1);
    return 0;
}
"#,
        "",
    );
}

#[test]
fn a_consumer_does_not_hoard_what_a_producer_makes() {
    program(
        "ring.c",
        r#"
#define RING 1024
static void *volatile ring[RING];
static int done;
static void *consume(void *x) {
    for (unsigned at = 0;; at = (at + 1) % RING) {
        void *p;
        while (!(p = __atomic_exchange_n(&ring[at], NULL, __ATOMIC_ACQUIRE)))
            if (__atomic_load_n(&done, __ATOMIC_ACQUIRE) && !ring[at]) return x;
        free(p);
    }
}
int main(void) {
    const char *seconds = getenv("RING_SECONDS"); /* the nightly run takes a minute */
    time_t end = seconds ? time(NULL) + atol(seconds) : 0;
    long after_warm_up = 0, worst = 0;
    pthread_t t; pthread_create(&t, NULL, consume, NULL);
    unsigned r = 1, at = 0;
    for (long n = 0; n < 4000000 || time(NULL) < end; n++, at = (at + 1) % RING) {
        r = r * 1664525 + 1013904223;
        char *p = malloc(16 + (r >> 10) % 1008); p[0] = 1;
        while (__atomic_load_n(&ring[at], __ATOMIC_RELAXED)) sched_yield();
        __atomic_store_n(&ring[at], p, __ATOMIC_RELEASE);
        if (n == 500000) after_warm_up = resident();
        if (n > 500000 && n % 250000 == 0) { long now = resident(); if (now > worst) worst = now; }
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    pthread_join(t, NULL);
    fprintf(stderr, "resident after the warm-up %ld KiB, at worst %ld KiB\n", after_warm_up >> 10, worst >> 10);
    CHECK(worst < after_warm_up + (2 << 20) && worst < 16 << 20);
    return 0;
}
"#,
        "",
    );
}

/// Larson and Krishnan's server: threads replace blocks at random, end, and leave the live ones to the next thread, which frees what others
/// have made. What a generation leaves in caches, spans and stored batches must not add up.
#[test]
fn generations_of_threads_that_hand_live_blocks_on_need_no_more_than_the_first() {
    program(
        "generations.c",
        r#"
#define THREADS 4
#define BLOCKS 4000
#define GENERATIONS 40
static char *blocks[THREADS][BLOCKS];
static unsigned seed[THREADS];
static void *replace(void *x) {
    size_t me = (size_t)x;
    unsigned r = seed[me];
    for (int i = 0; i < 3 * BLOCKS; i++) {
        r = r * 1664525 + 1013904223;
        char **place = &blocks[me][(r >> 8) % BLOCKS];
        size_t size = 10 + (r >> 20) % 990;
        if (*place) { CHECK(**place == (char)((size_t)*place >> 4)); free(*place); }
        CHECK(*place = malloc(size));
        memset(*place, (size_t)*place >> 4, size);
    }
    seed[me] = r;
    return NULL;
}
int main(void) {
    long settled = 0, worst = 0;
    for (size_t i = 0; i < THREADS; i++) seed[i] = i + 1;
    for (int generation = 0; generation < GENERATIONS; generation++) {
        pthread_t t[THREADS];
        /* Each generation works on the blocks of another thread of the last one. */
        for (size_t i = 0; i < THREADS; i++) CHECK(!pthread_create(&t[i], NULL, replace, (void *)((i + generation) % THREADS)));
        for (size_t i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
        long now = resident();
        if (generation == 3) settled = now;
        if (now > worst) worst = now;
    }
    long live = field("in_use_bytes");
    fprintf(stderr, "%ld KiB live, resident after four generations %ld KiB, at worst %ld KiB\n", live >> 10, settled >> 10, worst >> 10);
    CHECK(live > THREADS * BLOCKS * 400l && field("threads") == 1);
    CHECK(worst < settled + settled / 4);
    return 0;
}
"#,
        "",
    );
}

#[test]
fn sixty_four_idle_threads_hold_a_bounded_amount() {
    program(
        "many_idle.c",
        r#"
static pthread_barrier_t full, end;
static void *work(void *x) {
    static __thread char *p[2000];
    for (int round = 0; round < 4; round++) {
        unsigned r = (unsigned)(uintptr_t)x + round;
        for (int i = 0; i < 2000; i++) { r = r * 1664525 + 1013904223; p[i] = malloc(16 + (r >> 8) % 4000); }
        for (int i = 0; i < 2000; i++) free(p[i]);
    }
    pthread_barrier_wait(&full); pthread_barrier_wait(&end);
    return NULL;
}
int main(void) {
    pthread_t t[64];
    pthread_barrier_init(&full, NULL, 65); pthread_barrier_init(&end, NULL, 65);
    for (size_t i = 0; i < 64; i++) pthread_create(&t[i], NULL, work, (void *)(i + 1));
    pthread_barrier_wait(&full);
    long cached = field("thread_cache_bytes");
    fprintf(stderr, "%ld bytes in 64 idle caches\n", cached);
    CHECK(cached < 64l * (600 << 10));
    pthread_barrier_wait(&end);
    for (int i = 0; i < 64; i++) pthread_join(t[i], NULL);
    CHECK(field("thread_cache_bytes") < 1 << 20 && field("threads") == 1);
    return 0;
}
"#,
        "",
    );
}
