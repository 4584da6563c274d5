// Opens libraries with RTLD_DEEPBIND.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *find(void *plugin, const char *name) {
    void *found = dlsym(plugin, name);
    if (!found) exit(90);
    return found;
}
static void *take(void *plugin, const char *by, size_t size) {
    return ((void *(*)(size_t))find(plugin, by))(size);
}
static void give(void *plugin, void *block) { ((void (*)(void *))find(plugin, "plugin_give"))(block); }
static void *open_it(const char *file, int flags) {
    void *plugin = dlopen(file, flags);
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        exit(91);
    }
    return plugin;
}

static void use(const char *file, int flags) {
    void *plugin = open_it(file, RTLD_DEEPBIND | flags);
    give(plugin, take(plugin, "plugin_take", 4003));
    free(take(plugin, "plugin_table", 4004));
    give(plugin, malloc(4005));
    void *(*grow)(void *, size_t) = (void *(*)(void *, size_t))find(plugin, "plugin_grow");
    give(plugin, grow(take(plugin, "plugin_take", 4006), 4007));
    void *(*early)(int) = (void *(*)(int))find(plugin, "plugin_early");
    give(plugin, early(0));
    give(plugin, grow(early(1), 4103));
    if (dlclose(plugin)) exit(92);
}

static void *churn(void *file) {
    for (int i = 0; i < 200; i++) {
        void *plugin = open_it(file, RTLD_NOW | (i % 3 ? RTLD_DEEPBIND : 0));
        give(plugin, take(plugin, "plugin_take", 4100));
        dlclose(plugin);
    }
    return NULL;
}

int main(int argc, char **argv) {
    const char *mode = argv[1], *file = argv[2];
    if (!strcmp(mode, "now") || !strcmp(mode, "lazy")) {
        for (int i = 0; i < 3; i++) use(file, mode[0] == 'n' ? RTLD_NOW : RTLD_LAZY);
    } else if (!strcmp(mode, "depends")) {
        void *plugin = open_it(file, RTLD_NOW | RTLD_DEEPBIND);
        free(take(plugin, "plugin_depends", 4008));
    } else if (!strcmp(mode, "vector")) {
        void *plugin = open_it(file, RTLD_LAZY | RTLD_DEEPBIND);
        return ((size_t(*)(size_t))find(plugin, "plugin_vector"))(4009) != 4009;
    } else if (!strcmp(mode, "opener")) {
        // What is given is found by the folders of the library that opens it, in front of the program's.
        void *opener = open_it(file, RTLD_NOW);
        void *(*open_by)(const char *, int) = (void *(*)(const char *, int))find(opener, "opener_open");
        for (int i = 3; i < argc; i++) {
            void *plugin = open_by(argv[i], RTLD_NOW | RTLD_DEEPBIND);
            if (!plugin) {
                puts(dlerror());
                continue;
            }
            give(plugin, take(plugin, "plugin_take", 4010));
            dlclose(plugin);
        }
    } else if (!strcmp(mode, "errors")) {
        errno = 77;
        void *none = dlopen("libof-no-file.so", RTLD_NOW | RTLD_DEEPBIND);
        printf("%p %d %s\n", none, errno, dlerror());
        none = dlopen(file, RTLD_DEEPBIND);  // neither now nor lazily
        printf("%p %s\n", none, dlerror());
        errno = 78;
        void *plugin = dlopen(file, RTLD_LAZY | RTLD_DEEPBIND);
        printf("%d %d\n", plugin != NULL, errno);
        const char *text = dlerror();
        printf("%s\n", text ? text : "fine");
        printf("%p\n", dlmopen(LM_ID_BASE, "libof-no-file.so", RTLD_NOW | RTLD_DEEPBIND));
    } else if (!strcmp(mode, "again")) {
        // Bound as usual by the first; the flag changes nothing of what is there.
        void *plugin = open_it(file, RTLD_LAZY);
        give(plugin, take(plugin, "plugin_take", 4011));
        open_it(file, RTLD_LAZY | RTLD_DEEPBIND);
        give(plugin, take(plugin, "plugin_take", 4012));
        open_it(file, RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND);
        give(plugin, take(plugin, "plugin_table", 4013));
        if (dlopen("libof-no-file.so", RTLD_NOW | RTLD_NOLOAD | RTLD_DEEPBIND)) return 93;
    } else if (!strcmp(mode, "base") || !strcmp(mode, "other")) {
        Lmid_t space = mode[0] == 'b' ? LM_ID_BASE : LM_ID_NEWLM;
        void *plugin = dlmopen(space, file, RTLD_NOW | RTLD_DEEPBIND);
        if (!plugin) return 94;
        give(plugin, take(plugin, "plugin_take", 4014));
    } else if (!strcmp(mode, "own")) {
        void *plugin = open_it(file, RTLD_NOW | RTLD_DEEPBIND);
        void *block = take(plugin, "plugin_take", 4015);
        if (!((int (*)(void *))find(plugin, "plugin_is_own"))(block)) return 95;
        give(plugin, block);
    } else if (!strcmp(mode, "threads")) {
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, churn, argv[2 + i]);
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    }
    return 0;
}
