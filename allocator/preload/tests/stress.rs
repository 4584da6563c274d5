//! Everything at once: threads that come and go, are cancelled, have small stacks, hand blocks over, resize, trim, ask for statistics, fork
//! and vfork, under all settings; while limits of the system and of the library come and go, profiles start and stop. Every block carries its own check, so that one that is handed out twice, moved wrongly or not zero shows.
//!
//! `STRESS_SECONDS=120` for longer than the default; `STRESS_SEED=N` for the numbers of another run.

mod common;

use common::{MODES, compile, number, preloaded};

/// Beside the modes what makes memory go back and come again at every turn, caches that hold nearly nothing, and a profile; and what
/// else happens: `limits` on what may be mapped or used, set below what is and taken back, `profiles`.
const OTHERS: [(&str, &str); 7] = [
    ("decay_ms=0", ""),
    ("front_end=cpu,decay_ms=1", ""),
    (
        "thread_cache_bytes=0,huge_pages=0,populate=0,limit_soft=8m",
        "",
    ),
    ("profile_bytes=4k", ""),
    ("", "limits profiles"),
    ("decay_ms=1,front_end=cpu", "limits"),
    ("hardened=1,quarantine_bytes=64k", "limits"),
];

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "check.h"
size_t spanalloc_stats_json(char *, size_t);
size_t spanalloc_release_memory(void);
void *spanalloc_malloc_data(size_t);
int spanalloc_profile_start(size_t);
void spanalloc_set_limits(size_t, size_t, void *);
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
#define SLOTS 512
#define MINE 300
/* `align`: what aligned_alloc was asked for; 0: a block of malloc's, 1: one that is freed by its address alone. */
typedef struct { uint64_t size, stamp, align; } Head;
static Head *_Atomic shared[SLOTS];
static volatile int stop, limited, profiled;
static volatile unsigned long done;
/* Where there are limits a request may be refused. */
#define GOT(c) do { if (!(c)) { CHECK(limited && errno == ENOMEM); return 0; } } while (0)
static uint64_t next(uint64_t *s) { *s ^= *s << 13; *s ^= *s >> 7; *s ^= *s << 17; return *s; }
static size_t size_of(uint64_t *s) {
    uint64_t r = next(s);
    /* Quarters between powers of two are the borders of most classes; 32 and 256 KiB are those of ways. */
    if (r % 8 == 7) { int shift = 3 + (r >> 8) % 17 - (r >> 16) % 4; size_t size = ((4 + (r >> 24) % 4) << (shift > 2 ? shift : 3)) / 4 + (r >> 32) % 3 - 1; return size < sizeof(Head) ? sizeof(Head) : size; }
    switch ((r >> 3) % 64) { case 0: return sizeof(Head) + (r >> 8) % (2 << 20); case 1: case 2: return sizeof(Head) + (r >> 8) % 200000;
        case 3 ... 9: return sizeof(Head) + (r >> 8) % 9000; default: return sizeof(Head) + (r >> 8) % 400; }
}
/* The words at the front, the last byte, and a byte a page. */
static Head *stamp(Head *b, size_t size) {
    b->size = size; b->stamp = size * 0x9E3779B97F4A7C15u ^ (uintptr_t)b;
    char *bytes = (char *)b;
    for (size_t k = 4096; k < size; k += 4096) bytes[k] = (char)(size + k / 4096);
    if (size > sizeof *b) bytes[size - 1] = (char)size;
    return b;
}
static void whole(Head *b, uintptr_t at) {
    char *bytes = (char *)b;
    CHECK(b->stamp == (b->size * 0x9E3779B97F4A7C15u ^ at));
    if (b->size > sizeof *b) CHECK(bytes[b->size - 1] == (char)b->size);
    for (size_t k = 4096; k + 1 < b->size; k += 4096) CHECK(bytes[k] == (char)(b->size + k / 4096));
}
static Head *make(uint64_t *s) {
    size_t size = size_of(s); Head *b; uint64_t how = next(s);
    uint64_t align = 0;
    if (how % 8 == 0) { GOT(b = calloc(1, size)); char *z = (char *)b; uint64_t any = 0; size_t k = 0; for (; k + 8 <= size; k += 8) any |= *(uint64_t *)(z + k); for (; k < size; k++) any |= z[k]; CHECK(!any); }
    else if (how % 8 == 1) { align = (size_t)8 << (how >> 8) % ((how >> 16) % 8 ? 10 : 19); GOT(b = aligned_alloc(align, size)); CHECK((uintptr_t)b % align == 0); }
    else if (how % 32 == 10) { align = 1; GOT(b = spanalloc_malloc_data(size)); }
    else GOT(b = malloc(size));
    if (how % 32 == 9) { align = 1; size = malloc_usable_size(b); }
    b->align = align;
    return stamp(b, size);
}
static void drop(Head *b) {
    if (!b) return;
    size_t size = b->size, align = b->align;
    whole(b, (uintptr_t)b); memset(b, 0xEE, sizeof *b);
    if (size % 4 || align == 1) free(b); else if (align) free_aligned_sized(b, align, size); else free_sized(b, size);
}
static void some(uint64_t *s, Head **mine, int steps) {
    for (int n = 0; n < steps; n++) {
        uint64_t r = next(s); unsigned at = (r >> 8) % MINE;
        switch (r % 16) {
        case 0 ... 1: drop(__atomic_exchange_n(&shared[(r >> 20) % SLOTS], mine[at], __ATOMIC_ACQ_REL)); mine[at] = 0; break;
        case 2 ... 3:
            if (mine[at]) {
                Head *old = mine[at]; uintptr_t was = (uintptr_t)old; size_t kept = old->size, size = size_of(s);
                whole(old, was);
                char last = ((char *)old)[kept - 1];
                Head *b = realloc(old, size);
                if (!b) { CHECK(limited && errno == ENOMEM); whole(old, was); break; }
                CHECK(b->size == kept && b->stamp == (kept * 0x9E3779B97F4A7C15u ^ was));
                if (size >= kept && kept > sizeof *b) CHECK(((char *)b)[kept - 1] == last);
                if (b->align) b->align = 1;
                mine[at] = stamp(b, size);
            }
            break;
        default: drop(mine[at]); mine[at] = make(s);
        }
    }
}
static void empty(Head **mine) { for (int i = 0; i < MINE; i++) { drop(mine[i]); mine[i] = 0; } }
static void *shortly(void *seed) { uint64_t s = (uintptr_t)seed | 1; Head *mine[MINE] = {0}; some(&s, mine, 500); empty(mine); return 0; }
/* Until it is cancelled, now and then where it waits. */
static void *cancelled(void *seed) {
    uint64_t s = (uintptr_t)seed | 1; Head *mine[MINE] = {0};
    pthread_cleanup_push((void (*)(void *))empty, mine);
    for (;;) { some(&s, mine, 50); if (next(&s) % 8 == 0) usleep(1); else pthread_testcancel(); }
    pthread_cleanup_pop(1);
    return 0;
}
static void begin(void *(*body)(void *), uint64_t seed, size_t stack, int cancels) {
    pthread_t t; pthread_attr_t how;
    CHECK(!pthread_attr_init(&how) && !pthread_attr_setstacksize(&how, stack));
    int refused = pthread_create(&t, &how, body, (void *)seed);
    CHECK(!refused || limited);
    if (!refused && cancels) { usleep(seed % 500); CHECK(!pthread_cancel(t)); }
    if (!refused) CHECK(!pthread_join(t, 0));
    pthread_attr_destroy(&how);
}
/* Limits below what is there and none, in turns; the hard ones stay, so that they can be taken back. Profiles the same. */
static void *changes(void *seed) {
    uint64_t s = (uintptr_t)seed;
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    while (!stop) {
        usleep(300);
        if (limited) switch (next(&s) % 12) {
        case 0 ... 1: { struct rlimit l = {next(&s) % (128 << 20), RLIM_INFINITY}; CHECK(!setrlimit(next(&s) % 2 ? RLIMIT_AS : RLIMIT_DATA, &l)); break; }
        case 2: spanalloc_set_limits(next(&s) % (64 << 20), next(&s) % (64 << 20), 0); break;
        case 3: spanalloc_set_limits(0, 0, 0); break;
        default: CHECK(!setrlimit(RLIMIT_AS, &none) && !setrlimit(RLIMIT_DATA, &none));
        }
        if (profiled && next(&s) % 8 == 0) spanalloc_profile_start(next(&s) % 2 ? 4096 << next(&s) % 8 : 0);
    }
    CHECK(!setrlimit(RLIMIT_AS, &none) && !setrlimit(RLIMIT_DATA, &none));
    return 0;
}
static void *worker(void *seed) {
    uint64_t s = (uintptr_t)seed; Head *mine[MINE] = {0};
    while (!stop) {
        some(&s, mine, 2000);
        __atomic_add_fetch(&done, 2000, __ATOMIC_RELAXED);
        switch (next(&s) % 24) {
        case 0: malloc_trim(0); break;
        case 1: spanalloc_release_memory(); break;
        case 2: { char json[1 << 15]; CHECK(spanalloc_stats_json(json, sizeof json) > 100); break; }
        case 3: { struct mallinfo2 m = mallinfo2(); CHECK(m.uordblks > 0); break; }
        case 4 ... 6: begin(shortly, next(&s), PTHREAD_STACK_MIN, 0); break;
        case 7: begin(cancelled, next(&s), 1 << 16, 1); break;
        case 8: {
            pid_t child = fork(); int status;
            if (child < 0 && limited) break;
            CHECK(child >= 0);
            if (!child) { uint64_t other = s ^ 77; some(&other, mine, 1000); empty(mine); malloc_trim(0); _exit(0); }
            CHECK(waitpid(child, &status, 0) == child); if (status) fprintf(stderr, "fork child: %x\n", status); CHECK(!status);
            break;
        }
        case 9 ... 10: {
            int status; pid_t child = vfork();
            if (child < 0 && limited) break;
            CHECK(child >= 0);
            if (!child) { for (int i = 0; i < 100; i++) { char *p = malloc(i * 31 + 1); if (!p) _exit(limited ? 0 : 2); p[i * 31] = 1; free(p); } _exit(0); }
            CHECK(waitpid(child, &status, 0) == child); if (status) fprintf(stderr, "vfork child: %x\n", status); CHECK(!status);
            break;
        }
        case 11: empty(mine); break;
        }
    }
    empty(mine);
    return 0;
}
static void handler(int number) { (void)number; char *p = malloc(done % 3000 + 1); if (p) p[0] = 1; free(p); }
int main(int argc, char **argv) {
    int seconds = atoi(argv[1]); uint64_t seed = strtoull(argv[2], 0, 10); pthread_t t[4], changing;
    limited = strstr(argv[3], "limits") != 0; profiled = strstr(argv[3], "profiles") != 0;
    /* The first one makes the C library load what it needs for that. */
    begin(cancelled, seed, 1 << 16, 1);
    CHECK(!pthread_create(&changing, 0, changes, (void *)(seed | 1)));
    if (strstr(argv[3], "signals")) {
        /* Handlers may allocate anywhere. */
        struct itimerval every = {{0, 500}, {0, 500}}; struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
        CHECK(!sigaction(SIGALRM, &action, 0) && !setitimer(ITIMER_REAL, &every, 0));
    }
    for (int i = 0; i < 4; i++) while (pthread_create(&t[i], 0, worker, (void *)((seed * 4 + i) * 0x9E3779B97F4A7C15u | 1))) CHECK(limited);
    time_t end = time(0) + seconds;
    while (time(0) < end) usleep(50000);
    stop = 1;
    for (int i = 0; i < 4; i++) CHECK(!pthread_join(t[i], 0));
    CHECK(!pthread_join(changing, 0));
    for (int i = 0; i < SLOTS; i++) drop(shared[i]);
    printf("%lu\n", done);
    return 0;
}
"#;

#[test]
fn nothing_is_lost_or_handed_out_twice_whatever_happens_at_once() {
    let program = compile("stress.c", PROGRAM);
    let (seconds, seed) = (number("STRESS_SECONDS", 1), number("STRESS_SEED", 1));
    let all = MODES.map(|settings| (settings, "")).into_iter();
    for (at, (settings, what)) in all.chain(OTHERS).enumerate() {
        let mut command = preloaded(&program);
        command.env("SPANALLOC_CONF", settings);
        // Handlers that allocate are for caches of CPUs.
        let signals = if settings.contains("front_end=cpu") {
            "signals"
        } else {
            ""
        };
        command.args([
            &seconds.to_string(),
            &(seed + at as u64).to_string(),
            &format!("{what} {signals}"),
        ]);
        let output = common::passes(&mut command);
        let steps = String::from_utf8_lossy(&output.stdout);
        println!(
            "'{settings}' {what}, seed {}: {} steps",
            seed + at as u64,
            steps.trim()
        );
        let steps: u64 = steps.trim().parse().expect("a number");
        assert!(steps > 0);
    }
}
