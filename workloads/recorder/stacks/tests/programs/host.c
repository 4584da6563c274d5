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
    return plugin;
}
int main(int argc, char **argv) {
    void *plugin = argc > 1 ? opens(argv[1]) : NULL;
    void *(*take)(size_t) = plugin ? (void *(*)(size_t))dlsym(plugin, "plugin_take") : NULL;
    if (!take) return 1;
    free(take(8002));
    return 0;
}
#endif
