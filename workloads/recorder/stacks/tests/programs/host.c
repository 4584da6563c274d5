// Opens this file's library form with RTLD_DEEPBIND, whose constructor calls back while the opening goes on.
#include <dlfcn.h>
#include <stdlib.h>

#ifdef PLUGIN
void *host_take(size_t size);
__attribute__((constructor)) static void plugin_begins(void) { free(host_take(8001)); }
void *plugin_take(size_t size) {
    void *block = malloc(size);
    return block;
}
#else
void *host_take(size_t size) {
    void *block = malloc(size);
    return block;
}
static void *opens(const char *file) {
    void *plugin = dlopen(file, RTLD_NOW | RTLD_DEEPBIND);
    void *(*take)(size_t) = plugin ? (void *(*)(size_t))dlsym(plugin, "plugin_take") : NULL;
    if (!take) exit(1);
    free(take(8002));
    exit(0);
}
// The first that returns behind the opening: with an rbp on the stack that is not a frame's.
__attribute__((noinline, optimize("O2,omit-frame-pointer"))) int uses_rbp(int number) {
    __asm__ volatile("xor %%ebp, %%ebp" ::: "rbp");
    return number;
}
int main(int argc, char **argv) { return opens(argv[argc - 1]) != NULL; }
#endif
