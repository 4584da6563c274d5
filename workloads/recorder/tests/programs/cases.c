// One program with a case for each way in which a recording could lose something.
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile kept;

static void churn(int rounds) {
    for (int i = 0; i < rounds; i++) {
        void *block = malloc(16 + i % 500);
        kept = block;
        if (i % 7 == 0) block = realloc(block, 900);
        free(block);
    }
}

static void every_function(void) {
    void *out = NULL;
    free(malloc(10));
    free(calloc(3, 5));
    free(realloc(NULL, 40));
    free(reallocarray(malloc(8), 10, 10));
    free(aligned_alloc(64, 128));
    free(memalign(256, 300));
    if (posix_memalign(&out, 4096, 77) == 0) free(out);
    free(valloc(100));
    free(pvalloc(100));
    free(NULL);
    kept = malloc((size_t)-4096);
    if (kept) abort();
    kept = malloc(6ul << 30);  // more than 32 bits of size
    free(kept);
}

// Blocks travel through a mailbox: freed in another thread than they were allocated in.
enum { BOXES = 64 };
static _Atomic(void *) mailbox[BOXES];
static void *hand_over(void *number) {
    unsigned seed = (unsigned)(size_t)number + 1;
    prctl(PR_SET_NAME, "hander", 0, 0, 0);
    for (int i = 0; i < 40000; i++) {
        seed = seed * 1664525 + 1013904223;
        free(atomic_exchange(&mailbox[seed >> 26], malloc(8 + (seed >> 10) % 600)));
    }
    return NULL;
}

static void *short_life(void *argument) {
    free(malloc(100 + (size_t)argument % 50));
    return NULL;
}

// Allocates in a handler, at any instruction of the hooks but never inside libc's own malloc,
// which is not made for it: the flag is up only around calls that never reach libc, because the
// recorder answers them alone (a free of nothing, a reallocarray that overflows, which is recorded).
static volatile sig_atomic_t may_allocate;
static volatile sig_atomic_t handled;
static void on_alarm(int signal) {
    (void)signal;
    if (!may_allocate) return;
    handled++;
    for (int i = 0; i < 40; i++) free(malloc(1000 + i));
}

// Allocates in a handler that may interrupt the allocator itself, which must be made for it.
static void on_storm(int signal) {
    (void)signal;
    handled++;
    for (int i = 0; i < 3; i++) free(malloc(200 + i));
    if (handled % 64 == 0)  // longer than a chunk has records
        for (int i = 0; i < 1500; i++) free(malloc(300));
}

static pthread_key_t key;
static void at_thread_end(void *block) {
    free(block);
    static _Thread_local int again = 2;
    if (again-- > 0) pthread_setspecific(key, malloc(33));
}
static void *with_key(void *argument) {
    (void)argument;
    pthread_setspecific(key, malloc(32));
    return NULL;
}

__attribute__((constructor)) static void early(void) { free(malloc(1001)); }
__attribute__((destructor)) static void late(void) { free(malloc(1002)); }
static void at_exit(void) { free(malloc(1003)); }

static void *churn_thread(void *stop) {
    while (!*(atomic_int *)stop) churn(100);
    return NULL;
}

// All threads are there at the same time, each with events before and after.
static pthread_barrier_t all;
static void *at_once(void *number) {
    void *block = malloc(600 + (size_t)number);
    pthread_barrier_wait(&all);
    for (int i = 0; i < 50; i++) free(malloc(16 + i));
    free(block);
    return NULL;
}

// Opens a library, uses it and closes it.
static int use_plugin(const char *file) {
    void *plugin = dlopen(file, RTLD_NOW);
    if (!plugin) return 90;
    void *(*take)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_take");
    void (*give)(void *) = (void (*)(void *))dlsym(plugin, "plugin_give");
    give(take(4003));
    free(take(4004));
    give(malloc(4005));
    return dlclose(plugin) ? 91 : 0;
}

// Blocks of less than 16 KiB. Of those that count at the end 40 are never written, on memory that nobody had before.
static int unwritten(int count) {
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    // Behind all that the C library has freed so far.
    char *fresh = sbrk(0);
    while ((char *)malloc(1 << 20) < fresh) {}
    for (int i = 0; i < count; i++) free(malloc(600));
    for (int i = 0; i < 30; i++) {
        char *first = malloc(1024), *last = malloc(1024), *none = malloc(1024);
        first[0] = 1;
        last[1023] = 1;
        if (!none) return 98;
    }
    for (int i = 0; i < 10; i++) {
        char *zeros = calloc(1, 2000), *grows = malloc(1024);
        grows = realloc(grows, 1500);  // of what was resized nothing is told
        free(malloc(1024));
        if (!zeros || !grows || !malloc(511)) return 98;  // the last is too small to be told of
    }
    return 0;
}

// Large blocks of which parts are written. From the heap, so that one has the pages of another.
static int written(void) {
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    free(malloc(8 << 20));
    char *begin = malloc(1 << 20);
    memset(begin, 1, 100 << 10);
    free(begin);
    char *whole = malloc(1 << 20);
    memset(whole, 2, 1 << 20);
    free(whole);
    char *zeros = calloc(1, 1 << 20);
    for (int i = 0; i < 1 << 20; i += 512)
        if (zeros[i]) return 96;
    free(zeros);
    char *none = malloc(1 << 20);
    free(none);
    char *grown = malloc(256 << 10);
    for (int i = 0; i < 256 << 10; i++) grown[i] = i * 7;
    grown = realloc(grown, 1 << 20);
    for (int i = 0; i < 256 << 10; i++)
        if (grown[i] != (char)(i * 7)) return 97;
    free(grown);
    char *middle = malloc(60 << 10);
    memset(middle, 1, 20 << 10);
    free(middle);
    char *small = malloc(12 << 10);
    memset(small, 1, 12 << 10);
    free(small);
    volatile char *kept = malloc(2 << 20);
    for (int i = 0; i < 2 << 20; i += 8 * 4096) kept[i] = 3;
    return 0;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    int count = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(mode, "functions")) {
        every_function();
    } else if (!strcmp(mode, "handover")) {
        pthread_t threads[8];
        for (size_t i = 0; i < 8; i++) pthread_create(&threads[i], NULL, hand_over, (void *)i);
        for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < BOXES; i++) free(mailbox[i]);
    } else if (!strcmp(mode, "short")) {
        for (int i = 0; i < count; i += 4) {
            pthread_t threads[4];
            for (size_t k = 0; k < 4; k++) pthread_create(&threads[k], NULL, short_life, (void *)k);
            for (int k = 0; k < 4; k++) pthread_join(threads[k], NULL);
        }
    } else if (!strcmp(mode, "signal")) {
        struct itimerval every = {{0, 200}, {0, 200}};
        signal(SIGALRM, on_alarm);
        setitimer(ITIMER_REAL, &every, NULL);
        may_allocate = 1;
        for (int i = 0; i < count || handled < 20; i++) kept = reallocarray(NULL, (size_t)-1, 2);
        may_allocate = 0;
    } else if (!strcmp(mode, "storm")) {
        struct itimerval every = {{0, 100}, {0, 100}};
        signal(SIGALRM, on_storm);
        setitimer(ITIMER_REAL, &every, NULL);
        for (int i = 0; i < count || handled < 100; i++) free(malloc(16 + i % 50));
        every.it_interval.tv_usec = every.it_value.tv_usec = 0;
        setitimer(ITIMER_REAL, &every, NULL);
        printf("%d\n", (int)handled);
    } else if (!strcmp(mode, "keys")) {
        pthread_key_create(&key, at_thread_end);
        pthread_t thread;
        for (int i = 0; i < 50; i++) {
            pthread_create(&thread, NULL, with_key, NULL);
            pthread_join(thread, NULL);
        }
    } else if (!strcmp(mode, "lives")) {
        atexit(at_exit);
    } else if (!strcmp(mode, "fork")) {
        atomic_int stop = 0;
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, churn_thread, &stop);
        int sum = 0;
        for (int i = 0; i < 20; i++) {
            pid_t child = fork();
            if (child == 0) {
                churn(500);
                _exit(i);
            }
            int status;
            waitpid(child, &status, 0);
            sum += WEXITSTATUS(status);
        }
        stop = 1;
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
        printf("%d\n", sum);
    } else if (!strcmp(mode, "many")) {
        static pthread_t threads[1000];
        pthread_barrier_init(&all, NULL, count);
        for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, at_once, (void *)(size_t)i);
        for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    } else if (!strcmp(mode, "plugin")) {
        for (int i = 0; i < 3; i++) {
            int wrong = use_plugin(argv[2]);
            if (wrong) return wrong;
        }
        return 0;
    } else if (!strcmp(mode, "crash")) {
        churn(count);
        *(volatile int *)malloc_usable_size(NULL) = 1;  // a null pointer that the compiler does not see
    } else if (!strcmp(mode, "exec")) {
        // The same program again, with one less to go; a thread dies of it.
        atomic_int never = 0;
        pthread_t thread;
        churn(100);
        if (count > 0) {
            char next[16];
            pthread_create(&thread, NULL, churn_thread, &never);
            snprintf(next, sizeof next, "%d", count - 1);
            execl(argv[0], argv[0], mode, next, (char *)NULL);
            return 92;
        }
        return 9;
    } else if (!strcmp(mode, "vfork")) {
        // Each child allocates in the heap it shares with its parent, and becomes a program that is not recorded.
        char *const arguments[] = {"true", NULL}, *const nothing[] = {NULL};
        for (int i = 0; i < count; i++) {
            pid_t child;
            free(malloc(5001));
            if (i % 2) {
                if (posix_spawn(&child, "/bin/true", NULL, NULL, arguments, nothing)) return 93;
            } else if ((child = vfork()) == 0) {
                free(malloc(5002));
                execve("/bin/true", arguments, nothing);
                _exit(94);
            }
            int status;
            if (waitpid(child, &status, 0) != child || status) return 95;
            free(malloc(5003));
        }
    } else if (!strcmp(mode, "written")) {
        return written();
    } else if (!strcmp(mode, "unwritten")) {
        return unwritten(count);
    } else if (!strcmp(mode, "churn")) {
        churn(count);
    } else if (!strcmp(mode, "kill") || !strcmp(mode, "abort") || !strcmp(mode, "_exit")) {
        churn(count);
        if (mode[0] == 'k') kill(getpid(), SIGKILL);
        if (mode[0] == 'a') abort();
        _exit(7);
    }
    return count % 100;
}
