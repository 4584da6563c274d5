//! What is measured: the C program with a loop for each row of the table, and which entry points have none.

use std::fmt::Write;

/// Iterations of each loop of `PATHS`.
pub const ROUNDS: u64 = 1000;

/// A row of the table: only what `measured` executes counts.
pub struct Path {
    pub title: &'static str,
    /// The exported name that it is about.
    pub entry: &'static str,
    before: &'static str,
    measured: &'static str,
    after: &'static str,
}

/// Rows that begin with a block from somewhere, or with none, and end with it freed.
macro_rules! paths {
    ($($title:literal, $entry:literal: [$before:literal] $measured:literal [$after:literal];)*) => {
        [$(Path {
            title: $title,
            entry: $entry,
            before: $before,
            measured: $measured,
            after: $after,
        }),*]
    };
}

pub const PATHS: [Path; 32] = paths! {
    "malloc 64", "malloc": [""] "use(malloc(64))" ["free(kept)"];
    "malloc 2048", "malloc": [""] "use(malloc(2048))" ["free(kept)"];
    "free 64", "free": ["use(malloc(64))"] "free(kept)" [""];
    "free 2048", "free": ["use(malloc(2048))"] "free(kept)" [""];
    "free 64 of data", "free": ["use(spanalloc_malloc_data(64))"] "free(kept)" [""];
    "calloc 1 x 64", "calloc": [""] "use(calloc(1, 64))" ["free(kept)"];
    "calloc 1 x 512", "calloc": [""] "use(calloc(1, 512))" ["free(kept)"];
    "realloc in place", "realloc": ["use(malloc(64))"] "use(realloc(kept, 60))" ["free(kept)"];
    "reallocarray in place", "reallocarray": ["use(malloc(64))"] "use(reallocarray(kept, 4, 15))" ["free(kept)"];
    "aligned_alloc 16, 64", "aligned_alloc": [""] "use(aligned_alloc(16, 64))" ["free(kept)"];
    "aligned_alloc 64, 64", "aligned_alloc": [""] "use(aligned_alloc(64, 64))" ["free(kept)"];
    "memalign 16, 64", "memalign": [""] "use(memalign(16, 64))" ["free(kept)"];
    "memalign 64, 64", "memalign": [""] "use(memalign(64, 64))" ["free(kept)"];
    "posix_memalign 16, 64", "posix_memalign": [""] "posix_memalign((void **)&kept, 16, 64)" ["free(kept)"];
    "posix_memalign 64, 64", "posix_memalign": [""] "posix_memalign((void **)&kept, 64, 64)" ["free(kept)"];
    "valloc 64", "valloc": [""] "use(valloc(64))" ["free(kept)"];
    "pvalloc 64", "pvalloc": [""] "use(pvalloc(64))" ["free(kept)"];
    "free_sized 64", "free_sized": ["use(malloc(64))"] "free_sized(kept, 64)" [""];
    "free_aligned_sized 64", "free_aligned_sized": ["use(aligned_alloc(64, 64))"] "free_aligned_sized(kept, 64, 64)" [""];
    "usable_size 64", "malloc_usable_size": ["use(malloc(64))"] "malloc_usable_size(kept)" ["free(kept)"];
    "new 64", "_Znwm": [""] "use(_Znwm(64))" ["free(kept)"];
    "new nothrow 64", "_ZnwmRKSt9nothrow_t": [""] "use(_ZnwmRKSt9nothrow_t(64, 0))" ["free(kept)"];
    "new aligned 64", "_ZnwmSt11align_val_t": [""] "use(_ZnwmSt11align_val_t(64, 64))" ["free(kept)"];
    "new aligned nothrow 64", "_ZnwmSt11align_val_tRKSt9nothrow_t": [""] "use(_ZnwmSt11align_val_tRKSt9nothrow_t(64, 64, 0))" ["free(kept)"];
    "delete 64", "_ZdlPv": ["use(_Znwm(64))"] "_ZdlPv(kept)" [""];
    "delete nothrow 64", "_ZdlPvRKSt9nothrow_t": ["use(_Znwm(64))"] "_ZdlPvRKSt9nothrow_t(kept, 0)" [""];
    "delete sized 64", "_ZdlPvm": ["use(_Znwm(64))"] "_ZdlPvm(kept, 64)" [""];
    "delete aligned 64", "_ZdlPvSt11align_val_t": ["use(_ZnwmSt11align_val_t(64, 64))"] "_ZdlPvSt11align_val_t(kept, 64)" [""];
    "delete aligned nothrow 64", "_ZdlPvSt11align_val_tRKSt9nothrow_t": ["use(_ZnwmSt11align_val_t(64, 64))"] "_ZdlPvSt11align_val_tRKSt9nothrow_t(kept, 64, 0)" [""];
    "delete sized aligned 64", "_ZdlPvmSt11align_val_t": ["use(_ZnwmSt11align_val_t(64, 64))"] "_ZdlPvmSt11align_val_t(kept, 64, 64)" [""];
    "malloc_data 64", "spanalloc_malloc_data": [""] "use(spanalloc_malloc_data(64))" ["free(kept)"];
    "try_grow 64 to 60", "spanalloc_try_grow": ["use(malloc(64))"] "spanalloc_try_grow(kept, 60)" ["free(kept)"];
};

/// Entry points without a row: none of them allocates or frees on a fast path.
pub const NO_FAST_PATH: [&str; 15] = [
    "mallinfo",
    "mallinfo2",
    "malloc_info",
    "malloc_stats",
    "malloc_trim",
    "mallopt",
    "spanalloc_dump",
    "spanalloc_heap_profile",
    "spanalloc_profile_start",
    "spanalloc_release_memory",
    "spanalloc_set_limits",
    "spanalloc_stats_json",
    "spanalloc_version",
    "spanalloc_walk",
    "vfork",
];

/// Loops of which all instructions in the library count, slow paths too: name, blocks, code.
pub const LOOPS: [(&str, u64, &str); 5] = [
    (
        "1,000 x 64 B, last in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(64); for (int k = 999; k >= 0; k--) free(many[k])",
    ),
    (
        "1,000 x 64 B, first in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(64); for (int k = 0; k < 1000; k++) free(many[k])",
    ),
    (
        "1,000 x 1 KiB, last in first out",
        1000,
        "for (int k = 0; k < 1000; k++) many[k] = malloc(1024); for (int k = 999; k >= 0; k--) free(many[k])",
    ),
    (
        "20,000 x 64 B, shuffled",
        20_000,
        "for (int k = 0; k < 20000; k++) many[k] = malloc(64); for (int k = 0; k < 20000; k++) free(many[k * 7919L % 20000])",
    ),
    (
        "20,000 x 16 B to 4 KiB, shuffled",
        20_000,
        "for (int k = 0; k < 20000; k++) many[k] = malloc(16 + k * 7919L % 4080); for (int k = 0; k < 20000; k++) free(many[k * 7919L % 20000])",
    ),
];

/// Valgrind has no restartable sequences, so the program says itself where its thread's area is, as glibc does elsewhere: that
/// of a thread which is always on processor 0 and never interrupted.
const HEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/callgrind.h>
#include <spanalloc.h>
__thread long area[4] __attribute__((aligned(32)));
__asm__(".pushsection .data\n.balign 8\n.globl __rseq_offset, __rseq_size\n.type __rseq_offset, @object\n.size __rseq_offset, 8\n"
        "__rseq_offset: .quad area@tpoff\n.type __rseq_size, @object\n.size __rseq_size, 4\n__rseq_size: .long 32\n.popsection");
void free_sized(void *, size_t), free_aligned_sized(void *, size_t, size_t);
void *_Znwm(size_t), *_ZnwmRKSt9nothrow_t(size_t, const void *);
void *_ZnwmSt11align_val_t(size_t, size_t), *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t, size_t, const void *);
void _ZdlPv(void *), _ZdlPvRKSt9nothrow_t(void *, const void *), _ZdlPvm(void *, size_t);
void _ZdlPvSt11align_val_t(void *, size_t), _ZdlPvSt11align_val_tRKSt9nothrow_t(void *, size_t, const void *);
void _ZdlPvmSt11align_val_t(void *, size_t, size_t);
static void *volatile kept;
static void *many[20000];
#define use(x) (kept = (x))
int main(void) {
  Dl_info library;
  if (!dladdr((void *)malloc, &library)) return 1;
  char statistics[1 << 16];
  spanalloc_stats_json(statistics, sizeof statistics);
  /* First of all where the library is, and with which front end. */
  printf("%p\n%s\n", library.dli_fbase, statistics); fflush(stdout);
"#;

/// The program: each row is warmed up, then collected for itself and dumped.
pub fn source() -> String {
    let mut text = String::from(HEAD);
    for path in PATHS {
        let Path {
            before,
            measured,
            after,
            ..
        } = path;
        let _ = writeln!(
            text,
            "  for (int i = 0; i < 100; i++) {{ {before}; {measured}; {after}; }}\n  \
             for (int i = 0; i < {ROUNDS}; i++) {{ {before}; CALLGRIND_TOGGLE_COLLECT; {measured}; CALLGRIND_TOGGLE_COLLECT; {after}; }}\n  \
             CALLGRIND_DUMP_STATS;"
        );
    }
    for (_, _, code) in LOOPS {
        let _ = writeln!(
            text,
            "  for (int i = 0; i < 5; i++) {{ {code}; }}\n  CALLGRIND_TOGGLE_COLLECT;\n  \
             for (int i = 0; i < 10; i++) {{ {code}; }}\n  CALLGRIND_TOGGLE_COLLECT;\n  CALLGRIND_DUMP_STATS;"
        );
    }
    text.push_str("  return 0;\n}\n");
    text
}
