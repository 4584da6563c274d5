/* Programs that have memory beside what they get from malloc. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

enum { MIB = 1 << 20, BLOCK = 8 << 10, BLOCKS = MIB / BLOCK };

static char *own(size_t bytes, int written) {
    char *p = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) exit(9);
    if (written) memset(p, 1, bytes);
    return p;
}

static void *blocks[64 * BLOCKS];

static void heap(int from_mib, int to_mib) {
    for (int i = from_mib * BLOCKS; i < to_mib * BLOCKS; i++) memset(blocks[i] = malloc(BLOCK), 1, BLOCK);
}

static void pause_ms(int ms) { usleep(ms * 1000); }

/* As ruby does: less of its own where it is told that its blocks are larger. */
static void by_usable_size(void) {
    void *block = malloc(1000);
    int generous = malloc_usable_size(block) > 1010;
    heap(0, 16);
    own((generous ? 8 : 40) * MIB, 1);
    pause_ms(200);
}

/* Most is in memory when the heap is small, before its peak and behind it. */
static void around_the_peak(void) {
    char *first = own(30 * MIB, 1);
    pause_ms(50);
    munmap(first, 30 * MIB);
    heap(0, 24);
    pause_ms(100);
    for (int i = 8 * BLOCKS; i < 24 * BLOCKS; i++) free(blocks[i]);
    own(64 * MIB, 1);
    /* Of this nothing is ever in memory. */
    own(512 * MIB, 0);
    pause_ms(100);
}

static void *busy(void *argument) {
    char *kept = own(MIB, 1);
    for (int i = 0; i < 3000; i++) {
        char *p = own(16 << 10, 1);
        p = mremap(p, 16 << 10, 64 << 10, MREMAP_MAYMOVE);
        memset(p, 1, 64 << 10);
        munmap(p + (48 << 10), 16 << 10);
        munmap(p, 48 << 10);
    }
    kept = mremap(kept, MIB, 4 * MIB, MREMAP_MAYMOVE);
    memset(kept, 1, 4 * MIB);
    /* Half of it goes back. */
    madvise(kept, 2 * MIB, MADV_DONTNEED);
    return argument;
}

static void threads(void) {
    pthread_t all[4];
    heap(0, 8);
    for (int i = 0; i < 4; i++) pthread_create(&all[i], 0, busy, 0);
    heap(8, 15);
    for (int i = 0; i < 4; i++) pthread_join(all[i], 0);
    /* The peak, when all is as it stays. */
    heap(15, 17);
    pause_ms(200);
}

/* A file, shared memory and what is mapped over own memory are no own memory. */
static void others(void) {
    char *own_ones = own(4 * MIB, 1);
    if (mmap(own_ones, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) exit(9);
    memset(own_ones, 1, 2 * MIB);
    char *shared = mmap(0, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 1, 8 * MIB);
    /* Refused, and nothing changes by it. */
    if (munmap(own_ones + 1, MIB) == 0) exit(9);
    if (mremap(own_ones + 2 * MIB, 2 * MIB, (size_t)1 << 60, 0) != MAP_FAILED) exit(9);
    heap(0, 16);
    pause_ms(200);
}

/* Large ones that are filled as they are mapped, emptied and unmapped while the heap stays as it is. */
static void comes_and_goes(void) {
    heap(0, 16);
    for (int i = 0; i < 12; i++) {
        char *p = mmap(0, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (p == MAP_FAILED) exit(9);
        if (i % 3 == 1) {
            madvise(p, 64 * MIB, MADV_DONTNEED);
            memset(p, 1, 8 * MIB);
        }
        if (i % 3 == 2) p = mremap(p, 64 * MIB, 48 * MIB, 0);
        munmap(p, 64 * MIB);
    }
    own(2 * MIB, 1);
    heap(16, 17);
    pause_ms(100);
}

/* Unmaps until the kernel has no room for one more piece. */
static void torn(void) {
    long most;
    FILE *limit = fopen("/proc/sys/vm/max_map_count", "r");
    if (!limit || fscanf(limit, "%ld", &most) != 1) exit(8);
    size_t pages = 2 * most + 100;
    char *p = own(pages * 4096, 0);
    for (size_t i = 1; i < pages; i += 2)
        if (munmap(p + i * 4096, 4096) != 0) break;
    if (munmap(p, pages * 4096) != 0) exit(9);
    own(2 * MIB, 1);
    heap(0, 16);
    pause_ms(100);
}

/* A handler maps memory in the middle of an unmapping: from then on nobody knows what is mapped. */
static void on_alarm(int number) {
    munmap(own(4096, 0), 4096);
}

static void interrupted(void) {
    signal(SIGALRM, on_alarm);
    struct itimerval often = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 20; i++) munmap(own(64 * MIB, 1), 64 * MIB);
    often = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, 0);
    heap(0, 16);
    for (int i = 0; i < 10; i++) pause_ms(10);
}

/* Too much to look through. */
static void reserve(void) {
    own((size_t)17 << 30, 0);
    heap(0, 16);
    pause_ms(200);
}

/* Another program in the place of this one; and a child, whose mappings are not its parent's. */
static void in_place(char *program) {
    own(32 * MIB, 1);
    pause_ms(50);
    if (fork() == 0) {
        own(16 * MIB, 1);
        pause_ms(100);
        _exit(0);
    }
    execl(program, program, "by_usable_size", (char *)0);
}

int main(int argc, char **argv) {
    const char *names[] = {"by_usable_size", "around_the_peak", "threads", "others", "comes_and_goes", "torn", "interrupted", "reserve"};
    void (*const all[])(void) = {by_usable_size, around_the_peak, threads, others, comes_and_goes, torn, interrupted, reserve};
    if (argc != 2) return 7;
    if (!strcmp(argv[1], "in_place")) in_place(argv[0]);
    for (int i = 0; i < 8; i++)
        if (!strcmp(argv[1], names[i])) return all[i](), 0;
    return 7;
}
