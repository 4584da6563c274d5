// A second counter, chained behind the recorder: counts the calls that reach it in a shared file,
// so that the counts survive any death of the program. Nothing of the recorder is used here.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct counts {
    atomic_ulong allocations, frees, reallocs, failed;
};
static struct counts before_start;
static struct counts *counts = &before_start;
static pid_t owner;

static void *(*next_malloc)(size_t);
static void (*next_free)(void *);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static void *(*next_memalign)(size_t, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void *(*next_valloc)(size_t);
static void *(*next_pvalloc)(size_t);

// Finds the next functions at the first call, which may come before any constructor.
static void resolve(void) {
    if (next_pvalloc) return;
    next_malloc = dlsym(RTLD_NEXT, "malloc");
    next_free = dlsym(RTLD_NEXT, "free");
    next_calloc = dlsym(RTLD_NEXT, "calloc");
    next_realloc = dlsym(RTLD_NEXT, "realloc");
    next_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
    next_memalign = dlsym(RTLD_NEXT, "memalign");
    next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    next_valloc = dlsym(RTLD_NEXT, "valloc");
    next_pvalloc = dlsym(RTLD_NEXT, "pvalloc");
}

__attribute__((constructor)) static void start(void) {
    resolve();
    const char *path = getenv("HEAPLAB_TEST_COUNTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    struct counts *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return;
    // Only the first process counts, as only the first is recorded. Its id stands in the file.
    atomic_ulong *first = (atomic_ulong *)shared + 8;
    unsigned long none = 0;
    owner = getpid();
    if (!atomic_compare_exchange_strong(first, &none, owner) && none != (unsigned long)owner) return;
    atomic_fetch_add(&shared->allocations, before_start.allocations);
    atomic_fetch_add(&shared->frees, before_start.frees);
    atomic_fetch_add(&shared->reallocs, before_start.reallocs);
    atomic_fetch_add(&shared->failed, before_start.failed);
    counts = shared;
}

static void *count(void *block) {
    if (counts == &before_start || getpid() == owner)
        atomic_fetch_add(block ? &counts->allocations : &counts->failed, 1);
    return block;
}

void *malloc(size_t size) {
    resolve();
    return count(next_malloc(size));
}
void free(void *block) {
    if (!block) return;
    resolve();
    if (counts == &before_start || getpid() == owner) atomic_fetch_add(&counts->frees, 1);
    next_free(block);
}
void *calloc(size_t n, size_t size) {
    resolve();
    return count(next_calloc(n, size));
}
void *realloc(void *block, size_t size) {
    resolve();
    if (counts == &before_start || getpid() == owner) atomic_fetch_add(&counts->reallocs, 1);
    return next_realloc(block, size);
}
void *aligned_alloc(size_t align, size_t size) {
    resolve();
    return count(next_aligned_alloc(align, size));
}
void *memalign(size_t align, size_t size) {
    resolve();
    return count(next_memalign(align, size));
}
int posix_memalign(void **out, size_t align, size_t size) {
    resolve();
    int status = next_posix_memalign(out, align, size);
    count(status ? NULL : *out);
    return status;
}
void *valloc(size_t size) {
    resolve();
    return count(next_valloc(size));
}
void *pvalloc(size_t size) {
    resolve();
    return count(next_pvalloc(size));
}
