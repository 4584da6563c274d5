// stack_cost DEPTH PAIRS: allocates and frees 16 bytes to 2 KiB in 8192 slots under DEPTH calls; nanoseconds an event on
// standard output. One allocation in eight comes from a call site of its own, so that stacks change.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEEP __attribute__((noinline, noclone))
static void *slots[8192];
static unsigned long state = 88172645463325252UL;
static volatile int sink;

static unsigned long next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
KEEP static void *often(size_t size) {
    void *block = malloc(size);
    sink++;
    return block;
}
KEEP static void *seldom(size_t size) {
    void *block = malloc(size);
    sink++;
    return block;
}
static long left;
KEEP static void work(void) {
    for (; left > 0; left--) {
        unsigned long random = next();
        void **slot = &slots[random % 8192];
        size_t size = 16 + (random >> 20) % 2032;
        free(*slot);
        *slot = random >> 60 < 2 ? seldom(size) : often(size);
    }
}
KEEP static void deeper(int depth) {
    // A frame like those of real code: some bytes of locals.
    volatile char room[48];
    room[depth % 48] = 1;
    if (depth > 0)
        deeper(depth - 1);
    else
        work();
    sink += room[1];
}

int main(int argc, char **argv) {
    int depth = argc > 1 ? atoi(argv[1]) : 0;
    long pairs = argc > 2 ? atol(argv[2]) : 1000000;
    left = pairs / 10;
    deeper(depth);
    struct timespec start, end;
    left = pairs;
    clock_gettime(CLOCK_MONOTONIC, &start);
    deeper(depth);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.2f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / pairs / 2);
    return 0;
}
