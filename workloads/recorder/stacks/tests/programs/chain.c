// Allocations with known callers: `main > one > two > three > malloc`, and other ways to allocate.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))
static volatile int sink;

KEEP void *three(size_t size) {
    void *block = malloc(size);
    sink++;
    return block;
}
KEEP void *two(size_t size) {
    // A frame of a size that only the tables (or the frame pointer) know.
    volatile char room[200];
    room[size % 200] = 1;
    void *block = three(size);
    sink += room[7];
    return block;
}
KEEP void *one(size_t size) {
    void *block = two(size);
    sink++;
    return block;
}
KEEP void *variable(size_t size) {
    // Forces a frame pointer in any code: the frame's size is not known when it is compiled.
    volatile char *room = __builtin_alloca(size % 512 + 16);
    room[0] = 1;
    void *block = two(size);
    sink += room[0];
    return block;
}
KEEP void *again(void *block, size_t size) {
    void *new = realloc(block, size);
    sink++;
    return new;
}
KEEP void *zeroed(size_t size) {
    void *block = calloc(1, size);
    sink++;
    return block;
}
KEEP void *aligned(size_t size) {
    void *block = NULL;
    if (posix_memalign(&block, 64, size)) abort();
    sink++;
    return block;
}
static void *worker(void *size) {
    free(one((size_t)size));
    return NULL;
}
static void handler(int signal) {
    (void)signal;
    free(two(7007));
}
KEEP void interrupted(void) {
    raise(SIGUSR1);
    sink++;
}

int main(void) {
    free(one(1001));
    free(variable(2002));
    void *block = again(one(3003), 3333);
    free(block);
    free(zeroed(4004));
    free(aligned(5055));
    pthread_t thread;
    pthread_create(&thread, NULL, worker, (void *)6006);
    pthread_join(thread, NULL);
    signal(SIGUSR1, handler);
    interrupted();
    return 0;
}
