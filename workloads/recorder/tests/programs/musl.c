// The malloc family on musl, whose calloc, posix_memalign and valloc call others of the family by their public names.
// Exits with 3; 9 for a block that calloc did not zero.
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int zeroed(size_t bytes) {
    for (int round = 0; round < 3; round++) {
        char *block = calloc(bytes / 4, 4);
        for (size_t i = 0; i < bytes; i++)
            if (block[i]) return 0;
        memset(block, 7, bytes);
        free(block);
    }
    return 1;
}

static void *churn(void *argument) {
    for (int i = 0; i < 1000; i++) free(malloc(10 + i));
    return argument;
}

int main(void) {
    void *block;
    pthread_t threads[4];
    if (!zeroed(3000) || !zeroed(300000)) return 9;
    mlockall(MCL_FUTURE);  // locked pages cannot be given back, and must be zeros all the same
    if (!zeroed(200000)) return 9;
    munlockall();
    if (posix_memalign(&block, 256, 1000) == 0) free(block);
    if (posix_memalign(&block, 3, 1000) == 0) return 8;
    free(memalign(128, 77));
    free(aligned_alloc(64, 640));
    free(valloc(5));
    free(calloc((size_t)-1, 2));
    block = realloc(NULL, 10);
    block = realloc(block, 100000);
    block = realloc(block, 1000000);
    free(block);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, churn, NULL);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    if (fork() == 0) {
        free(malloc(4321));
        _exit(0);
    }
    wait(NULL);
    puts("fine");
    return 3;
}
