/* spanalloc: extensions of libspanalloc.so beyond the malloc family. */
#ifndef SPANALLOC_H
#define SPANALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version, for example "0.1.0". Never null, never freed. */
const char *spanalloc_version(void);

/* Writes the statistics as one JSON object and a null byte into buf. Returns the length of the
 * text without the null byte; a result of len or more means that the text was cut off. With len 0
 * nothing is written. Does not allocate. Fields: docs/STATS.md. */
size_t spanalloc_stats_json(char *buf, size_t len);

/* Gives all free memory back to the system and calls other threads to empty their caches before
 * their next operation. Returns the bytes given back now; what threads that make no call hold, or
 * CPUs that cannot be reached, is "unreached_bytes" in the statistics. */
size_t spanalloc_release_memory(void);

/* malloc for a block that will hold no pointers (a buffer, text, numbers): it comes from a heap of its own, with which
 * other blocks never share a page or, later, an address. Free and resize it as any block; it stays data. Ignored under
 * hardened=1. */
void *spanalloc_malloc_data(size_t size);

/* Makes a block usable for at least size bytes without moving it: a small block has the rest of its size
 * class, a large one grows into the pages behind it while these are free. Returns the bytes that it has
 * then, all of which may be used, or 0: nothing has changed. */
size_t spanalloc_try_grow(void *block, size_t size);

/* Samples one byte in mean_bytes of what is allocated from now on, with stacks (512 KiB is a good mean for
 * a service); 0 stops. SPANALLOC_CONF=profile_bytes=512k does it from the start. Returns 0, or ENOTSUP
 * with front_end=cpu, check and hardened. */
int spanalloc_profile_start(size_t mean_bytes);

/* Writes the heap profile to path, in the text form that pprof and jeprof read (docs/PROFILE.md). Returns 0,
 * ENODATA if no profile was started, or another errno value. Does not allocate. */
int spanalloc_heap_profile(const char *path);

/* A run of pages of the heap. */
struct spanalloc_region {
    void *address;
    size_t bytes;
    size_t block_bytes;  /* bytes of a block; 0 for free pages */
    size_t blocks;       /* blocks that the region has room for */
    size_t used;         /* of these, with the program or in caches */
    size_t purged_bytes; /* inside a region of blocks, given back to the system */
    int kind;            /* 1 blocks of a size class, 2 a large block, 3 free pages, 4 free pages given back */
    int partition;       /* 0 the main heap, 1 data (spanalloc_malloc_data) */
};

/* Calls visit with every region in order of address until it returns something other than 0, which
 * is then the result; 0 at the end. No lock is held during the calls. */
int spanalloc_walk(int (*visit)(const struct spanalloc_region *, void *context), void *context);

/* Limits the bytes in use (spans: blocks, rounded up, and what caches hold); 0: no limit. Beyond hard,
 * requests get null and ENOMEM. callback (or null) is called when the use grows beyond soft (which 1)
 * and when hard has refused a request (which 2), in the thread whose request it was, with no lock held:
 * it may free and release. Without callback, crossing soft gives all free memory back. If more than soft is
 * in use already, all that is free is given back at once, and callback is called if it is still more. */
void spanalloc_set_limits(size_t soft, size_t hard, void (*callback)(unsigned which, size_t in_use_bytes));

/* Prints the statistics as text on standard error. Does not allocate. */
void spanalloc_dump(void);

#ifdef __cplusplus
}
#endif

#endif
