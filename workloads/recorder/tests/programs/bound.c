// A library that is opened with RTLD_DEEPBIND. With OWN it has an allocator of its own, with DEPENDS it calls another library's.
#include <stddef.h>

#ifdef OWN
static char heap[1 << 16];
static size_t used;
void *malloc(size_t size) {
    void *block = heap + used;
    used += (size + 15) & ~15ul;
    return block;
}
void free(void *block) { (void)block; }
int plugin_is_own(void *block) { return (char *)block >= heap && (char *)block < heap + sizeof heap; }
#endif
#include <stdlib.h>

#ifdef DEPENDS
void *depends_take(size_t size);
void *plugin_depends(size_t size) { return depends_take(size); }
#endif

// In a table of constants, and by the C library's tables of calls.
static void *(*const volatile in_table[])(size_t) = {malloc};
void *plugin_take(size_t size) { return malloc(size); }
void *plugin_table(size_t size) { return in_table[0](size); }
void plugin_give(void *block) { free(block); }
void *plugin_grow(void *block, size_t size) { return realloc(block, size); }

static void *early[2];
void *plugin_early(int which) { return early[which]; }
__attribute__((constructor)) static void begin(void) {
    early[0] = malloc(4101);
    early[1] = malloc(4102);
}
__attribute__((destructor)) static void end(void) { free(malloc(4002)); }
