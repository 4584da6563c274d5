//! The front end per CPU: named in the statistics, safe in signal handlers, reached by a trim, and
//! replaced by the one per thread where the system has no restartable sequences.

mod common;

use common::{compile, passes, preloaded};

/// Threads that allocate and hand blocks around while a timer interrupts them every 100 µs with a
/// handler that does the same.
const SIGNALS: &str = r#"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
size_t spanalloc_stats_json(char *, size_t);
size_t spanalloc_release_memory(void);
static volatile int handled;
static unsigned char *_Atomic shared[64];
static unsigned next(unsigned *s) { *s ^= *s << 13; *s ^= *s >> 17; *s ^= *s << 5; return *s; }
/* A block that starts with its stamp and size; both ends are checked when it goes. */
static unsigned char *make(unsigned *s) {
    unsigned size = 8 + next(s) % (next(s) % 16 ? 300 : 70000);
    unsigned char *p = malloc(size);
    if (!p) abort();
    memcpy(p, &size, 4);
    p[4] = p[size - 1] = (unsigned char)size;
    return p;
}
static void drop(unsigned char *p) {
    unsigned size;
    if (!p) return;
    memcpy(&size, p, 4);
    if (p[4] != (unsigned char)size || p[size - 1] != (unsigned char)size) {
        write(2, "contents changed\n", 17);
        abort();
    }
    free(p);
}
static void handler(int n) {
    static unsigned seed = 99;
    unsigned char *mine[8];
    (void)n;
    for (int i = 0; i < 8; i++) mine[i] = make(&seed);
    for (int i = 0; i < 8; i++) drop(mine[i]);
    handled++;
}
static void *work(void *argument) {
    unsigned seed = (unsigned)(size_t)argument * 7919 + 1;
    unsigned char *mine[200] = {0};
    for (int i = 0; i < 100000; i++) {
        unsigned at = next(&seed) % 200;
        if (next(&seed) % 8 == 0) {
            drop(__atomic_exchange_n(&shared[at % 64], mine[at], __ATOMIC_ACQ_REL));
            mine[at] = 0;
        } else {
            drop(mine[at]);
            mine[at] = make(&seed);
        }
    }
    for (int i = 0; i < 200; i++) drop(mine[i]);
    return 0;
}
int main(void) {
    pthread_t threads[6];
    struct itimerval every = {{0, 100}, {0, 100}};
    static char json[1 << 16];
    signal(SIGALRM, handler);
    setitimer(ITIMER_REAL, &every, 0);
    for (size_t i = 0; i < 6; i++) pthread_create(&threads[i], 0, work, (void *)i);
    for (int i = 0; i < 50; i++) { usleep(2000); malloc_trim(0); }
    for (int i = 0; i < 6; i++) pthread_join(threads[i], 0);
    memset(&every, 0, sizeof every);
    setitimer(ITIMER_REAL, &every, 0);
    for (int i = 0; i < 64; i++) drop(shared[i]);
    if (handled < 100) { printf("only %d signals\n", handled); return 1; }
    spanalloc_release_memory();
    spanalloc_stats_json(json, sizeof json);
    puts(json);
    return 0;
}
"#;

/// The last value of a key: settings have some names of figures, and come first.
fn number(json: &str, key: &str) -> u64 {
    let at = json
        .rfind(&format!("\"{key}\":"))
        .unwrap_or_else(|| panic!("no {key} in {json}"));
    let digits = &json[at + key.len() + 3..];
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().expect("a number")
}

#[test]
fn handlers_may_allocate_and_a_trim_reaches_the_caches_of_all_cpus() {
    let program = compile("front_end_signals.c", SIGNALS);
    let output = passes(preloaded(program).env("SPANALLOC_CONF", "front_end=cpu"));
    let json = String::from_utf8_lossy(&output.stdout);
    if !json.contains("\"front_end\":\"cpu\"") {
        // This system has no restartable sequences: it must have been said.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("front_end=cpu needs"), "{errors}");
        return;
    }
    assert!(number(&json, "cpu_caches") > 0, "{json}");
    assert_eq!(
        number(&json, "threads"),
        0,
        "no thread has a cache of its own: {json}"
    );
    assert!(
        number(&json, "thread_cache_bytes") < 64 << 10,
        "emptied by the trim: {json}"
    );
}

#[test]
fn without_restartable_sequences_threads_have_caches_and_it_is_said() {
    let program = compile(
        "front_end_fallback.c",
        "#include <stdio.h>\n#include <stdlib.h>\nsize_t spanalloc_stats_json(char *, size_t);\n\
         int main(void) { static char json[1 << 16]; free(malloc(10)); spanalloc_stats_json(json, sizeof json); puts(json); return 0; }",
    );
    let output = passes(
        preloaded(program)
            .env("SPANALLOC_CONF", "front_end=cpu")
            .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0"),
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"front_end\":\"thread\""));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("front_end=cpu needs"), "{errors}");
}

#[test]
fn programs_run_the_same_with_a_cache_per_cpu() {
    let script = "import json, threading\n\
        def work(n):\n    d = {str(i): [i] * (i % 50) for i in range(3000)}\n    json.loads(json.dumps(d))\n\
        ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]\n\
        [t.start() for t in ts]; [t.join() for t in ts]; print('done')";
    let output = passes(
        preloaded("python3")
            .args(["-c", script])
            .env("PYTHONMALLOC", "malloc")
            .env("SPANALLOC_CONF", "front_end=cpu"),
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n");
}

/// Threads that are moved from CPU to CPU all the time, with a timer whose handler allocates: sections are restarted
/// in every place. Blocks are stamped by their owners, so that one handed out twice shows.
const MIGRATION: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include "check.h"
static volatile int stop;
static void on_timer(int s) { (void)s; uint64_t *b = malloc(64); CHECK(b); b[0] = b[7] = 42; CHECK(b[0] == 42); free(b); }
static void *mover(void *argument) {
    cpu_set_t all; sched_getaffinity(0, sizeof all, &all);
    pthread_t *threads = argument;
    for (unsigned round = 0; !stop; round++) {
        for (int i = 0; i < 3; i++) {
            int cpu = (round + i) % CPU_SETSIZE;
            for (int k = 0; k < CPU_SETSIZE && !CPU_ISSET(cpu, &all); k++) cpu = (cpu + 1) % CPU_SETSIZE;
            cpu_set_t one; CPU_ZERO(&one); CPU_SET(cpu, &one);
            pthread_setaffinity_np(threads[i], sizeof one, &one);
        }
        usleep(50);
    }
    return 0;
}
static void *work(void *argument) {
    uint64_t me = (uintptr_t)argument; unsigned seed = me;
    uint64_t *kept[500] = {0}; size_t words[500] = {0};
    for (int i = 0; i < 300000; i++) {
        int at = rand_r(&seed) % 500;
        if (kept[at]) { for (size_t k = 0; k < words[at]; k++) CHECK(kept[at][k] == (me << 32 | at)); free(kept[at]); }
        words[at] = rand_r(&seed) % 16 + 1;
        CHECK(kept[at] = malloc(words[at] * 8));
        for (size_t k = 0; k < words[at]; k++) kept[at][k] = me << 32 | at;
    }
    for (int i = 0; i < 500; i++) free(kept[i]);
    return 0;
}
int main(void) {
    signal(SIGALRM, on_timer);
    struct itimerval often = {{0, 100}, {0, 100}};
    setitimer(ITIMER_REAL, &often, 0);
    pthread_t threads[3], other;
    for (uintptr_t i = 0; i < 3; i++) pthread_create(&threads[i], 0, work, (void *)(i + 1));
    pthread_create(&other, 0, mover, threads);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    stop = 1; pthread_join(other, 0);
    return 0;
}
"#;

#[test]
fn threads_may_be_moved_between_cpus_in_the_middle_of_anything() {
    let program = compile("front_end_migration.c", MIGRATION);
    passes(preloaded(program).env("SPANALLOC_CONF", "front_end=cpu"));
}

/// Blocks that are freed come back last in first out from a cache, lowest first from the central list: so it shows who has
/// one. Bound to one CPU, where nobody else allocates.
const VFORK: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "refuse.h"
size_t spanalloc_stats_json(char *, size_t);
static int cached(void) {
    char *blocks[8], *last = 0;
    for (int i = 0; i < 8; i++) CHECK(blocks[i] = malloc(200));
    for (int i = 0; i < 8; i++) if (blocks[i] > last) last = blocks[i];
    for (int i = 0; i < 8; i++) if (blocks[i] != last) free(blocks[i]);
    free(last);
    char *again = malloc(200); free(again);
    return again == last;
}
static void ends_with(pid_t child, int code) { int status; CHECK(child > 0 && waitpid(child, &status, 0) == child && status == code << 8); }
int main(void) {
    static char json[1 << 16];
    cpu_set_t one; CPU_ZERO(&one); CPU_SET(sched_getcpu(), &one); CHECK(!sched_setaffinity(0, sizeof one, &one));
    free(malloc(1)); spanalloc_stats_json(json, sizeof json);
    if (!strstr(json, "\"front_end\":\"cpu\"")) { puts("none"); return 0; }
    CHECK(cached());
    for (int n = 0; n < 3; n++) {
        pid_t child = vfork();
        if (!child) {
            if (cached()) _exit(9);
            pid_t grandchild = vfork();
            if (!grandchild) _exit(cached() ? 8 : 7);
            ends_with(grandchild, 7);
            _exit(cached() ? 6 : 5);
        }
        CHECK(cached());
        ends_with(child, 5);
        CHECK(cached());
    }
    refuse(SYS_vfork, EAGAIN);
    errno = 0; CHECK(vfork() == -1 && errno == EAGAIN && cached());
    puts("as it should be");
    return 0;
}
"#;

#[test]
fn only_the_child_of_vfork_goes_without_its_cpus_cache() {
    let program = compile("front_end_vfork.c", VFORK);
    let output = passes(preloaded(program).env("SPANALLOC_CONF", "front_end=cpu"));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        said == "as it should be\n" || said == "none\n" && errors.contains("front_end=cpu needs"),
        "{said} {errors}"
    );
}

/// What CPUs' caches hold: opening of the programs, which are bound to one CPU and say so on standard output if there are no such caches.
const THRIFT: &str = r#"
#define _GNU_SOURCE
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
size_t spanalloc_stats_json(char *, size_t);
static char json[1 << 16];
static long field(const char *name) {
    char key[64]; snprintf(key, sizeof key, "\"%s\":", name);
    spanalloc_stats_json(json, sizeof json);
    char *at = strstr(strstr(json, "\"heap_bytes\""), key); CHECK(at); /* behind the settings */
    return strtol(at + strlen(key), NULL, 10);
}
/* The n-th CPU of those that the program may use; 0: there are not so many. */
static int bind_to(int n) {
    static cpu_set_t all; static int asked;
    if (!asked) { asked = 1; CHECK(!sched_getaffinity(0, sizeof all, &all)); }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && n-- == 0) {
            cpu_set_t one; CPU_ZERO(&one); CPU_SET(cpu, &one);
            CHECK(!sched_setaffinity(0, sizeof one, &one));
            return 1;
        }
    return 0;
}
/* Allocates `count` blocks and frees them. */
static void round_of(size_t size, int count) {
    static char *blocks[20000];
    CHECK(count <= 20000);
    for (int i = 0; i < count; i++) CHECK(blocks[i] = malloc(size));
    for (int i = 0; i < count; i++) free(blocks[i]);
}
/* A block that stays, on pages that are not resident. */
static void grow(size_t size) { char *kept = malloc(size); CHECK(kept); kept[0] = kept[size - 1] = 1; }
static void begin(void) {
    free(malloc(1));
    CHECK(bind_to(0));
    spanalloc_stats_json(json, sizeof json);
    if (!strstr(json, "\"front_end\":\"cpu\"")) { puts("none"); exit(0); }
}
"#;

fn thrift(name: &str, body: &str, settings: &str) {
    let program = compile(name, &format!("{THRIFT}{body}"));
    let output = passes(preloaded(program).env("SPANALLOC_CONF", settings));
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.is_empty() || errors.contains("front_end=cpu needs"),
        "{said} {errors}"
    );
}

/// Without `membarrier` for restartable sequences nobody can take a CPU's cache away, and the statistics say how much that is.
#[test]
fn caches_of_cpus_that_cannot_be_reached_are_counted() {
    let body = r#"
#include <errno.h>
#include "refuse.h"
int main(void) {
    begin();
    for (size_t size = 64; size <= 1024; size *= 2) round_of(size, 20);
    long cached = field("thread_cache_bytes");
    CHECK(cached > 1000 && field("unreached_bytes") == 0);
    refuse(SYS_membarrier, EPERM);
    spanalloc_release_memory();
    long left = field("unreached_bytes");
    CHECK(left > 1000 && left == field("thread_cache_bytes") && left <= cached);
    return 0;
}
"#;
    thrift("unreached.c", body, "front_end=cpu,helper=0");
    // Reached, nothing is left.
    let reached = body.replace("refuse(SYS_membarrier, EPERM);", "");
    let reached = reached.replace("left > 1000 &&", "left == 0 &&");
    thrift("reached.c", &reached, "front_end=cpu,helper=0");
}

#[test]
fn what_a_cpus_cache_holds_is_bounded_by_what_is_in_use_and_by_the_setting() {
    let body = r#"
int main(void) {
    begin();
    long most = 0;
    for (int again = 0; again < 20; again++)
        for (size_t size = 64; size <= 32 << 10; size += size / 4) {
            round_of(size, (256 << 10) / size);
            long held = field("thread_cache_bytes");
            if (held > most) most = held;
        }
    /* Half of what is in spans or the setting, and what lists of short objects have in any case. */
    long bound = strstr(getenv("SPANALLOC_CONF"), "thread_cache_bytes") ? 64 << 10 : field("span_peak_bytes") / 2;
    if (most > bound + (64 << 10)) { fprintf(stderr, "%ld bytes were cached, bound %ld\n", most, bound); return 1; }
    CHECK(most > 32 << 10);
    return 0;
}
"#;
    thrift("thrift_budget.c", body, "front_end=cpu");
    thrift(
        "thrift_budget.c",
        body,
        "front_end=cpu,thread_cache_bytes=64k",
    );
}

#[test]
fn room_goes_from_full_lists_at_rest_to_those_in_use() {
    thrift(
        "thrift_room.c",
        r#"
int main(void) {
    begin();
    for (int i = 0; i < 20; i++) round_of(512, 500);
    long idle = field("thread_cache_bytes");
    for (int i = 0; i < 300; i++) round_of(64, 2000);
    /* Those of 64 bytes have most of the room now: of 512 bytes few are left. */
    int cached = 0;
    long before = field("refills");
    while (cached < 500 && field("refills") == before) { CHECK(malloc(512)); cached++; }
    if (cached > 65) { fprintf(stderr, "%d of %ld bytes are left\n", cached, idle); return 1; }
    return 0;
}
"#,
        "front_end=cpu,thread_cache_bytes=64k,helper=0",
    );
}

#[test]
fn lists_at_rest_are_emptied_while_the_heap_grows() {
    for (growth, count) in [("20000", 400), ("1 << 20", 60)] {
        let body = format!(
            r#"
int main(void) {{
    begin();
    for (size_t size = 48; size <= 2048; size += size / 4) round_of(size, 100);
    long held = field("thread_cache_bytes");
    CHECK(held > 16 << 10);
    for (int i = 0; i < {count}; i++) grow({growth});
    long left = field("thread_cache_bytes");
    if (left > held / 4) {{ fprintf(stderr, "%ld, then %ld bytes were cached\n", held, left); return 1; }}
    return 0;
}}
"#
        );
        thrift(
            "thrift_growth.c",
            &body,
            "front_end=cpu,decay_ms=100000,helper=0",
        );
    }
}

#[test]
fn a_cpu_on_which_nobody_allocates_any_more_loses_its_cache_when_the_heap_grows() {
    thrift(
        "thrift_left.c",
        r#"
int main(void) {
    begin();
    for (size_t size = 48; size <= 2048; size += size / 4) round_of(size, 100);
    long held = field("thread_cache_bytes");
    CHECK(held > 16 << 10);
    if (!bind_to(1)) return 0; /* There is one CPU. */
    for (int i = 0; i < 1000 && field("thread_cache_bytes") > held / 4; i++) { grow(100000); usleep(1000); }
    if (field("thread_cache_bytes") > held / 4) { fprintf(stderr, "%ld, then %ld bytes\n", held, field("thread_cache_bytes")); return 1; }
    return 0;
}
"#,
        "front_end=cpu,decay_ms=20,helper=0",
    );
}

#[test]
fn the_helper_empties_the_caches_of_all_cpus_at_rest() {
    thrift(
        "thrift_helper.c",
        r#"
int main(void) {
    begin();
    for (size_t size = 48; size <= 2048; size += size / 4) round_of(size, 100);
    CHECK(field("thread_cache_bytes") > 16 << 10);
    char *large = malloc(16 << 20); CHECK(large); memset(large, 1, 16 << 20); free(large);
    free(malloc(100)); round_of(1000, 2000);
    CHECK(field("helper_starts") > 0);
    for (int left = 500; field("thread_cache_bytes") > 0 && left > 0; left--) usleep(10000);
    CHECK(field("thread_cache_bytes") == 0);
    return 0;
}
"#,
        "front_end=cpu,decay_ms=20",
    );
}

#[test]
fn under_valgrind_threads_have_caches_and_it_is_said() {
    assert!(common::installed("valgrind"), "install valgrind");
    let program = compile(
        "front_end_valgrind.c",
        "#include <stdio.h>\n#include <stdlib.h>\nsize_t spanalloc_stats_json(char *, size_t);\n\
         int main(void) { static char json[1 << 16]; free(malloc(10)); spanalloc_stats_json(json, sizeof json); puts(json); return 0; }",
    );
    let output = passes(
        preloaded("valgrind")
            .env_remove("LD_PRELOAD")
            .args([
                "-q",
                "--tool=none",
                "--soname-synonyms=somalloc=nouserintercepts",
            ])
            .arg(program)
            .env("SPANALLOC_CONF", "front_end=cpu"),
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"front_end\":\"thread\""));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("front_end=cpu needs"), "{errors}");
}
