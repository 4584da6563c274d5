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
