//! What a program can learn about its heap: the walk, limits, dumps.

mod common;

use common::{compile, passes, preloaded};
use std::io::Read;
use std::process::Stdio;

const HEAD: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "spanalloc.h"
#include "check.h"
"#;

#[test]
fn the_walk_finds_every_block_and_adds_up() {
    let program = compile(
        "walk.c",
        &format!(
            "{HEAD}{}",
            r#"
static char *blocks[3000];
struct sums { size_t bytes, small, large, found, used; long kinds[5]; };
static int visit(const struct spanalloc_region *r, void *context) {
    struct sums *s = context;
    s->bytes += r->bytes;
    s->kinds[r->kind]++;
    CHECK(r->kind >= 1 && r->kind <= 4 && r->used <= r->blocks && r->blocks * r->block_bytes <= r->bytes);
    CHECK((r->kind > 2) == (r->block_bytes == 0));
    free(malloc(100)); /* the visitor may allocate */
    if (r->kind == 1) s->small += r->used * r->block_bytes;
    if (r->kind == 2) s->large += r->bytes;
    for (int i = 0; i < 3000; i += 100)
        if (blocks[i] >= (char *)r->address && blocks[i] < (char *)r->address + r->bytes) {
            CHECK(r->kind <= 2 && (blocks[i] - (char *)r->address) % r->block_bytes == 0);
            s->found++;
        }
    return 0;
}
static int stop(const struct spanalloc_region *r, void *context) { return ++*(int *)context == 3 ? 42 : 0; }
int main(void) {
    for (int i = 0; i < 3000; i++) blocks[i] = malloc(i % 60 == 0 ? 400000 : i * 3 + 1);
    struct sums s = {0};
    CHECK(spanalloc_walk(visit, &s) == 0);
    CHECK(s.found == 30 && s.large >= 50u * 400000 && s.small > 3000u * 4000);
    /* A second walk, as the visitor's first block may have taken a span. */
    static char json[65536]; long state[4]; memset(&s, 0, sizeof s);
    CHECK(spanalloc_walk(visit, &s) == 0 && spanalloc_stats_json(json, sizeof json) < sizeof json);
    CHECK(sscanf(strstr(json, "\"spans_by_state\":["), "\"spans_by_state\":[%ld, %ld, %ld, %ld]", state, state + 1, state + 2, state + 3) == 4);
    for (int i = 0; i < 4; i++) CHECK(state[i] == s.kinds[i + 1]);
    CHECK(state[1] == 50 && state[0] > 20);
    int calls = 0;
    CHECK(spanalloc_walk(stop, &calls) == 42 && calls == 3);
    return 0;
}
"#
        ),
    );
    passes(&mut preloaded(program));
}

#[test]
fn the_heap_is_walked_while_threads_change_it() {
    let program = compile(
        "walk_busy.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <pthread.h>
static int stop;
static void *busy(void *seed) {
    unsigned r = (uintptr_t)seed; char *live[200] = {0};
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        r = r * 1664525 + 1013904223; int i = (r >> 8) % 200; size_t size = r % 40 == 0 ? 300000 + r % 700000 : (r >> 12) % 9000;
        free(live[i]); CHECK(live[i] = malloc(size)); live[i][0] = 1;
    }
    for (int i = 0; i < 200; i++) free(live[i]);
    return NULL;
}
static int visit(const struct spanalloc_region *r, void *context) {
    CHECK(r->kind >= 1 && r->kind <= 4 && r->used <= r->blocks && r->blocks * r->block_bytes <= r->bytes && r->bytes % 8192 == 0);
    *(size_t *)context += r->bytes;
    return 0;
}
int main(void) {
    pthread_t t[3]; static char json[1 << 16];
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, (void *)(i + 1));
    for (int n = 0; n < 300; n++) {
        size_t bytes = 0; CHECK(spanalloc_walk(visit, &bytes) == 0 && bytes > 0);
        size_t length = spanalloc_stats_json(json, sizeof json); CHECK(length < sizeof json && json[length - 1] == '}');
    }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    return 0;
}
"#
        ),
    );
    passes(&mut preloaded(program));
}

/// Address space of a small program, and that records of ended threads and freed blocks are used again.
#[test]
fn mappings_are_few_and_records_do_not_grow_with_time() {
    let program = compile(
        "records.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <pthread.h>
static char json[1 << 16];
static long field(const char *name) {
    char key[64]; snprintf(key, sizeof key, "\"%s\":", name);
    CHECK(spanalloc_stats_json(json, sizeof json) < sizeof json);
    char *at = strstr(strstr(json, "\"heap_bytes\""), key); CHECK(at);
    return strtol(at + strlen(key), NULL, 10);
}
/* Mappings in the range that the heap is placed in. */
static int mappings(void) {
    int n = 0; unsigned long from; char line[512]; FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f)) n += sscanf(line, "%lx", &from) == 1 && from >= 1ul << 40 && from < 14ul << 40;
    fclose(f); return n;
}
static pthread_barrier_t all;
static void *work(void *x) {
    char *p[300];
    for (int size = 16; size < 40000; size *= 2) {
        for (int i = 0; i < 300 && i * size < 200000; i++) CHECK(p[i] = malloc(size));
        pthread_barrier_wait(&all); /* all four have all their blocks at once, in each round */
        for (int i = 0; i < 300 && i * size < 200000; i++) free(p[i]);
        pthread_barrier_wait(&all);
    }
    return x;
}
static void threads(int count) {
    pthread_t t[4];
    for (int n = 0; n < count; n += 4) {
        for (int i = 0; i < 4; i++) CHECK(!pthread_create(&t[i], NULL, work, NULL));
        for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    }
}
int main(void) {
    free(malloc(1)); pthread_barrier_init(&all, NULL, 4);
    /* Span numbers, classes, span records, metadata, heap. */
    CHECK(mappings() > 0 && mappings() <= 5);
    threads(200);
    long records = field("metadata_bytes"), heap = field("heap_bytes");
    /* Marks of the most that threads needed at once still rise a little, by less than 100 KiB; a cache lost with each
       thread would be 4 MiB. */
    threads(2000);
    CHECK(field("metadata_bytes") <= records + (256 << 10) && field("heap_bytes") <= heap + (2 << 20));
    CHECK(field("threads") == 1 && mappings() <= 5);
    /* What the JSON says of free runs, of zeros and of the process. */
    spanalloc_release_memory();
    long zero = field("zero_skipped_bytes");
    char *fresh = calloc(1, 8 << 20), *sum = strstr(json, "free_runs_by_doubling"); CHECK(fresh && sum && !fresh[5 << 20]);
    CHECK(field("zero_skipped_bytes") - zero == 8 << 20);
    memset(fresh, 1, 8 << 20);
    CHECK(field("process_resident_bytes") > field("resident_bytes") - (1 << 20) && field("process_resident_bytes") > 8 << 20);
    free(fresh);
    long runs = field("free_runs"), counted = 0;
    char *list = strchr(strstr(json, "\"free_runs_by_doubling\""), '[') + 1;
    for (int i = 0; i < 16; i++) { counted += strtol(list, &list, 10); CHECK(*list == (i < 15 ? ',' : ']')); list++; }
    CHECK(counted == runs && runs > 0);
    return 0;
}
"#
        ),
    );
    passes(preloaded(program).env("SPANALLOC_CONF", "decay_ms=-1"));
}

#[test]
fn limits_are_told_and_kept() {
    let program = compile(
        "limits_told.c",
        &format!(
            "{HEAD}{}",
            r#"
static volatile int soft, hard; /* glibc promises the compiler that malloc calls nothing back */
static void *reserve;
static void told(unsigned which, size_t in_use) {
    free(malloc(50)); /* no lock is held */
    if (which == 1) { soft++; CHECK(in_use > 16 << 20); }
    if (which == 2) { hard++; free(reserve); reserve = NULL; }
}
int main(void) {
    static char *blocks[1000];
    reserve = malloc(1 << 20);
    spanalloc_set_limits(16 << 20, 32 << 20, told);
    int n = 0;
    for (; n < 1000; n++) { errno = 0; if (!(blocks[n] = malloc(100000))) break; memset(blocks[n], 1, 100000); }
    CHECK(errno == ENOMEM && n > 250 && n < 330 && soft == 1 && hard == 1 && !reserve);
    CHECK(malloc(100000)); /* the callback has made room */
    CHECK(!calloc(1, 40 << 20) && !realloc(blocks[0], 40 << 20) && blocks[0][5] == 1 && hard == 3);
    while (n--) free(blocks[n]);
    spanalloc_set_limits(0, 0, NULL);
    CHECK(malloc(64 << 20));
    return 0;
}
"#
        ),
    );
    passes(&mut preloaded(program));
    let by_setting = compile(
        "limit_by_setting.c",
        &format!(
            "{HEAD}int main(void) {{ CHECK(!malloc(20 << 20) && errno == ENOMEM); CHECK(malloc(1000)); return 0; }}"
        ),
    );
    passes(preloaded(by_setting).env("SPANALLOC_CONF", "limit_hard=10m"));
}

/// A soft limit below what is in use: nobody crosses it any more, so that what is free goes back at once, and who has set it is told
/// if that is not enough.
#[test]
fn a_soft_limit_below_what_is_in_use_gives_back_at_once() {
    let program = compile(
        "limit_below.c",
        &format!(
            "{HEAD}{}",
            r#"
#define N 40000
static char *blocks[N];
static volatile int soft;
static void told(unsigned which, size_t in_use) { free(malloc(50)); CHECK(which == 1 && in_use > 1 << 20); soft++; }
static long resident(void) {
    long pages = 0; FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%*s %ld", &pages) == 1); fclose(f); return pages * 4096;
}
int main(void) {
    long before = resident();
    for (int i = 0; i < N; i++) { CHECK(blocks[i] = malloc(1000)); memset(blocks[i], i, 1000); }
    long high = resident() - before;
    /* All but each hundredth: these keep their spans, whose pages can go. */
    for (int i = 0; i < N; i++) if (i % 100) { free(blocks[i]); blocks[i] = NULL; }
    spanalloc_set_limits(1 << 20, 0, told);
    long left = resident() - before;
    CHECK(soft == 1);
    if (left > high / 3) { fprintf(stderr, "%ld of %ld bytes are left\n", left, high); return 1; }
    for (int i = 0; i < N; i += 100) { for (int k = 0; k < 1000; k++) CHECK(blocks[i][k] == (char)i); free(blocks[i]); }
    /* In caches and spans of which nothing is used: not told. */
    spanalloc_set_limits(1 << 20, 0, told);
    CHECK(soft == 1);
    return 0;
}
"#
        ),
    );
    for settings in ["decay_ms=-1,helper=0", "decay_ms=-1,front_end=cpu"] {
        passes(preloaded(&program).env("SPANALLOC_CONF", settings));
    }
}

#[test]
fn a_dump_comes_at_exit_and_on_a_signal_to_a_process_that_rests() {
    let program = compile(
        "rests.c",
        "#include <stdio.h>\n#include <stdlib.h>\n\
         int main(void) { char *p = malloc(5000000); p[0] = 1; puts(\"ready\"); fflush(stdout); return getchar() - getchar(); }",
    );
    let mut child = preloaded(&program)
        .env("SPANALLOC_CONF", "dump_signal=12,dump_at_exit=1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut ready = [0; 6];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut ready).expect("the program says so");
    let mut kill = std::process::Command::new("kill");
    passes(kill.args(["-12", &child.id().to_string()]));
    // The first dump ends with the line of the last class; then the program may end.
    let mut stderr = child.stderr.take().expect("piped");
    let mut text = String::new();
    let mut piece = [0; 4096];
    while !text.contains("handed out") {
        let length = stderr.read(&mut piece).expect("a pipe");
        assert!(length > 0, "no dump on the signal: {text}");
        text += &String::from_utf8_lossy(&piece[..length]);
    }
    drop(child.stdin.take());
    stderr.read_to_string(&mut text).expect("a pipe");
    assert!(child.wait().expect("the child is ours").success());
    assert_eq!(text.matches("spanalloc 0").count(), 2, "{text}");
    let in_use = text
        .lines()
        .find(|line| line.ends_with("in use by the program"))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|bytes| bytes.parse::<usize>().ok());
    assert!(in_use.is_some_and(|bytes| bytes > 5_000_000), "{text}");
    // Without the settings nothing is printed.
    let quiet = passes(&mut preloaded(program));
    assert!(quiet.stderr.is_empty());
}

/// What the program holds is counted tier by tier while blocks go from one to the next: what was cached a moment ago and is in its
/// span now must not seem to be in both. Threads give their caches away all the time while the program holds 64 KiB.
#[test]
fn what_is_in_use_is_not_lost_between_two_tiers() {
    let program = compile(
        "uordblks.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <malloc.h>
#include <pthread.h>
#define KEPT 16
#define SIZE 4096
#define LEAST 32
static volatile int stop;
/* Some 2 KiB of each of 32 sizes are in a cache when it is emptied, bin by bin. What is on its way is in both tiers for a moment, and a
   bin that grows has no certain length. */
#define MOVING (32 << 10)
static void *work(void *argument) {
    void *mine[LEAST];
    while (!stop) {
        for (int size = 16; size <= 512; size += 16) {
            int count = 2048 / size < LEAST ? 2048 / size : LEAST;
            for (int i = 0; i < count; i++) CHECK(mine[i] = malloc(size));
            for (int i = 0; i < count; i++) free(mine[i]);
        }
        malloc_trim(0);
    }
    return argument;
}
int main(void) {
    char *kept[KEPT];
    pthread_t threads[3];
    for (int i = 0; i < KEPT; i++) { CHECK(kept[i] = malloc(SIZE)); memset(kept[i], 1, SIZE); }
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&threads[i], 0, work, 0));
    for (int i = 0; i < 4000; i++) CHECK(mallinfo2().uordblks >= KEPT * SIZE - MOVING);
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    size_t now = mallinfo2().uordblks;
    if (now < KEPT * SIZE || now > (256 << 10)) { fprintf(stderr, "%zu in use at the end\n", now); return 1; }
    for (int i = 0; i < KEPT; i++) free(kept[i]);
    return 0;
}
"#
        ),
    );
    for settings in ["", "front_end=cpu"] {
        passes(preloaded(&program).env("SPANALLOC_CONF", settings));
    }
}

/// What hardened mode keeps of freed blocks is not what the program holds.
#[test]
fn what_is_set_aside_is_not_in_use() {
    let program = compile(
        "set_aside.c",
        &format!(
            "{HEAD}{}",
            r#"
#include <malloc.h>
#define N 2000
static char *blocks[N];
static size_t in_use(size_t *set_aside) {
    static char json[1 << 16];
    CHECK(spanalloc_stats_json(json, sizeof json) < sizeof json);
    char *held = strstr(json, "\"in_use_bytes\":"), *aside = strstr(json, "\"quarantined_bytes\":");
    CHECK(held && aside);
    *set_aside = atol(aside + 20);
    return atol(held + 15);
}
int main(void) {
    size_t none, some, before = in_use(&none);
    CHECK(none == 0);
    for (int i = 0; i < N; i++) CHECK(blocks[i] = malloc(1000));
    size_t full = in_use(&some);
    /* A guarded block counts as a page of 8 KiB; the two beside it are not in use. */
    CHECK(full >= before + N * 1000 && full <= before + N * 1024 + 64 * 8192);
    CHECK(some > 0 && some % 8192 == 0);
    for (int i = 0; i < N; i++) free(blocks[i]);
    size_t now = in_use(&some);
    CHECK(now == before);
    CHECK(some >= 900000);
    CHECK(mallinfo2().uordblks == now && mallinfo2().fordblks >= some);
    return 0;
}
"#
        ),
    );
    passes(preloaded(&program).env(
        "SPANALLOC_CONF",
        "hardened=1,guard_rate=50,quarantine_bytes=1m",
    ));
}
