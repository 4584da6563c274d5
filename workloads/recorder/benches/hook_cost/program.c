// The program that is timed: pairs of malloc and free in one or more threads.
// usage: hook_cost random|pair THREADS PAIRS  → prints nanoseconds an event (a pair has two): wall, CPU time of the
// thread; then KiB of anonymous memory at the end.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLOTS = 8192 };
static long pairs;
static int tight;
static pthread_barrier_t barrier;
// Of each thread: on one line the threads would slow each other down, recorded or not.
static _Thread_local void *volatile kept;

static double now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

struct result {
    double wall, cpu;
};

static long anonymous_kib(void) {
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "RssAnon: %ld", &kib);
    return kib;
}

static void random_pairs(void **slots, long count) {
    unsigned long state = 0x9e3779b97f4a7c15;
    for (long i = 0; i < count; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        void **slot = &slots[(state >> 33) % SLOTS];
        free(*slot);
        *slot = malloc(16 + (state >> 50) % 2033);
    }
}

static void tight_pairs(long count) {
    for (long i = 0; i < count; i++) {
        void *block = malloc(64);
        kept = block;  // keeps the compiler from taking the pair away
        free(block);
    }
}

static void *run(void *result) {
    void **slots = calloc(SLOTS, sizeof *slots);
    if (tight) tight_pairs(pairs / 10); else random_pairs(slots, SLOTS * 4);
    pthread_barrier_wait(&barrier);
    double wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
    if (tight) tight_pairs(pairs); else random_pairs(slots, pairs);
    struct result *of = result;
    of->wall = (now_ns(CLOCK_MONOTONIC) - wall) / pairs / 2;
    of->cpu = (now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu) / pairs / 2;
    return NULL;
}

int main(int argc, char **argv) {
    int threads = argc > 2 ? atoi(argv[2]) : 1;
    tight = argc > 1 && !strcmp(argv[1], "pair");
    pairs = argc > 3 ? atol(argv[3]) : 1000000;
    struct result results[64], sum = {0, 0};
    pthread_t handles[64];
    if (threads < 1 || threads > 64) return 1;
    pthread_barrier_init(&barrier, NULL, threads);
    for (int i = 0; i < threads; i++) pthread_create(&handles[i], NULL, run, &results[i]);
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
    for (int i = 0; i < threads; i++) sum.wall += results[i].wall, sum.cpu += results[i].cpu;
    printf("%.3f %.3f %ld\n", sum.wall / threads, sum.cpu / threads, anonymous_kib());
    return 0;
}
