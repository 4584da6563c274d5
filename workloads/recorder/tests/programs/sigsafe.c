// An allocator that may be interrupted anywhere by a handler that allocates: small blocks are bits
// of an atomic bitmap, so that addresses come back soon; large ones are carved off and never reused.
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { CELL = 2048, WORDS = 16, ARENA = 64 << 20 };
static _Alignas(4096) char cells[WORDS * 64 * CELL];
static _Alignas(4096) char arena[ARENA];
static _Atomic uint64_t used[WORDS];
static atomic_size_t carved;

static void *carve(size_t align, size_t size) {
    if (size > ARENA / 2 || align > ARENA / 4) return NULL;
    if (align < 16) align = 16;
    size_t room = (size + align + 31) & ~(size_t)15;
    size_t start = atomic_fetch_add(&carved, room);
    if (start > ARENA - room) return NULL;
    uintptr_t block = ((uintptr_t)arena + start + 16 + align - 1) & ~(uintptr_t)(align - 1);
    ((size_t *)block)[-1] = size;
    return (void *)block;
}

static void *allocate(size_t size) {
    if (size > CELL) return carve(16, size);
    for (int word = 0; word < WORDS; word++) {
        uint64_t seen = used[word];
        while (~seen) {
            uint64_t bit = ~seen & -~seen;
            if (atomic_compare_exchange_weak(&used[word], &seen, seen | bit))
                return cells + ((size_t)word * 64 + __builtin_ctzll(bit)) * CELL;
        }
    }
    return carve(16, size);
}

static int is_cell(void *block) {
    return (uintptr_t)block - (uintptr_t)cells < sizeof cells;
}

static void give_back(void *block) {
    if (!block || !is_cell(block)) return;
    size_t cell = ((uintptr_t)block - (uintptr_t)cells) / CELL;
    atomic_fetch_and(&used[cell / 64], ~(1ull << (cell % 64)));
}

void *malloc(size_t size) { return allocate(size); }
void free(void *block) { give_back(block); }

void *calloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
    void *block = allocate(bytes);
    return block ? memset(block, 0, bytes) : NULL;
}

void *realloc(void *block, size_t size) {
    void *new = allocate(size);
    if (!new || !block) return new;
    size_t old = is_cell(block) ? CELL : ((size_t *)block)[-1];
    memcpy(new, block, old < size ? old : size);
    give_back(block);
    return new;
}

void *aligned_alloc(size_t align, size_t size) { return carve(align, size); }
void *memalign(size_t align, size_t size) { return carve(align, size); }
void *valloc(size_t size) { return carve(4096, size); }
void *pvalloc(size_t size) { return carve(4096, (size + 4095) & ~(size_t)4095); }
int posix_memalign(void **out, size_t align, size_t size) {
    *out = carve(align, size);
    return *out ? 0 : ENOMEM;
}
