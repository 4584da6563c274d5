//! Frees with what is known of the block: each library's own entries are called, with the size and the alignment that the block has.

use crate::support::{bad_library, reported, run, single, spec};
use heaplab_worker::protocol::{Api, Measure, Mode, RunSpec};
use std::path::Path;

const ROUNDS: u64 = 3;
/// Of the 64 blocks of a round of [`single`] those that are aligned.
const ALIGNED: u64 = 8;

/// A library whose blocks say how large and how aligned they are, with `entries` besides, called through the worker:
/// frees without a size, with one, with an alignment too, and those of either kind that say something else than the block. What was freed
/// before the second block is the loader's: its words about symbols that it did not find.
fn freed(folder: &Path, entries: &str, api: Api, integrity: bool) -> (Option<String>, [u64; 4]) {
    let script = folder.join("s");
    single(&script, ROUNDS);
    let library = bad_library(
        folder,
        &format!(
            "#include <stdio.h>\nstatic unsigned long bare, plain, aligned, wrong;\nstruct head {{ size_t size, align; }};\n\
             static void *put(char *p, size_t before, size_t s, size_t a) {{\n\
               struct head h = {{ s, a }}; memcpy(p + before - 16, &h, 16); return p + before; }}\n\
             static struct head head(void *p) {{ struct head h; memcpy(&h, (char *)p - 16, 16); return h; }}\n\
             static void *come(size_t s) {{ return put(__libc_malloc(s + 16), 16, s, 0); }}\n\
             static void *zero(size_t s) {{ static int begun; if (s == 37 && !begun++) bare = 0; return put(__libc_calloc(1, s + 16), 16, s, 0); }}\n\
             static void *line(size_t a, size_t s) {{ return put(__libc_memalign(a, s + a), a, s, a); }}\n\
             static void away(void *p) {{ size_t a = head(p).align; __libc_free((char *)p - (a ? a : 16)); }}\n\
             static void *grow(void *p, size_t s) {{ void *q = come(s); if (p) {{ size_t n = head(p).size;\n\
               memcpy(q, p, n < s ? n : s); away(p); }} return q; }}\n\
             static void known(void *p, size_t s, size_t a) {{ struct head h = head(p);\n\
               wrong += h.size != s || h.align != a; if (a) aligned++; else plain++; away(p); }}\n\
             {entries}\n\
             #define MALLOC(s) come(s)\n#define CALLOC(a, b) zero((a) * (b))\n#define REALLOC(p, s) grow(p, s)\n\
             #define ALIGNED(a, s) line(a, s)\n#define FREE(p) if (p) {{ bare++; away(p); }}\n\
             size_t heaplab_subject_describe(char *t, size_t n) {{\n\
               return snprintf(t, n, \"freed=%lu %lu %lu %lu\\n\", bare, plain, aligned, wrong); }}"
        ),
    );
    let spec = RunSpec {
        api,
        integrity,
        ..spec(&script, Measure::Speed, Mode::Fast)
    };
    let proof = reported(run(&spec, Some(&library))).subject;
    let counts: Vec<u64> = (proof.settings["freed"].split(' '))
        .map(|word| word.parse().unwrap())
        .collect();
    (proof.sized_free, counts.try_into().unwrap())
}

/// Entry, its C text, and whether it takes aligned blocks.
const ENTRIES: [(&str, &str, bool); 4] = [
    (
        "free_sized",
        "void free_sized(void *p, size_t s) { known(p, s, 0); }\n\
         void free_aligned_sized(void *p, size_t a, size_t s) { known(p, s, a); }",
        true,
    ),
    (
        // Of no bytes it is told one: jemalloc takes none.
        "sdallocx",
        "void sdallocx(void *p, size_t s, int flags) { known(p, s == 1 && !head(p).size ? 0 : s, flags ? 1 << flags : 0); }",
        true,
    ),
    (
        "mi_free_size",
        "void mi_free_size(void *p, size_t s) { known(p, s, 0); }\n\
         void mi_free_size_aligned(void *p, size_t s, size_t a) { known(p, s, a); }",
        true,
    ),
    (
        "tc_free_sized",
        "void tc_free_sized(void *p, size_t s) { known(p, s, 0); }",
        false,
    ),
];

#[test]
fn sized_frees_take_each_librarys_own_way_with_the_blocks_size_and_alignment() {
    let folder = tempfile::tempdir().unwrap();
    let (aligned, plain) = (ROUNDS * ALIGNED, ROUNDS * (64 - ALIGNED));
    for (name, entries, takes_aligned) in ENTRIES {
        for integrity in [false, true] {
            let wanted = match takes_aligned {
                true => [0, plain, aligned, 0],
                false => [aligned, plain, 0, 0],
            };
            assert_eq!(
                freed(folder.path(), entries, Api::Sized, integrity),
                (Some(name.to_owned()), wanted),
                "integrity: {integrity}"
            );
        }
    }
    let (_, entries, _) = ENTRIES[0];
    for (entries, api) in [(entries, Api::Malloc), ("", Api::Sized)] {
        let wanted = (None, [plain + aligned, 0, 0, 0]);
        assert_eq!(freed(folder.path(), entries, api, false), wanted);
    }
}
