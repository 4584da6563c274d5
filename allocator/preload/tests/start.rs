//! What a process has in memory because of the library before it has done anything.

mod common;

use common::{compile, passes, preloaded};

/// A program of one thread that does what most do before anything else (a block, one by realloc, a file read through a buffer) or, with
/// an argument, allocates many of a few sizes, and sums up what `smaps` says: resident KiB of the library's own file in its mappings of
/// code, in order, and in all.
const START: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char text[1 << 18];
int main(int argc, char **argv) {
    int works = argc > 1;
    for (int i = 0; i < (works ? 1000 : 1); i++) {
        void *p = malloc(i % 300);
        if (works) { void *q = calloc(1, 40); q = realloc(q, 90); free(q); }
        free(p);
    }
    free(realloc(NULL, 100));
    void *file_of_c = malloc(472), *buffer = malloc(4096);
    free(buffer);
    free(file_of_c);
    int f = open("/proc/self/smaps", O_RDONLY), n = 0;
    for (ssize_t k; (k = read(f, text + n, sizeof text - 1 - n)) > 0;) n += k;
    int ours = 0, file = 0, mappings = 0, code[9] = {0}, length[9] = {0}, *in = NULL;
    char name[300];
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char kind[8]; int kib; unsigned long start, end;
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %299s", &start, &end, kind, name) >= 3 && strchr(kind, 'p')) {
            ours = strstr(line, "libspanalloc") != NULL;
            if (ours && kind[2] == 'x' && mappings < 9) length[mappings] = (end - start) >> 10;
            in = ours && kind[2] == 'x' && mappings < 9 ? &code[mappings++] : NULL;
        } else if (ours && sscanf(line, "Rss: %d", &kib) == 1) {
            file += kib;
            if (in) *in += kib;
        }
    }
    if (mappings != 3) { fprintf(stderr, "%d mappings of code\n", mappings); return 1; }
    if (length[0] > 40 || length[1] > 40) { fprintf(stderr, "code of %d and %d KiB\n", length[0], length[1]); return 1; }
    if (code[2] != 0) { fprintf(stderr, "%d KiB of what is rare\n", code[2]); return 1; }
    if (!works && code[1] != 0) { fprintf(stderr, "%d KiB of what comes later\n", code[1]); return 1; }
    if (code[0] < 16 || file > (works ? 104 : 64)) { fprintf(stderr, "%d KiB of the library are resident\n", file); return 1; }
    return 0;
}
"#;

#[test]
fn what_is_rare_is_not_in_memory_and_the_rest_is_small() {
    let program = compile("start.c", START);
    passes(&mut preloaded(&program));
    passes(preloaded(&program).arg("works"));
}

/// A program that uses the seven smallest classes; how many pages of the library's statics are its own.
const STATE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static uintptr_t first, end;
static int note(struct dl_phdr_info *library, size_t size, void *unused) {
    (void)size; (void)unused;
    for (int i = 0; strstr(library->dlpi_name, "libspanalloc") && i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &library->dlpi_phdr[i];
        if (part->p_type != PT_LOAD) continue;
        /* The last one is what counts: they are in order. */
        first = library->dlpi_addr + part->p_vaddr;
        end = first + part->p_memsz;
    }
    return 0;
}
int main(void) {
    for (int i = 0; i < 2000; i++) {
        void *blocks[7];
        for (int j = 0; j < 7; j++) blocks[j] = memset(malloc(j ? 16 * j : 8), 1, 8);
        for (int j = 0; j < 7; j++) free(blocks[j]);
    }
    dl_iterate_phdr(note, NULL);
    int f = open("/proc/self/pagemap", O_RDONLY), own = 0;
    for (uintptr_t page = first / 4096; page <= (end - 1) / 4096; page++) {
        uint64_t entry = 0;
        if (pread(f, &entry, 8, page * 8) != 8) { perror("pagemap"); return 1; }
        /* Present, of no file, and nobody else's: the page of zeros that is read before anything is written is not. */
        own += entry >> 63 & ~(entry >> 61) & entry >> 56 & 1;
    }
    if (end - first < 65536 || own != 1) { fprintf(stderr, "%d of %zu bytes\n", own, (size_t)(end - first)); return 1; }
    return 0;
}
"#;

#[test]
fn the_state_of_a_small_heap_is_one_page() {
    passes(&mut preloaded(compile("state.c", STATE)));
}

/// A program with one block of each of 31 classes, the largest first; how many pages they lie on, and that each has what was
/// asked for.
const ONE_OF_EACH: &str = r#"
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) {
    unsigned char *blocks[64];
    uintptr_t pages[64];
    int count = 0;
    for (int i = 0; i < 64; i++) {
        size_t size = 1024 - 16 * i;
        blocks[i] = i % 2 ? malloc(size) : calloc(1, size);
        if (malloc_usable_size(blocks[i]) < size) { fprintf(stderr, "%zu bytes are less\n", size); return 1; }
        for (size_t at = 0; i % 2 == 0 && at < size; at++) if (blocks[i][at]) { fprintf(stderr, "not zero\n"); return 1; }
        memset(blocks[i], i + 1, malloc_usable_size(blocks[i]));
        uintptr_t page = (uintptr_t)blocks[i] / 4096;
        int known = 0;
        for (int j = 0; j < count; j++) known |= pages[j] == page;
        if (!known) pages[count++] = page;
    }
    for (int i = 0; i < 64; i++) {
        for (size_t at = 0; at < malloc_usable_size(blocks[i]); at++)
            if (blocks[i][at] != i + 1) { fprintf(stderr, "block %d was overwritten\n", i); return 1; }
        free(blocks[i]);
    }
    if (count > 16) { fprintf(stderr, "they lie on %d pages\n", count); return 1; }
    return 0;
}
"#;

#[test]
fn the_first_blocks_of_many_classes_share_pages() {
    let program = compile("one_of_each.c", ONE_OF_EACH);
    for settings in ["", "front_end=cpu"] {
        passes(preloaded(&program).env("SPANALLOC_CONF", settings));
    }
}
