//! C programs that check what C, POSIX and glibc's manual promise, run on the library.

mod common;

use common::{compile, library, passes, passes_in_every_mode, preloaded};

/// Common opening of the C programs: a check that prints its line and fails.
const HEAD: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <dlfcn.h>
#include "check.h"
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
"#;

/// Runs a program under all settings.
fn program(name: &str, body: &str) {
    passes_in_every_mode(compile(name, &format!("{HEAD}{body}")), &[]);
}

#[test]
fn arguments_results_and_errno() {
    program(
        "semantics.c",
        r#"
volatile size_t huge = SIZE_MAX;
int main(void) {
    void *a = malloc(0), *b = malloc(0);
    CHECK(a && b && a != b);
    errno = 77; free(a); free(b); free(NULL); CHECK(errno == 77);
    errno = 0; CHECK(!malloc(huge)); CHECK(errno == ENOMEM);
    errno = 0; CHECK(!malloc((size_t)PTRDIFF_MAX + 1)); CHECK(errno == ENOMEM);
    errno = 0; CHECK(!calloc(huge / 2, 3)); CHECK(errno == ENOMEM);
    errno = 0; CHECK(!reallocarray(NULL, huge / 2, 3)); CHECK(errno == ENOMEM);
    errno = 0; CHECK(!aligned_alloc(24, 10)); CHECK(errno == EINVAL);
    void *out = (void *)0x1234;
    errno = 55;
    CHECK(posix_memalign(&out, 3, 10) == EINVAL && out == (void *)0x1234);
    CHECK(posix_memalign(&out, 4, 10) == EINVAL && out == (void *)0x1234);
    CHECK(posix_memalign(&out, 0, 10) == EINVAL && out == (void *)0x1234);
    CHECK(posix_memalign(&out, 64, huge - 100) == ENOMEM && out == (void *)0x1234);
    CHECK(errno == 55);
    for (size_t align = sizeof(void *); align <= 4 << 20; align *= 2)
        for (size_t size = 0; size < 40000; size = size * 3 + 1) {
            CHECK(posix_memalign(&out, align, size) == 0 && (uintptr_t)out % align == 0);
            CHECK(malloc_usable_size(out) >= size);
            memset(out, 1, malloc_usable_size(out));
            void *second = aligned_alloc(align, size);
            CHECK((uintptr_t)second % align == 0 && second != out);
            free_aligned_sized(second, align, size);
            free(out);
        }
    for (size_t size = 0; size < 3000000; size = size * 5 / 4 + 1) {
        char *p = malloc(size);
        CHECK((uintptr_t)p % (size > 8 ? 16 : 8) == 0);
        size_t usable = malloc_usable_size(p);
        CHECK(usable >= size);
        memset(p, 0xA5, usable);
        char *q = realloc(p, size * 2 + 1);
        for (size_t i = 0; i < size; i++) CHECK(q[i] == (char)0xA5);
        q = realloc(q, size / 3 + 1);
        for (size_t i = 0; i < size / 3; i++) CHECK(q[i] == (char)0xA5);
        free(q);
        char *z = calloc(size, 1);
        for (size_t i = 0; i < size; i++) CHECK(z[i] == 0);
        memset(z, 1, malloc_usable_size(z));
        free_sized(z, size);
    }
    CHECK(realloc(malloc(10), 0) == NULL);
    char *keep = malloc(100); strcpy(keep, "kept");
    errno = 0; CHECK(!realloc(keep, huge - 4096) && errno == ENOMEM && !strcmp(keep, "kept"));
    char *shrunk = realloc(malloc(1000), 600); free_sized(shrunk, 600);
    CHECK((uintptr_t)valloc(1) % 4096 == 0 && (uintptr_t)pvalloc(1) % 4096 == 0);
    CHECK((uintptr_t)memalign(48, 1) % 64 == 0);
    CHECK(mallopt(M_TRIM_THRESHOLD, 1) == 1 && mallopt(12345, 1) == 0);
    return 0;
}
"#,
    );
}

/// A large block whose free neighbour is too short for it to grow moves by the page tables; what lay in the neighbour stays
/// behind and is no zero.
#[test]
fn zeroed_blocks_are_zero_where_others_tried_to_grow() {
    program(
        "zeroes.c",
        r#"
#define N 8
static char *blocks[N][3];
int main(void) {
    for (int round = 0; round < 4; round++) {
        for (int n = 0; n < N; n++) for (int k = 0; k < 3; k++) { CHECK(blocks[n][k] = malloc(600000)); memset(blocks[n][k], 0x11 << k, 600000); }
        for (int n = 0; n < N; n++) free(blocks[n][1]);
        for (int n = 0; n < N; n++) {
            char *moved = realloc(blocks[n][0], 3 << 20); CHECK(moved);
            for (int i = 0; i < 600000; i += 97) CHECK(moved[i] == 0x11);
            blocks[n][0] = moved;
        }
        for (size_t size = 500000; size < 1800000; size += 70000) {
            char *zeroes[N];
            for (int n = 0; n < N; n++) { CHECK(zeroes[n] = calloc(1, size)); for (size_t i = 0; i < size; i += 64) CHECK(!zeroes[n][i]); }
            for (int n = 0; n < N; n++) free(zeroes[n]);
        }
        for (int n = 0; n < N; n++) { free(blocks[n][0]); free(blocks[n][2]); }
    }
    return 0;
}
"#,
    );
}

#[test]
fn statistics_are_true_and_memory_goes_back() {
    let source = r#"
#include "spanalloc.h"
static long resident(void) {
    long pages = 0; FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%*s %ld", &pages) == 1); fclose(f); return pages * 4096;
}
int main(void) {
    static char *blocks[20000];
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 20000; i++) { blocks[i] = malloc(4096); memset(blocks[i], 1, 4096); }
    struct mallinfo2 full = mallinfo2();
    CHECK(full.uordblks - before.uordblks >= 20000u * 4096 && full.uordblks - before.uordblks < 22000u * 4096);
    long high = resident();
    for (int i = 0; i < 20000; i++) free(blocks[i]);
    malloc_trim(0);
    CHECK(resident() < high - (70L << 20));
    CHECK(mallinfo2().uordblks < before.uordblks + (1 << 20));
    char json[65536]; size_t n = spanalloc_stats_json(json, sizeof json);
    CHECK(n == strlen(json) && json[0] == '{' && json[n - 1] == '}' && strstr(json, "\"decay_ms\":250"));
    char tiny[8]; CHECK(spanalloc_stats_json(tiny, 8) > 8 && strlen(tiny) == 7);
    CHECK(spanalloc_version()[0] && spanalloc_heap_profile("x") == ENODATA);
    spanalloc_release_memory();
    char *text; size_t length; FILE *f = open_memstream(&text, &length);
    CHECK(malloc_info(0, f) == 0 && malloc_info(1, f) == -1); fclose(f);
    CHECK(strstr(text, "<malloc version") && strstr(text, "</malloc>"));
    malloc_stats();
    return 0;
}
"#;
    let program = compile("statistics.c", &format!("{HEAD}{source}"));
    passes(preloaded(program).env("SPANALLOC_CONF", "decay_ms=250"));
}

#[test]
fn life_cycle_constructors_destructors_threads_and_exit() {
    program(
        "lifecycle.c",
        r#"
static char *early;
static pthread_key_t keys[3];
static void use(void) { for (int i = 1; i < 200; i++) { char *p = calloc(1, i * 7); CHECK(p && !p[i]); free(p); } }
__attribute__((constructor)) static void first(void) { early = strdup("early"); use(); }
__attribute__((destructor)) static void last(void) { use(); free(early); use(); }
static void at_exit(void) { use(); }
static void tls_end(void *value) {
    use(); free(value);
    static __thread int rounds;
    if (++rounds < 9) pthread_setspecific(keys[rounds % 3], malloc(50));
}
static void *body(void *number) {
    for (int i = 0; i < 3; i++) pthread_setspecific(keys[i], malloc(100 + i));
    use();
    return malloc((size_t)number % 2000);
}
int main(void) {
    atexit(at_exit);
    /* Without caches each block is two locks. */
    size_t threads = strstr(getenv("SPANALLOC_CONF"), "=1") ? 1000 : 10000;
    for (int i = 0; i < 3; i++) CHECK(!pthread_key_create(&keys[i], tls_end));
    for (size_t n = 0; n < threads; n += 10) {
        pthread_t t[10];
        for (size_t i = 0; i < 10; i++) CHECK(!pthread_create(&t[i], NULL, body, (void *)(n + i)));
        for (int i = 0; i < 10; i++) { void *p; pthread_join(t[i], &p); free(p); }
    }
    void *lib = dlopen("libm.so.6", RTLD_NOW); CHECK(lib); use(); dlclose(lib);
    pid_t child = vfork();
    if (!child) _exit(0);
    CHECK(waitpid(child, NULL, 0) == child);
    return 0;
}
"#,
    );
}

#[test]
fn fork_while_other_threads_allocate() {
    program(
        "fork.c",
        r#"
static volatile int stop;
static void *worker(void *seed) {
    unsigned r = (unsigned)(uintptr_t)seed; char *live[64] = {0};
    while (!stop) { r = r * 1664525 + 1013904223; int i = r >> 26; free(live[i]); live[i] = malloc((r >> 8) % (i == 3 ? 600000 : 4000)); if (live[i]) live[i][0] = 1; }
    for (int i = 0; i < 64; i++) free(live[i]);
    return NULL;
}
int main(void) {
    pthread_t t[2]; char *parents[50]; int forks = *getenv("SPANALLOC_CONF") ? 250 : 1000;
    for (size_t i = 0; i < 2; i++) pthread_create(&t[i], NULL, worker, (void *)(i + 1));
    for (int n = 0; n < forks; n++) {
        for (int i = 0; i < 50; i++) parents[i] = malloc(i * 100);
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            alarm(20);
            for (int i = 0; i < 50; i++) free(parents[i]);
            for (int i = 1; i < 500; i++) { char *p = malloc(i * 37 % 9000); if (!p) _exit(2); memset(p, 1, i * 37 % 9000); free(p); }
            pthread_t own; if (pthread_create(&own, NULL, worker, (void *)9)) _exit(3);
            stop = 1; pthread_join(own, NULL); malloc_trim(0);
            if (n % 2) exit(0); else _exit(0);
        }
        int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
        for (int i = 0; i < 50; i++) free(parents[i]);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    return 0;
}
"#,
    );
}

#[test]
fn sixty_four_threads_hand_blocks_around() {
    program(
        "handover.c",
        r#"
#define SLOTS 4096
static char *slots[SLOTS];
static void *worker(void *seed) {
    unsigned r = (unsigned)(uintptr_t)seed * 2654435761u;
    for (int n = 0; n < 20000; n++) {
        r = r * 1664525 + 1013904223;
        size_t size = 16 + (r >> 8) % ((r & 255) == 0 ? 300000 : 1500);
        char *p = malloc(size);
        CHECK(p);
        p[8] = p[size - 1] = (char)size; *(unsigned *)p = size;
        char *old = __atomic_exchange_n(&slots[r % SLOTS], p, __ATOMIC_ACQ_REL);
        if (old) { unsigned s = *(unsigned *)old; CHECK(old[8] == (char)s && old[s - 1] == (char)s); free(old); }
    }
    return NULL;
}
int main(void) {
    pthread_t t[64];
    for (size_t i = 0; i < 64; i++) CHECK(!pthread_create(&t[i], NULL, worker, (void *)(i + 1)));
    for (int i = 0; i < 64; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < SLOTS; i++) free(slots[i]);
    return 0;
}
"#,
    );
}

#[test]
fn memory_limits_give_null_and_errno() {
    program(
        "limits.c",
        r#"
#include <sys/resource.h>
int main(void) {
    for (long mib = 32; mib <= 256; mib *= 2) {
        pid_t child = fork();
        if (!child) {
            struct rlimit limit = {mib << 20, mib << 20}; CHECK(!setrlimit(RLIMIT_AS, &limit));
            static char *blocks[100000]; int n = 0; size_t total = 0;
            for (; n < 100000; n++) {
                size_t size = n % 50 == 0 ? 300000 : n % 3000 + 1;
                errno = 0; blocks[n] = malloc(size);
                if (!blocks[n]) { CHECK(errno == ENOMEM); break; }
                memset(blocks[n], 1, size); total += size;
            }
            CHECK(n < 100000 && total > ((size_t)mib << 20) / 4);
            for (int i = 0; i < n; i++) free(blocks[i]);
            for (int i = 0; i < 1000; i++) { char *p = malloc(i); CHECK(p); free(p); }
            /* Short blocks get what long ones have left, their records included. */
            void **last = NULL, **block; size_t large = 0, small = 0;
            for (; (block = malloc(1 << 20)); last = block, large += 1 << 20) *block = last;
            while (last) { block = *last; free(last); last = block; }
            for (; (block = malloc(48)); last = block, small += 48) *block = last;
            CHECK(errno == ENOMEM && small > large / 4 * 3);
            while (last) { block = *last; free(last); last = block; }
            _exit(0);
        }
        int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return 0;
}
"#,
    );
}

#[test]
fn a_system_that_refuses_a_call_is_survived() {
    program(
        "refused.c",
        r#"
#include "refuse.h"
static char *blocks[40000];
static void churn(int may_fail) {
    int n = 0;
    for (; n < 40000; n++) {
        size_t size = n % 50 == 0 ? 300000 : n % 3000 + 1;
        errno = 0; blocks[n] = malloc(size);
        if (!blocks[n]) { CHECK(may_fail && errno == ENOMEM); break; }
        memset(blocks[n], n, size);
    }
    CHECK(!may_fail || n < 40000);
    for (int i = 0; i < n; i++) { CHECK(blocks[i][0] == (char)i); free(blocks[i]); }
}
int main(void) {
    unsigned calls[] = {SYS_mremap, SYS_madvise, SYS_mmap, SYS_clone};
    for (int c = 0; c < 4; c++) {
        pid_t child = fork();
        if (!child) {
            alarm(60);
            churn(0);
            refuse(calls[c], ENOMEM);
            if (calls[c] == SYS_mmap) {
                /* What the heap has is still good; more is refused, again and again. */
                char *big[1000]; int n = 0;
                while (n < 1000 && (big[n] = malloc(8 << 20))) n++;
                CHECK(n < 1000 && errno == ENOMEM && !calloc(1, 64 << 20) && !aligned_alloc(1 << 20, 64 << 20));
                char *keep = malloc(100); strcpy(keep, "kept");
                CHECK(!realloc(keep, 64 << 20) && !strcmp(keep, "kept"));
                while (n--) free(big[n]);
            } else
                churn(0);
            char *p = malloc(1 << 20);
            for (size_t size = 1 << 20; size < 60 << 20 && calls[c] != SYS_mmap; size = size * 5 / 3) {
                for (size_t at = 0; at < size; at += 4096) p[at] = at >> 12;
                p = realloc(p, size * 5 / 3);
                for (size_t at = 0; at < size; at += 4096) CHECK(p[at] == (char)(at >> 12));
            }
            free(p); malloc_trim(0);
            for (int i = 0; i < 2000; i++) { char *z = calloc(1, i * 9); for (int k = 0; k < i * 9; k++) CHECK(!z[k]); memset(z, 1, i * 9); free(z); }
            _exit(0);
        }
        int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    return 0;
}
"#,
    );
}

#[test]
fn settings_are_read_and_wrong_ones_warned_about() {
    let output = passes(preloaded("true").env(
        "SPANALLOC_CONF",
        "decay_ms=5,colour=blue,thread_cache_bytes=many",
    ));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("unknown key in 'colour=blue'"), "{text}");
    assert!(
        text.contains("cannot read 'thread_cache_bytes=many'"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2, "{text}");
    // One line each: what is wrong, and what may be.
    let lines = [
        (
            "decay_ms=-5",
            "cannot use 'decay_ms=-5'; decay_ms is -1 to 86400000, milliseconds that free pages stay before they are given back; 0 at once, -1 never",
        ),
        (
            "thread_cache_bytes=99g",
            "cannot use 'thread_cache_bytes=99g'; thread_cache_bytes is 0 to 1g, bytes that one thread's caches may hold; 0 turns them nearly off",
        ),
        (
            "front_end=both",
            "cannot read 'front_end=both'; front_end is thread: a cache per thread; cpu: one per CPU, by restartable sequences; auto: thread",
        ),
        (
            "check=0,hardened=1",
            "check=0 has no effect, as hardened=1 checks every call; leave one of them out",
        ),
        (
            "guard_rate=5",
            "guard_rate has no effect without hardened=1",
        ),
        (
            "quarantine_bytes=5m,check=1",
            "quarantine_bytes has no effect without hardened=1",
        ),
        (
            "decay_ms=-1,helper=1",
            "helper=1 has no effect, as nothing is given back with decay_ms=-1",
        ),
        (
            "limit_soft=2g,limit_hard=1g",
            "limit_soft is never reached, as limit_hard is lower",
        ),
    ];
    for (settings, said) in lines {
        let output = passes(preloaded("true").env("SPANALLOC_CONF", settings));
        let text = String::from_utf8_lossy(&output.stderr);
        let line = format!("spanalloc: warning: SPANALLOC_CONF: {said}\n");
        assert_eq!(text, line, "{settings}");
    }
    for settings in [
        "decay_ms=0",
        "hardened=1,guard_rate=5,quarantine_bytes=1g",
        "hardened=1,check=1",
        "decay_ms=-1,helper=0",
        "limit_soft=1g,limit_hard=1g",
    ] {
        let quiet = passes(preloaded("true").env("SPANALLOC_CONF", settings));
        assert!(quiet.stderr.is_empty(), "{settings}: {quiet:?}");
    }
}

#[test]
fn the_library_exports_the_whole_family_and_nothing_else() {
    let output = passes(
        std::process::Command::new("nm")
            .args(["-D", "--defined-only", "-P"])
            .arg(library()),
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for wanted in [
        "malloc",
        "free",
        "calloc",
        "realloc",
        "reallocarray",
        "aligned_alloc",
        "memalign",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "malloc_usable_size",
        "free_sized",
        "free_aligned_sized",
        "malloc_trim",
        "malloc_stats",
        "mallinfo2",
        "malloc_info",
        "mallopt",
        "_Znwm",
        "_Znam",
        "_ZdlPv",
        "_ZdaPv",
        "_ZdlPvm",
        "_ZdaPvm",
        "_ZnwmRKSt9nothrow_t",
        "_ZnwmSt11align_val_t",
        "_ZnwmSt11align_val_tRKSt9nothrow_t",
        "_ZdlPvmSt11align_val_t",
        "vfork",
        "spanalloc_version",
        "spanalloc_stats_json",
        "spanalloc_release_memory",
        "spanalloc_heap_profile",
        "spanalloc_profile_start",
    ] {
        assert!(names.contains(&wanted), "{wanted} is not exported");
    }
    for name in names {
        let ours = ["_Zn", "_Zd", "spanalloc_", "mall"]
            .iter()
            .any(|start| name.starts_with(start))
            || [
                "free",
                "calloc",
                "realloc",
                "reallocarray",
                "aligned_alloc",
                "memalign",
                "posix_memalign",
                "valloc",
                "pvalloc",
                "free_sized",
                "free_aligned_sized",
                "cfree",
                "vfork",
            ]
            .contains(&name);
        assert!(ours, "{name} is exported by mistake");
    }
}

#[test]
fn the_library_needs_no_rust_allocator_and_only_the_c_library() {
    let symbols = passes(
        std::process::Command::new("nm")
            .args(["-D", "--undefined-only", "-P"])
            .arg(library()),
    );
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    assert!(symbols.contains("pthread_key_create"), "{symbols}");
    for name in ["__rust_alloc", "__tls_get_addr", "malloc", "calloc"] {
        let needed = symbols
            .lines()
            .any(|line| line.split(' ').next() == Some(name));
        assert!(!needed, "{name} is needed:\n{symbols}");
    }
    let needed = passes(
        std::process::Command::new("readelf")
            .arg("-d")
            .arg(library()),
    );
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    for line in needed.lines().filter(|line| line.contains("(NEEDED)")) {
        let known = ["libc.so", "libgcc_s.so", "ld-linux"]
            .iter()
            .any(|name| line.contains(name));
        assert!(known, "{line}");
    }
}
