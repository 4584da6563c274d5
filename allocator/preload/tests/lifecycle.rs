//! Moments in a process's life at which allocators break: modules that come and go, children of `vfork`, signal
//! handlers, thread-local destructors of C++, the last byte of every block.

mod common;

use common::{
    MODES, compile, header_folders, library, passes, passes_in_every_mode, preloaded, scratch,
};
use std::path::PathBuf;
use std::process::Command;

const HEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "check.h"
"#;

fn program(name: &str, body: &str) -> PathBuf {
    compile(name, &format!("{HEAD}{body}"))
}

/// A shared object for `dlopen`.
fn module(name: &str, source: &str) -> PathBuf {
    let file = scratch().join(name);
    let object = scratch().join(name.replace('.', "_") + ".so");
    std::fs::write(&file, source).expect("the target folder is writable");
    let compiler = if name.ends_with(".cpp") { "g++" } else { "cc" };
    let mut command = Command::new(compiler);
    command.args(["-O1", "-shared", "-fPIC", "-pthread", "-fno-builtin", "-o"]);
    passes(command.arg(&object).arg(&file));
    object
}

/// Allocates when it is loaded, used and unloaded, has a thread-local object, and leaves blocks to the program.
const MODULE: &str = r#"
#include <map>
#include <memory>
#include <mutex>
#include <string>
static std::mutex lock;
static std::map<std::string, std::string> table{{"a", std::string(500, 'a')}};
struct Local { std::unique_ptr<char[]> bytes{new char[3000]}; ~Local() { bytes[2999] = 1; } };
static thread_local Local local;
static struct Life {
    Life() { table["come"] = std::string(5000, 'c'); }
    ~Life() { table["go"] = std::string(5000, 'g'); }
} life;
__attribute__((constructor)) static void first() { delete[] new char[700]; }
__attribute__((destructor)) static void last() { delete[] new char[700]; }
extern "C" char *make(int n) {
    local.bytes[n % 3000] = (char)n;
    { std::lock_guard<std::mutex> held(lock); table[std::to_string(n)] = std::string(n % 900, 'x'); }
    char *block = new char[n + 1]; block[n] = (char)n;
    return block;
}
"#;

#[test]
fn modules_come_and_go_while_threads_allocate() {
    let module = module("module.cpp", MODULE);
    let program = program(
        "modules.c",
        r#"
static int stop;
static void *busy(void *x) {
    unsigned r = 1; char *live[50] = {0};
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) { r = r * 1664525 + 1013904223; int i = r >> 8 & 31; free(live[i]); CHECK(live[i] = malloc(r >> 20)); }
    for (int i = 0; i < 50; i++) free(live[i]);
    return x;
}
static void *user(void *path) {
    for (int n = 0; n < 100; n++) {
        void *lib = dlopen(path, RTLD_NOW); CHECK(lib);
        char *(*make)(int) = (char *(*)(int))dlsym(lib, "make"); CHECK(make);
        char *kept = make(n * 37); CHECK(kept[n * 37] == (char)(n * 37));
        free(make(n));
        CHECK(!dlclose(lib));
        free(kept);
        CHECK(!dlopen("/no/such/file.so", RTLD_NOW) && dlerror());
    }
    return path;
}
int main(int argc, char **argv) {
    pthread_t t[4];
    pthread_create(&t[0], NULL, busy, NULL);
    for (int i = 1; i < 4; i++) pthread_create(&t[i], NULL, user, argv[1]);
    for (int i = 1; i < 4; i++) pthread_join(t[i], NULL);
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 5; i++) user(argv[1]);
    CHECK(mallinfo2().uordblks < before.uordblks + (200 << 10));
    stop = 1; pthread_join(t[0], NULL);
    return 0;
}
"#,
    );
    passes_in_every_mode(program, &[module.as_os_str()]);
}

/// `.preinit_array` is run before all constructors, and other preloaded libraries may have theirs before the allocator's.
/// What they allocate is good for the whole life of the process, whatever the settings, which are read later.
#[test]
fn what_runs_before_the_allocators_constructor_may_allocate() {
    let earlier = module(
        "earlier.c",
        r#"
#include <stdlib.h>
#include <string.h>
char *of_library;
__attribute__((constructor)) static void first(void) { free(malloc(70000)); of_library = strdup("library"); }
"#,
    );
    let program = program(
        "before.c",
        r#"
static char *of_start, *large;
static void start(void) {
    CHECK(of_start = calloc(1, 300)); strcpy(of_start, "start"); CHECK(large = malloc(3 << 20)); large[(3 << 20) - 1] = 7;
    free(realloc(malloc(10), 5000));
}
__attribute__((section(".preinit_array"), used)) static void (*const entry)(void) = start;
static void *ender(void *x) { free(of_start); free(large); return x; }
int main(void) {
    char **of_library = dlsym(RTLD_DEFAULT, "of_library");
    CHECK(of_start && !strcmp(of_start, "start") && !of_start[299] && large[(3 << 20) - 1] == 7);
    CHECK(of_library && *of_library && !strcmp(*of_library, "library"));
    CHECK(malloc_usable_size(*of_library) >= 8 && malloc_usable_size(large) >= 3 << 20);
    CHECK(of_start = realloc(of_start, 9000)); CHECK(!strcmp(of_start, "start"));
    pthread_t t; CHECK(!pthread_create(&t, NULL, ender, NULL) && !pthread_join(t, NULL));
    free(*of_library);
    return 0;
}
"#,
    );
    let preload = format!("{}:{}", library().display(), earlier.display());
    for settings in MODES {
        let mut command = preloaded(&program);
        command.env("LD_PRELOAD", &preload);
        passes(command.env("SPANALLOC_CONF", settings));
    }
}

#[test]
fn children_of_vfork_and_spawn_leave_the_parents_heap_sound() {
    let program = program(
        "vfork.c",
        r#"
extern char **environ;
static int stop;
static void *busy(void *x) {
    unsigned r = (uintptr_t)x; char *live[50] = {0};
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) { r = r * 1664525 + 1013904223; int i = r >> 8 & 31; free(live[i]); CHECK(live[i] = malloc(r >> 20)); }
    for (int i = 0; i < 50; i++) free(live[i]);
    return x;
}
int main(void) {
    pthread_t t[2]; char *live[200] = {0};
    for (uintptr_t i = 0; i < 2; i++) pthread_create(&t[i], NULL, busy, (void *)(i + 1));
    char *arguments[] = {"true", NULL};
    for (int n = 0; n < 200; n++) {
        live[n] = malloc(n * 40 + 1); memset(live[n], n, n * 40 + 1);
        int status; pid_t child = vfork();
        if (!child) {
            /* As execvp does, on the parent's heap and as the parent's thread. */
            char *p = malloc(n * 11 + 1); p[n * 11] = 1; free(p);
            if (n % 2) _exit(7);
            execv("/bin/true", arguments); _exit(1);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (n % 2 ? 7 : 0));
        if (n % 4 == 0) {
            CHECK(!posix_spawnp(&child, "true", NULL, NULL, arguments, environ));
            CHECK(waitpid(child, &status, 0) == child && status == 0);
        }
        for (int i = 0; i <= n; i += 7) for (int k = 0; k <= i * 40; k += 99) CHECK(live[i][k] == (char)i);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    for (int n = 0; n < 200; n++) free(live[n]);
    return 0;
}
"#,
    );
    passes_in_every_mode(program, &[]);
}

/// Handlers of the program for `fork` allocate, whenever they were registered; so do other threads.
#[test]
fn fork_handlers_of_the_program_may_allocate() {
    let program = program(
        "atfork.c",
        r#"
static int stop; static char *kept[3];
static void use(int at) { free(kept[at]); CHECK(kept[at] = malloc(5000 + at)); char *large = calloc(1, 400000); CHECK(large && !large[399999]); free(large); }
static void before(void) { use(0); }
static void parent(void) { use(1); }
static void child(void) { use(2); }
__attribute__((constructor)) static void early(void) { CHECK(!pthread_atfork(before, parent, child)); }
static void *busy(void *x) { while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) { char *p = malloc(3000); CHECK(p); free(p); } return x; }
int main(void) {
    pthread_t t[2]; pthread_atfork(before, parent, child);
    for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, busy, NULL);
    for (int n = 0; n < 100; n++) {
        pid_t pid = fork(); CHECK(pid >= 0);
        if (!pid) { alarm(20); CHECK(kept[0] && kept[2]); use(1); exit(0); }
        int status; CHECK(waitpid(pid, &status, 0) == pid && status == 0 && kept[1]);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    return 0;
}
"#,
    );
    passes_in_every_mode(program, &[]);
}

/// By default a handler may allocate where it does not interrupt an allocation of its own thread (POSIX promises less:
/// malloc is not async-signal-safe); with `front_end=cpu` anywhere.
#[test]
fn signal_handlers_may_allocate_where_they_interrupt_no_allocation() {
    let program = program(
        "handlers.c",
        r#"
static volatile sig_atomic_t handled;
static char *volatile kept;
static void handler(int s) { handled++; free(kept); kept = malloc(handled % 5000 + 1); char *p = realloc(calloc(1, 100), 3000); CHECK(p && kept); free(p); }
static void *sleeper(void *x) { while (handled < 300) usleep(1000); return x; }
static void *spinner(void *x) { volatile long n = 0; while (handled < 600) n++; return x; }
int main(void) {
    stack_t stack = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10}; CHECK(!sigaltstack(&stack, NULL));
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART}; CHECK(!sigaction(SIGUSR1, &action, NULL));
    char *before = malloc(100); strcpy(before, "before");
    for (int n = 0; n < 200; n++) { raise(SIGUSR1); char *p = malloc(n); CHECK(p); free(p); }
    CHECK(handled == 200 && !strcmp(before, "before"));
    pthread_t t;
    /* A thread whose first use of the heap is in the handler, in a sleep; then one that computes. */
    pthread_create(&t, NULL, sleeper, NULL);
    while (handled < 300) { int seen = handled; pthread_kill(t, SIGUSR1); while (handled == seen) usleep(100); }
    pthread_join(t, NULL);
    pthread_create(&t, NULL, spinner, NULL);
    while (handled < 600) { int seen = handled; pthread_kill(t, SIGUSR1); while (handled == seen) usleep(10); }
    pthread_join(t, NULL);
    CHECK(!strcmp(before, "before"));
    return 0;
}
"#,
    );
    passes(&mut preloaded(&program));
    passes(preloaded(&program).env("SPANALLOC_CONF", "front_end=cpu"));
}

#[test]
fn thread_local_objects_of_cxx_allocate_in_their_destructors() {
    let program = compile(
        "thread_locals.cpp",
        r#"
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>
static std::atomic<int> ended;
struct Last { std::vector<int> v; ~Last() { for (int i = 0; i < 1000; i++) v.push_back(i); if (v[999] != 999) abort(); ended++; } };
struct First { std::unique_ptr<std::string> s{new std::string(100, 'x')}; ~First() { s.reset(new std::string(5000, 'y')); if (s->size() != 5000) abort(); ended++; } };
static thread_local Last last;
static thread_local First first;
static Last at_exit;
static std::string global(2000, 'g');
int main() {
    at_exit.v.reserve(1); /* 1 Last is destroyed after main */
    for (int n = 0; n < 1000; n += 10) {
        std::vector<std::thread> threads;
        for (int i = 0; i < 10; i++) threads.emplace_back([] { last.v.push_back(1); last.v.clear(); first.s->append("z"); });
        for (auto &t : threads) t.join();
    }
    if (ended != 2000 || global.size() != 2000) abort();
    std::atexit([] { std::string s(3000, 'e'); puts(s.size() == 3000 ? "exit" : "wrong"); });
}
"#,
    );
    for settings in MODES {
        let mut command = preloaded(&program);
        let output = passes(command.env("SPANALLOC_CONF", settings));
        assert_eq!(output.stdout, b"exit\n", "{settings}");
    }
}

#[test]
fn every_form_of_new_and_delete_fits_each_other() {
    let program = compile(
        "new_delete.cpp",
        r#"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#define CHECK(c) do { if (!(c)) { fprintf(stderr, "line %d: %s\n", __LINE__, #c); abort(); } } while (0)
extern "C" size_t malloc_usable_size(void *);
static void *full(void *p, size_t size, size_t align) {
    CHECK(p && (uintptr_t)p % align == 0 && malloc_usable_size(p) >= size); memset(p, 0x5A, malloc_usable_size(p)); return p;
}
int main() {
    for (size_t size = 0; size < 300000; size = size * 9 / 8 + 1) {
        size_t least = size > 8 ? 16 : 8;
        operator delete(full(operator new(size), size, least));
        operator delete(full(operator new(size), size, least), size);
        operator delete[](full(operator new[](size), size, least));
        operator delete[](full(operator new[](size), size, least), size);
        operator delete(full(operator new(size, std::nothrow), size, least), std::nothrow);
        operator delete[](full(operator new[](size, std::nothrow), size, least), std::nothrow);
        for (size_t align = 1; align <= 65536; align *= 4) {
            std::align_val_t a{align};
            operator delete(full(operator new(size, a), size, align), a);
            operator delete(full(operator new(size, a), size, align), size, a);
            operator delete[](full(operator new[](size, a), size, align), a);
            operator delete[](full(operator new[](size, a), size, align), size, a);
            operator delete(full(operator new(size, a, std::nothrow), size, align), a, std::nothrow);
            operator delete[](full(operator new[](size, a, std::nothrow), size, align), a, std::nothrow);
        }
    }
    operator delete(nullptr); operator delete[](nullptr); operator delete(nullptr, (size_t)8); operator delete(nullptr, std::align_val_t(64));
    /* What new gives, free takes: libraries in C do so. */
    free(operator new(100)); free(operator new[](5000));
    puts("fits");
}
"#,
    );
    for settings in MODES {
        let mut command = preloaded(&program);
        let output = passes(command.env("SPANALLOC_CONF", settings));
        assert_eq!(output.stdout, b"fits\n", "{settings}");
    }
}

#[test]
fn every_byte_of_the_usable_size_is_the_blocks_own() {
    let program = program(
        "usable.c",
        r#"
#define N 4000
static char *blocks[N]; static size_t usable[N];
int main(void) {
    /* All blocks are full to the last byte while all the others are; resizes within the usable size do not move. */
    for (int n = 0; n < N; n++) {
        size_t size = n % 40 == 0 ? (size_t)n * 150 : (size_t)n;
        blocks[n] = n % 3 == 0 ? aligned_alloc(64, size) : n % 3 == 1 ? calloc(1, size) : realloc(malloc(1), size + 1);
        usable[n] = malloc_usable_size(blocks[n]); CHECK(blocks[n] && usable[n] >= size);
        memset(blocks[n], n, usable[n]);
        char *same = realloc(blocks[n], usable[n] ? usable[n] : 1); CHECK(same == blocks[n] && malloc_usable_size(same) == usable[n]);
    }
    CHECK(malloc_usable_size(NULL) == 0);
    for (int round = 0; round < 2; round++)
        for (int n = round; n < N; n += 2) {
            for (size_t k = 0; k < usable[n]; k++) CHECK(blocks[n][k] == (char)n);
            errno = 1234; free(blocks[n]); CHECK(errno == 1234);
        }
    /* Large blocks go back to the system as they are freed, which may fail; errno stays. */
    for (int n = 0; n < 50; n++) { char *p = malloc(40 << 20); p[0] = 1; errno = 99; free(p); CHECK(errno == 99); }
    return 0;
}
"#,
    );
    passes(&mut preloaded(program));
}

/// C23 withdrew that the size must be a multiple of the alignment: any size goes with any power of two.
#[test]
fn aligned_alloc_is_as_c23_has_it() {
    let program = program(
        "aligned.c",
        r#"
void free_aligned_sized(void *, size_t, size_t);
int main(void) {
    for (size_t align = 1; align <= 1 << 22; align *= 2)
        for (size_t size = 1; size < 100000; size = size * 7 + 3) {
            char *p = aligned_alloc(align, size);
            CHECK(p && (uintptr_t)p % align == 0); memset(p, 1, size);
            char *q = realloc(p, size * 2); CHECK(q && q[size - 1] == 1);
            if (q == p) free(q); else { free(q); p = aligned_alloc(align, size); CHECK(p); free_aligned_sized(p, align, size); }
        }
    size_t wrong[] = {0, 3, 24, 100, 4097, SIZE_MAX};
    for (int i = 0; i < 6; i++) { errno = 0; CHECK(!aligned_alloc(wrong[i], 64) && errno == EINVAL); }
    /* More than there can be. */
    size_t most[] = {SIZE_MAX, PTRDIFF_MAX, SIZE_MAX / 2 + 1, (size_t)1 << 62};
    for (int i = 0; i < 4; i++)
        for (size_t align = 8; align; align *= 16) {
            errno = 0; CHECK(!aligned_alloc(align, most[i]) && errno == ENOMEM);
            void *out = &out; errno = 5; CHECK(posix_memalign(&out, align, most[i]) == ENOMEM && out == &out && errno == 5);
        }
    errno = 0; CHECK(!aligned_alloc((size_t)1 << 62, 1) && errno == ENOMEM);
    errno = 0; CHECK(!memalign(SIZE_MAX / 2 + 2, 1) && errno == EINVAL);
    for (size_t align = 0; align < 200; align++) {
        void *out = NULL; int good = align >= sizeof out && !(align & (align - 1));
        CHECK(posix_memalign(&out, align, align) == (good ? 0 : EINVAL) && !out == !good); free(out);
    }
    return 0;
}
"#,
    );
    passes(&mut preloaded(program));
}

#[test]
fn mallinfo2_and_malloc_info_say_what_the_program_knows() {
    let program = program(
        "figures.c",
        r#"
static size_t element(const char *text, const char *type) {
    char key[64]; snprintf(key, sizeof key, "type=\"%s\" size=\"", type);
    char *at = strstr(text, key); CHECK(at); return strtoul(at + strlen(key), NULL, 10);
}
static char *blocks[3000], *large[20], xml[4096];
int main(void) {
    FILE *out = fmemopen(xml, sizeof xml, "w"); setvbuf(out, malloc(8192), _IOFBF, 8192); CHECK(out);
    for (int i = 0; i < 64; i++) free(malloc(1024)); /* the class is in use */
    struct mallinfo2 a = mallinfo2();
    for (int i = 0; i < 3000; i++) blocks[i] = malloc(1024); /* a class of its own size */
    struct mallinfo2 b = mallinfo2();
    CHECK(b.uordblks - a.uordblks == 3000 * 1024 && b.hblkhd == a.hblkhd);
    for (int i = 0; i < 20; i++) { large[i] = malloc(1 << 20); CHECK(malloc_usable_size(large[i]) == 1 << 20); }
    struct mallinfo2 c = mallinfo2();
    CHECK(c.uordblks - b.uordblks == 20 << 20 && c.hblkhd - b.hblkhd == 20 << 20 && c.arena + c.hblkhd >= c.uordblks);
    CHECK(malloc_info(0, out) == 0); fflush(out);
    CHECK(element(xml, "in_use") == c.uordblks);
    CHECK(element(xml, "thread_cache") + element(xml, "transfer_cache") == c.fsmblks);
    CHECK(element(xml, "thread_cache") + element(xml, "transfer_cache") + element(xml, "central") + element(xml, "dirty") == c.fordblks);
    CHECK(element(xml, "dirty") == c.keepcost && element(xml, "current") == c.arena + c.hblkhd);
    for (int i = 0; i < 3000; i++) memset(blocks[i], 1, 1024);
    for (int i = 0; i < 20; i++) memset(large[i], 1, 1 << 20);
    for (int i = 0; i < 20; i++) free(large[i]);
    struct mallinfo2 d = mallinfo2();
    CHECK(d.uordblks == b.uordblks && d.hblkhd == b.hblkhd);
    for (int i = 0; i < 3000; i++) free(blocks[i]);
    struct mallinfo2 e = mallinfo2();
    CHECK(e.uordblks == a.uordblks && e.fsmblks > 0 && e.fordblks >= e.fsmblks + e.keepcost);
    CHECK(malloc_trim(0) == 1);
    struct mallinfo2 f = mallinfo2();
    CHECK(f.uordblks == a.uordblks && f.fsmblks == 0 && f.keepcost == 0 && f.fordblks < 200 << 10 && f.arena < (1 << 20));
    struct mallinfo old = mallinfo(); CHECK((size_t)old.uordblks == f.uordblks && (size_t)old.arena == f.arena);
    errno = 0; CHECK(malloc_info(1, out) == -1 && errno == EINVAL);
    /* Blocks between which others are free, and one that fits into no gap: more is in memory than was ever in use. */
    char *gaps[40]; size_t most = 0;
    for (int i = 0; i < 40; i++) { gaps[i] = malloc(1 << 20); memset(gaps[i], 1, 1 << 20); }
    CHECK(mallinfo2().hblks == f.hblks + 40);
    for (int i = 0; i < 40; i += 2) free(gaps[i]);
    char *long_one = malloc(15 << 20); memset(long_one, 1, 15 << 20);
    struct mallinfo2 g = mallinfo2();
    CHECK(g.hblks == f.hblks + 21 && g.hblkhd == f.hblkhd + (35 << 20) && g.arena + g.hblkhd >= 55 << 20);
    for (int i = 0; i < 2; i++) {
        rewind(out); CHECK(malloc_info(0, out) == 0); fflush(out);
        struct mallinfo2 now = mallinfo2();
        CHECK(element(xml, "current") == now.arena + now.hblkhd && element(xml, "max") >= g.arena + g.hblkhd);
        CHECK(!i || (element(xml, "max") == most && element(xml, "current") < most / 2));
        most = element(xml, "max");
        for (int j = 1; j < 40 && !i; j += 2) free(gaps[j]);
        if (!i) { free(long_one); malloc_trim(0); }
    }
    CHECK(mallinfo2().hblks == f.hblks && most < 80 << 20);
    return 0;
}
"#,
    );
    passes(preloaded(program).env("SPANALLOC_CONF", "decay_ms=-1,move_pages=0"));
}

/// Resolvers of indirect functions run while the loader relocates the program, before its thread-local storage has values.
#[test]
fn resolvers_of_indirect_functions_may_allocate() {
    let program = program(
        "resolver.c",
        r#"
static char *kept, *large; static size_t usable;
static int one(void) { return 1; }
/* Nothing but the allocator is called: the program itself is not relocated yet. */
static void *resolve(void) {
    kept = malloc(100); large = malloc(3 << 20);
    if (!kept || !large) __builtin_trap();
    for (int i = 0; i < 100; i++) kept[i] = i;
    large[(3 << 20) - 1] = 7; usable = malloc_usable_size(kept);
    for (int i = 0; i < 300; i++) {
        char *zero = calloc(3, 50), *longer = realloc(malloc(i), i * 40 + 1), *aligned = aligned_alloc(4096, 4096);
        for (int j = 0; j < 150; j++) if (zero[j]) __builtin_trap();
        longer[i * 40] = 1; memset(aligned, 1, 4096);
        free(zero); free(longer); free(aligned);
    }
    return one;
}
int of_resolver(void) __attribute__((ifunc("resolve")));
static void *ender(void *x) { free(kept); free(large); return x; }
int main(void) {
    CHECK(of_resolver() == 1);
    for (int i = 0; i < 100; i++) CHECK(kept[i] == i);
    CHECK(large[(3 << 20) - 1] == 7 && usable >= 100);
    CHECK(kept = realloc(kept, 9000)); CHECK(kept[99] == 99);
    pthread_t t; CHECK(!pthread_create(&t, NULL, ender, NULL) && !pthread_join(t, NULL));
    return 0;
}
"#,
    );
    passes_in_every_mode(program, &[]);
}

#[test]
fn the_library_can_be_linked_and_opened_instead_of_preloaded() {
    let linked = program(
        "linked.c",
        "int main(void) { void *p = malloc(100); CHECK(p); void *self = dlopen(NULL, RTLD_NOW); CHECK(dlsym(self, \"spanalloc_version\")); free(p); return 0; }",
    );
    passes(&mut Command::new(linked));
    // Opened late it is another allocator beside the program's: it loads, works through its own names and stays, as a thread that has
    // used it ends after it was closed.
    let opener = scratch().join("opener.c");
    let source = format!(
        "{HEAD}{}",
        r#"static void *library;
static pthread_barrier_t barrier;
static void *user(void *unused) {
    void *(*m)(size_t) = (void *(*)(size_t))dlsym(library, "malloc"); void (*f)(void *) = (void (*)(void *))dlsym(library, "free");
    f(m(100));
    pthread_barrier_wait(&barrier); pthread_barrier_wait(&barrier);
    return 0;
}
int main(int argc, char **argv) {
    pthread_t thread;
    CHECK(library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL));
    CHECK(!pthread_barrier_init(&barrier, NULL, 2) && !pthread_create(&thread, NULL, user, NULL));
    pthread_barrier_wait(&barrier);
    CHECK(!dlclose(library));
    pthread_barrier_wait(&barrier);
    CHECK(!pthread_join(thread, NULL));
    pid_t child = fork(); if (child == 0) _exit(0);
    int status; CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (int n = 0; n < 20; n++) {
        void *lib = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL); if (!lib) { fprintf(stderr, "%s\n", dlerror()); return 1; }
        void *(*m)(size_t) = (void *(*)(size_t))dlsym(lib, "malloc"); void (*f)(void *) = (void (*)(void *))dlsym(lib, "free");
        CHECK(m && f && m != malloc);
        char *p = m(5000), *own = malloc(5000); CHECK(p && own); memset(p, 1, 5000); f(p); free(own); dlclose(lib);
    }
    return 0;
}"#
    );
    std::fs::write(&opener, source).expect("the target folder is writable");
    let program = scratch().join("opener");
    let mut cc = Command::new("cc");
    cc.args(["-w", "-fno-builtin", "-pthread", "-o"]);
    passes(cc.arg(&program).arg(&opener).args(header_folders()));
    passes(Command::new(program).arg(library()));
}
