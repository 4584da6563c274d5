// A known load for sampling: `small` allocates 40 MB in blocks of 100 bytes, `large` 60 MB in blocks of 60,000, in two threads.
#include <pthread.h>
#include <stdlib.h>

#define KEEP __attribute__((noinline, noclone))
static volatile int sink;

KEEP void small(void) {
    for (int i = 0; i < 400000; i++) {
        free(malloc(100));
        sink++;
    }
}
KEEP void large(void) {
    for (int i = 0; i < 1000; i++) {
        free(malloc(60000));
        sink++;
    }
}
static void *worker(void *unused) {
    (void)unused;
    large();
    return NULL;
}

int main(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, worker, NULL);
    small();
    pthread_join(thread, NULL);
    return 0;
}
