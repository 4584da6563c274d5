//! Large buffers of many lengths, replaced at random: what is free goes under the next one by the page tables. Their contents stay, blocks
//! of calloc are zero, and the process does not fill up with mappings.

mod common;

use common::{compile, passes, passes_in_every_mode, preloaded};

const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); _exit(1); } } while (0)
#define BLOCKS 12
#define PAGE 4096
extern size_t spanalloc_stats_json(char *, size_t) __attribute__((weak));

struct buffer { unsigned char *bytes; size_t size; unsigned char stamp; };

static unsigned next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}
static void write_to(struct buffer *b, unsigned char stamp) {
    b->stamp = stamp;
    for (size_t at = 0; at < b->size; at += PAGE) b->bytes[at] = stamp + at / PAGE;
    b->bytes[b->size - 1] = stamp;
}
static void has_its_bytes(const struct buffer *b, size_t size) {
    for (size_t at = 0; at < size; at += PAGE)
        CHECK(b->bytes[at] == (unsigned char)(b->stamp + at / PAGE) || at == b->size - 1);
}
static void replace(struct buffer *b, uint64_t *state) {
    if (b->bytes) {
        has_its_bytes(b, b->size);
        CHECK(b->bytes[b->size - 1] == b->stamp);
    }
    size_t size = (300 << 10) + next(state) % (3 << 20);
    int way = next(state) % 8;
    if (way == 0 && b->bytes) {
        size_t kept = size < b->size ? size : b->size;
        CHECK(b->bytes = realloc(b->bytes, size));
        b->size = b->size < size ? b->size : size;
        has_its_bytes(b, kept - 1);
    } else if (way == 1) {
        free(b->bytes);
        CHECK(b->bytes = calloc(1, size));
        for (size_t at = 0; at < size; at++) CHECK(b->bytes[at] == 0);
    } else if (way == 2) {
        free(b->bytes);
        CHECK(!posix_memalign((void **)&b->bytes, 1 << 16, size) && (uintptr_t)b->bytes % (1 << 16) == 0);
    } else {
        free(b->bytes);
        CHECK(b->bytes = malloc(size));
    }
    b->size = size;
    write_to(b, next(state));
}
static void *work(void *seed) {
    uint64_t state = (uintptr_t)seed;
    struct buffer buffers[BLOCKS] = {0};
    for (int i = 0; i < 500; i++) replace(&buffers[next(&state) % BLOCKS], &state);
    if (state % 2) {
        /* Pages that parent and child share are moved by either without the other's seeing it. */
        pid_t child = fork();
        CHECK(child >= 0);
        for (int i = 0; i < 60; i++) replace(&buffers[i % BLOCKS], &state);
        if (child == 0) _exit(0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    for (int i = 0; i < BLOCKS; i++) { has_its_bytes(&buffers[i], buffers[i].size - 1); free(buffers[i].bytes); }
    return NULL;
}
static int mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0, c;
    CHECK(maps);
    while ((c = getc(maps)) != EOF) lines += c == '\n';
    fclose(maps);
    return lines;
}
int main(void) {
    pthread_t threads[2];
    int before = mappings();
    work((void *)1);
    for (uintptr_t i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, work, (void *)(i + 2)));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    int most = mappings() - before;
    malloc_trim(0);
    int left = mappings() - before;
    CHECK(most < 1100 && left <= most);
    static char json[1 << 20];
    CHECK(spanalloc_stats_json && spanalloc_stats_json(json, sizeof json) < sizeof json);
    char *moves = strstr(json, "\"moves\":");
    CHECK(moves);
    printf("%d %d %d\n", atoi(moves + 8), most, left);
    return 0;
}
"#;

#[test]
fn buffers_keep_their_contents_when_free_pages_go_under_them() {
    let program = compile("moving.c", PROGRAM);
    for (settings, moves) in [("", true), ("front_end=cpu", true), ("move_pages=0", false)] {
        let output = passes(preloaded(&program).env("SPANALLOC_CONF", settings));
        let figures = String::from_utf8_lossy(&output.stdout).into_owned();
        let made: u32 = (figures.split_whitespace().next())
            .and_then(|word| word.parse().ok())
            .expect("a number");
        assert_eq!(made > 100, moves, "{settings}: {figures}");
    }
    passes_in_every_mode(&program, &[]);
}

/// The same while everything is against it. Three threads replace their buffers and hand them to each other; `argv[1]` says what is
/// wrong: the system refuses one thread (r) or all (R) to move pages, or only to populate them (p), address space is short (l), the program puts its buffers
/// on huge pages and locks some (h), a timer's handler allocates large blocks, too (s), and the first thread forks (f). Null is an answer where address space is short.
const ADVERSITY: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
#include "refuse.h"
#define BLOCKS 8
#define PAGE 4096
#define SMALL 4000
size_t spanalloc_stats_json(char *, size_t);
/* At the front of each buffer; a byte a page and the last one follow from it. */
struct head { size_t size; uint64_t stamp; };
static struct head *_Atomic shared[BLOCKS];
static const char *wrong;
static int is(char what) { return strchr(wrong, what) != NULL; }
static unsigned next(uint64_t *s) { *s = *s * 6364136223846793005u + 1442695040888963407u; return *s >> 33; }
static unsigned char byte_of(uint64_t stamp, size_t at) { return stamp + at / PAGE * 37; }
static struct head *stamp(struct head *b, size_t size, uint64_t stamp) {
    unsigned char *bytes = (unsigned char *)b;
    for (size_t at = PAGE; at < size; at += PAGE) bytes[at] = byte_of(stamp, at);
    bytes[size - 1] = byte_of(stamp, size);
    b->size = size; b->stamp = stamp;
    return b;
}
static void has_its_bytes(const struct head *b, size_t size) {
    const unsigned char *bytes = (const unsigned char *)b;
    CHECK(b->size >= size);
    for (size_t at = PAGE; at + 1 < size; at += PAGE) CHECK(bytes[at] == byte_of(b->stamp, at));
    if (size == b->size) CHECK(bytes[size - 1] == byte_of(b->stamp, size));
}
static struct head *resized(struct head *b, size_t size, uint64_t *s) {
    size_t kept = b->size < size ? b->size : size;
    uint64_t was = b->stamp;
    has_its_bytes(b, b->size);
    struct head *moved = realloc(b, size);
    if (!moved) { CHECK(is('l') && errno == ENOMEM); has_its_bytes(b, b->size); return b; }
    CHECK(moved->stamp == was);
    has_its_bytes(moved, kept - 1);
    return stamp(moved, size, next(s));
}
static struct head *made(uint64_t *s) {
    size_t size = (300 << 10) + next(s) % (2 << 20);
    int way = next(s) % 8;
    struct head *b = way == 0 ? calloc(1, size) : way == 1 ? aligned_alloc(1 << 15, size) : malloc(size);
    if (!b) { CHECK(is('l') && errno == ENOMEM); return NULL; }
    if (way == 0) for (size_t at = 0; at + 8 <= size; at += 8) CHECK(*(uint64_t *)((char *)b + at) == 0);
    uintptr_t from = ((uintptr_t)b + PAGE - 1) & -PAGE;
    if (is('h') && way % 2) madvise((void *)from, size & -PAGE, MADV_HUGEPAGE);
    if (is('h') && way == 3) { mlock((void *)from, 8 * PAGE); stamp(b, size, 1); munlock((void *)from, 4 * PAGE); }
    return stamp(b, size, next(s));
}
static void gone(struct head *b) { if (b) { has_its_bytes(b, b->size); free(b); } }
static void steps(struct head **mine, int count, uint64_t *s) {
    for (int i = 0; i < count; i++) {
        int at = next(s) % BLOCKS;
        switch (next(s) % 4) {
        case 0: mine[at] = __atomic_exchange_n(&shared[next(s) % BLOCKS], mine[at], __ATOMIC_ACQ_REL); break;
        case 1: if (mine[at]) { mine[at] = resized(mine[at], (300 << 10) + next(s) % (3 << 20), s); break; } /* fall through */
        default: gone(mine[at]); mine[at] = made(s);
        }
    }
}
static void empty(struct head **mine) { for (int i = 0; i < BLOCKS; i++) { gone(mine[i]); mine[i] = NULL; } }
static void *work(void *seed) {
    uint64_t s = (uintptr_t)seed;
    struct head *mine[BLOCKS] = {0};
    steps(mine, 120, &s);
    /* Of this thread alone, with blocks alive that moved. */
    if (is('r') && s % 2) refuse(SYS_mremap, ENOMEM);
    steps(mine, 180, &s);
    empty(mine);
    return NULL;
}
static void handler(int n) {
    (void)n;
    size_t size = 300 << 10; char *p = malloc(size);
    if (p) p[0] = p[size - 1] = 1;
    p = realloc(p, 2 * size);
    if (p) CHECK(p[size - 1] == 1);
    free(p);
}
int main(int argc, char **argv) {
    static char json[1 << 16];
    static char *small[SMALL];
    pthread_t threads[3];
    uint64_t s = 42;
    struct head *mine[BLOCKS] = {0};
    wrong = argv[1];
    free(malloc(1));
    if (is('l')) { struct rlimit limit = {72 << 20, 72 << 20}; CHECK(!setrlimit(RLIMIT_AS, &limit)); }
    if (is('R')) refuse(SYS_mremap, ENOSYS);
    if (is('p')) refuse_where(SYS_madvise, 2, 23, EINVAL);
    if (is('s')) {
        struct itimerval every = {{0, 1000}, {0, 1000}}; struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
        CHECK(!sigaction(SIGALRM, &action, 0) && !setitimer(ITIMER_REAL, &every, 0));
    }
    int count = 0;
    while (count < 3 && !pthread_create(&threads[count], NULL, work, (void *)(uintptr_t)(count + 7))) count++;
    CHECK(count == 3 || is('l'));
    steps(mine, 40, &s);
    /* A class that grows, beside them. */
    for (int i = 0; i < SMALL; i++) if ((small[i] = malloc(1000))) memset(small[i], i, 1000); else CHECK(is('l'));
    for (int n = 0; is('f') && n < 25; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            for (int i = 0; i < BLOCKS; i++) if (mine[i]) has_its_bytes(mine[i], mine[i]->size);
            for (int i = 0; i < BLOCKS; i++) { gone(mine[i]); mine[i] = made(&s); }
            malloc_trim(0);
            for (int i = 0; i < BLOCKS; i++) if (mine[i]) mine[i] = resized(mine[i], 2 * mine[i]->size, &s);
            empty(mine);
            for (int i = 0; i < SMALL; i++) if (small[i]) CHECK(small[i][999] == (char)i);
            _exit(0);
        }
        int at = n % BLOCKS, status;
        gone(mine[at]); mine[at] = made(&s);
        while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR);
        if (status) fprintf(stderr, "child %d: %x\n", n, status);
        CHECK(status == 0);
    }
    for (int i = 0; i < count; i++) CHECK(!pthread_join(threads[i], 0));
    empty(mine);
    for (int i = 0; i < BLOCKS; i++) gone(shared[i]);
    for (int i = 0; i < SMALL; i++) if (small[i]) { for (int k = 0; k < 1000; k++) CHECK(small[i][k] == (char)i); free(small[i]); }
    signal(SIGALRM, SIG_IGN);
    CHECK(spanalloc_stats_json(json, sizeof json) < sizeof json);
    char *moves = strstr(json, "\"moves\":");
    char *populated = strstr(strstr(json, "\"heap_bytes\""), "\"populated_bytes\":");
    CHECK(moves && populated);
    printf("%d %d\n", atoi(moves + 8), atoi(populated + 18));
    return 0;
}
"#;

#[test]
fn buffers_keep_their_contents_while_everything_is_against_them() {
    let program = compile("adversity.c", ADVERSITY);
    for (wrong, settings) in [
        ("r", ""),
        ("R", ""),
        ("p", ""),
        ("l", ""),
        ("l", "front_end=cpu"),
        ("h", "decay_ms=1"),
        ("f", "decay_ms=10"),
        ("fhr", ""),
        ("fs", "front_end=cpu"),
        ("fhl", "check=1"),
    ] {
        let mut command = preloaded(&program);
        let output = passes(command.arg(wrong).env("SPANALLOC_CONF", settings));
        let figures = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{wrong} {settings}: {figures}");
        let figures: Vec<u64> = figures
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        assert_eq!(
            figures[0] > 0,
            wrong != "R",
            "{wrong} {settings}: {figures:?}"
        );
        assert!(!wrong.contains('p') || figures[1] == 0, "{figures:?}");
    }
}

/// Large buffers while another thread sets limits below what is mapped, and takes them back. The kernel unmaps what pages are to move
/// to before it says that they may not.
const LIMITED: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "check.h"
#define BLOCKS 12
#define PAGE 4096
size_t spanalloc_stats_json(char *, size_t);
static volatile int stop;
static unsigned next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}
static void *limit(void *unused) {
    uint64_t state = 1;
    while (!stop) {
        /* The hard limit stays, so that it can be taken back. */
        struct rlimit l = {next(&state) % 3 ? RLIM_INFINITY : next(&state) % (64 << 20), RLIM_INFINITY};
        CHECK(!setrlimit(next(&state) % 2 ? RLIMIT_AS : RLIMIT_DATA, &l));
        usleep(300);
    }
    return 0;
}
int main(void) {
    pthread_t thread;
    uint64_t state = 7;
    struct { unsigned char *bytes; size_t size; unsigned char stamp; } b[BLOCKS] = {0};
    CHECK(!pthread_create(&thread, 0, limit, 0));
    for (int i = 0; i < 2500; i++) {
        int at = next(&state) % BLOCKS;
        size_t size = (300 << 10) + next(&state) % (3 << 20), kept = 0;
        for (size_t k = 0; b[at].bytes && k < b[at].size; k += PAGE) CHECK(b[at].bytes[k] == (unsigned char)(b[at].stamp + k / PAGE));
        unsigned char *got;
        if (next(&state) % 4 == 0 && b[at].bytes) {
            kept = size < b[at].size ? size : b[at].size;
            got = realloc(b[at].bytes, size);
            if (!got) { CHECK(errno == ENOMEM); continue; }
        } else {
            free(b[at].bytes);
            b[at].bytes = 0;
            got = malloc(size);
            if (!got) { CHECK(errno == ENOMEM); continue; }
        }
        for (size_t k = 0; k < kept; k += PAGE) CHECK(got[k] == (unsigned char)(b[at].stamp + k / PAGE));
        b[at].bytes = got; b[at].size = size; b[at].stamp = next(&state);
        for (size_t k = 0; k < size; k += PAGE) got[k] = b[at].stamp + k / PAGE;
    }
    stop = 1;
    CHECK(!pthread_join(thread, 0));
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(!setrlimit(RLIMIT_AS, &none) && !setrlimit(RLIMIT_DATA, &none));
    char json[1 << 15];
    CHECK(spanalloc_stats_json(json, sizeof json) < sizeof json);
    char *moves = strstr(json, "\"moves\":");
    CHECK(moves && atoi(moves + 8) > 10);
    return 0;
}
"#;

#[test]
fn limits_below_what_is_mapped_leave_every_block_whole() {
    let program = compile("moving_limited.c", LIMITED);
    for settings in ["", "front_end=cpu"] {
        passes(preloaded(&program).env("SPANALLOC_CONF", settings));
    }
}
