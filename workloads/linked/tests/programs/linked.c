// A static program with every function that is wrapped, threads and a fork.
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern void heaplab_mark(const char *) __attribute__((weak));

static void *work(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) free(malloc(1111));
    return NULL;
}

int main(void) {
    void *out = NULL;
    if (heaplab_mark) heaplab_mark("family");
    free(calloc(3, 5));
    free(realloc(malloc(10), 40));
    free(reallocarray(NULL, 10, 7));
    free(aligned_alloc(64, 128));
    free(memalign(256, 300));
    if (posix_memalign(&out, 4096, 77)) return 90;
    free(out);
    free(strdup("nineteen letters ..."));  // malloc is called inside the C library
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    pid_t child = fork();
    if (child == 0) {
        free(malloc(2222));
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return status ? 91 : 7;
}
