//! Blocks that are made of shorter ones which lie free between survivors: a program that shifts its sizes uses them by all the
//! C library's and C++'s names, in every mode, and mistakes with them are reported.

mod common;

use common::{compile, passes, passes_in_every_mode, preloaded};
use std::os::unix::process::ExitStatusExt;

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
void *_Znwm(size_t);
void _ZdlPvm(void *, size_t);
void free_sized(void *, size_t);
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); _exit(1); } } while (0)
#define SMALL 200
#define SMALLS 100000
#define LONGS 3000
static unsigned char *kept[SMALLS], *blocks[LONGS];
static uintptr_t pages[SMALLS];
static int keptn, joined;

static int compare(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}
static void sparse(void) {
    for (int i = 0; i < SMALLS; i++) memset(kept[i] = malloc(SMALL), i, SMALL);
    for (int i = 0; i < SMALLS; i++) {
        if (i % 20 != 3) { free(kept[i]); continue; }
        pages[keptn] = (uintptr_t)kept[i] >> 13;
        kept[keptn++] = kept[i];
    }
    qsort(pages, keptn, sizeof *pages, compare);
}
static int beside_survivors(void *block) {
    uintptr_t page = (uintptr_t)block >> 13;
    return bsearch(&page, pages, keptn, sizeof page, compare) != NULL;
}
static void survivors_are_whole(void) {
    for (int i = 0; i < keptn; i++) {
        CHECK(malloc_usable_size(kept[i]) >= SMALL);
        for (int k = 0; k < SMALL; k++) CHECK(kept[i][k] == (unsigned char)(i * 20 + 3));
    }
}
static void fill(unsigned char *block, int i, size_t asked) {
    CHECK(block && (uintptr_t)block % 16 == 0);
    size_t size = malloc_usable_size(block);
    CHECK(size >= asked);
    memset(block, i, size);
    joined += beside_survivors(block);
}
static void same(unsigned char *block, int i, size_t size) {
    for (size_t k = 0; k < size; k++) CHECK(block[k] == (unsigned char)i);
}
static void take(void) {
    for (int i = 0; i < LONGS; i++) fill(blocks[i] = i % 3 ? malloc(900) : _Znwm(900), i, 900);
}
static void give(void) {
    for (int i = 0; i < LONGS; i++) {
        int at = i * 1009 % LONGS;
        same(blocks[at], at, 900);
        if (at % 3 == 0) _ZdlPvm(blocks[at], 900);
        else if (at % 3 == 1) free(blocks[at]);
        else free_sized(blocks[at], 900);
    }
}
static void *beside(void *arg) {
    for (int round = 0; round < 40; round++)
        for (int i = 0; i < 200; i++) {
            unsigned char *a = malloc(900), *b = malloc(SMALL);
            memset(a, i, 900); memset(b, i, SMALL);
            same(a, i, 900);
            free(a); free(b);
        }
    return arg;
}
int main(int argc, char **argv) {
    alarm(100);
    sparse();
    take();
    survivors_are_whole();
    if (argc > 1) {
        if (joined < LONGS / 2) { fprintf(stderr, "%d beside survivors\n", joined); return 1; }
        unsigned char *block = NULL;
        for (int i = 1; i < LONGS; i += 3) if (beside_survivors(blocks[i])) block = blocks[i];
        free(argv[1][0] == 'i' ? block + 208 : block);
        free(block);
        for (int i = 1; i < LONGS; i += 3) if (blocks[i] != block) free(blocks[i]);
        malloc_trim(0);
        return 0;
    }
    /* Other sizes, in place and moved. */
    for (int i = 0; i < LONGS; i++) {
        if (i % 3 == 0) continue;
        size_t size = i % 2 ? 500 + i % 400 : 900 + i;
        CHECK((blocks[i] = realloc(blocks[i], size)));
        same(blocks[i], i, size < 900 ? size : 900);
        CHECK((blocks[i] = realloc(blocks[i], 900)));
        same(blocks[i], i, size < 900 ? size : 900);
        fill(blocks[i], i, 900);
    }
    pid_t child = fork();
    if (child == 0) { give(); take(); survivors_are_whole(); give(); _exit(0); }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    give();
    for (int i = 0; i < LONGS; i++) {
        unsigned char *zero = calloc(1, 900), *at;
        for (int k = 0; k < 900; k++) CHECK(zero[k] == 0);
        CHECK((at = aligned_alloc(512, 1024)) && (uintptr_t)at % 512 == 0);
        memset(at, 7, malloc_usable_size(at));
        CHECK(posix_memalign((void **)&blocks[i], 128, 900) == 0 && (uintptr_t)blocks[i] % 128 == 0);
        memset(blocks[i], i, 900);
        free(zero); free(at);
    }
    survivors_are_whole();
    pthread_t threads[3];
    for (int t = 0; t < 3; t++) CHECK(pthread_create(&threads[t], NULL, beside, NULL) == 0);
    for (int i = 0; i < LONGS; i++) { same(blocks[i], i, 900); free(blocks[i]); }
    for (int t = 0; t < 3; t++) pthread_join(threads[t], NULL);
    survivors_are_whole();
    take();
    for (int i = 0; i < keptn; i += 2) free(kept[i]);
    give();
    for (int i = 1; i < keptn; i += 2) free(kept[i]);
    malloc_trim(0);
    struct mallinfo2 info = mallinfo2();
    const char *settings = getenv("SPANALLOC_CONF");
    /* A quarantine is in use. */
    CHECK(info.uordblks < 1 << 20 || (settings && strstr(settings, "hardened")));
    printf("%d\n", joined);
    return 0;
}
"#;

#[test]
fn blocks_between_survivors_are_blocks_like_any_other() {
    let program = compile("joined.c", PROGRAM);
    for settings in ["", "front_end=cpu", "profile_bytes=4096", "decay_ms=0"] {
        let output = passes(preloaded(&program).env("SPANALLOC_CONF", settings));
        let joined: u32 = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .expect("a number");
        assert!(joined > 1_000, "{settings}: {joined} beside survivors");
    }
    passes_in_every_mode(&program, &[]);
}

#[test]
fn mistakes_with_such_blocks_are_reported() {
    let program = compile("joined_mistakes.c", PROGRAM);
    for (kind, message) in [
        ("interior", "into the middle of a block: 0x"),
        ("twice", "double free of 0x"),
    ] {
        let output = preloaded(&program)
            .arg(kind)
            .output()
            .expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(6), "{kind}: {text}");
        assert!(text.contains(message), "{kind}: {text}");
    }
}
