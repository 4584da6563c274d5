/* One mistake in the life of a program that is otherwise right: a heap with a past, perhaps with threads at work, then the
   mistake, then a life after it.

   misuse KIND SEED PAST PLACE WORKERS SOON: what is done wrong, with which numbers, after how many steps, where, beside how
   many threads, and whether the cache is emptied right after. On standard output: "mistake ADDRESS" before it, "went on" after it, "not one" if it is none after all (a block that was
   freed and that somebody has got again). Status 0: nobody noticed, 3: a block that is not what it was, by a signal else. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
void _ZdlPvm(void *, size_t);

#define LIVE 400
#define PAGE 8192
typedef struct { unsigned char *at; size_t size, align; } Block;
typedef struct { uint64_t random; int scribbles, count, most; Block live[LIVE]; } World;

static volatile int stop, pause_now, paused, hand_over;
/* What was freed and must not come back before it is freed again. */
static char *_Atomic victim;
static size_t victim_bytes;
static volatile int reused;

static uint64_t next(World *w) { w->random ^= w->random << 13; w->random ^= w->random >> 7; w->random ^= w->random << 17; return w->random * 0x2545F4914F6CDD1Du; }
static uint64_t below(World *w, uint64_t n) { return (next(w) >> 11) % n; }
static void say(const char *text, const void *at) {
    char line[100];
    int n = at ? snprintf(line, sizeof line, "%s %p\n", text, at) : snprintf(line, sizeof line, "%s\n", text);
    if (write(1, line, n) != n) _exit(9);
}
static void damaged(int line) { fprintf(stderr, "self-check in line %d\n", line); _exit(3); }
#define WHOLE(c) do { if (!(c)) damaged(__LINE__); } while (0)

/* Around the borders of classes and of the ways that blocks go. */
static size_t size_of(World *w) {
    static const size_t borders[] = {8, 16, 64, 128, 512, 1024, 1152, 2048, 4096, 8192, 9472, 16384, 32768, 40960, 65536, 262144, 524288, 1 << 20};
    switch (below(w, 16)) {
    case 0 ... 3: { size_t at = borders[below(w, sizeof borders / sizeof *borders)] + below(w, 3); return at ? at - 1 : 0; }
    case 4: return below(w, 600000);
    case 5 ... 6: return below(w, 40000);
    case 7 ... 9: return below(w, 3000);
    default: return below(w, 300);
    }
}
static unsigned char mark(const Block *b) { return (unsigned char)((uintptr_t)b->at >> 4 ^ b->size * 7); }
static void fill(const Block *b) {
    size_t edge = b->size < 4096 ? b->size : 256;
    memset(b->at, mark(b), edge);
    if (edge < b->size) memset(b->at + b->size - edge, mark(b), edge);
}
static void look(const Block *b) {
    size_t edge = b->size < 4096 ? b->size : 256;
    for (size_t i = 0; i < edge; i++) WHOLE(b->at[i] == mark(b) && b->at[b->size - 1 - i] == mark(b));
}
/* Whatever comes from the allocator comes by here. */
static Block got(void *at, size_t size, size_t align) {
    Block b = {at, size, align};
    if (!at) { say("no memory", 0); _exit(8); }
    WHOLE((uintptr_t)at % align == 0);
    char *v = victim;
    if (v && (char *)at < v + victim_bytes && v < (char *)at + (size ? size : 1)) reused = 1;
    fill(&b);
    return b;
}
static Block make(World *w, size_t size) {
    switch (below(w, 8)) {
    case 0: {
        unsigned char *z = calloc(1, size);
        /* Who writes to freed pages that were given back makes them no longer zero. */
        if (z && !w->scribbles) for (size_t i = 0; i < size; i += i < 300 ? 1 : 97) WHOLE(!z[i]);
        return got(z, size, 8);
    }
    case 1: { size_t align = (size_t)16 << below(w, 12); return got(aligned_alloc(align, size), size, align); }
    default: return got(malloc(size), size, 8);
    }
}
static void release(World *w, Block b) {
    look(&b);
    if (w->scribbles) {
        size_t usable = malloc_usable_size(b.at), edge = usable < 4096 ? usable : 256;
        free(b.at);
        for (size_t i = 0; i < edge; i++) b.at[i] = b.at[usable - 1 - i] = (unsigned char)next(w);
        return;
    }
    switch (below(w, 8)) {
    case 0: b.align > 16 ? free_aligned_sized(b.at, b.align, b.size) : free_sized(b.at, b.size); break;
    default: free(b.at);
    }
}
static void drop(World *w, int at) { Block b = w->live[at]; w->live[at] = w->live[--w->count]; release(w, b); }
static void act(World *w, int steps) {
    for (int n = 0; n < steps; n++) {
        uint64_t what = below(w, 10);
        if (w->count && (what < 4 || w->count == w->most)) drop(w, below(w, w->count));
        else if (w->count && what == 4) {
            Block *b = &w->live[below(w, w->count)]; size_t size = size_of(w), kept = b->size < size ? b->size : size; unsigned char m = mark(b);
            if (!size) continue;
            look(b);
            unsigned char *at = realloc(b->at, size);
            for (size_t i = 0; at && i < kept && i < 256; i++) WHOLE(at[i] == m);
            *b = got(at, size, 8);
        } else w->live[w->count++] = make(w, size_of(w));
    }
}
static void *worker(void *seed) {
    static World worlds[2];
    World *w = &worlds[(uintptr_t)seed % 2];
    w->random = (uintptr_t)seed | 1; w->most = 100;
    while (!stop) {
        act(w, 50);
        if (pause_now) { __atomic_add_fetch(&paused, 1, __ATOMIC_SEQ_CST); while (pause_now && !stop) usleep(50); }
    }
    while (w->count) drop(w, 0);
    return 0;
}

static World world;
static int workers, soon, guarded;
static const char *kind;
static pthread_t threads[2];
static void still(void) { if (workers) { paused = 0; pause_now = 1; while (paused < workers) usleep(50); } }
static int is(const char *name) { return !strcmp(kind, name); }
static void *frees(void *at) { free(at); return 0; }
static void *frees_and_stays(void *at) { free(at); hand_over = 1; for (;;) pause(); }

static volatile char sink;
static char static_bytes[64];
static _Alignas(16) char of_image[64] = "image";
static void give_up(void) { say("not one", 0); _exit(0); }
/* A live block of more than `least` usable bytes, taken out of the table. */
static Block take(size_t least) {
    for (int tries = 0; tries < 50 && world.count; tries++) {
        int at = below(&world, world.count); Block b = world.live[at];
        if (malloc_usable_size(b.at) > least) { world.live[at] = world.live[--world.count]; return b; }
    }
    for (;;) { size_t size = size_of(&world); if (size > least) return make(&world, size); }
}
/* A new one of up to so many bytes: up to a page `guard_rate=1` puts it between guard pages, above 256 KiB nothing keeps it. */
static Block fresh(World *w, size_t most) { size_t size = 1 + below(w, most); return got(malloc(size), size, 8); }
/* The mistake with an address, by free or by realloc. */
static void wrong(void *at) {
    say("mistake", at);
    if (strstr(kind, "realloc")) { size_t size = below(&world, 2) ? malloc_usable_size(at) : size_of(&world) + 1; sink = realloc(at, size) != 0; }
    else free(at);
}
static void err(void) {
    World *w = &world;
    if (strstr(kind, "freed")) {
        Block b = guarded ? fresh(w, PAGE) : is("write-freed") ? fresh(w, 256 << 10) : take(0); size_t usable = malloc_usable_size(b.at); pthread_t t;
        look(&b);
        victim_bytes = usable; victim = (char *)b.at;
        if (is("freed-by-another")) {
            if (below(w, 2)) { pthread_create(&t, 0, frees, b.at); pthread_join(t, 0); }
            else { pthread_create(&t, 0, frees_and_stays, b.at); while (!hand_over) usleep(50); }
        } else free(b.at);
        if (is("freed-long-ago") || is("realloc-freed-long-ago")) { if (below(w, 4) == 0) malloc_trim(0); act(w, below(w, 4) ? below(w, 40) : below(w, 2000)); }
        still();
        if (reused) give_up();
        victim = 0;
        char *at = (char *)b.at;
        if (is("freed-middle")) { if (usable <= 16) give_up(); at += 8 * (1 + below(w, usable / 8 - 1)); }
        if (is("write-freed")) {
            say("mistake", at); at[below(w, b.size)] ^= 1 + below(w, 255); return;
        }
        if (is("read-freed")) { say("mistake", at); sink = at[below(w, b.size)]; return; }
        if (is("freed-written")) {
            if (!b.size) give_up();
            say("mistake", at); at[below(w, b.size)] ^= 1 + below(w, 255); free(at); return;
        }
        wrong(at);
    } else if (is("interior") || is("realloc-interior")) {
        Block b = take(16); wrong(b.at + 8 * (1 + below(w, malloc_usable_size(b.at) / 8 - 1)));
    } else if (is("misaligned") || is("realloc-misaligned")) {
        Block b = take(0); size_t by = below(w, malloc_usable_size(b.at)); wrong(b.at + (by | 1 + below(w, 7)));
    } else if (is("foreign") || is("realloc-foreign")) {
        char local[64]; void *mapped = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        uintptr_t heap = (uintptr_t)take(1000).at;
        void *all[] = {local, local + 8, static_bytes, of_image, mapped, (char *)mapped + 4096, (void *)err, (void *)malloc, (void *)8, (void *)4096, (void *)-16,
            (void *)(heap + (1ull << 42)), (void *)(heap - (1ull << 42)), (void *)0x8000000000000000u, (void *)(next(w) & ~15ull), (void *)(next(w) >> 17 & ~15ull), stdout, (void *)pthread_self()};
        void *at = all[below(w, sizeof all / sizeof *all)];
        if (!at) give_up();
        say("mistake", at);
        if (is("realloc-foreign")) sink = realloc(at, size_of(w) + 1) != 0; else free(at);
    } else if (is("neighbour")) {
        /* Of sizes that nobody else in this process has: another object of the span, free or never used. */
        static const size_t sizes[] = {1500, 3000, 5500, 9300, 20000, 50000}; size_t size = sizes[below(w, 6)];
        Block b = got(malloc(size), size, 8); char *at = (char *)b.at + malloc_usable_size(b.at) * (1 + below(w, 6));
        for (int i = 0; i < w->count; i++) if ((char *)w->live[i].at <= at && at < (char *)w->live[i].at + malloc_usable_size(w->live[i].at)) give_up();
        wrong(at);
    } else if (strstr(kind, "size")) {
        Block b = take(0); size_t usable = malloc_usable_size(b.at), size;
        /* Of a larger class, or so small that it would not have stayed in the block. (A large block may be longer by any
           number of pages.) */
        if (usable > 64 && usable % PAGE && b.align <= 16 && below(w, 2)) size = below(w, usable / 2);
        else size = usable + usable / 2 + 17 + below(w, 2) * below(w, 3 * usable);
        say("mistake", b.at);
        if (is("wrong-size")) free_sized(b.at, size);
        else if (is("wrong-aligned-size")) free_aligned_sized(b.at, b.align, size);
        else _ZdlPvm(b.at, size);
    } else if (is("overflow") || is("underflow")) {
        Block b = fresh(w, PAGE); unsigned char *at = is("overflow") ? b.at + malloc_usable_size(b.at) : b.at - 1;
        if (below(w, 2)) at += is("overflow") ? below(w, 16) : -below(w, 16);
        say("mistake", at); *(volatile unsigned char *)at ^= 0x55;
        w->live[w->count++] = b;
    }
}
static void life(void) {
    err();
    say("went on", 0);
    pause_now = 0;
    if (soon) malloc_trim(0);
    act(&world, 300 + below(&world, 2000));
    malloc_trim(0);
}
static void *in_thread(void *x) { (void)x; act(&world, 200); life(); return 0; }
static pthread_key_t key;
static void late(void *round) { if ((intptr_t)round < 4) pthread_setspecific(key, (char *)round + 1); else life(); }
static void *in_destructor(void *x) { (void)x; act(&world, 200); pthread_setspecific(key, (void *)1); return 0; }
static void end(int status) {
    stop = 1;
    for (int i = 0; i < workers; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < world.count; i++) look(&world.live[i]);
    while (world.count) drop(&world, 0);
    /* Whatever waits in a quarantine leaves it, as these are too large for guarded places. */
    for (int i = 0; is("write-freed") && i < 2000; i++) free(malloc(9000));
    malloc_trim(0);
    _exit(status);
}
static void at_exit(void) { life(); end(0); }

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    alarm(30);
    kind = argv[1]; world.random = strtoull(argv[2], 0, 10) * 0x9E3779B97F4A7C15u | 1; workers = atoi(argv[5]); soon = atoi(argv[6]);
    const char *place = argv[4];
    /* Guarded blocks are few; those of the past must leave some. */
    guarded = is("overflow") || is("underflow") || is("read-freed");
    world.most = guarded ? 20 : 20 + below(&world, LIVE - 20); world.scribbles = is("scribble");
    pthread_key_create(&key, late);
    for (int i = 0; i < workers; i++) pthread_create(&threads[i], 0, worker, (void *)(next(&world) << 1 | i));
    act(&world, atoi(argv[3]));
    pthread_t t;
    if (!strcmp(place, "main")) life();
    else if (!strcmp(place, "thread")) { pthread_create(&t, 0, in_thread, 0); pthread_join(t, 0); }
    else if (!strcmp(place, "destructor")) { pthread_create(&t, 0, in_destructor, 0); pthread_join(t, 0); }
    else if (!strcmp(place, "exit")) { atexit(at_exit); exit(0); }
    else {
        int status; pid_t child = fork();
        if (!child) { alarm(30); workers = 0; life(); end(0); }
        if (child < 0 || waitpid(child, &status, 0) != child) return 2;
        if (WIFSIGNALED(status)) { signal(WTERMSIG(status), SIG_DFL); raise(WTERMSIG(status)); }
        end(WEXITSTATUS(status));
    }
    end(0);
}
