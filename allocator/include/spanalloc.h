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

/* Gives all free memory back to the system and asks other threads to empty their caches when they
 * next refill or overflow one. Returns the bytes given back now. */
size_t spanalloc_release_memory(void);

/* Writes a sampled heap profile to path. Returns 0 or an errno value; this version does not
 * sample and always returns ENOTSUP. */
int spanalloc_heap_profile(const char *path);

#ifdef __cplusplus
}
#endif

#endif
