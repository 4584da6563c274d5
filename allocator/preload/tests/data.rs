//! Blocks of the data partition in C programs: they live with free, realloc, fork, threads and every setting, and
//! mistakes with them are found as with others.

mod common;

use common::{compile, passes, preloaded};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "spanalloc.h"
#include "check.h"
static void *work(void *argument) {
    unsigned seed = (uintptr_t)argument;
    char *kept[200] = {0};
    for (int i = 0; i < 5000; i++) {
        int at = rand_r(&seed) % 200;
        size_t size = rand_r(&seed) % (i % 50 ? 3000 : 600000) + 1;
        if (kept[at] && rand_r(&seed) % 3 == 0) CHECK(kept[at] = realloc(kept[at], size));
        else { free(kept[at]); CHECK(kept[at] = rand_r(&seed) % 2 ? spanalloc_malloc_data(size) : malloc(size)); }
        CHECK(malloc_usable_size(kept[at]) >= size);
        memset(kept[at], i, size);
    }
    for (int i = 0; i < 200; i++) free(kept[i]);
    return 0;
}
int main(int argc, char **argv) {
    if (argc > 1) {
        char *block = spanalloc_malloc_data(5000000);
        if (argv[1][0] == 'd') { free(block); free(block); }
        if (argv[1][0] == 'i') free(block + 4096);
        if (argv[1][0] == 's') { block = spanalloc_malloc_data(64); free(block); free(block); }
        return 0;
    }
    errno = 7;
    CHECK(spanalloc_malloc_data(0) && spanalloc_malloc_data(1) && errno == 7);
    CHECK(!spanalloc_malloc_data(SIZE_MAX) && errno == ENOMEM);
    errno = 0;
    CHECK(!spanalloc_malloc_data(PTRDIFF_MAX) && errno == ENOMEM);
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) pthread_create(&threads[i], 0, work, (void *)(i + 1));
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) { free(spanalloc_malloc_data(100)); work((void *)(uintptr_t)9); spanalloc_release_memory(); _exit(0); }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    spanalloc_release_memory();
    return 0;
}
"#;

#[test]
fn data_blocks_live_with_everything_else_under_every_setting() {
    let program = compile("data.c", SOURCE);
    for settings in [
        "",
        "front_end=cpu",
        "check=1",
        "hardened=1,guard_rate=50",
        "profile_bytes=64k",
        "thread_cache_bytes=0,decay_ms=0",
    ] {
        passes(preloaded(&program).env("SPANALLOC_CONF", settings));
    }
    for (mistake, name) in [
        ("double", "double free"),
        ("interior", "middle of a block"),
        ("small", "double free"),
    ] {
        let output = preloaded(&program)
            .arg(mistake)
            .output()
            .expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains("spanalloc: ") && errors.contains(name),
            "{mistake}: {errors}"
        );
    }
}
